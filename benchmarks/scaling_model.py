"""What a step would take on 8 to 4,096 GPUs, on paper; and how far the same sums are from what was measured.

    python -m benchmarks.scaling_model                                                     # the tables of the page
    python -m benchmarks.scaling_model benchmarks/records/2026-11-23-cpu-distributed.json  # and the check on this CPU

No number here was measured on a GPU by this project; two that others have published are put beside the paper.
docs/scaling.md names the assumptions and where they come from.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks._links import Link, fitted, gathered, reduced

RANKS = (8, 16, 64, 256, 1024, 4096)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Machines of several GPUs each, with a network between them.

    Attributes:
        beside: GPUs in a machine.
        inside: the link between two of a machine.
        between: the link of one GPU to another machine, by a network card of its own.
        flops: of one GPU in a second, as the model uses them.
        jitter: how much the time of a step varies from GPU to GPU, as a share (one standard deviation).
    """

    beside: int
    inside: Link
    between: Link
    flops: float
    jitter: float

    def around(self, ranks: int) -> Link:
        """The mean hop of a ring of so many GPUs, and the bytes a second that pass each.

        A ring leaves a machine once, not once for each of its GPUs. NCCL lays as many rings as there are cards, each
        out of another one, so that the cards of a machine add up until NVLink is the slower.
        """
        if ranks <= self.beside:
            return self.inside
        hops = ((self.beside - 1) * self.inside.latency + self.between.latency) / self.beside
        return Link(hops, min(self.inside.bandwidth, self.beside * self.between.bandwidth))


H100 = Cluster(
    beside=8,
    inside=Link(3e-6, 450e9 * 0.8),
    between=Link(8e-6, 50e9 * 0.8),
    flops=989e12 * 0.4,
    jitter=0.01,
)
"""DGX H100: NVLink of 450 GB/s one way, a network card of 400 Gb/s for each GPU, and four fifths of both in use; 989
TFLOPS in bf16, of which a well-made step uses 40 percent."""


def slowest(ranks: int, jitter: float) -> float:
    """What the slowest of some ranks takes, by what one takes in the mean: the largest of so many normal numbers."""
    return 1.0 if ranks < 2 else 1 + jitter * math.sqrt(2 * math.log(ranks))


@dataclass(frozen=True, slots=True)
class Step:
    """A step on paper.

    Attributes:
        computing: seconds of forward, backward and optimizer.
        communicating: seconds of all reductions and gathers.
        shown: seconds of these that nothing hides.
        waiting: seconds for the slowest.
    """

    computing: float
    communicating: float
    shown: float
    waiting: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.computing + self.shown + self.waiting

    @property
    def efficiency(self) -> float:
        """The time of one GPU alone, which only computes, by this one."""
        return self.computing / self.seconds


@dataclass(frozen=True, slots=True)
class Model:
    """A transformer, and what one GPU has of a batch.

    Attributes:
        name: for people.
        parameters: how many.
        layers: in how many parts they are gathered and reduced.
        tokens: of one GPU in a step.
    """

    name: str
    parameters: float
    layers: int
    tokens: int

    def computing(self, cluster: Cluster) -> float:
        """Seconds: six operations for each parameter and token, a third of them in forward."""
        return 6 * self.parameters * self.tokens / cluster.flops


def ddp(model: Model, cluster: Cluster, ranks: int, width: int) -> Step:
    """A step under DistributedDataParallel: gradients are reduced in buckets while backward goes on.

    Args:
        model: the model.
        cluster: the machines.
        ranks: how many GPUs.
        width: bytes that a number is sent in.
    """
    computing = model.computing(cluster)
    bucket = 25 * 2**20
    size = model.parameters * width
    count = max(1, round(size / bucket))
    link = cluster.around(ranks)
    each = reduced(size / count, ranks, link)
    # The last bucket is full when backward ends; the others hide behind two thirds of the computing, less the first's.
    hidden = max(0.0, (count - 1) * each - 2 / 3 * computing * (count - 1) / count)
    return Step(computing, count * each, hidden + each, computing * (slowest(ranks, cluster.jitter) - 1))


