"""Every option, whatever its file: one declaration from which all else grows has to be whole. Found by looking."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch

import torchturbo
from tests.laws.catalogue import CELLS, REFUSED_BY_TORCH, VALUES, cases_of, values
from torchturbo import _catalogue
from torchturbo._catalogue import OPTIONS, SETTINGS, Option, declared
from torchturbo._options import Options
from torchturbo.errors import OptionValueError
from torchturbo.hardware import Hardware
from torchturbo.settings._base import Cell, Group, Scope, Setting
from torchturbo.testing import MACHINES

PACKAGE = Path(torchturbo.__file__).parent

every_option = pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
every_setting = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
every_machine = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


class Unlike:
    """No value of any option."""


def spellings(option: Option) -> tuple[object, ...]:
    """Every value that an option takes, or those to try of it, and their other spellings."""
    of_kind = VALUES[option.name] if option.values.kind is not None else ()
    return (*option.values.choices, *of_kind, *option.values.aliases)


@every_option
def test_it_is_named_after_its_variable_in_a_file_named_after_its_area(option: Option) -> None:
    folder = next(folder for folder in ("settings", "regions") if (PACKAGE / folder / f"{option.area}.py").exists())
    module = sys.modules[f"torchturbo.{folder}.{option.area}"]
    assert getattr(module, option.name) is option
    assert option.name.isidentifier()


@every_option
def test_its_help_is_one_sentence(option: Option) -> None:
    assert option.help.split()[0] != option.help.split()[0].lower(), (
        "it begins as a sentence or a name, such as cuBLAS, does"
    )
    assert option.help.endswith(".")
    assert "\n" not in option.help
    assert "  " not in option.help


@every_option
def test_it_is_a_typed_keyword(option: Option) -> None:
    assert Options.__annotations__[option.name].__forward_arg__.replace("'", '"') == option.values.annotation


def test_every_typed_keyword_is_an_option() -> None:
    assert list(Options.__annotations__) == list(OPTIONS)


@every_option
def test_every_spelling_is_one_of_its_values(option: Option) -> None:
    for spelling in spellings(option):
        value = option.parse(spelling)
        again = option.parse(value)
        assert (again, type(again)) == (value, type(value))
    for choice in option.values.choices:
        assert option.parse(choice) is choice


@every_option
@pytest.mark.parametrize("value", [Unlike(), "unlike", 1.5, (), [], {}, b"fast", -1, torch.int8])
def test_what_it_does_not_take_it_refuses_by_name(option: Option, value: object) -> None:
    with pytest.raises(OptionValueError, match=f"^{option.name}="):
        option.parse(value)


@every_option
def test_a_number_is_no_truth_value_and_the_other_way_round(option: Option) -> None:
    takes = {type(spelling) for spelling in spellings(option)} | ({int} if option.values.kind is float else set())
    for value in (0, 1, False, True):
        if type(value) not in takes:
            with pytest.raises(OptionValueError):
                option.parse(value)


@pytest.mark.parametrize("group", [o for o in OPTIONS.values() if isinstance(o, Group)], ids=lambda group: group.name)
def test_a_group_stands_for_values_of_settings(group: Group) -> None:
    for value in group.values.choices:
        members = group.members(value)
        assert len(members) > 1
        for name, its in members.items():
            assert SETTINGS[name].parse(its) == its


@every_setting
def test_what_is_in_force_is_one_of_its_values(setting: Setting) -> None:
    now = setting.now()
    if not setting.cells:
        assert now is None
        assert setting.missing
    elif setting.name not in (
        "alloc_conf",
        "cublas_workspace",
        "cudnn_benchmark_limit",
        "num_workers",
        "persistent_workers",
        "pin_memory",
        "prefetch_factor",
        "seed",
    ):  # these start as nothing, or as torch has it
        assert setting.parse(now) == now


@every_setting
def test_what_cannot_be_is_said_in_a_sentence(setting: Setting) -> None:
    for machine in MACHINES.values():
        for value in values(setting):
            said = setting.refusal(machine, setting.resolve(value, machine))
            assert said is None or (len(said.split()) > 3 and said[-1] not in ".!?\n"), said


@every_setting
def test_an_edit_is_pure_and_a_cell_has_one(setting: Setting) -> None:
    for case in cases_of(setting):
        cells = [cell for cell, _ in case.writes]
        assert len(set(cells)) == len(cells)
        if case.refused:
            continue
        for cell, edit in case.writes:
            beneath = cell.read()
            once = edit(beneath)
            assert edit(beneath) == once
            assert edit(once) == once, "what is in force already needs no change"
            assert cell.read() == beneath


@every_setting
def test_the_value_in_force_is_shown_from_its_cells(setting: Setting) -> None:
    for case in cases_of(setting):
        if not case.refused:
            put = {cell: edit(cell.read()) for cell, edit in case.writes}
            assert {cell.scope for cell in put} <= set(get_args(Scope))
            if set(setting.cells) <= set(put):
                with case.here():
                    assert setting.show(*(put[cell] for cell in setting.cells)) == case.value


@every_cell
def test_a_cell_says_what_it_is(cell: Cell) -> None:
    assert cell.name
    assert cell.scope in get_args(Scope)


def test_no_two_cells_have_one_name() -> None:
    assert len(CELLS) == len(set(CELLS.values()))


@every_machine
def test_what_stands_for_auto_is_another_value(machine: Hardware) -> None:
    for setting in SETTINGS.values():
        # Where it depends on what code comes with, `told` says what it has come to.
        if "auto" in setting.values.choices and setting.told is None:
            resolved = setting.resolve("auto", machine)
            assert resolved != "auto"
            assert setting.parse(resolved) == resolved


def test_what_this_build_refuses_is_still_a_value() -> None:
    for name, value in REFUSED_BY_TORCH:
        assert SETTINGS[name].parse(value) == value


def test_every_setting_without_a_list_of_values_says_what_to_try() -> None:
    assert set(VALUES) == {name for name, setting in SETTINGS.items() if setting.values.kind is not None}


# ----------------------------------------------------------------------------------------------- one that comes later


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A package of settings of somebody's own."""
    package = tmp_path / "their_settings"
    package.mkdir()
    (package / "__init__.py").write_text('"""Settings."""\n')
    (package / "_private.py").write_text("raise ImportError('not to be looked into')\n")
    (package / "compiler.py").write_text(
        "from torchturbo.settings._base import cell, simple\n"
        "speed = simple(cell('_get_warnAlways', '_set_warnAlways'), help='Warn every time.')\n"
        "_hidden = simple(cell('_get_warnAlways', '_set_warnAlways'), help='Not this one.')\n"
        "lacking = simple(cell('_get_nothing', '_set_nothing'), help='Not here.', missing='it needs torch 9')\n"
        "number = 5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("their_settings")
    for name in [name for name in sys.modules if name.startswith("their_settings")]:
        del sys.modules[name]


def test_a_setting_is_found_by_looking(folder: types.ModuleType) -> None:
    speed, lacking = declared(folder)
    assert (speed.name, speed.area) == ("speed", "compiler")
    assert isinstance(speed, Setting)
    assert speed.now() is False
    assert isinstance(lacking, Setting)
    assert (lacking.name, lacking.now(), lacking.cells) == ("lacking", None, ())
    assert lacking.refusal(MACHINES["H100"], True) == "it needs torch 9"


def test_every_file_of_settings_and_regions_is_looked_into() -> None:
    for folder in ("settings", "regions"):
        files = {path.stem for path in (PACKAGE / folder).glob("*.py") if not path.stem.startswith("_")}
        areas = {option.area for option in OPTIONS.values()}
        assert files <= areas, f"no option is declared in {files - areas}"
    assert set(_catalogue.CELLS) <= set(CELLS.values())
