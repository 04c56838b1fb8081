"""A model on several ranks: `DistributedDataParallel` around it, or `fully_shard` in it."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from torchturbo._distribute.choice import Strategy
from torchturbo._distribute.group import Ranks
from torchturbo._distribute.units import units_of
from torchturbo._dynamo import untraced
from torchturbo.errors import DistributedError
from torchturbo.regions._reducing import WHOLE_SUMS


def in_ddp(model: nn.Module, ranks: Ranks, gradient_dtype: torch.dtype | None, more: dict[str, Any]) -> nn.Module:
    """The model on this rank's device, with its gradients averaged over all.

    Args:
        model: the model.
        ranks: the processes.
        gradient_dtype: what gradients are sent in; None for what they are.
        more: arguments of `DistributedDataParallel`.

    Raises:
        DistributedError: the weights have no values yet.
    """
    without = next((name for name, each in model.named_parameters() if each.is_meta), None)
    if without is not None:
        raise DistributedError(
            f"{without} is on the meta device and has no values, of which each rank would hold the whole: make the "
            "model without it, or shard it with strategy='fsdp' and then call to_empty() and initialize"
        )
    ids = None if ranks.device.type == "cpu" else [ranks.device]
    made = DistributedDataParallel(model.to(ranks.device), device_ids=ids, **more)
    names = {name: each for name, each in model.named_parameters() if name not in made.parameters_to_ignore}
    if frozen := {name: each for name, each in names.items() if not each.requires_grad}:
        made.register_forward_pre_hook(_Frozen(frozen))
    if gradient_dtype is torch.bfloat16:
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

        # By another name, since torch lets only NCCL have it by its own; gloo sends bfloat16 just as well.
        sent: Any = lambda group, bucket: bf16_compress_hook(group, bucket)  # noqa: E731
        made.register_comm_hook(None, sent)
    return made


class _Frozen:
    """Has a forward raise where a parameter was frozen before and trains now: its gradients would never be reduced.

    Args:
        frozen: the parameters, by name.
    """

    def __init__(self, frozen: dict[str, nn.Parameter]) -> None:
        self.frozen = frozen

    @untraced
    def __call__(self, module: nn.Module, args: Any) -> None:
        """Raises where one trains."""
        trains = next((name for name, each in self.frozen.items() if each.requires_grad), None)
        if trains is not None:
            raise DistributedError(
                f"{trains} was frozen when distribute() was called and trains now, and DistributedDataParallel would "
                "not reduce its gradients, so that each rank had weights of its own: distribute the plain model again "
                "(model = distribute(model.module, 'ddp')), or freeze it after distribute()"
            )


def in_fsdp(
    model: nn.Module,
    ranks: Ranks,
    gradient_dtype: torch.dtype | None,
    mixed_precision: torch.dtype | None,
    units: Sequence[type[nn.Module] | str] | None,
    whole_sums: bool,
    more: dict[str, Any],
) -> int:
    """Shards a model in place; returns how many units it is sharded by.

    Args:
        model: the model.
        ranks: the processes.
        gradient_dtype: what gradients are reduced in; None for what they are.
        mixed_precision: what forward and backward compute in; None for what the weights are in.
        units: classes of what is sharded one by one, or None.
        whole_sums: whether sums over micro-batches are kept whole, and reduced once.
        more: arguments of `fully_shard`.

    Raises:
        DistributedError: the ranks have different models, or an optimizer has the parameters that are replaced.
    """
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    _refuse_optimizers(model)
    same_weights(model, ranks)
    # Reduced in float32 where it is not said otherwise: a sum over many ranks in half precision loses bits.
    reduced = gradient_dtype or (None if mixed_precision is None else torch.float32)
    policy = MixedPrecisionPolicy(param_dtype=mixed_precision, reduce_dtype=reduced)
    if "mesh" not in more:
        more = {**more, "mesh": init_device_mesh(ranks.device.type, (ranks.ranks,))}
    found = units_of(model, units)
    for unit in found:
        fully_shard(unit, mp_policy=policy, **more)
    sharded: Any = fully_shard(model, mp_policy=policy, **more)
    for module in sharded.modules():
        if isinstance(module, FSDPModule) and ranks.device.type == "cpu":
            # gloo takes AVG for SUM in torch 2.8, without a word.
            module.set_force_sum_reduction_for_comms(True)
    if whole_sums:
        WHOLE_SUMS[sharded] = None
    return len(found)


@torch.no_grad()
def same_weights(model: nn.Module, ranks: Ranks) -> None:
    """Gives all ranks the weights and buffers of the first, as `DistributedDataParallel` does by itself.

    Args:
        model: the model.
        ranks: the processes.

    Raises:
        DistributedError: they have different models.
    """
    mine = {name: f"{tuple(each.shape)} {each.dtype}" for name, each in _tensors(model).items()}
    all_of_them: list[Any] = [None] * ranks.ranks
    dist.all_gather_object(all_of_them, mine)
    for rank, its in enumerate(all_of_them):
        for name in {**all_of_them[0], **its}:
            first, other = (each.get(name, "not there") for each in (all_of_them[0], its))
            if first != other:
                raise DistributedError(
                    f"the ranks have different models: {name} is {first} on rank 0 and {other} on rank {rank}"
                )
    for tensor in _tensors(model).values():
        if tensor.device.type == "meta":
            continue
        sent = tensor.detach().to(ranks.device).contiguous()
        dist.broadcast(sent, src=0)
        tensor.detach().copy_(sent)


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _refuse_optimizers(model: nn.Module) -> None:
    """Raises where an optimizer would go on stepping with what the model does not use any more."""
    own = {id(each) for each in model.parameters()}

    def found() -> list[Optimizer]:
        optimizers = [each for each in gc.get_objects() if issubclass(type(each), Optimizer)]
        return [
            each
            for each in optimizers
            if any(id(leaf) in own for group in each.param_groups for leaf in group["params"])
        ]

    if found():
        gc.collect()
        for each in found():
            raise DistributedError(
                f"this {type(model).__name__}'s parameters are replaced by shards, and an optimizer "
                f"({type(each).__name__}) has them already, which would train nothing: make the optimizer after "
                "distribute(), of what it returns (and `del` one that is not needed any more)"
            )


def agreed(ranks: Ranks, found: tuple[Strategy, str]) -> tuple[Strategy, str]:
    """What all ranks do: the first that has no room for the whole decides for all.

    Args:
        ranks: the processes.
        found: the strategy of this one, and why.
    """
    all_found: list[Any] = [None] * ranks.ranks
    dist.all_gather_object(all_found, found)
    first: tuple[Strategy, str] = next((each for each in all_found if each[0] == "fsdp"), all_found[0])
    return first
