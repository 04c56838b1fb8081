"""The words of a report, without their layout: what stands in a cell, and lines about the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from torchturbo._catalogue import OPTIONS
from torchturbo._report.data import Block, Report, Row
from torchturbo._words import size, some
from torchturbo.hardware import Cpu, Gpu, Hardware, Mps, Reading, Xpu
from torchturbo.settings._base import Setting


def value(row: Row, its: object) -> str:
    """A value of the row's option, as it stands in the table."""
    return shown(row.name, its)


def shown(name: str, its: object) -> str:
    """A value of the option of that name, as it stands in a table."""
    if its is not None:
        return str(its)
    option = OPTIONS.get(name)
    if option is None:
        return "off"
    if None in option.values.choices:
        return "off"
    return "not set" if isinstance(option, Setting) and option.cells else "-"


def before(row: Row) -> str:
    """What it was before, where that says anything: nothing for what nobody has touched."""
    return value(row, row.before) if row.wanted or row.before != row.now else ""


def acts(row: Row) -> str:
    """Whether the row's value acts here. No, beside somebody who asked for it, means that it was left out."""
    if row.effective:
        return "yes" if row.reason is None else "part"
    return "no"


COLUMNS = ("option", "now", "before", "asked by", "scope", "acts")
"""The columns of the table, in the order of `cells`."""


def cells(row: Row, numbers: Mapping[str, int], *, wide: bool) -> tuple[str, ...]:
    """What stands in the row's cells.

    Args:
        row: the option.
        numbers: those of the footnotes.
        wide: whether there is room to say "profile" before the name of one.
    """
    origin = row.origin if row.wanted else ""
    return (
        row.name,
        value(row, row.now) + _mark(row.note, numbers),
        before(row),
        origin if wide else origin.removeprefix("profile "),
        row.scope or "-",
        acts(row) + _mark(row.reason, numbers),
    )


def _mark(sentence: str | None, numbers: Mapping[str, int]) -> str:
    return "" if sentence is None else f" ({numbers[sentence]})"


def footnotes(report: Report) -> dict[str, int]:
    """Every sentence that a cell of the table points to, with its number, in the order in which they come."""
    sentences = (sentence for row in report.rows for sentence in (row.note, row.reason) if sentence)
    return {sentence: number for number, sentence in enumerate(dict.fromkeys(sentences), start=1)}


def heading(report: Report) -> str:
    """What the report is about."""
    versions = report.versions
    built = {"CUDA": versions.cuda, "ROCm": versions.hip, "cuDNN": versions.cudnn}
    parts = (
        f"torchturbo {versions.torchturbo}",
        f"torch {versions.torch}",
        *(f"{name} {version}" for name, version in built.items() if version is not None),
        f"Python {versions.python}",
        versions.platform,
    )
    return ", ".join(parts)


def block(its: Block) -> str:
    """A block in one line."""
    options = "".join(f", {name}={option!r}" for name, option in its.overrides.items())
    return f"{its.profile}{options} at {its.where} in {its.thread}"


def blocks(report: Report) -> Iterator[str]:
    """The open blocks, oldest first, and which of them is asked about."""
    if not report.blocks:
        yield "No block is open: this is how torch stands by itself."
    for number, its in enumerate(report.blocks, start=1):
        yield f"{number}. {block(its)}{' (this one)' if its == report.about else ''}"


# --------------------------------------------------------------------------------------------------- hardware


def hardware(report: Report) -> Iterator[str]:
    """The machine, one thing a line, with what its GPUs do."""
    return machine(report.hardware, report.readings)


def machine(hardware: Hardware, now: Iterable[Reading] = ()) -> Iterator[str]:
    """A machine, one thing a line.

    Args:
        hardware: the machine.
        now: what its GPUs do.
    """
    yield _cpu(hardware.cpu)
    readings = {reading.index: reading for reading in now}
    for gpu in hardware.gpus:
        yield _gpu(gpu)
        if gpu.index in readings and (does := _reading(readings[gpu.index], gpu)):
            yield f"    now: {does}"
    yield from map(_xpu, hardware.xpus)
    if hardware.mps is not None:
        yield _mps(hardware.mps)
    yield from hardware.reasons


def _cpu(cpu: Cpu) -> str:
    has = {"AVX-512": cpu.avx512, "bf16": cpu.bf16, "fp16": cpu.fp16, "AMX": cpu.amx}
    return f"CPU: {cpu.name}, {some(cpu.cores, 'core')}, kernels for {cpu.capability}; {_has(has)}"


def _gpu(gpu: Gpu) -> str:
    has = {
        "TF32": gpu.has_tf32,
        "bf16": gpu.has_bf16,
        "fp16 tensor cores": gpu.has_fp16_tensor_cores,
        "fp8": gpu.has_fp8,
    }
    told = (
        gpu.name,
        None if gpu.capability is None else "capability {}.{}".format(*gpu.capability),
        None if gpu.memory is None else size(gpu.memory),
        None if gpu.driver is None else f"driver {gpu.driver}",
    )
    return f"GPU {gpu.index}: {', '.join(part for part in told if part)}; {_has(has)}"


def _xpu(xpu: Xpu) -> str:
    has = {"bf16": xpu.bf16, "fp16": xpu.fp16, "XMX": xpu.xmx}
    told = (
        xpu.name,
        None if xpu.memory is None else size(xpu.memory),
        None if xpu.driver is None else f"driver {xpu.driver}",
    )
    known = _has({name: its for name, its in has.items() if its is not None})
    return f"XPU {xpu.index}: {', '.join(part for part in told if part)}{known and f'; {known}'}"


def _mps(mps: Mps) -> str:
    return f"GPU: {mps.name}{'' if mps.memory is None else f', {size(mps.memory)} shared with the CPU'}"


def _has(has: dict[str, bool]) -> str:
    there = [name for name, is_there in has.items() if is_there]
    missing = [name for name, is_there in has.items() if not is_there]
    told = ("has " + ", ".join(there) if there else "", "no " + ", ".join(missing) if missing else "")
    return "; ".join(part for part in told if part)


def _reading(reading: Reading, gpu: Gpu) -> str:
    of = "" if gpu.memory is None else f" of {size(gpu.memory)}"
    fastest = "" if reading.max_clock is None else f" of {reading.max_clock}"
    told = (
        None if reading.utilization is None else f"{reading.utilization} % busy",
        None if reading.memory_used is None else f"{size(reading.memory_used)}{of} used by all processes",
        None if reading.power is None else f"{reading.power:.0f} W",
        None if reading.temperature is None else f"{reading.temperature} degrees C",
        None if reading.clock is None else f"{reading.clock}{fastest} MHz",
        *(reading.throttle or ()),
    )
    return ", ".join(part for part in told if part)


# ------------------------------------------------------------------------------------------------ environment


def environment(report: Report) -> Iterator[str]:
    """The variables that are set, with what each does and when."""
    for variable in report.environment:
        yield f"{variable.name}={variable.value}: {variable.does} ({variable.acts})"


# --------------------------------------------------------------------------------------------------- compiled


def compiled(report: Report) -> Iterator[str]:
    """What has been compiled, with how long it took, and why some of it runs eagerly."""
    for its in report.compiled:
        times = "once" if its.count == 1 else some(its.count, "time")
        reason = "" if its.reason is None else f"; {its.reason}"
        yield f"{its.name} ({its.how}): compiled {times}, {its.seconds:.1f} s{reason}"
