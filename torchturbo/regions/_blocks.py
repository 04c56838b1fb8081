"""Which modules of a model are its repeated blocks, and which are Hugging Face's, that have a switch of their own."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn

from torchturbo.regions._others import has_its_own

_LISTS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)
Classes = tuple[Any, ...]
"""Classes of modules, or their names."""


class Found(NamedTuple):
    """What is found in a model.

    Attributes:
        of: the model.
        blocks: the modules, by identity.
        switches: models of Hugging Face that have a switch of their own.
        lists: the lists of modules in it, each with what stands in it.
    """

    of: weakref.ref[nn.Module]
    blocks: dict[int, weakref.ref[nn.Module]]
    switches: list[weakref.ref[nn.Module]]
    lists: list[tuple[weakref.ref[nn.Module], tuple[int, ...]]]

    def is_true_of(self, module: nn.Module) -> bool:
        """Whether a module is that model, and its lists hold what they held."""
        return self.of() is module and all(
            (its := each()) is not None and tuple(map(id, its._modules.values())) == held for each, held in self.lists
        )


_found: dict[int, Found] = {}
_AT_MOST = 256


def found_in(model: nn.Module) -> Found:
    """The repeated blocks of a model, and the models of Hugging Face in it."""
    known = _found.get(id(model))
    if known is None or not known.is_true_of(model):
        if len(_found) >= _AT_MOST:
            _found.clear()
        switches = list(_switches(model))
        found = [] if model in switches else repeated(model, _is_a_block, switches)
        blocks = {id(its): weakref.ref(its) for its in found}
        lists: list[tuple[weakref.ref[nn.Module], tuple[int, ...]]] = [
            (weakref.ref(each), tuple(map(id, each._modules.values())))
            for each in model.modules()
            if isinstance(each, _LISTS)
        ]
        known = Found(weakref.ref(model), blocks, [weakref.ref(each) for each in switches], lists)
        _found[id(model)] = known
    return known


def is_one_of(module: nn.Module, classes: Classes) -> bool:
    """Whether a module is of one of some classes, or its class or one of its bases has one of the names."""
    kinds = type(module).__mro__
    return any(
        each in kinds if isinstance(each, type) else any(each == kind.__name__ for kind in kinds) for each in classes
    )


def repeated(
    module: nn.Module, is_a_block: Callable[[nn.Module], bool], but: Collection[nn.Module] = ()
) -> list[nn.Module]:
    """The outermost modules that stand beside others of their class, in lists first; each once.

    Args:
        module: what is looked through.
        is_a_block: whether one of these is a block; what is not is looked through too.
        but: modules that are left out, with all that is in them.
    """
    children = [each for each in _children(module) if each not in but]
    alike = Counter(type(each) for each in children)
    blocks: dict[nn.Module, None] = {}
    for child in children:
        is_repeated = alike[type(child)] > 1 and is_a_block(child)
        if is_repeated and isinstance(module, _LISTS) and not isinstance(child, _LISTS):
            blocks[child] = None
            continue
        # Stages and towers are alike too; what is repeated in them is smaller, and so is what is there again at once.
        within = repeated(child, is_a_block, but)
        is_one = is_repeated and not within and not isinstance(child, nn.ModuleList | nn.ModuleDict)
        blocks |= dict.fromkeys([child] if is_one else within)
    return list(blocks)


def _children(module: nn.Module) -> list[nn.Module]:
    return [each for each in module._modules.values() if each is not None]


def _is_a_block(module: nn.Module) -> bool:
    """Whether it is made of parts that hold parameters: a layer of torch saves little beside what it is called with."""
    made_of_parts = bool(module._modules) or not type(module).__module__.startswith("torch.nn.")
    return made_of_parts and not has_its_own(module) and next(module.parameters(), None) is not None


# -------------------------------------------------------------------------------------------------------- Hugging Face

_FLAGS = ("gradient_checkpointing", "_gradient_checkpointing_func")
_ABSENT = object()
_lock = threading.RLock()
_on: dict[int, tuple[int, list[tuple[nn.Module, str, Any]]]] = {}
"""How many calls have a model's switch on, and what its modules had of the flags before."""


def _switches(module: nn.Module) -> Iterator[nn.Module]:
    if _has_a_switch(module):
        yield module
        return
    for child in _children(module):
        yield from _switches(child)


def _has_a_switch(module: nn.Module) -> bool:
    kind: Any = type(module)
    put: Any = getattr(kind, "_set_gradient_checkpointing", None)
    # What older models on the Hub define has another signature.
    names = (
        () if put is None else put.__code__.co_varnames[: put.__code__.co_argcount] if hasattr(put, "__code__") else ()
    )
    return bool(getattr(kind, "supports_gradient_checkpointing", False)) and "gradient_checkpointing_func" in names


def is_switched_on(model: nn.Module) -> bool:
    """Whether somebody has switched a model's own checkpoints on."""
    return id(model) not in _on and any(getattr(each, _FLAGS[0], False) is True for each in model.modules())


@contextmanager
def switched_on(model: nn.Module, how: Callable[..., Any]) -> Iterator[None]:
    """A block in which a model of Hugging Face checkpoints what it has decided on; its modules are as they were after.

    Args:
        model: the model.
        how: what its modules are called by: ``how(call, *args, **kwargs)``.
    """
    with _lock:
        count, before = _on.get(id(model), (0, []))
        if not count:
            for each in model.modules():
                before += [(each, name, vars(each).get(name, _ABSENT)) for name in _FLAGS]
            put: Any = model
            put._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=how)
        _on[id(model)] = count + 1, before
    try:
        yield
    finally:
        with _lock:
            count, before = _on.pop(id(model))
            if count > 1:
                _on[id(model)] = count - 1, before
            else:
                for each, name, was in before:
                    if was is _ABSENT:
                        vars(each).pop(name, None)
                    else:
                        vars(each)[name] = was
