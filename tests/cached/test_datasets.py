"""Items, passes and batches are built once, whoever builds them, and everything else is as without a cache."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
)

import torchturbo
from tests.cached.datasets import ByEpoch, Items, Lines, Ones, Squares, drawn_for_nothing, reseeded
from torchturbo import cache_of, cached, turbo
from torchturbo._cached import loaders
from torchturbo._cached.proof import difference
from torchturbo.errors import CacheError, CacheWarning, OptionValueError, TargetError
from torchturbo.regions._datasets import unfit


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "log")


WAYS = [(0, None, False), (2, "fork", False), (2, "fork", True), (2, "spawn", True)]


@pytest.mark.parametrize("where", ["memory", "folder"])
@pytest.mark.parametrize(("workers", "how", "stay"), WAYS)
def test_workers_share_what_each_builds_once(
    workers: int, how: str | None, stay: bool, where: str, log: str, tmp_path: Path
) -> None:
    if how == "spawn" and where == "folder":
        pytest.skip("spawned workers take seconds, and folders need nothing of their parent")
    plain, folder = Squares(log), where if where == "memory" else tmp_path / "kept"
    expected = list(DataLoader(Squares(log), batch_size=3))
    data = cached(plain, folder)
    before = len(plain.builds())
    loader = DataLoader(
        data, batch_size=3, num_workers=workers, multiprocessing_context=how, persistent_workers=stay, shuffle=False
    )
    epochs = [list(loader) for _ in range(3)]
    assert all(difference(expected, epoch) is None for epoch in epochs)
    assert sorted(plain.builds()[before:]) == sorted(set(range(10)) - {0, 5, 9})  # which were built as a check
    stats = cache_of(data).stats()
    assert (stats.items, stats.built, stats.unkept, stats.left_out) == (10, 13, 0, ("_log", "built"))
    assert stats.hits == 23
    del loader


@pytest.mark.parametrize(("workers", "how", "stay"), [(0, None, False), (2, "fork", True)])
def test_batches_of_a_loader(workers: int, how: str | None, stay: bool, log: str) -> None:
    plain = Squares(log)
    expected = list(DataLoader(plain, batch_size=3))
    begun = len(plain.builds())
    loader = cached(
        DataLoader(plain, batch_size=3, num_workers=workers, multiprocessing_context=how, persistent_workers=stay)
    )
    epochs = [list(loader) for _ in range(3)]
    assert all(difference(expected, epoch) is None for epoch in epochs)
    assert len(plain.builds()) - begun == 10 + 7  # batches 0, 2 and 3 twice
    assert cache_of(loader).stats().items == len(loader) == 4
    assert isinstance(loader, DataLoader)
    assert (loader.batch_size, loader.dataset) == (3, plain)
    assert torch.equal(next(iter(loader))["x"].zero_() + 1, torch.ones(3, 3, 2, dtype=torch.int64))
    assert difference(expected, list(loader)) is None


def test_a_loop_that_stops_early_and_batches_of_another_kind(log: str) -> None:
    loader = cached(DataLoader(Squares(log), batch_size=None))
    for item in loader:
        assert item["name"] == "n"
        break
    assert len(list(loader)) == 10
    by_batch = BatchSampler(SequentialSampler(range(10)), 4, drop_last=True)
    assert [len(batch["name"]) for batch in cached(DataLoader(Squares(log), batch_sampler=by_batch))] == [4, 4]


def test_what_is_whole_is_read_without_workers() -> None:
    with turbo(num_workers=2):
        loader = cached(DataLoader(Items([1, 2, 3, 4]), batch_size=2))
        assert loader.num_workers == 2
        assert [batch.tolist() for batch in loader] == [[1, 2], [3, 4]]
        assert [batch.tolist() for batch in loader] == [[1, 2], [3, 4]]
        assert multiprocessing.active_children() == []
        pairs = [(one.tolist(), other.tolist()) for one, other in zip(loader, loader, strict=True)]
    assert pairs == [([1, 2], [1, 2]), ([3, 4], [3, 4])]
    persistent = cached(DataLoader(Items([1] * 6), batch_size=1, num_workers=2, persistent_workers=True, timeout=60))
    for epoch in range(3):
        iterator = iter(persistent)
        assert len(list(iterator)) == 6
        assert bool(getattr(iterator, "_workers", [])) == (epoch == 0)
    del iterator
    assert multiprocessing.active_children() == []


def test_iterable_datasets_are_kept_as_whole_passes(log: str) -> None:
    data = cached(Lines(5))
    assert isinstance(data, IterableDataset)
    stopped = iter(data)
    assert [int(next(stopped)) for _ in range(4)] == [0, 1, 2, 3]
    for _ in range(3):
        assert [int(each) for each in data] == [0, 1, 2, 3, 4]
    assert (cache_of(data).stats().items, cache_of(data).stats().built) == (5, 3 + 3 + 4 + 5)
    for _ in range(2):  # each worker has a pass of its own
        assert sorted(map(int, DataLoader(data, batch_size=None, num_workers=2))) == sorted([*range(5)] * 2)
    assert cache_of(data).stats().built == 15 + 10
    loader = cached(DataLoader(Lines(5), batch_size=2))
    assert [batch.tolist() for batch in loader] == [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4]]
    assert cache_of(loader).stats().items == 3


def test_random_numbers_are_where_they_would_be(log: str) -> None:
    found = []
    for make in (lambda loader: loader, cached):
        torch.manual_seed(0)
        for loader in (make(DataLoader(Squares(log), batch_size=2)), make(DataLoader(Lines(), batch_size=2))):
            for _ in range(3):
                list(loader)
        found.append(torch.rand(3))
    assert torch.equal(*found)
    stood = torch.get_rng_state(), np.random.get_state()[1].tolist()
    data = cached(Ones(reseeded))
    expected = [float(data[n][0]) for n in range(6)]
    assert torch.equal(torch.get_rng_state(), stood[0])
    assert np.random.get_state()[1].tolist() == stood[1]
    assert expected == [float(reseeded(n)) for n in range(6)]


def test_what_draws_for_nothing_is_kept() -> None:
    data = cached(Ones(drawn_for_nothing))
    assert [float(data[n][0]) for n in range(6)] == [0, 1, 2, 3, 4, 5]


class Noisy(torch.utils.data.Dataset[Any]):
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        return self.inner[index]["x"] + torch.rand(())


@pytest.mark.parametrize("around", [Noisy, lambda data: data])
def test_order_and_augmentations_of_a_seeded_block_are_the_same(around: Any, log: str) -> None:
    epochs = []
    for data in (Squares(log), cached(Squares(log))):
        with turbo(seed=3):
            loader = DataLoader(around(data), batch_size=2, shuffle=True)
            epochs.append([list(loader) for _ in range(2)])
    assert difference(*epochs) is None


def test_a_dataset_that_changes_has_other_items_and_says_so() -> None:
    data = cached(ByEpoch())
    assert data[2].tolist() == [2, 0]
    data.set_epoch(1)
    with pytest.warns(CacheWarning, match=r"ByEpoch has changed since it was cached \(epoch\)"):
        assert data[2].tolist() == [2, 1]
    data.epoch = 0
    built = cache_of(data).stats().built
    assert data[2].tolist() == [2, 0]
    assert cache_of(data).stats().built == built  # it is the state that it was in
    assert data.__wrapped__.epoch == 0  # type: ignore[attr-defined]
    data.__wrapped__.epoch = 5  # type: ignore[attr-defined]
    assert data[0].tolist() == [0, 5]
    loader = cached(DataLoader(ByEpoch(), batch_size=2))
    loader.dataset.set_epoch(3)  # type: ignore[attr-defined]
    with pytest.warns(CacheWarning, match="has changed"):
        assert next(iter(loader)).tolist() == [[0, 3], [1, 3]]


class Scaled(Dataset[Any]):
    """Rows as others make them, which also count."""

    def __init__(self, *steps: Any) -> None:
        self.steps = steps
        self.reads = 0
        self.scale = 1

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        self.reads += 1
        row = torch.full((1, 2), index * self.scale + 1.0)
        with torch.no_grad():
            for step in self.steps:
                row = step(row)
        return row


@dataclass(slots=True)
class Times:
    """A step with a number, which has no ``__dict__``."""

    by: float

    def __call__(self, row: Any) -> Any:
        return (torch.cat(row) if isinstance(row, list) else row) * self.by


@pytest.mark.filterwarnings("ignore:.* has changed since it was cached:torchturbo.errors.CacheWarning")
def test_what_is_set_deep_within_is_seen() -> None:
    last, mean = nn.Linear(2, 2), nn.BatchNorm1d(2)
    encoder = nn.Sequential(*(nn.Sequential(nn.Linear(2, 2)) for _ in range(20)), mean, last).eval()
    times, collate = Times(2.0), Times(3.0)
    inner = Scaled(times, partial(encoder))
    data: Any = cached(Subset(ConcatDataset([Scaled(), inner]), [4, 5, 6, 7]))
    batches = cached(DataLoader(Subset(inner, [0, 1]), batch_size=2, collate_fn=collate))

    def are_new() -> bool:
        list(batches)
        return torch.equal(data[1], inner[1]) and torch.equal(next(iter(batches)), collate([inner[0], inner[1]]))

    assert are_new()
    with torch.no_grad():
        last.weight.add_(1)
        assert are_new(), "weights of an encoder"
        mean.running_mean.add_(1)  # type: ignore[union-attr]
        assert are_new(), "buffers of an encoder"
    times.by = 5.0
    assert are_new(), "a transform"
    collate.by = 7.0
    assert are_new(), "what collates"
    inner.scale = 9
    assert are_new(), "a dataset in a dataset"
    batches.collate_fn = collate = Times(11.0)
    assert are_new(), "another one that collates"
    assert cache_of(batches).stats().left_out == ("dataset.reads",), "what reading writes hides nothing beside it"


class OfClass:
    """Items that come of attributes of a class; one of them is written as items are read."""

    scale, reads = 1, 0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        OfClass.reads += 1
        return index * self.scale


def test_what_is_exchanged_in_a_class_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OfClass, "reads", 0)
    data = cached(OfClass())
    assert [data[n] for n in range(4)] == [0, 1, 2, 3]
    built = cache_of(data).stats().built
    assert [data[n] for n in range(4)] == [0, 1, 2, 3]
    assert cache_of(data).stats().built == built, "what reading writes makes no other key"
    assert cache_of(data).stats().left_out == ("its class.reads",)
    monkeypatch.setattr(OfClass, "scale", 5)
    with pytest.warns(CacheWarning, match=r"OfClass has changed since it was cached \(its class\)"):
        assert [data[n] for n in range(4)] == [0, 5, 10, 15]


def test_copies_and_pickles_go_on(log: str) -> None:
    data = cached(Squares(log, scale=2))
    copied = copy.deepcopy(data)
    built = len(data.builds())
    assert difference(copied[0], data[0]) is None
    assert difference(copy.copy(data)[0], data[0]) is None
    assert len(data.builds()) == built
    there = pickle.loads(pickle.dumps(data))  # a file or another machine: no memory in common
    assert difference(there[0], data[0]) is None
    assert len(data.builds()) == built + 1
    loader = copy.deepcopy(cached(DataLoader(Squares(log), batch_size=5)))
    assert len(list(loader)) == 2


def test_it_is_the_dataset_in_all_else(log: str) -> None:
    data = cached(Squares(log))
    assert isinstance(data, Squares)
    assert (len(data), data.length, next(iter(Subset(data, [1])))["name"]) == (10, 10, "n")
    assert repr(data).startswith("cached(<")
    assert [int(item["pair"].x) for item in data] == list(range(10))
    assert data[np.int64(3)]["pair"] == data[torch.tensor(3)]["pair"] == data[3]["pair"]
    with pytest.raises(IndexError):
        data[10]
    assert unfit({"dataset": cached(Items([iter([])] * 0)), "collate_fn": None}, anew=False) is None
    kept = [1, 2, 3]
    assert cached(kept)[0:2] == [1, 2]
    assert list(cached(kept)) == kept
    assert torchturbo.cached is cached


def test_filling_and_clearing(log: str, tmp_path: Path) -> None:
    for where in ("memory", tmp_path / "kept"):
        data = cached(Squares(log), where)
        stats = cache_of(data).fill(num_workers=2 if where == "memory" else 0)
        assert (stats.items, stats.built) == (10, 13)
        assert f"10 items in {stats.where}" in " ".join(str(stats).split())  # a line may have been broken
        assert "built 13 times" in str(stats)
        assert stats.to_dict()["left_out"] == ["_log", "built"]
        cache_of(data).clear()
        assert cache_of(data).stats().items == 0
        assert data[3]["pair"].y == 3
        assert cache_of(data).stats().items == 1
    loader = cached(DataLoader(Squares(log), batch_size=5))
    assert cache_of(loader).fill().items == 2


def test_it_stays_in_its_bounds(log: str, tmp_path: Path) -> None:
    for where in ("memory", tmp_path / "kept"):
        data = cached(Squares(log), where, max_bytes=2500)
        with pytest.warns(CacheWarning, match=r"is not kept in .*, as max_bytes=2500 are full") as told:
            first = [data[n] for n in range(10)]
        assert told[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it is said once
            assert difference(first, [data[n] for n in range(10)]) is None
        stats = cache_of(data).stats()
        assert 0 < stats.items < 10
        assert stats.bytes <= 2500
        assert stats.unkept
        assert "no room for" in str(stats)


@pytest.mark.parametrize("given", ["much", "-1", 0, True, "1 XB", float("nan")])
def test_bounds_that_are_none_are_refused(given: Any) -> None:
    with pytest.raises(OptionValueError, match="expected a number of bytes, as '500 MB'"):
        cached(Items([1]), max_bytes=given)


@pytest.mark.parametrize(("given", "count"), [("1 KB", 1000), ("1.5 KiB", 1536), ("2g", 2 * 10**9), (7777, 7777)])
def test_bounds_as_people_write_them(given: Any, count: int) -> None:
    assert cache_of(cached(Items([1]), max_bytes=given)).stats().max_bytes == count


@pytest.mark.parametrize("given", [Squares, "text", 3, iter([1]), {"a": 1}, cached(Items([1]))])
def test_what_is_no_data_is_refused(given: Any) -> None:
    with pytest.raises(TargetError):
        cached(given)


def test_what_has_no_cache_is_told() -> None:
    with pytest.raises(TargetError, match="a list has no cache: pass what"):
        cache_of([1])
    with pytest.raises(OptionValueError, match="expected 'memory', or the path of a folder"):
        cached(Items([1]), "")
    with pytest.raises(CacheError, match="has no length"):
        cached(type("Endless", (), {"__getitem__": lambda self, index: index})())


def test_threads_share_it_and_leave_random_numbers_alone(log: str) -> None:
    data = cached(Squares(log))
    expected = [data[n] for n in (0, 5, 9)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: data[n % 10], range(80)))
    assert difference(expected, [found[n] for n in (0, 5, 9)]) is None
    assert [int(item["pair"].x) for item in found] == [n % 10 for n in range(80)]
    assert cache_of(data).stats().items == 10


def test_other_loaders_of_a_seeded_block_have_what_they_have_without_it(log: str) -> None:
    epochs = []
    kept = cached(DataLoader(Items([1, 2, 3, 4]), batch_size=2))
    for validation in (DataLoader(Items([1, 2, 3, 4]), batch_size=2), kept, kept):
        with turbo(seed=3):
            order = DataLoader(Noise(), batch_size=2)
            epochs.append([each for _ in range(2) for each in (list(validation) and list(order))])
    assert all(difference(epochs[0], epoch) is None for epoch in epochs[1:])


class Noise(Items):
    """Named as what is validated: a block tells loaders apart by the class and the length of what they read."""

    def __init__(self) -> None:
        super().__init__([0.0] * 4)

    def __getitem__(self, index: int) -> Any:
        return torch.rand(2)


Noise.__qualname__ = "Items"


class Reusing(Items):
    """Returns the same memory each time, which ends as it began."""

    def __init__(self) -> None:
        super().__init__([0, 1, 2, 3, 4])
        self.memory = torch.zeros(3)

    def __getitem__(self, index: int) -> Any:
        return self.memory.fill_(index)


class Remembering(Items):
    """Keeps what it has read, and a file that it opens when it is first read."""

    def __init__(self) -> None:
        super().__init__([0, 1, 2, 3, 4])
        self.read: dict[int, Any] = {}
        self.file: Any = None
        self.rare = False

    def __getitem__(self, index: int) -> Any:
        self.file = self.file or object()
        self.rare = self.rare or index == 3
        return self.read.setdefault(index, torch.ones(2) * index)


@pytest.mark.parametrize(
    ("data", "written"), [(Reusing(), ("memory",)), (Remembering(), ("file", "rare", "read"))], ids=["memory", "files"]
)
def test_what_reading_writes_is_no_input(data: Any, written: tuple[str, ...]) -> None:
    kept = cached(data)
    assert [kept[n].sum() / len(kept[n]) for n in range(5)] == [0, 1, 2, 3, 4]
    assert cache_of(kept).stats().left_out == written
    assert cache_of(kept).stats().items == 5
    kept.items = kept.items[:4]
    with pytest.warns(CacheWarning, match=r"has changed since it was cached \(items\)"):
        assert kept[0].sum() == 0


class Together(Items):
    """Gives several items at once, by itself and in order."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self.items[index] for index in indices]

    def __iter__(self) -> Any:
        return iter(["its own"])


