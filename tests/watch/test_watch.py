"""A watched loader is the loader: the same batches, its length, its attributes; and nothing stays when a loop ends."""

from __future__ import annotations

import copy
import gc
import io
import json
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import make_dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, TensorDataset

from tests.laws.look import differences, look
from torchturbo import cached, watch
from torchturbo._watch import timeline
from torchturbo._watch.batches import samples_in, tokens_in
from torchturbo._watch.lines import Lines, prompt
from torchturbo._watch.run import Run, run_of
from torchturbo._watch.timeline import COMPUTING, OPTIMIZER, WAITING, Timeline, Times
from torchturbo.errors import OptionValueError, TargetError

DATA = TensorDataset(torch.arange(40.0).reshape(20, 2), torch.arange(20))


def watching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "torchturbo.watch"]


def test_it_is_the_loader() -> None:
    loader = DataLoader(DATA, batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(1))
    watched = watch(loader, show=None)
    assert len(watched) == 7
    assert watched.batch_size == 3
    assert watched.dataset is DATA
    assert repr(watched) == f"watch({loader!r})"
    with pytest.raises(AttributeError, match="DataLoader"):
        _ = watched.no_such_thing
    ours = [batch[1].tolist() for _ in range(2) for batch in watched]
    loader.generator.manual_seed(1)
    assert ours == [batch[1].tolist() for _ in range(2) for batch in loader]
    assert copy.copy(watched).batch_size == 3
    states = []
    for each in (DataLoader(DATA, shuffle=True), watch(DataLoader(DATA, shuffle=True), show=None)):
        torch.manual_seed(0)
        list(each)
        states.append(torch.get_rng_state().tolist())
    assert states[0] == states[1], "nothing is drawn"
    assert iter(watched)._num_yielded == 0, "its iterator is the loader's in all else"


class Stream(torch.utils.data.IterableDataset[int]):
    """More numbers than it says."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[int]:
        return iter(range(5))


def test_what_is_cached_goes_by_its_own_name() -> None:
    data = TensorDataset(torch.ones(4, 1))
    for each in (DataLoader(cached(data)), iter(cached(DataLoader(data)))._dataset):
        assert run_of(each).name == "TensorDataset"


def test_a_stream_is_not_asked_for_its_length_in_its_own_name() -> None:
    watched = watch(DataLoader(Stream(), batch_size=None), show=None, alert=None)
    assert [int(number) for number in watched] == [0, 1, 2, 3, 4], "torch would warn that these are too many"
    assert watched.seen is not None
    assert watched.seen.loops[0].of == 3


def test_a_place_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(iter(watch([1, 2], show="json", to=tmp_path / "no" / "such" / "folder")))
    closed = io.StringIO()
    closed.close()
    assert list(watch([1, 2], show="json", to=closed)) == [1, 2], "who cannot be told does not end the loop"


def test_what_cannot_be_watched_is_refused() -> None:
    with pytest.raises(TargetError, match=r"a DataLoader, and int cannot be iterated: write `for batch in watch"):
        watch(3)  # type: ignore[arg-type]
    for wrong, says in (
        ({"every": 0}, r"every=0: expected seconds, at least 0.01"),
        ({"after": -1}, r"after=-1: expected seconds"),
        ({"alert": 70}, r"alert=70: expected a share from 0 to 1"),
        ({"alert": "70 %"}, r"alert='70 %': expected a share from 0 to 1"),
        ({"show": "bars"}, r"show='bars': expected one of 'auto', 'bar', 'lines', 'json', or None"),
    ):
        with pytest.raises(OptionValueError, match=says):
            watch([1], **wrong)  # type: ignore[arg-type]


def _left_in_the_middle() -> None:
    for _ in watch([1, 2, 3], to=io.StringIO()):
        assert len(watching()) == 1
        break


def _raising() -> None:
    for _ in watch([1, 2, 3], to=io.StringIO()):
        raise KeyError


def _failing() -> Iterator[int]:
    yield 1
    raise OSError("the disk is gone")


def test_nothing_is_left_however_a_loop_ends() -> None:
    before = look()
    for _ in watch([1, 2, 3], to=io.StringIO()):
        pass
    assert not watching()
    _left_in_the_middle()
    assert not watching()
    with pytest.raises(KeyError):
        _raising()
    with pytest.raises(OSError, match="the disk is gone"):
        list(watch(_failing(), to=io.StringIO()))
    iterator = iter(watch([1, 2], to=io.StringIO()))
    next(iterator)
    held = [iterator]
    held.append(held)  # type: ignore[arg-type]
    del iterator, held
    gc.collect()
    assert not watching()
    assert timeline.here.holder.session is None
    assert not differences(before, look())


def test_a_thousand_loops_leave_no_thread_and_no_memory() -> None:
    out = io.StringIO()
    watched = watch([1], to=out)

    def loops(count: int) -> None:
        for _ in range(count):
            for _ in watched:
                pass

    def kept() -> Counter[str]:
        gc.collect()
        kinds = (type(each) for each in gc.get_objects())
        return Counter(
            kind.__name__ for kind in kinds if str(kind.__module__).startswith(("torchturbo._watch", "threading"))
        )

    loops(100)
    threads, before = threading.active_count(), kept()
    loops(900)
    assert threading.active_count() == threads
    # Of what is over in no time, the judge keeps a few pieces.
    assert kept() - before <= Counter(Window=21, Times=21)
    assert out.getvalue().count("\n") == 1, "one line is enough for a thousand loops in a second"


def test_a_name_that_a_stream_has_no_letters_for_is_told_of_all_the_same() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    list(watch([1], name="Épreuve", show="lines", to=out))
    assert out.buffer.getvalue().startswith(rb"torchturbo: \xc9preuve 1 of 1, ")  # type: ignore[attr-defined]


def test_no_thread_where_there_is_nothing_to_look_for() -> None:
    watched = watch([1, 2], show=None, alert=None)
    for _ in watched:
        assert not watching()
    assert watched.seen is not None
    assert watched.seen.loops[0].steps == 2


def test_a_step_costs_a_few_calls_and_keeps_nothing() -> None:
    """What a step costs is what it calls: timing is for `benchmarks/watching.py`."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    calls = 0
    ours = timeline.__file__.rpartition("/")[0]

    def count(frame: FrameType, event: str, _: Any) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(ours)

    def train(steps: int) -> None:
        batches = [DATA.tensors[0]] * steps
        for batch in watch(batches, show=None, alert=None):
            optimizer.zero_grad()
            model(batch).sum().backward()
            optimizer.step()

    counted = []
    for steps in (10, 110):
        calls = 0
        sys.setprofile(count)
        try:
            train(steps)
        finally:
            sys.setprofile(None)
        counted.append(calls)
    assert (counted[1] - counted[0]) / 100 <= 12


