"""What `distribute`, `shard` and checkpoints do on several ranks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from tests.distributed.parameters import whole_parameters
from tests.distributed.started import Cases, Result
from torchturbo import distribute, distribution_of, load_checkpoint, save_checkpoint, shard, turbo
from torchturbo._distribute import Sharded
from torchturbo.errors import AccumulationError, CheckpointError, DistributedError, TargetError

SAMPLES, BATCH, EPOCHS = 21, 8, 2
"""The last batch of an epoch has 5 samples: 3 and 2 on two ranks; 2, 1, 1 and 1 on four."""


class Block(nn.Module):
    """What is repeated in the model."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(12, 33), nn.Linear(33, 12)

    def forward(self, x: Tensor) -> Tensor:
        """A residual block."""
        return x + torch.as_tensor(self.down(torch.tanh(self.up(x))))


def model(seed: int = 0) -> nn.Sequential:
    """Two blocks between two layers."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 12), Block(), Block(), nn.Linear(12, 3))


def data(samples: int = SAMPLES) -> TensorDataset:
    """Some samples, the same everywhere."""
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(samples, 16, generator=generator), torch.randn(samples, 3, generator=generator))


def loader(batch: int = BATCH, samples: int = SAMPLES) -> DataLoader[Any]:
    """A loader in an order of its own, the same everywhere."""
    return DataLoader(data(samples), batch, shuffle=True, generator=torch.Generator().manual_seed(2))


def optimizer_of(module: nn.Module, name: str = "adamw") -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    return torch.optim.AdamW(module.parameters(), lr=0.01)


def train(
    module: nn.Module,
    batches: DataLoader[Any],
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int = EPOCHS,
    overflows: bool = False,
    clip: float | None = None,
) -> None:
    """An ordinary loop that knows nothing of ranks; a loss of one rank may overflow."""
    number = 0
    for _ in range(epochs):
        for x, y in batches:
            optimizer.zero_grad()
            loss = (module(x) - y).square().mean()
            if overflows and number == 2 and (not dist.is_initialized() or dist.get_rank() == 0):
                loss = loss * 1e9
            loss.backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
            optimizer.step()
            number += 1


def whole(options: dict[str, Any], by: str = "adamw", **how: Any) -> Result:
    """The loop in one process, which every rank runs for itself."""
    module = model()
    with turbo("exact", **options) as active:
        train(module, loader(), optimizer_of(module, by), **how)
        scale = None if active.scaler is None else active.scaler.get_scale()
    return {"parameters": whole_parameters(module), "scale": scale}


def spread(
    strategy: Any, options: dict[str, Any], arguments: dict[str, Any] | None = None, by: str = "adamw", **how: Any
) -> Result:
    """The same loop on all ranks, which begin with weights of their own."""
    module = distribute(model(dist.get_rank()) if dist.get_rank() else model(), strategy, **(arguments or {}))
    with turbo("exact", **options) as active:
        train(module, shard(loader(), batch_size="in_all"), optimizer_of(module, by), **how)
        scale = None if active.scaler is None else active.scaler.get_scale()
    result = {"parameters": whole_parameters(module), "scale": scale, "told": distribution_of(module).to_dict()}
    return result | {"classes": sorted({type(each).__name__ for each in module.modules()})}


def guarded(strategy: Any) -> Result:
    """A loop that drops batches whose gradients are not finite, as all are at first; it empties them in two ways."""
    module = distribute(model(), strategy)
    optimizer = optimizer_of(module)
    x, y = batches_of(dist.get_rank(), dist.get_world_size(), count=1)[0]
    with turbo("exact", autocast="fp16", init_scale=2.0**28) as active:
        for number in range(24):
            optimizer.zero_grad(set_to_none=number % 4 == 0)
            (module(x) - y).square().mean().backward()
            if (
                torch.nn.utils.get_total_norm([each.grad for each in module.parameters() if each.grad is not None])
                < 1e4
            ):
                optimizer.step()
        assert active.scaler is not None
        return {
            "parameters": whole_parameters(module),
            "steps": active.scaler.steps,
            "scale": active.scaler.get_scale(),
        }


def in_a_row(strategy: Any) -> Result:
    """Two models, one of which is called twice, in a row: the uneven batch weighs the gradients of each once."""
    torch.manual_seed(3)
    made: list[nn.Module] = [nn.Linear(16, 16), nn.Linear(16, 3)]
    batches = loader()
    if strategy != "none":
        made = [distribute(each, strategy) for each in made]
        batches = shard(batches, batch_size="in_all")
    first, second = made
    optimizer = torch.optim.SGD([*first.parameters(), *second.parameters()], lr=0.1)
    for x, y in batches:
        optimizer.zero_grad()
        middle = first(torch.tanh(first(x)))
        ((second(middle) - y).square().mean() + middle.abs().mean()).backward()
        optimizer.step()
    return {"parameters": [*whole_parameters(first), *whole_parameters(second)]}


# -------------------------------------------------------------------------------------------------------- accumulation


@contextmanager
def counted() -> Iterator[list[str]]:
    """A block in which reductions of gradients are counted."""
    found: list[str] = []
    # Newer ones of torch call it by another name.
    name = "reduce_scatter_single" if hasattr(dist, "reduce_scatter_single") else "reduce_scatter_tensor"
    theirs = getattr(dist, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        found.append("reduce_scatter")
        return theirs(*args, **kwargs)

    with mock.patch.object(dist, name, counting):
        yield found


def counts_of(module: nn.Module, found: list[str]) -> None:
    """Counts those of DistributedDataParallel too, which are not called from Python."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    # A lambda, as torch looks at annotations.
    hook: Any = lambda group, bucket: (found.append("all_reduce"), allreduce_hook(group, bucket))[1]  # noqa: E731
    module.register_comm_hook(None, hook)  # type: ignore[operator]


