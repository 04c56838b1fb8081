"""What only a GPU can show of batches that are one ahead: real streams, pinned memory, and the allocator's."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, Dataset

from tests.laws.around import NOTHING
from torchturbo import prefetch, tune_loader, turbo
from torchturbo.regions._ahead import Ahead

pytestmark = pytest.mark.gpu

LARGE = 2**20


class Images(Dataset[Any]):
    """Large samples, each full of its number, whose copies take a while."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.full((LARGE,), float(index)), "y": index, "name": str(index)}


@pytest.fixture(autouse=True)
def gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


def busy() -> None:
    """Work for the stream that computes, so that copies are made beside it."""
    x = torch.randn(2048, 2048, device="cuda")
    for _ in range(4):
        x = x @ x / 2048


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_whole_when_they_are_used(workers: int, pinned: bool) -> None:
    loader = DataLoader(Images(), 4, num_workers=workers, pin_memory=pinned)
    sums = []
    for batch in prefetch(loader, "cuda"):
        assert batch["x"].device == torch.device("cuda", torch.cuda.current_device())
        assert batch["y"].is_cuda
        assert all(type(name) is str for name in batch["name"])
        # Read by work that stands in the queue, as a step does, long after the loop has gone on.
        busy()
        sums.append((batch["x"].double().mean(1) - batch["y"]).abs().max())
        del batch
    assert len(sums) == 16
    assert torch.stack(sums).max().item() == 0


def test_memory_that_a_batch_had_is_not_written_while_it_is_used() -> None:
    """Each batch is let go at once, and the next copies may get its memory only when what reads it has run."""
    wrong = torch.zeros((), device="cuda")
    source = (torch.full((LARGE,), float(number)) for number in range(200))
    for number, batch in enumerate(prefetch(source, "cuda")):
        torch.cuda._sleep(200_000)
        wrong += (batch != number).any()
        del batch
    assert wrong.item() == 0


def test_pinned_memory_that_is_filled_again_is_read_before() -> None:
    def refilled() -> Iterator[Tensor]:
        buffer = torch.empty(LARGE).pin_memory()
        for number in range(50):
            buffer.fill_(number)
            yield buffer

    means = [batch.double().mean() for batch in prefetch(refilled(), "cuda")]
    assert torch.stack(means).tolist() == list(range(50))


def test_a_stream_of_the_codes_own_waits_too() -> None:
    stream = torch.cuda.Stream()
    batches = iter(prefetch([torch.full((LARGE,), float(number)) for number in range(20)], "cuda"))
    sums = []
    with torch.cuda.stream(stream):
        for batch in batches:
            sums.append(batch.double().mean())
            del batch
    stream.synchronize()
    assert torch.stack(sums).tolist() == list(range(20))


class Own:
    """A batch of somebody's own."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def pin_memory(self) -> Own:
        self.x = self.x.pin_memory()
        return self

    def to(self, device: Any, non_blocking: bool = False) -> Own:
        self.x = self.x.to(device, non_blocking=non_blocking)
        return self


@dataclass(frozen=True)
class Frozen:
    x: Tensor


def test_batches_of_any_make() -> None:
    x = torch.arange(LARGE, dtype=torch.float32)
    sparse = torch.eye(64).to_sparse()
    there = torch.ones(3, device="cuda")
    batch = [Own(x), Frozen(x), pack_sequence([x, x]), sparse, there, {"twice": x}, torch.nn.Parameter(x[:8].clone())]
    own, frozen, packed, its_sparse, its_there, its_dict, parameter = next(iter(prefetch([batch], "cuda")))
    busy()
    assert own.x.sum().item() == frozen.x.sum().item() == x.cuda().sum().item()
    assert batch[0].x is x  # type: ignore[union-attr] # stays where it was
    assert its_dict["twice"] is frozen.x
    assert packed.data.is_cuda
    assert not packed.batch_sizes.is_cuda
    assert torch.equal(its_sparse.to_dense().cpu(), sparse.to_dense())
    assert its_there is there
    assert parameter.is_cuda


def test_nothing_grows() -> None:
    loader = DataLoader(Images(), 4)
    threads = threading.active_count()

    def left_early() -> tuple[int, int]:
        for batch in prefetch(loader, "cuda"):
            if batch["name"][0] == "12":
                break
        del batch
        gc.collect()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    left_early()
    before = left_early()
    for _ in range(20):
        allocated, reserved = left_early()
        assert allocated == before[0]
        assert reserved <= before[1] + 2**27  # what streams still use when more is asked for is found by chance
    assert threading.active_count() == threads


def test_loaders_in_a_block_give_their_batches_on_the_gpu_and_the_same_ones() -> None:
    def run(ahead: bool) -> list[list[float]]:
        with turbo(NOTHING, seed=3, prefetch=ahead):
            loader = DataLoader(Images(), 4, shuffle=True)
            assert (type(iter(loader)) is Ahead) is ahead
            return [batch["x"][:, 0].tolist() for batch in loader]

    assert run(True) == run(False)


def test_a_loaders_settings_are_found_with_copies_to_the_gpu() -> None:
    found = tune_loader(DataLoader(Images(), 4), "5 s")
    assert {"num_workers", "pin_memory"} <= found.best.keys()
    assert not any("pin_memory was not tried" in note for note in found.notes)
