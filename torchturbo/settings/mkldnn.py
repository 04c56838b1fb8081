"""oneDNN (torch.backends.mkldnn), which runs convolutions, matrix products and recurrent nets on CPUs."""

from __future__ import annotations

from typing import Any, NamedTuple

from torchturbo.hardware import Hardware
from torchturbo.settings._base import Cell, Setting, cell, choice, simple
from torchturbo.settings._cells import HAS_CELLS, get, put, raw_leaf
from torchturbo.settings._edits import Raw, always


class Mkldnn(NamedTuple):
    """Raw state of float32 convolutions and recurrent nets on oneDNN: cells mkldnn/conv and mkldnn/rnn."""

    conv: str
    rnn: str


def _read_mkldnn() -> Mkldnn:
    return Mkldnn(raw_leaf("mkldnn", "conv"), raw_leaf("mkldnn", "rnn"))


def _write_mkldnn(raw: Mkldnn, over: Raw) -> None:
    put("mkldnn", "conv", raw.conv)
    put("mkldnn", "rnn", raw.rnn)


MKLDNN = Cell("oneDNN float32 precision", "process", _read_mkldnn, _write_mkldnn) if HAS_CELLS else None


def shown_mkldnn(raw: Mkldnn) -> str:
    """The precision in force, or both where convolutions and recurrent nets differ."""
    inherited = get("mkldnn", "all")
    conv, rnn = ({"none": inherited}.get(leaf, leaf) for leaf in raw)
    return str({"none": "ieee"}.get(conv, conv) if conv == rnn else f"conv {conv}, rnn {rnn}")


def _not_built(hardware: Hardware, value: Any) -> str | None:
    return None if hardware.build.mkldnn else "this build of torch has no oneDNN"


def _precision_why_not(hardware: Hardware, value: str) -> str | None:
    if value == "bf16" and not hardware.cpu.bf16:
        return f"{hardware.cpu.name} has no native bf16"
    if value == "tf32" and not hardware.cpu.amx_fp16:
        return f"{hardware.cpu.name} has no AMX-FP16, in which oneDNN computes TF32"
    return _not_built(hardware, value)


mkldnn_precision = Setting(
    help="What float32 convolutions and recurrent nets on oneDNN may round to: torch.backends.mkldnn.conv and .rnn.",
    values=choice("ieee", "tf32", "bf16"),
    cells=(MKLDNN,) if MKLDNN else (),
    edits=lambda value, hardware: ((MKLDNN, always(Mkldnn(value, value))),) if MKLDNN else (),
    show=shown_mkldnn,
    why_not=_precision_why_not,
    missing=None if MKLDNN else "it needs torch 2.9",
)

mkldnn_enabled = simple(
    cell("_get_mkldnn_enabled", "_set_mkldnn_enabled"),
    help="Whether oneDNN is used at all: torch.backends.mkldnn.enabled.",
    why_not=_not_built,
)

mkldnn_deterministic = simple(
    cell("_get_mkldnn_deterministic", "_set_mkldnn_deterministic"),
    help="Only kernels of oneDNN that give the same bits twice: torch.backends.mkldnn.deterministic.",
    why_not=_not_built,
)
