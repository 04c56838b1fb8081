"""Decorators with one fault each, which the table must catch: if it did not, its zeros would mean nothing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

from tests.targets.choice import TABLE
from torchturbo import accelerate, turbo

_right = accelerate(profile=TABLE)


def forgets_after_an_error(target: Any) -> Any:
    """Leaves something behind when the target raises."""
    decorated = _right(target)
    if not isinstance(target, FunctionType):
        return decorated

    @functools.wraps(target)
    def call(*args: Any, **kwargs: Any) -> Any:
        before = torch._C._get_mkldnn_deterministic()
        torch._C._set_mkldnn_deterministic(not before)
        result = decorated(*args, **kwargs)
        torch._C._set_mkldnn_deterministic(before)
        return result

    return call


def touches_defaults(target: Any) -> Any:
    """Writes the convolution cell that it has read: it reads the same afterwards, and torch's ``default`` is gone."""
    decorated = _right(target)
    if not isinstance(target, FunctionType):
        return decorated

    @functools.wraps(target)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return decorated(*args, **kwargs)
        finally:
            if hasattr(torch._C, "_set_fp32_precision_setter"):
                conv = torch._C._get_fp32_precision_getter("cuda", "conv")
                torch._C._set_fp32_precision_setter("cuda", "conv", conv)
            else:
                torch._C._set_cudnn_allow_tf32(not torch._C._get_cudnn_allow_tf32())

    return call


def one_object_for_all_threads(target: Any) -> Any:
    """Keeps what it found on one object, so that another thread's entry overwrites it."""
    decorated = _right(target)
    before: list[Any] = [None]
    if not isinstance(target, FunctionType):
        return decorated

    @functools.wraps(target)
    def call(*args: Any, **kwargs: Any) -> Any:
        before[0] = torch._C._get_mkldnn_deterministic()
        torch._C._set_mkldnn_deterministic(True)
        try:
            return decorated(*args, **kwargs)
        finally:
            torch._C._set_mkldnn_deterministic(before[0])

    return call


def on_between_turns(target: Any) -> Any:
    """Stays in force while the caller has the turn, as a naive `with` inside a wrapping generator does."""
    if inspect.isgeneratorfunction(target):

        @functools.wraps(target)
        def call(*args: Any, **kwargs: Any) -> Any:
            with turbo(TABLE):
                return (yield from target(*args, **kwargs))

        return call
    return _right(target)


def does_nothing(target: Any) -> Any:
    """Leaves nothing behind, for it does nothing: what runs inside must see that."""
    return target


CAUGHT_IN: dict[Callable[[Any], Any], tuple[str, str, str]] = {
    forgets_after_an_error: ("function", "raises", "left behind: "),
    touches_defaults: ("function", "raises", "left behind: "),
    one_object_for_all_threads: ("function", "nested", "left behind: "),
    on_between_turns: ("generator function", "returns", "between two turns: "),
    does_nothing: ("function", "returns", "at first: "),
}
"""In which cell each is caught, and by what words."""
