"""The law of filled-in arguments, as a function that can be held against any implementation."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from hypothesis import strategies as st
from torch.utils.data import DataLoader, SequentialSampler

from tests.laws.violation import holds
from tests.loading.datasets import Deciding, Forwarding, Numbers, asking
from torchturbo.testing import pretend_hardware

OPTIONS = ("num_workers", "prefetch_factor", "pin_memory", "persistent_workers")
POSITIONAL: dict[str, Any] = {
    "batch_size": 1,
    "shuffle": None,
    "sampler": None,
    "batch_sampler": None,
    "num_workers": 0,
    "collate_fn": None,
    "pin_memory": False,
}
"""What can be given by position, with torch's defaults."""
DATASET = Numbers()

values: dict[str, st.SearchStrategy[Any]] = {
    "num_workers": st.sampled_from((0, 1, 2)),
    "prefetch_factor": st.sampled_from((None, 1, 3)),
    "pin_memory": st.booleans(),
    "persistent_workers": st.booleans(),
    "batch_size": st.sampled_from((1, 5, None)),
    "timeout": st.sampled_from((0, 60)),
    "multiprocessing_context": st.sampled_from((None, "fork", "nonsense")),
    "sampler": st.sampled_from((None, SequentialSampler(DATASET))),
    "drop_last": st.booleans(),
    "in_order": st.booleans(),
    "lenght": st.just(5),
}
calls = st.fixed_dictionaries({}, optional=values)
asked = st.fixed_dictionaries(
    {},
    optional={
        "num_workers": st.sampled_from((0, 1, 2, "auto")),
        "prefetch_factor": st.sampled_from((1, 3, "auto")),
        "pin_memory": st.sampled_from((True, False, "auto")),
        "persistent_workers": st.sampled_from((True, False, "auto")),
    },
)
AUTO = {"num_workers": 8, "prefetch_factor": 2, "pin_memory": True, "persistent_workers": False}
"""What "auto" stands for with this dataset on the machine that is pretended, where workers are forked."""
SEEN = ("num_workers", "prefetch_factor", "pin_memory", "persistent_workers", "batch_size", "timeout", "drop_last")
KINDS = (DataLoader, Forwarding, Deciding)


def made(kind: Any, call: dict[str, Any], positional: int) -> Any:
    """What a call makes, or the error it raises: so many of its arguments by position."""
    by_name = dict(call)
    by_place = [by_name.pop(name) for name in list(POSITIONAL)[:positional]]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create")
            return kind(DATASET, *by_place, **by_name)
    except Exception as error:
        return error


def by_hand(kind: Any, call: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The call that somebody would write who wants the options wherever it names nothing."""
    named = {"num_workers": 1, **call} if kind is Deciding else call
    full = {**{name: AUTO[name] if value == "auto" else value for name, value in options.items()}, **named}
    if full.get("num_workers", 0) == 0:
        for name in ("prefetch_factor", "persistent_workers"):
            if name not in named:
                full.pop(name, None)
    return full


def arguments_are_filled_in(kind: Any, call: dict[str, Any], options: dict[str, Any], positional: int) -> None:
    """What a loader gets is what its call names, and where it names nothing what is asked for; it never fails for it.

    Raises:
        Violation: it is not so.
    """
    positional = positional if kind is DataLoader else 0
    call = {**dict(list(POSITIONAL.items())[:positional]), **call}
    function = vars(DataLoader)["__init__"]
    before = function.__code__, dict(vars(function)), inspect.signature(DataLoader), inspect.signature(function)
    plain = made(kind, call, positional)
    with pretend_hardware("H100"), asking(**options):
        inside = made(kind, call, positional)
        holds(inspect.signature(DataLoader) == before[2], "its signature is another one in the block")
        holds(inspect.signature(function) == before[3], "the function's signature is another one in the block")
    after = function.__code__, dict(vars(function)), inspect.signature(DataLoader), inspect.signature(function)
    holds(after[0] is before[0] and after[1:] == before[1:], "something of ours stays in DataLoader.__init__")
    if isinstance(inside, Exception):
        holds(isinstance(plain, Exception), f"it raises {inside!r} where it did not")
        return
    expected = made(kind, by_hand(kind, call, options), 0)
    holds(not isinstance(expected, Exception), f"it does not raise {expected!r}")
    for name in SEEN:
        one, other = getattr(inside, name), getattr(expected, name)
        holds((one, type(one)) == (other, type(other)), f"{name} is {one!r} and not {other!r}")
    if isinstance(plain, Exception):
        return
    for name in SEEN:
        if name in call and not (name == "prefetch_factor" and call[name] is None):
            holds(getattr(inside, name) == getattr(plain, name), f"{name}, which the call names, is another one")
