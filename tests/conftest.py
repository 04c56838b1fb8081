"""Every test leaves torch, Python and this process as it found them, and says so if it does not."""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.fresh import Fresh
from tests.laws.look import differences, look, witness

try:
    import tqdm
except ImportError:
    pass
else:
    # Whatever shows a bar would start a thread that watches it, and be taken for a test that leaves one running.
    tqdm.tqdm.monitor_interval = 0

# The same examples in every run: what CI finds, anybody finds. `--hypothesis-profile=explore` looks for new ones.
settings.register_profile(
    "same", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", settings.get_profile("same"), derandomize=False, max_examples=2000)
settings.load_profile("same")


@pytest.fixture(scope="session", autouse=True)
def _look_around_first() -> None:
    """What there is to watch is found out in children, before any test has run anything."""
    witness()
    look()


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect(_look_around_first: None) -> None:
    """A collection goes through all that torch has made, which takes a tenth of a second, unless that is set apart."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def fresh_python() -> Iterator[Fresh]:
    """Runs code in processes whose torch nobody has touched."""
    with Fresh() as fresh:
        yield fresh


@pytest.fixture(scope="module")
def compiler() -> None:
    """Loaded and used once, so that what this changes in Python is not taken for what a test has left."""
    from tests.regions.compiled import load_compiler  # the police themselves ask nothing of torchturbo

    load_compiler()


@pytest.fixture
def fresh_compiler(compiler: None) -> Iterator[None]:
    """A compiler that has compiled nothing yet."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture(autouse=True)
def leaves_no_trace(_look_around_first: None) -> Iterator[None]:
    """The leak police. It reads torch by its own means, and asks nothing of torchturbo.

    Random generators are put back here, so that a test may draw from them; all else a test must put back itself.
    """
    generators = random.getstate(), torch.get_rng_state(), _queued_seeds(), np.random.get_state()
    threads = set(threading.enumerate())
    before = look()
    yield
    random.setstate(generators[0])
    torch.set_rng_state(generators[1])
    np.random.set_state(generators[3])
    for tracker, seeds in generators[2]:
        vars(tracker).update(seeds)
    found = differences(before, look())
    if found:
        gc.collect()  # a generator that holds a block open may only be waiting for the collector
        found = differences(before, look())
    assert not found, f"the test left something changed: {found}"
    assert not _left_running(threads), f"the test left threads running: {_left_running(threads)}"


def _queued_seeds() -> list[tuple[object, dict[str, object]]]:
    """The seeds that wait for a device to start, which torch.manual_seed queues."""
    modules = (sys.modules.get(name) for name in ("torch.cuda", "torch.xpu"))
    trackers = [getattr(module, "_lazy_seed_tracker", None) for module in modules]
    return [
        (tracker, {name: list(seed) if isinstance(seed, list) else seed for name, seed in vars(tracker).items()})
        for tracker in trackers
        if tracker is not None
    ]


def _left_running(before: set[threading.Thread]) -> list[threading.Thread]:
    """Threads that were not there before and do not end within a second."""
    deadline = time.monotonic() + 1
    while (
        left := [thread for thread in threading.enumerate() if thread not in before]
    ) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left
