"""Folders: keyed by content, whole or not there, safe with several at once, and against what others write."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from enum import Enum
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.cached import datasets
from tests.cached.datasets import Items, Ones, Picture, Squares
from torchturbo import cache_of, cached
from torchturbo._cached import content, folder, inputs
from torchturbo._cached.content import digest
from torchturbo.errors import CacheError, CacheWarning


def built(data: Any, where: Path) -> int:
    """How many builds it takes to have all items of a dataset in a folder."""
    return cache_of(cached(data, where)).fill().built


def holds_for_keys(where: Path, file: Path) -> None:
    """The law: what has the same inputs finds all, and what differs in one of them nothing."""
    file.write_text("one")
    assert built(Ones(datasets.drawn_for_nothing, 4), where) > 4
    assert built(Ones(datasets.drawn_for_nothing, 4), where) == 0
    assert built(Ones(datasets.reseeded, 4), where) > 4  # another function
    given: list[Any] = [torch.ones(3), {"b": {2, 1}, "a": "x"}, [1, (None, 2.0)], str(file), Picture(b"a", (1, 2))]
    assert built(Items(given), where) == 5 + 3
    assert built(Items([each if each is not given[0] else given[0].clone() for each in given]), where) == 0
    others: list[tuple[int, Any]] = [
        (0, torch.ones(3).double()),
        (0, torch.tensor([1.0, 1.0, -1.0])),
        (1, {"b": {2, 3}, "a": "x"}),
        (2, [1, (None, 2)]),
        (4, Picture(b"b", (1, 2))),
    ]
    for place, other in others:
        assert built(Items([*given[:place], other, *given[place + 1 :]]), where) == 8
    file.write_text("two")
    assert built(Items(given), where) == 8


def test_the_key_is_the_content_of_what_items_come_of(tmp_path: Path) -> None:
    holds_for_keys(tmp_path / "kept", tmp_path / "file")


def _class_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_of", lambda dataset: {})


def _no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content.Content, "_code", lambda self, code: None)
    monkeypatch.setattr(content.Content, "_function", lambda self, function: None)


def _no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content.Content, "_file", lambda self, name: None)


@pytest.mark.parametrize("mutant", [_class_alone, _no_code, _no_files])
def test_the_law_of_keys_catches(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        holds_for_keys(tmp_path / "kept", tmp_path / "file")


def test_code_that_builds_is_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, found = {}, {}, []
    source = "LEVEL = {}\ndef helper(x): return x + {}\ndef build(x): return helper(x) * LEVEL"
    exec(source.format(1, 1), one)
    for changed in ((1, 1), (2, 1), (1, 2)):
        exec(source.format(*changed), other)
        assert (digest(one["build"]) == digest(other["build"])) == (changed == (1, 1))
        assert (digest(cache(one["build"])) == digest(cache(other["build"]))) == (changed == (1, 1))
        given = ModuleType("given")
        vars(given).update(other)
        exec("def build(x): return given.build(x)", calls := {"given": given})
        found.append(digest(calls["build"]))
    assert len(set(found)) == 3
    assert digest(Items) != digest(Ones)
    assert digest(print) != digest(len)
    kinds = [
        Color.RED,
        Color.BLUE,
        partial(max, 1),
        partial(max, 2),
        np.float32(1),
        np.array([None]),
        "a".join,
        (3).__add__,
    ]
    kinds += [torch.Generator().manual_seed(1), torch.Generator().manual_seed(2), deque([1]), OrderedDict(a=1), torch]
    kinds += [
        threading.Lock(),
        Slotted(1),
        Slotted(2),
        torch.float32,
        Path("a"),
        {1, 2},
        Picture(b"a", (1, 1)).__init__,
    ]
    assert len({digest(each) for each in kinds}) == len(kinds)
    assert [digest(each) for each in kinds] == [digest(each) for each in kinds]
    loop: list[Any] = [1]
    loop.append(loop)
    assert digest(loop) == digest(loop)
    assert digest(torch.nn.Linear(2, 2).requires_grad_(False)) != digest(torch.nn.Linear(2, 2).requires_grad_(False))
    assert digest(torch.ones(2, dtype=torch.complex64)) != digest(torch.ones(2, dtype=torch.complex64) * 1j)
    assert digest(lambda: 1) != digest(lambda: 2)
    monkeypatch.setattr(datasets, "SCALE", 4)
    assert digest([].append) == digest([].append)


class Color(Enum):
    RED, BLUE = 1, 2


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value


def holds_for_kills(where: Path) -> None:
    """The law: whoever is killed at whatever byte, all items are right afterwards."""
    items = [torch.arange(50) + n for n in range(4)]
    for at in (0, 1, 70, 300, 10_000):
        child = multiprocessing.get_context("fork").Process(target=_killed, args=(items, where, at))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        data = cached(Items(items), where)
        assert all(torch.equal(data[n], items[n]) for n in range(4))
        cache_of(data).clear()


def _killed(items: list[Any], where: Path, at: int) -> None:
    data = cached(Items(items), where)
    cache_of(data).clear()
    write = folder._written

    def die(file: Any, piece: memoryview) -> int:
        nonlocal at
        done = write(file, piece[: max(0, at)])
        at -= done
        if at <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    folder._written = die
    for n in (1, 0, 2, 3):  # the first is no sample, which the next would build anyway
        data[n]
    os.kill(os.getpid(), signal.SIGKILL)


def test_whoever_is_killed_leaves_whole_items_or_none(tmp_path: Path) -> None:
    holds_for_kills(tmp_path)
    assert not list(tmp_path.rglob("*.part"))  # what the dead left is removed by the next


def test_the_law_of_kills_catches_who_writes_in_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def in_place(self: Any, path: Path, pieces: list[memoryview]) -> None:
        with path.open("wb", buffering=0) as file:
            for piece in pieces:
                while len(piece):
                    piece = piece[folder._written(file, piece) :]

    monkeypatch.setattr(folder.InFolder, "_write", in_place)
    monkeypatch.setattr(folder, "whole", lambda data: True)  # nor does it look
    with pytest.raises((AssertionError, CacheWarning)):
        holds_for_kills(tmp_path)


def test_a_worker_that_is_killed_leaves_whole_items_or_none_in_memory() -> None:
    items = [torch.arange(50) + n for n in range(4)]
    for at in (0, 1, 70, 300):
        data = cached(Items(items))
        child = multiprocessing.get_context("fork").Process(target=_killed_in_memory, args=(data, at))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        assert torch.equal(data[1], items[1])
        assert cache_of(data).stats().items == 4


def _killed_in_memory(data: Any, at: int) -> None:
    pwrite = os.pwrite

    def die(number: int, piece: memoryview, where: int) -> int:
        nonlocal at
        if len(piece) > 8 and number == data._self_kept.place._file.number:
            pwrite(number, piece[: max(0, at)], where)
            at -= len(piece)
            if at <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return pwrite(number, piece, where)

    os.pwrite = die
    data[1]


def _fills(log: str, where: Path, barrier: Any) -> None:
    barrier.wait(60)
    data = cached(Squares(log), where)
    for n in range(10):
        assert data[n]["pair"].y == n
    os._exit(0 if cache_of(data).stats().items == 10 else 1)


def test_several_processes_at_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(3)
    children = [fork.Process(target=_fills, args=(str(tmp_path / "log"), tmp_path / "kept", barrier)) for _ in range(3)]
    [child.start() for child in children]
    [child.join(60) for child in children]
    assert [child.exitcode for child in children] == [0, 0, 0]
    total = sum(path.stat().st_size for path in tmp_path.rglob("*.item"))
    data = cached(Items([1]), tmp_path / "kept")
    assert data.items == [1]  # type: ignore[attr-defined]
    assert cache_of(data).stats().other_bytes >= total


def test_a_file_that_is_broken_is_built_again(tmp_path: Path) -> None:
    assert built(Items([torch.ones(9), 2, 3]), tmp_path) == 6
    for path in tmp_path.rglob("*.item"):
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.warns(CacheWarning, match="is not as it was written"):
        data = cached(Items([torch.ones(9), 2, 3]), tmp_path)
    assert torch.equal(data[0], torch.ones(9))
    for path in tmp_path.rglob("*.item"):
        path.write_bytes(b"")
    with pytest.warns(CacheWarning, match="cannot be loaded"):
        assert [data[n] for n in (1, 2)] == [2, 3]


def test_what_others_may_have_written_runs_no_code(tmp_path: Path) -> None:
    plain, rich = Items([torch.ones(2), 1, "a"]), Items([Picture(b"a", (1, 1))] * 3)
    built(plain, tmp_path / "plain")
    built(rich, tmp_path / "rich")
    for path in tmp_path.rglob("*.item"):
        path.chmod(0o666)
    assert built(plain, tmp_path / "plain") == 0
    with pytest.warns(CacheWarning, match=r"hold a tests.cached.datasets.Picture, belong to another user or may be"):
        assert built(rich, tmp_path / "rich") == 3


def test_a_disk_that_is_full_is_told_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = cached(Items([1, 2, 3, 4]), tmp_path)

    def full(file: Any, piece: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "_written", full)
    with pytest.warns(CacheWarning, match=r"as it cannot be written \(OSError: \[Errno 28\] No space left on device"):
        assert data[1] == 2
    assert data[1] == 2
    assert cache_of(data).stats().unkept == 2
    assert not list(tmp_path.rglob("*.part"))


def test_other_keys_are_told_and_removed(tmp_path: Path) -> None:
    built(Items([1]), tmp_path)
    data = cached(Items([2]), tmp_path)
    stats = cache_of(data).stats()
    assert stats.others == 1
    assert "1 other key in this folder, " in str(stats)
    assert cache_of(data).clear_others(days=1) == 0
    about = next(path for path in tmp_path.rglob("about.json") if cache_of(data).stats().key not in path.read_text())
    os.utime(about, (0, time.time() - 5 * 86_400))
    assert cache_of(data).clear_others(days=1) == stats.other_bytes
    assert cache_of(data).stats().others == 0
    assert cache_of(cached([1])).clear_others() == 0


def test_what_another_machine_was_writing_is_left_for_a_day(tmp_path: Path) -> None:
    built(Items([1]), tmp_path)
    where = next(tmp_path.glob("Items-*"))
    for name, old in (("a.item.elsewhere.1.0.part", False), ("b.item.elsewhere.1.0.part", True)):
        (where / name).write_bytes(b"x")
        os.utime(where / name, (0, 0)) if old else None
    (where / f"c.item.{folder._host()}.{os.getpid()}.0.part").write_bytes(b"x")
    (where / f"d.item.{folder._host()}.nobody.0.part").write_bytes(b"x")
    cached(Items([1]), tmp_path)
    assert sorted(path.name[0] for path in where.glob("*.part")) == ["a", "c"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CacheError, match=r"in it' can neither be written to nor holds what is asked for \(NotADirectory"
    ):
        cached(Items([1]), tmp_path / "file" / "in it")


def test_a_folder_that_may_only_be_read_gives_what_is_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    its = Items([1, 2, 3, 4, 5])
    built(its, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    opened = os.open

    def refusing(path: Any, flags: int, *args: Any, **keywords: Any) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY) and str(path).startswith(str(tmp_path)):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *args, **keywords)

    monkeypatch.setattr(os, "open", refusing)
    data = cached(its, tmp_path)
    assert [data[n] for n in range(5)] == [1, 2, 3, 4, 5]
    assert list(pickle.loads(pickle.dumps(data))) == [1, 2, 3, 4, 5]
    stats = cache_of(data).stats()
    assert (stats.items, stats.built) == (5, 0)
    next(tmp_path.rglob("[!-]*.item")).unlink()
    with pytest.warns(CacheWarning, match=r"as it cannot be written \(PermissionError: \[Errno 13\]"):
        assert [data[n] for n in range(5)] == [1, 2, 3, 4, 5]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.item")}.items() <= files.items()
