"""One batch ahead: the order, the values, the errors and the end of the source, and nothing left of it afterwards."""

from __future__ import annotations

import gc
import pickle
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from copy import copy, deepcopy
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import torchturbo
from tests.prefetch.lanes import Late
from torchturbo import _prefetch, prefetch
from torchturbo.errors import TargetError, UnsupportedHere
from torchturbo.regions._ahead import Ahead


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> Late:
    """What stands in for every device."""
    late = Late()
    monkeypatch.setattr(_prefetch, "lane_to", lambda device: late)
    return late


def numbers(batches: Any) -> list[int]:
    return [int(batch) for batch in batches]


def source(log: list[Any], count: int = 5, raises: int | None = None) -> Iterator[Tensor]:
    try:
        for number in range(count):
            log.append(number)
            if number == raises:
                raise ValueError(f"batch {number}")
            yield torch.tensor(number)
    finally:
        log.append("closed")


def test_a_batch_is_used_while_the_next_is_on_its_way() -> None:
    log: list[Any] = []
    late = Late()
    ahead = Ahead(source(log), late)
    assert log == []
    assert int(next(ahead)) == 0
    assert log == [0, 1]
    assert (late.copies, late.waits) == (2, 1)
    assert numbers(ahead) == [1, 2, 3, 4]
    assert next(ahead, None) is None


def test_an_error_comes_out_where_its_batch_would_have() -> None:
    log: list[Any] = []
    ahead = Ahead(source(log, raises=2), Late())
    assert [int(next(ahead)), int(next(ahead))] == [0, 1]
    assert log == [0, 1, 2, "closed"]
    with pytest.raises(ValueError, match="batch 2") as caught:
        next(ahead)
    assert any(entry.name == "source" for entry in caught.traceback)
    assert next(ahead, None) is None


def test_an_interrupt_comes_out_at_once_and_loses_nothing() -> None:
    class Interrupted:
        def __init__(self) -> None:
            self.number = 0

        def __iter__(self) -> Interrupted:
            return self

        def __next__(self) -> Tensor:
            self.number += 1
            if self.number == 2:
                raise KeyboardInterrupt
            if self.number > 5:
                raise StopIteration
            return torch.tensor(self.number)

    ahead = Ahead(Interrupted(), Late())
    with pytest.raises(KeyboardInterrupt):
        next(ahead)
    assert numbers(ahead) == [1, 3, 4, 5]


def test_a_batch_for_which_there_was_no_room_is_sent_again_when_it_is_due() -> None:
    late = Late()
    ahead = Ahead(source([]), late)
    late.refuses = [torch.OutOfMemoryError("no room")]
    assert numbers(ahead) == [0, 1, 2, 3, 4]
    ahead = Ahead(source([]), late)
    next(ahead)
    late.refuses = [torch.OutOfMemoryError("still none"), torch.OutOfMemoryError("no room")]
    assert int(next(ahead)) == 1
    with pytest.raises(torch.OutOfMemoryError, match="still none"):
        next(ahead)
    assert numbers(ahead) == [3, 4]


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("refused", [False, True])
def test_memory_that_is_filled_again_is_read_before(pinned: bool, refused: bool) -> None:
    def refilled() -> Iterator[dict[str, Tensor]]:
        buffer = torch.zeros(3)
        for number in range(6):
            buffer.fill_(number)
            yield {"x": buffer}

    late = Late(pinned)
    late.refuses = [torch.OutOfMemoryError("no room")] if refused else []
    assert [batch["x"].tolist() for batch in Ahead(refilled(), late)] == [[n] * 3 for n in range(6)]


def test_what_is_fetched_in_inference_mode_can_be_trained_on() -> None:
    ahead = Ahead(source([]), Late())
    with torch.inference_mode():
        next(ahead)
    assert not next(ahead).is_inference()


def test_a_loop_that_is_left_frees_all_at_once() -> None:
    """With an error waiting too, which holds the frames that it went through. No collector comes by."""
    log: list[Any] = []
    for raises in (None, 1):
        log.clear()
        gc.disable()
        try:
            batches = source(log, raises=raises)
            ahead = Ahead(batches, Late())
            next(ahead)
            waiting = weakref.ref(ahead), weakref.ref(batches)
            held = ahead.waiting
            assert held is not None
            made = weakref.ref(held.sent.batch) if held.sent is not None else lambda: None
            del ahead, batches, held
            assert [each() for each in (*waiting, made)] == [None, None, None]
            assert log[-1] == "closed"
        finally:
            gc.enable()


