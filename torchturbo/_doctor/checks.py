"""What `torchturbo doctor` looks at beyond a report's own advice. A function is a check: what is so, and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torchturbo._doctor.surroundings import Surroundings
from torchturbo._plan import decide
from torchturbo._report.data import Report
from torchturbo._report.findings import Checks
from torchturbo._report.words import gib
from torchturbo._sources import PREFIX
from torchturbo.hardware import Reason
from torchturbo.hardware._base import About
from torchturbo.profiles import PROFILES


@dataclass(frozen=True, slots=True)
class Here:
    """All that a check may look at.

    Attributes:
        report: how torch stands, and the machine.
        around: what is around the process.
    """

    report: Report
    around: Surroundings

    def reasons(self, about: About) -> Iterator[str]:
        """What the machine says is absent, and is about this."""
        for reason in self.report.hardware.reasons:
            if isinstance(reason, Reason) and reason.about == about:
                yield str(reason)

    @property
    def cores(self) -> int:
        """The cores that this process can keep busy."""
        cores = self.report.hardware.cpu.cores
        return cores if self.around.quota is None else max(1, min(cores, math.ceil(self.around.quota)))


CHECKS: Checks[Here] = Checks()
"""Every check that needs more than a report."""

# ------------------------------------------------------------------------------------------- torch and its driver

_DRIVERS = {"11": "450.80", "12": "525.60", "13": "580.65"}
"""The oldest driver for Linux that runs each major version of CUDA, as NVIDIA's release notes have it."""


@CHECKS.problem
def cpu_only_torch(here: Here) -> Iterator[tuple[str, str]]:
    """A GPU, and a torch without CUDA."""
    for reason in here.reasons("cpu-only torch"):
        yield (
            reason,
            "`pip uninstall torch`, then the line that https://pytorch.org/get-started/locally/ gives for CUDA.",
        )


@CHECKS.problem
def driver_is_too_old(here: Here) -> Iterator[tuple[str, str]]:
    """A driver that cannot run the CUDA that torch is built for."""
    major = str(here.report.versions.cuda).partition(".")[0]
    needed = f" (CUDA {major} needs {_DRIVERS[major]} or newer on Linux)" if major in _DRIVERS else ""
    for reason in here.reasons("old driver"):
        yield (
            reason,
            f"Update NVIDIA's driver{needed}, or install a torch for an older CUDA: "
            "https://pytorch.org/get-started/previous-versions/ has them.",
        )


@CHECKS.problem
def driver_does_not_answer(here: Here) -> Iterator[tuple[str, str]]:
    """A GPU on the bus, and no driver that answers."""
    boards = here.around.boards
    for reason in here.reasons("no driver") if boards else ():
        yield (
            f"{_some(boards, 'NVIDIA GPU')} on the PCI bus, and no driver: {reason}",
            "In a container start it with `docker run --gpus all ...`; else install NVIDIA's driver, and `nvidia-smi` "
            "says whether it answers.",
        )


@CHECKS.problem
def nvml_has_no_package(here: Here) -> Iterator[tuple[str, str]]:
    """The Python package through which the driver is asked is missing."""
    for reason in here.reasons("no pynvml"):
        yield reason, "`pip install nvidia-ml-py`"


@CHECKS.problem
def nvml_is_the_wrong_package(here: Here) -> Iterator[tuple[str, str]]:
    """The distribution `pynvml`, which overwrites NVIDIA's own module of that name, or does nothing."""
    wrong = here.around.installed.get("pynvml")
    if wrong is not None:
        does = (
            "writes over the module of nvidia-ml-py, and is no longer kept up"
            if wrong.partition(".")[0] in ("7", "8", "11")
            else "is not the one that is needed, and torch warns of it"
        )
        yield (
            f"The distribution pynvml {wrong} is installed: it {does}.",
            "`pip uninstall -y pynvml && pip install --force-reinstall nvidia-ml-py`",
        )


@CHECKS.problem
def gpu_is_lost(here: Here) -> Iterator[tuple[str, str]]:
    """A GPU that the driver counts and cannot open."""
    for reason in here.reasons("lost GPU"):
        yield (
            reason,
            "`sudo dmesg | grep -i xid` says why; `sudo nvidia-smi --gpu-reset` or a restart brings it back.",
        )


# ------------------------------------------------------------------------------------------------- which GPUs, and whose


@CHECKS.problem
def gpus_are_hidden(here: Here) -> Iterator[tuple[str, str]]:
    """GPUs that CUDA_VISIBLE_DEVICES keeps from this process, all of them."""
    for reason in here.reasons("hidden GPUs"):
        yield reason, "`unset CUDA_VISIBLE_DEVICES`, or name one that is there, as CUDA_VISIBLE_DEVICES=0."


