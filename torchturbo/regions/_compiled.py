"""Running modules compiled, where they are called: the outermost one, whole, and whatever it calls as a part of it.

While some thread has a region open, `torch.nn.Module.__call__` runs code of ours (`torchturbo.regions._calls`). In a
thread with a region the first module to be called runs compiled; a backward pass or an optimizer is never part of a
graph.

What is compiled is kept here and not in the module: its keys, copies and pickles are what they were.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from torchturbo._dynamo import untraced
from torchturbo.regions import _compiler
from torchturbo.regions._calls import Args, Kwargs, module_calls
from torchturbo.regions._checkpointing import budget
from torchturbo.regions._compiler import lenience
from torchturbo.regions._here import recount
from torchturbo.regions._inductor import spending
from torchturbo.regions._others import has_any_global_hook, has_hooks, has_its_own, left_alone
from torchturbo.regions._targets import OFF, Asked, Here, Target, _records, here, new_target, of_module, taken_apart
from torchturbo.settings._base import Cell
from torchturbo.settings._edits import Raw

_Kept = tuple["weakref.ref[torch.nn.Module]", dict[tuple[Any, ...], Target]]
_kept: dict[int, _Kept] = {}
"""What is compiled for each module, by the module's identity: a module may compare, or hash, as it likes."""
_making = threading.RLock()


def _target(module: torch.nn.Module, asked: Asked, template: Callable[..., Any]) -> Target:
    # What torch has given up on under a lenient region, it would say nothing of under a strict one. And Dynamo does not
    # look whether somebody has replaced the forward since.
    key = asked, budget(), template, type(module).forward, id(vars(module).get("forward"))
    kept = _kept.get(id(module))
    if kept is not None and kept[0]() is module and (found := kept[1].get(key)) is not None:
        return found
    with _making:
        kept = _kept.get(id(module))
        if kept is None or kept[0]() is not module:
            kept = _kept[id(module)] = (weakref.ref(module, _dropped(id(module))), {})
        if key not in kept[1]:
            kept[1][key] = new_target(type(module).__name__, asked.options, template)
        return kept[1][key]


def _dropped(identity: int) -> Callable[[weakref.ref[torch.nn.Module]], None]:
    def drop(reference: weakref.ref[torch.nn.Module]) -> None:
        kept = _kept.get(identity)
        if kept is not None and kept[0] is reference:
            del _kept[identity]

    return drop


def forget(module: torch.nn.Module) -> None:
    """Drops what is compiled for a module and the modules in it, which are compiled again at their next call.

    Args:
        module: any module.
    """
    for each in module.modules():
        _kept.pop(id(each), None)


@contextmanager
def compiled_anew() -> Iterator[None]:
    """A block in which modules are compiled anew; what is compiled in it is dropped after it, and what was is there."""
    with _making:
        before, records = dict(_kept), tuple(_records)
        _kept.clear()
    try:
        yield
    finally:
        with _making:
            _kept.clear()
            _kept.update({key: kept for key, kept in before.items() if kept[0]() is not None})
            _records.clear()
            _records.extend(records)


# -------------------------------------------------------------------------------------------------------- how it is run


@untraced
def run(here: Here, target: Target | None, eager: Callable[..., Any], first: Any, args: Args, kwargs: Kwargs) -> Any:
    """Runs the outermost module or function.

    Args:
        here: this thread's state.
        target: what to run compiled; None to run it as it is, with what it calls.
        eager: runs it as it is.
        first: the module or function.
        args: what it is called with.
        kwargs: what it is called with by name.
    """
    here.inside = True
    try:
        if target is None or target.given_up:
            return eager(first, args, kwargs)
        here.target = target
        here.runs += 1
        result = _compiled(here, target, first, args, kwargs)
    finally:
        here.inside, here.target = False, None
    if here.untold:
        _compiler.tell()
    return result


