"""`distribute`, `shard` and checkpoints in one process, and with a second rank beside the test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Sampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from tests.distributed import spread, two
from tests.distributed.parameters import apart, same
from torchturbo import distribute, distribution_of, load_checkpoint, save_checkpoint, shard, turbo
from torchturbo._distribute import weights
from torchturbo._distribute.choice import bytes_of, chosen, room_of
from torchturbo._distribute.group import backend_for, device_of
from torchturbo._distribute.loader import Sharded, part
from torchturbo._distribute.units import units_of
from torchturbo._distribute.weights import weighted
from torchturbo.errors import AccumulationWarning, DeterminismWarning, DistributedError, TargetError
from torchturbo.regions._epochs import later
from torchturbo.testing import pretend_hardware

# ------------------------------------------------------------------------------------------------------- one process


def test_one_process_stays_as_it_is() -> None:
    module, loader = nn.Linear(2, 2), DataLoader(torch.arange(4), 2)
    assert distribute(module, "fsdp", device="cpu") is module
    assert shard(loader) is loader
    told = distribution_of(module)
    assert (told.strategy, told.ranks, str(told)) == ("none", 1, "none: there is one process")


def test_what_is_no_module_or_strategy_is_refused() -> None:
    wrong: Any = "ddd"
    with pytest.raises(TargetError, match=r"takes a torch\.nn\.Module"):
        distribute(wrong)
    with pytest.raises(DistributedError, match="'auto', 'ddp' or 'fsdp'"):
        distribute(nn.Linear(1, 1), wrong)
    with pytest.raises(DistributedError, match="float16 would overflow"):
        distribute(nn.Linear(1, 1), gradient_dtype=torch.float16)
    with pytest.raises(TargetError, match="give it what it returned"):
        distribution_of(nn.Linear(1, 1))


def test_the_strategy_goes_by_memory() -> None:
    assert bytes_of(nn.Linear(10, 10, bias=False)) == 4 * 400
    assert bytes_of(nn.Linear(10, 10, bias=False).requires_grad_(False)) == 400
    assert chosen(10, None)[0] == "ddp"
    strategy, why = chosen(10 * 10**9, 16 * 10**9)
    assert strategy == "fsdp"
    assert "9.31 GiB, 62% of the 14.9 GiB that a rank has, more than 50%" in why
    assert chosen(8 * 10**9, 16 * 10**9)[0] == "ddp"
    cpu = room_of(torch.device("cpu"), 1)
    assert cpu is None or cpu // 2 == room_of(torch.device("cpu"), 2)
    assert room_of(torch.device("meta"), 1) is None


@pytest.mark.parametrize(("machine", "kind", "gigabytes"), [("A100", "cuda", 80), ("B580", "xpu", 11)])
def test_gpus_of_any_maker_are_computed_on_and_talked_of(
    monkeypatch: pytest.MonkeyPatch, machine: str, kind: str, gigabytes: int
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device_of(None) == device_of(kind) == torch.device(kind, 3)
    assert device_of(f"{kind}:0") == torch.device(kind, 0)
    assert backend_for(torch.device(kind)) == {"cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}[kind]
    with pretend_hardware(machine):
        room = room_of(torch.device(kind, 0), 1)
        assert room is not None
        assert round(room / 2**30) == gigabytes
        assert room_of(torch.device(kind, 3), 1) is None


def test_what_processes_cannot_talk_of_is_computed_on_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    assert device_of(None) == torch.device("cpu")
    assert backend_for(torch.device("cpu")) == "gloo"
    with pytest.raises(DistributedError, match="no backend by which processes send tensors of meta"):
        backend_for(torch.device("meta"))


def test_units_are_what_is_repeated_or_named() -> None:
    module = spread.model()
    assert units_of(module, None) == [module[1], module[2]]
    assert units_of(module, [nn.Linear]) == [
        module[0],
        module[1].up,
        module[1].down,
        module[2].up,
        module[2].down,
        module[3],
    ]
    assert units_of(module, ["Block"]) == [module[1], module[2]]
    module._no_split_modules = ["Linear"]  # type: ignore[assignment]
    assert len(units_of(module, None)) == 6
    module[2].up.weight = module[1].up.weight
    assert units_of(module, ["Block"]) == []
    shared = nn.ModuleList([spread.Block()] * 3)
    assert units_of(shared, None) == units_of(nn.ModuleDict({"a": shared, "b": shared}), ["Block"]) == [shared[0]]
    towers = nn.ModuleDict({"a": nn.ModuleList([spread.Block(), spread.Block()]), "b": nn.Linear(1, 1)})
    assert units_of(towers, None) == list(towers["a"])  # type: ignore[call-overload]


def test_parts_differ_by_one_and_count_for_what_they_have() -> None:
    for samples in range(1, 12):
        for ranks in (1, 2, 3, 4):
            parts = [part(range(samples), rank, ranks) for rank in range(ranks)]
            counted = [mine for mine, count in parts if count]
            assert [each for mine in counted for each in mine] == list(range(samples))
            assert sum(count for _, count in parts) == pytest.approx(ranks)
            assert {mine[0] for mine, count in parts if not count} <= {0}


class _Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(())


class _Chance(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(())


class _Told(BatchSampler):
    def set_epoch(self, number: int) -> None:
        """As samplers do that draw by the number of an epoch."""


def test_loaders_that_nobody_can_share_out_are_refused() -> None:
    wrong: Any = [1, 2]
    data = torch.arange(4)
    refused = {
        r"takes a torch\.utils\.data\.DataLoader": wrong,
        r"itertools\.islice\(items, rank \* workers": DataLoader(_Stream()),
        "give the DataLoader a batch_size": DataLoader(data, batch_size=None),
        "a method `set_epoch": DataLoader(data, sampler=_Chance()),
        "one rank's part already": DataLoader(data, sampler=DistributedSampler(data, 2, 0)),  # type: ignore[arg-type]
    }
    for message, loader in refused.items():
        with pytest.raises(TargetError, match=message):
            shard(loader)
    with pytest.raises(TargetError, match="'per_rank' or 'in_all'"):
        shard(DataLoader(data), batch_size=wrong)


def test_a_batch_that_is_fetched_ahead_counts_when_it_is_handed_out() -> None:
    loader = Sharded(DataLoader(torch.arange(7), 4), 1, 2, "in_all", 0)
    notes: list[Callable[[], None]] = []
    with later(notes):
        ahead = list(loader)
    assert weights.newest == 1
    assert [len(batch) for batch in ahead] == [2, 1]
    seen = []
    for note in notes:
        note()
        seen.append(weights.newest)
    assert seen == [1, 2 / 3, 1]
    for _ in loader:
        pass
    assert weights.newest == 1
    whole = iter(loader)
    next(whole), next(whole)
    assert weights.newest == 2 / 3
    whole.close()  # type: ignore[attr-defined]
    assert weights.newest == 1


def test_a_loop_within_a_loop_leaves_what_its_batch_counts_for() -> None:
    uneven, even = (Sharded(DataLoader(torch.arange(n), 4), 1, 2, "in_all", 0) for n in (7, 8))
    seen = []
    for _ in uneven:
        list(even)
        next(iter(uneven))
        seen.append(weights.newest)
    assert seen == [1, 2 / 3]
    assert weights.newest == 1
    left = iter(even)
    next(left)
    inside = iter(uneven)
    next(inside), next(inside)
    del left
    assert weights.newest == 2 / 3
    del inside
    assert weights.newest == 1


def test_an_epoch_that_was_left_is_not_gone_on_with() -> None:
    loader = Sharded(DataLoader(torch.arange(8), 2, shuffle=True), 0, 2, "in_all", 0)
    for _ in loader:
        assert loader.state_dict()["epoch"] == 0
        break
    assert loader.state_dict()["epoch"] == 1


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    for count, its in ((4, "cuda:2"), (1, "cuda:0")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert str(device_of("cuda")) == its
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DistributedError, match=r"process 2 of its machine.*--nproc-per-node=2"):
        device_of("cuda")


def test_gradients_are_weighed_where_they_come_back() -> None:
    x = torch.ones(3, requires_grad=True)
    found = weighted({"a": x * 2, "b": [torch.ones(1)]}, 0.5)
    found["a"].sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0] * 3
    with pytest.raises(DistributedError, match="drop_last=True"):
        weighted(object(), 0.5)
    with torch.no_grad():
        assert weighted(x, 0.5) is x


def test_a_checkpoint_of_another_number_of_ranks_keeps_the_scale(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    with turbo("exact", autocast="fp16", seed=1, init_scale=8.0) as active:
        path = save_checkpoint(tmp_path / "checkpoint", module, [optimizer], active=active)
        kept = torch.load(path / "torchturbo.pt")
        torch.save(kept | {"ranks": 3}, path / "torchturbo.pt")
    with turbo("exact", autocast="fp16", seed=1) as active:
        with pytest.warns(DeterminismWarning, match="of 3 ranks, and there are 1"):
            assert load_checkpoint(path, module, [optimizer], active=active) == {}
        assert active.scaler is not None
        assert active.scaler.get_scale() == 8.0


# -------------------------------------------------------------------------------------------------------- two ranks


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_two_ranks_end_where_one_would(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reference = spread.whole(spread.FP32)["parameters"]
    rest = spread.accumulated("none", spread.FP32, whole=True, count=6)["parameters"]
    with two.ranks(monkeypatch) as rank:
        first = distribute(spread.model(rank), "auto", timeout=60)
        told = distribution_of(first)
        assert (told.rank, told.ranks, told.started, told.strategy) == (rank, 2, True, "ddp")
        assert "started here" in str(told)
        for strategy, arguments in {"ddp": {}, "fsdp": {"units": ["Block"]}}.items():
            found = spread.spread(strategy, spread.FP32, arguments)["parameters"]
            assert apart(found, reference) <= 1e-6
            sums = {"whole_sums": True} if strategy == "fsdp" else {}
            unclipped = pytest.warns(AccumulationWarning, match="has not clipped") if sums else nullcontext()
            with unclipped:
                ours = spread.accumulated(strategy, spread.FP32, count=6, **sums)["parameters"]
            assert apart(ours, rest) <= 1e-6
            saved = spread.saved(strategy, tmp_path)
            at = spread.resumed("fsdp", Path(saved["path"]))
            assert same(at["at"], saved["at"])
        assert len(spread.orders()["per_rank"]) == 3
        refused = {"twice", "units", "sharded", "missing", "different", "optimizer", "meta", "timeout", "thawed"}
        assert set(spread.errors()) == refused
        sent = distribute(spread.model(), "ddp", gradient_dtype=torch.bfloat16)
        assert "gradients are sent in bfloat16" in str(distribution_of(sent))
        with turbo("exact", accumulate=4), pytest.warns(AccumulationWarning, match="a multiple of accumulate"):
            _clipped(sent)
        spread.accumulated("ddp", spread.FP16, how=spread.ahead)
        all_of_them: list[Any] = [None, None]
        dist.all_gather_object(all_of_them, _of_a_model_that_is_gone(rank))
        assert same(*all_of_them)
        for workers in (0, 1):
            _goes_on_in_the_middle(workers, rank)
        assert (
            len(list(shard(DataLoader(torch.arange(5), batch_sampler=_Told(SequentialSampler(range(5)), 2, False)))))
            == 2
        )
        dist.barrier()


def _goes_on_in_the_middle(workers: int, rank: int) -> None:
    """A loader that goes on in the middle of its second epoch, and what the parts of its last step count for."""
    for generator in (None, 3):
        whole = []
        with turbo("exact", seed=7, autocast=None) as active:
            loader: Any = _shuffled(generator, workers)
            list(loader)
            for number, batch in enumerate(loader):
                whole.append((batch.tolist(), weights.newest))
                if number == 1:
                    state = active.state_dict(), loader.state_dict()
            following = [batch.tolist() for batch in loader]
        with turbo("exact", seed=7, autocast=None) as active:
            loader = _shuffled(generator, workers)
            active.load_state_dict(state[0])
            loader.load_state_dict(state[1])
            rest = [(batch.tolist(), weights.newest) for batch in loader]
            assert rest == whole[2:]
            # Of three samples the first rank has two.
            assert rest[-1][1] == (2 / 3 if rank else 4 / 3)
            assert [batch.tolist() for batch in loader] == following
            assert weights.newest == 1


def _of_a_model_that_is_gone(rank: int) -> list[Tensor]:
    """What is left to be reduced when the model that reduces is gone."""

    def trained() -> torch.optim.Optimizer:
        module = distribute(nn.Linear(2, 1), "ddp")
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(3):
            module(torch.ones(2, 2) * (rank + 1)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return optimizer

    with turbo("exact", accumulate=2, autocast=None):
        optimizer = trained()
    return list(optimizer.param_groups[0]["params"])


def _shuffled(generator: int | None, workers: int) -> DataLoader[Any]:
    own = None if generator is None else torch.Generator().manual_seed(generator)
    data = torch.arange(19)
    return shard(DataLoader(data, 4, shuffle=True, generator=own, num_workers=workers), batch_size="in_all")  # type: ignore[arg-type]


def _clipped(module: nn.Module) -> None:
    """Two micro-batches of four, the second of which is clipped."""
    with turbo("exact", accumulate=2):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        spread.train(module, spread.batches_of(dist.get_rank(), 2, count=7), optimizer, epochs=1, clip=0.01)  # type: ignore[arg-type]
