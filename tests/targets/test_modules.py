"""A module that is accelerated is itself: the same object, with the same keys, hooks, copies and manners."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.fresh import Fresh
from tests.regions.compiled import load_compiler
from tests.targets.nets import Fast, Net, Parent
from torchturbo import accelerate, restore, turbo
from torchturbo.errors import TargetError

ROOT = Path(__file__).parents[2]
X = torch.ones(2, 4)


def is_fast(model: Any) -> bool:
    """Whether a net computes in bf16, by what its hidden layer saw in a call."""
    model.ran_in.clear()
    model(X)
    return model.ran_in == [torch.bfloat16]


@pytest.fixture(params=["instance", "class"])
def net(request: pytest.FixtureRequest) -> Net:
    """One that is accelerated, in either way."""
    return accelerate(Net()) if request.param == "instance" else Fast()


# --------------------------------------------------------------------------------------------------- what stays


def test_the_same_object() -> None:
    model = Net()
    names, keys, kind, attributes = list(model.named_parameters()), list(model.state_dict()), type(model), dir(model)
    assert accelerate(model) is model
    assert accelerate(profile="exact")(model) is model
    assert type(model) is kind
    assert isinstance(model, Net)
    assert list(model.named_parameters()) == names
    assert list(model.state_dict()) == keys
    assert set(dir(model)) - set(attributes) <= {"__prepare_scriptable__"}
    assert [name for name, _ in model.named_modules()] == ["", "first", "second"]
    assert inspect.signature(model.forward) == inspect.signature(Net().forward)
    assert model.forward.__doc__ == Net.forward.__doc__


def test_the_same_class() -> None:
    class Mine(Net):
        def forward(self, x: Tensor) -> Any:
            """Doc."""
            return super().forward(x)

    signature = inspect.signature(Mine.forward)
    assert accelerate(Mine) is Mine
    assert (Mine.__name__, Mine.__mro__[1]) == ("Mine", Net)
    assert (inspect.signature(Mine.forward), Mine.forward.__doc__, Mine.forward.__name__) == (
        signature,
        "Doc.",
        "forward",
    )
    assert is_fast(Mine())
    assert not is_fast(Net()), "the class above is as it was"


def test_a_subclass_and_its_super() -> None:
    class Sub(Fast):
        def forward(self, x: Tensor) -> Any:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(x)

    seen: list[bool] = []
    assert is_fast(Sub())
    assert is_fast(accelerate(Sub()))
    assert seen == [False, True]


def test_it_loads_the_weights_of_others(net: Net) -> None:
    plain = Net()
    net.load_state_dict(plain.state_dict())
    plain.load_state_dict(net.state_dict())
    assert torch.allclose(net(X), plain(X), atol=0.05)


def test_train_and_eval_and_moves(net: Net) -> None:
    assert net.eval() is net
    assert not net.training
    assert net.train().training
    assert net.double()(X.double()).dtype is torch.float64
    assert net.to(torch.bfloat16)(X.bfloat16()).dtype is torch.bfloat16
    assert net.half()(X.half()).dtype is torch.float16
    assert net.float()(X).dtype is torch.float32
    assert net.to("cpu") is net
    assert net.requires_grad_(False) is net
    assert not net(X).requires_grad


def test_hooks_of_every_kind(net: Net) -> None:
    def attached(model: Net) -> list[Any]:
        seen: list[Any] = []

        def say(name: str) -> Callable[..., None]:
            def hook(*args: Any) -> None:
                dtypes = [part[0].dtype if isinstance(part, tuple) and part else part for part in args[1:]]
                dtypes = [part.dtype if isinstance(part, Tensor) else type(part) for part in dtypes]
                seen.append((name, dtypes))

            return hook

        model.register_forward_pre_hook(say("before"))
        model.register_forward_pre_hook(say("before, with keywords"), with_kwargs=True)
        model.register_forward_hook(say("after"))
        model.register_forward_hook(say("after, with keywords"), with_kwargs=True)
        model.register_forward_hook(say("always"), always_call=True)
        model.register_full_backward_pre_hook(say("before backward"))
        model.register_full_backward_hook(say("backward"))
        return seen

    plain = Net()
    early, reference = attached(net), attached(plain)
    late = attached(accelerate(net))
    for model in (net, plain):
        model(X.clone().requires_grad_()).sum().backward()
    assert early == late == reference
    assert len(reference) == 7
    with pytest.raises(RuntimeError):
        net(torch.ones(3))
    assert early[-1][0] == "always"


def test_a_hook_that_changes_the_output(net: Net) -> None:
    net.register_forward_hook(lambda module, args, output: {"output": output})
    assert net(X)["output"].dtype is torch.float32


def test_nested_children() -> None:
    class Around(Net):
        def __init__(self) -> None:
            super().__init__()
            self.child = accelerate(Net(), profile="exact")

        def forward(self, x: Tensor) -> Any:
            return super().forward(self.child(x))

    model = accelerate(Around())
    assert is_fast(model)
    assert model.child.ran_in == [torch.float32], "the inner one is nearer"


def test_accelerated_twice() -> None:
    class Sees(nn.Module):
        def forward(self) -> Any:
            return torch.is_anomaly_enabled(), torch.get_num_threads(), torch.is_grad_enabled()

    model = accelerate(Sees(), profile="debug", num_threads=1)
    model = accelerate(model, profile="inference", anomaly=False, num_threads=2)
    assert model() == (True, 1, False)
    accelerate(Sees, profile="exact", num_threads=3)
    assert Sees()() == (False, 3, True)
    assert model() == (True, 1, False)


# ------------------------------------------------------------------------------------------------------- copies


def copied_by_torch(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": copied_by_torch,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("make", [lambda: accelerate(Net()), Fast], ids=["instance", "class"])
@pytest.mark.parametrize("inside", [False, True], ids=["itself", "in a parent"])
def test_copies_are_accelerated_and_independent(copied: Any, make: Callable[[], Any], inside: bool) -> None:
    model = make()
    other = copied(Parent(model)).child if inside else copied(model)
    assert other is not model
    assert type(other) is type(model)
    assert is_fast(other)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert float(other(X).detach().abs().sum()) == 0
    assert float(model(X).detach().abs().sum()) > 0, "a copy has its own weights, and its forward runs on them"
    restore(other) if isinstance(other, Net) and not isinstance(other, Fast) else None
    assert is_fast(model)


def test_a_restored_copy_leaves_the_original_as_it_is() -> None:
    model = accelerate(accelerate(Net()), profile="exact", autocast="bf16")
    for copied in COPIES.values():
        other = copied(model)
        assert restore(other) is other
        assert "forward" not in vars(other)
        assert not is_fast(other)
        assert is_fast(model)
    restore(model)
    assert not is_fast(model)
    assert not is_fast(copy.deepcopy(model))


# ------------------------------------------------------------------------------------------------------ restore


def test_restored() -> None:
    model = Net()
    before = dict(vars(model))
    for times in (1, 2):
        for _ in range(times):
            accelerate(model)
        assert is_fast(model)
        assert restore(model) is model
        assert vars(model).keys() == before.keys()
        assert not is_fast(model)
    assert restore(model) is model


def test_a_forward_of_its_own_comes_back() -> None:
    model = Net()
    model.forward = lambda x: x + 1  # type: ignore[method-assign]
    own = model.forward
    accelerate(model)
    assert bool((model(X) == 2).all())
    assert restore(model).forward is own


def test_a_restored_class() -> None:
    class Mine(Net):
        """Inherits its forward."""

    accelerate(accelerate(Mine), profile="exact", num_threads=1)
    assert restore(Mine) is Mine
    assert "forward" not in vars(Mine)
    assert "__prepare_scriptable__" not in vars(Mine)

    class Own(Net):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x)

    own = Own.forward
    assert restore(accelerate(Own)).forward is own
    assert restore(Own).forward is own


def test_an_instance_of_an_accelerated_class_is_not_restored_by_itself() -> None:
    model = restore(accelerate(Fast()))
    assert is_fast(model)


@pytest.mark.parametrize("what", ["instance", "class"])
def test_somebody_has_wrapped_its_forward_since(what: str) -> None:
    class Mine(Net):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x)

    target: Any = accelerate(Mine()) if what == "instance" else accelerate(Mine)
    target.forward = torch.no_grad()(target.forward)
    model = target if what == "instance" else target()
    with pytest.raises(TargetError, match="wrapped since it was accelerated: take that off first"):
        restore(target)
    assert is_fast(model)
    assert not model(X).requires_grad


# ------------------------------------------------------------------------------------------------- what others do


def test_functional_call(net: Net) -> None:
    zeros = {name: torch.zeros_like(parameter) for name, parameter in net.named_parameters()}
    net.ran_in.clear()
    out = torch.func.functional_call(net, zeros, (X,))
    assert net.ran_in == [torch.bfloat16]
    assert (out.dtype, float(out.abs().sum())) == (torch.float32, 0.0)


def test_in_containers_and_applied(net: Net) -> None:
    model = nn.Sequential(net, nn.Linear(4, 4))
    assert next(iter(model.state_dict())) == "0.first.weight"
    assert model(X).dtype is torch.float32
    seen: list[Any] = []
    net.apply(seen.append)
    assert seen[-1] is net


def test_data_parallel_on_the_cpu(net: Net) -> None:
    model = nn.DataParallel(net)
    net.ran_in.clear()
    assert model(X).dtype is torch.float32
    assert net.ran_in == [torch.bfloat16]


DISTRIBUTED = """
import os, sys, warnings, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torchturbo import accelerate
from torchturbo.testing import pretend_hardware
from tests.regions.compiled import load_compiler
from tests.targets.nets import Net
pretend_hardware("cpu-bf16").__enter__()
dist.init_process_group("gloo", init_method="file://STORE", rank=0, world_size=1)
torch.manual_seed(0)
inner = accelerate(Net())
model = DistributedDataParallel(inner)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x, y = torch.randn(16, 4), torch.randn(16, 4)
losses = []
for _ in range(10):
    optimizer.zero_grad()
    out = model(x)
    assert out.dtype is torch.float32 and inner.ran_in[-1] is torch.bfloat16
    loss = (out - y).square().mean()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses
