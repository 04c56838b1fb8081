"""What must be in force while blocks are open: the newest remaining layer's value, else what was beneath (law 3).

What one layer forces is not asked of the package: it is found out by experiment, in a child of its own. A flag that
reads the same inside the block from two different states before it is forced to that value; one that follows the state
before is left alone. From that, and from who entered and left, the model below says what each flag must be.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.witness.cases import Layer
from tests.witness.getters import read_one
from tests.witness.memory import CELLS
from tests.witness.probing import HAS_CELLS
from tests.witness.subjects import Subject

C = torch._C


@dataclass(frozen=True)
class Flag:
    """A flag that can be read and written from outside in one call each; ``starts`` are two different states of it."""

    read: Callable[[], Any]
    write: Callable[[Any], object]
    starts: tuple[Any, Any] = (False, True)
    thread: bool = False


def _raw(getter: str, setter: str) -> Flag | None:
    return Flag(getattr(C, getter), getattr(C, setter)) if hasattr(C, setter) and hasattr(C, getter) else None


def _environment(name: str) -> Flag:
    return Flag(lambda: os.environ.get(name), lambda value: os.environ.__setitem__(name, value), ("one", "other"))


def _autocast(device: str) -> dict[str, Flag]:
    return {
        f"autocast {device}": Flag(
            lambda: torch.is_autocast_enabled(device), lambda on: torch.set_autocast_enabled(device, on), thread=True
        ),
        f"autocast dtype {device}": Flag(
            # The dtype means nothing, and may be anything, while autocast is off.
            lambda: torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
            lambda dtype: torch.set_autocast_dtype(device, dtype),
            (torch.bfloat16, torch.float16),
            thread=True,
        ),
    }


def _pair(getter: str, setter: str) -> Flag:
    takes_pair = isinstance(getattr(C, getter)(), tuple)
    if takes_pair:
        return Flag(getattr(C, getter), lambda pair: getattr(C, setter)(*pair), ((False, False), (True, True)))
    return Flag(getattr(C, getter), getattr(C, setter))


def _determinism() -> tuple[bool, bool]:
    return C._get_deterministic_algorithms(), C._get_deterministic_algorithms_warn_only()


def _flags() -> dict[str, Flag]:
    found: dict[str, Flag | None] = {
        "cudnn_enabled": _raw("_get_cudnn_enabled", "_set_cudnn_enabled"),
        "cudnn_benchmark": _raw("_get_cudnn_benchmark", "_set_cudnn_benchmark"),
        "cudnn_deterministic": _raw("_get_cudnn_deterministic", "_set_cudnn_deterministic"),
        "mkldnn_enabled": _raw("_get_mkldnn_enabled", "_set_mkldnn_enabled"),
        "mkldnn_deterministic": _raw("_get_mkldnn_deterministic", "_set_mkldnn_deterministic"),
        "flash_sdp": _raw("_get_flash_sdp_enabled", "_set_sdp_use_flash"),
        "mem_efficient_sdp": _raw("_get_mem_efficient_sdp_enabled", "_set_sdp_use_mem_efficient"),
        "cudnn_sdp": _raw("_get_cudnn_sdp_enabled", "_set_sdp_use_cudnn"),
        "math_sdp": _raw("_get_math_sdp_enabled", "_set_sdp_use_math"),
        "fill_uninitialized_memory": _raw(
            "_get_deterministic_fill_uninitialized_memory", "_set_deterministic_fill_uninitialized_memory"
        ),
        "fp16_accumulation": _raw("_get_cublas_allow_fp16_accumulation", "_set_cublas_allow_fp16_accumulation"),
        "fp16_reduction": _pair(*(f"_{x}_cublas_allow_fp16_reduced_precision_reduction" for x in ("get", "set"))),
        "bf16_reduction": _pair(*(f"_{x}_cublas_allow_bf16_reduced_precision_reduction" for x in ("get", "set"))),
        "deterministic": Flag(
            _determinism,
            lambda pair: C._set_deterministic_algorithms(pair[0], warn_only=pair[1]),
            ((False, True), (True, False)),
        ),
        "anomaly": Flag(torch.is_anomaly_enabled, torch.set_anomaly_enabled),
        "default_dtype": Flag(torch.get_default_dtype, torch.set_default_dtype, (torch.float64, torch.float16)),
        "cublas_workspace": _environment("CUBLAS_WORKSPACE_CONFIG"),
        "grad": Flag(torch.is_grad_enabled, C._set_grad_enabled, thread=True),
        "num_threads": Flag(torch.get_num_threads, torch.set_num_threads, (3, 4), thread=True),
        "autocast cache": Flag(torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled, thread=True),
        **_autocast("cpu"),
        **_autocast("cuda"),
    }
    if hasattr(C, "_cuda_set_cudnn_benchmark_limit"):
        limit = Flag(C._cuda_get_cudnn_benchmark_limit, C._cuda_set_cudnn_benchmark_limit, (1, 2))
        found["cudnn_benchmark_limit"] = limit
    if HAS_CELLS:
        for backend, op in CELLS:
            if op != "all":
                found[f"{backend}/{op}"] = _leaf(backend, op)
    else:
        matmul = (C._get_float32_matmul_precision, C._set_float32_matmul_precision)
        found["matmul 2.8"] = Flag(*matmul, starts=("high", "medium"))
    return {name: flag for name, flag in found.items() if flag is not None}


def _leaf(backend: str, op: str) -> Flag:
    def read() -> str:
        # To a kernel ``none`` and ``ieee`` are one: no shortened products. Which of them it is matters only afterwards.
        precision = C._get_fp32_precision_getter(backend, op)
        return "ieee" if precision == "none" else str(precision)

    return Flag(
        read,
        lambda precision: C._set_fp32_precision_setter(backend, op, precision),
        ("ieee", "tf32"),
    )


FLAGS = _flags()
PROCESS = tuple(name for name, flag in FLAGS.items() if not flag.thread)
THREAD = tuple(name for name, flag in FLAGS.items() if flag.thread)

Values = dict[str, str]


def read_flags(names: Sequence[str]) -> Values:
    """The flags as they are now, in this thread, as text."""
    return {name: read_one(FLAGS[name].read) for name in names}


def forced_by(layer: Layer, subject: Subject) -> Values | None:
    """What a layer forces, found by experiment in this process; None where the subject refuses to enter it.

    Call it in a child: it leaves every flag changed.
    """
    seen = []
    refusals: tuple[type[BaseException], ...] = (RuntimeError, *subject.errors)
    for start in (0, 1):
        for flag in FLAGS.values():
            flag.write(flag.starts[start])
        before = read_flags(tuple(FLAGS))
        with subject.on(layer.machine):
            try:
                block = subject.make(layer)
                block.__enter__()
            except refusals:
                return None
        seen.append((before, read_flags(tuple(FLAGS))))
        block.__exit__(None, None, None)
    (_, first), (_, second) = seen
    return {name: value for name, value in first.items() if value == second[name]}


# Options whose effect has one plain reading, on a machine where each of them has an effect.
PLAIN = {
    "cudnn_benchmark": repr,
    "cudnn_deterministic": repr,
    "math_sdp": repr,
    "flash_sdp": repr,
    "fill_uninitialized_memory": repr,
    "fp16_accumulation": repr,
    "anomaly": repr,
    "grad": repr,
    "num_threads": repr,
    "default_dtype": lambda name: f"torch.{name}",
    "deterministic": lambda mode: str([bool(mode), mode == "warn"]),
    "cublas_workspace": repr,
}


def unkept_promises(layer: Layer, forced: Values) -> list[str]:
    """Options that were asked for and are not what they were asked to be inside, on a machine that has them all."""
    if layer.machine not in ("A100", "H100"):
        return []
    return [
        f"{option}={layer.options[option]!r} on {layer.machine}: inside it is {forced.get(option, 'as it was')}"
        for option, reads in PLAIN.items()
        if option in layer.options and forced.get(option) != reads(layer.options[option])
    ]


@dataclass(eq=False)
class Entry:
    """One entry that has not been left. ``astray``: another thread left it, so this thread's own part still stands."""

    actor: int
    layer: int
    astray: bool = False


