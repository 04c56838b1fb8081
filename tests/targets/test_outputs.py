"""Outputs come back in the float type of the inputs, wherever they are, and nothing else of them changes."""

from __future__ import annotations

import dataclasses
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.targets.nets import Frozen, Net, Ordered, Pair, Result, Shaped
from torchturbo import accelerate
from torchturbo.errors import OptionValueError, TargetError

X = torch.ones(2, 4)
F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16

SHAPES: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor], type]] = {
    "tensor": (lambda x: x, lambda out: out, Tensor),
    "list": (lambda x: [1, x], lambda out: out[1], list),
    "tuple": (lambda x: (x, None), lambda out: out[0], tuple),
    "dict": (lambda x: {"a": 1, "x": x}, lambda out: out["x"], dict),
    "nested": (lambda x: {"a": [(1, {"x": x})]}, lambda out: out["a"][0][1]["x"], dict),
    "namedtuple": (lambda x: Pair(x.detach(), [x]), lambda out: out.right[0], Pair),
    "namedtuple, left": (lambda x: Pair(x, None), lambda out: out.left, Pair),
    "OrderedDict": (lambda x: OrderedDict(x=x, b=2), lambda out: out["x"], OrderedDict),
    "subclass of OrderedDict": (lambda x: Ordered(x=x), lambda out: out["x"], Ordered),
    "dataclass": (lambda x: Result(x, {"y": x}), lambda out: out.more["y"], Result),
    "frozen dataclass": (lambda x: Frozen(x), lambda out: out.loss, Frozen),
}


