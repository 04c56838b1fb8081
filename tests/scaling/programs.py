"""Loops drawn at random: what one is made of, and how it runs, by hand or untouched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import grad
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from tests.scaling.failing import NotToday, Trap, arm_trap
from tests.scaling.inside import Around, Custom, Recomputed, island
from tests.scaling.loops import LOUD, QUIET, By, ByHand, Loop, batch, net
from tests.scaling.stepping import Counting, Lookahead, Whole

BODIES: dict[str, Callable[[], nn.Module]] = {
    "layers": lambda: net(outputs=8),
    "statistics": lambda: nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8)),
    "checkpoint": lambda: nn.Sequential(Recomputed(use_reentrant=False), nn.Linear(1, 8)),
    "reentrant checkpoint": lambda: nn.Sequential(Recomputed(use_reentrant=True), nn.Linear(1, 8)),
    "island": lambda: nn.Sequential(Around(island), nn.Linear(1, 8)),
    "function": lambda: nn.Sequential(Around(lambda x: Custom.apply(x, x.T @ x) / 16), nn.Linear(1, 8)),
    "dropout": lambda: nn.Sequential(nn.Linear(16, 8), nn.Dropout(0.3), nn.GELU(), nn.Linear(8, 8)),
}

Make = Callable[[list[Tensor]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.02 / QUIET, momentum=0.9, foreach=True),
    "adam": lambda ps: torch.optim.Adam(ps, lr=0.01, eps=1e-12),
    "fused adamw": lambda ps: torch.optim.AdamW(ps, lr=0.01, eps=1e-12, fused=True),
    "adagrad": lambda ps: torch.optim.Adagrad(ps, lr=0.01, eps=1e-12, foreach=False),
    "adafactor": lambda ps: torch.optim.Adafactor(ps, lr=0.01),
    "counting": lambda ps: Counting(ps, lr=0.01 / QUIET),
    "whole": lambda ps: Whole(ps, lr=0.02),
    "lookahead": lambda ps: Lookahead(torch.optim.RMSprop(ps, lr=0.005, eps=1e-12)),
}


@dataclass(frozen=True)
class Program:
    """One loop."""

    body: str
    optimizers: tuple[str, ...]  # of the body and the heads; or one of all
    loss: str
    between: str
    parts: int  # micro-batches in a step
    loud: frozenset[int]  # steps whose gradients overflow
    loud_part: int
    clear: str
    hook: str
    penalty: bool
    average: bool
    freeze: int | None
    infinity: int | None  # step that brings one from elsewhere
    raises: int | None  # step whose first backward raises, and is left out
    turns: bool  # whether two optimizers step in turns
    steps: int
    options: dict[str, float]


def _sensible(program: Program) -> bool:
    if program.body == "reentrant checkpoint" and (program.penalty or program.loss == "inputs"):
        return False  # torch refuses it
    # An infinity that is clipped away before anybody looks is found by hand alone, where unscaling comes first.
    return program.infinity is None or program.between != "clip by value"


def _some(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[int | None]:
    return st.one_of(st.none(), st.none(), numbers)


STEPS = st.integers(0, 6)
PROGRAMS = st.builds(
    Program,
    body=st.sampled_from(sorted(BODIES)),
    optimizers=st.lists(st.sampled_from(sorted(OPTIMIZERS)), min_size=1, max_size=2).map(tuple),
    loss=st.sampled_from(["one", "sum", "twice", "roots", "gradient", "inputs"]),
    between=st.sampled_from(["nothing", "clip by norm", "clip by value", "log", "products"]),
    parts=st.integers(1, 3),
    loud=st.frozensets(STEPS, max_size=3),
    loud_part=st.integers(0, 2),
    clear=st.sampled_from(["none", "zeros", "after"]),
    hook=st.sampled_from(["no", "no", "nonlinear", "after accumulation"]),
    penalty=st.booleans(),
    average=st.booleans(),
    freeze=_some(STEPS),
    infinity=_some(STEPS),
    raises=_some(STEPS),
    turns=st.booleans(),
    steps=st.integers(4, 7),
    options=st.fixed_dictionaries(
        {
            "init_scale": st.integers(8, 34).map(lambda power: 2.0**power),
            "growth_factor": st.sampled_from([2.0, 4.0]),
            "backoff_factor": st.sampled_from([0.5, 0.125]),
            "growth_interval": st.integers(1, 3),
        }
    ),
).filter(_sensible)


class Parts(nn.Module):
    """A body with a trap for its backward, and two heads."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.first, self.second = body, nn.Linear(8, 1), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = Trap.apply(self.body(x).tanh())
        return self.first(hidden), self.second(hidden)


def leaves_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [leaf for group in optimizer.param_groups for leaf in group["params"]]


def gradients_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [leaf.grad for leaf in leaves_of(optimizer) if leaf.grad is not None]


