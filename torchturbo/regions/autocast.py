"""Autocast around whole training loops: never stale weights, and nothing but forward passes computed under it.

`torch.autocast` keeps one cast copy of each weight until its outermost block ends. Around a whole loop that copy goes
stale at the first optimizer step, and the model learns nothing, without an error. So a region keeps no copies: every
forward casts the weights as they are, whoever changed them. `torchturbo.regions._backward` keeps backward and
optimizer steps out of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import torch

from torchturbo.hardware import Hardware, Xpu, detect
from torchturbo.regions._backward import REGION
from torchturbo.regions._here import Factors, as_in_forward, thread
from torchturbo.regions._scaler import Scaler
from torchturbo.regions._steps import heal
from torchturbo.settings._base import Cell, Setting, Values, Write
from torchturbo.settings._edits import Edit, Raw, always, own

__all__ = ["DEVICE_TYPES", "as_in_forward", "autocast", "dtype_put_on"]

DEVICE_TYPES = ("cpu", "cuda", "mps", "xpu")


_C: Any = torch._C
# What torch.is_autocast_enabled and torch.set_autocast_enabled do once they have understood the name of a device.
_is_off, _set_off = _C._dispatch_tls_is_dispatch_key_excluded, _C._dispatch_tls_set_dispatch_key_excluded
_KEYS = {device: getattr(_C.DispatchKey, f"Autocast{device.upper()}") for device in DEVICE_TYPES}
_dtype, _set_dtype = torch.get_autocast_dtype, torch.set_autocast_dtype
_is_cache_enabled, _write_region = torch.is_autocast_cache_enabled, REGION.write


def _cell(device: str) -> Cell:
    key = _KEYS[device]

    def read() -> tuple[bool, torch.dtype]:
        return not _is_off(key), _dtype(device)

    def write(raw: tuple[bool, torch.dtype], over: Raw) -> None:
        _set_off(key, not raw[0])
        _set_dtype(device, raw[1])

    return Cell(f"autocast on {device}", "thread", read, write)


_ON = {device: _cell(device) for device in DEVICE_TYPES}


def _region(device: str) -> Cell:
    """A region's autocast, and autocast on a device: one cell, which takes less time than the two of them."""
    key = _KEYS[device]

    def read() -> Raw:
        here = thread.here
        if here.steps:
            heal(here)
        return (_is_cache_enabled(), here.devices, here.scaler, here.after, here.own), (
            not _is_off(key),
            _dtype(device),
        )

    def write(raw: Raw, over: Raw) -> None:
        region, (on, dtype) = raw
        _set_off(key, not on)
        _set_dtype(device, dtype)
        _write_region(region, over)

    return Cell(f"a region's autocast on {device}", "thread", read, write, parts=(REGION, _ON[device]))


_REGIONS = {device: _region(device) for device in DEVICE_TYPES}


def at_once(edits: Mapping[Cell, Edit]) -> tuple[Write, ...]:
    """The same edits; a region that is opened on one device, and autocast there, by one.

    Args:
        edits: of each cell.
    """
    writes = dict(edits)
    values = {cell: edit.value for cell, edit in edits.items() if isinstance(edit, always)}
    opened = [region for region in _REGIONS.values() if values.keys() >= set(region.parts)]
    for region in opened[:1]:
        for part in region.parts:
            del writes[part]
        writes[region] = always(tuple(values[part] for part in region.parts))
    return tuple(writes.items())


def _off(beneath: tuple[bool, torch.dtype]) -> tuple[bool, torch.dtype]:
    return False, beneath[1]


def _no_region(beneath: Raw) -> Raw:
    return beneath[0], (), None, False, None


def _scaler(values: Mapping[str, Any]) -> Scaler:
    """With the factors that are asked for with it, or by a block around."""
    return Scaler(thread.here.factors._replace(**{name: values[name] for name in Factors._fields if name in values}))


@cache
def _edits(value: str | None, device: str) -> tuple[Write, ...]:
    if value is None:
        return ((REGION, _no_region), *((cell, _off) for cell in _ON.values()))
    if value == "fp16":
        return (REGION, own(_scaler, lambda scaler: (False, (device,), scaler, False, None))), (
            _ON[device],
            always((True, torch.float16)),
        )
    return (REGION, always((False, (device,), None, False, None))), (_ON[device], always((True, torch.bfloat16)))


