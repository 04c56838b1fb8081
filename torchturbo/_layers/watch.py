"""What is put around the calls of a step that is profiled: ranges for the profiler, and what is kept for backward."""

from __future__ import annotations

import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from torchturbo._dynamo import untraced
from torchturbo._layers.events import BACKWARD, LAYER
from torchturbo._replay.search import Search
from torchturbo._replay.values import leaves
from torchturbo._replay.watch import is_being_traced
from torchturbo.regions._calls import module_calls

_ENGINE = "_engine_run_backward"
_QUIET = "KINETO_LOG_LEVEL"


def marked(name: str) -> AbstractContextManager[Any]:
    """A range for the profiler, of the kind that costs least."""
    its: AbstractContextManager[Any] = torch._C._profiler._RecordFunctionFast(name)
    return its


class Named:
    """Names of modules, as the step's own variables have them.

    Args:
        search: has found those that are there before the step.

    Attributes:
        modules: those that were called, by name.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._alike: Counter[str] = Counter()
        self._names: dict[int, str] = {}
        self.modules: dict[str, nn.Module] = {}

    @untraced
    def is_a_compilers(self, module: nn.Module) -> bool:
        """Whether a compiler has made a module, to run what it has compiled: it is no layer of anybody's model."""
        return isinstance(module, torch.fx.GraphModule) and not self._search.name(module)

    @untraced
    def of(self, module: nn.Module) -> str:
        """A module's name; its type where it has none, numbered where there are several."""
        known = self._names.get(id(module))
        if known is None:
            known = self._search.name(module)
            if not known or known in self.modules:
                kind = type(module).__name__
                self._alike[kind] += 1
                known = kind if self._alike[kind] == 1 else f"{kind}#{self._alike[kind]}"
            self._names[id(module)] = known
            self.modules[known] = module  # held, so that no other gets its place in memory
        return known


class Marks:
    """Ranges around the calls of modules, and around backward.

    Args:
        search: knows modules' names.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self.named = Named(search)
        self._thread = threading.get_ident()

    def begin(self) -> None:
        """Forgets what was called before: a step that makes its modules makes others each time."""
        self.named = Named(self._search)

    @untraced
    def call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a module."""
        if is_being_traced() or self.named.is_a_compilers(module):
            return module_calls.call(module, args, kwargs, False)
        if threading.get_ident() != self._thread:
            # A device's thread runs backward, with what checkpoints compute again in it; others are none of the step.
            name = self.named._names.get(id(module))
            around = marked(f"{LAYER}{name}") if name else nullcontext()
        else:
            around = marked(f"{LAYER}{self.named.of(module)}")
        with around:
            return module_calls.call(module, args, kwargs, False)

    @untraced
    def backward(self, engine: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Runs backward."""
        with marked(BACKWARD):
            return engine(*args, **kwargs)


class Saved:
    """What layers keep for backward.

    Args:
        search: knows modules' names.
        compiled: whether modules are compiled. Then nothing is hooked, since compiled code would be another for it, and
            what is counted is what compiled code keeps.

    Attributes:
        most: bytes by layer, the most that it had kept when a backward began or the step ended; `""` is no layer.
    """

    def __init__(self, search: Search, compiled: bool = False) -> None:
        self.named = Named(search)
        self._compiled = compiled
        self._nodes: set[Any] = set()
        self.most: dict[str, int] = {}
        self.stacks: dict[str, tuple[str, ...]] = {"": ()}
        self._now: dict[str, int] = defaultdict(int)
        self._known: set[int] = set()
        self._weights: set[int] = set()
        self._stack: list[str] = []
        self._backward = 0
        self._thread = threading.get_ident()

    @untraced
    def call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a module."""
        if threading.get_ident() != self._thread or is_being_traced() or self.named.is_a_compilers(module):
            return module_calls.call(module, args, kwargs, False)
        name = self.named.of(module)
        for tensor in (*module.parameters(), *module.buffers()) if not self._stack else ():
            self._weights.add(_memory(tensor)[0])
        self._stack.append(name)
        self.stacks.setdefault(name, tuple(self._stack))
        try:
            result = module_calls.call(module, args, kwargs, False)
            if self._compiled:
                self._look_at(result)
            return result
        finally:
            self._stack.pop()

    @untraced
    def _look_at(self, result: Any) -> None:
        """Counts what compiled code keeps of those nodes that lead to a result and have not been seen."""
        made = (leaf.grad_fn for _, leaf in leaves(result, objects=False) if isinstance(leaf, Tensor))
        waiting: list[Any] = [node for node in made if node is not None]
        while waiting:
            node = waiting.pop()
            if node not in self._nodes:
                self._nodes.add(node)
                waiting += [before for before, _ in node.next_functions if before is not None]
                if node.name() == "CompiledFunctionBackward":
                    for tensor in (*node.saved_tensors, *(getattr(node, "_tensors_no_vc_check", None) or ())):
                        self.keep(tensor)

    @untraced
    def keep(self, tensor: Tensor) -> Tensor:
        """Counts a tensor that is kept, once for its memory."""
        if not self._backward and threading.get_ident() == self._thread:
            where, size = _memory(tensor)
            if where not in self._known and where not in self._weights and not isinstance(tensor, nn.Parameter):
                self._known.add(where)
                self._now[self._stack[-1] if self._stack else ""] += size
        return tensor

    @untraced
    def backward(self, engine: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Runs backward, which lets go of what was kept."""
        self.settle()
        self._backward += 1
        try:
            return engine(*args, **kwargs)
        finally:
            self._backward -= 1
            if not self._backward:
                self._now.clear()
                self._known.clear()

    def settle(self) -> None:
        """Takes what is kept now for the most, where it is."""
        for name, size in self._now.items():
            self.most[name] = max(size, self.most.get(name, 0))

    @contextmanager
    def heeding(self) -> Iterator[None]:
        """A block in which what is kept is counted."""
        with nullcontext() if self._compiled else saved_tensors_hooks(self.keep, _as_it_was):
            yield
        self.settle()


def _as_it_was(tensor: Tensor) -> Tensor:
    return tensor


def _memory(tensor: Tensor) -> tuple[int, int]:
    """Whose memory a tensor's is, and how large that is."""
    try:
        storage = tensor.untyped_storage()
        return storage._cdata, storage.nbytes()
    except (NotImplementedError, RuntimeError):  # sparse ones have none of their own
        return id(tensor), tensor.numel() * tensor.element_size()


@contextmanager
def watched(watch: Marks | Saved) -> Iterator[None]:
    """A block in which a watch is told of calls of modules and of backward."""
    engine = vars(torch.autograd)[_ENGINE]

    def run(*args: Any, **kwargs: Any) -> Any:
        return watch.backward(engine, args, kwargs)

    outer = module_calls.watch
    module_calls.opened()
    module_calls.watch = watch.call
    vars(torch.autograd)[_ENGINE] = untraced(run)
    try:
        yield
    finally:
        vars(torch.autograd)[_ENGINE] = engine
        module_calls.watch = outer
        module_calls.closed()


@contextmanager
def quietly() -> Iterator[None]:
    """A block in which the profiler's own library writes nothing to stderr; unless it was told how much to write."""
    if _QUIET in os.environ:
        yield
        return
    os.environ[_QUIET] = "99"
    try:
        yield
    finally:
        del os.environ[_QUIET]