@dataclass
class Model:
    """Who has entered what, and what therefore must be in force; ``beneath`` is what was read before any entry."""

    forced: Sequence[Values | None]
    process_beneath: Values
    thread_beneath: dict[int, Values]
    open: list[Entry] = field(default_factory=list)  # oldest first; changed in place, as several threads may do it

    def entered(self, actor: int, layer: int) -> None:
        """A layer was entered by an actor, which also settles what went astray in its thread."""
        self._settle(actor)
        self.open.append(Entry(actor, layer))

    def newest(self, layer: int, actor: int | None = None) -> Entry | None:
        """The newest entry of a layer that stands, an actor's or anybody's."""
        standing = [entry for entry in list(self.open) if entry.layer == layer and not entry.astray]
        return next((entry for entry in reversed(standing) if actor in (None, entry.actor)), None)

    def left(self, entry: Entry) -> None:
        """An entry was left by its own actor."""
        self.open.remove(entry)
        self._settle(entry.actor)

    def has_strays(self, actor: int) -> bool:
        """Whether something of the actor's went astray and has not been settled."""
        return any(entry.astray and entry.actor == actor for entry in list(self.open))

    def _settle(self, actor: int) -> None:
        for entry in list(self.open):
            if entry.astray and entry.actor == actor:
                self.open.remove(entry)

    def must_be(self, actor: int) -> Values:
        """What an actor must read now. Its thread's own flags are not foretold while something went astray in it."""
        strays = self.has_strays(actor)
        values = self.process_beneath | ({} if strays else self.thread_beneath[actor])
        for entry in self.open:
            for name, value in (self.forced[entry.layer] or {}).items():
                if FLAGS[name].thread:
                    if entry.actor == actor and not strays:
                        values[name] = value
                elif not entry.astray:
                    values[name] = value
        return values
