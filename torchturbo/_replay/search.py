"""What a function reaches: modules, optimizers, tensors and random streams in its closure, globals and arguments.

Code of torch and of other packages is not looked into, but the modules and optimizers that their objects hold are
found.
"""

from __future__ import annotations

import functools
import sys
import sysconfig
from collections import deque
from contextlib import suppress
from enum import EnumType
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils import data

from torchturbo._accelerate import scaler_of
from torchturbo._replay.ahead import Ahead, OfAhead
from torchturbo._replay.code import behind, codes, defaults, stored
from torchturbo._replay.holders import CONTAINERS, is_special, set_content
from torchturbo._replay.kept import Keeper
from torchturbo._replay.positions import Exchanged, OfLoader, Place, Resting, copy_of, inside, is_loaders, is_new
from torchturbo._replay.streams import stream_of
from torchturbo._turbo import turbo
from torchturbo.errors import TargetError, UnsupportedHere
from torchturbo.regions._scaler import Scaler

_LONG = 10_000
"""Entries from which on a container is taken for data: it is neither copied nor looked into."""
_MANY = 300_000
"""Objects that are looked at."""
_PUT_BACK = (
    nn.Module,
    Optimizer,
    LRScheduler,
    torch.amp.GradScaler,
    Scaler,
    data.DataLoader,
    data.Sampler,
    data.Dataset,
)
"""Objects of torch, and of ours, whose attributes are put back, as those of the user's own classes are."""
_FOREIGN = {"torch", "torchturbo", "numpy"}
_STDLIB = sysconfig.get_path("stdlib")


@functools.cache
def is_own(module: str) -> bool:
    """Whether a module is the user's own code, and not of Python, torch or an installed package."""
    return not is_foreign(module) and not _is_installed(module)


@functools.cache
def is_foreign(module: str) -> bool:
    """Whether a module is Python's or torch's, whose objects are not looked into."""
    top = module.partition(".")[0]
    if top == "__main__":
        return False
    file = getattr(sys.modules.get(top), "__file__", None)
    if top in _FOREIGN or (file is None and top in sys.stdlib_module_names):
        return True
    return file is not None and file.startswith(_STDLIB) and not _is_installed(module)


