"""Random loops under accumulation, of everything that loops have here: against the loop by hand, bit for bit."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.accumulating.loops import AUTOCASTS, OPTIMIZERS, SCHEDULERS, Case, check

# torch 2.8 has SequentialLR call what torch 2.8 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter in")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    every = draw(st.integers(1, 5))
    micro = draw(st.integers(every, 2 * every + 4))
    some = st.frozensets(st.integers(0, micro - 1))
    autocast = draw(st.sampled_from(AUTOCASTS))
    epochs = draw(some)
    # A flush in the first window warns.
    flushes = draw(st.booleans()) and all(end >= every - 1 for end in epochs)
    scheduler = draw(st.sampled_from([None, *SCHEDULERS]))
    # An epoch that ends in the first window is taken for a micro-batch of it.
    by_epoch = draw(st.booleans()) and all(later - earlier >= every for earlier, later in _between(epochs))
    # A GradScaler runs fused steps that overflow, which then change no more than that their state exists.
    optimizers = [name for name in OPTIMIZERS if name != "fused" or autocast != "fp16"]
    middle = draw(st.sampled_from(["plain", "sparse", "checkpoint", "checkpoint_reentrant"]))
    return Case(
        every,
        micro,
        autocast,
        order=draw(st.sampled_from(["before forward", "before backward", "after step"])),
        clear=draw(st.sampled_from(["to none", "in place", "model", "by hand"])),
        clip=draw(st.sampled_from([None, "norm", "value"])),
        optimizer="AdamW" if scheduler == "OneCycleLR" else draw(st.sampled_from(optimizers)),
        two=draw(st.booleans()),
        backwards=draw(st.integers(1, 3)),
        unused=draw(some),
        overflow=draw(some) if autocast == "fp16" and draw(st.booleans()) else frozenset(),
        epochs=epochs,
        flushes=flushes,
        scheduler=scheduler,
        by_epoch=by_epoch,
        inside=draw(st.booleans()),
        middle=middle,
    )


def _between(epochs: frozenset[int]) -> list[tuple[int, int]]:
    ends = [-1, *sorted(epochs)]
    return list(pairwise(ends))


@settings(max_examples=120)
@given(cases())
def test_random_loops(case: Case) -> None:
    check(case)
