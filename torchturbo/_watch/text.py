"""What was seen of a loop: as a line, and as the bar in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torchturbo._watch.data import Loop, Seen
from torchturbo._words import clock, short, size, some

if TYPE_CHECKING:
    from rich.console import RenderableType

_LOW = 0.7
_NARROW = 60
"""Columns below which a loop is told of in several lines."""


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
    yield _bars(seen, narrow=width < _NARROW)
    yield _beneath(seen)


def _bars(seen: Seen, narrow: bool) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bars = Table.grid(padding=(0, 1))
    for column in ("name", "steps", "bar", "time", "rates"):
        # The bar gives way first, so that a loop is one line; where even that is too long, its rates are several.
        bars.add_column(no_wrap=column in ("steps", "time") or (column == "rates" and not narrow))
    for depth, loop in enumerate(seen.loops):
        total = loop.of or None
        bar = ProgressBar(total=total, completed=min(loop.steps, total or loop.steps), width=30, pulse=not total)
        went = clock(loop.seconds)
        if total and loop.steps_per_second and not seen.over:
            went += f" < {clock(max(0, total - loop.steps) / loop.steps_per_second)}"
        bars.add_row(
            Text("  " * depth + loop.name, style="bold"),
            Text(f"{loop.steps:,}" + (f"/{total:,}" if total else ""), justify="right"),
            bar,
            Text(went, style="cyan"),
            Text("  ".join(_rates(loop))),
        )
    return bars


def _beneath(seen: Seen) -> RenderableType:
    from rich.text import Text

    shares = Text("  ")
    shares.append(f"waiting {seen.waiting:.0%}", style="bold yellow" if seen.waiting > 1 - _LOW else "")
    shares.append(f"  computing {seen.computing:.0%}  optimizer {seen.optimizer:.0%}")
    for word in _rest(seen):
        low = word.startswith("GPU") and seen.utilization < _LOW
        shares.append("  ")
        shares.append(word, style="bold yellow" if low or word.startswith("throttled") else "")
    return shares
