"""Small models with a step of training each, for measuring where nobody has brought one: made from a seed, no files."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from torchturbo.errors import TargetError, near

if TYPE_CHECKING:
    import torch

    from torchturbo._models.made import Made

MODELS = ("convnet", "gpt", "lstm", "mlp")
"""Each is a file here."""
SIZES = ("tiny", "small", "medium", "large")

__all__ = ["MODELS", "SIZES", "make"]


def make(model: str, size: str = "small", device: str | torch.device | None = None) -> Made:
    """A model with its data, its optimizer and its step.

    Nothing of the random streams of whoever calls it is drawn or changed on the CPU; a model is made there and moved.

    Args:
        model: one of `MODELS`.
        size: one of `SIZES`.
        device: where it runs; by default the accelerator, where there is one.

    Raises:
        TargetError: there is no such model, or no such size of it.
    """
    for word, known, what in ((model, MODELS, "model"), (size, SIZES, "size")):
        if word not in known:
            raise TargetError(f"there is no {what} {word!r}: {near(word, known)}")
    import torch  # the command line names models before torch is here

    where = torch.device(device) if device is not None else here()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: Made = import_module(f"{__name__}.{model}").make(size, where)
    return made


def here() -> torch.device:
    """Where models are made by default: on the accelerator, where there is one."""
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    return found if found is not None else torch.device("cpu")
