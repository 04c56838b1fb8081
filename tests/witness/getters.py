"""Finds every getter of ``torch._C`` that takes no argument, by looking, and reads them all as text."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from tests.witness.children import in_child

Reading = dict[str, str]

LOOKS_LIKE_A_GETTER = re.compile(r"(?:^|_)(?:get|is|has|are|can)(?=[_A-Z])|_enabled$|_mode$|^_current_|_allowed$")
LOOKS_LIKE_AN_ACT = re.compile(
    r"(?:^|_)(?:set|unset|clear|reset|init|enable|disable|push|pop|enter|exit|increment|decrement|ensure\w*|synchronize"
    r"|deviceSynchronize|record|register|make|create)(?=_|$|[A-Z])"
)

# Why a name that looks like a getter is not read. The pattern must match the whole name.
EXCLUDED = {
    r"_any_output_is_alias_to_input_or_output|_has_torch_function\w*": "about its arguments; the first crashes without",
    r"_cuda_canDeviceAccessPeer": "about two devices",
    r"_peek_should_skip_torch_function|_get_torch_function_kwargs": "about the call in progress",
    r"_get_all_dtypes|_get_operator_version_map|_get_upgraders_\w+|_get_max_operator_version": "a constant table",
    r"_dispatch_get_\w+|_jit_get_all_schemas|_jit_get_custom_class_schemas": "a constant table, and a long one",
    r"_jit_nvfuser_\w+|_jit_llga_enabled": "warns at every call that there is no such fuser any more",
    r"_(?:cuda|mps|mtia|xpu|hpu|accelerator)_get(?:Device(?:Count)?|ArchFlags|Current\w+|Memory\w+)": "about a device",
    r"_get_DTensor_sharding_propagator_cache_stats": "a statistic, not a state",
    r"_get_thread_name": "the name of the operating system's thread",
}

# A getter that answers with one of these has no state to read on this machine; asking each time would cost a
# driver look-up, and on a machine with a GPU these are readings like all others.
NOTHING_HERE = re.compile(
    r"driver|CUDA error|without \w+ backend|not compiled with|none is available|no accelerator", re.I
)
WANTS_ARGUMENTS = re.compile(
    r"incompatible function arguments|required positional|expected .*argument|takes .*argument|missing"
)

TOO_SLOW_SECONDS = 0.002


def candidates() -> list[str]:
    """Every name of ``torch._C`` that reads like a getter, without the excluded ones."""
    names = []
    for name in dir(torch._C):
        if not LOOKS_LIKE_A_GETTER.search(name) or LOOKS_LIKE_AN_ACT.search(name) or reason_to_exclude(name):
            continue
        value = getattr(torch._C, name)
        if callable(value) and not isinstance(value, type):
            names.append(name)
    return names


def reason_to_exclude(name: str) -> str | None:
    """Why ``name`` is not read although it looks like a getter, or None."""
    return next((reason for pattern, reason in EXCLUDED.items() if re.fullmatch(pattern, name)), None)


def discover() -> tuple[str, ...]:
    """The getters that can be read here: they take no argument, answer twice the same, and do not crash.

    Each is tried in a child, so that a getter with an effect cannot touch the caller.
    """
    return tuple(sorted(_without_crash(candidates())))


def _without_crash(names: list[str]) -> list[str]:
    """Try the names; where one of them kills the child, halve until it is alone, and leave that one out."""
    answers = in_child(lambda: list(_try_all(names)), seconds=60)
    if answers.crash is None:
        return [name for name, usable in answers.value if usable]
    if len(names) == 1:
        return []
    half = len(names) // 2
    return _without_crash(names[:half]) + _without_crash(names[half:])


def _try_all(names: Iterable[str]) -> Iterable[tuple[str, bool]]:
    for name in names:
        getter = getattr(torch._C, name)
        start = time.perf_counter()
        first = read_one(getter)
        slow = time.perf_counter() - start > TOO_SLOW_SECONDS
        wrong = bool(WANTS_ARGUMENTS.search(first) or NOTHING_HERE.search(first))
        yield name, not (wrong or (slow and _is_slow(getter)) or first != read_one(getter))


def _is_slow(getter: Callable[[], Any]) -> bool:
    """Whether a getter is slow even when asked again (the first call may load something)."""
    start = time.perf_counter()
    read_one(getter)
    return time.perf_counter() - start > TOO_SLOW_SECONDS


def read_one(getter: Callable[..., Any], *args: Any) -> str:
    """What a getter says, as text. That it raises, and with which words, is an answer too."""
    try:
        return text(getter(*args))
    except Exception as error:
        return f"raises {type(error).__name__}: {str(error)[:300]}"


ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def text(value: Any) -> str:
    """A value as text that is the same in two processes for the same value."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{text(key)}: {text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(text, value))) + "}"
    return ADDRESS.sub("", repr(value))


def read_all(names: Iterable[str]) -> Reading:
    """What the named getters of ``torch._C`` say now, in this thread."""
    return {f"torch._C.{name}()": read_one(getattr(torch._C, name)) for name in names}
