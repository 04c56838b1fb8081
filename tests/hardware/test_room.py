"""What there is room for, as Linux and its control groups tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchturbo.hardware import _room


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where control groups are mounted."""
    monkeypatch.setattr(_room, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(_room, "_OWN", tmp_path / "own")
    monkeypatch.setattr(_room, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(_room, "_SHARED", str(tmp_path))
    return tmp_path / "groups"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_share_of_the_processor_in_either_version_of_control_groups(mounted: Path) -> None:
    own = _room._OWN
    assert (_room.quota(), _room.cores(16)) == (None, 16)
    own.write_text("0::/box/inner\n")
    assert _room.quota() is None
    write(mounted / "box" / "inner" / "cpu.max", "max 100000\n")
    assert _room.quota() is None
    write(mounted / "box" / "cpu.max", "250000 100000\n")
    assert (_room.quota(), _room.cores(16), _room.cores(1)) == (2.5, 2, 1)
    own.write_text("5:memory:/elsewhere\n3:cpu,cpuacct:/old\n")
    write(mounted / "cpu" / "old" / "cpu.cfs_quota_us", "-1\n")
    write(mounted / "cpu" / "old" / "cpu.cfs_period_us", "100000\n")
    assert _room.quota() is None
    write(mounted / "cpu" / "cpu.cfs_quota_us", "50000\n")
    write(mounted / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert (_room.quota(), _room.cores(16)) == (0.5, 1)


def test_memory_is_the_least_of_the_machines_and_of_each_group(mounted: Path) -> None:
    assert _room.memory() is None
    _room._MEMINFO.write_text("MemTotal: 9 kB\nMemAvailable:    5 kB\n")
    _room._OWN.write_text("0::/box/inner\n")
    write(mounted / "memory.max", "max\n")
    write(mounted / "memory.current", "1024\n")
    assert _room.memory() == 5120
    write(mounted / "box" / "memory.max", "3072\n")
    write(mounted / "box" / "memory.current", "1024\n")
    assert _room.memory() == 2048


def test_memory_that_processes_share(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = _room.shared_memory()
    assert shared is not None
    assert shared > 0
    monkeypatch.setattr(_room, "_SHARED", str(mounted / "nowhere"))
    assert _room.shared_memory() is None
