"""`checkpoint=`: the gradients of the plain step to the bit, less memory, modules as they are, and nothing left."""

from __future__ import annotations

import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from torchturbo import Profile, accelerate, turbo
from torchturbo._catalogue import SETTINGS
from torchturbo._models.gpt import Net, Size
from torchturbo.errors import OptionValueError
from torchturbo.regions import _checkpointing
from torchturbo.regions._blocks import found_in
from torchturbo.regions._calls import module_calls
from torchturbo.settings._base import TORCH
from torchturbo.testing import pretend_hardware

WIDTH = 8


def only(**options: Any) -> turbo:
    """A block with these options and no others."""
    return turbo(Profile("only", **options))


def told() -> str:
    found = SETTINGS["checkpoint"].told
    assert found is not None
    return found() or ""


class Block(nn.Module):
    """A layer, with something between its parts."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor] = lambda block, x: x) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.between = between
        self.register_buffer("seen", torch.zeros(2 * WIDTH))

    def forward(self, x: Tensor, **more: Any) -> Tensor:
        result: Tensor = self.last(self.between(self, self.first(x)).tanh().square()).sigmoid()
        return result


class Stack(nn.Module):
    """Blocks that are called one after the other."""

    def __init__(self, *between: Callable[[Any, Tensor], Tensor], depth: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(*between) for _ in range(depth))
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor, **more: Any) -> Tensor:
        for block in self.blocks:
            x = block(x, **more)
        result: Tensor = self.head(x).sum()
        return result


def batch(seed: int = 1) -> Tensor:
    return torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(seed))


def made(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    random.seed(0)
    return make()


def gradients(model: nn.Module) -> list[Tensor | None]:
    return [each.grad for each in model.parameters()]


def same(ours: Any, theirs: Any) -> bool:
    """Whether tensors, or None, are the same to the bit."""
    return len(ours) == len(theirs) and all(
        a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in zip(ours, theirs, strict=True)
    )


def trained(make: Callable[[], nn.Module], steps: int = 3, call: Any = None, **options: Any) -> tuple[Any, ...]:
    """Losses and state after some steps, the random numbers after them, and what was told."""
    model = made(make)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    with only(accumulate=1, **options):
        for step in range(steps):
            optimizer.zero_grad()
            loss = model(batch(step)) if call is None else call(model, batch(step))
            loss.float().sum().backward()
            optimizer.step()
            losses.append(loss.detach())
        said = told()
    return losses, list(model.state_dict().values()), [torch.rand(3), torch.tensor(random.random())], said


def as_without(make: Callable[[], nn.Module], call: Any = None, **options: Any) -> str:
    """Trains with and without checkpoints, to the same bits; returns what was told."""
    *theirs, _ = trained(make, call=call, **options)
    *ours, said = trained(make, call=call, checkpoint=True, **options)
    assert all(map(same, ours, theirs))
    return str(said)


def dropped(block: Any, x: Tensor) -> Tensor:
    return F.dropout(x, 0.3)


class Residual(nn.Module):
    """A block with a norm, as nets for images have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(1, 1, 3, padding=1), nn.BatchNorm1d(1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.norm(self.conv(x)).relu_()
        return result


class Normed(nn.Module):
    """Two stages of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(nn.Sequential(Residual(), Residual()) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.stages(x.unsqueeze(1)).square().sum()
        return result


@pytest.mark.parametrize("precision", [{}, {"autocast": "bf16"}, {"autocast": "fp16", "init_scale": 16.0}])
@pytest.mark.parametrize("between", [(), (dropped,)])
def test_it_trains_with_the_bits_of_a_plain_loop(precision: Any, between: Any, cpu_with_bf16: None) -> None:
    assert as_without(lambda: Stack(*between), **precision) == "3 x Block computed again in backward"


def test_statistics_of_norms_are_counted_once() -> None:
    assert as_without(Normed) == "4 x Residual computed again in backward"


def counted(block: Any, x: Tensor) -> Tensor:
    """A norm of the code's own, whose buffers torch does not say that it has written to."""
    return F.batch_norm(x, block.seen, torch.ones_like(block.seen), training=True)


def test_buffers_that_a_kernel_writes_to_are_written_to_once() -> None:
    assert "computed again" in as_without(lambda: Stack(counted))


@pytest.mark.parametrize("autocast", [None, "bf16"])
def test_low_memory_keeps_a_fraction_and_gives_the_same_gradients(autocast: Any, cpu_with_bf16: None) -> None:
    symbols = torch.randint(256, (2, 16), generator=torch.Generator().manual_seed(1))

    def step(around: AbstractContextManager[Any]) -> tuple[int, list[Tensor | None]]:
        model = made(lambda: Net(Size(width=32, depth=12, heads=2, length=16, batch=2)))
        weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
        with around:
            with saving() as saved:
                loss = model(symbols).square().mean()
            loss.backward()
        return sum(size for place, size in saved.items() if place not in weights), gradients(model)

    plain, theirs = step(only(autocast=autocast))
    less, ours = step(turbo("low_memory", autocast=autocast))
    assert same(ours, theirs)
    assert less < plain * (1 - 0.38)


@contextmanager
def saving() -> Iterator[dict[int, int]]:
    saved: dict[int, int] = {}
    held = []

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        held.append(tensor.detach())  # so that no other gets its place
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        yield saved


# ------------------------------------------------------------------------------------------------------ what is kept


def noted(block: Any, x: Tensor) -> Tensor:
    block.last_seen = x
    return x


def added(block: Any, x: Tensor) -> Tensor:
    block.seen.add_(x.detach().mean(0))
    return x + block.seen


def by_chance(block: Any, x: Tensor) -> Tensor:
    return x * random.random()


KEPT = {
    "an attribute": (noted, "its forward changes Block.last_seen"),
    "a buffer": (added, "its forward changes Block.seen"),
    "python's random": (by_chance, "its forward changes the random numbers of Python's random or of NumPy"),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_a_forward_changes_is_kept(case: str) -> None:
    between, reason = KEPT[case]
    assert as_without(lambda: Stack(between)).endswith(f"Block is kept: {reason}")


def test_what_forward_saves_for_backward_may_not_be_written_to_either_way() -> None:
    def spoilt(block: Any, x: Tensor) -> Tensor:
        exponents = x.exp()
        exponents.add_(1)
        return exponents

    for options in ({}, {"checkpoint": True}):
        with only(**options), pytest.raises(RuntimeError, match="modified by an inplace operation"):
            made(lambda: Stack(spoilt))(batch()).backward()


class Cache:
    """What a forward adds to."""

    def __init__(self) -> None:
        self.states: list[Tensor] = []


def test_what_it_is_called_with_may_be_changed() -> None:
    def of_a_cache(model: Any, x: Tensor) -> Tensor:
        result: Tensor = model(x, cache=Cache())
        return result

    assert as_without(Stack, of_a_cache).endswith(
        "it is called with a Cache, which a second forward might change again"
    )

    class Appending(Block):
        def forward(self, x: Tensor, **more: Any) -> Tensor:
            more["states"].append(x)
            return super().forward(x + len(more["states"]))

    class Over(Block):
        def forward(self, x: Tensor, **more: Any) -> Tensor:
            return super().forward(x.mul_(1.5)) + 1

    def stack(kind: type[Block]) -> Callable[[], nn.Module]:
        def make() -> nn.Module:
            stack = Stack()
            stack.blocks = nn.ModuleList(kind() for _ in range(3))
            return stack

        return make

    def of_a_list(model: Any, x: Tensor) -> Tensor:
        result: Tensor = model(x, states=(states := []))
        assert len(states) == 3
        return result

    assert as_without(stack(Appending), of_a_list).endswith("its forward changes what it is called with")
    assert as_without(stack(Over)).endswith("its forward writes to what it is called with")


def test_hooks_run_once() -> None:
    calls = []

    def make() -> nn.Module:
        stack = Stack()
        stack.blocks[1].first.register_forward_hook(lambda *_: calls.append(1))
        return stack

    said = as_without(make)
    assert "2 x Block computed again" in said
    assert said.endswith("it has hooks, which would be called twice")
    assert len(calls) == 6
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert as_without(Stack).endswith("a hook for all modules is registered, which would be called twice")
    finally:
        handle.remove()


def test_what_is_compiled_by_the_code_is_left_to_it() -> None:
    def make() -> nn.Module:
        model = Stack()
        for each in model.blocks:
            each._compiled_call_impl = each._call_impl  # as its compile() does
        return model

    assert as_without(make) == "Block is kept: it is compiled by the code's own torch.compile"


# ------------------------------------------------------------------------------------- between forward and backward


def late(between: Callable[[nn.Module], object], **options: Any) -> list[Tensor | None]:
    model = made(lambda: Stack(lambda block, x: F.dropout(x, 0.3, block.training)))
    with only(**options):
        loss = model(batch())
        between(model)
        loss.backward()
    return gradients(model)


@pytest.mark.parametrize(
    "between",
    [
        lambda model: model.eval(),
        lambda model: model.blocks[1].requires_grad_(False),
        lambda model: torch.rand(7),
        lambda model: model(batch(2)),
    ],
    ids=["evaluated", "frozen", "drawn", "called again"],
)
def test_backward_finds_modules_as_forward_found_them(between: Callable[[Any], object]) -> None:
    modes = []

    def and_look(model: nn.Module) -> None:
        between(model)
        modes.append(
            (model, [each.training for each in model.modules()], [p.requires_grad for p in model.parameters()])
        )

    assert same(late(and_look, checkpoint=True), late(between))
    ((model, training, wanted),) = modes
    assert [each.training for each in model.modules()] == training
    assert [each.requires_grad for each in model.parameters()] == wanted


def test_weights_that_have_changed_are_an_error_and_not_another_gradient() -> None:
    def step(model: Any) -> None:
        with torch.no_grad():
            model.blocks[1].first.bias.add_(1)

    with pytest.raises(RuntimeError, match="bias") as caught:
        late(step, checkpoint=True)
    assert "checkpoint: Block is to be computed again for backward" in str(caught.value)
    assert "leave Block out of checkpoint" in str(caught.value)


def test_an_error_in_the_second_forward_is_seen_and_leaves_nothing() -> None:
    failing = []

    def fail(block: Any, x: Tensor) -> Tensor:
        if failing:
            raise ValueError("planted")
        return x

    model = made(lambda: Stack(fail))
    with only(checkpoint=True):
        loss = model(batch())
        model.eval()
        failing.append(1)
        buffers = [each.data_ptr() for each in model.buffers()]
        with pytest.raises(ValueError, match="planted"):
            loss.backward()
        assert not any(each.training for each in model.modules())
        assert [each.data_ptr() for each in model.buffers()] == buffers
        failing.clear()
        assert "computed again" in told()
        model(batch()).backward()


# ---------------------------------------------------------------------------------------------------- ways to get there


def several(model: nn.Module) -> list[Any]:
    loss = model(batch())
    loss.backward(retain_graph=True)
    loss.backward()
    return gradients(model)


def doubled(model: nn.Module) -> list[Any]:
    x = batch().requires_grad_()
    (first,) = torch.autograd.grad(model(x), x, create_graph=True)
    first.square().sum().backward()
    return [first.detach(), x.grad, *gradients(model)]


def in_a_thread(model: nn.Module) -> list[Any]:
    loss = model(batch())
    thread = threading.Thread(target=loss.backward)
    thread.start()
    thread.join()
    return gradients(model)


def in_a_checkpoint(model: nn.Module) -> list[Any]:
    checkpoint(model, batch(), use_reentrant=False).backward()
    return gradients(model)


def in_a_reentrant_checkpoint(model: nn.Module) -> list[Any]:
    checkpoint(model, batch().requires_grad_(), use_reentrant=True).backward()
    return gradients(model)


def evaluated(model: nn.Module) -> list[Any]:
    with torch.no_grad():
        before = model(batch())
    model.eval()(batch()).backward()
    return [before, *gradients(model)]


def transformed(model: nn.Module) -> list[Any]:
    weights = {name: its.detach() for name, its in model.named_parameters()}
    found = torch.func.grad(lambda its: torch.func.functional_call(model, its, (batch(),)))(weights)
    return list(found.values())


WAYS = [several, doubled, in_a_thread, in_a_checkpoint, in_a_reentrant_checkpoint, evaluated, transformed]


@pytest.mark.parametrize("way", WAYS)
def test_other_ways_to_a_gradient(way: Callable[[nn.Module], list[Any]]) -> None:
    theirs = way(made(lambda: Stack(dropped)))
    with only(checkpoint=True):
        assert same(way(made(lambda: Stack(dropped))), theirs)


def test_a_checkpoint_of_the_codes_own_within_a_block() -> None:
    class Own(Block):
        def forward(self, x: Tensor, **more: Any) -> Tensor:
            result: Tensor = checkpoint(super().forward, x, use_reentrant=False)
            return result

    class Owns(Stack):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Own() for _ in range(3))

    assert "3 x Own computed again" in as_without(Owns)


def test_a_backward_after_the_block() -> None:
    model = made(lambda: Stack(dropped))
    with only(checkpoint=True):
        loss = model(batch())
    loss.backward()
    theirs = made(lambda: Stack(dropped))
    theirs(batch()).backward()
    assert same(gradients(model), gradients(theirs))


def test_accelerated_models_and_functions() -> None:
    model = made(Stack)
    model(batch()).backward()
    theirs = gradients(model)
    model.zero_grad()
    with saving() as plain:
        model(batch())

    @accelerate(profile="exact", checkpoint=True)
    def step(model: nn.Module) -> str:
        model(batch()).backward()
        return told()

    assert step(model) == "3 x Block computed again in backward"
    assert same(gradients(model), theirs)
    model.zero_grad()
    accelerate(model, profile="exact", checkpoint=True)
    with saving() as less:
        loss = model(batch())
    loss.backward()
    assert len(less) < len(plain)
    assert same(gradients(model), theirs)


def test_threads_without_the_region_and_torch_itself_are_as_they_were() -> None:
    code = nn.Module.__call__.__code__
    model = made(Stack)
    attributes = [list(vars(each)) for each in model.modules()]
    lengths = []

    def elsewhere() -> None:
        with saving() as saved:
            model(batch())
        lengths.append(len(saved))

    elsewhere()
    with only(checkpoint=True):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        model(batch()).backward()
        assert told() == "3 x Block computed again in backward"
        with only(checkpoint=False):
            elsewhere()
        with pytest.raises(TypeError):
            model("no tensor")
    assert lengths == [lengths[0]] * 3
    assert nn.Module.__call__.__code__ is code
    assert module_calls.again is None
    assert [list(vars(each)) for each in model.modules()] == attributes


# --------------------------------------------------------------------------------------------------------- which blocks


def linear() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU())


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.other = Block(), Block(), linear()


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = Stack(), Stack()


