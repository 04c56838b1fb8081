"""A report as a dictionary, as JSON, as text at any width, and as HTML."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.report.facts import OPEN, facts
from torchturbo import __version__, turbo
from torchturbo._catalogue import OPTIONS
from torchturbo._environment import Found
from torchturbo._report import gather, words
from torchturbo._report.data import Contradiction, Report, Versions
from torchturbo.hardware import Reading
from torchturbo.testing import MACHINES, pretend_hardware

WIDTHS = (80, 100, 120)


@pytest.fixture
def full() -> Report:
    """A report in which every part has something to say, some of it in signs that HTML and markup give a meaning."""
    with pretend_hardware("T4"), turbo("exact"), turbo("fast", matmul_precision="medium", num_threads=1) as active:
        told = gather(active)
    return replace(
        told,
        readings=(Reading(0, 42, 5 * 1024**3, 61.6, 70, 600, 1590, ("heat: it is <hot>", "power cap: it draws")),),
        environment=(Found("NVIDIA_TF32_OVERRIDE", "<0>", "does & more", "read soon", "no"),),
        contradictions=(Contradiction("matmul_precision", ("get()",), "says [bold]", "x = 1"),),
        advice=("Do <this> & [red]that[/red].",),
    )


def test_a_row_is_had_by_the_name_of_its_option() -> None:
    report = facts()
    assert report["tf32"] is next(row for row in report if row.name == "tf32")
    with pytest.raises(KeyError, match="there is no option 'tf23': did you mean 'tf32'"):
        report["tf23"]


# ------------------------------------------------------------------------------------------- dictionary, JSON


def test_the_dictionary_holds_everything_in_plain_things(full: Report) -> None:
    told = full.to_dict()
    assert set(told) == {
        "options", "blocks", "about", "hardware", "readings", "versions", "environment", "contradictions", "compiled",
        "advice",
    }  # fmt: skip
    assert list(told["options"]) == [*OPTIONS, "float8"]
    assert told["options"]["matmul_precision"] == {
        "area": "float32",
        "members": [],
        "help": OPTIONS["matmul_precision"].help,
        "scope": "process",
        "now": "highest",
        "before": "highest",
        "asked": "medium",
        "origin": "argument",
        "where": full.blocks[1].where,
        "held": True,
        "effective": False,
        "reason": "TF32 needs compute capability 8.0, and Tesla T4 does not have it",
        "note": f"highest is still in force from profile exact, tf32=False ({full.blocks[0].where})",
    }
    assert told["options"]["autocast"]["now"] is None
    assert told["about"] == told["blocks"][1]
    assert told["blocks"][1]["overrides"] == {"matmul_precision": "medium", "num_threads": 1}
    assert told["hardware"]["gpus"][0]["capability"] == [7, 5]
    assert told["readings"][0]["throttle"] == ["heat: it is <hot>", "power cap: it draws"]
    assert told["versions"]["torchturbo"] == __version__
    assert told["environment"][0]["value"] == "<0>"
    assert told["contradictions"][0]["getters"] == ["get()"]
    assert told["advice"] == list(full.advice)


@pytest.mark.parametrize("machine", ["T4", "H100", "cpu-bf16"])
def test_the_dictionary_says_what_the_hardware_has(machine: str) -> None:
    told, hardware = facts(machine).to_dict()["hardware"], MACHINES[machine]
    assert told["device_type"] == hardware.device_type
    for name in ("has_tf32", "has_bf16", "has_fp16_tensor_cores", "has_fp8"):
        assert told[name] is getattr(hardware, name)


def plain_things(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value)
        for its in value.values():
            yield from plain_things(its)
    elif isinstance(value, list):
        for its in value:
            yield from plain_things(its)
    else:
        yield value


def test_json_goes_round(full: Report) -> None:
    assert json.loads(full.to_json()) == full.to_dict()
    assert all(type(its) in (str, int, float, bool, type(None)) for its in plain_things(full.to_dict()))
    assert full.to_json(indent=None).count("\n") == 0
    assert full.to_json().splitlines()[1].startswith('  "')


def test_what_json_has_no_word_for_becomes_text() -> None:
    odd = facts(rows={"anomaly": {"now": Path("somewhere")}})
    assert odd.to_dict()["options"]["anomaly"]["now"] == "somewhere"


def test_what_is_no_number_in_json_is_text() -> None:
    told = json.loads(facts(readings=(Reading(0, power=float("nan")),)).to_json(), parse_constant=pytest.fail)
    assert told["readings"][0]["power"] == "nan"


def test_it_pickles(full: Report) -> None:
    assert pickle.loads(pickle.dumps(full)) == full


@pytest.mark.parametrize(
    ("cudnn", "dotted"), [(91002, "9.10.2"), (8902, "8.9.2"), (90000, "9.0.0"), (90100, "9.1.0"), (None, None)]
)
def test_versions_are_said_as_people_say_them(cudnn: int | None, dotted: str | None) -> None:
    build = replace(MACHINES["A100"].build, cudnn=cudnn)
    told = Versions.of(build)
    assert told.cudnn == dotted
    assert told == Versions(__version__, build.torch, build.cuda, build.hip, dotted, build.python, build.platform)


# ------------------------------------------------------------------------------------------------------ words


def test_values_read_as_people_type_them_and_none_reads_off() -> None:
    report = facts("A100", {"autocast": {"now": None}, "cublas_workspace": {"now": None}, "anomaly": {"now": False}})
    told = {row.name: words.value(row, row.now) for row in report}
    assert (told["autocast"], told["cublas_workspace"], told["anomaly"]) == ("off", "not set", "False")
    assert words.value(report["autocast"], "bf16") == "bf16"


def test_state_that_torch_lacks_reads_as_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    report = facts()
    monkeypatch.setattr(OPTIONS["anomaly"], "cells", ())
    assert words.value(report["anomaly"], None) == "-"


def test_before_is_told_of_what_was_asked_for_or_has_changed() -> None:
    rows = {
        "anomaly": {"now": True, "before": False},
        "grad": {"now": True, "before": True, "origin": "argument"},
        "math_sdp": {"now": True, "before": True},
    }
    report = facts(rows=rows)
    assert [words.before(report[name]) for name in rows] == ["False", "True", ""]


@pytest.mark.parametrize(
    ("effective", "reason", "acts"),
    [(True, None, "yes"), (True, "why", "part"), (False, "why", "no"), (False, None, "no")],
)
def test_whether_it_acts(effective: bool, reason: str | None, acts: str) -> None:
    assert words.acts(facts(rows={"tf32": {"effective": effective, "reason": reason}})["tf32"]) == acts


def test_each_sentence_has_one_number_in_the_order_of_the_table() -> None:
    rows: dict[str, dict[str, Any]] = {row.name: {"note": None, "reason": None} for row in facts()}
    rows["flash_sdp"]["reason"] = "first"
    rows["grad"] |= {"note": "second", "reason": "third"}
    rows["autocast"] |= {"note": "first", "reason": "third"}
    report = facts(rows=rows)
    numbers = words.footnotes(report)
    assert list(numbers.items()) == [("first", 1), ("second", 2), ("third", 3)]
    cells = words.cells(report["grad"], numbers, wide=False)
    assert (cells[1], cells[-1]) == ("True (2)", "part (3)")


def test_a_row_in_cells() -> None:
    row = replace(facts("A100")["anomaly"], now=True, before=False, origin="profile debug")
    assert words.cells(row, {}, wide=True) == ("anomaly", "True", "False", "profile debug", "process", "yes")
    assert words.cells(row, {}, wide=False)[3] == "debug"
    assert words.cells(replace(row, origin="argument"), {}, wide=False)[3] == "argument"
    assert words.cells(replace(facts()["anomaly"], scope=None), {}, wide=True)[3:5] == ("", "-")
    assert words.COLUMNS == ("option", "now", "before", "asked by", "scope", "acts")


def test_the_machine_in_lines() -> None:
    _, gpu = words.hardware(facts("H100"))
    assert gpu == (
        "GPU 0: NVIDIA H100 80GB HBM3, capability 9.0, 79.6 GiB, driver 570.86.15; "
        "has TF32, bf16, fp16 tensor cores, fp8"
    )
    cpu, gpu, *reasons = words.hardware(facts("apple"))
    assert cpu == "CPU: Apple M1 Max, 10 cores, kernels for DEFAULT; has fp16; no AVX-512, bf16, AMX"
    assert gpu == "GPU: Apple M1 Max, 32 GiB shared with the CPU"
    assert reasons == [*MACHINES["apple"].reasons]
    assert next(words.hardware(facts("cpu"))).endswith("; no AVX-512, bf16, fp16, AMX")


def test_what_the_machine_does_not_tell_is_not_made_up() -> None:
    a100, apple = MACHINES["A100"], MACHINES["apple"]
    assert apple.mps is not None
    silent = replace(
        a100,
        cpu=replace(a100.cpu, cores=1),
        gpus=(replace(a100.gpus[0], capability=None, memory=None, driver=None),),
        mps=replace(apple.mps, memory=None),
    )
    cpu, gpu, mps = words.hardware(facts(silent))
    assert ", 1 core, " in cpu
    assert gpu == "GPU 0: NVIDIA A100-SXM4-80GB; no TF32, bf16, fp16 tensor cores, fp8"
    assert mps == "GPU: Apple M1 Max"


def test_a_reading_in_a_line_under_its_gpu() -> None:
    two = replace(MACHINES["T4"], gpus=(MACHINES["T4"].gpus[0], replace(MACHINES["T4"].gpus[0], index=1, memory=None)))
    readings = (
        Reading(1, 7, 1024**3, 61.6, 70, 600, None, ("heat: hot", "idle: idle")),
        Reading(0, 42, 5 * 1024**3, 61.4, 70, 600, 1590, ()),
    )
    _, first, of_first, second, of_second = words.hardware(facts(two, readings=readings))
    assert first.startswith("GPU 0")
    assert (
        of_first.strip() == "now: 42 % busy, 5 GiB of 15 GiB used by all processes, 61 W, 70 degrees C, 600 of 1590 MHz"
    )
    assert second.startswith("GPU 1")
    assert of_second.strip() == (
        "now: 7 % busy, 1 GiB used by all processes, 62 W, 70 degrees C, 600 MHz, heat: hot, idle: idle"
    )


def test_a_reading_that_tells_nothing_takes_no_line_and_zero_is_something() -> None:
    assert len(list(words.hardware(facts("T4", readings=(Reading(0),))))) == 2
    *_, line = words.hardware(facts("T4", readings=(Reading(0, utilization=0, power=0.0, temperature=0),)))
    assert line.strip() == "now: 0 % busy, 0 W, 0 degrees C"


def test_blocks_in_lines() -> None:
    given = replace(OPEN, overrides={"tf32": False, "autocast": None}, where="train.py:9")
    assert list(words.blocks(facts(blocks=(OPEN, given), about=given))) == [
        "1. fast at train.py:7 in MainThread",
        "2. fast, tf32=False, autocast=None at train.py:9 in MainThread (this one)",
    ]
    assert list(words.blocks(facts())) == ["No block is open: this is how torch stands by itself."]


def test_variables_in_lines(full: Report) -> None:
    assert list(words.environment(full)) == ["NVIDIA_TF32_OVERRIDE=<0>: does & more (read soon)"]


def test_the_heading_names_what_there_is() -> None:
    assert "CUDA 12.8, cuDNN 9.10.2, Python" in words.heading(facts("A100"))
    assert "CUDA" not in words.heading(facts("cpu"))
    assert f"torchturbo {__version__}, torch " in words.heading(facts("cpu"))
    versions = replace(facts().versions, hip="6.4")
    assert ", ROCm 6.4, Python" in words.heading(facts(versions=versions))


# ------------------------------------------------------------------------------------------------------- text


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("width", WIDTHS)
def test_text_says_everything_and_stays_within_its_width(full: Report, width: int) -> None:
    text = full.to_text(width)
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii() or set(text) - set(map(chr, range(128))) == {"\N{BOX DRAWINGS LIGHT HORIZONTAL}"}
    said = squeezed(text)
    for sentence in full.advice:
        assert f"* {sentence}" in said
    for sentence, number in words.footnotes(full).items():
        assert f"({number}) {sentence}" in said
    for line in (*words.hardware(full), *words.blocks(full), *words.environment(full), words.heading(full)):
        assert squeezed(line).strip() in said
    for title in ("Open blocks, oldest first", "Hardware", "Environment", "Advice"):
        assert f"\n{title}\n" in text


def lines_of_the_table(text: str) -> list[str]:
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("option "))
    return lines[start : lines.index("", start)]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_name_and_no_word_is_broken_in_the_table(full: Report, width: int) -> None:
    head, rule, *body = lines_of_the_table(full.to_text(width))
    assert head.split("  ")[0] == "option"
    assert set(rule) <= {"\N{BOX DRAWINGS LIGHT HORIZONTAL}", " "}
    assert [line.split()[0] for line in body if not line.startswith(" ")] == [*OPTIONS, "float8"]
    spoken = " ".join(body).split()
    for row in full:
        for cell in words.cells(row, words.footnotes(full), wide=width >= 96):
            assert set(cell.split()) <= set(spoken)


def test_with_room_a_row_takes_one_line_and_names_profiles_as_such(full: Report) -> None:
    _, _, *body = lines_of_the_table(full.to_text(120))
    assert len(body) == len(OPTIONS) + 1
    assert "profile exact, tf32=False" not in " ".join(body)
    assert any(line.startswith("cudnn_precision") and "profile fast, tf32=True" in line for line in body)
    narrow = lines_of_the_table(full.to_text(80))
    assert not any("profile" in line for line in narrow)


def test_the_whole_origin_fits_from_96_columns_on(full: Report) -> None:
    assert len(lines_of_the_table(full.to_text(96))) == len(OPTIONS) + 3
    assert "profile fast" in full.to_text(96)
    assert "profile fast" not in "\n".join(lines_of_the_table(full.to_text(95)))


def test_what_does_not_fit_stands_under_its_words(full: Report) -> None:
    lines = replace(full, advice=("word " * 40 + "end.",)).to_text(80).splitlines()
    start = lines.index("Advice") + 1
    assert lines[start].startswith("  * word")
    assert lines[start + 1].startswith("    word")
    now = next(number for number, line in enumerate(lines) if line.startswith("      now: "))
    assert lines[now + 1].startswith("      ")
    assert not lines[now + 1].startswith("       ")


def test_nothing_is_cut_short_however_long_or_narrow(full: Report) -> None:
    long = "/" + "x" * 150 + "/train.py:7"
    rows = tuple(replace(row, now=long) if row.name == "cublas_workspace" else row for row in full)
    blocks = (replace(OPEN, where=long),)
    text = replace(full, rows=rows, blocks=blocks, advice=(long,)).to_text(80)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert re.sub(r"\s", "", text).count(long) >= 2  # as a block, and as advice; in the table others stand between
    assert text.count("x") >= 450
    narrow = lines_of_the_table(full.to_text(60))
    assert [line.split()[0] for line in narrow if line[0] not in " \N{BOX DRAWINGS LIGHT HORIZONTAL}"][1:] == [
        *OPTIONS,
        "float8",
    ]


def test_text_has_no_empty_sections_and_no_trailing_blanks() -> None:
    text = facts("H100").to_text()
    assert "Environment" not in text
    assert "Advice" not in text
    assert "Open blocks" not in text
    assert "\n\n\n" not in text
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_str_is_its_text_and_repr_is_one_line(full: Report) -> None:
    assert str(full) == full.to_text() == full.to_text(100)
    assert repr(full) == f"<Report: {len(OPTIONS) + 1} options, 2 open blocks, 1 pieces of advice>"


def test_rich_shows_it_in_colours_and_takes_no_text_for_markup(full: Report) -> None:
    console = Console(force_terminal=True, color_system="standard", width=120, force_jupyter=False)
    with console.capture() as captured:
        console.print(full)
    shown = captured.get()
    assert "[red]that[/red]" in shown
    assert "\x1b[32myes\x1b[0m" in shown  # green
    assert "\x1b[35mno (" in shown  # magenta
    assert "\x1b[1mnum_threads" in shown  # bold: asked for and in force
    assert "\x1b[1mautocast" not in shown  # asked for, and left out
    assert "\x1b[1mgrad" not in shown  # in force, and asked for by nobody
    assert "autocast" in shown
    assert "grad" in shown


def test_a_notebook_does_not_colour_text(full: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in full.to_text()


# ------------------------------------------------------------------------------------------------------- HTML

VOID = {"br", "hr", "img"}


class Tags(HTMLParser):
    """Checks that every element is closed where it belongs, and keeps the table and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"div", "p", "b", "table", "thead", "tbody", "tr", "th", "td"}
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data


def test_html_is_sound_and_says_everything(full: Report) -> None:
    page = full._repr_html_()
    tags = Tags(page)
    head, *body = tags.rows
    assert tuple(head) == words.COLUMNS
    numbers = words.footnotes(full)
    assert body == [list(words.cells(row, numbers, wide=True)) for row in full]
    for line in (
        *words.hardware(full),
        *words.blocks(full),
        *words.environment(full),
        *full.advice,
        words.heading(full),
    ):
        assert line.strip() in tags.text
    for sentence, number in numbers.items():
        assert f"({number}) {sentence}" in tags.text
    for title in ("Open blocks, oldest first", "Hardware", "Environment", "Advice"):
        assert f"<b>{title}</b>" in page
    assert "<this>" not in page
    assert "&lt;this&gt; &amp;" in page
    assert page.count('title="') == len(OPTIONS) + 1


def test_html_has_no_empty_sections() -> None:
    page = facts("H100")._repr_html_()
    Tags(page)
    assert "Advice" not in page
    assert "Environment" not in page
    assert "Open blocks" not in page
    assert "No block is open" in page
