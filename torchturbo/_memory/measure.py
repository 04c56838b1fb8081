"""A step under each switch, in a thread of its own: what regions the caller has open there are none of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer

from torchturbo._catalogue import SETTINGS
from torchturbo._memory.data import MemoryPlan, MemoryUse
from torchturbo._memory.live import Live, bytes_of
from torchturbo._memory.step import Step, copied
from torchturbo._plan import decide
from torchturbo._turbo import turbo
from torchturbo.errors import RanksError, TargetError, in_a_line
from torchturbo.hardware import detect
from torchturbo.profiles import PROFILES, Profile
from torchturbo.regions._sharded import is_distributed
from torchturbo.regions._streams import streams

_T = TypeVar("_T")
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
    return _elsewhere(_Measured(model, batch, opt, loss, now).plan)


def estimate(
    model: nn.Module,
    batch: Any,
    opt: Optimizer | None,
    loss: Callable[..., Any],
    now: Mapping[str, object],
    switches: Collection[str],
    seconds: float,
) -> dict[str, MemoryUse]:
    """What a step takes now, and under some switches, without memory or not at all.

    Args:
        model: the model.
        batch: what it is called with.
        opt: its optimizer, or None.
        loss: makes the loss.
        now: options that are in force, beside those that are in this thread.
        switches: which are asked for.
        seconds: after which it is given up, when a pass has ended.

    Raises:
        Exception: it cannot be told.
    """
    in_force = {name: now.get(name, SETTINGS[name].now()) for name in _HEEDED}
    its = _Measured(model, batch, opt, loss, in_force, monotonic() + seconds)
    return _elsewhere(partial(its.some, switches))


def _elsewhere(call: Callable[[], _T]) -> _T:
    # In torch 2.11 built for GPUs, on a machine that has none, what the first fake tensors of a process need goes with
    # the thread that made them, and the next ones anywhere end the process. This thread stays.
    with FakeTensorMode():
        pass
    with _streams_put_back(), ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


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
        until: when it is given up, without real copies; None for never.

    Raises:
        RanksError: other ranks share the model, which would wait for them.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Any,
        opt: Optimizer | None,
        loss: Callable[..., Any] | None,
        now: Mapping[str, object],
        until: float | None = None,
    ) -> None:
        if is_distributed(model):
            raise RanksError(
                f"memory_plan() takes a step by copies, in one process, and this {type(model).__name__} waits for "
                "other ranks: give it the plain model, as model.module, or before distribute(). To what that takes "
                "DistributedDataParallel adds the gradients once more, and of what is sharded a rank has its part"
            )
        self._until = until
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
        model, batch, opt, _ = self._given
        stepped = {id(its) for group in (opt.param_groups if opt is not None else ()) for its in group["params"]}
        if stepped and not any(id(its) in stepped for its in model.parameters()):
            self._notes.append("the optimizer has none of the model's parameters, so that it has no state here")
        size = bytes_of(_tensors(batch), self._device)
        notes = tuple(dict.fromkeys(self._notes))
        return MemoryPlan(tuple(rows), size, type(model).__name__, self._device, torch.__version__, notes)

    def some(self, names: Collection[str]) -> dict[str, MemoryUse]:
        """The row of now, and those of some switches, by name."""
        now = self._row("now", {})
        switched = {name: self._switched(name, its, now) for name, its in self._switches() if name in names}
        return {"now": now, **switched}

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
            if self._until is not None:
                raise
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
            _, batch, _, loss = self._given
            pair = loss is None and isinstance(batch, tuple | list) and len(batch) == 2
            advice = ". If the batch is a pair (inputs, targets), give loss=, which makes the loss of both" * pair
            raise TargetError(f"memory_plan cannot take a step ({name}): {in_a_line(error)}{advice}") from error

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
            self._in_time()
            kept = step.gradients() if name == "gradients kept" else []
            if not kept:
                step.model.zero_grad()
            states = step.states()
            live.begin((*step.tensors(), *states, *step.inputs(), *kept))
            with half:
                loss = step.forward()
            self._in_time()
            activations = live.now
            step.backward(loss)
            del loss
            gradients = bytes_of(step.gradients(), self._device)
            if step.opt is not None:
                self._opt_step(step.opt)
        weights, optimizer = bytes_of(step.tensors(), self._device), bytes_of(states, self._device)
        peak = live.peak + weights + optimizer + bytes_of(kept, self._device)
        return MemoryUse(name, in_force, weights, gradients, optimizer, activations, peak)

    def _in_time(self) -> None:
        # Not in the midst of operators, which abort the process where some of them are ended by an exception.
        if self._until is not None and monotonic() > self._until:
            raise TimeoutError("counting the memory of a step takes too long")

    def _step(self, step: Step, half: AbstractContextManager[Any]) -> None:
        """The first step, which makes the optimizer's state."""
        with half:
            loss = step.forward()
        self._in_time()
        step.backward(loss)
        if step.opt is not None:
            self._opt_step(step.opt)

    def _opt_step(self, opt: Optimizer) -> None:
        try:
            opt.step()
        except TypeError as error:  # one that needs a closure, which there is none for
            self._notes.append(
                f"a step of {type(opt).__name__} could not be taken, and is not in it: {in_a_line(error)}"
            )


def _tensors(batch: Any) -> list[Tensor]:
    return copied(batch, FakeTensorMode())[1]
