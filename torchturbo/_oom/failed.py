"""What an error of a step that ran out of memory says, and one of a part of it."""

from __future__ import annotations

from typing import NamedTuple

from torchturbo._oom.batch import Batch
from torchturbo._oom.before import Before
from torchturbo._oom.freed import Called, Freed, called_in, now_in
from torchturbo._oom.struck import phase_of
from torchturbo._oom.used import Used, used
from torchturbo._turbo import turbo


class Failed(Exception):
    """A part of a step failed; everything is as it was.

    Args:
        error: of the part.
        part: its number, from 0.
        count: of the parts.
        notes: what used the memory, where that is what it lacked.
    """

    def __init__(self, error: BaseException, part: int, count: int, notes: list[str]) -> None:
        super().__init__(f"part {part + 1} of {count}")
        self.error = error
        self.notes = notes


def largest(batch: Batch, count: int) -> int:
    """Numbers in the largest of so many parts of a batch."""
    return -(-batch.samples // count) * batch.size // batch.samples


class Looked(NamedTuple):
    """What was seen where memory ran out, before anything was let go of.

    Attributes:
        used: what used it.
        called: the model, and what it was called with, where that is known.
    """

    used: Used
    called: Called | None

    def tell(self, error: BaseException) -> None:
        """Adds what used the memory to an error."""
        note(error, self.used.words())

    def switches(self, counted: Freed | None, *, split: bool) -> list[str]:
        """Notes about what would have freed how much.

        Args:
            counted: what was counted by copies, where it could be.
            split: whether to split the batch would have freed memory too.
        """
        return [f"would have freed memory: {text}" for text in self.used.switches(split=split, counted=counted)]

    def tell_switches(self, error: BaseException, counted: Freed | None, *, split: bool) -> None:
        """Adds what would have freed memory to an error, behind what used it.

        Args:
            error: that has been told what used it.
            counted: what was counted by copies, where it could be.
            split: whether to split the batch would have freed memory too.
        """
        place = error.__notes__.index(_written(self.used.words())) + 1
        error.__notes__[place:place] = map(_written, self.switches(counted, split=split))


def look(error: BaseException, before: Before, batch: Batch | None, around: turbo) -> Looked:
    """Looks at what used the memory.

    Args:
        error: that says that there is none, with its traceback.
        before: what the step reaches.
        batch: what it is called with.
        around: the block that it ran in.
    """
    tensors = batch.tensors if batch is not None else []
    half = now_in(around, "autocast") not in (None, False)
    found = used(phase_of(error), *before.found(), tensors, before.bytes_of_copies(), half)
    # Of compiled code nobody can count it.
    return Looked(found, None if now_in(around, "compile") else called_in(error, before, batch))


def note(error: BaseException, text: str) -> None:
    """Adds a sentence to an error."""
    error.add_note(_written(text))


def _written(text: str) -> str:
    return f"torchturbo: {text}"


def not_split(error: BaseException, reason: str) -> BaseException:
    """The error, which says why the step was not split."""
    note(error, f"not split, because {reason}. Everything is as it was before the call")
    return error
