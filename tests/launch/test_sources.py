"""A file, the environment and the command line ask too: one rule for conflicts, one parser, errors that say where."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchturbo import PROFILES, Profile, accelerate, scaler_of, turbo
from torchturbo._catalogue import OPTIONS, SETTINGS
from torchturbo._config import find
from torchturbo._plan import asked, decide
from torchturbo._sources import Given, Sources, parse, read, settled, sources
from torchturbo.errors import ConfigError, OptionNameError, OptionValueError, ProfileNameError, TurboError
from torchturbo.settings._base import Group
from torchturbo.testing import MACHINES

# ------------------------------------------------------------------------------------------- the rule for conflicts

LISTED = {name: option.values.choices for name, option in OPTIONS.items() if option.values.choices}
VALUES = {**LISTED, "num_threads": (1, 2, 3), "accumulate": (1, 2, 4)}
SOME = st.dictionaries(st.sampled_from(sorted(VALUES)), st.integers(0, 3), max_size=4).map(
    lambda drawn: {name: VALUES[name][at % len(VALUES[name])] for name, at in drawn.items()}
)


def said(options: dict[str, object], origin: str) -> dict[str, Given]:
    return {name: Given(value, origin) for name, value in options.items()}


def winner(levels: list[tuple[dict[str, object], str]], name: str) -> tuple[object, str] | None:
    """What the highest rank that speaks of a setting says, told without the planner's own means."""
    for options, origin in reversed(levels):
        if name in options:
            return options[name], origin
        for group, value in reversed(options.items()):
            option = OPTIONS[group]
            if isinstance(option, Group) and name in option.members(value):
                return option.members(value)[name], f"{origin}, {group}={value!r}"
    return None


@given(SOME, SOME, SOME, SOME, SOME, st.booleans())
def test_each_rank_beats_those_before_it(
    profile: dict[str, Any],
    file: dict[str, object],
    code: dict[str, object],
    environment: dict[str, object],
    command: dict[str, object],
    replaced: bool,
) -> None:
    mine = Profile("mine", **profile)
    others = Sources(
        file=said(file, "pyproject.toml:3"),
        environment=said(environment, "TORCHTURBO_X"),
        command=said(command, "--set"),
        profile=(mine, "--profile") if replaced else None,
    )
    names = (PROFILES["max"] if replaced else mine), (" (--profile)" if replaced else "")
    levels = [
        (dict(profile), f"profile mine{names[1]}"),
        (file, "pyproject.toml:3"),
        (code, "argument"),
        (environment, "TORCHTURBO_X"),
        (command, "--set"),
    ]
    wanted = {name: found for name in SETTINGS if (found := winner(levels, name)) is not None}
    assert asked(names[0], code, others) == wanted
    plan = decide(names[0], code, MACHINES["A100"], others)
    assert {d.name: (d.asked, d.origin) for d in plan.decisions} == wanted
    assert plan.profile is mine
    for name, (value, origin) in plan.named.items():
        assert (value, origin) == next((o[name], by) for o, by in reversed(levels) if name in o)


def test_disabled_decides_nothing() -> None:
    plan = decide(PROFILES["fast"], {"num_threads": 1}, MACHINES["A100"], Sources(disabled="TORCHTURBO_DISABLE=1"))
    assert (plan.decisions, plan.writes, plan.named, plan.disabled) == ((), (), {}, "TORCHTURBO_DISABLE=1")


# ------------------------------------------------------------------------------------------------------- the parser


