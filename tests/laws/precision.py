"""Laws of float32 precision, whose state is more entangled than any other: from any start, in any order, to the bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tests.laws.catalogue import writes_of
from tests.laws.faithful import unchanged
from tests.laws.layers import Maker, Ours
from tests.laws.look import differences, look, raw_precision
from tests.laws.pristine import HAS_CELLS
from tests.laws.start import Step, play_precision
from tests.laws.violation import holds
from tests.witness.memory import CELLS
from torchturbo._catalogue import SETTINGS
from torchturbo.settings._base import Cell, Write
from torchturbo.settings._cells import UNDECIDED
from torchturbo.settings._cudnn import CUDNN
from torchturbo.settings._edits import Raw, keep
from torchturbo.settings._matmul import MATMUL
from torchturbo.settings.mkldnn import MKLDNN

C: Any = torch._C
NAMES = tuple(name for name in ("matmul_precision", "cudnn_precision", "mkldnn_precision") if SETTINGS[name].cells)

Options = Mapping[str, object]
Swapped = Mapping[Cell, Cell]
"""Cells on trial in place of the catalogue's."""


def _writes(options: Options, swapped: Swapped) -> list[Write]:
    """As a block would write them: matrix products are held by every block, for compiling changes them."""
    edits: dict[Cell, Any] = {MATMUL: keep} | dict(writes_of(options))
    return [(swapped.get(cell, cell), edit) for cell, edit in edits.items()]


def _now(swapped: Swapped) -> dict[str, object]:
    return {
        name: SETTINGS[name].show(*(swapped.get(cell, cell).read() for cell in SETTINGS[name].cells)) for name in NAMES
    }


def any_order(
    asked: Sequence[Options], order: Sequence[int], make: Maker = Ours, swapped: Swapped | None = None
) -> None:
    """Layers of precision come one after the other and leave in `order`: the newest is in force, and nothing stays.

    Args:
        asked: what each layer asks for.
        order: numbers that say which of the layers that are left leaves next.
        make: the layers on trial.
        swapped: cells on trial.

    Raises:
        Violation: something else is in force, or something stays.
    """
    swapped = swapped or {}
    before = look()
    beneath = _now(swapped)
    unchanged(before, "reading precision changes something")
    layers = make()
    there: list[tuple[Options, Any]] = []
    said: list[str] = []
    for options in asked:
        there.append((options, layers.open(_writes(options, swapped))))
        said.append(f"in comes {dict(options)}")
        _newest_is_in_force([options for options, _ in there], beneath, swapped, said)
    for place in order:
        if there:
            options, layer = there.pop(place % len(there))
            layers.close(layer)
            said.append(f"out goes {dict(options)}")
            _newest_is_in_force([options for options, _ in there], beneath, swapped, said)
    while there:
        layers.close(there.pop()[1])
    unchanged(before, f"law 3, precision: {', '.join(said)}: something stays")


def _newest_is_in_force(
    standing: Sequence[Options], beneath: dict[str, object], swapped: Swapped, said: Sequence[str]
) -> None:
    expected = dict(beneath)
    for options in standing:
        expected |= options
    found = _now(swapped)
    holds(found == expected, f"law 3, precision: {', '.join(said)}: must be {expected}, and is {found}")


def whatever_the_body_did(options: Options, body: Sequence[Step], swapped: Swapped | None = None) -> None:
    """What the body of a block does to precision that the block holds is gone after it.

    One thing nobody can put back: a ``default`` cell that the body has written. It reads as it did before.

    Raises:
        Violation: something else has stayed.
    """
    swapped = swapped or {}
    before, resolved = look(), _resolved()
    layers = Ours()
    layer = layers.open(_writes(options, swapped))
    play_precision(body)
    layers.close(layer)
    where = f"precision: {dict(options)}, in it {list(body)}"
    holds(_resolved() == resolved, f"{where}: was {resolved}, and is {_resolved()}")
    after = look()
    cells = before.get("precision", {})
    lost = {name: cells[name] for name in cells if cells[name] == "default"}
    if lost:
        before["precision"], after["precision"] = cells | lost, after["precision"] | lost
    found = differences(before, after)
    holds(not found, f"{where}: something stays: {found}")


def _resolved() -> dict[str, str]:
    """What every cell of precision says, its own value or its parent's."""
    if not HAS_CELLS:
        return {}
    return {f"{backend}/{operation}": C._get_fp32_precision_getter(backend, operation) for backend, operation in CELLS}


def reads_the_truth(swapped: Swapped | None = None) -> None:
    """What cells read is what stands in torch's memory, and reading leaves it there.

    Raises:
        Violation: it is not, or does not.
    """
    swapped = swapped or {}
    truth = raw_precision()
    if not truth:
        return
    before = look()
    read = {cell: swapped.get(cell, cell).read() for cell in (MATMUL, CUDNN, MKLDNN) if cell is not None}
    unchanged(before, "reading precision changes something")
    for cell, backend, operation, part in (
        (MATMUL, "cuda", "matmul", "cuda"),
        (MATMUL, "mkldnn", "matmul", "mkldnn"),
        (CUDNN, "cuda", "all", "all"),
        (CUDNN, "cuda", "conv", "conv"),
        (CUDNN, "cuda", "rnn", "rnn"),
        (MKLDNN, "mkldnn", "conv", "conv"),
        (MKLDNN, "mkldnn", "rnn", "rnn"),
    ):
        if cell is not None:
            _same(f"{backend}/{operation}", getattr(read[cell], part), truth)
    word = read[MATMUL].legacy
    C._set_fp32_precision_setter("cuda", "matmul", {"highest": "ieee"}.get(word, "tf32"))
    C._set_fp32_precision_setter("mkldnn", "matmul", {"highest": "ieee", "high": "tf32"}.get(word, "bf16"))
    asked: Raw = C._get_float32_matmul_precision()  # raises unless the two cells are what the word would write
    holds(asked == word, f"precision: the word of matrix products reads {word!r}, and is {asked!r}")


def _same(name: str, read: str, truth: Mapping[str, str]) -> None:
    actual = truth[name]
    if read == UNDECIDED:
        holds(actual in ("tf32", "default"), f"precision: {name} is {actual}, and reads {read}")
    else:
        holds(read == actual, f"precision: {name} is {actual}, and reads {read}")