@CHECKS.problem
def gpu_has_no_slice(here: Here) -> Iterator[tuple[str, str]]:
    """A GPU in MIG mode that nobody has cut into slices."""
    for reason in here.reasons("no slice"):
        yield (
            reason,
            "`nvidia-smi mig -lgip` lists the sizes, `sudo nvidia-smi mig -cgi ID -C` makes a slice; "
            "`sudo nvidia-smi -mig 0` ends the mode.",
        )


_BUSY = 50


@CHECKS.problem
def gpu_is_in_use(here: Here) -> Iterator[tuple[str, str]]:
    """A GPU whose memory or time others take, before this process has used any."""
    if here.around.cuda_started:
        return
    memory = {gpu.index: gpu.memory for gpu in here.report.hardware.gpus}
    for reading in here.report.readings:
        used, total = reading.memory_used or 0, memory.get(reading.index)
        parts = []
        if total is not None and used > max(1024**3, total / 10):
            parts.append(f"{gib(used)} of {gib(total)} are taken")
        if (reading.utilization or 0) >= _BUSY:
            parts.append(f"it is {reading.utilization} % busy")
        if parts:
            yield (
                f"Other processes use GPU {reading.index}: {', and '.join(parts)}.",
                "`nvidia-smi` lists them: end those that are yours, or name a free GPU, as CUDA_VISIBLE_DEVICES=1.",
            )


@CHECKS.advice
def gpu_has_fixed_clocks(here: Here) -> Iterator[tuple[str, str]]:
    """A GPU whose clocks somebody has set to a fixed value."""
    for reading in here.report.readings:
        if any(reason.startswith("application clocks") for reason in reading.throttle or ()):
            at = "" if reading.clock is None else f" ({reading.clock} of {reading.max_clock or 'unknown'} MHz now)"
            yield (
                f"Somebody has set the clocks of GPU {reading.index} to a fixed value{at}.",
                "`sudo nvidia-smi --reset-applications-clocks` lets it choose them.",
            )


# -------------------------------------------------------------------------------------------------------- compiling


@CHECKS.problem
def no_compiler_for_compile(here: Here) -> Iterator[tuple[str, str]]:
    """What torch.compile calls is missing: a C++ compiler on a CPU, Triton and a C compiler on a GPU."""
    around, machine = here.around, here.report.hardware
    if machine.device_type == "cpu" and not around.has_cxx:
        chosen = " (CXX)" if "CXX" in around.environ else ""
        yield (
            f"There is no C++ compiler {around.cxx!r}{chosen}, so torch.compile fails on the CPU.",
            "`sudo apt install g++`, `conda install gxx`, or CXX=/path/to/one.",
        )
    if machine.device_type == "cuda":
        if not {"triton", "pytorch-triton", "triton-windows"} & set(around.installed):
            yield "Triton is not installed, so torch.compile fails on the GPU.", "`pip install triton`"
        if not around.has_cc:
            yield (
                "There is no C compiler, which Triton needs, so torch.compile fails on the GPU.",
                "`sudo apt install gcc`, `conda install gcc`, or CC=/path/to/one.",
            )
    if machine.device_type != "mps" and not around.has_headers:
        yield (
            f"Python's headers (Python.h of {here.report.versions.python}) are not here, so torch.compile fails.",
            "`sudo apt install python3-dev`, or the package of that name for this Python.",
        )


# ----------------------------------------------------------------------------------------------------- the processor


@CHECKS.problem
def threads_lie_idle(here: Here) -> Iterator[tuple[str, str]]:
    """Far fewer threads for one operation than there are cores."""
    threads = here.report["num_threads"].now
    ranks = here.around.environ.get("LOCAL_WORLD_SIZE", "1")
    cores = here.cores // max(1, int(ranks) if ranks.isdecimal() else 1)
    # torch begins with a thread for each whole core, and two cores as we count them may be halves of one.
    if isinstance(threads, int) and 2 * threads < cores:
        names = [name for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in here.around.environ]
        why = f" ({', '.join(f'{name}={here.around.environ[name]}' for name in names)})" if names else ""
        unset = f"`unset {' '.join(names)}`, or " if names else ""
        yield (
            f"One operation on the CPU uses {_some(threads, 'thread')} of {cores} cores{why}.",
            f"{unset}`export {PREFIX}NUM_THREADS={cores}` for blocks of torchturbo.",
        )


