"""Every cell and setting of the catalogue, broken in each of a few ways; generated, so that a new one is broken too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from tests.laws.catalogue import CELLS, Case, cases, cases_of, values, with_cell
from tests.laws.exclusive import exclusive
from tests.laws.faithful import faithful, scope_is_true
from torchturbo._catalogue import SETTINGS
from torchturbo.hardware import Hardware
from torchturbo.settings._base import Cell, Setting, Write
from torchturbo.settings._edits import Raw


def otherwise() -> None:
    """A state to start from that is unlike torch's own in every setting. For use in a child only."""
    for device in ("cpu", "cuda", "mps", "xpu"):
        usual = torch.get_autocast_dtype(device)
        torch.set_autocast_dtype(device, torch.float16 if usual == torch.bfloat16 else torch.bfloat16)
        torch.set_autocast_enabled(device, True)
    for setting in SETTINGS.values():
        now = setting.now()
        other = next((case for case in cases_of(setting) if not case.refused and case.value not in (now, None)), None)
        if other is not None:
            for cell, edit in other.writes:
                beneath = cell.read()
                cell.write(edit(beneath), beneath)
    try:
        torch._C._set_blas_preferred_backend(torch._C._BlasBackend.Ck)  # a word that the setting does not have
    except RuntimeError:
        assert torch.version.cuda  # where it has others, so that the one above is otherwise enough


def starts() -> Iterator[str]:
    """Puts this process, a child, in one state after the other."""
    yield "as torch starts"
    otherwise()
    yield "otherwise"


def _put_to_the_laws(cases: tuple[Case, ...]) -> None:
    for _ in starts():
        for case in cases:
            faithful(case)
            scope_is_true(case)
            exclusive(case)


# ----------------------------------------------------------------------------------------------------------- cells

Fault = Callable[[Cell], Cell]
Trial = Callable[[], None]


def writes_nothing(cell: Cell) -> Cell:
    """Its write does nothing."""
    return replace(cell, write=lambda raw, over: None)


def is_not_put_back(cell: Cell) -> Cell:
    """It is written, but what was there is not written back."""
    found: list[Raw] = []

    def write(raw: Raw, over: Raw) -> None:
        if raw in found:
            found.clear()
            return
        if raw != over:
            found[:] = [over]
        cell.write(raw, over)

    return replace(cell, write=write)


def writes_another(cell: Cell) -> Cell:
    """It writes another value than it is given, one that other cells of its kind would take."""
    known = _known(cell)

    def write(raw: Raw, over: Raw) -> None:
        cell.write(raw if raw == over else next((other for other in known() if other != raw), raw), over)

    return replace(cell, write=write)


def writes_what_was_there(cell: Cell) -> Cell:
    """Its two arguments are swapped."""
    return replace(cell, write=lambda raw, over: cell.write(over, raw))


def reads_once(cell: Cell) -> Cell:
    """It reads what it read the first time."""
    first: list[Raw] = []

    def read() -> Raw:
        if not first:
            first.append(cell.read())
        return first[0]

    return replace(cell, read=read)


def declares_the_other_scope(cell: Cell) -> Cell:
    """It says that a thread's own state is the process's, or the other way round."""
    return replace(cell, scope="thread" if cell.scope == "process" else "process")


FAULTS: tuple[Fault, ...] = (
    writes_nothing,
    is_not_put_back,
    writes_another,
    writes_what_was_there,
    reads_once,
    declares_the_other_scope,
)

WRITTEN_BY_OTHERS = ("inductor's deterministic",)
"""Cells that no setting changes: they are put back after others. Their mutants are with their area's tests."""


def _known(cell: Cell) -> Callable[[], list[Raw]]:
    """Raw states that some setting would put in the cell, or that are in it now."""
    edits = [edit for case in cases() for its, edit in case.writes if its is cell]

    def known() -> list[Raw]:
        now = cell.read()
        return [now, *(edit(now) for edit in edits)]

    return known


def _of_cell(cell: Cell, fault: Fault) -> Trial:
    def trial() -> None:
        broken = fault(cell)
        _put_to_the_laws(
            tuple(
                replace(case, setting=with_cell(case.setting, cell, broken)) for case in cases() if cell in case.cells
            )
        )

    return trial


# --------------------------------------------------------------------------------------------------------- settings


def shows_the_same(setting: Setting) -> Setting:
    """Its `now` is the same value whatever is in force."""
    same = values(setting)[0]
    return replace(setting, show=lambda *raws: same)


def puts_another(setting: Setting) -> Setting:
    """It puts another of its values in force than it is asked for."""
    possible = {repr(case.value): case for case in cases_of(setting) if not case.refused}

    def edits(value: object, hardware: Hardware) -> tuple[Write, ...]:
        other = next(case for word, case in possible.items() if word != repr(value))
        return setting.edits(other.value, other.hardware)

    return replace(setting, edits=edits)


def puts_nothing(setting: Setting) -> Setting:
    """It puts nothing in force."""
    return replace(setting, edits=lambda value, hardware: ())


def _of_setting(setting: Setting, fault: Callable[[Setting], Setting]) -> Trial:
    def trial() -> None:
        broken = fault(setting)
        _put_to_the_laws(tuple(replace(case, setting=broken) for case in cases_of(setting)))

    return trial


def _faults_of(setting: Setting) -> Iterator[Callable[[Setting], Setting]]:
    accepted = {repr(case.value) for case in cases_of(setting) if not case.refused}
    if accepted:
        yield puts_nothing
    if len(accepted) > 1:  # where this build has one value only, it may well say so always
        yield shows_the_same
        yield puts_another


MUTANTS: dict[str, Trial] = {
    f"{cell.name} {fault.__name__}": _of_cell(cell, fault)
    for cell in CELLS.values()
    if cell.name not in WRITTEN_BY_OTHERS
    for fault in FAULTS
} | {
    f"{setting.name} {fault.__name__}": _of_setting(setting, fault)
    for setting in SETTINGS.values()
    for fault in _faults_of(setting)
}
"""What puts each mutant to the laws, in a child, by the mutant's name."""
