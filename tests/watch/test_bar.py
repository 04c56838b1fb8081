"""The bar in a terminal: at its bottom, with all that is printed above it, and stdout left alone where it is a file."""

from __future__ import annotations

import io
import os
import sys
import time
from typing import Any

import pytest

from tests.watch.screen import shown, terminal
from torchturbo import watch
from torchturbo._watch.data import Loop, Seen
from torchturbo._watch.machine import OfMachine
from torchturbo._watch.terminal import Bar, _columns
from torchturbo._watch.text import line_of


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_screen_shows_what_is_written() -> None:
    assert shown("one\r\ntwo\r\nbar\r\nbar\r\n\x1b[2A\r\x1b[Jthree\r\n") == ["one", "two", "three", ""]
    assert shown("\x1b[1mab\x1b[0m\rc") == ["cb"]


def test_what_is_printed_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal() as seen:
        monkeypatch.setattr(sys, "stderr", seen.stream)
        monkeypatch.setattr(sys, "stdout", seen.stream)
        for number in watch(range(6), name="train", every=0.02, alert=None):
            print("step", number)
            time.sleep(0.03)
            if number == 3:
                for _ in watch(range(2), name="check"):
                    time.sleep(0.03)
            print("half", end="")
            sys.stdout.write(" a line\n")
        assert sys.stdout is sys.stderr is seen.stream
        monkeypatch.undo()
    *printed, bar, rest, empty = seen.lines
    assert printed == [line for number in range(6) for line in (f"step {number}", "half a line")]
    assert bar.startswith("train 6/6 ━")
    assert "steps/s" in bar
    assert rest.startswith("  waiting ")
    assert empty == ""
    assert "check" in seen.written, "the loop in it was beneath it while it ran"
    assert seen.written.count("\x1b[J") > 5, "it was drawn again and again"
    assert "\x1b[?25" not in seen.written, "the cursor is never hidden, as one who is killed could not bring it back"


def test_a_stdout_that_is_a_file_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    with terminal() as seen:
        monkeypatch.setattr(sys, "stderr", seen.stream)
        monkeypatch.setattr(sys, "stdout", out)
        for number in watch(range(3), every=0.02, alert=None):
            assert sys.stdout is out
            print("step", number)
            time.sleep(0.03)
        monkeypatch.undo()
    assert out.getvalue() == "step 0\nstep 1\nstep 2\n"
    assert seen.lines[0].startswith("range 3/3 ━")


def test_it_is_as_wide_as_the_terminal_that_it_is_drawn_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stdout that goes to a file or a pipe has no width, and stderr's terminal has."""
    monkeypatch.delenv("COLUMNS")
    with terminal() as seen:
        Bar(seen.stream).draw("x" * 115)
    assert seen.lines == ["x" * 115, ""]
    assert _columns(io.StringIO()) == 80


def test_what_somebody_puts_there_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = io.StringIO()
    with terminal() as seen:
        monkeypatch.setattr(sys, "stderr", seen.stream)
        monkeypatch.setattr(sys, "stdout", seen.stream)
        for _ in watch(range(2), every=0.02, alert=None):
            sys.stdout = mine
        assert sys.stdout is mine
        assert sys.stderr is seen.stream
        monkeypatch.undo()


def test_a_short_loop_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal() as seen:
        monkeypatch.setattr(sys, "stderr", seen.stream)
        for _ in range(3):
            assert list(watch(range(3))) == [0, 1, 2]
        monkeypatch.undo()
    assert seen.written == ""


def test_beside_tqdm_it_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    tqdm = pytest.importorskip("tqdm")
    with terminal() as seen:
        monkeypatch.setattr(sys, "stderr", seen.stream)
        for _ in tqdm.tqdm(watch(range(5), every=0.02, alert=None), file=seen.stream, ncols=60):
            time.sleep(0.02)
        monkeypatch.undo()
    assert [line[:5] for line in seen.lines if line] == ["100%|"], "its bar is whole, and the only one"


def test_a_fork_does_not_wait_for_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal() as seen:
        monkeypatch.setattr(sys, "stderr", seen.stream)
        monkeypatch.setattr(sys, "stdout", seen.stream)
        for _ in watch(range(1), every=0.02, alert=None):
            bar: Any = sys.stdout._bar
            bar._pid += 1  # as it is in a fork, in which the lock may be held for ever
            bar._lock = None
            print("a word")
            assert sys.stdout.encoding == seen.stream.encoding
            assert sys.stdout.fileno() == seen.stream.fileno()
            bar._pid = os.getpid()
            bar._lock = __import__("threading").RLock()
            sys.stdout.writelines(["and ", "more\n"])
        monkeypatch.undo()
    assert seen.lines[:2] == ["a word", "and more"]


def test_all_that_can_be_told_is_in_the_line_and_the_bar() -> None:
    loop = Loop("train", 1200, 5000, 65.0, 12.3456, 98_765.0, None, 0.1)
    of_gpu = OfMachine(0, 0.5, 301.4, 61, ("heat: it is hot",), 3 * 2**29, 2**31, 80 * 2**30)
    seen = Seen((loop,), 65.0, 0.4, 0.5, 0.1, 0.5, of_gpu, 2, 65536.0, 3, False)
    line = line_of(seen)
    assert line == (
        "torchturbo: train 1,200 of 5,000, 12.3 steps/s, 98.8k samples/s, waiting 40%, computing 50%, optimizer 10%, "
        "GPU 50%, 301 W, throttled by heat, memory 1.5 GiB of 80 GiB (peak 2 GiB), scale 65536, 3 skipped, 2 recompiles"
    )
    first, second, *_ = str(seen).splitlines()
    assert first.startswith("train 1,200/5,000 ━")
    assert "01:05 < 05:07" in first
    assert second.strip().startswith("waiting 40%  computing 50%")


def test_a_loop_is_a_line_where_there_is_room_and_is_told_of_in_any_case() -> None:
    loop = Loop("ImageFolder", 9, 20, 5.0, 8.76, 26.3, None, 0.5)
    text = Seen((loop,), 5.0, 0.5, 0.4, 0.1, 0.5, OfMachine(), 0, None, None, over=False).to_text(79)
    first, second = text.splitlines()
    assert first.startswith("ImageFolder 9/20 ━")
    assert first.endswith("00:05 < 00:01 8.76 steps/s  26.3 samples/s")
    assert "waiting 50%" in second
    seen = Seen((loop, loop), 5.0, 0.5, 0.4, 0.1, 0.5, OfMachine(memory=2**30, memory_peak=2**30), 0, None, None, False)
    of_39 = seen.to_text(39).splitlines()
    assert of_39[0].startswith("ImageFolder 9/20 ━")
    assert of_39[0].endswith(" 00:05 < 00:01")
    assert of_39[1] == "  8.76 steps/s  26.3 samples/s"
    assert of_39[2] == "  ImageFolder  9/20  00:05 < 00:01", "the loop in it, which has no room for a bar"
    assert of_39[4:] == ["  waiting 50%  computing 40%", "  optimizer 10%", "  memory 1 GiB (peak 1 GiB)"]
    of_26 = seen.to_text(26).splitlines()
    assert of_26[:4] == ["ImageFolder  9/20", "00:05 < 00:01", "  8.76 steps/s", "  26.3 samples/s"]
