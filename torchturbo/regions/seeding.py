"""A seed: the same random numbers at each run, and everybody else's streams as they were afterwards.

`torchturbo.regions._streams` takes the streams out and puts them back; `torchturbo.regions._loading` has data loaders
give the same batches.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from hashlib import blake2b
from typing import Any

from torchturbo.hardware import place
from torchturbo.regions._seeding import HASHES, SEEDING, Seeding, now
from torchturbo.regions._streams import seeds
from torchturbo.settings._base import Setting, Values, Write
from torchturbo.settings._edits import always, anew

_HASHES_ARE_SET = os.environ.get(HASHES.name, "random") not in ("", "random") and not sys.flags.ignore_environment
"""Whether Python was started with hashes that are the same at each run; its flags tell that of the seed 0 alone."""


def _rule(value: int) -> str | None:
    return None if 0 <= value < 2**32 else "expected at least 0 and less than 2**32, as NumPy takes seeds"


@cache
def _writes(value: int, rank: int) -> tuple[Write, ...]:
    own = of_rank(value, rank)
    # Sets of strings have the same order on all ranks.
    return (SEEDING, anew(lambda: Seeding(own, value))), (HASHES, always(str(value))), *seeds(own)


def of_rank(seed: int, rank: int) -> int:
    """The seed that one of several processes starts from, for each to draw numbers of its own; rank 0 has the seed.

    Args:
        seed: what is asked for.
        rank: which process.
    """
    return int.from_bytes(blake2b(b"%d, rank %d" % (seed, rank), digest_size=4).digest()) if rank else seed


def _edits(value: Any, hardware: object) -> tuple[Write, ...]:
    return _writes(value, place().rank)


def _told() -> str | None:
    """What is to be known of the seed in force."""
    here = place()
    own = now.seeding
    ranks = None
    if own is not None and own.seed != own.asked:
        ranks = f"rank {here.rank} of {here.size} draws numbers of its own, from the seed {own.seed}"
    return "; ".join(filter(None, (ranks, _hashes_told()))) or None


def _hashes_told() -> str | None:
    """Whether the hashes of strings, and so the order of sets of them, are the same at each run."""
    if now.seeding is None or _HASHES_ARE_SET or not sys.flags.hash_randomization:
        return None
    return (
        "sets of strings have another order at each run, since Python reads PYTHONHASHSEED when it starts: start it "
        f"with PYTHONHASHSEED={os.environ.get('PYTHONHASHSEED', '0')}, as processes that are started in the block are"
    )


seed = Setting(
    help="Start the random numbers of Python, NumPy and torch, on every device, from this seed; put back afterwards.",
    values=Values(kind=int, rule=_rule),
    cells=(SEEDING,),
    edits=_edits,
    show=lambda raw: None if raw is None else raw.asked,
    told=_told,
)