@given(st.sampled_from(sorted(LISTED)), st.integers(0, 9))
def test_every_value_is_read_from_the_text_that_shows_it(name: str, at: int) -> None:
    value = LISTED[name][at % len(LISTED[name])]
    for text in (str(value), str(value).upper(), f" {value} "):
        assert parse(name, text) == value
        assert type(parse(name, text)) is type(value)
    assert parse(name, value) == value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("cudnn_benchmark", "0", False),
        ("cudnn_benchmark", "on", True),
        ("deterministic", "1", True),
        ("num_threads", "4", 4),
        ("accumulate", "1", 1),
        ("init_scale", "1024", 1024.0),
        ("backoff_factor", "0.25", 0.25),
        ("autocast", "bfloat16", "bf16"),
        ("autocast", "off", None),
        ("autocast", "none", None),
        ("cublas_workspace", ":4096:8", ":4096:8"),
        ("compile", "true", "default"),
        ("compile", '{"mode": "max-autotune"}', "max-autotune"),
        ("compile", {"mode": "max-autotune"}, "max-autotune"),
    ],
)
def test_what_people_write(name: str, text: object, value: object) -> None:
    expected = OPTIONS[name].parse(value)
    assert (parse(name, text), type(parse(name, text))) == (expected, type(expected))


# --------------------------------------------------------------------------------------------------------- messages


def toml(text: str) -> Callable[[Path], Sources]:
    def act(folder: Path) -> Sources:
        (folder / "pyproject.toml").write_text(text)
        return read({}, folder)

    return act


def environ(**variables: str) -> Callable[[Path], Sources]:
    return lambda folder: read(variables, folder)


HEAD = '[project]\nname = "x"\n\n[tool.torchturbo]\n'
MESSAGES: list[tuple[type[TurboError], str, Callable[[Path], Sources]]] = [
    (
        OptionNameError,
        "pyproject.toml:5: there is no option 'num_treads': did you mean 'num_threads' or 'num_workers'?",
        toml(HEAD + "num_treads = 4\n"),
    ),
    (
        OptionValueError,
        "pyproject.toml:6: num_threads=0: expected at least 1",
        toml(HEAD + "\nnum_threads = 0\n"),
    ),
    (
        OptionValueError,
        "pyproject.toml:5: cudnn_benchmark=1: expected one of True, False",
        toml(HEAD + "cudnn_benchmark = 1\n"),
    ),
    (
        ProfileNameError,
        "pyproject.toml:5: there is no profile 'fsat': did you mean 'fast'?",
        toml(HEAD + 'profile = "fsat"\n'),
    ),
    (
        ProfileNameError,
        "pyproject.toml:6: there is no profile 'fsat': did you mean 'fast'?",
        toml(HEAD + '[tool.torchturbo.profiles.mine]\nbase = "fsat"\n'),
    ),
    (
        OptionNameError,
        "pyproject.toml:7: there is no option 'autocats': did you mean 'autocast'?",
        toml(HEAD + '[tool.torchturbo.profiles.mine]\nbase = "fast"\n"autocats" = "bf16"\n'),
    ),
    (
        OptionNameError,
        "pyproject.toml:5: there is no option 'autocats': did you mean 'autocast'?",
        toml(HEAD + 'profiles = { mine = { autocats = "bf16" } }\n'),
    ),
    (
        ConfigError,
        "pyproject.toml:5: 'fast' is a built-in profile: give yours another name",
        toml(HEAD + "[tool.torchturbo.profiles.fast]\nnum_threads = 1\n"),
    ),
    (
        ConfigError,
        "pyproject.toml:5: 'a' and 'b' have each other for base",
        toml(HEAD + '[tool.torchturbo.profiles.a]\nbase = "b"\n[tool.torchturbo.profiles.b]\nbase = "a"\n'),
    ),
    (
        ConfigError,
        "pyproject.toml:6: gain=3: expected a sentence",
        toml(HEAD + "[tool.torchturbo.profiles.a]\ngain = 3\n"),
    ),
    (
        ConfigError,
        "pyproject.toml:5: expected a table, as [tool.torchturbo.profiles.mine]",
        toml(HEAD + "profiles.mine = 3\n"),
    ),
    (
        ConfigError,
        "pyproject.toml:5: expected tables, as [tool.torchturbo.profiles.mine]",
        toml(HEAD + "profiles = 3\n"),
    ),
    (
        ConfigError,
        "pyproject.toml:2: expected a table, [tool.torchturbo]",
        toml("[tool]\ntorchturbo = 3\n"),
    ),
    (
        ConfigError,
        "pyproject.toml is not TOML: Invalid value (at line 5, column 15)",
        toml(HEAD + "num_threads = \n"),
    ),
    (
        OptionNameError,
        "TORCHTURBO_NUM_TREADS: there is no option 'num_treads': did you mean 'num_threads' or 'num_workers'?",
        environ(TORCHTURBO_NUM_TREADS="4"),
    ),
    (
        OptionValueError,
        "TORCHTURBO_NUM_THREADS: num_threads='x': expected an int",
        environ(TORCHTURBO_NUM_THREADS="x"),
    ),
    (
        OptionValueError,
        "TORCHTURBO_NUM_THREADS: num_threads=0: expected at least 1",
        environ(TORCHTURBO_NUM_THREADS="0"),
    ),
    (
        ProfileNameError,
        "TORCHTURBO_PROFILE: there is no profile 'fsat': did you mean 'fast'?",
        environ(TORCHTURBO_PROFILE="fsat"),
    ),
    (
        OptionValueError,
        "TORCHTURBO_DISABLE: disable='maybe': expected one of True, False",
        environ(TORCHTURBO_DISABLE="maybe"),
    ),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("error", "message", "act"), MESSAGES, ids=[message[:60] for _, message, _ in MESSAGES])
