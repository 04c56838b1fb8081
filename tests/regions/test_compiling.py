"""A region that compiles runs the outermost modules that are called in it compiled, and leaves everything as it was."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.dynamo import compiled_by_dynamo
from tests.fresh import Fresh
from tests.regions.compiled import BARE, Backend, Broken, Net, X, steps
from torchturbo import accelerate, turbo
from torchturbo.regions.compiling import Keywords, call_compiled, compilations, forget

# torch's own warning about its own code: Dynamo looks at the gradient of every tensor that crosses a break in a graph.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:The \.grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.usefixtures("fresh_compiler"),
]

CALL = nn.Module.__call__
ROOT = Path(__file__).parents[2]


@pytest.fixture
def backend() -> Backend:
    return Backend()


def seeded(kind: Callable[[], nn.Module] = Net) -> nn.Module:
    torch.manual_seed(0)
    return kind()


# --------------------------------------------------------------------------------------------- what is compiled


def test_the_outermost_module_is_one_graph(backend: Backend) -> None:
    net = seeded()
    with turbo(BARE, compile={"backend": backend, "fullgraph": True}):
        net(X)
        net(X)
    assert len(backend.graphs) == 1
    assert any("norm" in name for name in backend.graphs[0]), "its parts are in it"
    net(X)
    assert len(backend.graphs) == 1
    with turbo(BARE, compile=False):
        net.eval()(X)
    assert len(backend.graphs) == 1


def test_training_gives_what_it_gives_without(backend: Backend) -> None:
    expected = steps(seeded())
    with turbo(BARE, compile=backend.options):
        found = steps(seeded())
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert len(backend.graphs) == 2, "training and evaluation"


INDUCTOR = """
import torch
from tests.regions.compiled import BARE, Net, steps
from torchturbo import turbo
from torchturbo.regions.compiling import compilations

def seeded():
    torch.manual_seed(0)
    return Net()

by_hand = seeded()
by_hand.compile()
expected = steps(by_hand, count=5)
net = seeded()
with turbo(BARE, strict=True, compile=True):
    found = steps(net, count=5)
    (before,) = compilations()
    net.load_state_dict(seeded().state_dict())
    steps(net, count=20)
assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
assert compilations() == (before,), "compiled again"
print(before.name, before.how, before.count, before.seconds > 0)
"""


@pytest.mark.slow
def test_with_inductor_it_gives_the_bits_of_a_module_compiled_by_hand() -> None:
    # In a process of its own: inductor leaves threads running.
    run = subprocess.run([sys.executable, "-c", INDUCTOR], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[:2] == ["Net", "default"]


def test_a_whole_train_function_compiles_its_modules_and_nothing_else(backend: Backend) -> None:
    net, loss_of = seeded(), nn.MSELoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    @accelerate(profile=BARE, compile=backend.options)
    def train() -> float:
        optimizer.zero_grad()
        loss = loss_of(net(X), X)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    assert train() > train() > train()
    assert len(backend.graphs) == 2
    assert [any("mse_loss" in name for name in graph) for graph in backend.graphs] == [False, True]
    assert not any("grad" in name or "foreach" in name for graph in backend.graphs for name in graph)


def test_inside_another_region_the_newest_wins(backend: Backend) -> None:
    outer, net = Backend(), seeded()
    with turbo(BARE, compile=outer.options):
        with turbo(BARE, compile=backend.options):
            net(X)
        assert (len(outer.graphs), len(backend.graphs)) == (0, 1)
        with turbo(BARE, compile=False):
            net(X)
        assert (len(outer.graphs), len(backend.graphs)) == (0, 1)
        net(X)
    assert (len(outer.graphs), len(backend.graphs)) == (1, 1)


def test_where_a_graph_breaks_the_parts_are_not_compiled_anew(backend: Backend) -> None:
    net = seeded(Broken)
    with turbo(BARE, compile=backend.options):
        net(X)
    names = [compiled.name for compiled in compilations() if str(backend) in compiled.how]
    assert names == ["Broken"]
    assert len(backend.graphs) == 2
    backend.graphs.clear()
    with turbo(BARE, compile={"backend": backend, "fullgraph": True}), pytest.raises(torch._dynamo.exc.Unsupported):
        net(X)


class Blocks(nn.Module):
    """A model that opens a region of its own in its forward."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.net, self.block = Broken(), turbo(BARE, compile=backend.options)

    def forward(self, x: Tensor) -> Tensor:
        with self.block:
            result: Tensor = self.net(x)
        return result


def test_no_code_of_ours_is_compiled(backend: Backend) -> None:
    net = Blocks(backend)
    net.register_forward_hook(lambda *args: None)
    expected = copy.deepcopy(net.net)(X)
    theirs = torch.compile(net, backend="eager")
    with turbo(BARE, compile=backend.options):
        assert torch.equal(net(X), expected)
        net(X)
        theirs(X)
    assert backend.graphs
    assert compiled_by_dynamo("torchturbo") == []
    assert "Broken.forward" in compiled_by_dynamo("tests.regions.compiled"), "ours would not have been seen"