def test_json_lines_and_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "seen.jsonl"
    for _ in watch(DataLoader(DATA, batch_size=5), name="train", show="json", to=path, every=0.01):
        time.sleep(0.01)
    told = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(told) > 1
    assert [told[0]["over"], told[-1]["over"]] == [False, True]
    (loop,) = told[-1]["loops"]
    assert (loop["name"], loop["steps"], loop["of"]) == ("train", 4, 4)
    assert loop["samples_per_second"] == pytest.approx(5 * loop["steps_per_second"])
    assert told[-1]["waiting"] + told[-1]["computing"] + told[-1]["optimizer"] == pytest.approx(1)
    for _ in watch(DataLoader(DATA, batch_size=5)):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("torchturbo: TensorDataset 4 of 4, ")
    assert err.count("\n") == 1


def test_only_the_first_process_of_a_launch_tells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for _ in watch([1, 2]):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_loop_in_a_loop_is_shown_beneath_it() -> None:
    outer = watch([1, 2, 3], name="train", show=None, alert=None)
    inner = watch([1, 2], name="check", show=None, alert=None)
    for batch in outer:
        if batch == 2:
            for _ in inner:
                assert outer.seen is not None
                assert [loop.name for loop in outer.seen.loops] == ["train", "check"]
    assert inner.seen is not None
    assert [loop.name for loop in inner.seen.loops] == ["train", "check"]
    assert outer.seen is not None
    assert [loop.steps for loop in outer.seen.loops] == [3]


def test_loops_side_by_side() -> None:
    first, second = (watch([1, 2, 3], show=None, alert=None) for _ in range(2))
    assert list(zip(first, second, strict=True)) == [(1, 1), (2, 2), (3, 3)]
    assert timeline.here.holder.session is None