STEPS = 3
EVERY = 4


def batches_of(rank: int, ranks: int, *, count: int = STEPS * EVERY) -> list[tuple[Tensor, Tensor]]:
    x, y = data(count * BATCH).tensors
    return [
        (x[at * BATCH + rank : (at + 1) * BATCH : ranks], y[at * BATCH + rank : (at + 1) * BATCH : ranks])
        for at in range(count)
    ]


def accumulated(
    strategy: Any,
    options: dict[str, Any],
    *,
    whole: bool = False,
    count: int = STEPS * EVERY,
    how: Callable[..., None] | None = None,
    clip: float | None = None,
    **arguments: Any,
) -> Result:
    """A loop that steps after each micro-batch, and reduces as often as is counted."""
    module = model() if whole else distribute(model(), strategy, **arguments)
    batches: Any = (
        batches_of(0, 1, count=count) if whole else batches_of(dist.get_rank(), dist.get_world_size(), count=count)
    )
    with counted() as reductions:
        if not whole and strategy == "ddp":
            counts_of(module, reductions)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        with turbo("exact", accumulate=EVERY, **options):
            (how or train)(module, batches, optimizer, **({"clip": clip, "epochs": 1} if how is None else {}))
    return {"parameters": whole_parameters(module), "reductions": len(reductions)}


def by_hand(clip: float | None = None, **arguments: Any) -> Result:
    """The same, written with no_sync(); the very first micro-batch is reduced, as nobody knows an optimizer then."""
    module: Any = nn.parallel.DistributedDataParallel(model())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for number, (x, y) in enumerate(batches_of(dist.get_rank(), dist.get_world_size())):
        module.require_backward_grad_sync = number == 0 or number % EVERY == EVERY - 1
        ((module(x) - y).square().mean() / EVERY).backward()
        if number % EVERY == EVERY - 1:
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return {"parameters": whole_parameters(module)}


def ahead(module: nn.Module, batches: Any, optimizer: torch.optim.Optimizer) -> None:
    """A loop that runs a forward before the step of the micro-batch before it."""
    loss: Tensor | None = None
    for number, (x, y) in enumerate(batches):
        loss = (module(x) - y).square().mean() if loss is None else loss
        loss.backward()
        loss = None
        if number % EVERY < EVERY - 1:
            x, y = batches[number + 1]
            loss = (module(x) - y).square().mean()
        optimizer.step()
        optimizer.zero_grad()


