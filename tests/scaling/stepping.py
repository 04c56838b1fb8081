"""Loops whose optimizers are out of the ordinary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from tests.scaling.loops import LOOPS, QUIET, By, Loop, adam, batch, loop, loudness, net, regression, sgd
from tests.scaling.ordinary import ordinary

# ------------------------------------------------------------------------------------------------------ torch's own


def matrices(model: nn.Module) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.ndim == 2]


def optimizer(make: Callable[[nn.Module], torch.optim.Optimizer]) -> Callable[[By], Loop]:
    return lambda by: ordinary(by, make=make)


MAKERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "adamw_foreach": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01, eps=1e-12, foreach=True),
    "sgd_foreach": lambda model: sgd(model, foreach=True),
    "adam_one_by_one": lambda model: adam(model, foreach=False),
    "adam_capturable_amsgrad": lambda model: adam(model, amsgrad=True, weight_decay=0.1),
    "adagrad": lambda model: torch.optim.Adagrad(model.parameters(), lr=0.05, eps=1e-14),
    "rmsprop": lambda model: torch.optim.RMSprop(model.parameters(), lr=0.01, momentum=0.9, centered=True, eps=1e-14),
    "adafactor": lambda model: torch.optim.Adafactor(model.parameters(), lr=0.05),
    "rprop": lambda model: torch.optim.Rprop(model.parameters(), lr=0.01),
    "parameter_groups": lambda model: torch.optim.SGD(
        [{"params": [p], "lr": 0.01 * number / QUIET} for number, p in enumerate(model.parameters(), 1)], lr=0
    ),
}
if hasattr(torch.optim, "Muon"):
    MAKERS["muon"] = lambda model: torch.optim.Muon(matrices(model), lr=0.02)
for name, make in MAKERS.items():
    LOOPS[name] = optimizer(make)
    LOOPS[name].__name__ = name


# ------------------------------------------------------------------------------------------------------ of one's own


class Counting(torch.optim.SGD):
    """Counts, and changes gradients, in a step that calls torch's."""

    steps = 0

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(1 + 1 / self.steps)
        return super().step(closure)


