"""Gradients reduced between processes once for each step, and not for each micro-batch.

`DistributedDataParallel` decides in its forward whether the backward is to reduce, so that is where it is told; FSDP2
in backward. A micro-batch is reduced where the next step of the optimizer that has its parameters will happen, and
where no optimizer is known yet. What is not reduced when a step comes after all is reduced then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from torchturbo._dynamo import untraced
from torchturbo.regions._calls import Exchange, code_like
from torchturbo.regions._here import thread

WHOLE_SUMS: WeakKeyDictionary[nn.Module, None] = WeakKeyDictionary()
"""Models that FSDP2 shards and whose sums over micro-batches are kept whole, which takes the memory of all of them."""
Comes = Callable[[Iterable[Tensor]], bool]
"""Whether the next step with some parameters happens."""


class _Replica:
    """A `DistributedDataParallel` in a window.

    Attributes:
        module: itself.
        leaves: its parameters.
        reduces: whether its newest forward has it reduce in backward.
        group: the processes that it reduces between; it may be gone when the last step is taken.
    """

    __slots__ = ("group", "leaves", "module", "reduces")

    def __init__(self, module: Any) -> None:
        self.module = ref(module)
        self.group = module.process_group
        self.leaves = {id(leaf): leaf for leaf in module.parameters() if leaf.requires_grad}
        self.reduces = True


class Reductions:
    """What is reduced, and what is not yet, of one entry of a block that accumulates."""

    __slots__ = ("_local", "_of_leaf", "_replicas", "_sums")

    def __init__(self) -> None:
        self._replicas: dict[int, _Replica] = {}
        self._of_leaf: dict[int, _Replica] = {}
        # Leaves whose gradients are those of this process alone.
        self._local: set[int] = set()
        # Models whose sums FSDP2 keeps whole, and whether there are any.
        self._sums: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()

    def forward(self, module: Any, comes: Comes) -> bool:
        """Whether the backward of a forward that begins reduces.

        Args:
            module: a `DistributedDataParallel`.
            comes: tells whether the next step happens.
        """
        replica = self._replicas.get(id(module))
        if replica is None or replica.module() is not module:
            replica = self._replicas[id(module)] = _Replica(module)
            self._of_leaf.update(dict.fromkeys(replica.leaves, replica))
        replica.reduces = comes(replica.leaves.values())
        return replica.reduces

    def begin(self, comes: Comes) -> None:
        """Tells FSDP2 whether a backward that begins reduces.

        Args:
            comes: tells whether the next step happens.
        """
        for model in list(WHOLE_SUMS):
            sharded: Any = model
            reduces = comes(model.parameters())
            sharded.set_requires_gradient_sync(reduces)
            self._sums[model] = not reduces

    def end(self, leaves: Iterable[Tensor]) -> None:
        """Notes what a backward has reduced.

        Args:
            leaves: what it wrote to.
        """
        for model in self._sums:
            sharded: Any = model
            sharded.set_requires_gradient_sync(True)
        if self._of_leaf:
            touched = {id(its): its for leaf in leaves if (its := self._of_leaf.get(id(leaf))) is not None}
            for replica in touched.values():
                if replica.reduces:
                    self._local -= replica.leaves.keys()
                else:
                    self._local |= replica.leaves.keys()

    def are_local(self, leaves: Iterable[Tensor]) -> bool:
        """Whether some leaves have gradients of this process alone.

        Args:
            leaves: the parameters of an optimizer.
        """
        return not self._local.isdisjoint(map(id, leaves)) or any(self._sums.values())

    @property
    def are_unseen(self) -> bool:
        """Whether the loop has seen no gradients of what waits, as FSDP2 keeps their sums."""
        return any(self._sums.values())

    def reduce(self, leaves: list[Tensor]) -> None:
        """Reduces what has not been, before a step.

        Args:
            leaves: the parameters of an optimizer, with their sums in ``.grad``.
        """
        for model, sums in list(self._sums.items()):
            if sums:
                _reduce_whole_sums(model)
                self._sums[model] = False
        by_replica: dict[int, tuple[_Replica, list[Tensor]]] = {}
        for leaf in leaves:
            if id(leaf) in self._local:
                replica = self._of_leaf[id(leaf)]
                by_replica.setdefault(id(replica), (replica, []))[1].append(leaf)
                self._local.discard(id(leaf))
        for replica, its in by_replica.values():
            _average(its, replica.group)


@torch.no_grad()
@untraced
def _average(leaves: list[Tensor], group: Any) -> None:
    """Averages gradients over processes; an overflow that one of them knows of is one of all."""
    distributed = torch.distributed
    scaler = thread.here.scaler
    # Some processes may have no gradient where others have one.
    has = torch.tensor([float(leaf.grad is not None) for leaf in leaves], device=leaves[0].device)
    distributed.all_reduce(has, distributed.ReduceOp.MAX, group=group)
    for leaf, any_has in zip(leaves, has.tolist(), strict=True):
        if not any_has:
            continue
        grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.detach().clone()
        if scaler is not None and scaler.is_bad(leaf):
            # Clipping by value may have hidden it here, where the others do not know of it.
            grad.fill_(torch.inf)
        distributed.all_reduce(grad, group=group)
        leaf.grad = grad.div_(distributed.get_world_size(group))


@untraced
def _reduce_whole_sums(model: Any) -> None:
    """Has FSDP2 do what it does at the end of a backward: reduce what it keeps, in each of its modules."""
    model.set_requires_gradient_sync(True)
    state = model._get_fsdp_state()
    shared = state._state_ctx
    if getattr(shared, "manual_backward_finalization_active", False) is None:
        # As when a backward begins, since torch 2.15.
        shared.manual_backward_finalization_active = shared.manual_backward_finalization
    state._root_post_backward_final_callback()


# ------------------------------------------------------------------------------------------------- in place meanwhile


def _standing_in(self: Any, *args: Any, **kwargs: Any) -> Any:
    if torch.compiler.is_dynamo_compiling():
        # Dynamo takes no function for a constant; it breaks its graph at this one, and compiles what that calls.
        from torchturbo.regions import _reducing

        return _reducing._forward(self, args, kwargs)
    call: Any = "ours"
    return call(self, args, kwargs)


@untraced
def _forward(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    accumulating = thread.here.accumulating
    if (
        accumulating is None
        or not torch.is_grad_enabled()
        # The code decides itself, by no_sync(); or torch does without it.
        or not module.require_backward_grad_sync
        or module.static_graph
        or module._use_python_reducer
        or module._delay_all_reduce_all_params
        or accumulating.reductions.forward(module, accumulating.comes)
    ):
        return FORWARD.theirs(module, *args, **kwargs)
    module.require_backward_grad_sync = False
    try:
        return FORWARD.theirs(module, *args, **kwargs)
    finally:
        module.require_backward_grad_sync = True


_FUNCTION: Any = vars(DistributedDataParallel)["forward"]
FORWARD = Exchange(_FUNCTION, code_like(_FUNCTION, _standing_in, _forward))
"""The forward of `DistributedDataParallel`, while a thread accumulates."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: FORWARD.recounted(int(thread.here.accumulating is not None)))
