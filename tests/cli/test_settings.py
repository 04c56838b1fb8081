"""`torchturbo settings`: every option is there, with its values and its state, and the document is the one in docs."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Run
from tools import generate
from torchturbo import turbo
from torchturbo._catalogue import OPTIONS
from torchturbo.cli import _words
from torchturbo.profiles import PROFILES
from torchturbo.testing import pretend_hardware


def test_every_option_is_in_the_table_with_what_it_is(typed: Run) -> None:
    code, out, err = typed("settings")
    assert (code, err) == (0, "")
    told = " ".join(out.split())
    for name, option in OPTIONS.items():
        assert f"\n  {name} " in out
        assert option.help in told
    assert "\nattention\n  flash_sdp                  True      True, False\n" in out


def test_with_room_it_says_who_sees_it(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    _, out, _ = typed("settings")
    assert "\n  grad                       True      thread   True, False\n" in out


def test_one_option_in_full(typed: Run) -> None:
    with pretend_hardware("cpu"):
        code, out, _ = typed("settings", "cudnn_benchmark", "tf32")
    assert code == 0
    for line in (
        "  values        True, False",
        "  now           False; cuDNN runs on NVIDIA GPUs, and there is none here",
        "  seen by       every thread of the process",
        "  declared in   torchturbo/settings/cudnn.py",
        "  environment   TORCHTURBO_CUDNN_BENCHMARK=true",
        "  command line  torchturbo run --set cudnn_benchmark=true train.py",
        "  stands for    matmul_precision, cudnn_precision",
    ):
        assert line in out.splitlines()
    assert "fast (True), max (True)" in out


def test_for_programs(typed: Run) -> None:
    with turbo("exact", num_threads=1):
        told = json.loads(typed("settings", "--json")[1])
    assert list(told) == list(OPTIONS)
    assert told["num_threads"]["now"] == 1
    assert told["num_threads"]["values"] == ["int, at least 1"]
    assert told["matmul_precision"]["values"] == ["highest", "high", "medium"]
    assert told["autocast"]["declared"] == "torchturbo/regions/autocast.py"
    assert told["autocast"]["environment"] == "TORCHTURBO_AUTOCAST"
    assert told["grad"]["profiles"] == {"inference": "False"}
    assert list(json.loads(typed("settings", "--json", "seed")[1])) == ["seed"]


def test_the_document_is_the_one_that_is_generated(typed: Run) -> None:
    """tests/test_generated.py holds that this is the one in docs."""
    (text,) = (text for path, text in generate.generated().items() if path.name == "settings.md")
    assert typed("settings", "--markdown") == (0, text, "")


def test_what_does_not_go_together_and_typos_are_one_line(typed: Run) -> None:
    code, out, err = typed("settings", "--markdown", "seed")
    assert (code, out) == (2, "")
    assert "it takes neither names nor --json" in err.splitlines()[-1]
    code, out, err = typed("settings", "autocst")
    assert (code, out) == (2, "")
    assert "there is no option 'autocst': did you mean 'autocast'?" in err.splitlines()[-1]


def test_words_that_are_completed_are_taken() -> None:
    """tests/test_generated.py holds that they are those of the catalogue."""
    from torchturbo._sources import parse

    for name, values in _words.VALUES.items():
        for value in values:
            assert parse(name, value) in OPTIONS[name].values.choices
    assert list(_words.PROFILES) == list(PROFILES)
