"""A race as a picture: the loss by step, the loss by time, and how long steps took."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from examples.side_by_side.figures import Figures
from examples.side_by_side.race import Arm, Race

# Told apart by people who see colours differently, and in grey.
COLOURS = ("#0072b2", "#d55e00", "#999999")


def save(race: Race, figures: Figures, path: Path) -> None:
    """Draws the race into `path`, whose ending names the format."""
    picture = Figure(figsize=(15, 4.6), layout="constrained")
    # Without pyplot, no window system is asked for and no state of matplotlib's is changed.
    FigureCanvasAgg(picture)
    by_step, by_time, durations = picture.subplots(1, 3)

    for arm, colour in zip(race.arms, COLOURS, strict=True):
        by_step.plot(range(1, len(arm.losses) + 1), arm.losses, color=colour, alpha=0.6, label=arm.label)
        by_step.plot(*zip(*arm.held_out, strict=True), "o", color=colour, markersize=5)
        if arm is not race.other:
            by_time.plot(_ends(arm), arm.losses, color=colour, label=arm.label)
    by_step.set(title="Loss by step (dots: held out)", xlabel="step", ylabel="loss (nats per byte)")
    by_step.legend()
    by_time.set(title="Loss by training time", xlabel="seconds of training", ylabel="loss (nats per byte)")
    by_time.legend()

    pair = (race.plain, race.turbo)
    durations.boxplot([arm.seconds for arm in pair], showfliers=False, widths=0.5)
    for place, (arm, colour) in enumerate(zip(pair, COLOURS, strict=False), start=1):
        spread_out = [place - 0.15 + 0.3 * (i % 7) / 6 for i in range(len(arm.seconds))]
        durations.scatter(spread_out, arm.seconds, s=10, color=colour, alpha=0.7)
    durations.set_xticks([1, 2], [arm.label for arm in pair])
    durations.set_ylim(bottom=0)
    faster = figures.speed_up
    title = f"Time per step: {faster.median:.2f}x ({faster.low:.2f}x to {faster.high:.2f}x)"
    durations.set(title=title, ylabel="seconds")

    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=120)


def _ends(arm: Arm) -> list[float]:
    """When each step ended, counting nothing but this arm's own steps."""
    return list(accumulate([*arm.warm_up, *arm.seconds]))
