"""`turbo(monitor=...)`: every loop over a data loader in the block is watched, and nothing else changes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, dataloader

import torchturbo
from torchturbo import accelerate, turbo, watch
from torchturbo._watch import timeline
from torchturbo.cli.run import _written
from torchturbo.errors import OptionValueError
from torchturbo.regions._monitoring import told

DATA = TensorDataset(torch.arange(40.0).reshape(20, 2), torch.arange(20))
NEXT = dataloader._BaseDataLoaderIter.__next__


def session() -> Any:
    return timeline.here.holder.session


def watching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "torchturbo.watch"]


def numbers(batches: Any) -> list[list[int]]:
    return [batch[1].tolist() for batch in batches]


def gone() -> bool:
    """Whether nobody looks any more, soon."""
    deadline = time.monotonic() + 5
    while watching() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not watching() and session() is None


def test_loops_in_the_block_are_told_of_and_others_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    code = NEXT.__code__
    loader = DataLoader(DATA, batch_size=5)
    with turbo("exact", monitor=True):
        assert told() == "no data loader has been iterated in this thread's block yet"
        for batch in loader:
            assert session() is not None
            assert type(session().timeline.runs[0].loader.dataset) is TensorDataset
            assert len(batch[1]) == 5
        assert session() is None
        assert told() == "1 loop over data loaders watched"
    assert told() is None
    assert NEXT.__code__ is code
    out, err = capsys.readouterr()
    assert err.startswith("torchturbo: TensorDataset 4 of 4, ")
    assert out == ""
    for _ in loader:
        assert session() is None
    assert capsys.readouterr() == ("", "")


def test_nested_loops_off_inside_and_watch_inside(capsys: pytest.CaptureFixture[str]) -> None:
    loader = DataLoader(DATA, batch_size=5)
    with turbo("exact", monitor="json"):
        for _ in loader:
            for _ in loader:
                assert len(session().timeline.runs) == 2
            with turbo("exact", monitor=False):
                for _ in loader:
                    assert len(session().timeline.runs) == 1
            for _ in watch(loader, name="mine"):
                assert [run.name for run in session().timeline.runs] == ["TensorDataset", "mine"], "once, not twice"
            with turbo("exact", monitor=True):
                for _ in loader:
                    assert len(session().timeline.runs) == 2
    assert gone()
    assert capsys.readouterr().err.startswith('{"loops": [{"name": "TensorDataset", ')


def test_what_is_left_ends_with_its_iterator_or_the_block() -> None:
    loader = DataLoader(DATA, batch_size=5)
    with turbo("exact", monitor="lines"):
        for _ in loader:
            break
        gc.collect()
        assert session() is None
        iterator = iter(loader)
        next(iterator)
        assert len(watching()) == 1
    assert gone()
    with turbo("exact", monitor="lines"):
        next(iterator)
        assert [run.steps for run in session().timeline.runs] == [2], "it goes on"
    assert gone()
    assert len(list(iterator)) == 2


def test_workers_that_are_kept_and_the_same_batches_with_a_seed() -> None:
    loader = DataLoader(DATA, batch_size=5, shuffle=True, num_workers=1, persistent_workers=True)
    with turbo("exact", seed=3):
        alone = [numbers(loader) for _ in range(2)]
    loader = DataLoader(DATA, batch_size=5, shuffle=True, num_workers=1, persistent_workers=True)
    with turbo("exact", seed=3, monitor="lines"):
        watched = [numbers(loader) for _ in range(2)]
        assert session() is None
    assert watched == alone
    assert gone()


def test_an_accelerated_generator_is_watched_in_its_turns() -> None:
    @accelerate(profile="exact", monitor="lines")
    def batches() -> Iterator[Any]:
        yield from DataLoader(DATA, batch_size=5)

    assert numbers(batches()) == numbers(DataLoader(DATA, batch_size=5))
    assert gone()


def test_in_other_threads_nothing_is_watched() -> None:
    seen = []

    def loop() -> None:
        for _ in DataLoader(DATA, batch_size=5):
            seen.append(session())

    with turbo("exact", monitor="lines"):
        thread = threading.Thread(target=loop)
        thread.start()
        thread.join()
    assert seen == [None] * 4


def test_its_values() -> None:
    assert repr(turbo("exact", monitor=True)) == "turbo('exact', monitor='auto')"
    with pytest.raises(OptionValueError, match=r"monitor='bars': expected one of False, 'auto', 'lines', 'json'"):
        turbo("exact", monitor="bars")  # type: ignore[arg-type]
    assert _written((), None, True)["monitor"] == ("true", "--monitor")


SCRIPT = """
import torch
from torch.utils.data import DataLoader, TensorDataset

if __name__ == "__main__":
    for epoch in range(2):
        for (batch,) in DataLoader(TensorDataset(torch.arange(12.0)), batch_size=4):
            print(batch.tolist())
"""


def test_a_script_is_run_with_it(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torchturbo", "run", "--profile", "exact", "--monitor", "train.py"]
    environment = {**os.environ, "PYTHONPATH": str(Path(torchturbo.__file__).parents[1])}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [str([4.0 * n, 4.0 * n + 1, 4.0 * n + 2, 4.0 * n + 3]) for n in (0, 1, 2)] * 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("torchturbo: TensorDataset 3 of 3, ")
