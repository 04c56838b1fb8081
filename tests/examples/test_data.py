"""The gathered text is the same wherever it is gathered, and is never seen half written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.gpt.data import Text, gather, modules, sample
from tests.examples.conftest import LEFT_OUT, SOURCES, write_library


def test_the_text_holds_each_module_once_and_nothing_else(library: Path, tmp_path: Path) -> None:
    pieces = gather(tmp_path / "cache", library).read_bytes().split(b"\0")
    assert pieces.pop() == b""
    assert sorted(pieces) == sorted(SOURCES.values())


def test_two_folders_hold_the_same_text_under_the_same_name(tmp_path: Path) -> None:
    files = list({**SOURCES, **LEFT_OUT}.items())
    one = gather(tmp_path / "one", write_library(tmp_path / "a", files))
    two = gather(tmp_path / "two", write_library(tmp_path / "b", files[::-1]))
    assert one.name == two.name
    assert one.read_bytes() == two.read_bytes()


def test_the_order_does_not_follow_the_folders_listing(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = modules(library)
    listing = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: reversed(list(listing(path, pattern))))
    assert modules(library) == expected


def test_a_changed_library_is_another_text(library: Path, tmp_path: Path) -> None:
    before = gather(tmp_path / "cache", library)
    (library / "abc.py").write_bytes(b"class ABC: ...\n")
    after = gather(tmp_path / "cache", library)
    assert before != after
    assert b"class ABC: ...\n" in after.read_bytes()


def test_what_is_there_is_not_written_again(library: Path, tmp_path: Path) -> None:
    gathered = gather(tmp_path / "cache", library)
    os.utime(gathered, ns=(1, 1))
    assert gather(tmp_path / "cache", library) == gathered
    assert gathered.stat().st_mtime_ns == 1


def test_a_failure_half_way_leaves_nothing(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    read_bytes = Path.read_bytes
    read: list[Path] = []

    def fail_at_the_third(path: Path) -> bytes:
        read.append(path)
        if len(read) == 3:
            raise OSError("the disk is full")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fail_at_the_third)
    with pytest.raises(OSError, match="the disk is full"):
        gather(cache, library)
    assert list(cache.iterdir()) == []
    monkeypatch.undo()
    assert gather(cache, library).stat().st_size == sum(map(len, SOURCES.values())) + len(SOURCES)


def test_nobody_sees_the_text_before_it_is_whole(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    read_bytes = Path.read_bytes
    seen: list[list[str]] = []

    def look(path: Path) -> bytes:
        seen.append([entry.suffix for entry in cache.iterdir()])
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", look)
    gather(cache, library)
    assert seen == [[".part"]] * len(SOURCES)
    assert [entry.suffix for entry in cache.iterdir()] == [".txt"]


def test_a_library_without_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no Python source under .*came without"):
        gather(tmp_path / "cache", tmp_path)


def test_the_standard_library_is_mapped_and_split(tmp_path: Path) -> None:
    path = gather(tmp_path)
    text = Text.open(path)
    assert isinstance(text.training.base, np.memmap)
    assert len(text.training) / len(text.held_out) == pytest.approx(9, rel=1e-4)
    assert len(text.held_out) > 500_000
    assert text.training.tobytes() + text.held_out.tobytes() == path.read_bytes()
    assert b"def dataclass(" in path.read_bytes()


def test_targets_are_the_inputs_one_byte_further_on(text: Text) -> None:
    inputs, targets = sample(text.training, 5, 16, torch.Generator().manual_seed(1))
    assert inputs.shape == targets.shape == (5, 16)
    whole = text.training.tobytes()
    for row, following in zip(inputs.tolist(), targets.tolist(), strict=True):
        assert row[1:] == following[:-1]
        assert bytes([*row, following[-1]]) in whole


def test_the_generator_alone_decides(text: Text) -> None:
    def draw(seed: int) -> torch.Tensor:
        return sample(text.training, 4, 8, torch.Generator().manual_seed(seed)).inputs

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


def test_the_whole_text_is_within_reach() -> None:
    text = np.arange(10, dtype=np.uint8)
    batch = sample(text, 200, 8, torch.Generator().manual_seed(0))
    assert set(batch.inputs[:, 0].tolist()) == {0, 1}
    assert set(batch.targets[:, -1].tolist()) == {8, 9}
    with pytest.raises(ValueError, match="a text of 10 bytes has no piece of 10 bytes and the byte after it"):
        sample(text, 1, 10, torch.Generator())
