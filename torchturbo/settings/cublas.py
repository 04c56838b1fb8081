"""cuBLAS: how half-precision matrix products add up, which library multiplies, and its workspace."""

from __future__ import annotations

import os
import re
from typing import Any

import torch

from torchturbo.errors import DeterminismWarning
from torchturbo.hardware import Hardware
from torchturbo.settings._base import TORCH, Cell, Setting, Values, cell, choice, simple
from torchturbo.settings._callers import users_frame, warn_at
from torchturbo.settings._edits import Raw
from torchturbo.settings._variables import variable

_C: Any = torch._C


def _gpu_only(hardware: Hardware, value: Any) -> str | None:
    return None if hardware.gpus else "cuBLAS runs on NVIDIA GPUs, and there is none here"


# ------------------------------------------------------------------------------------------------------ accumulation

_HAS_SPLIT_K = TORCH >= (2, 10)


def _reduction(dtype: str) -> Setting:
    """The setting of reduced-precision reductions for one dtype.

    torch >= 2.10 keeps a pair (allow, split_k) of which the public getter drops half, so the pair is the raw state.
    """
    get = getattr(_C, f"_get_cublas_allow_{dtype}_reduced_precision_reduction")
    put = getattr(_C, f"_set_cublas_allow_{dtype}_reduced_precision_reduction")

    def write(raw: Raw, over: Raw) -> None:
        put(*raw) if _HAS_SPLIT_K else put(raw)

    pairs: dict[Any, Raw] = {True: (True, True), False: (False, True), "no_split_k": (False, False)}
    if not _HAS_SPLIT_K:
        pairs = {True: True, False: False}
    shown = {raw: value for value, raw in pairs.items()}

    def why_not(hardware: Hardware, value: Any) -> str | None:
        if value not in pairs:
            return "switching split-k off needs torch 2.10"
        return _gpu_only(hardware, value)

    return simple(
        Cell(f"{dtype} reduction", "process", get, write),
        help=f"May {dtype} matrix products add their parts up in {dtype}, or (no_split_k) not even have parts: "
        f"torch.backends.cuda.matmul.allow_{dtype}_reduced_precision_reduction.",
        values=choice(True, False, "no_split_k"),
        why_not=why_not,
        raw=lambda value: pairs[value],
        show=lambda raw: shown[raw],
    )


fp16_reduction = _reduction("fp16")
bf16_reduction = _reduction("bf16")

fp16_accumulation = simple(
    cell("_get_cublas_allow_fp16_accumulation", "_set_cublas_allow_fp16_accumulation"),
    help="Add fp16 matrix products up in fp16 throughout: torch.backends.cuda.matmul.allow_fp16_accumulation.",
    why_not=_gpu_only,
)

# ----------------------------------------------------------------------------------------------------------- library


def _library(kind: str, enum: Any, words: tuple[str, ...]) -> Setting:
    """The setting of the preferred library for one kind of work."""
    members = {str(name).lower(): member for name, member in enum.__members__.items()}
    get, put = getattr(_C, f"_get_{kind}_preferred_backend"), getattr(_C, f"_set_{kind}_preferred_backend")
    shown = {int(member): word for word, member in members.items()}

    def write(raw: Raw, over: Raw) -> None:
        # torch says at every write that the choice is experimental, so one that changes nothing is spared.
        if get() == raw:
            return
        try:
            put(raw)
        except RuntimeError:
            # A library that this build lacks is refused after it has been stored: where it was found so, it is back.
            if get() != raw:
                raise

    def why_not(hardware: Hardware, value: str) -> str | None:
        lacking = value == "magma" and not hardware.build.magma
        return _gpu_only(hardware, value) or (
            f"this build of torch ({hardware.build.torch}) has no MAGMA" if lacking else None
        )

    return simple(
        Cell(f"{kind} library", "process", get, write),
        help=f"The library that torch prefers for {kind}: torch.backends.cuda.preferred_{kind}_library.",
        values=choice(*(word for word in words if word in members)),
        why_not=why_not,
        raw=lambda value: members[value],
        show=lambda raw: shown.get(int(raw), str(raw)),
    )


blas_library = _library("blas", _C._BlasBackend, ("cublas", "cublaslt"))
linalg_library = _library("linalg", _C._LinalgBackend, ("default", "cusolver", "magma"))

# --------------------------------------------------------------------------------------------------------- workspace

_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"


_variable = variable(_VARIABLE)


class _Asked(str):
    """A value that a block has asked for, and not one that is put back."""

    __slots__ = ()


class _Started:
    """What CUDA has been started with: once it is known, that stays."""

    known = False
    value: str | None = None
    told: frozenset[str] = frozenset()


_started = _Started()


def _write_variable(raw: str | None, over: Raw) -> None:
    cuda: Any = torch.cuda
    if not _started.known and cuda.is_initialized():
        _started.known, _started.value = True, over
    if isinstance(raw, _Asked):
        _tell(raw)
    _variable.write(raw, over)


def _comes_too_late(asked: str) -> str | None:
    if not _started.known or _started.value == asked:
        return None
    with_it = "without it" if _started.value is None else f"with {_VARIABLE}={_started.value}"
    return (
        f"CUDA was started {with_it} and goes on so. Start Python with `{_VARIABLE}={asked} python ...`, or open the "
        "block before the first use of the GPU"
    )


def _tell(asked: str) -> None:
    late = _comes_too_late(asked)
    if late is None or asked in _started.told:
        return
    warn_at(users_frame(), f"cublas_workspace={asked!r} has no effect: {late}", DeterminismWarning)
    _started.told |= {asked}


def _told() -> str | None:
    asked = os.environ.get(_VARIABLE)
    return None if asked is None else _comes_too_late(asked)


cublas_workspace = simple(
    Cell(_VARIABLE, "process", _variable.read, _write_variable),
    help=f"cuBLAS's workspace, which cuBLAS reads when CUDA starts: the environment's {_VARIABLE}.",
    values=Values(
        kind=str,
        rule=lambda text: (
            None if re.fullmatch(r"(:\d+:\d+)+", text) else "expected :SIZE:COUNT, SIZE in KiB, as ':4096:8' or ':16:8'"
        ),
    ),
    why_not=_gpu_only,
    raw=_Asked,
)
cublas_workspace.told = _told
