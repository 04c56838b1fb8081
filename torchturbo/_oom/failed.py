"""What an error of a step that ran out of memory says, and one of a part of it."""

from __future__ import annotations

from torchturbo._oom.batch import Batch
from torchturbo._oom.before import Before
from torchturbo._oom.struck import phase_of
from torchturbo._oom.used import used


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


def what_used_it(error: BaseException, before: Before, batch: Batch | None, *, split: bool) -> list[str]:
    """Sentences about what used the memory, and what would have freed how much.

    Args:
        error: that says that there is none, with its traceback.
        before: what the step reaches.
        batch: what it is called with.
        split: whether to split the batch would have freed memory too.
    """
    tensors = batch.tensors if batch is not None else []
    found = used(phase_of(error), *before.found(), tensors, before.bytes_of_copies())
    return [found.words(), *(f"would have freed memory: {text}" for text in found.switches(split=split))]


def note(error: BaseException, text: str) -> None:
    """Adds a sentence to an error."""
    error.add_note(f"torchturbo: {text}")


def not_split(error: BaseException, reason: str) -> BaseException:
    """The error, which says why the step was not split."""
    note(error, f"not split, because {reason}. Everything is as it was before the call")
    return error