class Whole(torch.optim.Optimizer):
    """Has all of its step written itself, with products that autocast would make half ones."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self.calls = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        self.calls += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad / (parameter.grad.norm() + 1e-20)
                self.state[parameter]["mean"] = mean = self.state[parameter].get("mean", 0) * 0.9 + gradient
                if mean.ndim == 2:
                    mean = mean - 0.3 * mean @ mean.T @ mean
                parameter.sub_(mean, alpha=group["lr"])


class Lookahead(torch.optim.Optimizer):
    """Holds another one, and every third step goes half of the way back."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.inner, self.calls = inner, 0
        self.slow = [p.detach().clone() for group in inner.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        self.inner.step()
        self.calls += 1
        if self.calls % 3 == 0:
            for slow, fast in zip(self.slow, self.param_groups[0]["params"], strict=True):
                fast.copy_(slow.lerp_(fast, 0.5))


@loop
def step_that_calls_torchs(by: By) -> Loop:
    made = ordinary(by, make=lambda model: Counting(model.parameters(), lr=0.01 / QUIET, momentum=0.5))
    made.extra = lambda: made.optimizers[0].steps
    return made


@loop
def step_of_ones_own(by: By) -> Loop:
    made = ordinary(by, make=lambda model: Whole(model.parameters(), lr=0.1))
    made.extra = lambda: made.optimizers[0].calls
    return made


@loop
def optimizer_around_another(by: By) -> Loop:
    made = ordinary(by, make=lambda model: Lookahead(adam(model)))
    made.extra = lambda: (made.optimizers[0].calls, made.optimizers[0].inner.state_dict()["state"])
    return made


@loop
def step_hooks(by: By) -> Loop:
    """They run where a step runs, see true gradients, and may write them."""
    model = net()
    trained = sgd(model)
    seen: list[object] = []

    def before(optimizer: Any, args: Any, kwargs: Any) -> None:
        gradients = [parameter.grad for parameter in model.parameters()]
        seen.append(torch.stack([gradient.norm() for gradient in gradients if gradient is not None]))
        torch._foreach_mul_(gradients, 0.5)

    trained.register_step_pre_hook(before)
    trained.register_step_post_hook(lambda *args: seen.append(len(seen)))

    def step(number: int) -> object:
        trained.zero_grad()
        with by.forward():
            loss = regression(model, number)
        by.scale(loss).backward()
        by.step(trained)
        by.update()
        return loss

    return Loop(step, [model], [trained], lambda: seen)


@loop
def sparse_gradients(by: By) -> Loop:
    words = nn.Embedding(30, 16, sparse=True)
    model = net()
    optimizers = torch.optim.SparseAdam(words.parameters(), lr=0.01, eps=1e-12), sgd(model)

    def step(number: int) -> object:
        _, y = batch(number)
        chosen = torch.arange(8 * 3).view(8, 3) * (number + 1) % 30
        for optimizer in optimizers:
            optimizer.zero_grad()
        with by.forward():
            loss = nn.functional.mse_loss(model(words(chosen).mean(1)), y) * loudness(number)
        by.scale(loss).backward()
        by.unscale(*optimizers)
        seen = words.weight.grad.coalesce() if words.weight.grad is not None else None
        for optimizer in optimizers:
            by.step(optimizer)
        by.update()
        return loss, seen

    return Loop(step, [words, model], optimizers)


@loop
def sparse_gradients_accumulated(by: By) -> Loop:
    bag = nn.EmbeddingBag(30, 16, sparse=True, mode="sum")
    model = net()
    trained = torch.optim.SGD([*bag.parameters(), *model.parameters()], lr=0.05 / QUIET)

    def step(number: int) -> object:
        losses = []
        for part in range(2):
            _, y = batch(number, part)
            chosen = torch.arange(8 * 3).view(8, 3) * (number + part + 1) % 30
            with by.forward():
                loss = nn.functional.mse_loss(model(bag(chosen)), y) * loudness(number)
            by.scale(loss).backward()
            losses.append(loss)
        by.step(trained)
        by.update()
        trained.zero_grad()
        return losses

    return Loop(step, [bag, model], [trained])


@loop
def optimizer_made_in_the_loop(by: By) -> Loop:
    """A new one for each second half, as with parameters that are added."""
    model = net()
    held = [sgd(model)]

    def step(number: int) -> object:
        if number == 4:
            held[0] = adam(model)
        held[0].zero_grad()
        with by.forward():
            loss = regression(model, number)
        by.scale(loss).backward()
        by.step(held[0])
        by.update()
        return loss

    return Loop(step, [model], extra=lambda: held[0].state_dict()["state"])


@loop
def patched_step(by: By) -> Loop:
    """Whose `step` somebody has put another one around, on the object and on nothing else."""
    model, calls = net(), [0]
    trained = adam(model)
    within = trained.step

    def patched(*args: Any, **kwargs: Any) -> Any:
        result = within(*args, **kwargs)
        calls[0] += 1
        return result

    trained.step = patched

    def step(number: int) -> object:
        trained.zero_grad()
        with by.forward():
            loss = regression(model, number)
        by.scale(loss).backward()
        by.step(trained)
        by.update()
        return loss

    return Loop(step, [model], [trained])


@loop
def class_of_the_loop(by: By) -> Loop:
    """A class of optimizers that is written, and made for the first time, where the loop is."""

    class Own(Counting):
        def step(self, closure: Any = None) -> Any:
            self.again = getattr(self, "again", 0) + 1
            return super().step(closure)

    made = ordinary(by, make=lambda model: Own(model.parameters(), lr=0.01 / QUIET))
    made.extra = lambda: (made.optimizers[0].steps, made.optimizers[0].again)
    return made


@loop
def hooks_of_all_steps(by: By) -> Loop:
    """Registered with torch for every optimizer there is; removed in the end."""
    seen: list[str] = []
    model = net()
    trained = adam(model)

    def step(number: int) -> object:
        handles = [
            register_optimizer_step_pre_hook(lambda *args: seen.append("before")),
            register_optimizer_step_post_hook(lambda *args: seen.append("after")),
        ]
        trained.zero_grad()
        with by.forward():
            loss = regression(model, number)
        by.scale(loss).backward()
        by.step(trained)
        by.update()
        for handle in handles:
            handle.remove()
        return loss, len(seen)

    return Loop(step, [model], [trained], lambda: seen)
