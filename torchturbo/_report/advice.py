"""Advice in plain words: each piece a check of the report's facts, which finds nothing where it does not apply.

`torchturbo doctor` looks at these too, and at more than a report knows.
"""

from __future__ import annotations

from collections.abc import Iterator

from torchturbo._report.data import Block, Report, Row
from torchturbo._report.findings import Checks
from torchturbo._words import some
from torchturbo.settings._base import TORCH

CHECKS: Checks[Report] = Checks()
"""Every piece of advice."""


def advise(report: Report) -> tuple[str, ...]:
    """All there is to advise, in the order of this file.

    Args:
        report: the facts; its own advice is not looked at.
    """
    return tuple(finding.sentence for finding in CHECKS.found(report))


def _device(report: Report) -> str:
    """What work runs on here."""
    return report.hardware.name


# ------------------------------------------------------------------------------------- what would act, unused


@CHECKS.advice
def bf16_is_unused(report: Report) -> Iterator[tuple[str, str]]:
    """Native bf16, no block open and no autocast on."""
    if not report.blocks and report.hardware.has_bf16 and report["autocast"].now is None:
        yield (
            f"bf16 autocast would act here ({_device(report)}), and nothing uses it.",
            'Put the loop in `with turbo("fast"):`.',
        )


@CHECKS.advice
def tf32_is_unused(report: Report) -> Iterator[tuple[str, str]]:
    """TF32 in the GPU, no block open, and matrix products that keep from it."""
    forbidden = any(v.name == "NVIDIA_TF32_OVERRIDE" and v.value == "0" for v in report.environment)
    available = report.hardware.has_tf32 and not forbidden
    if not report.blocks and available and report["matmul_precision"].now == "highest":
        yield (
            "TF32 is here and float32 matrix products do not use it (matmul_precision is highest).",
            'Write `with turbo("fast"):`, or `with turbo("exact", tf32=True):` for TF32 alone.',
        )


# ------------------------------------------------------------------------------------------ asked for in vain


@CHECKS.problem
def block_does_nothing(report: Report) -> Iterator[tuple[str, str]]:
    """A block of which this machine can do nothing at all."""
    for block in report.blocks:
        if block.wanted and len(block.left_out) == block.wanted:
            yield (
                f"{_called(block)} changes nothing on this machine: every setting that it asks for is left "
                "out, for the reasons in the table.",
                "",
            )


@CHECKS.problem
def torchturbo_is_off(report: Report) -> Iterator[tuple[str, str]]:
    """Somebody has switched it off for the whole process."""
    for off in dict.fromkeys(block.disabled for block in report.blocks if block.disabled is not None):
        yield (
            f"{off} switches torchturbo off: no block and nothing accelerated changes anything in this process.",
            "",
        )


def _called(block: Block) -> str:
    return f"The block {block.profile!r} at {block.where}"


@CHECKS.problem
def environment_overrules(report: Report) -> Iterator[tuple[str, str]]:
    """Variables that do other than what is asked or expected."""
    for variable in report.environment:
        if variable.contradiction is not None:
            says_how = "unset it" in variable.contradiction or ": set " in variable.contradiction
            fix = "" if says_how else f"`unset {variable.name}`, unless that is what is meant."
            yield f"{variable.name}={variable.value}: {variable.contradiction}.", fix


@CHECKS.advice
def block_was_left(report: Report) -> Iterator[tuple[str, str]]:
    """A block that was asked about after it was left."""
    if report.about is not None and not report.about.open:
        yield f"{_called(report.about)} has been left: this is what is in force without it.", ""


# ---------------------------------------------------------------------------------------- at odds with itself


@CHECKS.problem
def getters_raise(report: Report) -> Iterator[tuple[str, str]]:
    """Older and newer float32 precision settings that contradict each other."""
    for contradiction in report.contradictions:
        getters = " and ".join(contradiction.getters)
        row = report[contradiction.option]
        if row.held:
            # torch 2.13 cannot do it without: writing what these getters would accept could not be undone.
            yield (
                f"{getters} cannot answer inside this block, which keeps what torch could not put back.",
                f"Ask torchturbo.report()[{row.name!r}].now, or the fp32_precision attributes.",
            )
        else:
            yield (
                f"{getters} cannot answer, because older and newer precision settings were mixed.",
                f"Write `{contradiction.instead}`, and both say the same.",
            )


