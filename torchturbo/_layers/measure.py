"""A profile by layers from its beginning to its end."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from math import fsum
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from torchturbo import hardware
from torchturbo._layers.attribution import BACK, FORWARD, OfLayer, OfStep, attributed
from torchturbo._layers.data import Layer, LayerCosts, Operator, PartName, Share
from torchturbo._layers.events import STEP, seen
from torchturbo._layers.watch import Marks, Saved, marked, quietly, watched
from torchturbo._replay.clock import clocked
from torchturbo._replay.here import Here
from torchturbo._replay.settings import Settings, around, named
from torchturbo._together import told
from torchturbo.errors import TargetError

Tell = Callable[[str], None]
Run = Callable[[], Any]
_WARM_UP = 2


class _Profiled(NamedTuple):
    """One step under the profiler: what it took, and the modules that were called, by name."""

    took: OfStep
    modules: Mapping[str, nn.Module]
    on_gpu: bool


def measure(
    begin: Callable[[], Here],
    settings: Settings,
    *,
    name: str,
    steps: int,
    trace: Path | None,
    tell: Tell,
) -> LayerCosts:
    """What `torchturbo.profile_layers` does, once its arguments have been looked at."""
    if torch._C._autograd._profiler_enabled():
        raise TargetError("a profiler of torch's runs here already, and there can be only one: leave it first")
    here, block = begin(), around(settings)
    tell("what the step uses")
    here.find(block)
    for number in range(_WARM_UP):
        tell(f"first steps ({number + 1} of {_WARM_UP})")
        here.seconds(block)
    plain, profiled = [], []
    for number in range(steps):
        tell(f"step {number + 1} of {steps}")
        plain.append(here.whatever(lambda run: _timed(run, block)))
        to = trace if number == steps - 1 else None
        profiled.append(here.whatever(lambda run, to=to: _profiled(run, block, Marks(here.search), to)))  # type: ignore[misc]
    tell("what is kept for backward")
    saved = Saved(here.search, any(its.compiled for its in profiled[-1].took.layers.values()))
    not_counted = _keeping(here, block, saved)
    sizes = _sizes(profiled[-1].modules, saved)
    shares = _shares([each.took for each in profiled])
    return LayerCosts(
        layers=_layers(profiled, sizes),
        shares=shares,
        operators=_operators([each.took for each in profiled]),
        alone={part: _median(each.took.alone.get(part, 0) for each in profiled) for part in (FORWARD, BACK)},
        kept_alone=saved.most.get("", 0),
        seconds=statistics.median(plain),
        profiled=_median(each.took.total for each in profiled),
        clock="GPU" if profiled[-1].on_gpu else "CPU",
        steps=steps,
        step=name,
        settings=named(settings),
        trace=None if trace is None else str(trace),
        hardware=hardware.detect(),
        torch=str(torch.__version__),
        notes=(*not_counted, *_notes(here, profiled)),
    )


def _keeping(here: Here, block: AbstractContextManager[Any], saved: Saved) -> list[str]:
    """Counts what is kept for backward, and says so where torch does not let anybody look."""
    try:
        here.whatever(lambda run: _kept(run, block, saved))
    except RuntimeError as error:
        if "saved tensor" not in str(error) or "hooks" not in str(error):
            raise
        saved.most.clear()
        return ["what is kept for backward was not counted: torch allows no hooks of saved tensors within torch.func"]
    return []


def _kept(run: Run, block: AbstractContextManager[Any], saved: Saved) -> None:
    with watched(saved), block, saved.heeding():
        run()


def _timed(run: Run, block: AbstractContextManager[Any]) -> float:
    # The first step after a state was put back is unlike the others: an optimizer may have to make its state.
    with block:
        run()
        with clocked() as elapsed:
            run()
    return elapsed()


def _profiled(run: Run, block: AbstractContextManager[Any], marks: Marks, trace: Path | None) -> _Profiled:
    activities = [ProfilerActivity.CPU]
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    for kind, activity in (("cuda", "CUDA"), ("xpu", "XPU")):
        if accelerator is not None and accelerator.type == kind:
            activities.append(getattr(ProfilerActivity, activity))
    with watched(marks), block:
        run()
        marks.begin()
        with quietly(), profile(activities=activities, acc_events=True) as profiler:
            with marked(STEP):
                run()
                if accelerator is not None:
                    torch.accelerator.synchronize()
        with quietly():
            if trace is not None:
                profiler.export_chrome_trace(str(trace))
            found: Any = profiler.profiler
            ranges, kernels = seen(found.kineto_results.events())
    return _Profiled(attributed(ranges, kernels), marks.named.modules, bool(kernels))


def _median(nanoseconds: Iterable[float]) -> float:
    return statistics.median(nanoseconds) / 1e9


def _shares(steps: Sequence[OfStep]) -> tuple[Share, ...]:
    """The parts of the step: medians over the steps, of which each is that part of their sum."""
    parts = [part for part in get_args(PartName) if any(part in step.parts for step in steps)]
    seconds: dict[PartName, float] = {part: _median(step.parts.get(part, 0) for step in steps) for part in parts}
    whole = fsum(seconds.values()) or 1.0
    return tuple(Share(part, its, 100 * its / whole) for part, its in seconds.items())


def _operators(steps: Sequence[OfStep]) -> tuple[Operator, ...]:
    names = dict.fromkeys(name for step in steps for name in step.operators)
    found = [
        Operator(
            name,
            _median(step.operators.get(name, (0, 0))[0] for step in steps),
            max(step.operators.get(name, (0, 0))[1] for step in steps),
        )
        for name in names
    ]
    return tuple(sorted(found, key=lambda each: -each.seconds))


class _Size(NamedTuple):
    """Bytes of a layer: what it keeps for backward, and its parameters, with what is within it and without."""

    kind: str
    kept: int
    kept_own: int
    parameters: int
    parameters_own: int


def _sizes(modules: Mapping[str, nn.Module], saved: Saved) -> dict[str, _Size]:
    found = {}
    for name, module in modules.items():
        within = [its for its, stack in saved.stacks.items() if name in stack]
        parameters, own = (sum(each.nbytes for each in module.parameters(recurse=deep)) for deep in (True, False))
        kept = sum(saved.most.get(its, 0) for its in within)
        found[name] = _Size(type(module).__name__, kept, saved.most.get(name, 0), parameters, own)
    return found


def _layers(profiled: Sequence[_Profiled], sizes: Mapping[str, _Size]) -> tuple[Layer, ...]:
    def median(name: str, part: str, which: str) -> float:
        its = (step.took.layers.get(name, OfLayer()) for step in profiled)
        return _median(getattr(each, which).get(part, 0) for each in its)

    last = profiled[-1].took.layers
    found = [
        Layer(
            name=name,
            kind=sizes[name].kind,
            calls=its.calls,
            forward=median(name, FORWARD, "whole"),
            forward_own=median(name, FORWARD, "own"),
            backward=median(name, BACK, "whole"),
            backward_own=median(name, BACK, "own"),
            kept=sizes[name].kept,
            kept_own=sizes[name].kept_own,
            parameters=sizes[name].parameters,
            parameters_own=sizes[name].parameters_own,
            compiled=its.compiled,
        )
        for name, its in last.items()
    ]
    return tuple(sorted(found, key=lambda each: -each.own))


def _notes(here: Here, profiled: Sequence[_Profiled]) -> Iterator[str]:
    last = profiled[-1].took
    compiled = [name for name, its in last.layers.items() if its.compiled]
    if compiled:
        yield f"{', '.join(compiled)}: compiled code is one piece, and of the modules within it nothing is known"
        yield "of memory, only what compiled code keeps for backward is counted"
    if not last.layers:
        yield "no module was called in the step, or none of torch's way: there are no layers to tell apart"
    yield from told("all is of the first one, whose collectives wait for the slowest")
    yield from here.notes()