def clipped_rest() -> Result:
    """A window that is not whole, whose gradients the loop has clipped on each rank by itself."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = accumulated("ddp", FP32, count=6, clip=0.01)
    return result | {"warned": [str(each.message) for each in seen]}


# --------------------------------------------------------------------------------------------------------- checkpoints


def saved(strategy: Any, folder: Path) -> Result:
    """Trains for an epoch, saves, and goes on; what is loaded goes on to the same end."""
    path = folder / f"{strategy}-{dist.get_world_size()}"
    module = distribute(model(), strategy)
    optimizer, batches = optimizer_of(module), shard(loader(), batch_size="in_all")
    with turbo("exact", **FP16) as active:
        train(module, batches, optimizer, epochs=1, overflows=True)
        save_checkpoint(path, module, optimizer, loader=batches, active=active, extra={"epoch": 1})
        found = {"at": whole_parameters(module)}
        train(module, batches, optimizer, epochs=1)
    return found | {"parameters": whole_parameters(module), "path": str(path)}


def resumed(strategy: Any, path: Path) -> Result:
    """Goes on from a checkpoint of whatever number of ranks."""
    module = distribute(model(5), strategy)
    optimizer = optimizer_of(module)
    batches = shard(loader(), batch_size="in_all")
    if not isinstance(batches, Sharded) or path.name.startswith("alone"):
        list(batches)  # the epoch that the other run has had, where nobody saves it
    with turbo("exact", **FP16) as active:
        extra = load_checkpoint(path, module, optimizer, loader=batches, active=active)
        found = {"at": whole_parameters(module), "extra": extra, "scale": active.scaler.get_scale()}  # type: ignore[union-attr]
        train(module, batches, optimizer, epochs=1)
    return found | {"parameters": whole_parameters(module)}


def in_an_accumulating_block(folder: Path) -> Result:
    """Saves before any step, where a block has steps wait; and is refused in the middle of a window."""
    module = distribute(model(), "ddp")
    optimizer = optimizer_of(module)
    found: Result = {}
    with turbo("exact", accumulate=2, autocast=None) as active:
        save_checkpoint(folder / "accumulating", module, optimizer, active=active)
        train(module, batches_of(0, 1, count=3), optimizer, epochs=1)  # type: ignore[arg-type]
        try:
            save_checkpoint(folder / "accumulating", module, optimizer, active=active)
        except AccumulationError as error:
            found["error"] = str(error)
        active.flush()
    return found


class Unused(nn.Module):
    """A model with a layer that it does not use."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.used, self.unused = nn.Linear(16, 3), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Of one layer."""
        return torch.as_tensor(self.used(x))


