"""Stopping and going on: what a block has of its own, kept in a checkpoint beside the model and the optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torchturbo._turbo import standing
from torchturbo.errors import AccumulationError
from torchturbo.regions._backward import accumulating_in
from torchturbo.regions._seeding import SEEDING, Seeding
from torchturbo.regions._streams import resume, saved, streams

if TYPE_CHECKING:
    from torchturbo._active import Active


def state_of(active: Active) -> dict[str, Any]:
    """The state of a block, in numbers, strings, tuples, lists, dicts and tensors.

    Args:
        active: the block; open.

    Raises:
        AccumulationError: micro-batches wait for a step.
        RuntimeError: the block is not open in this thread.
    """
    found = standing(active)
    accumulating = accumulating_in(active.writes)
    if accumulating is not None and accumulating.waiting():
        raise AccumulationError(
            f"a state that is saved here would lack the micro-batches that wait for the next step "
            f"(accumulate={accumulating.every}): save after a step that happened, which active.is_last_micro_step "
            "told before it, or call active.flush() first"
        )
    state: dict[str, Any] = {}
    if active.scaler is not None:
        state["scaler"] = active.scaler.state_dict()
    seeding: Seeding | None = found.get(SEEDING)
    if seeding is not None:
        state["seed"] = seeding.seed
        state["streams"] = {cell.name: saved(cell, found[cell]) for cell in streams()}
        state["loaders"] = seeding.positions()
    return state


def resume_from(active: Active, state: Mapping[str, Any]) -> None:
    """Has a block go on from a state.

    Args:
        active: the block; open, and none within it.
        state: what `state_of` has returned.

    Raises:
        ValueError: the state is of a block with other options.
        RuntimeError: the block is not open in this thread, or one within it holds the streams.
    """
    found = standing(active)
    seeding: Seeding | None = found.get(SEEDING)
    has = {"scaler"} & state.keys(), state.get("seed")
    wants = {"scaler"} if active.scaler is not None else set(), None if seeding is None else seeding.seed
    if has != wants:
        raise ValueError(
            f"this state is of a block {_words(*has)}, and this block is one {_words(*wants)}: open it with the "
            "options of the run that it is to go on with"
        )
    if seeding is not None:
        here = {cell.name: cell for cell in streams()}
        if any(found[cell] != cell.read() for cell in (SEEDING, *here.values())):
            raise RuntimeError("a newer block has a seed of its own: load the state before it is opened")
        missing = {"streams", "loaders"} - state.keys()
        if missing:
            raise ValueError(f"the state of a block with a seed has streams and loaders; this lacks {sorted(missing)}")
    if active.scaler is not None:
        active.scaler.load_state_dict(state["scaler"])
    if seeding is not None:
        seeding.resume(state["loaders"])
        for name, stream in state["streams"].items():
            if name in here:
                resume(here[name], stream)


def _words(scaler: set[str], seed: int | None) -> str:
    parts = [
        "with fp16 scaling" if scaler else "without fp16 scaling",
        f"with {seed=}" if seed is not None else "without a seed",
    ]
    return " and ".join(parts)