def test_where_the_time_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(timeline, "clock", lambda: now[0])
    line = timeline.here.holder.timeline = Timeline(0.0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    try:
        timeline.hear(line)
        assert line.turns_to(WAITING, 1.0) is COMPUTING
        assert line.read(3.0) == Times(waiting=2.0, computing=1.0), "what goes on counts"
        line.turns_to(COMPUTING, 4.0)
        now[0] = 5.0

        def closure() -> float:
            now[0] = 8.0
            return 0.0

        optimizer.step(closure)
        assert line.read(9.0) == Times(waiting=3.0, computing=3.0, optimizer=3.0)

        def failing() -> float:
            raise ValueError("no loss")

        with pytest.raises(ValueError, match="no loss"):
            optimizer.step(failing)
        assert line.at[0] is OPTIMIZER, "torch tells nobody of a step that raises"
        run = Run("", None, None, 0, None)
        run.session = type("Session", (), {"timeline": line, "holder": timeline.here.holder, "pending": None})()
        run.steps = 1
        assert run.take(lambda: 1) == 1
        assert line.at[0] is COMPUTING
    finally:
        timeline.hear_no_more(line)
        timeline.here.holder.timeline = None


def test_what_a_batch_tells() -> None:
    rows, ids = torch.zeros(4, 3), torch.zeros(4, 7, dtype=torch.int64)
    assert [samples_in(batch) for batch in (rows, [rows, 1], {"a": "", "input_ids": ids}, ["a", "b"], 5)] == [
        4,
        4,
        4,
        2,
        None,
    ]
    assert samples_in([(rows, 1), (rows, 2), (rows, 3)], 8) == 3, "samples that nobody has collated"
    assert samples_in([["a", "b"], rows]) == 2
    assert samples_in([None] * 9 + [rows]) == 10
    assert samples_in(5, 8) == 8
    assert samples_in(torch.zeros(256, 2), 8) == 8, "nodes of graphs are no samples"
    assert samples_in(torch.zeros(3, 2), 8) == 3, "the last batch of an epoch"
    assert samples_in(type("Batch", (), {"num_graphs": 6})()) == 6
    assert samples_in(make_dataclass("Batch", ["name", "x"])("a", rows)) == 4
    assert samples_in(pack_sequence([rows, rows[:3]])) == 2, "sequences, and not their steps"
    assert tokens_in({"input_ids": ids}) == 28
    assert tokens_in((ids, ids)) == 28
    assert [tokens_in(batch) for batch in ((rows, ids), (rows, rows), [ids], rows, {"a": rows})] == [None] * 5


def test_lines_are_the_users_own() -> None:
    lines = Lines()

    def work() -> None:
        lines.note(sys._getframe(), WAITING)
        list(map(lambda _: nn.Sequential(Noting())(1), range(3)))

    class Noting(nn.Module):
        def forward(self, _: int) -> None:
            json.loads("[1]", object_hook=None, parse_int=lambda _: lines.note(sys._getframe(), COMPUTING))

    work()
    assert [line.function.rpartition(".")[2] for line in lines.most(WAITING)] == ["work"]
    (line,) = lines.most(COMPUTING, OPTIMIZER)
    assert line.file == __file__
    assert line.share == 1.0
    assert "json.loads" in line.text
    assert str(line).startswith("test_watch.py:")


def test_pythons_lock_is_asked_for_sooner_only_while_somebody_looks() -> None:
    before = sys.getswitchinterval()
    prompt.begin()
    prompt.begin()
    assert sys.getswitchinterval() < before
    prompt.end()
    assert sys.getswitchinterval() < before
    prompt.end()
    assert sys.getswitchinterval() == before
    prompt.begin()
    sys.setswitchinterval(0.002)
    prompt.end()
    assert sys.getswitchinterval() == pytest.approx(0.002), "what somebody else has set stays"
    sys.setswitchinterval(before)
    prompt.begin()
    prompt.forget()
    assert sys.getswitchinterval() == before


def test_workers_are_forked_in_a_watched_loop() -> None:
    loader = DataLoader(DATA, batch_size=5, num_workers=1)
    with warnings.catch_warnings():
        # From Python 3.12 on it warns of forks beside threads, and a loader has some of its own.
        warnings.simplefilter("ignore", DeprecationWarning)
        for _ in watch([1], to=io.StringIO()):
            assert [len(batch[1]) for batch in watch(loader)] == [5] * 4