STRUCTURES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "layers of torch": (lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), 0),
    "lists in a list": (lambda: nn.Sequential(linear(), linear(), linear()), 3),
    "named siblings": (Named, 2),
    "towers": (Towers, 6),
    "one after one, alone": (lambda: nn.Sequential(Block(), linear()), 0),
    "an encoder of torch": (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8), 2), 2),
    "without parameters": (lambda: nn.Sequential(nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU())), 0),
}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_the_outermost_repeated_blocks_are_found(structure: str) -> None:
    make, count = STRUCTURES[structure]
    assert len(found_in(make()).blocks) == count


def test_a_list_that_has_changed_is_looked_at_again() -> None:
    model = made(Stack)
    assert len(found_in(model).blocks) == 3
    model.blocks.append(Block())  # type: ignore[operator,union-attr]
    assert len(found_in(model).blocks) == 4


def test_classes_and_their_names_are_asked_for() -> None:
    for asked in ([Block], ["Block"], "[Block, 'Other']"):
        with only(checkpoint=asked):
            model = made(lambda: nn.Sequential(Block(), nn.Linear(WIDTH, 1)))
            model(batch()).sum().backward()
            made(Block)(batch()).sum().backward()
            assert told() == "2 x Block computed again in backward"
    with only(checkpoint=[nn.Conv2d]):
        assert told() == "no module of the class Conv2d has been called in this thread yet"
    with only(checkpoint=True):
        assert told() == "no repeated block has been called in this thread yet"


