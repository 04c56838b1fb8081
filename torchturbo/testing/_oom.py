"""Memory that runs out where it is told to, on any machine: how a step takes it can be tested without a GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torchturbo._dynamo import untraced
from torchturbo.regions._calls import module_calls
from torchturbo.regions._steps import hear_no_steps, hear_steps

At = Literal["forward", "backward", "optimizer"]
_PLACES = ("forward", "backward", "optimizer")


@contextmanager
def injected_oom(samples: int, *, at: At = "forward", times: int | None = None) -> Iterator[list[int]]:
    """A block in which no more than so many samples fit, as on a device that is small: more raise what torch raises.

    A batch is what the outermost module is called with; its samples are the first dimension of its first tensor.

    Args:
        samples: that fit; 0 for none.
        at: where memory runs out: when the forward pass is done; late in backward, when most gradients are there; or
            in the optimizer's step, when it has begun to write.
        times: how often at most; None for always.

    Returns:
        the samples of each batch that did not fit, in order: below the whole, some to see whether the loss is a mean,
        and a half.

    Raises:
        ValueError: `at` is none of these.

    >>> from torchturbo import accelerate
    >>> @accelerate(on_oom="split")
    ... def step(model, x, optimizer):
    ...     optimizer.zero_grad()
    ...     loss = model(x).square().mean()
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> model = torch.nn.Linear(4, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with injected_oom(samples=2) as failed:
    ...     loss = step(model, torch.randn(8, 4), optimizer)
    >>> failed
    [8, 4, 4]
    """
    if at not in _PLACES:
        raise ValueError(f"at={at!r}: expected one of {', '.join(map(repr, _PLACES))}")
    device = _Device(samples, at, times)
    outer = module_calls.watch
    device.outer = outer
    module_calls.opened()
    try:
        module_calls.watch = device.call
        hear_steps(device, device.before_step, device.after_step)
        with _Writes(device) if at == "optimizer" else nullcontext():
            yield device.failed
    finally:
        hear_no_steps(device)
        module_calls.watch = outer
        module_calls.closed()


class _Device:
    """A device that has room for so many samples.

    Attributes:
        failed: the samples of each batch that did not fit.
        steps: whether an optimizer steps.
        writes: how often it has written.
        outer: who else is told of calls.
    """

    def __init__(self, samples: int, at: At, times: int | None) -> None:
        self.failed: list[int] = []
        self.steps = False
        self.writes = 0
        self.outer: Callable[..., Any] | None = None
        self._room, self._at, self._times = samples, at, times
        self._thread = threading.get_ident()
        self._depth = 0
        self._samples = 0
        self._hooked = False

    @property
    def is_full(self) -> bool:
        """Whether the batch does not fit."""
        return self._samples > self._room and (self._times is None or len(self.failed) < self._times)

    def run_out(self) -> NoReturn:
        """Raises what torch raises."""
        self.failed.append(self._samples)
        self.steps = False
        raise torch.OutOfMemoryError(
            f"out of memory, injected by torchturbo.testing: there is room for {self._room} samples, and these are "
            f"{self._samples}"
        )

    @untraced
    def call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a module."""

        def run() -> Any:
            if self.outer is not None:
                return self.outer(module, args, kwargs)
            return module_calls.call(module, args, kwargs, False)

        if threading.get_ident() != self._thread:
            return run()
        if not self._depth:
            its = (each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor) and each.dim())
            self._samples = next((len(each) for each in its), 0)
            self._hooked = self.steps = False
        self._depth += 1
        try:
            result = run()
        finally:
            self._depth -= 1
        if self._at == "backward" and not self._hooked:
            self._hook(result)  # of the whole where it is compiled, and nobody sees what is in it
        if self._at == "forward" and not self._depth and self.is_full:
            self.run_out()
        return result

    def _hook(self, result: Any) -> None:
        """Has memory run out where backward comes to what the first module has made."""
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and each.requires_grad and not self._hooked:
                self._hooked = True
                each.register_hook(  # type: ignore[no-untyped-call]
                    lambda grad: self.run_out() if self.is_full else None
                )

    def before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Notes that an optimizer steps."""
        if threading.get_ident() == self._thread:
            self.steps, self.writes = self._at == "optimizer" and self.is_full, 0

    def after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Runs out of memory where the step has written all at once."""
        if self.steps and threading.get_ident() == self._thread:
            self.run_out()


class _Writes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs out of memory when an optimizer that steps has written twice."""

    def __init__(self, device: _Device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs one operation."""
        result = func(*args, **(kwargs or {}))
        if self._device.steps and func._schema.is_mutable:
            self._device.writes += 1
            if self._device.writes == 2:
                self._device.run_out()
        return result
