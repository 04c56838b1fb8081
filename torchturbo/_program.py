"""A plan, ready to be put in force: made once for each profile, overrides and machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from torchturbo._plan import Plan, decide
from torchturbo._ranks import agree_at_entry, settled
from torchturbo._sources import Sources, sources
from torchturbo.hardware import Hardware, detect
from torchturbo.profiles import Profile
from torchturbo.regions._compiled import ASKED, strictly
from torchturbo.regions.autocast import at_once
from torchturbo.settings._base import Cell, Write
from torchturbo.settings._edits import Edit, always, anew, keep, own
from torchturbo.settings._matmul import MATMUL, compiling_changes_matmul
from torchturbo.settings.determinism import INDUCTOR


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A plan, ready to be put in force.

    Attributes:
        hardware: the machine it was made for.
        plan: what it comes from.
        writes: each cell once, with its edit.
        guarded: the same, for where compiling a function in the block would leave something behind.
        anew: the cells that hold something made for each entry.
        ends: whether something is to be done before an entry ends.
    """

    hardware: Hardware
    plan: Plan
    writes: tuple[Write, ...]
    guarded: tuple[Write, ...]
    anew: frozenset[Cell] = frozenset()
    ends: bool = False

    def needed(self) -> tuple[Write, ...]:
        """What an entry now has to hold."""
        writes = self.guarded if "torch._inductor.config" in sys.modules or compiling_changes_matmul() else self.writes
        if not self.anew:
            return writes
        return tuple((cell, always(edit.make()) if isinstance(edit, anew) else edit) for cell, edit in writes)

    def of(self, owned: dict[Cell, object]) -> Program:
        """The program of one `turbo` object.

        Args:
            owned: what that object has of its own, by cell, to which is added what it lacks.
        """
        values = {decision.name: decision.value for decision in self.plan.decisions}
        edits = {
            cell: always(edit.raw(owned[cell] if cell in owned else owned.setdefault(cell, edit.make(values))))
            for cell, edit in self.writes
            if isinstance(edit, own)
        }
        if not edits:
            return self
        writes, guarded = (
            tuple((cell, edits.get(cell, edit)) for cell, edit in kind) for kind in (self.writes, self.guarded)
        )
        return replace(self, writes=writes, guarded=guarded)


Left = tuple[tuple[str, str], ...]
"""Options that somebody else sees to, and who that is."""

_MADE: dict[tuple[Profile, tuple[tuple[str, object], ...], bool, Sources, Left], Program] = {}
_AT_MOST = 256
"""Programs kept: more than code has blocks, and a bound where profiles are made without end."""


def program_of(
    profile: Profile, overrides: tuple[tuple[str, object], ...], strict: bool, left_to: Left = ()
) -> Program:
    """The program on the current hardware, made once.

    Args:
        profile: the values to start from.
        overrides: values that beat the profile's, by option.
        strict: whether what cannot be done is an error, for those that find out later than on entry.
        left_to: what is left to others.
    """
    if not settled():
        agree_at_entry()
    here = detect()
    others = sources()
    program = _MADE.get((profile, overrides, strict, others, left_to))
    if program is None or program.hardware is not here:
        plan = decide(profile, dict(overrides), here, others, dict(left_to))
        edits: dict[Cell, Edit] = {}
        for cell, edit in plan.writes:
            edits[cell] = _after(edits[cell], edit) if cell in edits else edit
        compiles = ASKED in edits
        if strict and compiles:
            edits[ASKED] = _after(edits[ASKED], strictly)
        writes = at_once(edits)
        guarded = (*((cell, keep) for cell in (MATMUL, INDUCTOR) if cell not in edits), *writes)
        if len(_MADE) >= _AT_MOST:
            _MADE.clear()
        # A block that compiles loads inductor, if not now then at the first call of a module in it.
        made = frozenset(cell for cell, edit in writes if isinstance(edit, anew))
        ends = any(isinstance(edit, own | anew) for _, edit in writes)
        program = Program(here, plan, guarded if compiles else writes, guarded, made, ends)
        _MADE[profile, overrides, strict, others, left_to] = program
    return program


def _after(first: Edit, then: Edit) -> Edit:
    if isinstance(then, always | own | anew):
        return then
    if isinstance(first, always):
        return always(then(first.value))
    return lambda beneath: then(first(beneath))