def fsdp(model: Model, cluster: Cluster, ranks: int, width: int, within: int | None = None) -> Step:
    """A step under FSDP2: weights are gathered in forward and in backward, layer after layer, and gradients scattered.

    Args:
        model: the model.
        cluster: the machines.
        ranks: how many GPUs.
        width: bytes that a gradient is sent in; weights are sent in 2.
        within: the ranks that a model is sharded over, of which there are copies (HSDP); None for all.
    """
    computing = model.computing(cluster)
    shards = ranks if within is None else min(within, ranks)
    link = cluster.around(shards)
    weights, gradients = model.parameters * 2 / model.layers, model.parameters * width / model.layers
    gather, scatter = gathered(weights, shards, link), gathered(gradients, shards, link)
    # Copies reduce their shards, each with its like in the others.
    copies = reduced(gradients / shards, ranks // shards, cluster.between)
    forward, backward = computing / 3 / model.layers, computing * 2 / 3 / model.layers
    shown = (
        gather + scatter + copies
    )  # the first layer's weights and the last one's gradients have nothing to hide behind
    shown += (model.layers - 1) * (max(0.0, gather - forward) + max(0.0, gather + scatter + copies - backward))
    communicating = model.layers * (2 * gather + scatter + copies)
    return Step(computing, communicating, shown, computing * (slowest(ranks, cluster.jitter) - 1))


SMALL = Model("1.3 billion parameters", 1.3e9, 24, 16_384)
LARGE = Model("7 billion parameters", 7e9, 32, 8_192)
CASES: dict[str, tuple[Model, Callable[[Model, int], Step]]] = {
    "ddp": (SMALL, lambda model, ranks: ddp(model, H100, ranks, 4)),
    "ddp, gradients in bf16": (SMALL, lambda model, ranks: ddp(model, H100, ranks, 2)),
    "fsdp": (LARGE, lambda model, ranks: fsdp(model, H100, ranks, 4)),
    "fsdp, gradients in bf16": (LARGE, lambda model, ranks: fsdp(model, H100, ranks, 2)),
    "fsdp in a machine, copies between": (LARGE, lambda model, ranks: fsdp(model, H100, ranks, 2, within=8)),
}


def table() -> str:
    """The tables of docs/scaling.md."""
    lines = ["| efficiency (of it: shown communication, waiting) | " + " | ".join(f"{n:,}" for n in RANKS) + " |"]
    lines.append("| --- |" + " --- |" * len(RANKS))
    for name, (model, step) in CASES.items():
        cells = []
        for ranks in RANKS:
            its = step(model, ranks)
            cells.append(f"{its.efficiency:.0%} ({its.shown / its.seconds:.0%}, {its.waiting / its.seconds:.0%})")
        lines.append(f"| {name}, {model.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# ----------------------------------------------------------------------------------------------------------- published


@dataclass(frozen=True, slots=True)
class Published:
    """One training under FSDP2 on two numbers of GPUs of H100 or H200 machines, as others have measured it.

    Attributes:
        name: for people.
        few: GPUs, and tokens in a second of each.
        many: the same of more GPUs.
    """

    name: str
    few: tuple[int, float]
    many: tuple[int, float]

    @property
    def kept(self) -> float:
        """The speed of a GPU among many, by that of one among few."""
        return self.many[1] / self.few[1]

    @property
    def on_paper(self) -> float:
        """The same by the sums above, for a GPU that computes as fast as the measured one among few."""
        model, (few, speed) = LLAMA, self.few
        flops = 6 * model.parameters * speed
        for _ in range(9):  # of the time among few, what is communication is not computing
            step = fsdp(model, replace(H100, flops=flops), few, 4)
            flops = 6 * model.parameters * speed / step.efficiency
        cluster = replace(H100, flops=flops)
        return fsdp(model, cluster, self.many[0], 4).efficiency / fsdp(model, cluster, few, 4).efficiency


LLAMA = Model("8 billion parameters", 8.03e9, 32, 16_384)
PUBLISHED = (
    Published("torchtitan, 8 and 128 H100", (8, 5_762), (128, 5_605)),
    Published("torchtitan, compiled, 8 and 128 H100", (8, 6_667), (128, 6_514)),
)
"""Tables 1 and 3 of https://github.com/pytorch/torchtitan/blob/main/benchmarks/llama3_h100_202412_torchtitan.md: Llama
3.1 8B, two sequences of 8,192 tokens a GPU, 400 Gb/s a GPU between machines."""


def beside() -> str:
    """The table of docs/scaling.md that has both."""
    lines = ["| training | speed kept, published | on paper |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {its.name} | {its.kept:.1%} | {its.on_paper:.1%} |" for its in PUBLISHED)])


# --------------------------------------------------------------------------------------------------------------- check


def check(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measured steps beside those on paper, whose links and computing are measured and whose sums are those above.

    Nothing is hidden behind computing: on a CPU, gloo computes its sums where the model does.

    Args:
        record: of `benchmarks.distributed`.
    """
    found = []
    for run in record["runs"]:
        ranks = run["ranks"]
        if ranks < 2:
            continue
        alone, size, median = run["seconds alone, by bytes"], run["bytes of gradients"], run["median"]
        units = run["units of fsdp"]
        links = {name: fitted(taken, ranks, 2 if name == "all-reduce" else 1) for name, taken in alone.items()}
        gather = units * gathered(size / units, ranks, links["all-gather"])
        scatter = units * gathered(size / units, ranks, links["reduce-scatter"])
        on_paper = {
            "ddp": median["not reduced"] + reduced(size, ranks, links["all-reduce"]),
            "fsdp": median["fsdp of one"] + 2 * gather + scatter,
        }
        found += [
            {
                "ranks": ranks,
                "strategy": name,
                "measured": median[name],
                "on paper": seconds,
                "error": seconds / median[name] - 1,
                "link": links["all-reduce"],
            }
            for name, seconds in on_paper.items()
        ]
    return found


def main(arguments: Sequence[str]) -> None:
    """Prints the tables, and the check where a record is named."""
    print(table(), beside(), sep="\n\n")
    for path in arguments:
        print(f"\n{path}")
        for row in check(json.loads(Path(path).read_text(encoding="utf-8"))):
            print(
                f"  {row['ranks']} ranks, {row['strategy']}: measured {row['measured'] * 1e3:.1f} ms, on paper "
                f"{row['on paper'] * 1e3:.1f} ms ({row['error']:+.0%}), with {row['link'].latency * 1e6:.0f} µs and "
                f"{row['link'].bandwidth / 1e9:.2f} GB/s"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
