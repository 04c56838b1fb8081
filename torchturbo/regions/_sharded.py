"""Parameters that are sharded between processes: where their gradients come to stand, and an overflow told to all.

FSDP2 computes with a whole parameter, which is the leaf that a backward writes to; within the backward it reduces that
gradient, and adds it to the one of the shard, which is what optimizers step with. Each process sees the numbers of its
own shard alone, so that what one finds in them has to reach the others, or one would step where another does not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from torchturbo._dynamo import untraced

_WHOLE: frozenset[type] = frozenset({Tensor, torch.nn.Parameter})
"""What nearly all are, told by a look."""


def local(tensor: Tensor) -> Tensor:
    """What this process has of a tensor that may be sharded.

    Args:
        tensor: any.
    """
    kind: type = tensor.__class__
    return tensor if kind in _WHOLE else getattr(tensor, "_local_tensor", tensor)


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, of which this process may have a part.

    Args:
        tensor: any.
    """
    kind: type = tensor.__class__
    return kind not in _WHOLE and hasattr(tensor, "_local_tensor")


def is_distributed(model: torch.nn.Module) -> bool:
    """Whether ranks share a model: within DistributedDataParallel, or sharded.

    Args:
        model: any.
    """
    return any(
        isinstance(each, torch.nn.parallel.DistributedDataParallel)
        or hasattr(each, "_get_fsdp_state")
        or hasattr(each, "_fsdp_wrapped_module")
        for each in model.modules()
    )


def _groups() -> Iterator[Any]:
    """FSDP2's groups of parameters, of all modules that it shards in this process."""
    if "torch.distributed.fsdp._fully_shard._fsdp_state" not in sys.modules:
        return
    from torch.distributed._composable_state import _module_state_mapping

    for reference in list(_module_state_mapping.values()):
        state: Any = reference()
        groups = getattr(state, "_fsdp_param_groups", None)
        if groups is None:
            group = getattr(state, "_fsdp_param_group", None)
            groups = () if group is None else (group,)
        yield from groups


class Shards:
    """What FSDP2 does with the gradients of leaves.

    Args:
        leaves: what a backward writes to, by identity.

    Attributes:
        whole: the leaves that are whole parameters of FSDP2, by identity.
        leaves: the shards that they belong to, by identity.
    """

    __slots__ = ("_groups", "_parameters", "leaves", "whole")

    def __init__(self, leaves: dict[int, Tensor]) -> None:
        self.whole: dict[int, Tensor] = {}
        self.leaves: dict[int, Tensor] = {}
        self._parameters: list[Any] = []
        self._groups: list[Any] = []
        for group in _groups():
            # A parameter has no whole before the first forward pass.
            found = [each for each in group.fsdp_params if id(getattr(each, "_unsharded_param", None)) in leaves]
            if found:
                self._groups.append(group)
            for each in found:
                self._parameters.append(each)
                self.whole[id(each._unsharded_param)] = each._unsharded_param
                self.leaves[id(each.sharded_param)] = each.sharded_param

    def kept(self) -> list[Tensor]:
        """Sums that stand in no ``.grad``: of micro-batches whose gradients are not reduced, or not by all, yet."""
        sums = [each.unsharded_accumulated_grad for each in self._parameters]
        sums += [getattr(group, "_partial_reduce_output", None) for group in self._groups]
        return [each for each in sums if each is not None]


_NO_SHARDS = Shards({})


def shards_of(leaves: dict[int, Tensor]) -> Shards:
    """The shards of leaves that are whole parameters of FSDP2.

    Args:
        leaves: what a backward writes to, by identity.
    """
    if "torch.distributed.fsdp._fully_shard._fsdp_state" not in sys.modules:
        return _NO_SHARDS
    return Shards(leaves)


@untraced
def told_to_all(fine: bool, leaves: Iterable[Tensor]) -> bool:
    """Whether something is true of the shards of all processes. Each of them has to ask.

    Args:
        fine: whether it is true of what this process has.
        leaves: the parameters that it is about; of those that are not sharded nothing is asked.
    """
    meshes: dict[Any, None] = {leaf.device_mesh: None for leaf in leaves if is_sharded(leaf)}  # type: ignore[attr-defined]
    for mesh in meshes:
        flag = torch.tensor(float(not fine), device=mesh.device_type)
        for dim in range(mesh.ndim):
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, group=mesh.get_group(dim))
        fine = not flag.item()
    return fine