def test_hooks_work(backend: Backend) -> None:
    net, seen = seeded(), []
    net.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    net.first.register_forward_hook(lambda module, args, result: seen.append(result.shape))
    expected = copy.deepcopy(net)(X)
    with turbo(BARE, compile=backend.options):
        assert torch.equal(net(X), expected)
        late = net.register_forward_hook(lambda module, args, result: result + 1)
        assert torch.equal(net.train(False)(X), net(X))
        late.remove()
    assert backend.graphs
    assert seen


def test_other_threads_are_left_alone(backend: Backend) -> None:
    net = seeded()
    with turbo(BARE, compile=backend.options):
        thread = threading.Thread(target=net, args=(X,))
        thread.start()
        thread.join()
        assert not backend.graphs
        net(X)
    assert len(backend.graphs) == 1


# ------------------------------------------------------------------------------------------------- what is left alone


def test_what_the_user_has_compiled_stays_as_it_is(backend: Backend) -> None:
    theirs = Backend()
    wrapped, in_place = torch.compile(seeded(), backend=theirs), seeded()
    in_place.compile(backend=theirs)
    function = torch.compile(lambda x: in_part(x) + 1, backend=theirs)
    in_part = seeded(Broken)
    with turbo(BARE, compile=backend.options):
        wrapped(X)
        in_place(X)
        function(X)
    assert not backend.graphs
    assert len(theirs.graphs) >= 3
    count = len(theirs.graphs)
    wrapped(X)
    in_place(X)
    assert len(theirs.graphs) == count, "the region is none of what theirs is guarded on"


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_tracers_see_the_module_itself(backend: Backend) -> None:
    net = seeded().eval()
    with turbo(BARE, compile=backend.options):
        graph = torch.fx.symbolic_trace(net)
        traced = torch.jit.trace(net, X, check_trace=False)
        torch.func.vmap(net)(X[None])
        assert not backend.graphs
        traced(X)
        assert not backend.graphs
        graph(X)
    assert len(backend.graphs) == 1
    assert [node.op for node in graph.graph.nodes].count("call_module") == 2


EXPORT = """
import torch
from tests.regions.compiled import BARE, Backend, Net, X
from torchturbo import turbo
backend = Backend()
with turbo(BARE, compile=backend.options):
    exported = torch.export.export(Net().eval(), (X,))
assert not backend.graphs
print([node.target for node in exported.graph.nodes if node.op == "call_function"])
"""


def test_export_sees_the_module_itself(fresh_python: Fresh) -> None:
    # In a process of its own: torch.export changes precision for good.
    run = fresh_python(EXPORT)
    assert run.returncode == 0, run.stderr
    assert "batch_norm" in run.stdout


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_is_checkpointed_or_runs_in_backward_is_not_compiled(backend: Backend, reentrant: bool) -> None:
    net = seeded()
    with turbo(BARE, compile=backend.options):
        torch.utils.checkpoint.checkpoint(lambda x: net(x), X.clone().requires_grad_(), use_reentrant=reentrant).sum()
        assert not backend.graphs
        x = X.clone().requires_grad_()
        x.register_hook(lambda grad: net.inner(grad) * 0)
        net.first(x).sum().backward()
    assert len(backend.graphs) == 1, "the hook's module ran in backward"


# ----------------------------------------------------------------------------------------- what stays as it was


def test_nothing_is_left_in_the_module(backend: Backend) -> None:
    net = seeded()
    before, keys = dict(vars(net)), list(net.state_dict())
    with turbo(BARE, compile=backend.options):
        net(X)
        assert vars(net) == before
        assert list(net.state_dict()) == keys
        for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), saved_and_loaded(net)):
            copied(X)
    assert len(backend.graphs) == 4, "each copy is compiled by itself"


