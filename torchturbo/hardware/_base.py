"""What a machine is, as plain frozen data: facts about it, and no opinion on what to set."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

About = Literal["cpu-only torch", "old driver", "no driver", "no pynvml", "lost GPU", "hidden GPUs", "no slice"]

# The one case where the capability does not tell: the small Turing chips (TU116, TU117) report 7.5 like
# their larger brothers, but have plain fp16 units where those have tensor cores.
_TURING_WITHOUT_TENSOR_CORES = re.compile(
    r"\bGTX 16\d\d\b|\bMX[45]50\b|\bT(?:400|500|550|600|1000|1200|2000)\b|\b30HX\b"
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU that torch calls ``cuda:<index>``.

    Attributes:
        index: torch's index, after ``CUDA_VISIBLE_DEVICES``.
        name: as the driver gives it, such as ``"NVIDIA A100-SXM4-80GB"``.
        capability: CUDA compute capability (major, minor); None if it could not be asked, or on ROCm, where
            the numbers that torch gives mean something else.
        memory: total memory in bytes; None if it could not be asked.
        driver: version of the driver, such as ``"570.86.15"``; None if it could not be asked.
    """

    index: int
    name: str
    capability: tuple[int, int] | None
    memory: int | None
    driver: str | None

    def _at_least(self, major: int, minor: int) -> bool:
        return self.capability is not None and self.capability >= (major, minor)

    @property
    def has_tf32(self) -> bool:
        """Multiplies float32 matrices as TF32 in tensor cores (capability 8.0, Ampere)."""
        return self._at_least(8, 0)

    @property
    def has_bf16(self) -> bool:
        """Computes in bfloat16 natively (capability 8.0, Ampere); older ones emulate it, slowly."""
        return self._at_least(8, 0)

    @property
    def has_fp16_tensor_cores(self) -> bool:
        """Multiplies float16 matrices in tensor cores (capability 7.0, Volta; not the GTX 16 series)."""
        if self.capability == (7, 5) and _TURING_WITHOUT_TENSOR_CORES.search(self.name):
            return False
        return self._at_least(7, 0)

    @property
    def has_fp8(self) -> bool:
        """Multiplies float8 matrices in tensor cores (capability 8.9, Ada and Hopper)."""
        return self._at_least(8, 9)


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor.

    Attributes:
        name: its model, such as ``"AMD EPYC 9654 96-Core Processor"``, else its architecture.
        cores: logical cores that this process may run on.
        capability: the vector instructions that torch's own kernels use, in torch's word (``"AVX512"``,
            ``"AVX2"``, ``"DEFAULT"``...). ``ATEN_CPU_CAPABILITY`` can lower it below what the processor has.
        avx512: the processor has AVX-512.
        bf16: it computes in bfloat16 (AVX-512 BF16, AMX BF16 or Arm BF16), and does not emulate it.
        fp16: it computes in float16 (AVX-512 FP16, AMX FP16 or Arm FP16), and does not only convert it.
        amx: it has Intel's matrix tiles (AMX).
        amx_fp16: these tiles multiply float16 too, which is what oneDNN needs for TF32 on a CPU.
    """

    name: str
    cores: int
    capability: str
    avx512: bool
    bf16: bool
    fp16: bool
    amx: bool
    amx_fp16: bool = False


@dataclass(frozen=True, slots=True)
class Xpu:
    """One Intel GPU that torch calls ``xpu:<index>``. What only a started XPU tells is None before.

    Attributes:
        index: torch's index, after ``ZE_AFFINITY_MASK``.
        name: as the driver gives it, such as ``"Intel(R) Arc(TM) B580 Graphics"``.
        memory: total memory in bytes.
        bf16: it computes in bfloat16, and does not emulate it.
        fp16: it computes in float16.
        xmx: it multiplies matrices in units of their own (XMX).
        driver: version of the driver.
    """

    index: int
    name: str
    memory: int | None = None
    bf16: bool | None = None
    fp16: bool | None = None
    xmx: bool | None = None
    driver: str | None = None


@dataclass(frozen=True, slots=True)
class Mps:
    """The GPU of an Apple machine, which torch calls ``mps``.

    Attributes:
        name: as Metal gives it, such as ``"Apple M1 Max"``.
        memory: the machine's memory in bytes, which the GPU shares with the CPU; None if it is not told.
    """

    name: str
    memory: int | None


@dataclass(frozen=True, slots=True)
class Build:
    """Which torch runs on which Python and system.

    Attributes:
        torch: torch's version, such as ``"2.13.0+cpu"``.
        cuda: version of CUDA that torch was built for; None for a build without CUDA.
        hip: version of ROCm's HIP that torch was built for; None for any other build.
        cudnn: version of cuDNN as one number, such as ``91002``; None if this build has none.
        magma: this build has MAGMA, a library of linear algebra on GPUs.
        mkldnn: this build has oneDNN, the library behind fast convolutions and products on a CPU.
        python: version of Python.
        platform: system, its release and machine, such as ``"Linux 6.8.0 x86_64"``.
    """

    torch: str
    cuda: str | None
    hip: str | None
    cudnn: int | None
    magma: bool
    mkldnn: bool
    python: str
    platform: str


class Reason(str):
    """A sentence that says why something is absent, which can also be asked for its subject.

    Args:
        sentence: what is said.
        about: the subject, in a word that is for programs.
    """

    __slots__ = ("about",)
    about: About

    def __new__(cls, sentence: str, about: About) -> Reason:
        """The sentence, with its subject."""
        made = super().__new__(cls, sentence)
        made.about = about
        return made

    def __getnewargs__(self) -> tuple[str, About]:  # type: ignore[override] # what __new__ takes
        return str(self), self.about


@dataclass(frozen=True, slots=True)
class Hardware:
    """All that is known of this machine, as torch can use it.

    Attributes:
        build: torch, Python and system.
        cpu: the processor.
        gpus: the GPUs that torch can use, in torch's order.
        mps: Apple's GPU, if torch can use it.
        reasons: sentences that say why something is absent, or could not be asked.
        xpus: Intel's GPUs that torch can use, in torch's order.
    """

    build: Build
    cpu: Cpu
    gpus: tuple[Gpu, ...]
    mps: Mps | None
    reasons: tuple[str, ...]
    xpus: tuple[Xpu, ...] = ()

    @property
    def device_type(self) -> Literal["cuda", "xpu", "mps", "cpu"]:
        """The device that work runs on here, in torch's word."""
        if self.gpus:
            return "cuda"
        if self.xpus:
            return "xpu"
        return "cpu" if self.mps is None else "mps"

    @property
    def names_of_gpus(self) -> tuple[str, ...]:
        """Every GPU that torch can use, whoever made it, by name."""
        apple = () if self.mps is None else (self.mps.name,)
        return (*(gpu.name for gpu in self.gpus), *(xpu.name for xpu in self.xpus), *apple)

    @property
    def name(self) -> str:
        """What work runs on here, by name: the first GPU, or else the CPU."""
        return (*self.names_of_gpus, self.cpu.name)[0]

    @property
    def has_tf32(self) -> bool:
        """Some GPU has TF32; the others are not hurt by its being allowed."""
        return any(gpu.has_tf32 for gpu in self.gpus)

    @property
    def has_bf16(self) -> bool:
        """What work runs on computes in bfloat16 natively: every GPU, or else the CPU.

        On Apple GPUs it is False: Metal has the type, but does not say which chips only emulate it.
        """
        if self.gpus:
            return all(gpu.has_bf16 for gpu in self.gpus)
        if self.xpus:
            return all(xpu.bf16 is True for xpu in self.xpus)
        return self.mps is None and self.cpu.bf16

    @property
    def has_fp16_tensor_cores(self) -> bool:
        """Every GPU, and there is one, multiplies float16 matrices in tensor cores."""
        return bool(self.gpus) and all(gpu.has_fp16_tensor_cores for gpu in self.gpus)

    @property
    def has_fp8(self) -> bool:
        """Every GPU, and there is one, multiplies float8 matrices in tensor cores."""
        return bool(self.gpus) and all(gpu.has_fp8 for gpu in self.gpus)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one GPU does at this moment. Whatever the driver or the card does not tell is None.

    Attributes:
        index: torch's index of the GPU.
        utilization: percent of the last moments (up to a second) in which some kernel ran.
        memory_used: bytes in use, by every process together.
        power: watts that the whole board draws.
        temperature: of the chip, in degrees Celsius.
        clock: of the multiprocessors, in MHz.
        max_clock: the highest that this clock can be, in MHz.
        throttle: why the clock is below its highest, in words; empty if nothing holds it down.
    """

    index: int
    utilization: int | None = None
    memory_used: int | None = None
    power: float | None = None
    temperature: int | None = None
    clock: int | None = None
    max_clock: int | None = None
    throttle: tuple[str, ...] | None = None
