"""A model's linear layers multiplied in float8, by torchao: the same layers, with the same parameters and hooks.

torchao has another class of layers for it, and makes a new layer of each. Here a layer stays the object that it is, so
that optimizers, hooks and whoever holds it go on with it; it is given torchao's class, and what torchao adds to it.
"""

from __future__ import annotations

import sys
import weakref
from dataclasses import dataclass
from typing import Any

from torch import nn

from torchturbo.errors import MissingPackageError, OptionValueError, TargetError, UnsupportedHere
from torchturbo.hardware import Hardware

_BEFORE = "__torchturbo_before_float8__"
MULTIPLE = 16
"""What the sizes of a layer have to be divisible by: float8 kernels know no others."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a model was asked to be.

    Attributes:
        float8: what was asked for.
        where: the line that asked, as ``file:line``.
        reason: why it is left out, as a sentence, or None.
        emulated: whether torchao was told to emulate it.
    """

    float8: object
    where: str
    reason: str | None
    emulated: bool


_ASKED: weakref.WeakKeyDictionary[nn.Module, Asked] = weakref.WeakKeyDictionary()
"""Models that were asked to compute in float8, oldest first."""


def asked() -> tuple[Asked, ...]:
    """What living models were asked to be, oldest first."""
    return tuple(_ASKED.values())


def converted() -> int:
    """How many layers of these compute in float8 now."""
    return len({id(each) for model in list(_ASKED) for each in model.modules() if _BEFORE in vars(each)})


def note(model: nn.Module, float8: object, config: Any, reason: str | None) -> None:
    """Keeps what a model was asked to be, for the report.

    Args:
        model: whose layers.
        float8: what was asked for.
        config: torchao's.
        reason: why it is left out, or None.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).split(".")[0] == "torchturbo":
        frame = frame.f_back
    its = float8 if isinstance(float8, str | bool) else type(float8).__name__
    _ASKED[model] = Asked(its, f"{frame.f_code.co_filename}:{frame.f_lineno}", reason, bool(config.emulate))


def why_not(hardware: Hardware) -> str | None:
    """Why a machine multiplies nothing in float8, as a sentence, or None.

    Args:
        hardware: the machine.
    """
    if hardware.has_fp8:
        return None
    slow = [gpu.name for gpu in hardware.gpus if not gpu.has_fp8]
    if slow:
        return f"float8 needs compute capability 8.9, and {slow[0]} does not have it"
    return "float8 products run on NVIDIA GPUs of compute capability 8.9, and there is none here"


def config_of(float8: object) -> Any:
    """How torchao is to do it.

    Args:
        float8: True, the name of one of torchao's recipes, or a `torchao.float8.Float8LinearConfig`.

    Raises:
        MissingPackageError: torchao is not installed.
        OptionValueError: it is something else.
    """
    try:
        from torchao.float8 import Float8LinearConfig
    except ImportError:
        raise MissingPackageError("float8 is computed by torchao: pip install 'torchturbo[float8]'") from None
    if float8 is True:
        # Batches of any size: the products of backward go over them.
        return Float8LinearConfig(pad_inner_dim=True)
    if isinstance(float8, Float8LinearConfig):
        return float8
    wrong = f"float8={float8!r}: expected a bool, a torchao.float8.Float8LinearConfig or the name of a recipe of it"
    if not isinstance(float8, str):
        raise OptionValueError(wrong)
    try:
        return Float8LinearConfig.from_recipe_name(float8)
    except (ValueError, AssertionError, NotImplementedError) as error:
        raise OptionValueError(f"{wrong}: {error}") from None


def refusal(config: Any, hardware: Hardware) -> str | None:
    """Why this is left out here, as a sentence, or None; what only emulates float8 runs anywhere.

    Args:
        config: torchao's.
        hardware: the machine.
    """
    return None if config.emulate else why_not(hardware)


def check(model: nn.Module, config: Any, hardware: Hardware, *, strict: bool) -> str | None:
    """Why a model is not converted here, as a sentence, or None.

    Raises:
        UnsupportedHere: `strict`, and it is not.
        TargetError: no layer of it could be converted.
    """
    reason = refusal(config, hardware)
    if reason is not None and strict:
        raise UnsupportedHere(f"float8: {reason}, and strict=True")
    if not fitting(model):
        raise TargetError(
            f"{type(model).__name__} has no nn.Linear whose sizes are multiples of {MULTIPLE}, so that nothing in it "
            "can be computed in float8"
        )
    return reason


def fitting(model: nn.Module) -> list[nn.Linear]:
    """The layers of a model that float8 kernels can compute: plain ones, of sizes that they know.

    Args:
        model: any.
    """
    return [
        each
        for each in model.modules()
        if type(each) is nn.Linear and not each.in_features % MULTIPLE and not each.out_features % MULTIPLE
    ]


def convert(model: nn.Module, config: Any) -> None:
    """Has the layers of a model compute in float8.

    Args:
        model: whose.
        config: torchao's.
    """
    from torchao.float8 import convert_to_float8_training

    layers = fitting(model)
    # What it makes of a layer holds the layer's own parameters; it is only asked for its class and attributes.
    for layer, made in zip(layers, convert_to_float8_training(nn.ModuleList(layers), config=config), strict=True):
        added = {name: value for name, value in vars(made).items() if name not in vars(layer)}
        vars(layer).update(added)
        vars(layer)[_BEFORE] = layer.__class__, tuple(added)
        layer.__class__ = type(made)


def put_back(model: nn.Module) -> None:
    """Has the layers of a model be what they were.

    Args:
        model: whose.
    """
    _ASKED.pop(model, None)
    for layer in model.modules():
        before = vars(layer).pop(_BEFORE, None)
        if before is not None:
            layer.__class__, added = before
            for name in added:
                vars(layer).pop(name, None)