@pytest.mark.parametrize("wrong", [[], [3], [int], ["no name"], "Block", 2])
def test_what_is_no_class_is_refused(wrong: Any) -> None:
    with pytest.raises(OptionValueError, match="checkpoint="):
        turbo(checkpoint=wrong)


def test_auto_says_what_it_has_decided_by() -> None:
    with only(checkpoint="auto"):
        made(Stack)(batch()).backward()
        assert told() == "Stack is left as it is: auto is for GPUs, and tells by their memory"
    with pretend_hardware("A100"), FakeTensorMode(), only(checkpoint="auto"):
        with torch.device("meta"):
            small, large = nn.Linear(1024, 1024), nn.Linear(2**16, 2**16)
        for each in (small, large):
            each.weight = nn.Parameter(torch.empty(each.weight.shape, device="cuda"))
        assert not _checkpointing._is_wanted_for(_checkpointing.ASKING.thread.its, small)
        assert told().endswith("take 0% of the GPU's memory, half or less: activations are kept")
        assert _checkpointing._is_wanted_for(_checkpointing.ASKING.thread.its, large)
        assert told().endswith("more than half: activations are computed again")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings(r"ignore:The \.grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.skipif(TORCH < (2, 11), reason="older torch starts inductor's processes, and leaves them running")
def test_compiled_code_has_a_budget() -> None:
    def kept(**options: Any) -> tuple[int, list[Any]]:
        torch._dynamo.reset()
        model = made(Stack)
        with only(compile={"backend": "aot_eager_decomp_partition"}, **options):
            loss = model(batch())
            sizes = [t.nbytes for node in _nodes(loss.grad_fn) for t in getattr(node, "saved_tensors", ()) or ()]
            loss.backward()
            if options:
                assert told() == "compiled code may keep 30% of its activations"
        return sum(sizes), gradients(model)

    before = torch._functorch.config.activation_memory_budget
    with warnings.catch_warnings():  # what torch imports for it adds to the filters
        plain, theirs = kept()
        less, ours = kept(checkpoint=True)
    assert less < plain
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    assert torch._functorch.config.activation_memory_budget == before


def _nodes(node: Any) -> Iterator[Any]:
    if node is not None:
        yield node
        for following, _ in node.next_functions:
            yield from _nodes(following)


def test_blocks_that_are_called_with_other_weights_are_kept() -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(3)))
    found = []
    for asked in (False, True):
        weights = {name: its.detach().clone().requires_grad_() for name, its in model.named_parameters()}
        with turbo("exact", checkpoint=asked):
            torch.func.functional_call(model, weights, (torch.ones(2, 4),)).sum().backward()
        found.append([its.grad for its in weights.values()])
    assert all(
        one is not None and other is not None and torch.equal(one, other) for one, other in zip(*found, strict=True)
    )
