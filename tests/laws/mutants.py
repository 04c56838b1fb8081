"""Broken on purpose: every mutant that some law must catch, whatever it breaks, as one list.

``mutants_of_layers`` and ``mutants_of_blocks`` break plain implementations by hand, ``mutants_of_cells`` every cell
and every setting of the catalogue (generated, so that one added later is broken too), ``mutants_of_float32`` the most
delicate of them in the ways that its documentation invites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.laws import mutants_of_blocks, mutants_of_cells, mutants_of_float32, mutants_of_layers
from tests.laws.around import PlainBlock
from tests.laws.catalogue import EVERYTHING
from torchturbo.testing import pretend_hardware


@dataclass(frozen=True, repr=False)
class Mutant:
    """A mutant, and the law that must catch it: `trial` raises `Violation`. For a child, where it may leave things."""

    name: str
    trial: Callable[[], None]

    def __repr__(self) -> str:
        return self.name


def _of_laws(mutants: tuple[Any, ...]) -> Iterator[Mutant]:
    """One for each law that a broken implementation names."""
    for mutant in mutants:
        for law in mutant.laws:
            yield Mutant(f"{mutant.__name__}-{law.__name__}", lambda law=law, mutant=mutant: _trial(law, mutant))


def _trial(law: Callable[[Any], None], mutant: Any) -> None:
    PlainBlock.reset()
    with pretend_hardware(EVERYTHING):
        law(mutant)


def _of_float32(mutant: mutants_of_float32.Mutant) -> Mutant:
    def trial() -> None:
        with mutants_of_float32.broken(mutant) as swapped:
            mutants_of_float32.trial(swapped)

    return Mutant(mutant.name, trial)


MUTANTS: tuple[Mutant, ...] = (
    *_of_laws(mutants_of_layers.MUTANTS),
    *_of_laws(mutants_of_blocks.MUTANTS),
    *(Mutant(name, trial) for name, trial in mutants_of_cells.MUTANTS.items()),
    *map(_of_float32, mutants_of_float32.MUTANTS),
)
