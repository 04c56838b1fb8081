"""The batch among a step's arguments: how many samples it has, and some of them instead of all."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from torchturbo.regions._batches import INSIDE, Changing, inside
from torchturbo.regions._shares import CannotSplit

_DEEP = 8
_PLAIN = str | int | float


class Batch:
    """The tensors among a call's arguments whose first dimension is that of the samples.

    Args:
        function: that is called.
        args: what it is called with.
        kwargs: what it is called with by name.

    Raises:
        CannotSplit: no batch is there, or it cannot be told which it is; says what was seen.

    Attributes:
        samples: how many there are.
        tensors: those of the batch.
        size: numbers in all of them, which stands for how large the batch is.
    """

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args, self._kwargs = args, kwargs
        self._own = int(_is_method(function))
        seen = {
            name: list(_tensors(value, _DEEP))
            for number, (name, value) in enumerate(_named(function, args, kwargs))
            if number >= self._own
        }
        seen = {name: tensors for name, tensors in seen.items() if tensors}
        odd = {name: tensor for name, its in seen.items() for tensor in its if not _can_be_cut(tensor)}
        if odd:
            name, tensor = next(iter(odd.items()))
            kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
            raise CannotSplit(f"{name} holds a {kind} tensor, which has no samples that could be cut off")
        sizes = {len(tensor) for its in seen.values() for tensor in its}
        if not sizes:
            raise CannotSplit(
                "no batch is among its arguments: no tensor with a first dimension, nor a list, tuple, dictionary or "
                "dataclass that holds one. Hand the batch to the step, def step(model, batch, optimizer)"
            )
        # What stands once for all samples (positions, masks) is not cut.
        several = sizes - {1} if len(sizes) > 1 else sizes
        if len(several) > 1:
            told = ", ".join(f"{name} {_shapes(tensors)}" for name, tensors in seen.items())
            raise CannotSplit(
                f"the tensors among its arguments have different first dimensions ({told}), and which one is that of "
                "the samples cannot be told: hand over the tensors of the batch alone, and others as attributes or "
                "variables"
            )
        self.samples = several.pop()
        self.tensors = [tensor for its in seen.values() for tensor in its]
        self.size = max(sum(tensor.numel() for tensor in self.tensors), 1)

    def some(self, which: slice) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, positional and by name, with some samples alone.

        Args:
            which: those samples.
        """
        cutting = _Cutting(which, self.samples)
        own = self._args[: self._own]
        others = {name: cutting.of(value) for name, value in self._kwargs.items()}
        return (*own, *map(cutting.of, self._args[self._own :])), others

    def values(self) -> list[Any]:
        """The arguments that hold tensors of the batch, in order."""
        values = (*self._args[self._own :], *self._kwargs.values())
        return [value for value in values if any(True for _ in _tensors(value, _DEEP))]


def parts(samples: int, count: int) -> list[slice]:
    """The samples of a batch in parts, as equal as can be.

    Args:
        samples: how many there are.
        count: of the parts.
    """
    least, more = divmod(samples, count)
    found, at = [], 0
    for number in range(count):
        end = at + least + (number < more)
        found.append(slice(at, end))
        at = end
    return found


class _Cutting(Changing):
    """Takes some samples out of a batch.

    Args:
        which: those samples.
        samples: how many the batch has.
    """

    def __init__(self, which: slice, samples: int) -> None:
        super().__init__()
        self._which, self._samples = which, samples

    def change(self, value: Any) -> Any:
        """Some of a tensor, or of a list of texts and numbers."""
        if isinstance(value, Tensor):
            is_one = not isinstance(value, nn.Parameter) and bool(value.dim()) and len(value) == self._samples
            return value[self._which] if is_one else value
        if isinstance(value, list) and len(value) == self._samples and all(isinstance(each, _PLAIN) for each in value):
            return value[self._which]
        return INSIDE


def _is_method(function: Callable[..., Any]) -> bool:
    names = list(inspect.signature(function).parameters)
    return bool(names) and names[0] in ("self", "cls")


def _named(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    names = [
        name
        for name, each in inspect.signature(function).parameters.items()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    for number, value in enumerate(args):
        yield names[number] if number < len(names) else f"argument {number + 1}", value
    yield from kwargs.items()


def _can_be_cut(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_nested


def _shapes(tensors: list[Tensor]) -> str:
    return " and ".join(dict.fromkeys("x".join(map(str, tensor.shape)) for tensor in tensors))


def _tensors(value: Any, deep: int) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if not isinstance(value, nn.Parameter) and (not _can_be_cut(value) or value.dim()):
            yield value
        return
    for entry in ((inside(value) or {}) if deep else {}).values():
        yield from _tensors(entry, deep - 1)
