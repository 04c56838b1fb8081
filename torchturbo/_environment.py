"""Environment variables that overrule torch, or are believed to: what each does, when, and what it belies.

Read here, never written. What torch itself parses was read off its sources; what belongs to NVIDIA's libraries
or to OpenMP is said as their documentation says it, and nothing is claimed about values that it does not name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torchturbo.hardware import Hardware


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a variable is held against.

    Attributes:
        environ: the environment as it is.
        now: the value in force of each option.
        before: the same, beneath every block of torchturbo.
        hardware: the machine.
        cuda_started: whether torch has started CUDA in this process.
        torch: torch's version, (major, minor).
    """

    environ: Mapping[str, str]
    now: Mapping[str, object]
    before: Mapping[str, object]
    hardware: Hardware
    cuda_started: bool
    torch: tuple[int, int]


def _nothing(value: str, here: Circumstances) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable.

    Attributes:
        name: as it is spelled.
        does: what it does.
        acts: who looks at it, and when.
        contradicts: from its value and the circumstances to a sentence, where it does other than what the
            program asks or than its user would expect.
    """

    name: str
    does: str
    acts: str
    contradicts: Callable[[str, Circumstances], str | None] = _nothing


@dataclass(frozen=True, slots=True)
class Found:
    """A variable that is set.

    Attributes:
        name: as it is spelled.
        value: what it is set to.
        does: what it does.
        acts: who looks at it, and when.
        contradiction: what it overrules, or why it does nothing, as a sentence; None where neither is so.
    """

    name: str
    value: str
    does: str
    acts: str
    contradiction: str | None


def found(here: Circumstances) -> tuple[Found, ...]:
    """The variables that are set, in the order of `VARIABLES`."""
    return tuple(
        Found(v.name, value, v.does, v.acts, v.contradicts(value, here))
        for v in VARIABLES
        if (value := here.environ.get(v.name)) is not None
    )


# --------------------------------------------------------------------------------------------- contradictions


def _forbids_tf32(value: str, here: Circumstances) -> str | None:
    wanted = [
        f"{name}={here.now[name]}"
        for name, allowed in (("matmul_precision", ("high", "medium")), ("cudnn_precision", ("tf32",)))
        if here.now[name] in allowed
    ]
    if value != "0" or not wanted or not here.hardware.has_tf32:
        return None
    return f"torch allows TF32 ({', '.join(wanted)}), and this forbids it: unset it to have TF32"


def _asks_for_tf32(value: str, here: Circumstances) -> str | None:
    if value != "1":
        return "does nothing: only exactly 1 acts"
    if here.now["matmul_precision"] == "highest":
        return "matmul_precision is highest all the same: set since, or this came after torch was imported"
    return None


def _is_workspace(value: str, here: Circumstances) -> str | None:
    changed = here.now["cublas_workspace"] != here.before["cublas_workspace"]
    if changed and here.cuda_started:
        return (
            "a block has set it, and CUDA runs already: a workspace made before the block stays as it is, so "
            "set it before Python starts"
        )
    # NVIDIA promises equal bits over several streams for these two alone; torch 2.9 refuses all others.
    if not here.hardware.gpus or here.now["deterministic"] is False or value in (":4096:8", ":16:8"):
        return None
    if here.torch < (2, 10):
        return "deterministic is on, and torch 2.9 lets cuBLAS multiply only with :4096:8 or :16:8"
    return "deterministic is on, and cuBLAS promises it over several streams only with :4096:8 or :16:8"


def _disables_compile(value: str, here: Circumstances) -> str | None:
    if value == "1":
        return "torch.compile does nothing in this process: what it is given runs as it is"
    return None if value in ("", "0") else "does nothing: only exactly 1 acts"


def _allocator(value: str, here: Circumstances) -> str | None:
    other = here.environ.get("PYTORCH_CUDA_ALLOC_CONF")
    if other is not None and other != value:
        return "PYTORCH_CUDA_ALLOC_CONF differs, and which of the two wins depends on torch's version: set one"
    # https://github.com/pytorch/pytorch/issues/183387: 2.9 ignores expandable_segments under this name.
    if other is None and here.torch < (2, 10):
        return "torch 2.9 and older do not heed all of it under this name: set PYTORCH_CUDA_ALLOC_CONF"
    return None


def _threads(value: str, here: Circumstances) -> str | None:
    # OpenMP takes a list, one number for each level of nesting; torch has one level.
    asked = value.partition(",")[0].strip()
    used = here.now["num_threads"]
    if not (asked.isascii() and asked.isdecimal()) or int(asked) == 0:
        return "does nothing: it is no number of threads"
    if int(asked) == used:
        return None
    return (
        f"torch uses {used} all the same: num_threads was set since, another variable won, or there are only "
        f"{here.hardware.cpu.cores} cores"
    )


def _omp_threads(value: str, here: Circumstances) -> str | None:
    said = _threads(value, here)
    mkl = here.environ.get("MKL_NUM_THREADS")
    if said is not None and mkl is not None and mkl != value:
        return f"MKL_NUM_THREADS={mkl} wins over it"
    return said


def _waits(value: str, here: Circumstances) -> str | None:
    if value in ("", "0") or not here.hardware.gpus:
        return None
    return "every kernel is waited for, which finds errors and hides speed: unset it before anything is timed"


def _lowers_kernels(value: str, here: Circumstances) -> str | None:
    cpu = here.hardware.cpu
    # In lower case only: torch ignores any other word.
    if value in ("default", "avx2") and cpu.avx512 and cpu.capability != "AVX512":
        return f"torch's own kernels use {cpu.capability}, and this CPU has AVX-512: unset it for speed"
    return None


# -------------------------------------------------------------------------------------------------- variables

_AT_FIRST_PRODUCT = "read when torch makes the workspace of a CUDA stream, at its first product"
_AT_START = "read when torch is imported"

VARIABLES: tuple[Variable, ...] = (
    Variable(
        "NVIDIA_TF32_OVERRIDE",
        "0 forbids TF32 to every NVIDIA library, whatever a program asks; NVIDIA names no other value",
        "read by cuBLAS and cuDNN when they start; torch does not know of it",
        _forbids_tf32,
    ),
    Variable(
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
        "1 starts torch with TF32 allowed for matrix products; what is set later beats it",
        _AT_START,
        _asks_for_tf32,
    ),
    Variable(
        "CUBLAS_WORKSPACE_CONFIG",
        "the workspace of cuBLAS, on which equal bits over several streams depend",
        _AT_FIRST_PRODUCT,
        _is_workspace,
    ),
    Variable(
        "TORCH_COMPILE_DISABLE",
        "1 has torch.compile do nothing",
        "read when torch._dynamo is imported, at the first torch.compile",
        _disables_compile,
    ),
    Variable(
        "TORCHDYNAMO_DISABLE",
        "1 has torch.compile do nothing",
        "read at every torch.compile",
        _disables_compile,
    ),
    Variable(
        "PYTORCH_ALLOC_CONF",
        "how torch's allocator cuts and keeps GPU memory",
        "read at the first allocation",
        _allocator,
    ),
    Variable(
        "PYTORCH_CUDA_ALLOC_CONF",
        "how torch's allocator cuts and keeps GPU memory, by its older name",
        "read at the first allocation on CUDA",
    ),
    Variable(
        "OMP_NUM_THREADS",
        "how many threads one operation on the CPU starts with (num_threads)",
        "read when torch first asks for the number",
        _omp_threads,
    ),
    Variable(
        "MKL_NUM_THREADS",
        "the same, and it wins over OMP_NUM_THREADS where torch is built with MKL",
        "read when torch first asks for the number",
        _threads,
    ),
    Variable(
        "CUDA_LAUNCH_BLOCKING",
        "1 has the CPU wait for every GPU kernel",
        "read when CUDA starts",
        _waits,
    ),
    Variable(
        "PYTORCH_NVML_BASED_CUDA_CHECK",
        "1 has torch.cuda.is_available() ask NVML, which starts no CUDA and leaves forking possible",
        "read at every torch.cuda.is_available()",
    ),
    Variable(
        "CUDA_VISIBLE_DEVICES",
        "which GPUs CUDA shows to this process, and in which order",
        "read when CUDA starts; a change after that does nothing",
    ),
    Variable(
        "CUDA_DEVICE_ORDER",
        "PCI_BUS_ID counts GPUs as the driver does; without it CUDA may count the fastest first",
        "read when CUDA starts",
    ),
    Variable(
        "ATEN_CPU_CAPABILITY",
        "lowers the vector instructions (default, avx2, avx512) that torch's own CPU kernels use",
        "read when the first such kernel runs",
        _lowers_kernels,
    ),
)
"""Every variable there is something to say about, in the order in which the report says it."""
