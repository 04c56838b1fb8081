"""A function that only computes is compiled itself; one that trains or evaluates has its modules compiled."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.regions.compiled import BARE, Backend, Net, Refusing, X
from torchturbo import turbo
from torchturbo.errors import CompileWarning
from torchturbo.regions.compiling import Function, call_function, compilations

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:The \.grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.usefixtures("fresh_compiler"),
]
NET = Net()
OPTIMIZER = torch.optim.SGD(NET.parameters(), lr=0.1)


def pure(x: Tensor, scale: float = 2.0) -> Tensor:
    return (x * scale).sin() @ x.T


def called(function: Callable[..., Any], *args: Any, times: int = 4) -> tuple[Function, list[set[str]], Any]:
    """What is known of a function after some calls in a region, the graphs, and the last result."""
    state, backend, result = Function(), Backend(), None
    with turbo(BARE, compile=backend.options):
        for _ in range(times):
            result = call_function(function, args, {}, state)
    return state, backend.graphs, result


def test_a_pure_function_is_compiled_itself() -> None:
    state, graphs, result = called(pure, X)
    assert state.pure is True
    assert len(graphs) == 1
    assert torch.equal(result, pure(X))
    assert compilations()[-1].name == "pure"


def test_the_first_call_runs_as_it_is() -> None:
    assert called(pure, X, times=1)[1] == []


def test_outside_of_a_region_nothing_is_found_out() -> None:
    state = Function()
    assert torch.equal(call_function(pure, (X,), {"scale": 3.0}, state), pure(X, 3.0))
    with turbo(BARE, compile=False):
        call_function(pure, (X,), {}, state)
    assert state.pure is None


def of_a_global(x: Tensor) -> Tensor:
    result: Tensor = NET(x)
    return result


def of_an_argument(x: Tensor, net: nn.Module) -> Tensor:
    result: Tensor = net(x)
    return result


def of_a_dictionary(x: Tensor, nets: dict[str, Any]) -> Tensor:
    result: Tensor = nets["here"][0](x)
    return result


def of_something_unseen(x: Tensor, holder: Any) -> Tensor:
    result: Tensor = holder.anything(x)
    return result


class Holder:
    """Something with a module in it, whose method is called."""

    def __init__(self) -> None:
        self.net = Net()

    def method(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result

    def anything(self, x: Tensor) -> Tensor:
        hidden: Tensor = getattr(self, "ne" + "t")(x)
        return hidden


def of_a_closure() -> Callable[..., Tensor]:
    net = Net()
    return lambda x: net(x)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (of_a_global, (X,)),
        (of_an_argument, (X, Net())),
        (of_a_dictionary, (X, {"here": [Net()]})),
        (of_something_unseen, (X, Holder())),
        (of_a_closure(), (X,)),
        (Holder().method, (X,)),
        (partial(of_an_argument, net=Net()), (X,)),
    ],
    ids=["global", "argument", "dictionary", "unseen", "closure", "method", "partial"],
)
def test_a_function_that_calls_a_module_has_it_compiled(function: Any, args: tuple[Any, ...]) -> None:
    state, graphs, _ = called(function, *args)
    assert state.pure is False
    assert len(graphs) == 1
    assert compilations()[-1].name == "Net"


def backward_by_name(x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    (leaf * leaf).sum().backward()
    return leaf


def backward_unseen(x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad((leaf * leaf).sum(), leaf)[0]


def step_unseen(x: Tensor) -> Tensor:
    getattr(OPTIMIZER, "st" + "ep")()
    return x + 1


@pytest.mark.parametrize("function", [backward_by_name, backward_unseen, step_unseen])
def test_a_function_that_trains_is_not_compiled(function: Callable[[Tensor], Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompileWarning)  # told where what reaches the rest can be seen
        state, graphs, _ = called(function, X)
    assert state.pure is False
    assert graphs == []


def test_code_that_runs_in_parts_is_not_compiled() -> None:
    def parts(x: Tensor) -> Iterator[Tensor]:
        yield x + 1

    state, graphs, result = called(parts, X)
    assert state.pure is False
    assert graphs == []
    assert torch.equal(next(result), X + 1)


def test_who_profiles_goes_on_profiling() -> None:
    def profiler(frame: object, event: str, argument: object) -> None:
        pass

    state = Function()
    with turbo(BARE, compile=Backend().options):
        sys.setprofile(profiler)
        try:
            call_function(pure, (X,), {}, state)
            found = sys.getprofile()
        finally:
            sys.setprofile(None)
    assert found is profiler
    assert state.pure is None


def test_a_first_call_that_raises_tells_nothing_and_leaves_nothing() -> None:
    state = Function()

    def wrong(x: Tensor) -> Tensor:
        raise KeyError("mine")

    with turbo(BARE, compile=Backend().options), pytest.raises(KeyError, match="mine"):
        call_function(wrong, (X,), {}, state)
    assert (state.pure, sys.getprofile()) == (None, None)


def test_a_pure_function_that_cannot_be_compiled_runs_eagerly() -> None:
    state = Function()
    with turbo(BARE, compile=Refusing().options):
        call_function(pure, (X,), {}, state)
        with pytest.warns(CompileWarning, match="^pure could not be compiled"):
            found = call_function(pure, (X,), {}, state)
    assert torch.equal(found, pure(X))
    with turbo(BARE, strict=True, compile=Refusing().options):
        with pytest.raises(torch._dynamo.exc.BackendCompilerFailed):
            call_function(pure, (X,), {}, state)
