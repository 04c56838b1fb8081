"""Makes a random case from its seed, as plain data: a history, turbo objects, and a schedule over threads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from tests.witness.setters import Setter

WORKERS = 4
MAIN = 0  # actor 0 is the main thread, 1..WORKERS are threads of their own

# What can be asked for, from the documentation of the options, with values of every kind.
OPTIONS: dict[str, tuple[Any, ...]] = {
    "matmul_precision": ("highest", "high", "medium"),
    "tf32": (True, False),
    "cudnn_precision": ("ieee", "tf32"),
    "mkldnn_precision": ("ieee", "tf32", "bf16"),
    "fp16_reduction": (True, False, "no_split_k"),
    "bf16_reduction": (True, False, "no_split_k"),
    "fp16_accumulation": (True, False),
    "cudnn_enabled": (True, False),
    "cudnn_benchmark": (True, False),
    "cudnn_deterministic": (True, False),
    "cudnn_benchmark_limit": (0, 5, 10),
    "mkldnn_enabled": (True, False),
    "mkldnn_deterministic": (True, False),
    "flash_sdp": (True, False),
    "mem_efficient_sdp": (True, False),
    "cudnn_sdp": (True, False),
    "math_sdp": (True, False),
    "deterministic": (False, "warn", True),
    "fill_uninitialized_memory": (True, False),
    "cublas_workspace": (":4096:8", ":16:8"),
    "blas_library": ("cublas", "cublaslt"),
    "linalg_library": ("cusolver", "magma", "default"),
    "num_threads": (1, 2, 3),
    "anomaly": (True, False),
    "grad": (True, False),
    "default_dtype": ("float32", "float64", "bfloat16", "float16"),
    "autocast": ("auto", "bf16", "fp16", None),
    "accumulate": (1, 2, 4),
    "init_scale": (1.0, 2.0**20),
    "growth_interval": (1, 2000),
    "fused_optimizer": (False, "auto", True),
    "seed": (0, 42, 2**32 - 1),
    "num_workers": (0, 4, "auto"),
    "prefetch_factor": (1, 3, "auto"),
    "pin_memory": (True, False, "auto"),
    "persistent_workers": (True, False, "auto"),
    "prefetch": (True, False),
    # Nothing compiles by itself: what compiling leaves is watched by tests.compiling.
    "compile": (False, True, "max-autotune", {"backend": "eager", "dynamic": False}),
}
PROFILES = ("fast", "max", "exact", "reproducible", "inference", "low_memory", "debug")
MACHINES = (None, "A100", "A100", "H100", "B200", "V100", "T4", "RTX 4090", "cpu", "cpu-bf16", "apple")
BODY_ERRORS = ("ValueError", "RuntimeError", "KeyboardInterrupt", "StopIteration")

# Setters in which a failure is planted: the subject of the test must take back what it did before.
FAILING = (
    "_set_cudnn_benchmark",
    "_set_cudnn_deterministic",
    "_set_mkldnn_deterministic",
    "_set_cublas_allow_fp16_accumulation",
    "_set_deterministic_algorithms",
    "_set_deterministic_fill_uninitialized_memory",
    "_set_sdp_use_math",
    "_set_sdp_use_flash",
    "_set_float32_matmul_precision",
)


# Flags of `tests.witness.expectation` that a body changes. Precision is left out, because compiling changes it, so a
# block puts it back whoever changed it, and num_threads, because its setter writes every new thread's number as well.
MEDDLED = (
    "cudnn_benchmark",
    "cudnn_deterministic",
    "mkldnn_enabled",
    "mkldnn_deterministic",
    "flash_sdp",
    "math_sdp",
    "fill_uninitialized_memory",
    "fp16_accumulation",
    "fp16_reduction",
    "deterministic",
    "anomaly",
    "default_dtype",
    "cublas_workspace",
    "grad",
)


@dataclass(frozen=True)
class Step:
    """One thing that one actor does.

    ``set`` a torch setter; ``work`` a small training step; ``meddle`` with a flag inside a block, ``draw`` random
    numbers in one with a seed; the others are done only where there are blocks. ``arguments`` are plain data.
    """

    kind: str
    actor: int
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Layer:
    """What one turbo object is made of, on which machine it is entered."""

    profile: str
    options: Mapping[str, Any]
    machine: str | None
    strict: bool = False


@dataclass(frozen=True)
class Case:
    """A case: in ``free`` mode the workers run unscheduled, else one step at a time in the order of the list."""

    seed: int
    loaded: bool
    free: bool
    layers: tuple[Layer, ...]
    history: tuple[Step, ...] = ()
    blocks: tuple[Step, ...] = ()

    def without(self, part: str, at: int, count: int) -> Case:
        """The case without some steps of ``history`` or ``blocks``."""
        steps = getattr(self, part)
        return replace(self, **{part: steps[:at] + steps[at + count :]})

    def describe(self) -> str:
        """The case for a person to read."""
        compiler = "loaded" if self.loaded else "not loaded"
        lines = [f"seed {self.seed}, compiler {compiler}, {'free' if self.free else 'scheduled'}"]
        lines += [f"  history  thread {s.actor}: {s.arguments[0]}{tuple(s.arguments[1])}" for s in self.history]
        used = {step.arguments[0] for step in self.blocks if step.kind in ("enter", "exit", "call", "stray")}
        lines += [f"  turbo {at}: {layer}" for at, layer in enumerate(self.layers) if at in used]
        lines += [f"  then     thread {s.actor}: {s.kind} {' '.join(map(str, s.arguments))}" for s in self.blocks]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The case as JSON."""
        plain = {
            "seed": self.seed,
            "loaded": self.loaded,
            "free": self.free,
            "layers": [vars(layer) for layer in self.layers],
            "history": [[s.kind, s.actor, s.arguments] for s in self.history],
            "blocks": [[s.kind, s.actor, s.arguments] for s in self.blocks],
        }
        return json.dumps(plain)