@pytest.mark.parametrize("raises", [None, 1])
def test_what_has_been_raised_holds_nothing(raises: int | None) -> None:
    gc.disable()
    try:
        batches = source([], raises=raises)
        ahead = Ahead(batches, Late())
        held = weakref.ref(ahead), weakref.ref(batches)
        try:
            numbers(ahead)
        except ValueError:
            assert raises is not None
        del ahead, batches
        assert [each() for each in held] == [None, None]
    finally:
        gc.enable()


def test_closing_it_closes_the_generator() -> None:
    log: list[Any] = []
    ahead = Ahead(source(log), Late())
    next(ahead)
    ahead.close()
    assert log == [0, 1, "closed"]
    assert next(ahead, None) is None
    Ahead(iter([1]), Late()).close()


# ------------------------------------------------------------------------------------------------------- the public one


def test_on_the_cpu_it_is_the_loader_itself() -> None:
    loader = DataLoader(list(range(4)))
    assert prefetch(loader, "cpu") is loader
    assert prefetch(loader, torch.device("cpu")) is loader


def test_a_loader_is_gone_through_anew_and_an_iterator_goes_on(lane: Late) -> None:
    again = prefetch([torch.tensor(number) for number in range(5)], "cuda")
    for _ in range(2):
        assert [int(batch) for batch, _ in zip(again, range(2), strict=False)] == [0, 1]
    assert numbers(again) == [0, 1, 2, 3, 4]
    log: list[Any] = []
    once = prefetch(source(log), "cuda")
    for batch in once:
        if int(batch) == 1:
            break
    assert log == [0, 1, 2]
    assert numbers(once) == [2, 3, 4]
    assert prefetch(once, "cuda") is once


def test_an_iterator_that_begins_anew_with_each_loop_does_so(lane: Late) -> None:
    epochs = prefetch(Epochs(range(3), set()), "cuda")
    for _ in range(2):
        assert [batch["more"][1] for batch in epochs] == ["0", "1", "2"]
        next(iter(epochs))
    assert lane.copies == 2 * (6 + 2)  # none ahead


def test_an_iterator_that_hands_out_others_does_so(lane: Late) -> None:
    class Others:
        def __iter__(self) -> Iterator[Tensor]:
            return iter([torch.tensor(1), torch.tensor(2)])

        def __next__(self) -> Tensor:
            return torch.tensor(3)

    others: Any = prefetch(Others(), "cuda")
    assert (numbers(others), numbers(others), int(next(others))) == ([1, 2], [1, 2], 3)