def saved_and_loaded(net: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


def test_a_module_that_is_dropped_is_freed(backend: Backend) -> None:
    net = seeded()
    gone = weakref.ref(net)
    with turbo(BARE, compile=backend.options):
        net(X)
        net.train(False)(X)
        call_compiled(net, net.forward, (X,), {})
    del net
    gc.collect()
    assert gone() is None


def test_what_is_forgotten_is_compiled_again(backend: Backend) -> None:
    net = seeded()
    with turbo(BARE, compile=backend.options):
        net(X)
        forget(net)
        net(X)
    assert len(backend.graphs) == 2


def test_torch_is_as_it_was(backend: Backend) -> None:
    code, config = CALL.__code__, torch._dynamo.config._config["suppress_errors"]
    from torch._dynamo.callback import callback_handler

    def now() -> list[object]:
        override = config.user_override
        return [
            nn.Module.__call__,
            CALL.__code__,
            override.get() if hasattr(override, "get") else override,
            list(callback_handler.start_callbacks),
            list(callback_handler.end_callbacks),
            list(__import__("logging").getLogger("torch._dynamo.convert_frame").filters),
        ]

    before = now()
    with turbo(BARE, compile=backend.options):
        seeded()(X)
        assert now() != before
        assert nn.Module.__call__ is CALL
        with turbo(BARE, compile=True), turbo(BARE, compile=False):
            pass
        assert CALL.__code__ is not code
    assert now() == before
    with pytest.raises(ValueError, match="mine"), turbo(BARE, compile=backend.options):
        raise ValueError("mine")
    assert now() == before


def test_who_patches_on_top_keeps_the_patch(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    net, called = seeded(), []

    def patched(self: nn.Module, *args: object, **kwargs: object) -> object:
        called.append(type(self).__name__)
        return CALL(self, *args, **kwargs)

    with turbo(BARE, compile=backend.options):
        monkeypatch.setattr(nn.Module, "__call__", patched)
        net(X)
    assert nn.Module.__call__ is patched
    assert len(backend.graphs) == 1
    net(X)
    assert called.count("Net") == 2


def test_it_lasts_until_the_last_thread_leaves(backend: Backend) -> None:
    code, block, opened, leave = (
        CALL.__code__,
        turbo(BARE, compile=backend.options),
        threading.Event(),
        threading.Event(),
    )

    def other() -> None:
        with block:
            opened.set()
            leave.wait()

    thread = threading.Thread(target=other)
    thread.start()
    opened.wait()
    with block:
        pass
    assert CALL.__code__ is not code
    seeded()(X)
    leave.set()
    thread.join()
    assert CALL.__code__ is code
    assert not backend.graphs, "this thread has no region"


# --------------------------------------------------------------------------------------------- recompilations


@pytest.mark.parametrize("options", [{}, {"autocast": "bf16"}, {"deterministic": True}], ids=str)
def test_nothing_recompiles_after_the_first_calls(backend: Backend, options: dict[str, object]) -> None:
    net = seeded()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

    @accelerate(profile=BARE, compile=backend.options, **options)
    def train() -> None:
        net.train()
        optimizer.zero_grad()
        net(X).float().square().mean().backward()
        optimizer.step()

    @accelerate(profile="inference", compile=backend.options)
    def evaluate() -> Tensor:
        result: Tensor = net.eval()(X)
        return result

    for _ in range(2):
        train()
        evaluate()
    count = len(backend.graphs)
    for _ in range(50):
        train()
        evaluate()
    assert len(backend.graphs) == count == 2


def test_models_of_one_class_do_not_use_up_each_others_recompilations(backend: Backend) -> None:
    with turbo(BARE, compile={"backend": backend, "fullgraph": True}):
        for width in range(1, 13):
            nn.Sequential(nn.Linear(width, 2), nn.ReLU())(torch.ones(width + 1, width))
    assert len(backend.graphs) == 12
    assert not any(name.startswith("s") and name[1:].isdigit() for graph in backend.graphs for name in graph), (
        "the sizes of one model do not make those of another vary"
    )


# --------------------------------------------------------------------------------------------- a module's forward


def test_a_forward_that_is_called_by_itself(backend: Backend) -> None:
    net = seeded()
    expected = copy.deepcopy(net)(X)
    assert torch.equal(call_compiled(copy.deepcopy(net), copy.deepcopy(net).forward, (X,), {}), expected)
    assert not backend.graphs
    with turbo(BARE, compile=backend.options):
        assert torch.equal(call_compiled(net, net.forward, (), {"x": X}), expected)
        call_compiled(net, net.forward, (), {"x": X})
    assert len(backend.graphs) == 1


def test_keywords_hash_and_pickle(backend: Backend) -> None:
    given = {"mode": None, "backend": "inductor", "options": {"max_autotune": True}}
    block = turbo(BARE, compile=given)
    given["options"]["max_autotune"] = False  # type: ignore[index]
    keywords = dict(block._overrides)["compile"]
    assert isinstance(keywords, Keywords)
    assert repr(keywords) == "{'backend': 'inductor', 'options': {'max_autotune': True}}"
    assert pickle.loads(pickle.dumps(keywords)) == keywords == copy.deepcopy(keywords)
    assert hash(pickle.loads(pickle.dumps(keywords))) == hash(keywords)
    assert keywords != Keywords({"backend": "eager"})
    assert dict(turbo(BARE, compile={"mode": "reduce-overhead"})._overrides)["compile"] == "reduce-overhead"
    assert dict(turbo(BARE, compile={"mode": None})._overrides)["compile"] == "default"