assert not torch.is_autocast_enabled("cpu")
dist.destroy_process_group()
print("trained", list(model.state_dict())[0])
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_distributed_data_parallel(tmp_path: Path, fresh_python: Fresh) -> None:
    done = fresh_python(DISTRIBUTED.replace("STORE", str(tmp_path / "store")))
    assert done.stdout.endswith("trained module.first.weight\n"), done.stderr
    assert done.returncode == 0, done.stderr


# -------------------------------------------------------------------------------------------- script, trace, export


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def halved(x: Tensor) -> Tensor:
    return x / 2


class HalvedByClass(Halved):
    """Accelerated below."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


accelerate(HalvedByClass)
SCRIPTED: dict[str, Callable[[], Any]] = {
    "instance": lambda: accelerate(Halved()),
    "class": HalvedByClass,
    "function": lambda: accelerate(halved),
    "child": lambda: nn.Sequential(accelerate(Halved())),
    "child by class": lambda: nn.Sequential(HalvedByClass()),
}


@pytest.mark.parametrize("make", SCRIPTED.values(), ids=SCRIPTED)
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_scripting_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(TargetError, match=r"torch\.jit\.script cannot compile what is accelerated") as caught:
        torch.jit.script(make())
    assert "or use torch.compile" in str(caught.value)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_scripting_what_was_restored_works() -> None:
    scripted = torch.jit.script(restore(accelerate(Halved())))
    assert bool((scripted(X) == 0.5).all())


@pytest.mark.parametrize("profile", ["exact", "fast"])
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_traced_it_computes_what_it_did_under_the_profile(profile: str) -> None:
    model = accelerate(Net(), profile=profile).requires_grad_(False)
    traced = torch.jit.trace(model, X, check_trace=False)
    assert torch.equal(traced(X), model(X))
    assert traced(X).dtype is torch.float32


@pytest.fixture(scope="module")
def compiler() -> None:
    """The compiler sets things up when it is first loaded, which is no test's doing."""
    load_compiler()


