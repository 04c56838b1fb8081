"""What the parts of a step return, put together to what the whole would have returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from torchturbo.regions._shares import CannotSplit

_TINY = 1e-6

Together = Callable[[list[Any], Sequence[float]], Any]


def _mean(values: list[Any], shares: Sequence[float]) -> Any:
    return sum(_plain(value) * share for value, share in zip(values, shares, strict=True))


def _sum(values: list[Any], shares: Sequence[float]) -> Any:
    return sum(_plain(value) for value in values)


def _last(values: list[Any], shares: Sequence[float]) -> Any:
    return _plain(values[-1])


def _joined(values: list[Any], shares: Sequence[float]) -> Any:
    return torch.cat([_plain(value) for value in values])


def _plain(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


class Rules(NamedTuple):
    """How each value that a step returns comes of those of its parts.

    Attributes:
        form: of what is returned.
        of_each: the rules, in order.
    """

    form: TreeSpec
    of_each: tuple[Together, ...]

    @property
    def takes_last(self) -> bool:
        """Whether something is what the last part says, which may be so by chance: the largest is in some part."""
        return _last in self.of_each

    def check_last(self, whole: Any, parts: list[Any], tolerance: float) -> None:
        """Raises where what the last part says is not that of the whole, with the parts in another order.

        Args:
            whole: what is returned for all.
            parts: for each part, in that order.
            tolerance: within which numbers are the same.

        Raises:
            CannotSplit: of some value that cannot be told.
        """
        values = zip(tree_flatten(whole)[0], *(tree_flatten(part)[0] for part in parts), strict=True)
        for rule, (value, *its) in zip(self.of_each, values, strict=True):
            if rule is _last and not _fits(_last, value, its, (), tolerance):
                raise _unknown(value, its)

    def together(self, returned: list[Any], shares: Sequence[float]) -> Any:
        """What the whole returns.

        Args:
            returned: by each part.
            shares: of the samples, each part's.

        Raises:
            CannotSplit: it is no longer of the form that was looked at.
        """
        flat = [tree_flatten(each) for each in returned]
        if any(form != self.form for _, form in flat):
            raise CannotSplit("it returns something of another form than when it was first split")
        parts = zip(*(values for values, _ in flat), strict=True)
        found = [rule(list(values), shares) for rule, values in zip(self.of_each, parts, strict=True)]
        return tree_unflatten(found, self.form)


def rules_of(whole: Any, parts: list[Any], shares: Sequence[float], tolerance: float) -> Rules:
    """How what is returned for some samples comes of what is returned for parts of them.

    Args:
        whole: what is returned for all.
        parts: for each part.
        shares: of the samples, each part's.
        tolerance: within which numbers are the same.

    Raises:
        CannotSplit: of some value that cannot be told.
    """
    values, form = tree_flatten(whole)
    flat = [tree_flatten(part) for part in parts]
    if any(other != form for _, other in flat):
        raise CannotSplit("it returns something of another form for other batches")
    rules = []
    for value, *its in zip(values, *(values for values, _ in flat), strict=True):
        rule = next(
            (rule for rule in (_mean, _sum, _last, _joined) if _fits(rule, value, its, shares, tolerance)), None
        )
        if rule is None:
            raise _unknown(value, its)
        rules.append(rule)
    return Rules(form, tuple(rules))


def _unknown(value: Any, parts: list[Any]) -> CannotSplit:
    return CannotSplit(
        f"it returns {_told(value)}, which for two halves of some samples is {_told(parts[0])} and {_told(parts[1])}: "
        "that is neither their mean nor their sum, so that what the whole would return is not known. Return the loss "
        "alone, as a mean over samples"
    )


def _fits(rule: Together, whole: Any, parts: list[Any], shares: Sequence[float], tolerance: float) -> bool:
    if isinstance(whole, Tensor):
        if not all(isinstance(part, Tensor) for part in parts) or (rule is _mean and not whole.is_floating_point()):
            return False
        if rule is _joined and not (whole.dim() and all(part.dim() for part in parts)):
            return False
        try:
            found = rule(parts, shares)
        except (RuntimeError, TypeError):
            return False
        return bool(found.shape == whole.shape) and _close(found, whole.detach(), tolerance)
    if isinstance(whole, float):
        return rule is not _joined and _close(torch.tensor(rule(parts, shares)), torch.tensor(whole), tolerance)
    if type(whole) is int:
        return rule in (_sum, _last) and all(type(part) is int for part in parts) and rule(parts, shares) == whole
    return rule is _last and all(part is whole or (type(part) is type(whole) and _equal(part, whole)) for part in parts)


def _equal(one: Any, other: Any) -> bool:
    return isinstance(one, str | bytes | bool | None) and one == other


def _close(found: Tensor, whole: Tensor, tolerance: float) -> bool:
    if not whole.is_floating_point():
        return torch.equal(found, whole)
    apart = (found.double() - whole.double()).norm()
    return bool(apart <= max(tolerance * float(whole.double().norm()), _TINY))


def _told(value: Any) -> str:
    if isinstance(value, Tensor) and value.numel() > 1:
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Tensor | float | int):
        return f"{value:.6g}" if not isinstance(value, Tensor) else f"{value.item():.6g}"
    return f"a {type(value).__name__}"