class Played:
    """A program under way."""

    def __init__(self, program: Program, by: By) -> None:
        self.program, self.by = program, by
        self.model = Parts(BODIES[program.body]())
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        body, every = list(self.model.body.parameters()), list(self.model.parameters())
        groups = [every] if len(program.optimizers) == 1 else [body, every[len(body) :]]
        self.optimizers = [OPTIMIZERS[name](group) for name, group in zip(program.optimizers, groups, strict=True)]
        if isinstance(by, ByHand):
            for optimizer in self.optimizers:
                # Fused kernels are to be called or not, as all others are: see test_fused.
                optimizer._step_supports_amp_scaling = False
        self.seen: list[object] = []
        self._hook()

    def _hook(self) -> None:
        def halve(leaf: Tensor) -> None:
            (gradient,) = self.by.true([leaf.grad])
            self.seen.append(gradient.norm())
            leaf.grad.copy_(self.by.scale(gradient * 0.5))

        for leaf in list(self.model.parameters())[::2]:
            if self.program.hook == "nonlinear":
                leaf.register_hook(self.by.hook(lambda gradient: gradient + gradient * gradient.norm() / QUIET))
            elif self.program.hook == "after accumulation":
                leaf.register_post_accumulate_grad_hook(halve)

    def losses(self, step: int, part: int) -> tuple[Tensor, Tensor, Tensor]:
        x, y = batch(step, part)
        loud = step in self.program.loud and part == self.program.loud_part % self.program.parts
        first, second = self.model(x)
        return first, F.mse_loss(first, y) * (LOUD if loud else QUIET), F.l1_loss(second, y) * QUIET

    def backward(self, step: int, part: int) -> list[Tensor]:
        by, model = self.by, self.model
        with by.forward():
            output, one, two = self.losses(step, part)
        if self.program.penalty:
            weights = [model.first.weight, model.first.bias]
            gradients = by.true(grad(by.scale(one), weights, create_graph=True))
            with by.forward():
                one = one + torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        match self.program.loss:
            case "one":
                by.scale(one).backward()
            case "sum":
                by.scale(one + two).backward()
            case "twice":
                by.scale(two).backward(retain_graph=True)
                by.scale(one).backward()
            case "roots":
                torch.autograd.backward([by.scale(one), by.scale(two)])
            case "gradient":
                by.scale(one).backward(gradient=torch.tensor(0.25), retain_graph=True)
                by.scale(output.float()).backward(gradient=torch.full((8, 1), 0.5 * QUIET))
            case "inputs":
                wanted = [leaf for leaf in model.parameters() if leaf.requires_grad]
                by.scale(one).backward(inputs=wanted[::2])
        return [one, two]

    def between(self, stepping: list[torch.optim.Optimizer], step: int) -> object:
        leaves = [leaf for optimizer in stepping for leaf in leaves_of(optimizer)]
        gradients = [gradient for optimizer in stepping for gradient in gradients_of(optimizer)]
        if step == self.program.infinity:
            gradients[-1][0] = float("inf")
        if self.program.between == "nothing":
            return None
        self.by.unscale(*stepping)
        match self.program.between:
            case "clip by norm":
                return clip_grad_norm_(leaves, QUIET)
            case "clip by value":
                clip_grad_value_(leaves, 0.1 * QUIET)
            case "products":
                for gradient in gradients:
                    if gradient.ndim == 2:
                        gradient.sub_(gradient @ gradient.T @ gradient, alpha=0.1 / QUIET**2)
        return [gradient.clone() for gradient in gradients]

    def clear(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=self.program.clear != "zeros")

    def step(self, number: int) -> object:
        program, by = self.program, self.by
        self.seen.clear()
        if program.clear != "after":
            self.clear()
        arm_trap(number == program.raises)
        try:
            losses = [self.backward(number, part) for part in range(program.parts)]
        except NotToday:
            kept = by.true([leaf.grad for leaf in self.model.parameters() if leaf.grad is not None])
            kept = [gradient.clone() for gradient in kept]
            self.clear()
            return kept
        finally:
            arm_trap(False)
        # Torch's scaler refuses to step without any gradient.
        stepping = [optimizer for optimizer in self.optimizers if gradients_of(optimizer)]
        if program.turns:
            stepping = stepping[number % len(stepping) :][:1]
        noticed = self.between(stepping, number)
        for optimizer in stepping:
            by.step(optimizer)
        if stepping:
            by.update()
        self.clear()
        if number == program.freeze:
            self.model.body.requires_grad_(not program.turns and len(self.optimizers) == 2)
        return losses, noticed, list(self.seen), self.averaged(number)

    def averaged(self, number: int) -> object:
        if not self.program.average:
            return None
        with torch.no_grad():
            for mean, leaf in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(leaf, 0.3)
            with self.by.forward():
                return self.average(batch(number, 5)[0])

    def counts(self) -> list[object]:
        counted = [getattr(o, "steps", getattr(o, "calls", None)) for o in self.optimizers]
        return [counted, [o.inner.state_dict()["state"] for o in self.optimizers if isinstance(o, Lookahead)]]


def recipe_of(program: Program) -> Callable[[By], Loop]:
    def recipe(by: By) -> Loop:
        played = Played(program, by)
        return Loop(played.step, [played.model, played.average], played.optimizers, played.counts)

    return recipe
