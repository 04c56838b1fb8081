"""Checks of what torch runs on beside GPUs: compilers, threads, and memory that processes share."""

from __future__ import annotations

from collections.abc import Iterator

from torchturbo._doctor.here import CHECKS, Here
from torchturbo._sources import PREFIX
from torchturbo._words import size, some

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
    names = [name for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in here.around.environ]
    # torch begins with a thread for each whole core, and two cores as we count them may be halves of one.
    if isinstance(threads, int) and (2 * threads < cores or (names and threads == 1 < cores)):
        why = f" ({', '.join(f'{name}={here.around.environ[name]}' for name in names)})" if names else ""
        unset = f"`unset {' '.join(names)}`, or " if names else ""
        yield (
            f"One operation on the CPU uses {some(threads, 'thread')} of {cores} cores{why}.",
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
            f"/dev/shm has {size(free)} left. Loader workers send their batches through it, and die of a "
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
