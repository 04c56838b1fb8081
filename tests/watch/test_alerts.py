"""The alert: once, with the cause that was measured, on real slow loaders and on GPUs that stand in for one."""

from __future__ import annotations

import io
import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sized

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from examples import graphs
from tests.hardware.driver import Card, Driver
from torchturbo import cached, hardware, turbo, watch
from torchturbo._watch import _Of, machine, session
from torchturbo._watch.alert import loading_of
from torchturbo.errors import WatchWarning


def _trained(batches: object, told: Sized) -> None:
    """Trains until something is told, and an epoch more."""
    model = graphs.GraphNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    end, more = time.perf_counter() + 60, 2
    while more and time.perf_counter() < end:
        more -= bool(len(told))
        for batch in batches:  # type: ignore[attr-defined]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), batch.labels).backward()
            optimizer.step()


def test_graphs_that_are_built_in_the_loader_are_named() -> None:
    """The loader of the reports: 256 nodes and 2,560 edges a batch, built in plain Python."""
    batches = graphs.loader(graphs.Graphs(128))
    batch = next(iter(batches))
    assert (len(batch.nodes), batch.edges.shape[1] - len(batch.nodes)) == (256, 2560)
    # It is told of whatever its share is, as that depends on what else the machine does; and an epoch is over before
    # the first look, as one of validation may be.
    watched = watch(batches, every=60.0, after=0.8, alert=1.0, to=io.StringIO())
    with turbo("exact", num_threads=1), pytest.warns(WatchWarning) as told:
        _trained(watched, told)
    assert len(told) == 1, "once"
    text = str(told[0].message)
    assert re.match(r"this machine computes \d+% of the time, below 100% over ", text)
    cores = hardware.detect().cpu.cores
    assert f"waiting on the loader {_share(text):.0%} of the time: no workers on {cores} core" in text
    assert "; try num_workers=" in text
    assert "\n  graphs.py:" in text.partition("The lines that spend it:")[2]
    assert told[0].filename == __file__, "it points at the loop"
    assert watched.seen is not None
    assert watched.seen.loops[0].samples_per_second is not None


def _share(text: str) -> float:
    return int(text.partition("waiting on the loader ")[2].partition("%")[0]) / 100


def test_a_loop_that_does_not_wait_is_not_told_of_anything() -> None:
    for _ in watch(range(40), every=0.02, after=0.1, to=io.StringIO()):
        time.sleep(0.01)


def test_an_error_if_warnings_are() -> None:
    def slow() -> Iterator[int]:
        for number in range(1000):
            time.sleep(0.01)
            yield number

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(WatchWarning, match="a generator makes batches in the loop's own thread"):
            list(watch(slow(), every=0.05, after=0.2, to=io.StringIO()))


def test_how_batches_come() -> None:
    found = loading_of(DataLoader(graphs.Graphs(), num_workers=2, persistent_workers=True))
    assert (found.kind, found.workers, found.persistent, found.refused) == ("a DataLoader", 2, True, None)
    assert loading_of(DataLoader(graphs.Graphs())).refused is None

    class Stream(torch.utils.data.IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(range(3))

    assert "each worker would give all samples once more" in (loading_of(DataLoader(Stream())).refused or "")
    assert loading_of([1, 2]).workers is None


def test_what_is_cached_already_is_not_to_be_cached() -> None:
    data = cached([torch.ones(1), torch.ones(1)])
    loader = DataLoader(data)
    whole = cached(DataLoader([1, 2]))  # type: ignore[arg-type]
    loaders = (loader, DataLoader(Subset(data, [0])), whole, DataLoader([1, 2]))  # type: ignore[arg-type]
    assert [loading_of(each).cached for each in loaders] == ["items", "items", "batches", None]
    with turbo("exact", monitor="lines"):
        iterator = iter(whole)
        assert loading_of(_Of(iterator)).cached == "batches"


class Idle(Driver):
    """A driver whose GPU works a third of the time, and is too hot."""

    def nvmlDeviceGetUtilizationRates(self, card: Card) -> object:
        return type("Rates", (), {"gpu": 33, "memory": 5})()


@pytest.fixture
def idle_gpu(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A GPU that this process has started."""
    driver = Idle([Card(throttle=0x1 | 0x2 | 0x20)])
    monkeypatch.setitem(sys.modules, "pynvml", driver.module())
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(session, "current_gpu", lambda: 0)
    monkeypatch.setattr(machine, "_of_gpu", lambda index: (2 * 2**30, 3 * 2**30))
    monkeypatch.setattr(hardware, "_real", None)
    monkeypatch.setattr(hardware, "_real_is_final", False)
    monkeypatch.setattr(hardware, "known", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return driver


def _on_the_host(seconds: float) -> None:
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        pass


def _loop(watched: Iterable[int]) -> None:
    for _ in watched:
        _on_the_host(0.01)


def test_host_code_that_keeps_a_gpu_waiting_is_named(idle_gpu: Driver) -> None:
    watched = watch(range(100), every=0.05, after=0.5, to=(out := io.StringIO()))
    with pytest.warns(
        WatchWarning, match=r"(?s)the GPU is busy 33% of the time, below 70% over .* s: host code"
    ) as told:
        _loop(watched)
    assert "in _on_the_host (" in str(told[0].message)
    assert watched.seen is not None
    found = watched.seen.machine
    assert (found.utilization, found.power, found.temperature) == (0.33, 312.5, 61)
    assert found.throttled == ("heat: the driver slows it down to cool it",), "who is idle is not throttled"
    assert (found.memory, found.memory_peak, found.memory_total) == (2 * 2**30, 3 * 2**30, 80 * 2**30)
    assert "GPU 33%, 312 W, throttled by heat, memory 2 GiB of 80 GiB (peak 3 GiB)" in out.getvalue()
    assert idle_gpu.opened == 0, "NVML is closed"


def test_a_gpu_that_torch_has_not_started_says_nothing(idle_gpu: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "current_gpu", lambda: None)
    watched = watch(range(20), every=0.02, after=0.1, to=io.StringIO())
    for _ in watched:
        time.sleep(0.01)
    assert watched.seen is not None
    assert watched.seen.machine.utilization is None
    assert watched.seen.machine.memory is not None
