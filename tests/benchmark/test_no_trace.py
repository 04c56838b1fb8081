"""After a benchmark everything is as it was, and training goes on bit for bit as if there had been none."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.laws.look import differences, look
from torchturbo import benchmark, turbo
from torchturbo.errors import TargetError

Bits = dict[str, Any]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine are what these tests would spend their time with."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Training:
    """A loop in the middle of its training, one step of which is measured.

    Args:
        scaler: whether the code scales its gradients by itself.
        stepped: steps before the measurement.
        cleared: whether gradients are cleared, or go on accumulating.
        last: whether the memory format is channels_last.
    """

    def __init__(
        self, *, scaler: bool = False, stepped: int = 1, cleared: bool = True, last: bool = False, sgd: bool = False
    ) -> None:
        torch.manual_seed(1)
        self.model = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(16, 3)
        )
        self.format = torch.channels_last if last else torch.contiguous_format
        self.model.to(memory_format=self.format)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model)
        parameters = self.model.parameters()
        self.optimizer: Any = (
            torch.optim.SGD(parameters, 0.05, momentum=0.9) if sgd else torch.optim.AdamW(parameters, 0.01)
        )
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2, enabled=scaler)
        data = TensorDataset(torch.randn(64, 2, 4, 4), torch.randint(0, 3, (64,)))
        self.batches = iter(DataLoader(data, batch_size=2, shuffle=True))
        self.cleared = cleared
        self.seen = 0
        for _ in range(stepped):
            self.step()

    def step(self) -> Tensor:
        images, labels = next(self.batches)
        head = nn.Dropout(0.1)
        if self.cleared:
            self.optimizer.zero_grad()
        outputs = head(self.model(images.to(memory_format=self.format)))
        loss = nn.functional.cross_entropy(outputs.float(), labels)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.seen += len(images)
        with torch.no_grad():
            for mine, its in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mine.lerp_(its, 0.1)
        return loss.detach()

    def bits(self) -> Bits:
        named = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        return {
            **{name: tensor.detach().clone() for name, tensor in named.items()},
            **{f"{name}.grad": tensor.grad for name, tensor in named.items() if tensor.grad is not None},
            **{f"average.{name}": tensor.clone() for name, tensor in self.average.state_dict().items()},
            "strides": [tensor.stride() for tensor in named.values()],
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "scheduler": {k: v for k, v in self.scheduler.state_dict().items() if not callable(v)},
            "scaler": self.scaler.state_dict(),
            "seen": self.seen,
            "stream": torch.get_rng_state(),
        }


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype is other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _differing(one: Bits, other: Bits) -> list[str]:
    return [name for name in one.keys() | other.keys() if not _same(one.get(name), other.get(name))]


def _look() -> dict[str, Any]:
    # A region watches what comes after steps from its first step on.
    return {name: value for name, value in look().items() if name != "optimizer hooks"}


PROFILES: tuple[Any, ...] = ("fast", "debug")


def _measured(training: Training) -> None:
    found = benchmark(training.step, PROFILES, budget=0.05, reference="float64")
    assert [row.failed for row in found] == [None] * len(found.rows)
    assert found.rows[0].memory


WAYS: dict[str, tuple[dict[str, Any], Callable[[], AbstractContextManager[Any]]]] = {
    "plain": ({}, nullcontext),
    "before the first step": ({"stepped": 0}, nullcontext),
    "gradients that accumulate": ({"cleared": False}, nullcontext),
    "channels_last": ({"last": True}, nullcontext),
    "a scaler of its own": ({"scaler": True}, nullcontext),
    "momentum": ({"sgd": True}, nullcontext),
    "in a block": ({}, lambda: turbo("fast", num_threads=2)),
    "in a block with a seed": ({}, lambda: turbo("reproducible", seed=3)),
    "in a block with fp16": ({}, lambda: turbo("exact", autocast="fp16", growth_interval=2, init_scale=8.0)),
    "under autocast by hand": ({}, lambda: torch.autocast("cpu", torch.bfloat16, cache_enabled=False)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore::torchturbo.errors.DeterminismWarning")
def test_training_goes_on_as_if_nobody_had_measured(way: str) -> None:
    options, around = WAYS[way]
    ends = []
    for measures in (True, False):
        torch.manual_seed(1)
        with around():
            training = Training(**options)
            if measures:
                before, seen = training.bits(), _look()
                gradients = [parameter.grad for parameter in training.model.parameters()]
                _measured(training)
                assert differences(seen, _look()) == ""
                assert _differing(before, training.bits()) == []
                assert all(p.grad is g for p, g in zip(training.model.parameters(), gradients, strict=True))
            for _ in range(3):
                training.step()
            ends.append(training.bits())
    assert _differing(*ends) == []


def test_what_fails_under_one_contender_is_told_there_and_all_is_put_back() -> None:
    training = Training()
    before, seen = training.bits(), look()

    def step() -> Tensor:
        loss = training.step()
        if torch.is_anomaly_enabled():
            training.model.eval()
            raise ValueError("not like this\nmore lines")
        return loss

    found = benchmark(step, ("debug", "exact"), budget=0.05)
    assert [(row.failed, bool(row.samples)) for row in found] == [
        *([(None, True)] * (len(found.rows) - 2)), ("ValueError: not like this", False), (None, True)
    ]  # fmt: skip
    assert found["exact"].drift is not None
    assert differences(seen, look()) == ""
    assert _differing(before, training.bits()) == []
    assert all(module.training for module in training.model.modules())


class Odd(BaseException):
    """Nothing that anybody catches."""


@pytest.mark.parametrize(
    ("error", "run"), [(ValueError, 1), (ValueError, 12), (KeyboardInterrupt, 2), (KeyboardInterrupt, 25), (Odd, 5)]
)
def test_what_ends_it_comes_out_and_all_is_put_back(error: type[BaseException], run: int) -> None:
    training = Training()
    before, seen = training.bits(), look()
    runs: list[int] = []
    count = runs.append

    def step() -> Tensor:
        loss = training.step()
        count(1)
        if _number(count) >= run and not torch.is_anomaly_enabled():
            raise error("that is it")
        return loss

    with pytest.raises(error, match="that is it"):
        benchmark(step, "debug", budget=0.3)
    assert differences(seen, look()) == ""
    assert _differing(before, training.bits()) == []


def _number(count: Any) -> int:
    """How often a list's own `append` has been called, which nobody puts back."""
    return len(count.__self__)


def test_within_a_block_that_accumulates_it_is_refused() -> None:
    model = nn.Linear(2, 2)

    def step() -> None:
        raise AssertionError("it ran")

    with turbo("exact", accumulate=2) as active:
        with pytest.raises(TargetError, match=r"accumulate=2 is open here.*outside of the block"):
            benchmark(step, "exact", budget=0.01, modules=[model])
        active.flush()
