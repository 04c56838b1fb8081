"""Training loops, each written once, as one writes them by hand; `Untouched` takes the lines about scaling out of them.

A loop is the loop of torch's documents, with `by.scale(loss).backward()`, `by.unscale(optimizer)`, `by.step(optimizer)`
and `by.update()`. `ByHand` does what these say with torch's autocast and GradScaler. `Untouched` does what is left of
them in a loop that knows of neither: `loss.backward()` and `optimizer.step()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchturbo
from torchturbo import accelerate, turbo

OPTIONS: Mapping[str, Any] = {"init_scale": 2.0**16, "growth_interval": 3}
"""Few steps show a scale that grows."""
QUIET, LOUD = 2.0**-12, 2.0**8
"""What losses are multiplied by: fp16 loses gradients of the first without scaling, and those of the second with it."""
SURGES = (0, 5, 6)
"""The steps whose gradients overflow: the first, and two in the middle."""
STEPS = 12


class By(Protocol):
    """Who does what a loop says about scaling."""

    def forward(self) -> AbstractContextManager[object]: ...
    def scale(self, outputs: Any) -> Any: ...
    def unscale(self, *optimizers: torch.optim.Optimizer) -> None: ...
    def true(self, gradients: Iterable[Tensor]) -> list[Tensor]: ...
    def hook(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]: ...
    def step(self, optimizer: Any) -> None: ...
    def update(self) -> None: ...


class ByHand:
    """The lines of a loop that was written with torch's autocast and GradScaler."""

    def __init__(self, cache: bool = True, **options: Any) -> None:
        self.scaler = torch.amp.GradScaler("cpu", **options)
        self.cache = cache
        self.skipped = 0

    def forward(self) -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.float16, cache_enabled=self.cache)

    def scale(self, outputs: Any) -> Any:
        return self.scaler.scale(outputs)

    def unscale(self, *optimizers: torch.optim.Optimizer) -> None:
        for optimizer in optimizers:
            self.scaler.unscale_(optimizer)

    def true(self, gradients: Iterable[Tensor]) -> list[Tensor]:
        """What gradients are that backward has left multiplied by the scale."""
        inverse = 1 / self.scaler.get_scale()
        return [gradient * inverse for gradient in gradients]

    def hook(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda gradient: function(gradient / self.scaler.get_scale()) * self.scaler.get_scale()

    def step(self, optimizer: Any) -> None:
        self.scaler.step(optimizer)
        if self.scaler.is_enabled():
            found = self.scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"]
            self.skipped += any(flag.item() for flag in found.values())

    def update(self) -> None:
        self.scaler.update()


class Untouched:
    """What is left of these lines in a loop that knows nothing of them."""

    def forward(self) -> AbstractContextManager[object]:
        return nullcontext()

    def scale(self, outputs: Any) -> Any:
        return outputs

    def unscale(self, *optimizers: torch.optim.Optimizer) -> None: ...

    def true(self, gradients: Iterable[Tensor]) -> list[Tensor]:
        return list(gradients)

    def hook(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return function

    def step(self, optimizer: Any) -> None:
        optimizer.step()

    def update(self) -> None: ...


@dataclass
class Loop:
    """What one iteration does, and what shows afterwards that it did the same."""

    step: Callable[[int], object]
    """Returns what its user reads in it."""
    models: Sequence[nn.Module]
    optimizers: Sequence[torch.optim.Optimizer] = ()
    extra: Callable[[], object] = lambda: None
    """What else there is to compare in the end: counters, learning rates."""
    gradients: bool = True
    """Whether those that are left in the end are true by hand, too: a step has unscaled them."""


Recipe = Callable[[By], Loop]
LOOPS: dict[str, Recipe] = {}
CACHELESS: set[str] = set()
"""Loops that use a weight several times in one forward pass, of which a region keeps no cast copies."""


def loop(recipe: Recipe) -> Recipe:
    LOOPS[recipe.__name__] = recipe
    return recipe


def cacheless(recipe: Recipe) -> Recipe:
    CACHELESS.add(recipe.__name__)
    return loop(recipe)


# ------------------------------------------------------------------------------------------------- what they train


def net(inputs: int = 16, width: int = 32, outputs: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, outputs)
    )


def batch(step: int, part: int = 0, inputs: int = 16) -> tuple[Tensor, Tensor]:
    data = torch.Generator().manual_seed(100 * part + step)
    x = torch.randn(8, inputs, generator=data)
    return x, x.sum(1, keepdim=True).sin()


def loudness(step: int) -> float:
    return LOUD if step in SURGES else QUIET


def regression(model: Callable[[Tensor], Tensor], step: int, part: int = 0) -> Tensor:
    x, y = batch(step, part)
    return F.mse_loss(model(x), y) * loudness(step)


def sgd(*models: nn.Module, **options: Any) -> torch.optim.SGD:
    parameters = [parameter for model in models for parameter in model.parameters()]
    return torch.optim.SGD(parameters, **{"lr": 0.1 / QUIET, "momentum": 0.9, **options})


def adam(*models: nn.Module, **options: Any) -> torch.optim.Adam:
    parameters = [parameter for model in models for parameter in model.parameters()]
    return torch.optim.Adam(parameters, **{"lr": 0.01, "eps": 1e-12, **options})


# ---------------------------------------------------------------------------------------------------- how they run


def flat(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """The tensors and numbers in nested containers, copied, each with the way to it."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from flat(part, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for key, part in enumerate(value):
            yield from flat(part, f"{name}.{key}")
    elif isinstance(value, Tensor):
        dense = value.detach()
        yield name, (dense.to_dense() if dense.is_sparse else dense).clone()
    else:
        yield name, value


def outcome(made: Loop, read: Sequence[object], scaler: Any, skipped: int) -> dict[str, object]:
    return dict(
        flat(
            {
                "read": read,
                "models": [model.state_dict() for model in made.models],
                "gradients": [[p.grad for p in model.parameters()] for model in made.models if made.gradients],
                "optimizers": [optimizer.state_dict()["state"] for optimizer in made.optimizers],
                "extra": made.extra(),
                "scale": scaler.get_scale(),
                "skipped": skipped,
                "growth tracker": scaler.state_dict().get("_growth_tracker"),
            }
        )
    )


def differences(found: Mapping[str, object], expected: Mapping[str, object]) -> list[str]:
    """The names of what is not the same, bit for bit; NaN is NaN."""

    def same(a: object, b: object) -> bool:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.isnan(), b.isnan()) and bits(a, b)
        return type(a) is type(b) and a == b

    def bits(a: Tensor, b: Tensor) -> bool:
        return torch.equal(a.nan_to_num(0, 1, -1) if a.is_floating_point() else a, b.nan_to_num(0, 1, -1)) and (
            torch.equal(a.isinf(), b.isinf())
        )

    return [name for name in {**expected, **found} if not same(found.get(name, "none"), expected.get(name, "none"))]


def read(value: object) -> object:
    """What is read in a step, as it is then."""
    return [part for _, part in flat(value)]


def by_hand(recipe: Recipe, steps: int = STEPS, cache: bool = True, **options: Any) -> dict[str, object]:
    by = ByHand(cache and recipe.__name__ not in CACHELESS, **{**OPTIONS, **options})
    torch.manual_seed(0)
    made = recipe(by)
    return outcome(made, [read(made.step(step)) for step in range(steps)], by.scaler, by.skipped)


def block_around_all(made: Loop, steps: int, options: Mapping[str, Any]) -> tuple[list[object], Any]:
    with turbo("fast", autocast="fp16", **options) as active:
        seen = [read(made.step(step)) for step in range(steps)]
    return seen, active.scaler


def block_around_each(made: Loop, steps: int, options: Mapping[str, Any]) -> tuple[list[object], Any]:
    block, seen = turbo("fast", autocast="fp16", **options), []
    for step in range(steps):
        with block:
            seen.append(read(made.step(step)))
    return seen, torchturbo.scaler_of(block)


def decorated_step(made: Loop, steps: int, options: Mapping[str, Any]) -> tuple[list[object], Any]:
    step = accelerate(lambda number: made.step(number), profile="fast", autocast="fp16", **options)
    return [read(step(number)) for number in range(steps)], torchturbo.scaler_of(step)


Way = Callable[[Loop, int, Mapping[str, Any]], tuple[list[object], Any]]
WAYS: tuple[Way, ...] = (block_around_all, block_around_each, decorated_step)


def made_inside(recipe: Recipe, steps: int = STEPS, **options: Any) -> dict[str, object]:
    """The block is around the model and the optimizer too, as around a whole `main`."""
    torch.manual_seed(0)
    with turbo("fast", autocast="fp16", **{**OPTIONS, **options}) as active:
        made = recipe(Untouched())
        seen = [read(made.step(step)) for step in range(steps)]
        return outcome(made, seen, active.scaler, active.scaler.skipped_steps)


def untouched(recipe: Recipe, way: Way = block_around_all, steps: int = STEPS, **options: Any) -> dict[str, object]:
    torch.manual_seed(0)
    made = recipe(Untouched())
    seen, scaler = way(made, steps, {**OPTIONS, **options})
    return outcome(made, seen, scaler, scaler.skipped_steps)
