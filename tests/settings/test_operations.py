"""`deterministic="warn"`: what may give other bits next time is named once, with the line that called it."""

from __future__ import annotations

import inspect
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch

from tests.fresh import Fresh
from tests.laws.around import NOTHING
from torchturbo import accelerate, turbo
from torchturbo.errors import DeterminismWarning
from torchturbo.settings import _operations
from torchturbo.settings._operations import _HEARD


@pytest.fixture(autouse=True)
def _nobody_has_been_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_operations, "_lines", set())


def unpooled() -> torch.Tensor:
    """An operation without a deterministic kernel, called by a module of torch's."""
    return torch.nn.MaxUnpool2d(2)(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.int64))


def put(x: torch.Tensor) -> torch.Tensor:
    """Another one, which has one such operation in its backward too."""
    return x.put(torch.tensor([1]), torch.ones(1))


def line_of(function: Callable[..., object], text: str) -> str:
    """Where in this file a function has a line with this text."""
    lines, first = inspect.getsourcelines(function)
    (at,) = [number for number, line in enumerate(lines, start=first) if text in line]
    return f"{__file__}:{at}"


def named(function: Callable[[], object]) -> list[warnings.WarningMessage]:
    """What it warns of."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        function()
    return heard


def test_an_operation_is_named_once_with_the_line_that_called_it() -> None:
    def body() -> None:
        with turbo(NOTHING, deterministic="warn"):
            for _ in range(3):
                unpooled()
                put(torch.ones(3))

    first, second = named(body)
    for warning, operation, where in (
        (first, "max_unpooling2d_forward_out", line_of(unpooled, "MaxUnpool2d(")),
        (second, "put_", line_of(put, "x.put(")),
    ):
        assert warning.category is DeterminismWarning
        assert str(warning.message) == (
            f"{operation} has no deterministic implementation here, so the next run may have other bits: called at "
            f"{where}. Use another operation there, or deterministic=True, which raises an error at it"
        )
        assert f"{warning.filename}:{warning.lineno}" == where


def go_back(loss: torch.Tensor) -> None:
    loss.backward()


def test_an_operation_of_backward_is_named_with_the_line_that_called_backward() -> None:
    x = torch.ones(3, requires_grad=True)
    loss = put(x * 1).sum()

    def body() -> None:
        with turbo(NOTHING, deterministic="warn"):
            go_back(loss)

    (warning,) = named(body)
    where = line_of(go_back, "loss.backward()")
    assert f"called by the backward at {where}" in str(warning.message)


def test_a_line_is_named_once_however_many_blocks_it_is_in() -> None:
    @accelerate(profile=NOTHING, deterministic="warn")
    def step() -> None:
        unpooled()

    def body() -> None:
        for _ in range(3):
            step()
            with turbo(NOTHING, deterministic="warn"):
                unpooled()
                with turbo(NOTHING, deterministic="warn"):
                    unpooled()

    assert len(named(body)) == 1


def test_another_block_names_the_operation_at_another_line() -> None:
    def body() -> None:
        with turbo(NOTHING, deterministic="warn"):
            torch.ones(3).put(torch.tensor([1]), torch.ones(1))
            torch.ones(3).put(torch.tensor([1]), torch.ones(1))
        with turbo(NOTHING, deterministic="warn"):
            torch.ones(3).put(torch.tensor([1]), torch.ones(1))

    assert len(named(body)) == 2


def test_a_generator_names_once_over_all_its_turns() -> None:
    @accelerate(profile=NOTHING, deterministic="warn")
    def generator() -> Iterator[None]:
        for _ in range(3):
            unpooled()
            yield

    assert len(named(lambda: list(generator()))) == 1


def test_other_threads_are_heard_too() -> None:
    def body() -> None:
        with turbo(NOTHING, deterministic="warn"):
            thread = threading.Thread(target=unpooled)
            thread.start()
            thread.join()

    assert len(named(body)) == 1


def test_where_warnings_are_errors_it_is_one_each_time() -> None:
    with turbo(NOTHING, deterministic="warn"):
        for _ in range(2):
            with pytest.raises(DeterminismWarning, match="max_unpooling2d"):
                unpooled()


def test_other_warnings_are_left_alone() -> None:
    def body() -> None:
        with turbo(NOTHING, deterministic="warn"):
            warnings.warn("put_ is nice", UserWarning, stacklevel=1)

    (warning,) = named(body)
    assert warning.category is UserWarning


@pytest.mark.parametrize(
    ("said", "begins", "ends"),
    [
        (
            "Flash Attention defaults to a non-deterministic algorithm. To ...",
            "Flash Attention goes back by an algorithm that is not deterministic, so the next run may have other bits",
            "deterministic=True has torch take another one",
        ),
        (
            "Memory Efficient attention defaults to a non-deterministic algorithm.",
            "Memory Efficient attention goes back by an algorithm",
            "deterministic=True has torch take another one",
        ),
        (
            "Deterministic behavior was enabled with either `torch.use ...",
            "A matrix product by cuBLAS is not deterministic with the workspace that it has, so",
            "Set cublas_workspace=':4096:8' before the first use of the GPU",
        ),
    ],
)
def test_what_torch_says_in_other_words_is_heard_too(said: str, begins: str, ends: str) -> None:
    def body() -> None:
        with turbo(NOTHING, deterministic="warn"):
            warnings.warn(said, UserWarning, stacklevel=1)

    (warning,) = named(body)
    assert str(warning.message).startswith(begins)
    assert str(warning.message).endswith(ends)


@pytest.mark.parametrize("deterministic", [True, False])
def test_nobody_listens_where_nothing_is_to_be_named(deterministic: bool) -> None:
    before = list(warnings.filters)
    with turbo(NOTHING, deterministic=deterministic):
        assert list(warnings.filters) == before
    with turbo(NOTHING, deterministic="warn"):
        assert list(warnings.filters) != before
    assert list(warnings.filters) == before
    assert _HEARD.match("put_ does not have a deterministic implementation, but you set") is False


def test_filters_that_the_block_sets_stay_its_own_affair() -> None:
    before = list(warnings.filters)
    with warnings.catch_warnings():
        with turbo(NOTHING, deterministic="warn"):
            warnings.simplefilter("ignore")
        assert warnings.filters[0][0] == "ignore"
    with turbo(NOTHING, deterministic="warn"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unpooled()
    assert list(warnings.filters) == before


def test_the_filter_can_be_sent_to_another_process() -> None:
    with turbo(NOTHING, deterministic="warn"):
        assert pickle.loads(pickle.dumps(list(warnings.filters))) == list(warnings.filters)


def test_an_error_names_the_operation() -> None:
    with turbo("reproducible"), pytest.raises(RuntimeError, match="max_unpooling2d_forward_out does not have"):
        unpooled()


SCRIPT = """
import torch
from torchturbo import turbo

with turbo("debug", autocast=None):
    torch.ones(3).put(torch.tensor([1]), torch.ones(1))
"""


def test_python_as_it_starts_shows_it(fresh_python: Fresh) -> None:
    done = fresh_python(SCRIPT)
    assert done.returncode == 0, done.stderr
    assert "DeterminismWarning: put_ has no deterministic implementation here" in done.stderr
    assert "called at <string>:6." in done.stderr
