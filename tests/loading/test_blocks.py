"""Real loaders and real workers in blocks: nested, in threads, pickled, with a seed, and what the report says."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tests.loading.datasets import Deciding, Endless, Forwarding, Numbers, asking
from tests.seeding.datasets import Augmented
from torchturbo import accelerate, turbo
from torchturbo._report import gather
from torchturbo.regions import _arguments


@pytest.fixture(autouse=True)
def _torch_stays() -> Iterator[None]:
    function: Any = DataLoader.__init__
    before = function.__code__, dict(vars(function))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield
    assert (function.__code__, vars(function)) == before
    assert not _arguments.ASKING.asking


def workers(loader: Any) -> list[int]:
    """Who fetched each sample, in order; -1 for this process."""
    return [worker for batch in loader for worker in batch[1].tolist()]


def test_batches_come_of_real_workers_and_go_on_after_the_block() -> None:
    with asking(num_workers=2, prefetch_factor=1, persistent_workers=True):
        loader = DataLoader(Numbers(4), batch_size=2)
        assert workers(loader) == [0, 0, 1, 1]
    assert workers(loader) == [0, 0, 1, 1], "it keeps what it got"
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (2, 1, True)
    assert workers(DataLoader(Numbers(4))) == [-1] * 4


def test_what_was_made_before_is_left_alone() -> None:
    before = DataLoader(Numbers(4))
    with asking(num_workers=2):
        assert workers(before) == [-1] * 4


def test_the_report_says_what_became_of_each() -> None:
    with asking(num_workers=2, prefetch_factor=3, persistent_workers=True) as active:
        for _ in range(3):
            DataLoader(Numbers())
        DataLoader(Numbers(), 1, None, None, None, 0)
        DataLoader(Endless())
        Deciding(Numbers())
        with pytest.raises(ValueError, match="mutually exclusive"):
            DataLoader(Numbers(), shuffle=True, sampler=[1])
        with pytest.raises(TypeError):
            DataLoader(num_workers=1)  # type: ignore[call-arg]
        table = gather(active)
    assert str(table["num_workers"].note).startswith(
        "3 data loaders got num_workers=2; 2 named num_workers in the call; 1 got no workers: the dataset is an "
    )
    assert table["prefetch_factor"].note == (
        "4 data loaders got prefetch_factor=3; 2 went without prefetch_factor: it is about workers, and there are none"
    )
    assert table["persistent_workers"].note == (
        "4 data loaders got persistent_workers=True; 2 went without persistent_workers: it is about workers, and "
        "there are none"
    )
    assert (table["num_workers"].now, table["num_workers"].origin) == (2, "argument")


def test_blocks_in_blocks_and_left_in_any_order() -> None:
    def number() -> int:
        return DataLoader(Numbers()).num_workers

    with asking(num_workers=1):
        with asking(num_workers=2):
            assert number() == 2
        with asking(prefetch_factor=5):
            loader = DataLoader(Numbers())
            assert (loader.num_workers, loader.prefetch_factor) == (1, 5)
        assert number() == 1
    first, second = asking(num_workers=1), asking(num_workers=2)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert number() == 2
    second.__exit__(None, None, None)
    assert number() == 0


def test_each_thread_has_its_own_blocks() -> None:
    found: list[int] = []

    def elsewhere(wanted: int | None) -> None:
        if wanted is None:
            found.append(DataLoader(Numbers()).num_workers)
        else:
            with asking(num_workers=wanted):
                found.append(len(set(workers(DataLoader(Numbers(4))))))

    with asking(num_workers=1):
        for wanted in (None, 2):
            thread = threading.Thread(target=elsewhere, args=(wanted,))
            thread.start()
            thread.join()
        assert DataLoader(Numbers()).num_workers == 1
    assert found == [0, 2]


def test_pickles_and_copies_of_a_loader_have_what_it_got() -> None:
    with asking(num_workers=2, prefetch_factor=3):
        loader = DataLoader(Numbers(4))
        pickled = pickle.dumps(loader)
        inside = pickle.loads(pickled)
    for each in (inside, pickle.loads(pickled), copy.copy(loader)):
        assert (each.num_workers, each.prefetch_factor) == (2, 3)
    assert set(workers(inside)) == {0, 1}
    with asking(num_workers=2):
        assert pickle.loads(pickle.dumps(DataLoader(Numbers(), num_workers=0))).num_workers == 0


def test_loaders_of_somebody_s_own() -> None:
    with asking(num_workers=2, pin_memory=False, prefetch_factor=3):
        graphs = Forwarding(Numbers(4), batch_size=2, collate_fn=len)
        assert (graphs.num_workers, graphs.prefetch_factor, graphs.batch_size) == (2, 3, 2)
        assert workers(graphs) == [0, 0, 1, 1]
        assert Forwarding(Numbers(), num_workers=1).num_workers == 1
        assert Deciding(Numbers()).num_workers == 1, "its own default is what it names"


class Nested(Dataset[Any]):
    """Each item goes through a loader that is made for it, in the worker."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return DataLoader(Numbers(2)).num_workers, sum(workers(DataLoader(Numbers(2))))


def test_workers_start_no_workers() -> None:
    with asking(num_workers=1):
        assert [tuple(map(int, batch)) for batch in DataLoader(Nested())] == [(0, 0), (0, 0)]


def test_in_functions() -> None:
    @accelerate(profile="exact", num_workers=1)
    def read() -> list[int]:
        return workers(DataLoader(Numbers(2)))

    assert read() == [0, 0]
    assert workers(DataLoader(Numbers(2))) == [-1, -1]


@pytest.mark.parametrize("options", [{"num_workers": 2, "prefetch_factor": 1}, {"num_workers": 1}])
def test_with_a_seed_the_batches_are_the_same(options: dict[str, Any]) -> None:
    def batches(**more: Any) -> list[Any]:
        with turbo("exact", seed=1, **more):
            loader = DataLoader(Augmented(), batch_size=3, shuffle=True, collate_fn=list)
            assert loader.num_workers == more.get("num_workers", 0)
            return [list(loader), torch.rand(2).tolist(), list(loader)]

    assert batches(**options) == batches()


def test_a_forked_process_has_the_blocks_of_the_thread_that_forked() -> None:
    function: Any = DataLoader.__init__
    theirs = function.__code__
    with asking(num_workers=1):
        _arguments.ASKING.asking[_arguments._Asked()] = None  # another thread's, which is not in the child
        _arguments.ASKING.forked()
        assert list(_arguments.ASKING.asking) == [_arguments.ASKING.thread.its]
        assert DataLoader(Numbers()).num_workers == 1
    _arguments.ASKING.asking[_arguments._Asked()] = None
    _arguments.ASKING.settle()
    assert function.__code__ is not theirs
    _arguments.ASKING.forked()
    assert function.__code__ is theirs


@pytest.mark.parametrize("half", ["asking", "told", "code"])
def test_an_interrupt_half_way_leaves_nothing(half: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(needed: bool) -> None:
        monkeypatch.undo()
        if half == "code":
            _arguments.ARGUMENTS.settle(needed)
        raise KeyboardInterrupt

    if half == "told":
        monkeypatch.setattr(_arguments, "Counter", lambda: interrupted(True))
    else:
        monkeypatch.setattr(_arguments.ASKING, "_place", interrupted)
    with pytest.raises(KeyboardInterrupt), asking(num_workers=1, prefetch_factor=2):
        pytest.fail("it was interrupted")
