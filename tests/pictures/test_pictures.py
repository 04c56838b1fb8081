"""What was found in every form that has pictures: what is in it, that it is well-formed, and that it fits."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from tests.pictures.planted import NASTY, comparison, costs, tuning
from torchturbo import _told
from torchturbo._pictures import Bar, Chart, Pictured
from torchturbo._pictures.bars import Bars, drawn
from torchturbo._pictures.charts import Look
from torchturbo.errors import MissingPackageError, OptionValueError

ALL: dict[str, Callable[[], Pictured]] = {"comparison": comparison, "tuning": tuning, "costs": costs}
all_of_them = pytest.mark.parametrize("made", ALL.values(), ids=ALL)

# ------------------------------------------------------------------------------------------------------- terminal


@all_of_them
@pytest.mark.parametrize("width", [50, 80, 160])
def test_text_fits_the_terminal(made: Callable[[], Pictured], width: int) -> None:
    assert max(map(len, made().to_text(width).splitlines())) <= width


def test_a_comparison_tells_each_reason_once() -> None:
    text = comparison().to_text(200)
    assert text.count("cuDNN runs on NVIDIA GPUs") == 1
    assert "no effect here: tf32 (fast, max): TF32 is a format of NVIDIA GPUs, and there is none here\n" in text
    assert "no effect here: cudnn_benchmark (fast, max); cudnn_precision (max): cuDNN runs on" in text
    assert f"{NASTY} failed: RuntimeError: {NASTY}" in text


def test_a_comparison_leaves_out_what_has_no_room_and_never_the_speed_up() -> None:
    def columns(width: int) -> list[str]:
        lines = comparison().to_text(width).splitlines()
        return next(line for line in lines if line.startswith("settings")).split()

    # Whatever the width, no column is squeezed for one that is dearer.
    assert all(columns(width)[0] == "settings" for width in range(50, 130))
    assert columns(160)[-1] == columns(80)[-1] == "drift"
    assert {"samples/s", "half"} <= set(columns(160))
    assert not {"samples/s", "half"} & set(columns(80))
    assert "speed-up" in columns(60)


def test_a_search_tells_what_has_no_effect_once_and_not_in_the_table() -> None:
    text = tuning().to_text(100)
    assert text.count("tf32=True") == 1
    assert "no effect here: tf32=True: TF32 is a format of NVIDIA GPUs" in text
    assert "matmul_precision='medium'" in text


def _bar(low: float | None, value: float, high: float | None, look: Look = "plain") -> Bar:
    return Bar("b", value, f"{value}", low, high, (), look)


@pytest.mark.parametrize(
    ("bar", "blocks", "signs"),
    [
        (_bar(None, 2.0, None), "██████████", "##########"),
        (_bar(1.0, 1.5, 2.0), "█████░░░░░", "#####-----"),
        (_bar(None, 0.5, None), "██▌  │    ", "###  |    "),
        (_bar(None, 0.01, None), "▏    │    ", "|    |    "),
        (_bar(None, 0.0, None), "     │    ", "     |    "),
        (_bar(0.5, 1.0, 99.0), "██▌░░░░░░░", "###-------"),
    ],
)
def test_a_bar_is_as_long_as_it_says_in_blocks_and_in_signs(bar: Bar, blocks: str, signs: str) -> None:
    chart = Chart("t", (Bar("longest", 2.0, "2"),), ((1.0, "one"),))
    assert drawn(bar, chart, 10, ascii_only=False) == blocks
    assert drawn(bar, chart, 10, ascii_only=True) == signs


def test_a_terminal_that_cannot_write_blocks_gets_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii", write_through=True))
    monkeypatch.setenv("COLUMNS", "80")
    _told.show(comparison())
    text = buffer.getvalue().decode("ascii")
    assert "##" in text
    assert "as it is" in text


def test_colours_say_nothing_that_words_do_not() -> None:
    chart = Chart("t", (_bar(None, 2.0, None, "good"), _bar(None, 0.5, None, "bad")))
    console = Console(file=StringIO(), width=60, color_system="truecolor", force_terminal=True)
    with console.capture() as captured:
        console.print(Bars(chart))
    assert "\x1b[32m" in captured.get()
    assert "\x1b[3" not in _told.text_of(Bars(chart), 60)


def test_where_there_is_no_room_there_are_no_bars() -> None:
    assert _told.text_of(Bars(Chart("t", (Bar("a label", 1.0, "a long text"),))), 20) == ""


# ----------------------------------------------------------------------------------------------------------- pages

VOID = {"meta", "br", "img", "link"}


class _Page(HTMLParser):
    """Reads a page and refuses what is not closed, or what would load anything."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        assert not {"src", "href", "onload", "style"} & {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


