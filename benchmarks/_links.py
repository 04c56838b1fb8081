"""What it takes to send bytes to all of some processes: on paper, and fitted to what was timed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Link:
    """A way from one process to the next.

    Attributes:
        latency: seconds before the first byte.
        bandwidth: bytes in a second, one way.
    """

    latency: float
    bandwidth: float


def gathered(size: float, ranks: int, link: Link) -> float:
    """Seconds of an all-gather or a reduce-scatter around a ring.

    Args:
        size: bytes, of the whole.
        ranks: how many.
        link: the slowest link of the ring.
    """
    return 0.0 if ranks < 2 else (ranks - 1) * link.latency + (ranks - 1) / ranks * size / link.bandwidth


def reduced(size: float, ranks: int, link: Link) -> float:
    """Seconds of an all-reduce: around a ring, or along two trees where the way around is long.

    Args:
        size: bytes.
        ranks: how many.
        link: the slowest link.
    """
    if ranks < 2:
        return 0.0
    ring = 2 * gathered(size, ranks, link)
    tree = 2 * math.log2(ranks) * link.latency + 2 * size / link.bandwidth
    return min(ring, tree)


def line(taken: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """Seconds before the first byte and for each more, by least squares over the relative errors of medians.

    Args:
        taken: seconds, by bytes.
    """
    # seconds = a + b * bytes; each row is divided by its seconds, so that small messages count as large ones do.
    rows = [(1 / (s := statistics.median(its)), int(size) / s) for size, its in taken.items()]
    aa, ab, bb = sum(a * a for a, _ in rows), sum(a * b for a, b in rows), sum(b * b for _, b in rows)
    a1, b1 = sum(a for a, _ in rows), sum(b for _, b in rows)
    determinant = aa * bb - ab * ab
    return (a1 * bb - b1 * ab) / determinant, (aa * b1 - ab * a1) / determinant


def fitted(taken: Mapping[str, Sequence[float]], ranks: int, times: int = 1) -> Link:
    """The link that a ring of so many ranks shows.

    Args:
        taken: seconds, by bytes.
        ranks: how many.
        times: how often it goes around: once in a gather, twice in an all-reduce.
    """
    begin, each = line(taken)
    return Link(max(begin, 1e-9) / (times * (ranks - 1)), times * (ranks - 1) / ranks / each)