def test_items_by_other_names_and_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "_MOST", 100)
    data = cached(Together([1, 2, 3]))
    assert [batch.tolist() for batch in DataLoader(data, batch_size=2)] == [[1, 2], [3]]
    assert list(data) == ["its own"]  # what a dataset does by itself, it does

    class Apart(Together):
        def __getitems__(self, indices: list[int]) -> list[Any]:
            return [-1 for _ in indices]

    with pytest.raises(CacheError, match=r"item 0 of Apart is not the same when it is built twice: item = 1 in one"):
        cached(Apart([1, 2, 3]))

    class Named(Items):
        def __getitem__(self, index: Any) -> Any:
            return [index]

    named = cached(Named([1, 2]))
    for index in ("a", (1, "b"), 2.5):
        assert named[index] == named[index] == [index]
    built = cache_of(named).stats().built
    assert named[[1, 2]] == named[[1, 2]] == [[1, 2]]  # is no one item, and not kept
    assert torch.equal(named[torch.tensor([1, 2])][0], torch.tensor([1, 2]))
    assert named[torch.tensor(1.5)][0] == 1.5
    assert cache_of(named).stats().built == built
    there = pickle.loads(pickle.dumps(cached(Items([1, 2]), tmp_path)))
    assert (there[0], cache_of(there).stats().items) == (1, 2)
    both = cached(DataLoader(cached(Items([1, 2]))))
    assert [int(batch) for batch in both] == [1, 2]
    with pytest.raises(CacheError, match="has no end"):
        cached(DataLoader(Items([1]), sampler=Endless()))


class Endless(torch.utils.data.Sampler[int]):
    def __init__(self) -> None: ...

    def __iter__(self) -> Any:
        return iter(int, 1)
