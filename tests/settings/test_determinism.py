"""Deterministic algorithms: three words for four states, and inductor's own idea of it, which compiling overwrites."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.fresh import Fresh
from tests.laws.catalogue import EVERYTHING, with_cell
from tests.laws.layers import Ours
from tests.laws.mutants_of_cells import writes_nothing
from tests.laws.pristine import in_fork
from tests.laws.violation import Violation, holds
from torchturbo import Profile, turbo
from torchturbo._catalogue import SETTINGS
from torchturbo.settings._base import TORCH, Cell, Setting
from torchturbo.settings.determinism import INDUCTOR, MODE

deterministic = SETTINGS["deterministic"]


@pytest.mark.parametrize(
    ("raw", "word"), [((False, False), False), ((False, True), False), ((True, True), "warn"), ((True, False), True)]
)
def test_four_states_have_three_words(raw: tuple[bool, bool], word: object) -> None:
    assert deterministic.show(raw) == word


@pytest.mark.parametrize(("spelling", "word"), [("error", True), ("default", False), ("warn", "warn")])
def test_the_words_of_the_debug_mode_will_do(spelling: str, word: object) -> None:
    assert deterministic.parse(spelling) == word


def test_off_that_would_only_warn_comes_back_as_that() -> None:
    torch._C._set_deterministic_algorithms(False, warn_only=True)
    try:
        with turbo(Profile("one"), deterministic=True):
            assert MODE.read() == (True, False)
        assert MODE.read() == (False, True)
    finally:
        torch._C._set_deterministic_algorithms(False, warn_only=False)


def test_the_compiler_is_not_loaded_for_it() -> None:
    def check() -> None:
        for name in [name for name in sys.modules if name.startswith("torch._inductor")]:
            del sys.modules[name]
        before = INDUCTOR.read()
        with turbo(Profile("one"), deterministic=True):
            holds("torch._inductor.config" not in sys.modules, "entering has loaded inductor")
        INDUCTOR.write(before, before)
        holds("torch._inductor.config" not in sys.modules, "leaving has loaded inductor")

    in_fork(check)


# -------------------------------------------------------------------------------------------- inductor's configuration

compiles_read_it = pytest.mark.skipif(TORCH < (2, 10), reason="compiling writes it from torch 2.10 on")


def config() -> Any:
    return importlib.import_module("torch._inductor.config")


def as_compiling_does() -> None:
    config().deterministic = torch.are_deterministic_algorithms_enabled()


def is_put_back(setting: Setting) -> None:
    """Whatever a user has said of it, or has not, is there again after a block in which something was compiled."""
    entry = config()._config["deterministic"]
    for said in ("nothing", False, True):
        if said != "nothing":
            config().deterministic = said
        raw = INDUCTOR.read()
        for value in (True, False, "warn"):
            layers = Ours()
            layer = layers.open(setting.edits(value, EVERYTHING))
            as_compiling_does()
            layers.close(layer)
            override = entry.user_override
            override = override.get() if hasattr(override, "get") else override
            holds(override is raw, f"said {said}, in a block {value}: inductor's deterministic is {override}")
            holds(config().deterministic == (said is True), f"said {said}, in a block {value}: it reads otherwise")


def is_put_back_when_loaded_inside(setting: Setting) -> None:
    """The compiler may be loaded in the block: then it is as freshly loaded afterwards."""
    holds("torch._inductor.config" not in sys.modules, "this is to be a process without inductor")
    layers = Ours()
    layer = layers.open(setting.edits(True, EVERYTHING))
    as_compiling_does()
    layers.close(layer)
    holds(config().deterministic is False, "inductor's deterministic stays as the block had it")


def scope_is_true(setting: Setting) -> None:
    """Another thread sees a write if, and only if, the cell is the process's."""
    (cell,) = (cell for cell, _ in setting.edits(True, EVERYTHING) if cell is not MODE)
    config()
    before = cell.read()
    cell.write(True, before)
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(cell.read() is True))
    thread.start()
    thread.join()
    cell.write(before, True)
    holds(
        seen[0] == (cell.scope == "process"), f"another thread {'sees' if seen[0] else 'does not see'} a {cell.scope}'s"
    )


def in_the_wrong_scope(cell: Cell) -> Cell:
    return replace(cell, scope="thread" if cell.scope == "process" else "process")


def must_be_caught(law: Callable[[Setting], None], fault: Callable[[Cell], Cell]) -> None:
    before = INDUCTOR.read()
    try:
        law(with_cell(deterministic, INDUCTOR, fault(INDUCTOR)))
    except Violation:
        INDUCTOR.write(before, None)
        return
    raise Violation(f"{fault.__name__} is not caught by {law.__name__}")


def the_laws_of_inductor() -> None:
    """In one process of their own, which starts without the compiler: loading it takes seconds."""
    is_put_back_when_loaded_inside(deterministic)
    scope_is_true(deterministic)
    is_put_back(deterministic)
    must_be_caught(is_put_back, writes_nothing)
    must_be_caught(scope_is_true, in_the_wrong_scope)


@compiles_read_it
def test_what_compiling_says_of_it_is_undone(fresh_python: Fresh) -> None:
    done = fresh_python(f"from {__name__} import the_laws_of_inductor; the_laws_of_inductor()", seconds=300)
    assert done.returncode == 0, done.stderr
