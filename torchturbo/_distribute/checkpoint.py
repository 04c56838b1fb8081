"""Checkpoints of models on any number of ranks, by torch.distributed.checkpoint: written whole, or not at all."""

from __future__ import annotations

import io
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from torchturbo._distribute.failing import by_torch, on_all, taken_away, without_warnings
from torchturbo._distribute.loader import Sharded
from torchturbo._distribute.states import load_state, saved_state
from torchturbo.errors import CheckpointError, DeterminismWarning
from torchturbo.hardware._ranks import of_group

if TYPE_CHECKING:
    from torchturbo._active import Active

_Optimizers = Optimizer | Sequence[Optimizer] | None
_WHOLE = ".metadata"
"""What torch.distributed.checkpoint writes last."""


def save_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: _Optimizers = None,
    *,
    loader: DataLoader[Any] | None = None,
    active: Active | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Saves a model and its optimizers, each rank what it holds; all ranks have to call it.

    The folder is written under another name and renamed once all ranks are done: one who is killed meanwhile leaves the
    former checkpoint as it was. Names of parameters are those of the plain model, without ``module.``, so it is
    loaded on any number of ranks, and ``torch.distributed.checkpoint.format_utils.dcp_to_torch_save(path, file)`` makes
    a file of it that ``model.load_state_dict(torch.load(file)["model"])`` reads in plain PyTorch.

    Args:
        path: the folder; a checkpoint that is there is replaced.
        model: the model, as `distribute` or anybody else has made it.
        optimizer: the optimizer, or all of them in a list; None for none.
        loader: a data loader, of which `shard` has made a part: where its order comes from. One that has no
            ``state_dict()`` has nothing to be saved.
        active: a block, whose ``state_dict()`` is saved for each rank.
        extra: more to keep, as step and epoch: what ``torch.load(weights_only=True)`` reads; the first rank's.

    Returns:
        The folder.

    Raises:
        AccumulationError: micro-batches wait for a step in the block; nothing has been written.
        CheckpointError: `extra` has something that could not be read again, there is something else than a checkpoint
            in the folder, or a rank could not write its part, as it says.
        RuntimeError: the block is not open in this thread.
    """
    dcp: Any = import_module("torch.distributed.checkpoint")  # which takes a while to import
    # Where it is a link, what it leads to is replaced.
    target = Path(path).resolve()
    here = of_group()
    blocks = None
    writing = target.with_name(f"{target.name}.writing")
    with taken_away(writing, here):
        with on_all(here):
            blocks = None if active is None else active.state_dict()
            if here.rank == 0:
                _refuse_unreadable(extra)
                _refuse_to_replace(target)
                shutil.rmtree(writing, ignore_errors=True)
                writing.mkdir(parents=True)
        with without_warnings(), by_torch(f"{target} is not written"):
            # What each rank has whole is the first's: buffers of several ranks do not go together.
            planner = dcp.DefaultSavePlanner(dedup_save_to_lowest_rank=True)
            state = saved_state(model, _list(optimizer))
            dcp.save(state, checkpoint_id=writing, planner=planner, no_dist=here.size == 1)
        with on_all(here):
            if blocks is not None:
                _written(blocks, writing / f"block-{here.rank}.pt")
            if here.rank == 0:
                order = loader.state_dict() if isinstance(loader, Sharded) else None
                _written({"extra": dict(extra or {}), "ranks": here.size, "loader": order}, writing / "torchturbo.pt")
        with on_all(here):
            if here.rank == 0:
                former = _former(target)
                if target.exists():
                    shutil.rmtree(former, ignore_errors=True)
                    target.rename(former)
                writing.rename(target)
                shutil.rmtree(former, ignore_errors=True)
    return target


def load_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: _Optimizers = None,
    *,
    loader: DataLoader[Any] | None = None,
    active: Active | None = None,
) -> dict[str, Any]:
    """Loads what `save_checkpoint` has saved, on whatever number of ranks; all ranks have to call it.

    Args:
        path: the folder.
        model: the model, plain, or as `distribute` or anybody else has made it.
        optimizer: the optimizer, or all of them in the same order; None for none.
        loader: the data loader: its next epoch has the order of the one that was under way, or would have been next.
        active: a block, which goes on from its state. On another number of ranks the scale of fp16 goes on, and
            random numbers and loaders do not, which a `DeterminismWarning` tells.

    Returns:
        What was saved as ``extra``.

    Raises:
        CheckpointError: there is none, it is not whole, it has no state of a block, or is of another model or kind of
            optimizer; the message says what differs.
        ValueError: the block has other options than the one that was saved.
    """
    dcp: Any = import_module("torch.distributed.checkpoint")
    here = of_group()
    kept: dict[str, Any] = {}
    with on_all(here):
        target = _found(Path(path).resolve())
        # Read first, so that nothing has been changed where it is not there.
        with by_torch(f"{target} cannot be read"):
            kept = torch.load(target / "torchturbo.pt", weights_only=True)
            block = _block(target, here.rank, active, kept["ranks"])
    with without_warnings(), by_torch(f"{target} cannot be read"):
        load_state(
            model, _list(optimizer), target, lambda state: dcp.load(state, checkpoint_id=target, no_dist=here.size == 1)
        )
    if active is not None:
        _resumed(active, block, kept["ranks"], here.size)
    if isinstance(loader, Sharded) and kept["loader"] is not None:
        loader.load_state_dict(kept["loader"])
    extra: dict[str, Any] = kept["extra"]
    return extra


def _list(optimizer: _Optimizers) -> list[Optimizer]:
    if optimizer is None:
        return []
    return [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)


def _refuse_unreadable(extra: Mapping[str, Any] | None) -> None:
    if not extra:
        return
    for name, value in extra.items():
        file = io.BytesIO()
        try:
            torch.save(value, file)
            file.seek(0)
            torch.load(file, weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"extra[{name!r}] is a {type(value).__name__}, which torch.load(weights_only=True) cannot read: "
                "keep numbers, strings, tensors, and lists and dictionaries of them (vars(args), str(path))"
            ) from error


def _refuse_to_replace(target: Path) -> None:
    if not target.exists() or (target / "torchturbo.pt").exists():
        return
    names = sorted(each.name for each in target.iterdir()) if target.is_dir() else [target.name]
    if names:
        beside = target if target.is_dir() else target.parent
        raise CheckpointError(
            f"{target} would be replaced, and is no checkpoint that torchturbo.save_checkpoint has written (there is "
            f"{names[0]!r}): give a folder of its own, as {str(beside / 'checkpoint')!r}"
        )


def _written(state: Any, path: Path) -> None:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def _former(target: Path) -> Path:
    return target.with_name(f"{target.name}.former")


def _found(target: Path) -> Path:
    # A rank that is killed between the two renames leaves the former one whole, under this name.
    for each in (target, _former(target)):
        if (each / _WHOLE).exists() and (each / "torchturbo.pt").exists():
            return each
    if (target / _WHOLE).exists():
        raise CheckpointError(
            f"{target} is a checkpoint that torchturbo.save_checkpoint has not written: load it by "
            "torch.distributed.checkpoint.load"
        )
    what = "is not whole" if target.exists() else "is not there"
    raise CheckpointError(
        f"the checkpoint {target} {what}: give the folder that torchturbo.save_checkpoint has returned"
    )


def _block(target: Path, rank: int, active: Active | None, ranks: int) -> dict[str, Any] | None:
    if active is None:
        return None
    path = target / f"block-{rank if rank < ranks else 0}.pt"
    if not path.exists():
        raise CheckpointError(
            f"{target} has no state of a block: save it with save_checkpoint(..., active=active), or leave active= out"
        )
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def _resumed(active: Active, block: dict[str, Any] | None, before: int, now: int) -> None:
    block = block or {}
    if before == now:
        active.load_state_dict(block)
        return
    if active.scaler is not None and "scaler" in block:
        active.scaler.load_state_dict(block["scaler"])
    if "seed" in block:
        warnings.warn(
            f"the checkpoint is of {before} ranks, and there are {now}: random numbers and data loaders of the block "
            "begin anew, since those of each rank are its own; weights, optimizers and the scale of fp16 go on",
            DeterminismWarning,
            stacklevel=3,
        )
