"""Machines to pretend, so that code meets hardware that is not here."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import MappingProxyType

import torch

from torchturbo.errors import OptionValueError, near
from torchturbo.hardware import Build, Cpu, Gpu, Hardware, Mps, Xpu, _pretending

__all__ = ["MACHINES", "pretend_hardware"]

_MIB = 1024**2
_TORCH = str(torch.__version__).partition("+")[0]


def _cpu(name: str, cores: int, capability: str, *has: str) -> Cpu:
    flags = {flag: flag in has for flag in ("avx512", "bf16", "fp16", "amx")}
    return Cpu(name=name, cores=cores, capability=capability, **flags)


def _build(platform: str, cuda: str | None = None, cudnn: int | None = None) -> Build:
    return Build(
        torch=_TORCH,
        cuda=cuda,
        hip=None,
        cudnn=cudnn,
        magma=bool(torch.cuda.has_magma),  # what this build lacks, nobody can put in force
        mkldnn=platform.endswith("x86_64"),
        python="3.11.9",
        platform=platform,
    )


def _with_gpu(name: str, capability: tuple[int, int], mebibytes: int) -> Hardware:
    # CUDA 12.8 and cuDNN 9.10 already know Blackwell and still know Volta, which their successors dropped.
    return Hardware(
        build=_build("Linux 6.8.0 x86_64", cuda="12.8", cudnn=91002),
        cpu=_cpu("AMD EPYC 7763 64-Core Processor", 16, "AVX2"),
        gpus=(Gpu(0, name, capability, mebibytes * _MIB, "570.86.15"),),
        mps=None,
        reasons=(),
    )


def _without_gpu(platform: str, cpu: Cpu, mps: Mps | None = None) -> Hardware:
    unproven = () if mps is None else ("torchturbo is unproven on Apple GPUs.",)
    return Hardware(_build(platform), cpu, (), mps, (f"This torch build ({_TORCH}) has no CUDA.", *unproven))


def _with_xpu(name: str, mebibytes: int, driver: str, cpu: Cpu) -> Hardware:
    without = (f"This torch build ({_TORCH}) has no CUDA.", "torchturbo is unproven on Intel GPUs.")
    xpu = Xpu(0, name, mebibytes * _MIB, bf16=True, fp16=True, xmx=True, driver=driver)
    return Hardware(_build("Linux 6.8.0 x86_64"), cpu, (), None, without, (xpu,))


# Memory is what the driver reports, which is a little less than the name promises.
MACHINES = MappingProxyType(
    {
        "V100": _with_gpu("Tesla V100-SXM2-16GB", (7, 0), 16384),
        "T4": _with_gpu("Tesla T4", (7, 5), 15360),
        "RTX 3090": _with_gpu("NVIDIA GeForce RTX 3090", (8, 6), 24576),
        "RTX 4090": _with_gpu("NVIDIA GeForce RTX 4090", (8, 9), 24564),
        "A100": _with_gpu("NVIDIA A100-SXM4-80GB", (8, 0), 81920),
        "H100": _with_gpu("NVIDIA H100 80GB HBM3", (9, 0), 81559),
        "H200": _with_gpu("NVIDIA H200", (9, 0), 143771),
        "B200": _with_gpu("NVIDIA B200", (10, 0), 183359),
        "cpu-bf16": _without_gpu(
            "Linux 6.8.0 x86_64",
            _cpu("AMD EPYC 9654 96-Core Processor", 16, "AVX512", "avx512", "bf16"),
        ),
        "cpu": _without_gpu("Linux 6.8.0 x86_64", _cpu("AMD EPYC 7763 64-Core Processor", 16, "AVX2")),
        "B580": _with_xpu(
            "Intel(R) Arc(TM) B580 Graphics",
            11605,
            "1.6.33578",
            _cpu("Intel(R) Core(TM) Ultra 7 265K", 20, "AVX2"),
        ),
        "Max 1550": _with_xpu(
            "Intel(R) Data Center GPU Max 1550",
            65536,
            "1.6.33578",
            _cpu("Intel(R) Xeon(R) Platinum 8480+", 56, "AVX512", "avx512", "bf16", "fp16", "amx"),
        ),
        "apple": _without_gpu(
            "Darwin 24.6.0 arm64",
            _cpu("Apple M1 Max", 10, "DEFAULT", "fp16"),
            Mps("Apple M1 Max", 32 * 1024 * _MIB),
        ),
    }
)
"""Machines to pretend, by name, with the facts that they report of themselves."""


def pretend_hardware(machine: str | Hardware) -> AbstractContextManager[Hardware]:
    """Makes `torchturbo.hardware.detect` answer with another machine while the block runs, in every thread.

    Only the facts are pretended: torch itself runs where it runs. Blocks nest, and may close in any order:
    the newest one still open is in force, and when all are closed the real machine is back.

        >>> from torchturbo.hardware import detect
        >>> from torchturbo.testing import pretend_hardware
        >>> with pretend_hardware("T4") as machine:
        ...     assert detect() is machine
        ...     machine.has_fp16_tensor_cores, machine.has_bf16
        (True, False)

    Args:
        machine: a name in `MACHINES`, or any `Hardware`, such as one of these with a part replaced
            (``dataclasses.replace(MACHINES["T4"], gpus=())``).

    Raises:
        OptionValueError: no machine has this name.
    """
    if isinstance(machine, Hardware):
        return _pretending(machine)
    if machine not in MACHINES:
        raise OptionValueError(f"There is no pretend machine {machine!r}: {near(machine, MACHINES)}")
    return _pretending(MACHINES[machine])