def _resolve(value: str | None, hardware: Hardware) -> str | None:
    # Never fp16 unasked: where a block holds the forward alone, nobody would scale the gradients of the backward.
    return "bf16" if value == "auto" else value


def _why_not(hardware: Hardware, value: str | None) -> str | None:
    if value is None or (value == "bf16" and hardware.has_bf16):
        return None
    if hardware.device_type == "xpu":
        return _why_not_on(hardware.xpus, value)
    if value == "fp16":
        return None
    if hardware.device_type == "mps":
        return (
            "Apple's GPUs do not tell whether they compute bf16 or only emulate it; all of them compute fp16: "
            "autocast='fp16', around what calls backward too"
        )
    if hardware.device_type == "cpu":
        return f"{hardware.cpu.name} computes bf16 by emulation only, which is slower than float32"
    name = next(gpu.name for gpu in hardware.gpus if not gpu.has_bf16)
    fp16 = (
        "; it is fast in fp16: autocast='fp16', around what calls backward too"
        if hardware.has_fp16_tensor_cores
        else ""
    )
    return f"{name} computes bf16 by emulation only{fp16}"


def _why_not_on(xpus: tuple[Xpu, ...], value: str) -> str | None:
    """Why an Intel GPU does not compute in this, or None."""
    computes = {"bf16": [xpu.bf16 for xpu in xpus], "fp16": [xpu.fp16 for xpu in xpus]}[value]
    if all(computes):
        return None
    if None in computes:
        return "Intel GPUs say what they compute once torch has started them, and it has not yet"
    return (
        f"{next(xpu.name for xpu, its in zip(xpus, computes, strict=True) if not its)} does not compute {value} itself"
    )


def dtype_put_on(held: Iterable[tuple[Cell, Any, Raw, Raw]]) -> torch.dtype | None:
    """What autocast makes of float32 in a block that holds these, or None if that has not put it on itself."""
    cells = tuple(_ON.values())
    return next((put[1] for cell, _, _, put in held if cell in cells and put[0]), None)


def _told() -> str | None:
    """How the gradients of this thread's block are scaled."""
    here = thread.here
    if here.scaler is None:
        return None
    if here.user_scales:
        return "gradients are scaled by a GradScaler of the code's own, and left to it"
    steps = f"{here.scaler.steps} steps have run, {here.scaler.skipped_steps} were skipped"
    return f"gradients are scaled by {here.scaler.get_scale():g} in backward; {steps}"


def _left_to() -> str | None:
    """Who has shown itself to enter autocast in this thread's block, which so is left to it."""
    where = thread.here.own
    return f"the torch.autocast that the code enters by itself, at {where}" if where else None


def _show(*raws: tuple[bool, torch.dtype]) -> object:
    """What the device that work runs on has; another one only where that has none."""
    words = {"bfloat16": "bf16", "float16": "fp16"}
    dtypes = {d: str(dtype).removeprefix("torch.") for d, (on, dtype) in zip(DEVICE_TYPES, raws, strict=True) if on}
    shown = {device: words.get(dtype, dtype) for device, dtype in dtypes.items()}
    here = shown.pop(detect().device_type, None)
    return here or ", ".join(f"{dtype} on {device}" for device, dtype in shown.items()) or None


autocast = Setting(
    help="Compute forward passes in half precision where it is safe: torch.autocast, made safe around a whole loop.",
    values=Values(
        ("auto", "bf16", "fp16", None),
        {
            True: "auto",
            False: None,
            "no": None,
            "none": None,
            "bfloat16": "bf16",
            "bf16-mixed": "bf16",
            torch.bfloat16: "bf16",
            "float16": "fp16",
            "16-mixed": "fp16",
            torch.float16: "fp16",
        },
    ),
    cells=tuple(_ON.values()),
    edits=lambda value, hardware: _edits(value, hardware.device_type),
    show=_show,
    why_not=_why_not,
    resolve=_resolve,
    told=_told,
    left_to=_left_to,
)
