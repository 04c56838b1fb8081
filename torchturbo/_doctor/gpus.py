"""Checks of GPUs: torch and the driver, which GPUs there are for this process, and who else uses them."""

from __future__ import annotations

from collections.abc import Iterator

from torchturbo._doctor.here import CHECKS, Here
from torchturbo._words import size, some

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
            f"{some(boards, 'NVIDIA GPU')} on the PCI bus, and no driver: {reason}",
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


# ----------------------------------------------------------------------------------------- which GPUs, and whose


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
            parts.append(f"{size(used)} of {size(total)} are taken")
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
