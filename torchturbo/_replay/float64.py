"""A run in float64: every floating operation of it, with the random numbers of the run in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from torchturbo._replay.bits import unseen
from torchturbo._replay.kept import LARGEST, Keeper

_WIDE = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
}
_NARROW = {torch.float64: torch.float32, torch.complex128: torch.complex64}
_DRAWS = frozenset({
    "bernoulli", "bernoulli_", "binomial", "cauchy_", "exponential_", "geometric_", "log_normal_", "multinomial",
    "normal", "normal_", "normal_functional", "poisson", "rand", "rand_like", "randint", "randint_like", "randn",
    "randn_like", "randperm", "random", "random_", "uniform", "uniform_",
})  # fmt: skip
"""Operations that draw and do nothing else: drawn in float64, the numbers would be others."""
_IN_FLOAT32 = frozenset({"_amp_update_scale_"})
"""Operations that torch has in float32 alone, which lose nothing: powers of two."""
_KEPT_NARROW = frozenset({"state_steps", "grad_scale", "found_inf", "inv_scale"})
"""Arguments that kernels want in float32 whatever the others are; a count of steps loses nothing."""
_AS_THEY_ARE = frozenset({"set_", "resize_", "resize_as_", "record_stream", "_local_scalar_dense"})


class Float64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs what is below autograd in float64, whatever the types of what it is given.

    Attributes:
        left: operations that torch does not have in float64, or that draw other random numbers in it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        if name in _AS_THEY_ARE or (_is_view(func) and name != "lift_fresh"):
            return func(*args, **kwargs)
        if name == "_to_copy" and torch._C._current_graph_task_id() != -1 and not torch.is_grad_enabled():
            # Backward hands each its gradient in its own type.
            return func(*args, **kwargs)
        if name == "native_dropout":
            return _dropout(func, *args, **kwargs)
        if name == "_amp_foreach_non_finite_check_and_unscale_":
            return _unscale(*args, **kwargs)
        if name in _DRAWS:
            return tree_map(_wide, _run(func, args, kwargs, _NARROW, types_too=False))
        if name in _IN_FLOAT32:
            return _run(func, args, kwargs, _NARROW)
        try:
            with self._drawing(func, name):
                return tree_map(_wide, _run(func, args, kwargs, _WIDE))
        except (RuntimeError, NotImplementedError) as error:
            if "ouble" not in str(error):
                raise
        self.left.add(name)
        return tree_map(_wide, _run(func, args, kwargs, _NARROW))

    @contextmanager
    def _drawing(self, func: Any, name: str) -> Iterator[None]:
        """Notes whether an operation that may draw has drawn."""
        if torch.Tag.nondeterministic_seeded not in func.tags:
            yield
            return
        before = torch.get_rng_state()
        yield
        if not torch.equal(before, torch.get_rng_state()):
            self.left.add(name)


def _is_view(func: Any) -> bool:
    return any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)


def _wide(value: Any) -> Any:
    return value.to(_WIDE[value.dtype]) if isinstance(value, Tensor) and value.dtype in _WIDE else value


def _run(
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    types: Mapping[torch.dtype, torch.dtype],
    types_too: bool = True,
) -> Any:
    """Runs an operation with tensors of other types; what it writes to is written to, in the type that it has.

    Args:
        func: the operation.
        args: what it is called with.
        kwargs: what it is called with by name.
        types: which types stand for which.
        types_too: whether types that are asked for are exchanged as well.
    """
    stand_ins: dict[int, tuple[Tensor, Tensor]] = {}
    originals: dict[int, Tensor] = {}
    schema: Any = func._schema  # type: ignore[attr-defined]

    def other(value: Any, these: Mapping[torch.dtype, torch.dtype], writes: bool) -> Any:
        if isinstance(value, torch.dtype):
            return these.get(value, value) if types_too else value
        if not isinstance(value, Tensor) or value.dtype not in these:
            return value
        if id(value) not in stand_ins:
            stand_in = value.to(these[value.dtype])
            stand_ins[id(value)] = value, stand_in
            if writes:
                originals[id(stand_in)] = value
        return stand_ins[id(value)][1]

    def given(values: Any, argument: Any) -> Any:
        these = _NARROW if argument.name in _KEPT_NARROW else types
        writes = argument.alias_info is not None and argument.alias_info.is_write
        return tree_map(lambda value: other(value, these, writes), values)

    positional = [given(value, argument) for value, argument in zip(args, schema.arguments, strict=False)]
    by_name = {argument.name: argument for argument in schema.arguments}
    result = func(*positional, **{name: given(value, by_name[name]) for name, value in kwargs.items()})
    for original, stand_in in stand_ins.values():
        if id(stand_in) in originals:
            original.copy_(stand_in)
    return tree_map(lambda value: originals.get(id(value), value), result)


def _dropout(func: Any, value: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    _, mask = func(value.to(_NARROW.get(value.dtype, value.dtype)), p, train)
    value = _wide(value)
    return (value * mask / (1 - p) if p < 1 else torch.zeros_like(value)) if train is not False else value, mask


def _unscale(gradients: Sequence[Tensor], found_inf: Tensor, inv_scale: Tensor) -> None:
    for gradient in gradients:
        if not bool(torch.isfinite(gradient).all()):
            found_inf.fill_(1.0)
        gradient.mul_(inv_scale.to(gradient.dtype))


def _widen(keeper: Keeper) -> None:
    """Gives leaves float64 values, and those that share memory go on sharing it; `Keeper.put_back` undoes it."""
    wide: dict[tuple[int, torch.dtype], Tensor] = {}
    with unseen():
        for kept in keeper.tensors.values():
            tensor = kept.tensor
            if not _can_be_wide(tensor):
                continue
            storage = tensor.untyped_storage()
            if storage.nbytes() > LARGEST and not isinstance(tensor, nn.Parameter):
                continue
            key = storage.data_ptr(), tensor.dtype
            if key not in wide:
                flat = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(storage)
                wide[key] = flat.to(_WIDE[tensor.dtype])
            tensor.data = wide[key].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _can_be_wide(tensor: Tensor) -> bool:
    return (
        type(tensor) in (Tensor, nn.Parameter, nn.Buffer)
        and tensor.dtype in _WIDE
        and tensor.is_leaf
        and tensor.layout is torch.strided
        and not (tensor.is_nested or tensor.is_inference() or tensor.is_meta or is_lazy(tensor))
    )


@contextmanager
def in_float64(keeper: Keeper) -> Iterator[Float64]:
    """A block in which a run computes in float64; what has been kept has to be put back after it.

    Tensors that are kept become float64 in place. What comes from elsewhere is float64 wherever it is used.

    Args:
        keeper: keeps all that the run is known to reach.
    """
    _widen(keeper)
    mode = Float64()
    # Modules of recurrent nets look at the type of what they are given.
    hook = register_module_forward_pre_hook(lambda module, args: tree_map(_wide, args))
    try:
        with mode:
            yield mode
    finally:
        hook.remove()
