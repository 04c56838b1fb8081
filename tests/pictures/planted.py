"""What was never measured: a comparison, a search and a profile with every kind of row, to be drawn."""

from __future__ import annotations

import random
from dataclasses import fields
from typing import Any, TypeVar

from torchturbo._benchmark.data import Between, Comparison, Drift, Switch, Timed
from torchturbo._layers.data import Layer, LayerCosts, Operator, Share
from torchturbo._tune.data import Tried, Tuning
from torchturbo.testing import MACHINES

T = TypeVar("T")
NASTY = "a <b> & \"c\" 'd' é"
"""What has to be escaped in a page, and cannot be written everywhere."""
_EMPTY = {"tuple": (), "Mapping": {}, "int": 0, "float": 0.0, "bool": False, "str": ""}


def made(kind: type[T], /, **values: Any) -> T:
    """One of our frozen classes, empty where nothing is said: what a picture does not need is none of its tests'."""
    for field in fields(kind):  # type: ignore[arg-type]
        word = str(field.type).partition("[")[0]
        values.setdefault(field.name, None if "None" in str(field.type) else _EMPTY.get(word))
    return kind(**values)


def row(name: str, times: float, chance: random.Random, **values: Any) -> Timed:
    """A row that takes so much of a second a step."""
    samples = tuple(times * chance.lognormvariate(0, 0.03) for _ in range(20))
    seconds = Between(times, times * 0.99, times * 1.01)
    return made(Timed, name=name, samples=samples, seconds=seconds, quartiles=(times * 0.98, times * 1.02), **values)


def comparison() -> Comparison:
    """A comparison with rows that are faster, slower, no different, failed and the same as another."""
    chance = random.Random(0)
    why = "TF32 is a format of NVIDIA GPUs, and there is none here"
    cudnn = "cuDNN runs on NVIDIA GPUs, and there is none here"
    drift = Drift(0.01, 0.02, 0.03, 0.04, False)
    fast, slow = Between(1.98, 1.9, 2.1), Between(0.7, 0.65, 0.72)
    rows = (
        row("as it is", 0.040, chance, memory=300 * 2**20, drift=Drift(0.0, 0.0, 0.0, 0.0, True), rate=400.0),
        row("fast", 0.020, chance, settings={"profile": "fast"}, refused={"tf32": why, "cudnn_benchmark": cudnn},
            speedup=fast, verdict="faster", memory=180 * 2**20, utilization=85.0,
            first_seconds=1.5, pays_after=75, rate=800.0,
            drift=drift),
        row("max", 0.057, chance, settings={"profile": "max"},
            refused={"tf32": why, "cudnn_precision": cudnn, "cudnn_benchmark": cudnn},
            speedup=slow, verdict="slower", memory=190 * 2**20, drift=Drift(0.3, 0.2, 0.1, 0.4, False), rate=280.0),
        row("low_memory", 0.0405, chance, speedup=Between(0.99, 0.9, 1.2), verdict="no difference",
            drift=Drift(1e-6, 2e-6, 1e-6, 1e-6, False), memory=90 * 2**20, rate=395.0),
        made(Timed, name=NASTY, failed=f"RuntimeError: {NASTY}"),
    )  # fmt: skip
    return made(
        Comparison,
        rows=rows,
        switches=(Switch("autocast", "bf16", fast, "faster", None, None),),
        reference="exact",
        noise=Drift(1e-7, 2e-7, 1e-7, 1e-6, False),
        rounds=20,
        steps=1,
        batch=16,
        seconds=21.0,
        hardware=MACHINES["A100"],
        torch="2.13.0",
        notes=(f"a note: {NASTY}",),
    )


def tuning() -> Tuning:
    """A search in which changes were kept, rejected, drifted, failed and had no effect."""
    drift = Drift(0.01, 0.02, 0.03, 0.04, False)
    tried = (
        Tried({"autocast": "bf16"}, "kept", Between(1.8, 1.7, 1.9), drift, 11, ""),
        Tried({"num_threads": 1}, "no faster", Between(0.6, 0.5, 0.7), drift, 4, ""),
        Tried({"matmul_precision": "medium"}, "drifts", None, Drift(0.3, 0.2, 0.4, 0.5, False), 0, NASTY),
        Tried({"compile": "default"}, "failed", None, None, 0, "OutOfMemoryError"),
        Tried({"tf32": True}, "no effect", None, None, 0, "TF32 is a format of NVIDIA GPUs, and there is none here"),
    )
    return made(
        Tuning,
        options={"autocast": "bf16"},
        speedup=Between(1.8, 1.7, 1.9),
        before=0.04,
        after=0.022,
        drift=drift,
        noise=Drift(1e-7, 2e-7, 1e-7, 1e-6, False),
        tolerance=0.05,
        reference="exact",
        tried=tried,
        rounds=20,
        step="train.py:step",
        hardware=MACHINES["A100"],
        torch="2.13.0",
        date="2026-11-23",
        notes=(NASTY,),
    )


def costs() -> LayerCosts:
    """A profile of some layers, of which one is nasty."""
    layers = [
        made(Layer, name=f"model.blocks.{n}", kind="Block", calls=1, forward=0.02, forward_own=0.01 / (n + 1),
             backward=0.04, backward_own=0.02 / (n + 1), kept=2**22, kept_own=2**20, parameters_own=2**12)
        for n in range(20)
    ]  # fmt: skip
    layers.append(made(Layer, name=NASTY, kind="Linear", compiled=True))
    shares = [Share("input", 0.01, 5.0), Share("forward", 0.06, 30.0), Share("backward", 0.12, 60.0)]
    return made(
        LayerCosts,
        layers=tuple(layers),
        shares=(*shares, Share("optimizer", 0.01, 5.0)),
        operators=(Operator("aten::mm", 0.1, 30), Operator(NASTY, 0.01, 3)),
        alone={"forward": 0.001, "backward": 0.002},
        kept_alone=2**10,
        seconds=0.19,
        profiled=0.2,
        clock="CPU",
        steps=3,
        step="train.py:step",
        settings={"profile": "fast"},
        hardware=MACHINES["A100"],
        torch="2.13.0",
        notes=(NASTY,),
    )