@CHECKS.problem
def threads_exceed_the_quota(here: Here) -> Iterator[tuple[str, str]]:
    """More threads than the container's share of the processor can run."""
    threads, cores = here.report["num_threads"].now, here.cores
    if isinstance(threads, int) and cores < threads <= here.report.hardware.cpu.cores:
        yield (
            f"One operation on the CPU uses {threads} threads, and this container may keep {here.around.quota:g} cores "
            "busy: it is stopped again and again until its share comes round.",
            f"`export OMP_NUM_THREADS={cores}`, or `turbo(num_threads={cores})`.",
        )


_ROOM = 512 * 1024**2


@CHECKS.problem
def little_shared_memory(here: Here) -> Iterator[tuple[str, str]]:
    """Too little room in /dev/shm for what loader workers send."""
    free = here.around.shared_memory
    if free is not None and free < _ROOM:
        yield (
            f"/dev/shm has {free / 1024**2:.0f} MiB left. Loader workers send their batches through it, and die of a "
            "'bus error' when it is full.",
            "`docker run --shm-size=8g ...`; outside a container `sudo mount -o remount,size=8g /dev/shm`.",
        )


@CHECKS.advice
def loaders_have_no_workers(here: Here) -> Iterator[tuple[str, str]]:
    """Cores for loader workers, of which a DataLoader has none unless it is told."""
    workers = min(8, here.cores // max(1, len(here.report.hardware.gpus)) - 1)
    if workers > 0:
        yield (
            f"A DataLoader has no workers unless it is told: training waits for each batch, beside {here.cores} cores.",
            f"Try `DataLoader(..., num_workers={workers})`, and time a step with and without.",
        )


# --------------------------------------------------------------------------------------------- asked of torchturbo


@CHECKS.problem
def what_is_asked_is_refused(here: Here) -> Iterator[tuple[str, str]]:
    """Variables and files of torchturbo's that name what does not exist, or a value that cannot be."""
    for mistake in here.around.mistakes:
        says = mistake.says.rstrip(".") + ("" if mistake.says.endswith("?") else ".")
        if mistake.variable is None:
            yield says, "Mend that line: until then every block and everything accelerated raises this."
        else:
            yield says, f"`unset {mistake.variable}`, or mend it: `torchturbo settings` lists what there is."


@CHECKS.problem
def switched_off(here: Here) -> Iterator[tuple[str, str]]:
    """Somebody has switched torchturbo off in this environment."""
    off = here.around.sources.disabled
    if off is not None:
        yield f"{off}: blocks and what is accelerated change nothing.", f"`unset {off.partition('=')[0]}`"


@CHECKS.advice
def asked_twice(here: Here) -> Iterator[tuple[str, str]]:
    """An option of the file that a variable overrules with another value."""
    sources = here.around.sources
    for name, (value, place) in sources.file.items():
        if name in sources.environment and sources.environment[name].value != value:
            beats = sources.environment[name]
            yield (
                f"{beats.origin} ({name}={beats.value!r}) beats {place} ({name}={value!r}).",
                f"`unset {beats.origin}` for what the file says.",
            )


@CHECKS.advice
def asked_in_vain(here: Here) -> Iterator[tuple[str, str]]:
    """What a file or a variable asks for, and this machine does not have."""
    plan = decide(PROFILES["fast"], {}, here.report.hardware, here.around.sources)
    for decision in plan.refused:
        if not decision.origin.startswith("profile "):
            yield (
                f"{decision.origin} asks for {decision.name}={decision.asked!r}, "
                f"which is left out here: {decision.refused}.",
                "Nothing has to be done: it acts where a machine has it.",
            )


@CHECKS.problem
def deterministic_without_a_workspace(here: Here) -> Iterator[tuple[str, str]]:
    """`deterministic` on a GPU without the variable on which cuBLAS's bits depend."""
    plan = decide(PROFILES["fast"], {}, here.report.hardware, here.around.sources)
    wanted = {decision.name: decision for decision in plan.decisions}
    deterministic = wanted.get("deterministic")
    asked = deterministic is not None and deterministic.value is not False
    set_already = "cublas_workspace" in wanted or "CUBLAS_WORKSPACE_CONFIG" in here.around.environ
    if here.report.hardware.gpus and (asked or here.report["deterministic"].now is not False) and not set_already:
        by = f"{deterministic.origin} asks for deterministic" if asked and deterministic else "deterministic is on"
        yield (
            f"{by}, and CUBLAS_WORKSPACE_CONFIG is not set, on which equal bits of cuBLAS depend.",
            "`export CUBLAS_WORKSPACE_CONFIG=:4096:8` before Python starts.",
        )


def _some(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
