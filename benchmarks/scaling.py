"""What fp16 around an untouched loop costs, beside the loop written by hand with `torch.autocast` and `GradScaler`.

Ways to train the same model on the same batches take turns in one process, a burst each, in an order of chance that is
new every round; differences and ratios are taken round by round. By hand stands there twice, to show what two of a
kind differ by. The block is entered and left around every burst, within its time. Three questions:

- gpt: the overhead of a step of the demo's GPT.
- mlp: extra time on three small layers, beside what Accelerate and Lightning Fabric take with their rewritten loops
  (`make peers` installs them), each against the loop by hand of the same precision.
- nodes: what it takes to find the leaves of deep graphs.

    python -m benchmarks.scaling [--rounds 150] [--only gpt mlp nodes] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks import _peers, _record, _turns
from benchmarks._scaled import DEVICE, GPT_SIZE, Around, Burst, Task, by_hand, chain, count_nodes, gpt, mlp, untouched
from torchturbo import turbo

HAND, AGAIN = "{} by hand", "{} by hand, again"
TURBO = 'turbo("fast", autocast="{}")'
Way = tuple[nn.Module, Burst]
Found = dict[str, Any]

GPT_STEPS, MLP_STEPS = 1, 50
CHAINS = {100: 20, 1_000: 4, 5_000: 1}
"""The steps of a burst, by the nodes of the graph."""


def _ours(precision: str) -> Around:
    # One object for all bursts: the scale lives with it.
    block = turbo("fast", autocast=precision)  # type: ignore[arg-type]
    return lambda: block


def _pair(task: Task, precision: str) -> dict[str, Way]:
    """By hand, the same again, and the untouched loop in the block."""
    return {
        HAND.format(precision): by_hand(task, precision),
        AGAIN.format(precision): by_hand(task, precision),
        TURBO.format(precision): untouched(task, _ours(precision)),
    }


def _race(ways: dict[str, Way], steps: int, rounds: int, base: str, watch: Callable[[], object]) -> Found:
    """Samples, what follows from them, and whose parameters end with the same bits as those of the base."""
    samples = _turns.take_turns({name: burst for name, (_, burst) in ways.items()}, steps, rounds, watch)
    reference = list(ways[base][0].parameters())
    summary = {
        name: {
            **_turns.compare(samples, name, base),
            "bits_of_base": all(map(torch.equal, model.parameters(), reference)),
        }
        for name, (model, _) in ways.items()
    }
    return {"steps_in_a_burst": steps, "rounds": rounds, "summary": summary, "samples_us": samples}


def of_gpt(rounds: int, watch: Callable[[], object]) -> Found:
    """A step of the demo's GPT; with bf16 and float32, which CPUs can do fast, to see how small the model is."""
    torch.manual_seed(0)
    task = gpt()
    ways = _pair(task, "fp16") | {
        HAND.format("bf16"): by_hand(task, "bf16"),
        "float32, untouched": untouched(task),
    }
    found = _race(ways, GPT_STEPS, rounds, HAND.format("fp16"), watch)
    parameters = sum(parameter.numel() for parameter in task.model.parameters())
    with torch.autocast(DEVICE, torch.float16):
        nodes = count_nodes(task.loss(task.model, task.batches[0]))
    return {"model": {**asdict(GPT_SIZE), "parameters": parameters, "nodes": nodes}, **found}


def of_mlp(rounds: int, watch: Callable[[], object]) -> Found:
    """A step of three small layers, by precision, with the peers that are installed."""
    found: Found = {"peers": _peers.versions()}
    for precision in ("fp16", "bf16"):
        torch.manual_seed(0)
        task = mlp()
        ways = _pair(task, precision)
        for peer, version in found["peers"].items():
            if version is not None:
                ways[f"{peer}, {precision}"] = _peers.REWRITTEN[peer](task, precision)
        found[precision] = _race(ways, MLP_STEPS, rounds, HAND.format(precision), watch)
    return found


