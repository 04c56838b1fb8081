"""A profile that was found: written beside what stands in the file, found again, and told where it is not at home."""

from __future__ import annotations

import dataclasses
import os
import stat
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from torchturbo import Tuned, _sources, hardware, turbo
from torchturbo._benchmark.data import Between, Drift
from torchturbo._tune.data import Tried, Tuning
from torchturbo._tune.save import Place
from torchturbo.errors import ConfigError, HardwareWarning
from torchturbo.testing import pretend_hardware


def _tuned(options: dict[str, Any] | None = None, name: str = "tuned") -> Tuned:
    drift = Drift(1e-3, 2e-3, None, 0.1, same=False)
    options = {"num_threads": 1, "autocast": None, "tf32": True} if options is None else options
    return Tuned.of(
        name,
        Tuning(
            options=options,
            speedup=Between(2.0, 1.9, 2.1),
            before=1.0,
            after=0.5,
            drift=drift,
            noise=drift,
            tolerance=0.05,
            reference="exact",
            tried=(Tried({"tf32": True}, "kept", Between(2.0, 1.9, 2.1), drift, 9, ""),),
            rounds=9,
            step="step",
            seconds=10.0,
            budget=120.0,
            interrupted=False,
            hardware=hardware.detect(),
            torch=str(torch.__version__),
            date="2026-11-23",
            notes=(),
        ),
    )


def _read(folder: Path) -> _sources.Sources:
    return _sources.read({}, folder)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(tuned: Tuned, write: Any = True) -> Path:
    place = Place.of(write, tuned.name)
    assert place is not None
    place.write(tuned)
    return place.path


def test_what_is_written_is_found_by_its_name(here: Path) -> None:
    tuned = _tuned()
    assert _write(tuned) == here / "torchturbo.toml"
    found = _read(here)
    assert dict(found.profiles["tuned"]) == dict(tuned)
    assert found.profiles["tuned"].gain == tuned.gain
    with _sources.settled(found), turbo("tuned"):
        assert torch.get_num_threads() == 1
    assert found.measured["tuned"]["speedup"] == [1.9, 2.0, 2.1]


def test_all_else_in_the_file_stays_as_it_is(here: Path) -> None:
    path = here / "torchturbo.toml"
    text = '# mine\nprofile = "mine"   # by default\n\n[profiles.mine]\nbase = "fast"\nseed = 3\n'
    path.write_text(text)
    _write(_tuned())
    assert path.read_text().startswith(text)
    assert set(_read(here).profiles) == {"mine", "tuned"}


def test_it_is_written_again_over_what_was_found_before(here: Path) -> None:
    _write(_tuned())
    once = (here / "torchturbo.toml").read_text()
    _write(_tuned({"num_threads": 2}))
    assert dict(_read(here).profiles["tuned"]) == {"num_threads": 2}
    _write(_tuned())
    assert (here / "torchturbo.toml").read_text() == once


def test_what_was_made_by_hand_is_not_written_over(here: Path) -> None:
    (here / "torchturbo.toml").write_text("[profiles.tuned]\nseed = 1\n")
    with pytest.raises(ConfigError, match=r"made by hand.*tuned_here"):
        Place.of(True, "tuned")


def test_a_table_in_pyproject_is_added_to(here: Path) -> None:
    """A torchturbo.toml beside it would take its place."""
    path = here / "pyproject.toml"
    path.write_text('[project]\nname = "x"\n\n[tool.torchturbo]\nnum_threads = 1\n\n[tool.other]\na = 1\n')
    assert _write(_tuned()) == path
    found = _read(here)
    assert dict(found.profiles["tuned"])["num_threads"] == 1
    assert found.file["num_threads"].value == 1
    assert not (here / "torchturbo.toml").exists()


def test_a_file_of_one_s_own_choice(here: Path) -> None:
    assert _write(_tuned(), here / "mine.toml").read_text().startswith("[profiles.tuned]")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_what_cannot_be_written_to_is_refused_at_once(here: Path) -> None:
    here.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(ConfigError, match="cannot be written to"):
            Place.of(True, "tuned")
    finally:
        here.chmod(stat.S_IRWXU)


def test_what_is_no_toml_is_refused_at_once(here: Path) -> None:
    (here / "mine.toml").write_text("profiles = \n")
    with pytest.raises(ConfigError, match=r"mine\.toml cannot be read"):
        Place.of(here / "mine.toml", "tuned")


def test_a_failing_write_leaves_the_file_and_nothing_beside_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = here / "torchturbo.toml"
    path.write_text("# mine\n")
    place = Place.of(True, "tuned")
    assert place is not None

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ConfigError, match="no space left"):
        place.write(_tuned())
    assert path.read_text() == "# mine\n"
    assert [each.name for each in here.iterdir()] == ["torchturbo.toml"]


def test_on_its_own_machine_it_warns_of_nothing(here: Path) -> None:
    _write(_tuned())
    with _sources.settled(_read(here)), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        turbo("tuned")
    assert told == []


def test_on_another_machine_it_warns_at_the_line_that_asks(here: Path) -> None:
    _write(_tuned())
    with _sources.settled(_read(here)), pretend_hardware("A100"):
        with pytest.warns(HardwareWarning, match=r"measured on .* \(here: NVIDIA A100-SXM4-80GB\)") as told:
            turbo("tuned")
    assert told[0].filename == __file__


def test_with_another_torch_it_warns(here: Path) -> None:
    tuned = _tuned()
    object.__setattr__(tuned, "tuning", dataclasses.replace(tuned.tuning, torch="2.1.0"))
    _write(tuned)
    with _sources.settled(_read(here)), pytest.warns(HardwareWarning, match=r"torch 2\.1 \(here: torch 2\."):
        turbo("tuned")


def test_a_profile_of_one_s_own_that_is_based_on_it_is_one_s_own(here: Path) -> None:
    _write(_tuned())
    with open(here / "torchturbo.toml", "a") as file:
        file.write('\n[profiles.mine]\nbase = "tuned"\nseed = 1\n')
    assert dict(_read(here).profiles["mine"]) == {**_tuned(), "seed": 1}


def test_nothing_is_written_where_nothing_is_asked_for() -> None:
    assert Place.of(False, "tuned") is None


def test_it_shows_itself() -> None:
    text = _tuned().tuning.to_text(100)
    assert "step is 2.00 times as fast with num_threads=1, autocast=None, tf32=True." in text
    assert "tolerance 0.05" in text
    assert max(map(len, text.splitlines())) <= 100
