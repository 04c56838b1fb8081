"""The state of a model and its optimizers by the names of the plain model; of sharded ones the shards.

torch.distributed.checkpoint has an optimizer without a state take a step at a rate of 0, so that there is a state to
be filled. What comes of it is not the state of one that has not stepped (Adam counts the step), nor are there states
of parameters that have never had a gradient: here these are neither saved nor left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchturbo.errors import CheckpointError
from torchturbo.regions._skipping import at_once

State = dict[str, Any]


def saved_state(model: nn.Module, optimizers: Sequence[Optimizer]) -> State:
    """What is saved; the optimizers are as before.

    Args:
        model: the model.
        optimizers: its optimizers.
    """
    new = [each for each in optimizers if not each.state]
    try:
        state, names = _state(model, optimizers)
    finally:
        for each in new:
            each.state.clear()
    for each in new:
        for leaf in _leaves(each):
            state["optimizer"]["state"].pop(names[id(leaf)], None)
    return state


def load_state(
    model: nn.Module, optimizers: Sequence[Optimizer], folder: Path, load: Callable[[State], object]
) -> None:
    """Fills a model and its optimizers; parameters that had no state when they were saved have none.

    Args:
        model: the model.
        optimizers: its optimizers.
        folder: the checkpoint.
        load: fills a state in place.

    Raises:
        CheckpointError: it is of another model or kind of optimizer; nothing has been changed.
    """
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict import set_state_dict

    former = [(each, dict(each.state)) for each in optimizers if _lacks(each)]
    try:
        for each, _ in former:
            # Made anew, since what some parameters lack may have been saved.
            each.state.clear()
        state, names = _state(model, optimizers)
        metadata = FileSystemReader(folder).read_metadata()
        _in_the_saved_form(state["model"], metadata)
        _refuse_another_model(state["model"], metadata)
        saved = _saved_of_optimizers(metadata)
        made: State = state.get("optimizer", {}).get("state", {})
        without = {name: made.pop(name) for name in list(made) if name not in saved}
        if optimizers:
            _refuse_other_groups(state["optimizer"]["param_groups"], metadata)
            frozen = {names[id(leaf)] for each in optimizers for leaf in _leaves(each) if not leaf.requires_grad}
            _refuse_another_optimizer(made, {name: saved[name] for name in saved if name not in frozen}, optimizers)
        load(state)
    except BaseException:
        for each, had in former:
            each.state.clear()
            each.state.update(had)
        raise
    if without:
        state["optimizer"]["state"] = {**state["optimizer"]["state"], **without}
    at_once(
        optimizers,
        lambda: set_state_dict(
            model,
            list(optimizers),
            model_state_dict=state["model"],
            optim_state_dict=state.get("optimizer", {}),
        ),
    )
    for each in optimizers:
        for leaf in _leaves(each):
            if names[id(leaf)] in without:
                each.state.pop(leaf, None)


def _is_extra(name: str) -> bool:
    """Whether it is what ``get_extra_state()`` of a module has returned, which may be anything."""
    return name.rpartition(".")[2] == "_extra_state"


def _in_the_saved_form(made: State, metadata: Any) -> None:
    """Makes room for extra states as they were saved: torch saves what stands in one by itself, and loads no more."""
    from torch.distributed.checkpoint._traverse import set_element

    filled: State = {}
    for key, path in (metadata.planner_data or {}).items():
        if path[0] == "model" and _is_extra(path[1]) and path[1] in made:
            entry = metadata.state_dict_metadata[key]
            size = getattr(entry, "size", None)
            set_element(filled, path[1:], None if size is None else torch.empty(size, dtype=entry.properties.dtype))
    made.update(filled)


def _refuse_another_model(made: State, metadata: Any) -> None:
    """Raises where names or shapes differ; torch looks at those alone that the model has."""
    entries, paths = metadata.state_dict_metadata, metadata.planner_data or {}
    saved = {path[1]: entries.get(key) for key, path in paths.items() if path[0] == "model"}
    for name in {**made, **saved}:
        # Of an empty one nothing is saved.
        if name not in saved and not (_is_extra(name) and made[name] == {}):
            raise CheckpointError(f"the checkpoint is of another model: it has no {name!r}, which this one has")
        if name not in made:
            raise CheckpointError(f"the checkpoint is of another model: it has {name!r}, which this one has not")
        if _is_extra(name):
            continue
        there, here = getattr(saved[name], "size", None), getattr(made[name], "shape", None)
        if there is not None and here is not None and tuple(there) != tuple(here):
            raise CheckpointError(
                f"the checkpoint is of another model: {name!r} has the shape {tuple(there)} there, and "
                f"{tuple(here)} in this one"
            )


def _saved_of_optimizers(metadata: Any) -> dict[str, set[str]]:
    """What the saved optimizers keep of each parameter, by its name."""
    found: dict[str, set[str]] = {}
    for path in (metadata.planner_data or {}).values():
        if path[:2] == ("optimizer", "state") and len(path) > 2:
            found.setdefault(path[2], set()).update(path[3:4])
    return found


def _refuse_other_groups(groups: Sequence[Any], metadata: Any) -> None:
    paths = (metadata.planner_data or {}).values()
    saved = {path[2] for path in paths if path[:2] == ("optimizer", "param_groups") and len(path) > 2}
    if not saved:
        raise CheckpointError("the checkpoint has no optimizer: leave optimizer= out")
    if len(saved) != len(groups):
        raise CheckpointError(
            f"the checkpoint's optimizers have {len(saved)} groups of parameters, and these have {len(groups)}: make "
            "them as they were when it was saved"
        )


def _refuse_another_optimizer(made: State, saved: dict[str, set[str]], optimizers: Sequence[Optimizer]) -> None:
    for name, theirs in saved.items():
        if (ours := set(made.get(name, ()))) != theirs:
            kinds = " and ".join(type(each).__name__ for each in optimizers)
            raise CheckpointError(
                f"the checkpoint is of another optimizer: of {name!r} it has {_words(theirs)}, and {kinds} keeps "
                f"{_words(ours)}"
            )


def _words(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _leaves(optimizer: Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _lacks(optimizer: Optimizer) -> bool:
    """Whether some parameters have no state, as one has that has not stepped."""
    return any(leaf.requires_grad and leaf not in optimizer.state for leaf in _leaves(optimizer))


def _state(model: nn.Module, optimizers: Sequence[Optimizer]) -> tuple[State, dict[int, str]]:
    """The state, made by a step at a rate of 0 where there is none yet, and names of parameters by identity."""
    from torch.distributed.checkpoint.state_dict import get_state_dict

    for each in optimizers:
        closure = signature(type(each).step).parameters.get("closure")
        if closure is not None and closure.default is Parameter.empty:
            raise CheckpointError(
                f"{type(each).__name__} steps with a closure alone, and torch.distributed.checkpoint does not know its "
                "state: keep its state_dict() in extra="
            )
    # torch takes that step only where no parameter has a gradient; else it would save and load nothing, silently.
    grads = [(leaf, leaf.grad) for each in optimizers if not each.state for leaf in _leaves(each)]
    for leaf, _ in grads:
        leaf.grad = None
    try:
        # No block may keep that step from it.
        of_model, of_optimizers = at_once(optimizers, lambda: get_state_dict(model, list(optimizers)))
    finally:
        for leaf, grad in grads:
            leaf.grad = grad
    if not optimizers:
        return {"model": of_model}, {}
    groups: Any = of_optimizers["param_groups"]
    leaves = [leaf for each in optimizers for leaf in _leaves(each)]
    named = [name for group in groups for name in group["params"]]
    names = {id(leaf): name for leaf, name in zip(leaves, named, strict=True)}
    return {"model": of_model, "optimizer": of_optimizers}, names
