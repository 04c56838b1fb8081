"""float32 precision: TF32 and its like for matrix products, and for everything at once."""

from __future__ import annotations

from torchturbo.hardware import Hardware
from torchturbo.settings._base import BOOL, Group, Setting, Write, choice
from torchturbo.settings._matmul import MATMUL, matmul, shown_matmul


def _why_not(hardware: Hardware, value: str) -> str | None:
    if value == "highest" or hardware.has_tf32 or (value == "medium" and hardware.cpu.bf16):
        return None
    if not hardware.gpus:
        return "TF32 is a format of NVIDIA GPUs, and there is none here"
    return f"TF32 needs compute capability 8.0, and {hardware.gpus[0].name} does not have it"


def _edits(value: str, hardware: Hardware) -> tuple[Write, ...]:
    return ((MATMUL, matmul(value)),)


matmul_precision = Setting(
    help="What float32 matrix products may round to: torch.set_float32_matmul_precision.",
    values=choice("highest", "high", "medium"),
    cells=(MATMUL,),
    edits=_edits,
    show=shown_matmul,
    why_not=_why_not,
)

tf32 = Group(
    help="TF32 for matrix products, convolutions and recurrent nets at once.",
    values=BOOL,
    members=lambda on: {
        "matmul_precision": "high" if on else "highest",
        "cudnn_precision": "tf32" if on else "ieee",
    },
)
