"""What there is to see, before anybody draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Look = Literal["good", "bad", "plain"]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        label: whose it is.
        value: how long it is; 0 has no place on a logarithmic scale, and only its text is shown there.
        text: the value in words.
        low: the lower bound of the value; None where there is none.
        high: the upper bound.
        dots: the samples that the value is of.
        look: whether it is what one hopes for.
    """

    label: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None
    dots: tuple[float, ...] = ()
    look: Look = "plain"


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars beside each other, from 0 on.

    Attributes:
        title: what they are of.
        bars: at least one.
        lines: values that they are to be compared with, and what these are.
        log: whether the scale is logarithmic, with bars as points on it.
    """

    title: str
    bars: tuple[Bar, ...]
    lines: tuple[tuple[float, str], ...] = ()
    log: bool = False

    @property
    def span(self) -> tuple[float, float]:
        """The least and the largest value that has to be on the scale: bounds and samples that are far out need not."""
        values = [*(line for line, _ in self.lines), *(bar.value for bar in self.bars)]
        if not self.log:
            most = max(values, default=0.0) or 1.0
            return 0.0, max(most, min(1.5 * most, max((bar.high or 0.0 for bar in self.bars), default=0.0)))
        above = [value for value in values if value > 0]
        return (min(above) / 3, max(above) * 3) if above else (0.1, 10.0)