def _is_installed(module: str) -> bool:
    file = getattr(sys.modules.get(module.partition(".")[0]), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


class Search:
    """Finds what there is to keep, and gives it names.

    Args:
        keeper: keeps what is found.

    Attributes:
        optimizers: those that were found, by identity, with their names.
        from_the_start: what there was before the first run, by identity.
    """

    def __init__(self, keeper: Keeper) -> None:
        # A model may be found after its optimizer; what it calls its parameters is what they are called.
        self._names: dict[int, str] = {}
        self._by_place: dict[int, str] = {}
        self.optimizers: dict[int, tuple[str, Optimizer]] = {}
        self.from_the_start: frozenset[int] = frozenset()
        self._settled: list[tuple[dict[int, Any], dict[int, Any]]] = []
        self._iterators: dict[int, tuple[str, Any]] = {}
        self._places: dict[int, list[Place]] = {}
        self._keeper = keeper
        self._seen: dict[int, Any] = {}
        self._waiting: deque[tuple[str, Any, bool]] = deque()

    def of(self, name: str, value: Any, place: Place | None = None) -> None:
        """Looks at an object, and whatever it holds.

        Args:
            name: what it is called.
            value: anything.
            place: where it stands, if something else may be put there.
        """
        if place is not None:
            self._places.setdefault(id(value), []).append(place)
        self._waiting.append((name, value, True))
        while self._waiting and len(self._seen) < _MANY:
            self._look(*self._waiting.popleft())

    @property
    def iterators(self) -> list[str]:
        """Names of what moves on with each run and cannot be put back."""
        return [name for name, its in self._iterators.values() if not is_new(its)]

    def settle(self) -> None:
        """Ends what is found before the first run."""
        self.from_the_start = frozenset(self._seen)
        self._keeper.settle()
        found = (self._seen, self._names, self._by_place, self.optimizers, self._iterators)
        self._settled = [(each, each.copy()) for each in found]

    def forget(self) -> None:
        """Forgets what has been found since: a run may have made it, and the next one finds it again."""
        for now, settled in self._settled:
            now.clear()
            now.update(settled)
        self._keeper.forget()

    def __contains__(self, value: Any) -> bool:
        return id(value) in self._seen

    def _wait(self, name: str, value: Any, own: bool = True, place: Place | None = None) -> None:
        if place is not None and hasattr(type(value), "__next__"):
            self._places.setdefault(id(value), []).append(place)
        if not isinstance(value, str | bytes | int | float | complex | None) and id(value) not in self._seen:
            self._waiting.append((name, value, own))

    def _look(self, name: str, value: Any, own: bool) -> None:
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, type):
            self._class(name, value)
            return
        if callable(value) or isinstance(value, turbo):
            self._scaler(value)
        if isinstance(value, Tensor):
            self._by_place.setdefault(id(value), name)
            self._keeper.tensor(value, copied=isinstance(value, nn.Parameter))
        elif isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, MethodType):
            self._wait(name if name != value.__name__ else "self", value.__self__)
            self._wait(name, value.__func__)
        elif isinstance(value, functools.partial):
            self._wait(name, value.func)
            self._values((f"{name}.args[{n}]", each) for n, each in enumerate(value.args))
            self._values(value.keywords.items())
        elif (stream := stream_of(name, value)) is not None:
            self._keeper.stream(stream)
        elif isinstance(value, CONTAINERS):
            self._container(name, value, own)
        elif type(value).__module__ == "numpy" and hasattr(value, "__array_interface__") and hasattr(value, "flags"):
            self._keeper.array(name, value)
        elif isinstance(value, tuple):
            self._values((f"{name}[{n}]", each) for n, each in enumerate(value) if len(value) < _LONG)
        elif hasattr(type(value), "__next__"):
            self._iterator(name, value)
        else:
            self._object(name, value)

    def _scaler(self, value: Any) -> None:
        """Looks at the scaling of fp16 gradients that lives with a block, or with what `accelerate` has made."""
        with suppress(TargetError, UnsupportedHere):
            self._wait("scaler", scaler_of(value))

    def _values(self, values: Any) -> None:
        for name, value in values:
            self._wait(name, value)

    def _container(self, name: str, value: Any, own: bool) -> None:
        if len(value) >= _LONG:
            return
        if own:
            self._keeper.container(name, value)
        entries = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
        for key, entry in entries:
            place = functools.partial(value.__setitem__, key) if own and not isinstance(value, set) else None
            self._wait(f"{name}[{key!r}]" if isinstance(key, str | int) else name, entry, own, place)

    def _iterator(self, name: str, value: Any) -> None:
        if is_loaders(value):
            self._keeper.position(OfLoader(value))
            inner = [value._dataset, value._index_sampler, value._collate_fn]
        elif isinstance(value, Ahead):
            self._keeper.position(OfAhead(value))
            inner = [value.source]
        elif id(value) in self._places and copy_of(value) is not None:
            self._keeper.position(Exchanged(value, self._places[id(value)]))
            inner = [each for each in inside(value) if isinstance(each, (*CONTAINERS, tuple)) or is_loaders(each)]
        else:
            self._iterators[id(value)] = f"{name} (a {type(value).__name__})", value
            return
        self._values((name, each) for each in inner)

    def _object(self, name: str, value: Any) -> None:
        attributes = getattr(value, "__dict__", None)
        module = type(value).__module__
        if not isinstance(attributes, dict) or isinstance(value, ModuleType):
            return
        own = is_own(module) or isinstance(value, _PUT_BACK)
        if isinstance(value, nn.Module):
            self._module(name, value)
        elif isinstance(value, Optimizer):
            self._optimizer(name, value)
        elif not own and is_foreign(module):
            return
        if own:
            self._keeper.container(f"{name}.", attributes)
        if isinstance(value, data.DataLoader) and value._iterator is not None:
            self._keeper.position(Resting(value))
        for key, entry in list(attributes.items()):
            inner = isinstance(value, nn.Module | Optimizer) and key.startswith("_")
            place = functools.partial(attributes.__setitem__, key) if own else None
            self._wait(name if inner else f"{name}.{key}", entry, own, place)
        if own:
            self._wait(type(value).__name__, type(value))

    def _class(self, name: str, kind: type) -> None:
        """Looks at what the methods of a class use, and at its own attributes."""
        if not is_own(kind.__module__):
            return
        for each in kind.__mro__:
            if is_own(each.__module__) and not isinstance(each, EnumType):
                self._keeper.attributes(name, each)
                for key, entry in list(vars(each).items()):
                    for inner in behind(entry):
                        if isinstance(inner, FunctionType) or not is_special(key):
                            self._wait(key if isinstance(inner, FunctionType) else f"{name}.{key}", inner)

    def _module(self, name: str, module: nn.Module) -> None:
        for path, each in module.named_modules(remove_duplicate=True):
            self._names.setdefault(id(each), f"{name}.{path}" if path else name)
        for path, tensor in (*module.named_parameters(), *module.named_buffers()):
            self._names.setdefault(id(tensor), f"{name}.{path}")
            self._keeper.tensor(tensor)

    def _optimizer(self, name: str, optimizer: Optimizer) -> None:
        self.optimizers[id(optimizer)] = name, optimizer
        for number, group in enumerate(optimizer.param_groups):
            for place, parameter in enumerate(group["params"]):
                self._by_place.setdefault(id(parameter), f"{name}.param_groups[{number}]['params'][{place}]")
                self._keeper.tensor(parameter)
        for state in optimizer.state.values():
            for entry in state.values() if isinstance(state, dict) else ():
                if isinstance(entry, Tensor):
                    self._keeper.tensor(entry)

    def name(self, value: Any) -> str:
        """What a module or a tensor is called, or its type."""
        known = self._names.get(id(value)) or self._by_place.get(id(value))
        return known or (f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else "")

    def names(self, tensor: Tensor) -> bool:
        """Whether a tensor has a name."""
        return id(tensor) in self._names or id(tensor) in self._by_place

    def _function(self, function: FunctionType) -> None:
        if not is_own(function.__module__ or "__main__"):
            inner = getattr(function, "__wrapped__", None)
            if inner is not None:
                self._wait(function.__name__, inner)
            return
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self._cell(name, cell)
        self._values(defaults(function))
        self._values((function.__kwdefaults__ or {}).items())
        self._container(function.__name__, vars(function), True)
        used = {name for code in codes(function.__code__) for name in code.co_names}
        for name in stored(function.__code__):
            self._keeper.variable(function.__globals__, name)
        for name in sorted(used & function.__globals__.keys()):
            value = function.__globals__[name]
            if isinstance(value, ModuleType):
                if is_own(value.__name__):
                    self._values((each, vars(value)[each]) for each in sorted(used & vars(value).keys()))
            else:
                self._wait(name, value, place=functools.partial(function.__globals__.__setitem__, name))

    def _cell(self, name: str, cell: CellType) -> None:
        self._keeper.cell(name, cell)
        with suppress(ValueError):
            self._wait(name, cell.cell_contents, place=functools.partial(set_content, cell))