class Squares(Dataset[Tensor]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor(float(index**2))


def test_all_else_is_the_loaders(lane: Late) -> None:
    loader = DataLoader(Squares(), 2, shuffle=True)
    ours = prefetch(loader, "cuda")
    assert isinstance(ours, DataLoader)
    assert len(ours) == 5
    assert ours.sampler is loader.sampler
    assert ours.dataset is loader.dataset
    assert repr(ours) == f"prefetch({loader!r}, 'cuda')"
    iterator: Any = iter(ours)
    assert len(iterator) == 5
    assert iterator._num_workers == 0
    assert bool(iterator)
    assert "one batch ahead on meta" in repr(iterator)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = iterator.nothing_like_it
    for again in (copy(ours), deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(again) is type(ours)
        assert sum(map(torch.sum, again)) == sum(n**2 for n in range(10))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(TargetError, match=r"prefetch\(\) goes around a data loader, .* and 3 cannot"):
        prefetch(3, "cpu")
    with pytest.raises(UnsupportedHere, match=r"prefetch\(..., 'gpu'\): torch knows no such device"):
        prefetch([], "gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UnsupportedHere, match=r"prefetch\(..., 'cuda:7'\): torch has no such device here .*'cpu'"):
            prefetch([], "cuda:7")


def test_without_a_device_it_is_the_one_that_work_runs_on() -> None:
    loader = [torch.ones(1)]
    if torchturbo.hardware.detect().device_type == "cpu":
        assert prefetch(loader) is loader


def test_a_device_without_streams_gets_its_batches_too() -> None:
    batches = prefetch([{"x": torch.ones(2), "name": "a"}], "meta")
    assert [(batch["x"].device.type, batch["name"]) for batch in batches] == [("meta", "a")]


@pytest.mark.parametrize("workers", [0, 2])
def test_torchs_loaders_give_what_they_give(lane: Late, workers: int) -> None:
    loader: Any = DataLoader(Squares(), 3, num_workers=workers, persistent_workers=workers > 0)
    plain = [batch.tolist() for batch in loader]
    threads = threading.active_count()
    for _ in prefetch(loader, "cuda"):
        break
    assert [batch.tolist() for batch in prefetch(loader, "cuda")] == plain
    assert threading.active_count() == threads
    loader._iterator = None


# --------------------------------------------------------------------------------------------------------- at length


class Unsteady:
    """Batches by number, some of which are errors instead.

    Args:
        numbers: of the batches.
        wrong: of those that raise.
    """

    def __init__(self, numbers: range, wrong: set[int]) -> None:
        self._numbers, self._wrong = numbers, wrong

    def __iter__(self) -> Iterator[Any]:
        return map(self._batch, self._numbers)

    def _batch(self, number: int) -> Any:
        if number in self._wrong:
            raise LookupError(number)
        return {"x": torch.full((4,), number), "more": (torch.tensor(number), str(number))}


class Once(Unsteady):
    """An iterator, which goes on after an error, and after a loop that was left."""

    _at = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._at == len(self._numbers):
            raise StopIteration
        self._at += 1
        return self._batch(self._numbers[self._at - 1])


class Epochs(Once):
    """An iterator that begins anew with each loop."""

    def __iter__(self) -> Iterator[Any]:
        self._at = 0
        return self


class Read(Dataset[Any]):
    """The same, by index."""

    def __init__(self, numbers: range, wrong: set[int]) -> None:
        self._numbers, self._of = numbers, Unsteady(numbers, wrong)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Any:
        return self._of._batch(self._numbers[index])


def gone_through(batches: Any, breaks: list[int]) -> list[Any]:
    """What a loop after another has got of it, each left after so many batches."""
    got: list[Any] = []
    for after in breaks:
        try:
            for count, batch in enumerate(batches):
                if count == after:
                    got.append("left")
                    # What the loop was given and has not used would be lost to any iterator.
                    got.append(batch["x"].tolist() if isinstance(batch, dict) else batch)
                    break
                first, (second, name) = batch["x"], batch["more"]
                got.append((first.tolist(), int(second), name))
            else:
                got.append("end")
        except LookupError as error:
            got.append(str(error))
    return got


def through(batches: int, look: Callable[[int], None]) -> None:
    """Random loops until so many batches have been used."""
    chance = random.Random(5)
    done = at = 0
    while done < batches:
        size = chance.randrange(1, 400)
        wrong = {number for number in range(at, at + size) if chance.random() < 0.005}
        breaks = [chance.choice([1, 3, 50, 1000]) for _ in range(chance.randrange(1, 8))]
        kind = chance.choice([Once, Epochs, Unsteady, Read])

        def made(kind: Any = kind, numbers: range = range(at, at + size), wrong: set[int] = wrong) -> Any:
            batches = kind(numbers, wrong)
            return DataLoader(batches, batch_size=None) if kind is Read else batches

        loader = prefetch(made(), "cuda")
        got = gone_through(loader, breaks)
        assert got == gone_through(made(), breaks)
        del loader
        done, at = done + sum(type(each) is tuple for each in got), at + size
        look(done)


def test_nothing_is_lost_repeated_or_reordered(lane: Late) -> None:
    through(2_000, lambda done: None)
    assert lane.copies > 4_000


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_grows_in_100_000_batches(lane: Late) -> None:
    process, sizes, threads = psutil.Process(), [], []

    def look(done: int) -> None:
        if done > 10_000 * (len(sizes) + 1):
            gc.collect()
            alive = sum(issubclass(type(each), Tensor) for each in gc.get_objects())
            sizes.append((process.memory_info().rss, alive))
            threads.append(threading.active_count())

    through(100_000, look)
    assert lane.copies > 200_000
    assert len(set(threads)) == 1
    assert max(alive for _, alive in sizes) - min(alive for _, alive in sizes) < 10
    assert sizes[-1][0] - sizes[1][0] < 8 * 2**20
