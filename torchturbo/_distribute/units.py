"""Which modules of a model are sharded one by one, so that only one of them has to be whole at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from torchturbo.regions._blocks import is_one_of

_LISTS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)


def units_of(model: nn.Module, wanted: Sequence[type[nn.Module] | str] | None) -> list[nn.Module]:
    """The modules, outermost first in the order of the model.

    Args:
        model: the model.
        wanted: their classes, or the names of these; None for what the model says itself (``_no_split_modules``, as
            those of Hugging Face do), else its repeated blocks.
    """
    if wanted is None:
        names = [name for each in model.modules() for name in getattr(each, "_no_split_modules", None) or ()]
        found = _of_classes(model, names) if names else []
        found = found or _repeated(model)
    else:
        found = _of_classes(model, wanted)
    return [each for each in found if not _shares(each, model)]


def _of_classes(module: nn.Module, wanted: Iterable[type[nn.Module] | str]) -> list[nn.Module]:
    classes = tuple(wanted)
    found: list[nn.Module] = []
    for child in module.children():
        if is_one_of(child, classes):
            found.append(child)
        else:
            found += _of_classes(child, classes)
    return found


def _repeated(module: nn.Module) -> list[nn.Module]:
    """The outermost modules of several parts that stand beside others of their class."""
    children = list(module.children())
    alike = Counter(map(type, children))
    found: list[nn.Module] = []
    for child in children:
        within = _repeated(child) if isinstance(child, _LISTS) or alike[type(child)] == 1 else []
        if not within and alike[type(child)] > 1 and _is_a_block(child):
            within = [child]
        found += within
    return found


def _is_a_block(module: nn.Module) -> bool:
    """Whether it is made of parts: one layer of torch is too little for a reduction of its own."""
    parts = not isinstance(module, nn.ModuleList | nn.ModuleDict) and bool(module._modules)
    return parts and next(module.parameters(), None) is not None


def _holders(model: nn.Module) -> Iterator[tuple[nn.Module, int]]:
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                yield module, id(parameter)


def _shares(unit: nn.Module, model: nn.Module) -> bool:
    """Whether a weight of it is tied to one outside, which would not know that it is sharded."""
    own = {id(each) for each in unit.modules()}
    weights = {id(each) for each in unit.parameters()}
    return any(key in weights and id(module) not in own for module, key in _holders(model))
