"""The trainings of `benchmarks.half_training` as a picture: loss by step, and where each training ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from examples.side_by_side.plot import COLOURS

# Two more that keep apart from the three as they keep apart from each other.
COLOUR = {
    "float32": COLOURS[0],
    "float32, nudged": "#56b4e9",
    "bf16": COLOURS[1],
    "fp16": "#009e73",
    "fp16, overflowing": COLOURS[2],
}


def save(found: dict[str, Any], path: Path) -> None:
    """Draws what `benchmarks.half_training` found.

    Args:
        found: by loop.
        path: of the picture; its ending names the format.
    """
    picture = Figure(figsize=(5 * len(found), 8), layout="constrained")
    # Without pyplot, no window system is asked for and no state of matplotlib's is changed.
    FigureCanvasAgg(picture)
    axes = picture.subplots(2, len(found), squeeze=False)
    for place, (name, of_loop) in enumerate(found.items()):
        _by_step(axes[0][place], name, of_loop)
        _ends(axes[1][place], of_loop)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=120)


def _by_step(axes: Axes, name: str, of_loop: dict[str, Any]) -> None:
    """The training loss of the first seed, each value the mean of some steps, as batches differ."""
    window = max(1, of_loop["steps"] // 40)
    for run in of_loop["runs"]:
        if run["seed"] == 0:
            losses = run["losses"]
            starts = range(0, len(losses) - window + 1, window)
            smooth = [sum(losses[at : at + window]) / window for at in starts]
            middles = [at + window / 2 for at in starts]
            axes.plot(middles, smooth, color=COLOUR[run["precision"]], alpha=0.8, label=run["precision"])
    axes.set(title=f"{name}: training loss, seed 0", xlabel=f"step (means of {window})", ylabel="loss")
    axes.legend()


def _ends(axes: Axes, of_loop: dict[str, Any]) -> None:
    """The held-out loss at the end, a line for each seed: a level line is a precision that makes no difference."""
    seeds = sorted({run["seed"] for run in of_loop["runs"]})
    for seed in seeds:
        mine = [(run["precision"], run["held_out"]) for run in of_loop["runs"] if run["seed"] == seed]
        axes.plot(*zip(*mine, strict=True), color="#cccccc", zorder=1)
        axes.tick_params(axis="x", labelrotation=20)
        for precision, loss in mine:
            axes.plot([precision], [loss], "o", color=COLOUR[precision], zorder=2)
    axes.set(title="Held-out loss at the end (a line: the same batches)", ylabel="loss")
