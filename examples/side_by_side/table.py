"""A race as a table and a few plain sentences."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from examples.side_by_side.figures import Apart, Figures, Spread
from examples.side_by_side.race import Arm, Race


def show(race: Race, figures: Figures, console: Console) -> None:
    """Prints the table, and below it what it says."""
    steps = len(race.plain.losses)
    table = Table(
        title=f"A byte-level GPT after {steps} steps, trained in turn on one machine",
        caption="Medians, and the range of the middle half.",
    )
    table.add_column()
    for heading in (race.plain.label, race.turbo.label, "other batches"):
        table.add_column(heading, justify="right")

    tokens = race.plain.model.size.tokens
    times = [Spread.of(arm.seconds) for arm in race.arms]
    faster = figures.speed_up
    table.add_row("ms per step", *(f"{time.median * 1e3:,.0f}" for time in times))
    table.add_row("", *(f"{time.low * 1e3:,.0f} to {time.high * 1e3:,.0f}" for time in times))
    table.add_row("tokens per second", *(f"{tokens / time.median:,.0f}" for time in times))
    table.add_row("speed-up", "", f"[bold]{faster.median:.2f}x[/]", "")
    table.add_row("", "", f"{faster.low:.2f}x to {faster.high:.2f}x", "")
    table.add_section()
    table.add_row("loss at the last step", *_each(race, lambda arm: f"{arm.losses[-1]:.4f}"))
    table.add_row("held-out loss, start", *_each(race, lambda arm: f"{arm.held_out[0][1]:.4f}"))
    table.add_row("held-out loss, end", *_each(race, lambda arm: f"{arm.held_out[-1][1]:.4f}"))
    table.add_section()
    table.add_row("apart from float32:", "", "[bold]drift[/]", "[bold]noise[/]")
    table.add_row("  held-out loss, end", "", *_apart(figures, lambda a: f"{a.final_held_out_loss:+.2g}"))
    table.add_row("  held-out loss, RMS", "", *_apart(figures, lambda a: f"{a.held_out_loss:.2g}"))
    table.add_row("  weights, of their way", "", *_apart(figures, lambda a: f"{a.weights:.1%}"))
    console.print(table)
    for sentence in sentences(race, figures):
        console.print(sentence)


def sentences(race: Race, figures: Figures) -> list[str]:
    """What the figures say, in words."""
    drift, noise = figures.drift.held_out_loss, figures.noise.held_out_loss
    verdict = "less than" if figures.within_noise else "MORE than"
    said = [
        f"{race.turbo.label} takes a step {figures.speed_up.median:.2f} times as fast as plain float32 "
        f"(median of {len(race.plain.rounds)} rounds, {len(race.plain.seconds)} steps each).",
        f"It moves the held-out loss by {drift:.2g}: {verdict} the {noise:.2g} that other batches make.",
    ]
    if figures.disturbed:
        said.append(
            "The steps' times differ widely among themselves: something else was using this machine. "
            "Run it again when it is quiet before you rely on the speed-up."
        )
    return said


def _each(race: Race, cell: Callable[[Arm], str]) -> list[str]:
    return [cell(arm) for arm in race.arms]


def _apart(figures: Figures, cell: Callable[[Apart], str]) -> list[str]:
    return [cell(apart) for apart in (figures.drift, figures.noise)]