@CHECKS.problem
def more_threads_than_cores(report: Report) -> Iterator[tuple[str, str]]:
    """More threads for one operation than this process has cores."""
    threads, cores = report["num_threads"].now, report.hardware.cpu.cores
    if isinstance(threads, int) and threads > cores:
        yield (
            f"One operation on the CPU uses {threads} threads, and this process may run on "
            f"{some(cores, 'core')}: they wait for each other.",
            f"Set num_threads={cores}.",
        )


@CHECKS.problem
def benchmark_is_not_deterministic(report: Report) -> Iterator[tuple[str, str]]:
    """Kernels chosen by timing them, where the same bits are asked for."""
    deterministic, benchmark = report["deterministic"], report["cudnn_benchmark"]
    if deterministic.now in (True, "warn") and benchmark.now is True and report.hardware.gpus:
        yield (
            "deterministic is on and cudnn_benchmark too: the fastest kernel need not be the same one in the "
            "next run, and then neither are the bits.",
            "Set cudnn_benchmark=False.",
        )


@CHECKS.advice
def compiled_kernels_and_determinism(report: Report) -> Iterator[tuple[str, str]]:
    """Compilation where the same bits are asked for: who chooses kernels, and by what."""
    if report["deterministic"].now in (True, "warn") and report["compile"].now not in (False, None):
        if TORCH >= (2, 10):
            yield (
                "deterministic is on, so inductor chooses no kernel by timing it: torch sets torch._inductor.config."
                "deterministic from it at each compilation.",
                "",
            )
        elif report.hardware.gpus:
            yield (
                "deterministic is on and compile too: before torch 2.10 inductor chooses how to sum by timing, so the "
                "next process may have other bits.",
                "Set compile=False, or compile={'backend': 'aot_eager'}.",
            )


UNGUARDED = (
    *("cudnn_enabled", "cudnn_benchmark", "cudnn_benchmark_limit", "cudnn_deterministic", "cudnn_precision"),
    *("mkldnn_enabled", "mkldnn_deterministic", "mkldnn_precision"),
    *("flash_sdp", "mem_efficient_sdp", "cudnn_sdp", "math_sdp"),
    *("blas_library", "linalg_library", "fp16_accumulation"),
)
"""What torch.compile does not look at again once it has compiled something."""


@CHECKS.advice
def compiled_code_keeps_what_it_found(report: Report) -> Iterator[tuple[str, str]]:
    """Compiled code, and a block that changes what such code does not look at again."""
    changed = [name for name in UNGUARDED if report[name].held and report[name].now != report[name].before]
    if report.compiled and changed:
        yield (
            f"Code that was compiled outside of this block can go on with what it found there, and the other way "
            f"around: torch.compile does not look again at {', '.join(changed)}.",
            "Keep them the same wherever one model runs.",
        )


# ------------------------------------------------------------------------------------------- left by somebody


def _left_by_somebody(row: Row, value: object) -> bool:
    return row.now == value and not row.wanted


@CHECKS.problem
def anomaly_is_slow(report: Report) -> Iterator[tuple[str, str]]:
    """Anomaly detection that no block of ours has asked for."""
    if _left_by_somebody(report["anomaly"], True):
        yield (
            "Anomaly detection is on, and not by torchturbo: every backward is several times slower.",
            "torch.autograd.set_detect_anomaly(False) ends it.",
        )


@CHECKS.problem
def cudnn_is_off(report: Report) -> Iterator[tuple[str, str]]:
    """A machine with GPUs on which somebody has switched cuDNN off."""
    if report.hardware.gpus and _left_by_somebody(report["cudnn_enabled"], False):
        yield (
            "cuDNN is switched off, and not by torchturbo: convolutions run without it. "
            "torch.backends.cudnn.flags() does that inside its block where it is not given enabled=True.",
            "torch.backends.cudnn.enabled = True ends it.",
        )


@CHECKS.problem
def gpu_is_held_down(report: Report) -> Iterator[tuple[str, str]]:
    """A GPU that is too hot or short of power: times taken now say little."""
    for reading in report.readings:
        reasons = [reason for reason in reading.throttle or () if reason.startswith(_HELD_DOWN)]
        if reasons:
            why = "; ".join(reasons)
            yield (
                f"GPU {reading.index} is slower than it could be, so times taken now say little ({why}).",
                "See to its cooling and its power: `nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER`.",
            )


_HELD_DOWN = ("hardware slowdown", "heat", "power brake")
"""How NVML's reasons begin that are a fault of the machine; idling, or running at the power limit, is none."""