def of_nodes(rounds: int, watch: Callable[[], object]) -> Found:
    """A step through deep graphs, with few leaves and with a leaf at every link."""
    found: Found = {}
    for nodes, steps in CHAINS.items():
        for leaves in (10, nodes // 3):
            torch.manual_seed(0)
            task = chain(nodes, leaves)
            counted = count_nodes(task.loss(task.model, task.batches[0]))
            raced = _race(_pair(task, "fp16"), steps, rounds, HAND.format("fp16"), watch)
            extra = raced["summary"][TURBO.format("fp16")]["extra_us"]["median"]
            found[f"{counted} nodes, {leaves} leaves"] = {
                "nodes": counted,
                "leaves": leaves,
                "extra_us_per_node": extra / counted,
                **raced,
            }
    return found


PARTS: dict[str, tuple[Callable[[int, Callable[[], object]], Found], int]] = {
    "gpt": (of_gpt, 1),
    "mlp": (of_mlp, 2),
    "nodes": (of_nodes, 2 * len(CHAINS)),
}
"""What is measured, and in how many races."""


def _table(title: str, races: dict[str, Found]) -> Table:
    table = Table(title=f"{title}, torch {torch.__version__}, {DEVICE}")
    for heading in ("", "us a step", "by hand = 1", "surely between", "extra us", "surely between", "bits"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, race in races.items():
        if name:
            table.add_section()
            table.add_row(f"[bold]{name}[/]")
        for way, row in race["summary"].items():
            ratio, extra = row["ratio"], row["extra_us"]
            table.add_row(
                way,
                f"{row['us']['median']:,.1f}",
                f"{ratio['median']:.4f}",
                "{:.4f} .. {:.4f}".format(*ratio["surely_between"]),
                f"{extra['median']:+,.1f}",
                "{:+,.1f} .. {:+,.1f}".format(*extra["surely_between"]),
                "same" if row["bits_of_base"] else "other",
            )
        if "extra_us_per_node" in race:
            table.add_row("", "", "", "us a node", f"{race['extra_us_per_node']:+.3f}")
    return table


def _show(found: Found, console: Console) -> None:
    if "gpt" in found:
        size = found["gpt"]["model"]
        described = f"the demo's GPT, width {size['width']}, depth {size['depth']}, {size['nodes']} nodes"
        console.print(_table(described, {"": found["gpt"]}))
    if "mlp" in found:
        console.print(_table("three layers", {name: found["mlp"][name] for name in ("fp16", "bf16")}))
    if "nodes" in found:
        console.print(_table("deep graphs", found["nodes"]))


def record(rounds: int, only: list[str], path: Path | None) -> None:
    """Measures, prints tables and, where a path is given, writes a record.

    Args:
        rounds: how often each way has its turn.
        only: the parts that are measured.
        path: of the record.
    """
    console = Console(width=140)
    if "mlp" in only and (missing := [peer for peer, version in _peers.versions().items() if version is None]):
        console.print(f"Not installed, so left out: {', '.join(missing)}. `make peers` installs them.", style="yellow")
    found: Found = {}
    with _turns.bars() as progress:
        for part in only:
            measure, races = PARTS[part]
            found[part] = measure(rounds, _turns.counted(progress, part, races * (rounds + _turns.WARM_UP)))
    _show(found, console)
    if path:
        parts = "" if len(only) == len(PARTS) else f" --only {' '.join(only)}"
        parts += f" --threads {torch.get_num_threads()}"
        _record.write(path, "scaling", f"python -m benchmarks.scaling --rounds {rounds}{parts}", found)


def _rounds(text: str) -> int:
    rounds = int(text)
    if rounds < 4:
        raise argparse.ArgumentTypeError("at least 4: fewer have no quartiles")
    return rounds


def main() -> int:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--rounds", type=_rounds, default=150)
    options.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    options.add_argument("--threads", type=int, help="that torch computes with; 1 is steadier on a busy machine")
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    record(asked.rounds, asked.only, asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