@pytest.mark.parametrize(("shape", "part", "kind"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("by", ["instance", "class"])
def test_float32_in_float32_out(shape: Any, part: Any, kind: type, by: str) -> None:
    class Mine(Shaped):
        """One to accelerate."""

    model = accelerate(Mine(shape)) if by == "instance" else accelerate(Mine)(shape)
    out = model(X)
    assert type(out) is kind
    assert part(out).dtype is F32
    assert part(out).detach().numpy().shape == (2, 4)
    as_it_is = accelerate(Mine(shape), output_dtype=None)
    if by == "instance":
        assert part(as_it_is(X)).dtype is BF16
    assert part(accelerate(Shaped(shape), output_dtype=F64)(X)).dtype is F64
    part(out).sum().backward()
    assert model.inner.weight.grad.dtype is F32


def test_what_is_beside_the_tensors_stays() -> None:
    note = object()

    class Mine(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            made = Ordered(x=super().forward(x), note=note, ids=torch.arange(3), exact=torch.ones(1, dtype=F64))
            made.note = "changed"
            return made

    out = accelerate(Mine(4, 4))(X)
    assert list(out) == ["x", "note", "ids", "exact"]
    assert out["note"] is note
    assert (out["ids"].dtype, out["exact"].dtype, out.note) == (torch.int64, F64, "changed")


@pytest.mark.parametrize(
    "made", [[X], {"x": X}, (X, 1), Pair(X, None), Result(X), Ordered(x=X)], ids=lambda m: type(m).__name__
)
def test_a_container_with_nothing_to_convert_comes_back_itself(made: Any) -> None:
    class Mine(nn.Module):
        def forward(self) -> Any:
            return made

    assert accelerate(Mine())() is made


def test_the_containers_of_the_module_are_not_written_to() -> None:
    class Mine(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            self.kept = {"x": super().forward(x)}
            return self.kept

    model = accelerate(Mine(4, 4))
    assert model(X)["x"].dtype is F32
    assert model.kept["x"].dtype is BF16


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [((X,), F32), ((X.double(),), F64), ((X.bfloat16(),), BF16), ((X.bfloat16(), {"mask": [X]}), F32)],
    ids=["float32", "float64", "bf16", "the widest of two"],
)
def test_as_the_inputs(inputs: Any, expected: torch.dtype) -> None:
    class Mine(nn.Linear):
        def forward(self, x: Tensor, more: Any = None) -> Tensor:
            return nn.functional.linear(x.bfloat16(), self.weight.bfloat16())

    assert accelerate(Mine(4, 4))(*inputs).dtype is expected
    if len(inputs) == 2:
        assert accelerate(Mine(4, 4))(inputs[0], more=inputs[1]).dtype is expected


@pytest.mark.parametrize(("dtype", "expected"), [(F32, F32), (F64, F64), (BF16, BF16)])
def test_whole_numbers_in_as_the_parameters_out(dtype: torch.dtype, expected: torch.dtype) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(8, 4)

        def forward(self, ids: Tensor) -> Tensor:
            return self.table(ids).bfloat16()

    assert accelerate(Tokens().to(dtype))(torch.arange(3)).dtype is expected


def test_nothing_is_converted_where_no_autocast_is_put_on() -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.bfloat16()

    assert accelerate(Half(), profile="exact")(X).dtype is BF16
    with torch.autocast("cpu", BF16):
        assert accelerate(Net(), profile="debug", autocast=None)(X).dtype is F32


def test_output_dtype_is_for_modules() -> None:
    with pytest.raises(TargetError, match="output_dtype is for modules and their classes, and this is function"):
        accelerate(lambda: 1, output_dtype=None)


# --------------------------------------------------------------------------------------------------------- training


def trained(how: str, steps: int = 20) -> tuple[list[float], list[Tensor]]:
    """Losses and weights of a small training."""
    torch.manual_seed(3)

    class Mine(Net):
        """A class of its own for each training."""

    model: Any = accelerate(Mine)() if how == "class" else Mine()
    if how == "instance":
        accelerate(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = torch.randn(32, 4), torch.randn(32, 4)

    def forward() -> Tensor:
        if how != "by hand":
            return model(x)
        with torch.autocast("cpu", BF16):
            return model(x).float()

    def step() -> float:
        optimizer.zero_grad()
        # Functions are not given their outputs back as they were: in the loss, float32 again by hand.
        loss = (forward().float() - y).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    if how == "function of a step":
        step = accelerate(step)

    def loop() -> list[float]:
        return [step() for _ in range(steps)]

    if how == "function of the loop":
        loop = accelerate(loop)
    losses = loop()
    return losses, [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("how", ["instance", "class", "function of a step", "function of the loop"])
def test_training_is_bit_for_bit_that_under_autocast_by_hand(how: str) -> None:
    losses, weights = trained(how)
    by_hand, weights_by_hand = trained("by hand")
    assert losses == by_hand
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(weights, weights_by_hand, strict=True))
    assert losses[-1] < losses[0]


def test_training_by_hand_is_not_that_in_float32() -> None:
    """What the tests above compare with can tell."""
    assert trained("by hand")[0] != trained("plainly")[0]


def test_half_that_is_not_autocasts_stays() -> None:
    class Store(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.half()

    assert accelerate(Store())(X).dtype is torch.float16


@pytest.mark.parametrize("value", ["float32", torch.float64])
def test_a_dtype_may_be_asked_for(value: Any) -> None:
    found = accelerate(Shaped(lambda x: x), output_dtype=value)(X).dtype
    assert found is (F32 if value == "float32" else F64)


@pytest.mark.parametrize("value", ["inptu", "cpu", "nn", torch.int64, 3, True])
def test_what_is_no_dtype_is_refused_at_once(value: Any) -> None:
    model = Shaped(lambda x: x)
    with pytest.raises(OptionValueError, match="expected 'input', a floating-point dtype"):
        accelerate(model, output_dtype=value)
    assert "forward" not in vars(model)


class Two(tuple[Any, ...]):
    """A tuple that is made from its parts."""

    def __new__(cls, first: Any, second: Any) -> Two:
        return super().__new__(cls, (first, second))


@pytest.mark.parametrize(
    "shape", [lambda x: types.MappingProxyType({"x": x}), lambda x: Two(x, 1)], ids=["read-only mapping", "tuple"]
)
def test_what_cannot_be_copied_comes_back_as_it_is(shape: Callable[[Tensor], Any]) -> None:
    found = accelerate(Shaped(shape))(X)
    assert type(found) is type(shape(X))


@dataclasses.dataclass(eq=False)
class Node:
    """What holds itself, through its children."""

    x: Tensor
    parent: Any = None
    children: list[Any] = dataclasses.field(default_factory=list)


def test_what_holds_itself_goes_in_and_out() -> None:
    class Tree(nn.Module):
        def forward(self, node: Node) -> Node:
            return Node(node.x, node, [node])

    root = Node(X)
    root.children.append(Node(X, root))
    assert accelerate(Tree())(root).parent is root
