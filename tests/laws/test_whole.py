"""Law 4: over made-up state, over every cell of the catalogue, and over blocks."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch

from tests.laws import whole
from tests.laws.around import ours
from tests.laws.catalogue import EVERYTHING, everything_at_once, with_cell
from tests.laws.layers import Maker, Ours, Plain
from tests.laws.look import differences, look
from tests.laws.pristine import isolated
from torchturbo import _plan
from torchturbo._catalogue import SETTINGS
from torchturbo.errors import RestoreError
from torchturbo.settings._base import Cell
from torchturbo.settings._edits import Raw
from torchturbo.testing import pretend_hardware


@pytest.mark.parametrize("make", [Ours, Plain])
@pytest.mark.parametrize("law", [whole.walks_back, whole.exit_refused, whole.late_refused])
def test_what_fails_leaves_no_trace(law: Any, make: Maker) -> None:
    law(make)


def test_an_entry_that_fails_at_any_cell_of_torch_leaves_no_trace() -> None:
    isolated(lambda: whole.entry_is_whole(everything_at_once()))


# ------------------------------------------------------------------------------------------------------------- blocks


@contextmanager
def on_trial(name: str, cell: Cell) -> Iterator[None]:
    """A cell on trial in the place of a setting's own, in every block that is made meanwhile."""
    setting = SETTINGS[name]
    settings = {**SETTINGS, name: with_cell(setting, setting.cells[0], cell)}
    # A machine of its own, so that no plan that was made before is used.
    with patch.object(_plan, "SETTINGS", settings), pretend_hardware(replace(EVERYTHING)):
        yield


def stubborn(cell: Cell) -> Cell:
    """It can be written once, and not put back."""
    written: list[Raw] = []

    def write(raw: Raw, over: Raw) -> None:
        if raw in written:
            raise RuntimeError("not again")
        written.append(over)
        cell.write(raw, over)

    return replace(cell, write=write)


OPTIONS = {"cudnn_benchmark": True, "grad": False, "deterministic": True, "flash_sdp": False}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("planted", [None, ValueError("the body's"), KeyboardInterrupt("the body's")], ids=repr)
def test_a_block_of_which_one_cell_cannot_be_put_back(name: str, newer: bool, planted: BaseException | None) -> None:
    (cell, *_) = SETTINGS[name].cells
    before, found = look(), cell.read()
    with on_trial(name, stubborn(cell)):
        block, other = ours(**OPTIONS), ours(anomaly=True)
        block.__enter__()
        inside = cell.read()
        if newer:
            other.__enter__()
        try:
            block.__exit__(type(planted) if planted else None, planted, None)
        except RestoreError as error:
            assert planted is None, "the body's own exception is the one that is seen"
            said = str(error)
        else:
            assert planted is not None
            said = "".join(planted.__notes__)
            del planted.__notes__
        if newer:
            other.__exit__(None, None, None)
    assert cell.name in said
    assert cell.read() == inside
    cell.write(found, inside)
    assert not differences(before, look())


@pytest.mark.parametrize("leaving", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_forgotten_generator_is_collected_half_way(name: str, leaving: bool) -> None:
    (cell, *_) = SETTINGS[name].cells
    before = look()

    def collect() -> None:
        if garbage:
            garbage.clear()
            gc.collect()  # closes the generator, and with it its block

    def read() -> Raw:
        if not leaving:
            collect()
        return cell.read()

    def write(raw: Raw, over: Raw) -> None:
        cell.write(raw, over)
        if leaving and raw == found:
            collect()

    def forgotten() -> Iterator[None]:
        with ours(anomaly=True, **OPTIONS):
            yield

    def forget() -> None:
        generator = forgotten()
        next(generator)
        ring: list[object] = [generator]
        ring.append(ring)
        garbage.append("is waiting")

    garbage: list[str] = []
    found = None
    gc.collect()
    gc.disable()
    try:
        with on_trial(name, replace(cell, read=read, write=write)):
            forget()
            found = cell.read()
            with ours(**{**OPTIONS, name: not OPTIONS[name]}):
                assert bool(garbage) == torch.is_anomaly_enabled() == leaving
                assert cell.read() != found
    finally:
        gc.enable()
    assert not garbage
    assert not differences(before, look())
