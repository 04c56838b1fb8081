"""Which modules of a model are sharded one by one, so that only one of them has to be whole at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from torchturbo.regions._blocks import is_one_of, repeated


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
        found = found or repeated(model, _is_a_block)
    else:
        found = _of_classes(model, wanted)
    return [each for each in found if not _shares(each, model)]


def _of_classes(module: nn.Module, wanted: Iterable[type[nn.Module] | str]) -> list[nn.Module]:
    """The outermost modules of some classes, each once."""
    classes = tuple(wanted)
    found: dict[nn.Module, None] = {}
    for child in module.children():
        found |= dict.fromkeys([child] if is_one_of(child, classes) else _of_classes(child, classes))
    return list(found)


def _is_a_block(module: nn.Module) -> bool:
    """Whether it is made of parts: one layer is too little for a reduction of its own."""
    return bool(module._modules) and next(module.parameters(), None) is not None


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
