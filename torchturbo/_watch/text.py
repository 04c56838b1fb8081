"""What was seen of a loop: as a line, and as the bar in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from torchturbo._watch.data import Loop, Seen
from torchturbo._words import clock, short, size, some

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_LOW = 0.7
_LEAST_BAR = 8
"""Columns of a bar below which it gets a line without the speeds, or none at all."""
_GAP = "  "


def line_of(seen: Seen) -> str:
    """It in a line of plain text.

    Args:
        seen: of a loop.
    """
    inner = [f"in {_place(loop)}" for loop in seen.loops[1:]]
    return "torchturbo: " + ", ".join(
        [_place(seen.loops[0]), *inner, *_rates(seen.loops[0]), *_shares(seen), *_rest(seen)]
    )


def _place(loop: Loop) -> str:
    of = "" if loop.of is None else f" of {loop.of:,}"
    return f"{loop.name} {loop.steps:,}{of}"


def _rates(loop: Loop) -> Iterator[str]:
    yield f"{short(loop.steps_per_second)} steps/s"
    if loop.samples_per_second is not None:
        yield f"{short(loop.samples_per_second)} samples/s"
    if loop.tokens_per_second is not None:
        yield f"{short(loop.tokens_per_second)} tokens/s"


def _shares(seen: Seen) -> Iterator[str]:
    yield f"waiting {seen.waiting:.0%}"
    yield f"computing {seen.computing:.0%}"
    yield f"optimizer {seen.optimizer:.0%}"


def _rest(seen: Seen) -> Iterator[str]:
    machine = seen.machine
    if machine.utilization is not None:
        yield f"GPU {seen.utilization:.0%}"
    if machine.power is not None:
        yield f"{machine.power:.0f} W"
    if machine.throttled:
        yield "throttled by " + " and ".join(why.partition(":")[0] for why in machine.throttled)
    if machine.memory is not None:
        of = "" if machine.memory_total is None else f" of {size(machine.memory_total)}"
        peak = "" if machine.memory_peak is None else f" (peak {size(machine.memory_peak)})"
        yield f"memory {size(machine.memory)}{of}{peak}"
    if seen.scale is not None:
        yield f"scale {seen.scale:g}"
        yield f"{seen.skipped_steps} skipped"
    if seen.recompiles:
        yield some(seen.recompiles, "recompile")


# --------------------------------------------------------------------------------------------------- in a terminal


def sheet(seen: Seen, width: int) -> Iterator[RenderableType]:
    """A bar for each loop, those within beneath, and what the machine does.

    Args:
        seen: of a loop.
        width: columns that there are.
    """
    loops = seen.loops
    told = [_told(depth, loop, seen.over) for depth, loop in enumerate(loops)]
    if _fits([(*its, rates) for its, rates in told], width):
        yield _bars([(loop, (*its, rates)) for loop, (its, rates) in zip(loops, told, strict=True)])
    else:  # a loop is told of in several lines
        for loop, (its, rates) in zip(loops, told, strict=True):
            yield _bars([(loop, its)]) if _fits([its], width) else _lines(its, width, indent="")
            yield _lines(rates.split(_GAP), width)
    yield _lines(_beneath(seen), width)


def _told(depth: int, loop: Loop, over: bool) -> tuple[tuple[str, str, str], str]:
    """The name of a loop, how far it is and its time; and its speed."""
    total, went = loop.of or None, clock(loop.seconds)
    if total and loop.steps_per_second and not over:
        went += f" < {clock(max(0, total - loop.steps) / loop.steps_per_second)}"
    steps = f"{loop.steps:,}" + (f"/{total:,}" if total else "")
    return ("  " * depth + loop.name, steps, went), _GAP.join(_rates(loop))


def _fits(rows: Sequence[tuple[str, ...]], width: int) -> bool:
    """Whether there is room for columns, and a bar among them."""
    columns = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return sum(columns) + len(columns) + _LEAST_BAR <= width


def _bars(rows: Sequence[tuple[Loop, tuple[str, ...]]]) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bars = Table.grid(padding=(0, 1))
    for column in ("name", "steps", "bar", *("time", "rates")[: len(rows[0][1]) - 2]):
        bars.add_column(no_wrap=column != "bar")  # which gives way
    for loop, (name, steps, time, *rates) in rows:
        total = loop.of or None
        bar = ProgressBar(total=total, completed=min(loop.steps, total or loop.steps), width=30, pulse=not total)
        bars.add_row(
            Text(name, style="bold"), Text(steps, justify="right"), bar, Text(time, style="cyan"), *map(Text, rates)
        )
    return bars


def _lines(words: Iterable[str | Text], width: int, indent: str = _GAP) -> RenderableType:
    """Words in as many lines as they need, none of them broken if there is room for it."""
    from rich.text import Text

    lines = [Text(indent)]
    for word in words:
        if len(lines[-1]) > len(indent):
            if len(lines[-1]) + len(_GAP) + len(word) <= width:
                lines[-1].append(_GAP)
            else:
                lines.append(Text(indent))
        lines[-1].append(word)
    return Text("\n").join(lines)


def _beneath(seen: Seen) -> Iterator[Text]:
    from rich.text import Text

    waiting, *others = _shares(seen)
    yield Text(waiting, style="bold yellow" if seen.waiting > 1 - _LOW else "")
    yield from map(Text, others)
    for word in _rest(seen):
        low = word.startswith("GPU") and seen.utilization < _LOW
        yield Text(word, style="bold yellow" if low or word.startswith("throttled") else "")