@pytest.mark.parametrize("profile", ["exact", "fast"])
def test_compiled_by_hand_it_computes_the_same(compiler: None, profile: str) -> None:
    model = accelerate(Net(), profile=profile)
    expected = model(X)
    compiled = torch.compile(model, backend="eager")
    with warnings.catch_warnings():  # torch 2.8 leaves filters behind
        try:
            assert torch.equal(compiled(X), expected)
            assert compiled(X).dtype is torch.float32
            with turbo("exact"):
                assert torch.equal(compiled(X), expected)
        finally:
            torch.compiler.reset()


EXPORTED = """
import torch
from torchturbo import accelerate
from torchturbo.errors import TargetError
from torchturbo.testing import pretend_hardware
from tests.targets.nets import Net
x = torch.ones(2, 4)
with pretend_hardware("cpu-bf16"):
    for profile in ("exact", "fast"):
        model = accelerate(Net(), profile=profile).eval()
        expected = model(x)
        try:
            same = torch.allclose(torch.export.export(model, (x,)).module()(x), expected, atol=0.05)
            print(profile, "the same" if same else "another")
        except TargetError:
            print(profile, "refused")
        except Exception as error:
            print(profile, "raises", repr(error).replace(chr(10), " "))
"""


@pytest.fixture(scope="module")
def exported(fresh_python: Fresh) -> dict[str, str]:
    """What becomes of an exported model, in a process of its own: to export leaves much behind in torch."""
    done = fresh_python(EXPORTED)
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("profile", ["exact", "fast"])
def test_exported_it_is_refused_or_computes_the_same(exported: dict[str, str], profile: str) -> None:
    assert exported[profile] in ("refused", "the same")
