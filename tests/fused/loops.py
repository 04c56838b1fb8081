"""Parameters, their gradients, and optimizers of every kind that has a fused kernel."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from torchturbo import Profile, turbo

Optimizer = torch.optim.Optimizer

NOTHING = Profile("nothing")
SHAPES = ((9, 7), (5,), (), (4, 3, 2, 2), (0,))

KINDS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "Adam": (torch.optim.Adam, {"lr": 0.01}),
    "Adam, amsgrad": (torch.optim.Adam, {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}),
    "Adam, maximize": (torch.optim.Adam, {"lr": 0.01, "maximize": True, "betas": (0.8, 0.9), "eps": 1e-6}),
    "Adam, lr in a tensor": (torch.optim.Adam, {"lr": torch.tensor(0.01)}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.01}),
    "AdamW, amsgrad": (torch.optim.AdamW, {"lr": 0.01, "amsgrad": True, "maximize": True}),
    "SGD": (torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.1}),
    "SGD, momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "SGD, dampening": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    "SGD, nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "SGD, maximize": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "maximize": True}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 0.1}),
    "Adagrad, decays": (
        torch.optim.Adagrad,
        {"lr": 0.1, "lr_decay": 0.01, "weight_decay": 0.1, "initial_accumulator_value": 0.2, "maximize": True},
    ),
}


def fused(wanted: object = True) -> turbo:
    """A block that asks for fused optimizers, and for nothing else."""
    return turbo(NOTHING, fused_optimizer=wanted)  # type: ignore[arg-type]


def parameters(dtype: torch.dtype = torch.float32, shapes: Iterable[tuple[int, ...]] = SHAPES) -> list[Tensor]:
    numbers = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=numbers).to(dtype)) for shape in shapes]


def give(params: Iterable[Tensor], seed: int) -> None:
    """Gradients, which depend on nothing but the seed."""
    numbers = torch.Generator().manual_seed(seed)
    for param in params:
        param.grad = torch.randn(param.shape, generator=numbers).to(param.device, param.dtype)


def make(kind: str, params: Iterable[Tensor], **more: Any) -> Optimizer:
    cls, options = KINDS[kind]
    return cls(params, **{**options, **more})


def take(optimizer: Optimizer, *seeds: int) -> None:
    """Steps, each with its gradients."""
    for seed in seeds:
        give((param for group in optimizer.param_groups for param in group["params"]), seed)
        optimizer.step()


def bits(params: Iterable[Tensor]) -> Tensor:
    return torch.cat([param.detach().reshape(-1).double() for param in params])


def trained(kind: str, *seeds: int, wanted: object = None, **more: Any) -> Tensor:
    """The parameters that steps come to, in a block of their own or without one."""
    params = parameters()
    optimizer = make(kind, params, **more)
    with nullcontext() if wanted is None else fused(wanted):
        take(optimizer, *seeds)
    return bits(params)


def switched(optimizer: Optimizer, on: bool) -> Optimizer:
    """What a user writes to go on fused, or no more: another optimizer with the state of this one."""
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group["fused"] = on or None
    made = type(optimizer)([{**group, "fused": on or None} for group in optimizer.param_groups], lr=0.1)
    made.load_state_dict(saved)
    return made


def form(optimizer: Optimizer) -> Any:
    """All of a `state_dict` but the numbers: what is saved, of which type, dtype, device and shape."""
    return shape_of(optimizer.state_dict())


def shape_of(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype, value.device, tuple(value.shape), value.stride(), type(value)
    if isinstance(value, dict):
        return {key: shape_of(its) for key, its in value.items()}
    if isinstance(value, list | tuple):
        return [shape_of(its) for its in value]
    return value


def said() -> str:
    """What the report notes of it in this thread."""
    from torchturbo._report import gather

    return gather()["fused_optimizer"].note or ""