@untraced
def _compiled(here: Here, target: Target, first: Any, args: Args, kwargs: Kwargs) -> Any:
    _compiler.listen()
    strict = here.asked.strict
    found = None if strict else lenience.begin()
    try:
        with spending(budget()):
            return target.compiled(first, args, kwargs)
    except Exception as error:
        if not isinstance(error, _failures()):
            raise
        if strict or not _before_anything_ran(target, error):
            error.add_note(f"torchturbo: raised while compiling {target.record.name} (compile={target.record.how})")
            raise
        target.given_up = True
        _compiler.give_up(target, error)
    finally:
        if not strict:
            lenience.end(found)
    return target.eager(first, args, kwargs)


def _failures() -> type[BaseException]:
    exc: Any = sys.modules["torch._dynamo.exc"]
    found: type[BaseException] = exc.TorchDynamoException
    return found


def _before_anything_ran(target: Target, error: BaseException) -> bool:
    """Whether a backend refused a graph that is the whole of a target: only then can it be run again from its start.

    With ``fullgraph=True`` torch raises what it would otherwise go on from.
    """
    exc: Any = sys.modules["torch._dynamo.exc"]
    return target.whole and isinstance(error, exc.BackendCompilerFailed)


@untraced
def _call(module: Any, args: Args, kwargs: Kwargs) -> Any:
    """What `torch.nn.Module.__call__` does while some thread has a region open."""
    now = here
    asked = now.asked
    # With hooks of its own, its parts are the outermost modules.
    if asked.options is None or now.inside or left_alone() or has_hooks(module):
        if asked.options is not None and has_any_global_hook():
            _compiler.warn_once("nothing is compiled while a hook for all modules is registered: it runs around each")
        return module._call_impl(*args, **kwargs)
    target = None if has_its_own(module) else _target(module, asked, of_module)
    return run(now, target, of_module, module, args, kwargs)


@untraced
def call_compiled(module: torch.nn.Module, forward: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Runs a module's `forward`, compiled where this thread has a region open, else as it is.

    For who stands in the module's own call already; its hooks run around it. The modules in it are parts of it.

    Args:
        module: whose forward it is; what is compiled is kept for as long as it lives.
        forward: its forward, bound.
        args: what to call it with.
        kwargs: what to call it with by name.
    """
    now = here
    asked = now.asked
    if asked.options is None or now.inside or left_alone():
        return forward(*args, **kwargs)
    how, first = taken_apart(forward)
    return run(now, _target(module, asked, how), how, first, args, kwargs)


# ------------------------------------------------------------------------------------------------- in place meanwhile

module_calls.run = _call


class _Watch:
    """What is in place while some thread has a region open that compiles.

    Attributes:
        regions: how many threads have one.
    """

    __slots__ = ("regions",)

    def __init__(self) -> None:
        self.regions = 0

    def opened(self) -> None:
        """Counts a region that opens. Always under the lock of the stack, as `closed` is."""
        self.regions += 1
        if self.regions == 1:
            module_calls.opened()
            _compiler.opened()

    def closed(self) -> None:
        """Counts a region that closes."""
        self.regions -= 1
        if not self.regions:
            module_calls.closed()
            _compiler.closed()


_watch = _Watch()


def _compile_nothing_here() -> None:
    """In a forked child the regions of its parent compile nothing: inductor and OpenMP do not survive a fork.

    A worker that loads data in the middle of a training loop is such a child, and its transforms are modules too.
    """
    here.asked, here.inside, here.target = OFF, False, None
    if _watch.regions:
        _watch.regions = 0
        _compiler.closed()
    recount()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_compile_nothing_here)


def _read() -> Asked:
    return here.asked


def _write(raw: Asked, over: Raw) -> None:
    on, was = raw.options is not None, here.asked.options is not None
    here.asked = raw
    if on and not was:
        _watch.opened()
    elif was and not on:
        _watch.closed()


ASKED = Cell("a region's compile", "thread", _read, _write)
"""What a thread's region has compiled, and whether strictly."""


def asked_by(value: Any) -> Asked:
    """The raw state that stands for a value of the option."""
    return OFF if value is False else Asked(value, False)


def strictly(raw: Asked) -> Asked:
    """The same, under ``strict=True``."""
    return raw if raw.options is None else raw._replace(strict=True)
