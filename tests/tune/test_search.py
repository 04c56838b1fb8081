"""The search, over steps whose times are planted: a clock that this test turns, and numbers that are right or wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from torchturbo import Profile, Tuned, hardware, tune, turbo
from torchturbo._replay.here import Here
from torchturbo._tune.space import Uses
from torchturbo.errors import OptionNameError, OptionValueError, ProfileNameError, TargetError
from torchturbo.testing import pretend_hardware


class Step:
    """A step whose time, by this test's clock, and whose numbers depend on the settings in force.

    Args:
        seconds: what it takes now.
        factor: what its loss is multiplied with now.
    """

    def __init__(self, seconds: Callable[[], float], factor: Callable[[], float] = lambda: 1.0) -> None:
        self.model = nn.Linear(4, 4)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.batch = torch.ones(2, 4)
        self.seconds, self.factor = seconds, factor

    def __call__(self) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = self.model(self.batch).square().mean() * self.factor()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has each step take what it says, and the search believe it."""
    passed = [0.0]

    def seconds(self: Here, block: AbstractContextManager[Any], times: int = 1) -> float:
        with block:
            step: Any = self._step
            took = times * float(step.seconds())
            try:
                self._run()
            finally:
                self.keeper.put_back()
        passed[0] += took
        return took

    started = Here.__init__

    def start(self: Any, function: Any, *args: Any, **kwargs: Any) -> None:
        self._step = function
        started(self, function, *args, **kwargs)

    monkeypatch.setattr(Here, "__init__", start)
    monkeypatch.setattr(Here, "seconds", seconds)
    monkeypatch.setattr("torchturbo._tune.search.time.perf_counter", lambda: passed[0])


def _deterministic() -> bool:
    return torch.are_deterministic_algorithms_enabled()


def _search(step: Step, *also: Mapping[str, Any] | Profile, budget: float = 1000, **more: Any) -> Tuned:
    with _no_moves_of_its_own():
        return tune(step, budget=budget, write=False, also=also, **more)


@contextmanager
def _no_moves_of_its_own() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchturbo._tune.search.changes", lambda hardware, uses: ())
        yield


