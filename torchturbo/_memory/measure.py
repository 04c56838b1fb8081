"""A step under each switch, in a thread of its own: what regions the caller has open there are none of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from torchturbo._catalogue import SETTINGS
from torchturbo._memory.data import MemoryPlan, MemoryUse
from torchturbo._memory.live import Live, bytes_of
from torchturbo._memory.step import Step
from torchturbo._plan import decide
from torchturbo._turbo import turbo
from torchturbo.errors import TargetError, in_a_line
from torchturbo.hardware import detect
from torchturbo.profiles import PROFILES, Profile
from torchturbo.regions._streams import streams

_HEEDED = ("autocast", "checkpoint", "channels_last")
"""What is in force where it is asked, and makes a difference."""


def measure(model: nn.Module, batch: Any, opt: Optimizer | None, loss: Callable[..., Any] | None) -> MemoryPlan:
    """What a step takes under each switch; see `memory_plan`.

    Raises:
        TargetError: the model does not return a loss, or the step cannot be taken.
    """
    if not isinstance(model, nn.Module):
        raise TargetError(f"memory_plan needs a module, and got a {type(model).__name__}")
    now = {name: SETTINGS[name].now() for name in _HEEDED}
    with _streams_put_back(), ThreadPoolExecutor(1) as pool:
        return pool.submit(_Measured(model, batch, opt, loss, now).plan).result()


@contextmanager
def _streams_put_back() -> Iterator[None]:
    before = [(cell, cell.read()) for cell in streams()]
    try:
        yield
    finally:
        for cell, raw in before:
            cell.write(raw, raw)


class _Measured:
    """A model's step under switches.

    Args:
        model: the model.
        batch: what it is called with.
        opt: its optimizer, or None.
        loss: makes the loss, or None.
        now: what is in force, of what makes a difference.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Any,
        opt: Optimizer | None,
        loss: Callable[..., Any] | None,
        now: Mapping[str, object],
    ) -> None:
        self._given = model, batch, opt, loss
        self._now = now
        self._notes: list[str] = []
        # A GPU where anything is on one.
        found = {its.device.type for its in (*model.parameters(), *_tensors(batch))} - {"meta"}
        self._device = next((each for each in sorted(found) if each != "cpu"), "cpu")

    def plan(self) -> MemoryPlan:
        """All rows."""
        now = self._row("now", {})
        rows = [now, *(self._switched(name, options, now) for name, options in self._switches())]
        model, batch, *_ = self._given
        size = bytes_of(_tensors(batch), self._device)
        notes = tuple(dict.fromkeys(self._notes))
        return MemoryPlan(tuple(rows), size, type(model).__name__, self._device, torch.__version__, notes)

    def _switches(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        yield "checkpoint", {"checkpoint": True}
        yield "autocast", {"autocast": "bf16"}
        if any(tensor.dim() in (4, 5) and tensor.is_floating_point() for tensor in _tensors(self._given[1])):
            yield "channels_last", {"channels_last": True}
        # What zero_grad(set_to_none=False) costs, where set_to_none=True does not see to it.
        yield "gradients kept", {}
        yield "low_memory", {name: PROFILES["low_memory"][name] for name in _HEEDED if name in PROFILES["low_memory"]}

    def _switched(self, name: str, options: Mapping[str, object], now: MemoryUse) -> MemoryUse:
        refused = next((its.refused for its in decide(Profile(name), options, detect()).decisions if its.refused), None)
        if refused is not None:
            return MemoryUse(
                name, options, now.weights, now.gradients, now.optimizer, now.activations, now.peak, refused
            )
        return self._row(name, options)

    def _row(self, name: str, options: Mapping[str, object]) -> MemoryUse:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        try:
            return self._taken(name, options, mode)
        except TargetError:
            raise
        except Exception as error:
            if any(its.device.type == "meta" for its in self._given[0].parameters()):
                raise TargetError(f"memory_plan cannot take a step ({name}): {in_a_line(error)}") from error
            self._notes.append(
                "the step was taken by real copies, in real memory, since it cannot be taken by copies without memory: "
                + in_a_line(error)
            )
        try:
            return self._taken(name, options, None)
        except TargetError:
            raise
        except Exception as error:
            raise TargetError(f"memory_plan cannot take a step ({name}): {in_a_line(error)}") from error

    def _taken(self, name: str, options: Mapping[str, object], mode: FakeTensorMode | None) -> MemoryUse:
        step = Step(*self._given, mode)
        if step.had_hooks:
            self._notes.append("hooks of modules were left out: what they do could not be taken back")
        in_force: dict[str, Any] = {**self._now, **options}
        # The scale of gradients looks at numbers, and takes no memory.
        half: AbstractContextManager[Any] = nullcontext()
        if (its := in_force)["autocast"] == "fp16":
            its, half = its | {"autocast": None}, torch.autocast(self._device, torch.float16, cache_enabled=False)
        faked: AbstractContextManager[Any] = nullcontext() if mode is None else mode
        live = Live(self._device)
        with warnings.catch_warnings(), turbo(Profile("memory_plan", **its)), faked, live:
            warnings.simplefilter("ignore")  # of one step that trains nothing
            self._step(step, half)
            kept = step.gradients() if name == "gradients kept" else []
            if not kept:
                step.model.zero_grad()
            states = step.states()
            live.begin((*step.tensors(), *states, *step.inputs(), *kept))
            with half:
                loss = step.forward()
            activations = live.now
            loss.backward()  # type: ignore[no-untyped-call] # torch's own
            del loss
            gradients = bytes_of(step.gradients(), self._device)
            if step.opt is not None:
                self._opt_step(step.opt)
        weights, optimizer = bytes_of(step.tensors(), self._device), bytes_of(states, self._device)
        peak = live.peak + weights + optimizer + bytes_of(kept, self._device)
        return MemoryUse(name, in_force, weights, gradients, optimizer, activations, peak)

    def _step(self, step: Step, half: AbstractContextManager[Any]) -> None:
        """The first step, which makes the optimizer's state."""
        with half:
            loss = step.forward()
        loss.backward()  # type: ignore[no-untyped-call] # torch's own
        if step.opt is not None:
            self._opt_step(step.opt)

    def _opt_step(self, opt: Optimizer) -> None:
        try:
            opt.step()
        except TypeError as error:  # one that needs a closure, which there is none for
            self._notes.append(
                f"a step of {type(opt).__name__} could not be taken, and is not in it: {in_a_line(error)}"
            )


def _tensors(value: Any) -> list[Tensor]:
    return [its for its in tree_leaves(value) if isinstance(its, Tensor)]
