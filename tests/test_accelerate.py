"""A decorated function runs under its profile, and is in all else the function it was."""

from __future__ import annotations

import copy
import functools
import inspect
import multiprocessing
import pickle
import threading
import typing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from torchturbo import Profile, accelerate
from torchturbo.errors import UnsupportedHere
from torchturbo.testing import pretend_hardware


def anomaly() -> bool:
    return bool(torch.is_anomaly_enabled())


@accelerate(profile="debug")
def looking(first: int = 1, *rest: str, key: float = 0.5, **more: object) -> tuple[Any, ...]:
    """Says what it was called with, and whether anomalies are looked for."""
    return first, rest, key, more, anomaly()


class Looker:
    name = "looker"

    @accelerate(profile="debug")
    def method(self, more: str = "") -> tuple[str, bool]:
        """Looks from an object."""
        return self.name + more, anomaly()

    @classmethod
    @accelerate(profile="debug")
    def of_the_class(cls) -> tuple[str, bool]:
        return cls.name, anomaly()

    @staticmethod
    @accelerate(profile="debug")
    def of_nobody() -> bool:
        return anomaly()

    @property
    @accelerate(profile="debug")
    def looked(self) -> bool:
        return anomaly()


# --------------------------------------------------------------------------------------------------- what it does


def test_bare_and_with_arguments() -> None:
    with pretend_hardware("cpu-bf16"):
        bare = accelerate(lambda: torch.is_autocast_enabled("cpu"))
        called = accelerate()(lambda: torch.is_autocast_enabled("cpu"))
        given = accelerate(profile="exact", autocast="bf16")(lambda: torch.is_autocast_enabled("cpu"))
        both = accelerate(anomaly, profile=Profile("mine", anomaly=True))
        assert [bare(), called(), given(), both()] == [True] * 4
    assert not anomaly()


def test_arguments_results_and_exceptions_go_through() -> None:
    assert looking(1, "2", key=3, wrapped=4, instance=5) == (1, ("2",), 3, {"wrapped": 4, "instance": 5}, True)
    error = ValueError("from inside")

    @accelerate(profile="debug")
    def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="from inside") as caught:
        fail()
    assert caught.value is error
    assert not anomaly()


def test_methods_of_every_kind() -> None:
    looker = Looker()
    assert looker.method("!") == ("looker!", True)
    assert Looker.method(looker) == ("looker", True)
    assert Looker.of_the_class() == looker.of_the_class() == ("looker", True)
    assert [Looker.of_nobody(), looker.of_nobody(), looker.looked] == [True] * 3
    assert not anomaly()


def test_a_modules_forward() -> None:
    class Half(nn.Linear):
        @accelerate
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    with pretend_hardware("cpu-bf16"):
        model = Half(4, 4)
        assert model(torch.ones(2, 4)).dtype is torch.bfloat16
        assert copy.deepcopy(model)(torch.ones(2, 4)).dtype is torch.bfloat16
        assert nn.Linear(4, 4)(torch.ones(2, 4)).dtype is torch.float32
    assert list(model.state_dict()) == ["weight", "bias"]


def test_recursion() -> None:
    seen = []

    @accelerate(profile="debug")
    def descend(depth: int) -> None:
        seen.append(anomaly())
        if depth:
            descend(depth - 1)
        seen.append(anomaly())

    descend(5)
    assert seen == [True] * 12
    assert not anomaly()


def test_decorated_twice() -> None:
    inner = accelerate(lambda: (anomaly(), torch.get_num_threads()), profile="exact", num_threads=1)
    assert accelerate(inner, profile="debug")() == (True, 1)
    assert accelerate(inner, profile="debug", num_threads=2)() == (True, 1), "the inner one is nearer"
    assert not anomaly()


def test_many_threads_at_once() -> None:
    barrier = threading.Barrier(4)

    @accelerate(profile="inference", autocast=None)
    def work(turn: int) -> bool:
        if turn == 0:
            barrier.wait(timeout=60)
        return not torch.is_grad_enabled()

    def thread(turns: int) -> list[bool]:
        return [work(turn) and torch.is_grad_enabled() for turn in range(turns)]

    with ThreadPoolExecutor(4) as pool:
        assert [all(seen) for seen in pool.map(thread, [50] * 4)] == [True] * 4