@pytest.mark.usefixtures("clock")
class TestChoice:
    def test_what_is_faster_is_kept_and_what_is_not_is_left(self) -> None:
        step = Step(lambda: 1.0 - 0.5 * _deterministic() + 0.2 * torch.is_anomaly_enabled())
        found = _search(step, {"anomaly": True}, {"deterministic": True})
        assert dict(found) == {"deterministic": True}
        assert [each.outcome for each in found.tuning.tried] == ["no faster", "kept"]
        assert found.tuning.speedup is not None
        assert found.tuning.speedup.value == pytest.approx(2.0)
        assert found.tuning.drift is not None
        assert found.tuning.drift.same

    def test_changes_are_tried_on_top_of_the_best(self) -> None:
        step = Step(lambda: 1.0 - 0.3 * _deterministic() - 0.3 * torch.is_anomaly_enabled())
        found = _search(step, {"anomaly": True}, {"deterministic": True})
        assert dict(found) == {"anomaly": True, "deterministic": True}
        assert found.tuning.speedup is not None
        assert found.tuning.speedup.value == pytest.approx(2.5)

    @pytest.mark.parametrize("factor", [1.2, -1.0, float("nan"), float("inf"), 0.0])
    def test_what_is_fast_and_wrong_is_never_chosen(self, factor: float) -> None:
        step = Step(lambda: 1.0 - 0.9 * _deterministic(), lambda: factor if _deterministic() else 1.0)
        found = _search(step, {"deterministic": True})
        assert dict(found) == {}
        (tried,) = found.tuning.tried
        assert tried.outcome == "drifts"
        assert tried.speedup is None

    def test_wrong_within_the_tolerance_is_within_it(self) -> None:
        step = Step(lambda: 1.0 - 0.9 * _deterministic(), lambda: 1.2 if _deterministic() else 1.0)
        assert dict(_search(step, {"deterministic": True}, tolerance=0.3)) == {"deterministic": True}

    def test_an_optimizer_that_goes_elsewhere_drifts(self) -> None:
        step = Step(lambda: 1.0 - 0.9 * _deterministic())
        rate = step.optimizer.param_groups[0]
        take = step.optimizer.step

        def faster_rate(*args: Any) -> Any:
            rate["lr"] = 0.2 if _deterministic() else 0.1
            return take(*args)

        step.optimizer.step = faster_rate  # type: ignore[method-assign]
        found = _search(step, {"deterministic": True})
        assert dict(found) == {}
        assert found.tuning.tried[0].outcome == "drifts"

    def test_what_raises_or_has_no_memory_is_left_out(self) -> None:
        def seconds() -> float:
            if _deterministic():
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nmore")
            return 1.0

        found = _search(Step(seconds), {"deterministic": True})
        assert dict(found) == {}
        assert found.tuning.tried[0].outcome == "failed"
        assert found.tuning.tried[0].why == "OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB"

    def test_clear_losers_are_given_up_early(self) -> None:
        found = _search(Step(lambda: 1.0 + _deterministic()), {"deterministic": True})
        assert found.tuning.tried[0].rounds == 3

    def test_what_has_no_effect_here_says_why(self) -> None:
        with pretend_hardware("cpu"):
            found = _search(Step(lambda: 1.0), {"cudnn_benchmark": True}, {"deterministic": False})
        assert [each.outcome for each in found.tuning.tried] == ["no effect", "no faster"]
        assert "cuDNN" in found.tuning.tried[0].why

    def test_without_time_nothing_is_tried(self) -> None:
        found = _search(Step(lambda: 1.0 - 0.5 * _deterministic()), {"deterministic": True}, budget=2.5)
        assert dict(found) == {}
        assert found.tuning.tried[0].outcome == "no time"

    def test_ctrl_c_keeps_the_best_so_far(self) -> None:
        def seconds() -> float:
            if torch.is_anomaly_enabled():
                raise KeyboardInterrupt
            return 1.0 - 0.5 * _deterministic()

        found = _search(Step(seconds), {"deterministic": True}, {"anomaly": True})
        assert dict(found) == {"deterministic": True}
        assert found.tuning.interrupted

    def test_a_profile_can_be_tried(self) -> None:
        found = _search(Step(lambda: 1.0 - 0.5 * _deterministic()), Profile("mine", deterministic=True))
        assert dict(found) == {"deterministic": True}

    def test_it_goes_from_what_is_in_force(self) -> None:
        step = Step(lambda: 1.0 - 0.5 * _deterministic())
        with turbo("exact", deterministic=True):
            found = _search(step, {"anomaly": True})
        assert dict(found) == {}
        assert found.tuning.before == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"tolerance": -1}, OptionValueError, r"tolerance=-1"),
        ({"tolerance": 1.0}, OptionValueError, r"below 1"),
        ({"budget": "soon"}, OptionValueError, r"'2 min'"),
        ({"budget": 0}, OptionValueError, r"budget=0"),
        ({"name": "fast"}, ProfileNameError, r"built-in"),
        ({"also": ({"deterministc": True},)}, OptionNameError, r"deterministic"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_runs(
    options: dict[str, Any], error: type[Exception], match: str
) -> None:
    def step() -> None:
        raise AssertionError("it ran")

    with pytest.raises(error, match=match):
        tune(step, write=False, **options)


def test_a_step_without_numbers_is_refused() -> None:
    with pytest.raises(TargetError, match="nothing of the step could be compared"):
        tune(lambda: None, write=False, budget=5)


def test_its_own_changes_go_from_likely_to_unlikely() -> None:
    from torchturbo._tune.space import changes

    everything = Uses(loaders=True, images=True, optimizers=True)

    with pretend_hardware("H100") as machine:
        names = [next(iter(change)) for change in changes(machine, everything)]
    assert names[0] == "num_workers"
    assert names.index("autocast") < names.index("fused_optimizer") < names.index("compile")
    assert names.count("compile") == 3
    assert {name for name in names} <= set(__import__("torchturbo._catalogue", fromlist=["OPTIONS"]).OPTIONS)
    assert "compile" in {next(iter(change)) for change in changes(hardware.detect(), everything)}


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("gain", [0.5, 0.0])
def test_only_what_is_faster_is_written(tmp_path: Path, gain: float) -> None:
    path = tmp_path / "torchturbo.toml"
    with _no_moves_of_its_own():
        tune(Step(lambda: 1.0 - gain * _deterministic()), budget=1000, write=path, also=[{"deterministic": True}])
    assert path.exists() is bool(gain)


def test_what_a_step_does_not_use_is_not_tried() -> None:
    tried: list[Uses] = []

    def changes(hardware: Any, uses: Uses) -> tuple[()]:
        tried.append(uses)
        return ()

    def over_an_epoch() -> float:
        batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(4, 2)), batch_size=2)
        assert batches.num_workers == 0
        return sum(batch.sum().item() for (batch,) in batches)

    conv = nn.Conv2d(1, 1, 1)
    steps = over_an_epoch, lambda: conv(torch.ones(1, 1, 2, 2)).sum(), Step(lambda: 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchturbo._tune.search.changes", changes)
        for step in steps:
            tune(step, budget=0.5, write=False)
    assert tried == [Uses(True, False, False), Uses(False, True, False), Uses(False, False, True)]
