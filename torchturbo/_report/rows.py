"""The table: one row for every option, read from torch, explained by the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from torchturbo import _float8
from torchturbo._catalogue import OPTIONS
from torchturbo._report.data import NOT_SET, Contradiction, Row
from torchturbo._report.engine import Engine
from torchturbo._report.words import value
from torchturbo.errors import OptionValueError
from torchturbo.hardware import Hardware
from torchturbo.settings._base import Group, Scope, Setting

UNREADABLE = "unreadable"
MIXED = "mixed"


def read_rows(engine: Engine, hardware: Hardware, raising: Iterable[Contradiction]) -> tuple[Row, ...]:
    """One row for every option, in the order of the catalogue, and one for float8, which is an option of `accelerate`.

    Args:
        engine: what the open blocks hold.
        hardware: the machine.
        raising: where torch's own getters raise, which becomes a note.
    """
    says = {contradiction.option: contradiction.says for contradiction in raising}
    table: dict[str, Row] = {}
    for name, option in OPTIONS.items():
        if isinstance(option, Setting):
            row = _of_setting(option, engine, hardware)
            table[name] = replace(row, note=_joined(row.note, says.get(name), option.told() if option.told else None))
    for name, option in OPTIONS.items():
        if isinstance(option, Group):
            table[name] = _of_group(option, engine, table)
    return (*(table[name] for name in OPTIONS), _of_float8(hardware))


def _joined(*sentences: str | None) -> str | None:
    return "; ".join(dict.fromkeys(sentence for sentence in sentences if sentence)) or None


def _of_float8(hardware: Hardware) -> Row:
    """What models compute in float8, or why none does here; the newest that was asked to stands for them."""
    count, newest = _float8.converted(), next(reversed(_float8.asked()), None)
    reason = _float8.why_not(hardware) if newest is None else newest.reason
    return Row(
        name="float8",
        area="accelerate",
        members=(),
        help="Multiply in float8 in the linear layers of a model, by torchao: accelerate(model, float8=True).",
        scope="process",
        now=f"{count} {'layer' if count == 1 else 'layers'}" if count else None,
        before=None,
        asked=None if newest is None else newest.float8,
        origin=NOT_SET if newest is None else "accelerate",
        where=None if newest is None else newest.where,
        held=bool(count),
        effective=reason is None,
        reason=reason,
        note="torchao emulates float8, as it was told to" if newest is not None and newest.emulated else None,
    )


# --------------------------------------------------------------------------------------------------- settings


def _of_setting(setting: Setting, engine: Engine, hardware: Hardware) -> Row:
    row = Row(
        name=setting.name,
        area=setting.area,
        members=(),
        help=setting.help,
        scope=setting.scope if setting.cells else None,
        now=None,
        before=None,
        asked=None,
        origin=NOT_SET,
        where=None,
        held=False,
        effective=True,
        reason=None,
        note=None,
    )
    if not setting.cells:
        return _asked_for(replace(row, effective=False, reason=setting.missing), setting, engine)
    try:
        now = setting.now()
        before = setting.show(*engine.found(setting))
    except Exception as error:
        # torch refuses to answer, or answers what no value stands for; the other rows do not need it.
        reason = f"torch does not tell: {type(error).__name__}: {error}"
        return replace(row, now=UNREADABLE, before=UNREADABLE, effective=False, reason=reason)
    why = _without_effect(setting, hardware, now)
    row = replace(row, now=now, before=before, effective=why is None, reason=why)
    return _asked_for(row, setting, engine)


def _without_effect(setting: Setting, hardware: Hardware, now: object) -> str | None:
    """Why a value that nobody asked us for does nothing here; None also for one that the option cannot take."""
    try:
        known = setting.parse(now) == now
    except OptionValueError:
        known = now is None
    return setting.refusal(hardware, now) if known else setting.missing


def _asked_for(row: Row, setting: Setting, engine: Engine) -> Row:
    """The row, with what open blocks have to do with it."""
    decisions = engine.decisions(setting)
    if not decisions:
        return row
    active, newest = decisions[0]
    row = replace(
        row,
        asked=newest.asked,
        origin=newest.origin,
        where=active.where,
        effective=newest.refused is None,
        reason=newest.refused,
    )
    in_force = next(((a, d) for a, d in decisions if d.refused is None), None)
    if in_force is None:
        return row
    put_by, decision = in_force
    row = replace(row, held=True)
    if setting.left_to is not None and (owner := setting.left_to()) is not None:
        return replace(row, effective=False, reason=f"left to {owner}")
    by = f"{decision.origin} ({put_by.where})"
    if (put := setting.show(*engine.put(setting))) != row.now:
        return replace(row, note=f"somebody else has changed it: {by} put {value(row, put)} in force")
    if decision is not newest:
        return replace(row, note=f"{value(row, row.now)} is still in force from {by}")
    return row


# ----------------------------------------------------------------------------------------------------- groups


def _of_group(group: Group, engine: Engine, table: Mapping[str, Row]) -> Row:
    members = tuple(table[name] for name in group.members(group.values.choices[0]))
    scope: Scope = "process" if any(member.scope == "process" for member in members) else "thread"
    asked = engine.asked(group.name, scope)
    now = _together(group, {member.name: member.now for member in members})
    left_out = [member for member in members if not member.effective]
    return Row(
        name=group.name,
        area=group.area,
        members=tuple(member.name for member in members),
        help=group.help,
        scope=scope,
        now=now,
        before=_together(group, {member.name: member.before for member in members}),
        asked=None if asked is None else asked[2],
        origin=NOT_SET if asked is None else asked[1],
        where=None if asked is None else asked[0].where,
        held=any(member.held for member in members),
        effective=len(left_out) < len(members),
        reason=_joined(*(member.reason for member in left_out)),
        note=", ".join(f"{member.name}={value(member, member.now)}" for member in members) if now == MIXED else None,
    )


def _together(group: Group, values: Mapping[str, object]) -> object:
    """The value of a group whose members have these values."""
    for choice in group.values.choices:
        if group.members(choice) == values:
            return choice
    return MIXED