def make(seed: int, setters: Mapping[str, Sequence[Setter]], *, loaded: bool = False) -> Case:
    """The case of this seed; the same on the same version of torch, whatever ran before."""
    random = Random(f"{seed} {loaded}")
    every = [setter for group in setters.values() for setter in group if loaded or not setter.loads_compiler]
    strangers = [setter for setter in every if not setter.owned]
    history = tuple(_set(random, every) for _ in range(random.randint(0, 15)))
    layers = tuple(_layer(random) for _ in range(random.randint(1, 6)))
    free = random.random() < 0.15
    if free:  # a pretended machine is every thread's
        layers = tuple(replace(layer, machine=layers[0].machine) for layer in layers)
    if loaded and random.random() < 0.15:
        return Case(seed, loaded, False, layers, history, tuple(_compiling(random, len(layers))))
    if random.random() < 0.1:
        return Case(seed, loaded, False, layers[:1], history, tuple(_meddling(random)))
    return Case(seed, loaded, free, layers, history, tuple(_blocks(random, len(layers), strangers, free)))


def _set(random: Random, setters: Sequence[Setter]) -> Step:
    (setter,) = random.choices(setters, weights=[setter.weight for setter in setters])
    actor = random.choice((MAIN, random.randint(0, WORKERS)))
    return Step("set", actor, (setter.name, random.choice(setter.values)))


def _layer(random: Random) -> Layer:
    count = min(random.choice((0, 0, 1, 1, 2, 3, 5, 9)), len(OPTIONS))
    options = {name: random.choice(OPTIONS[name]) for name in random.sample(sorted(OPTIONS), count)}
    return Layer(random.choice(PROFILES), options, random.choice(MACHINES), strict=random.random() < 0.05)


def _blocks(random: Random, layers: int, strangers: Sequence[Setter], free: bool) -> list[Step]:
    """Entries and exits in any order, and what happens between; what stays open is left in random order at the end."""
    steps: list[Step] = []
    opened: list[tuple[int, int]] = []
    for _ in range(random.randint(2, 30)):
        actor = random.randint(1 if free else 0, WORKERS)
        roll = random.random()
        if roll < 0.45:
            at = random.randrange(layers)
            fault = () if free or random.random() < 0.9 else (random.choice(FAILING), random.random() < 0.5)
            steps.append(Step("enter", actor, (at, *fault)))
            opened.append((actor, at))
        elif roll < 0.80 and opened:
            steps.append(_exit(random, opened))
        elif roll < 0.87:
            depth, error = random.randint(1, 3), random.choice((None, *BODY_ERRORS[:2]))
            steps.append(Step("call", actor, (random.randrange(layers), depth, error)))
        elif roll < 0.90:
            steps.append(Step("refuse", actor, (random.choice(("name", "value", "profile")),)))
        elif roll < 0.93 and not free:
            steps.append(Step("stray", actor, (random.randrange(layers),)))
        elif roll < 0.95:
            steps.append(Step("work", actor))
        elif roll < 0.97 and not free:
            steps.append(Step("draw", actor, (random.randrange(2**32),)))
        elif not free:
            (setter,) = random.choices(strangers)
            steps.append(Step("set", actor, (setter.name, random.choice(setter.values))))
    while opened:
        steps.append(_exit(random, opened))
    return steps


def _compiling(random: Random, layers: int) -> list[Step]:
    """Compile a function inside blocks: compiling writes precision cells and inductor's configuration by itself."""
    actor = random.randint(0, WORKERS)
    around = [random.randrange(layers) for _ in range(random.randint(1, 3))]
    leave = [Step("exit", actor, (at, None)) for at in reversed(around)]
    return [*(Step("enter", actor, (at,)) for at in around), Step("compile", actor), *leave]


def _meddling(random: Random) -> list[Step]:
    """Change flags inside a block, its own and others: its own come back, the others stay as the body left them."""
    actor = random.randint(0, WORKERS)
    changes = [
        Step("meddle", actor, (random.choice(MEDDLED), random.randint(0, 1))) for _ in range(random.randint(1, 8))
    ]
    return [Step("enter", actor, (0,)), *changes, Step("exit", actor, (0, None))]


def _exit(random: Random, opened: list[tuple[int, int]]) -> Step:
    """Leave any open block, in the thread that entered it; the body of one in four raised."""
    actor, at = opened.pop(random.randrange(len(opened)))
    return Step("exit", actor, (at, random.choice((None, None, None, random.choice(BODY_ERRORS)))))
