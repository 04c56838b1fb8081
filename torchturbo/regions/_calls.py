"""Code of ours in functions of torch, for as long as somebody needs it there.

It is the code of a function that is exchanged and not the attribute that holds it: whoever has taken the function, or
wrapped it, gets the exchange too; no class loses its caches of attributes; and `torch.compile` sees the function that
it knows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, Literal

import torch

from torchturbo._dynamo import run_as_it_is, untraced

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def code_like(function: FunctionType | Any, standing_in: FunctionType | Any, call: Callable[..., Any]) -> CodeType:
    """Code that can stand in a function of torch, which keeps torch's globals: what it calls is among its constants.

    Args:
        function: the function of torch, whose name the code has.
        standing_in: what has the code, with the word ``"ours"`` where it calls.
        call: what it calls there.
    """
    code: CodeType = standing_in.__code__.replace(
        co_name=function.__name__,
        co_qualname=function.__qualname__,
        co_consts=tuple(call if constant == "ours" else constant for constant in standing_in.__code__.co_consts),
    )
    run_as_it_is(code)
    return code


class Exchange:
    """Code of ours in one function, while it is needed.

    Args:
        function: the function of torch.
        code: what stands in for its own.

    Attributes:
        codes: the code of torch, and ours.
        needed: how many need it.
    """

    __slots__ = ("_function", "_lock", "_ours", "_theirs", "codes", "needed")

    def __init__(self, function: Any, code: CodeType) -> None:
        self._function = function
        self._ours = code
        self._theirs: CodeType = function.__code__
        self._lock = threading.RLock()
        self.codes = self._theirs, code
        self.needed = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._unlocked)

    def _unlocked(self) -> None:
        """In a forked child nobody holds the lock."""
        self._lock = threading.RLock()

    @untraced
    def opened(self) -> None:
        """Counts one who needs it."""
        with self._lock:
            self.needed += 1
            if self.needed == 1:
                self._theirs = self._function.__code__
                self._function.__code__ = self._ours

    @untraced
    def closed(self) -> None:
        """Counts one who needs it no more."""
        with self._lock:
            self.needed -= 1
            if not self.needed:
                self._function.__code__ = self._theirs

    def settle(self, needed: bool) -> None:
        """Has our code be there or not, whatever was before; so also after an interrupt that came half way.

        For who counts those that need it elsewhere, and under a lock.

        Args:
            needed: whether somebody needs it.
        """
        function = self._function
        if needed and function.__code__ is not self._ours:
            self._theirs = function.__code__
            function.__code__ = self._ours
        elif not needed and function.__code__ is self._ours:
            function.__code__ = self._theirs

    def theirs(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function as it is without us."""
        function = self._function
        name, defaults, cells = function.__name__, function.__defaults__, function.__closure__
        as_it_is = FunctionType(self._theirs, function.__globals__, name, defaults, cells)
        as_it_is.__kwdefaults__ = function.__kwdefaults__
        return as_it_is(*args, **kwargs)

    def recounted(self, needed: int) -> None:
        """Puts the count right in a forked child, in which only the thread that forked goes on.

        Args:
            needed: how many need it there.
        """
        while self.needed > needed:
            self.closed()


def _standing_in(self: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.compiler.is_dynamo_compiling():
        call: Any = "ours"
        return call(self, args, kwargs)
    if self._compiled_call_impl is not None:
        return self._compiled_call_impl(*args, **kwargs)
    return self._call_impl(*args, **kwargs)


def _as_it_is(module: Any, args: Args, kwargs: Kwargs) -> Any:
    return module._call_impl(*args, **kwargs)


def _nothing_before(module: Any) -> bool:
    return False


def _nothing(result: Any) -> None:
    pass


class _ModuleCalls(Exchange):
    """`torch.nn.Module.__call__`, watched.

    Attributes:
        before: what is done first; returns whether the outputs are to be looked at.
        run: what runs a module.
        after: looks at its outputs.
        watch: who is told of each call, and makes it; or None.
        hand: who hands modules what they are called with, and makes the call; or None.
        again: who has what modules save computed again in backward, and makes the call; or None.
    """

    __slots__ = ("after", "again", "before", "hand", "run", "watch")

    def __init__(self) -> None:
        function = vars(torch.nn.Module)["_wrapped_call_impl"]
        super().__init__(function, code_like(function, _standing_in, self.call))
        self.before: Callable[[Any], bool] = _nothing_before
        self.after: Callable[[Any], None] = _nothing
        self.run: Callable[[Any, Args, Kwargs], Any] = _as_it_is
        self.watch: Callable[[Any, Args, Kwargs], Any] | None = None
        self.hand: Callable[[Any, Args, Kwargs], Any] | None = None
        self.again: Callable[[Any, Args, Kwargs], Any] | None = None

    def put(self, name: Literal["hand", "again"], call: Callable[[Any, Args, Kwargs], Any] | None) -> None:
        """Has somebody make the calls, or nobody any more. Always called under the lock of the stack.

        Args:
            name: what is done to them.
            call: does it, and makes the call; None for nobody.
        """
        was = getattr(self, name)
        setattr(self, name, call)
        if was is None and call is not None:
            self.opened()
        elif was is not None and call is None:
            self.closed()

    def forked(self, needed: int) -> None:
        """Puts the count right in a forked child, in which only the thread that forked goes on.

        Args:
            needed: how many need it there, beside those that make the calls.
        """
        self.recounted(needed + (self.hand is not None) + (self.again is not None))

    @untraced
    def call(
        self,
        module: Any,
        args: Args,
        kwargs: Kwargs,
        watched: bool = True,
        handed: bool = True,
        again: bool = True,
    ) -> Any:
        """Calls a module.

        Args:
            module: that is called.
            args: what it is called with.
            kwargs: what it is called with by name.
            watched: whether who watches is told first, and calls this again.
            handed: so too of who hands modules what they are called with.
            again: so too of who has what they save computed again.
        """
        if self.watch is not None and watched:
            return self.watch(module, args, kwargs)
        if self.hand is not None and handed:
            return self.hand(module, args, kwargs)
        if self.again is not None and again:
            return self.again(module, args, kwargs)
        first = self.before(module)
        if module._compiled_call_impl is not None:
            result = module._compiled_call_impl(*args, **kwargs)
        else:
            result = self.run(module, args, kwargs)
        if first:
            self.after(result)
        return result


module_calls = _ModuleCalls()