def test_strictly() -> None:
    called = []
    strict = accelerate(lambda: called.append(1), strict=True)
    with pretend_hardware("cpu"), pytest.raises(UnsupportedHere):
        strict()
    assert called == []


def test_the_block_is_known_by_the_function() -> None:
    from torchturbo._turbo import in_force

    @accelerate(profile="debug")
    def where() -> str:
        (active,) = in_force()
        return active.where

    assert where()
    assert in_force() == ()


# --------------------------------------------------------------------------------------------------- what it stays


def test_it_is_the_function_in_all_else() -> None:
    def original(first: int = 1, *rest: str, key: float = 0.5, **more: object) -> tuple[Any, ...]:
        """Says what it was called with."""
        return first, rest, key, more

    decorated = accelerate(original)
    for same in (
        inspect.signature,
        inspect.getdoc,
        inspect.getsource,
        inspect.isfunction,
        inspect.unwrap,
        typing.get_type_hints,
        inspect.getfullargspec,
        callable,
        type,
        *(lambda f, name=name: getattr(f, name) for name in ("__name__", "__qualname__", "__module__", "__doc__")),
        *(lambda f, name=name: getattr(f, name) for name in ("__defaults__", "__kwdefaults__", "__annotations__")),
    ):
        assert same(decorated) == same(original), same
    assert decorated.__wrapped__ is original


def test_attributes_can_be_read_and_written() -> None:
    decorated = accelerate(lambda: None)
    decorated.mark = 1
    assert decorated.mark == 1
    del decorated.mark
    assert not hasattr(decorated, "mark")


def test_methods_keep_name_signature_and_doc() -> None:
    looker = Looker()
    assert looker.method.__name__ == "method"
    assert looker.method.__self__ is looker
    assert str(inspect.signature(looker.method)) == "(more: 'str' = '') -> 'tuple[str, bool]'"
    assert inspect.getdoc(Looker.method) == "Looks from an object."


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_pickles_by_reference(protocol: int) -> None:
    assert pickle.loads(pickle.dumps(looking, protocol)) is looking
    nested = pickle.loads(pickle.dumps(Looker.of_nobody, protocol))
    assert nested() is True


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_bound_methods_pickle_as_those_of_plain_functions_do(protocol: int) -> None:
    looker = Looker()
    looker.name = "another"
    assert pickle.loads(pickle.dumps(looker.method, protocol))() == ("another", True)


def test_what_cannot_be_found_by_name_does_not_pickle_as_another_thing() -> None:
    renamed = accelerate(test_strictly)
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(renamed)


def test_copies_are_itself_as_those_of_functions_are() -> None:
    assert copy.copy(looking) is looking
    assert copy.deepcopy(looking) is looking
    holder = {"function": looking, "method": Looker().method}
    assert copy.deepcopy(holder)["function"] is looking
    assert copy.deepcopy(holder)["method"]() == ("looker", True)


def test_it_reaches_processes_that_start_afresh() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(looking, 1, "2", key=3).result() == (1, ("2",), 3, {}, True)
        assert pool.submit(Looker().method, "!").result() == ("looker!", True)


def test_other_decorators_go_around_and_inside() -> None:
    cached = functools.lru_cache(accelerate(anomaly, profile="debug"))
    assert cached() is True

    @accelerate(profile="debug")
    @torch.no_grad()
    def inside() -> tuple[bool, bool]:
        return anomaly(), torch.is_grad_enabled()

    outside = torch.no_grad()(accelerate(lambda: (anomaly(), torch.is_grad_enabled()), profile="debug"))
    assert inside() == outside() == (True, False)


def test_a_wrapper_around_anything_callable_is_a_plain_function() -> None:
    @functools.wraps(nn.Linear)
    def make(*sizes: int) -> tuple[nn.Module, bool]:
        return nn.Linear(*sizes), anomaly()

    assert accelerate(make, profile="debug")(4, 4)[1] is True