@all_of_them
def test_a_page_is_whole_and_escaped_and_loads_nothing(made: Callable[[], Pictured]) -> None:
    page = made().to_html()
    read = _Page()
    read.feed(page)
    read.close()
    assert read.open == []
    assert not {"b", "script", "img", "link"} & read.tags
    assert {"table", "svg", "style"} <= read.tags
    assert any(NASTY in text for text in read.text)
    assert "prefers-color-scheme: dark" in page
    assert "http" not in page.replace("https://ui.perfetto.dev", "")
    # The same page is XML, but for its first line; so every drawing is.
    tree = ElementTree.fromstring(page.partition("\n")[2])
    assert [each.tag for each in tree] == ["head", "body"]
    for each in tree.iter("svg"):
        width, height = map(float, each.attrib["viewBox"].split()[2:])
        for shape in each.iter():
            for name, most in (("x", width), ("cx", width), ("x1", width), ("y", height), ("cy", height)):
                assert 0 <= float(shape.get(name, 0)) <= most


def test_a_notebook_gets_a_part_of_a_page_in_its_own_colours() -> None:
    part = comparison()._repr_html_()
    assert part.startswith('<div class="torchturbo">')
    assert "background: #" not in part
    assert ElementTree.fromstring(part).find("h1") is None


def test_a_page_of_a_comparison_has_everything() -> None:
    page = comparison().to_html()
    for what in (
        "1.98 (1.90 .. 2.10)",
        "75 steps",
        "profile=&#x27;fast&#x27;",
        "NVIDIA A100",
        "cuDNN runs on",
        "2.13.0",
    ):
        assert what in page, what


# ------------------------------------------------------------------------------------------------------ matplotlib


@all_of_them
def test_a_picture_by_matplotlib_is_drawn_and_leaves_nothing(made: Callable[[], Pictured], tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    settings, loaded = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
    path = tmp_path / "found.png"
    made().plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == settings
    assert ("matplotlib.pyplot" in sys.modules) == loaded


@all_of_them
def test_nothing_in_a_picture_lies_over_anything_else(made: Callable[[], Pictured]) -> None:
    pytest.importorskip("matplotlib")
    from torchturbo._pictures.plot import figure

    found = made()
    drawing = figure(found._title(), found._charts())
    drawing.canvas.draw()
    panels = [axes.get_tightbbox() for axes in drawing.axes]
    for number, panel in enumerate(panels):
        assert panel.x0 >= 0
        assert panel.x1 <= drawing.bbox.x1 + 1
        assert not any(panel.overlaps(other) for other in panels[number + 1 :])
    for axes in drawing.axes:
        labels = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert not any(one.overlaps(other) for one, other in pairwise(labels))
        legend = axes.get_legend()
        if legend is not None:
            title = axes.title if axes.get_title() else axes._left_title
            assert not legend.get_window_extent().overlaps(title.get_window_extent())


def test_without_matplotlib_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match=r'pip install "torchturbo\[plot\]"'):
        comparison().plot(tmp_path / "found.png")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("found", "found.xyz"):
        with pytest.raises(OptionValueError, match=r"expected a file that ends in one of .*\.png"):
            comparison().plot(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@all_of_them
def test_json_has_every_sample(made: Callable[[], Pictured]) -> None:
    told = json.loads(made().to_json())
    if "rows" in told:
        assert len(told["rows"][0]["samples"]) == 20
    assert NASTY in json.dumps(told, ensure_ascii=False).replace('\\"', '"')