def test_it_says_where_and_what_instead(
    error: type[TurboError], message: str, act: Callable[[Path], Sources], folder: Path
) -> None:
    with pytest.raises(TurboError) as raised:
        act(folder)
    assert (type(raised.value), str(raised.value)) == (error, message)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None or error is ConfigError


# ------------------------------------------------------------------------------------------------------------ files


def test_the_nearest_file_that_speaks_of_us_is_found_upwards(folder: Path) -> None:
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    assert find(below).path is None
    (folder / "pyproject.toml").write_text("[tool.torchturbo]\nnum_threads = 4\n")
    (folder / "a" / "pyproject.toml").write_text('[project]\ndependencies = ["torchturbo"]\n')
    (below / "pyproject.toml").write_text("broken = and none of ours, though it says torchturbo\n")
    assert read({}, below).file == {"num_threads": (4, "pyproject.toml:2")}
    (folder / "a" / "torchturbo.toml").write_text("num_threads = 2\n")
    assert read({}, below).file == {"num_threads": (2, os.path.join("a", "torchturbo.toml:1"))}
    (folder / "a" / "pyproject.toml").write_text("[tool.torchturbo]\nnum_threads = 3\n")
    assert read({}, below).file["num_threads"].value == 2, "in one folder our own file comes first"


