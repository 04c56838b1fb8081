"""How gradients are scaled in fp16: the numbers of `torch.amp.GradScaler`, which bf16 has no need of.

Small gradients become zero in float16, so backward multiplies them by a scale. `torchturbo.regions._scaled` does it.
"""

from __future__ import annotations

from typing import Any

from torchturbo.regions._backward import FACTORS
from torchturbo.regions._here import Factors
from torchturbo.regions._scaler import power_of_two
from torchturbo.settings._base import Setting, Values, number


def _powers(above: float, up_to: float, words: str) -> Values:
    def rule(value: float) -> str | None:
        if power_of_two(value) and above < value <= up_to:
            return None
        return f"expected a power of two {words}, which changes no bits of the gradients that it scales"

    return Values(kind=float, rule=rule)


def _factor(name: str, help: str, values: Values) -> Setting:
    def show(raw: Factors) -> object:
        return getattr(raw, name)

    def edits(value: Any, hardware: object) -> Any:
        return ((FACTORS, lambda beneath: beneath._replace(**{name: value})),)

    return Setting(help, values, (FACTORS,), edits, show)


init_scale = _factor(
    "init_scale",
    "The scale of gradients that fp16 training begins with: init_scale of torch.amp.GradScaler.",
    _powers(0, 2.0**127, "such as 65536.0"),
)
growth_factor = _factor(
    "growth_factor",
    "What the scale is multiplied by after growth_interval steps that all ran: growth_factor of torch.amp.GradScaler.",
    _powers(1, 2.0**16, "above 1, such as 2.0"),
)
backoff_factor = _factor(
    "backoff_factor",
    "What the scale is multiplied by when a step is skipped: backoff_factor of torch.amp.GradScaler.",
    _powers(0, 0.5, "below 1, such as 0.5"),
)
growth_interval = _factor(
    "growth_interval",
    "Steps in a row that must run before the scale grows: growth_interval of torch.amp.GradScaler.",
    number(1),
)