def untouched(strategy: Any, folder: Path) -> Result:
    """Saved before the first step and after some, and loaded where gradients stand: nothing of it may show."""
    batches = batches_of(dist.get_rank(), dist.get_world_size(), count=2)
    how = {"find_unused_parameters": True} if strategy == "ddp" else {}
    path = folder / f"untouched {strategy}"

    def made(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        module = distribute(Unused(seed), strategy, **how)
        return module, optimizer_of(module)

    def trained(module: nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> list[Tensor]:
        train(module, batches, optimizer, epochs=epochs)  # type: ignore[arg-type]
        return whole_parameters(module)

    found: Result = {"parameters": trained(*made(0), 2)}
    module, optimizer = made(0)
    save_checkpoint(path, module, optimizer)
    found["saved"] = trained(module, optimizer, 2)
    module, optimizer = made(5)
    load_checkpoint(path, module, optimizer)
    trained(module, optimizer, 1)
    save_checkpoint(path, module, optimizer)
    found["states"] = len(optimizer.state)
    module, optimizer = made(5)
    module(batches[0][0]).sum().backward()
    load_checkpoint(path, module, optimizer)
    found["loaded"] = trained(module, optimizer, 1)
    return found


class Noted(nn.Module):
    """A model with statistics, and with a state of its own that is empty at first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 3), nn.BatchNorm1d(3))
        self.notes: Result = {}

    def get_extra_state(self) -> Result:
        """What torch saves with the model."""
        return self.notes

    def set_extra_state(self, state: Result) -> None:
        """What it gives back."""
        self.notes = state

    def forward(self, x: Tensor) -> Tensor:
        """Of all layers."""
        return torch.as_tensor(self.layers(x))


def of_each_rank(folder: Path) -> Result:
    """What each rank has of its own in a model: statistics, and a state that only its module knows."""
    module = distribute(Noted(), "ddp")
    batches = batches_of(dist.get_rank(), dist.get_world_size(), count=2)
    train(module, batches, optimizer_of(module), epochs=1)  # type: ignore[arg-type]
    module.module.notes = {"seen": torch.arange(2), "rank": {"is": dist.get_rank()}}  # type: ignore[union-attr]
    save_checkpoint(folder / "own", module)
    loaded = Noted()
    load_checkpoint(folder / "own", loaded)
    return {"saved": list(module.buffers()), "loaded": list(loaded.buffers()), "notes": loaded.notes}


def failing(folder: Path) -> Result:
    """Checkpoints that one rank cannot write or read."""
    found: Result = {}
    module = distribute(model(), "ddp")
    (folder / "file").touch()
    attempts: dict[str, Callable[[], Any]] = {
        "extra": lambda: save_checkpoint(folder / "failing", module, extra={"path": folder}),
        "folder": lambda: save_checkpoint(folder / "file" / "failing", module),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
        except (CheckpointError, OSError) as error:
            found[name] = str(error)
    return found


# ------------------------------------------------------------------------------------------------------------- loaders


def orders() -> Result:
    """The samples that each rank gets, in several ways."""
    plain = DataLoader(torch.arange(21), 4)
    shuffled = DataLoader(torch.arange(21), 4, shuffle=True)
    found: Result = {}
    found["per_rank"] = [batch.tolist() for batch in shard(plain)]
    found["in_all"] = [batch.tolist() for batch in shard(plain, batch_size="in_all")]
    found["drops"] = [batch.tolist() for batch in shard(DataLoader(torch.arange(21), 4, drop_last=True))]
    found["one"] = [batch.tolist() for batch in shard(DataLoader(torch.arange(9), 4), batch_size="in_all")]
    mine = shard(shuffled)
    found["lengths"] = [len(mine), len(shard(plain)), len(shard(plain, batch_size="in_all"))]
    found["epochs"] = [torch.cat(list(mine)).tolist() for _ in range(2)]
    mine.set_epoch(0)  # type: ignore[attr-defined]
    found["again"] = torch.cat(list(mine)).tolist()
    ordered = BatchSampler(RandomSampler(range(21)), 4, drop_last=False)
    found["batch sampler"] = torch.cat(list(shard(DataLoader(torch.arange(21), batch_sampler=ordered)))).tolist()
    found["workers"] = [batch.tolist() for batch in shard(DataLoader(torch.arange(21), 4, num_workers=1))]
    return found


def errors() -> Result:
    """What is refused on several ranks."""
    found: Result = {}
    module = distribute(model(), "ddp")
    stepped = model()
    optimizer = optimizer_of(stepped)
    thawed = distribute(nn.Sequential(nn.Linear(1, 1).requires_grad_(False), nn.Linear(1, 1)), "ddp")
    thawed(torch.ones(1, 1))
    thawed.requires_grad_(True)
    attempts: dict[str, Callable[[], Any]] = {
        "twice": lambda: distribute(module),
        "units": lambda: distribute(model(), "ddp", units=["Block"]),
        "sharded": lambda: shard(shard(loader())),
        "missing": lambda: load_checkpoint("/nonexistent/checkpoint", module),
        "different": lambda: distribute(nn.Linear(1, 1 + dist.get_rank()), "fsdp"),
        "optimizer": lambda: distribute(stepped, "fsdp"),
        "meta": lambda: distribute(nn.Linear(1, 1, device="meta"), "ddp"),
        "timeout": lambda: distribute(nn.Linear(1, 1), timeout=7),
        "thawed": lambda: thawed(torch.ones(1, 1)),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
        except (TargetError, DistributedError, CheckpointError) as error:
            found[name] = str(error)
    del optimizer
    return found


def tied() -> Result:
    """A weight that a block shares with the outside is not sharded with the block."""
    made = model()
    made[2].up.weight = made[1].up.weight
    module = distribute(made, "fsdp")
    optimizer = optimizer_of(module)
    train(module, shard(loader(), batch_size="in_all"), optimizer)
    reference = model()
    reference[2].up.weight = reference[1].up.weight
    train(reference, loader(), optimizer_of(reference))
    return {
        "parameters": whole_parameters(module),
        "reference": whole_parameters(reference),
        "units": distribution_of(module).units,
        "tied": made[2].up.weight is made[1].up.weight,
    }


# The mean over one sample alone would overflow at a scale at which that over more does not.
FP16 = {"autocast": "fp16", "init_scale": 1024.0}
BF16, FP32 = {"autocast": "bf16"}, {"autocast": None}
SENT_BF16 = {"gradient_dtype": torch.bfloat16}
COMPILED = {"autocast": None, "compile": {"backend": "aot_eager"}}


def cases(folder: Path, alone: Path) -> Cases:
    """Everything, by name."""
    found: Cases = {
        "whole": partial(whole, FP32),
        "whole bf16": partial(whole, BF16, "sgd"),
        "whole fp16 sgd": partial(whole, FP16, "sgd", overflows=True),
        "whole fp16": partial(whole, FP16, overflows=True),
        "whole accumulate": partial(accumulated, "none", FP32, whole=True),
        "whole accumulate rest": partial(accumulated, "none", FP32, whole=True, count=6),
        "whole accumulate ahead": partial(accumulated, "none", FP32, whole=True, how=ahead),
        "by hand": by_hand,
        "by hand clip": partial(by_hand, clip=0.1),
        "orders": orders,
        "whole in a row": partial(in_a_row, "none"),
        "failing": partial(failing, folder),
        "of each rank": partial(of_each_rank, folder),
        "errors": errors,
        "tied": tied,
        "in an accumulating block": partial(in_an_accumulating_block, folder),
        "auto": partial(spread, "auto", FP32),
        "fsdp mixed": partial(spread, "fsdp", FP32, {"mixed_precision": torch.bfloat16}, "sgd"),
        "fsdp accumulate whole": partial(accumulated, "fsdp", FP32, whole_sums=True),
        "fsdp accumulate whole fp16": partial(accumulated, "fsdp", FP16, whole_sums=True),
        "fsdp accumulate whole rest": partial(accumulated, "fsdp", FP32, whole_sums=True, count=6),
        "ddp accumulate clip": partial(accumulated, "ddp", FP32, clip=0.1),
        "clipped rest": clipped_rest,
        "ddp accumulate compiled": partial(accumulated, "ddp", COMPILED),
        "ddp accumulate fp16": partial(accumulated, "ddp", FP16),
        "ddp accumulate ahead": partial(accumulated, "ddp", FP32, how=ahead),
    }
    for strategy in ("ddp", "fsdp"):
        found |= {
            strategy: partial(spread, strategy, FP32),
            f"{strategy} bf16": partial(spread, strategy, BF16, None, "sgd"),
            f"{strategy} fp16": partial(spread, strategy, FP16, overflows=True),
            f"{strategy} sent bf16": partial(spread, strategy, FP16, SENT_BF16, "sgd", overflows=True),
            f"{strategy} accumulate": partial(accumulated, strategy, FP32),
            f"{strategy} accumulate rest": partial(accumulated, strategy, FP32, count=6),
            f"{strategy} compiled": partial(spread, strategy, COMPILED),
            f"{strategy} in a row": partial(in_a_row, strategy),
            f"{strategy} guarded": partial(guarded, strategy),
            f"{strategy} untouched": partial(untouched, strategy, folder),
            f"{strategy} saved": partial(saved, strategy, folder),
        }
    ranks = dist.get_world_size()
    paths = [(folder / f"ddp-{ranks}", "ddp"), (folder / f"ddp-{ranks}", "fsdp"), (folder / f"fsdp-{ranks}", "ddp")]
    paths += [(path, strategy) for path in sorted(alone.glob("*-*")) for strategy in ("ddp", "fsdp")]
    return found | {f"{path.name} -> {after}": partial(resumed, after, path) for path, after in paths}