def test_a_file_that_cannot_be_read_is_an_error(folder: Path) -> None:
    (folder / "torchturbo.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"^torchturbo\.toml cannot be read: "):
        read({}, folder)


def test_profiles_are_made_in_a_file_on_top_of_others(folder: Path) -> None:
    (folder / "torchturbo.toml").write_text(
        'profile = "yours"\n[profiles.yours]\nbase = "mine"\ncudnn_benchmark = false\n'
        '[profiles.mine]\nbase = "fast"\nnum_threads = 4\ngain = "Speed."\n[profiles.bare]\ntf32 = true\n'
    )
    found = read({}, folder)
    fast = PROFILES["fast"]
    assert dict(found.profiles["mine"]) == {**fast, "num_threads": 4}
    assert (found.profiles["mine"].name, found.profiles["mine"].gain) == ("mine", "Speed.")
    assert found.profiles["mine"].give == fast.give
    assert dict(found.profiles["yours"]) == {**fast, "num_threads": 4, "cudnn_benchmark": False}
    assert dict(found.profiles["bare"]) == {"tf32": True}
    with settled(found):
        assert repr(turbo()) == "turbo('yours')"
        assert repr(turbo("fast")) == "turbo('fast')", "the code names it, and the code beats the file"
        assert repr(turbo("mine")) == "turbo('mine')"
        with pytest.raises(ProfileNameError, match="did you mean 'mine'"):
            turbo("mien")
    again = pickle.loads(pickle.dumps(found))
    assert again.profiles == found.profiles
    assert again.default == found.default


# ----------------------------------------------------------------------------------- in blocks and what is accelerated


@pytest.fixture
def asks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Nobody has asked for anything yet, and this process has not looked."""
    with settled(None):
        yield monkeypatch


def test_the_environment_beats_the_code_in_every_block(asks: pytest.MonkeyPatch) -> None:
    asks.setenv("TORCHTURBO_NUM_THREADS", "1")
    asks.setenv("TORCHTURBO_PROFILE", "debug")
    asks.setenv("TORCHTURBO_AUTOCAST", "")

    @accelerate(profile="max", num_threads=2)
    def now() -> tuple[int, bool]:
        return torch.get_num_threads(), torch.is_anomaly_enabled()

    assert now() == (1, True)
    with turbo("fast", num_threads=2, anomaly=False) as active:
        assert (torch.get_num_threads(), torch.is_anomaly_enabled()) == (1, False)
        from torchturbo._report import gather

        told = gather(active)
    assert told["num_threads"].origin == "TORCHTURBO_NUM_THREADS"
    assert told["anomaly"].origin == "argument"
    assert told["deterministic"].origin == "profile debug (TORCHTURBO_PROFILE)"
    assert told.blocks[-1].profile == "debug"
    # It is read once; what is set later does not change blocks that are made later.
    asks.setenv("TORCHTURBO_NUM_THREADS", "2")
    assert sources().environment["num_threads"].value == 1
    with settled(None):
        assert sources().environment["num_threads"].value == 2


def test_the_file_beats_the_profile_and_the_code_beats_the_file(asks: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "torchturbo.toml").write_text("anomaly = true\nnum_threads = 1\n")
    with turbo("exact") as active:
        assert (torch.get_num_threads(), torch.is_anomaly_enabled()) == (1, True)
        assert {d.name: d.origin for d in active.plan.decisions}["anomaly"] == "torchturbo.toml:1"
    with turbo("exact", anomaly=False):
        assert not torch.is_anomaly_enabled()


def test_compile_can_be_asked_for_from_outside(asks: pytest.MonkeyPatch) -> None:
    asks.setenv("TORCHTURBO_COMPILE", "1")
    assert turbo("exact").compiles
    assert turbo("exact", compile=False).compiles
    with settled(Sources(disabled="TORCHTURBO_DISABLE=1")):
        assert not turbo("exact", compile=True).compiles


def test_disabled_everything_is_the_identity(asks: pytest.MonkeyPatch) -> None:
    asks.setenv("TORCHTURBO_DISABLE", "1")
    asks.setenv("TORCHTURBO_NUM_TREADS", "not even looked at")

    def function() -> int:
        return torch.get_num_threads()

    class Net(torch.nn.Linear):
        pass

    model, forward = torch.nn.Linear(1, 1), Net.forward
    assert accelerate(function, num_threads=1) is function
    assert accelerate(autocast="fp16")(function) is function
    assert accelerate(model) is model
    assert "forward" not in vars(model)
    assert accelerate(Net).forward is forward
    assert scaler_of(function) is None
    threads = torch.get_num_threads()
    with turbo("debug", autocast="fp16", accumulate=4, num_threads=1) as active:
        assert (torch.get_num_threads(), torch.is_anomaly_enabled()) == (threads, False)
        assert (active.scaler, active.is_last_micro_step, active.plan.decisions) == (None, True, ())
        from torchturbo._report import gather

        told = gather(active)
        active.flush()
    assert told.blocks[-1].disabled == "TORCHTURBO_DISABLE=1"
    assert sum("TORCHTURBO_DISABLE=1 switches torchturbo off" in advice for advice in told.advice) == 1
    assert not any(row.wanted for row in told)
    with pytest.raises(OptionNameError):
        turbo(num_treads=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("value", ["0", "false", "no", ""])
def test_not_disabled(value: str, folder: Path) -> None:
    assert read({"TORCHTURBO_DISABLE": value}, folder).disabled is None
