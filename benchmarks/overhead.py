"""What entering and leaving a block costs, beside the nest that one would write by hand for the same settings.

Contenders run in turn, a burst each, round after round, so that a machine that slows down slows them all. A burst is
timed as a whole and divided; the median over the rounds is told, and ratios are taken round by round.

    python -m benchmarks.overhead [--rounds 300] [--json FILE]
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.optim.optimizer as optimizers
from rich.console import Console
from rich.table import Table

from benchmarks import _record
from torchturbo import accelerate, hardware, turbo
from torchturbo.testing import pretend_hardware

BURST = 200
"""Entries and exits in one timed burst."""

_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_DTYPE = torch.bfloat16


def autocast_alone() -> None:
    """`torch.autocast`, which is all that most people write."""
    with torch.autocast(_DEVICE, _DTYPE):
        pass


def by_hand() -> None:
    """The settings of the profile fast, saved, set and restored with torch's own calls."""
    matmul = torch.get_float32_matmul_precision()
    allow_tf32 = torch.backends.cudnn.allow_tf32
    benchmark = torch.backends.cudnn.benchmark
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    try:
        with torch.autocast(_DEVICE, _DTYPE, cache_enabled=False):
            pass
    finally:
        torch.backends.cudnn.benchmark = benchmark
        torch.backends.cudnn.allow_tf32 = allow_tf32
        torch.set_float32_matmul_precision(matmul)


def by_hand_exactly() -> None:
    """The same, putting back the cells too that `torch.set_float32_matmul_precision` overwrites (torch >= 2.9)."""
    cuda = torch.backends.cuda.matmul.fp32_precision
    mkldnn = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    try:
        by_hand()
    finally:
        torch.backends.cuda.matmul.fp32_precision = cuda
        torch.backends.mkldnn.matmul.fp32_precision = mkldnn  # type: ignore[attr-defined]


_fast = turbo("fast")


def turbo_block() -> None:
    """`turbo`, made once and entered again and again."""
    with _fast:
        pass


def turbo_made_anew() -> None:
    """`turbo`, made at every entry."""
    with turbo("fast"):
        pass


def _nothing() -> None:
    pass


_decorated = accelerate(_nothing)


def decorated_call() -> None:
    """A call of a decorated function."""
    _decorated()


_under_autocast = torch.autocast(_DEVICE, _DTYPE)(_nothing)


@functools.wraps(_nothing)
def _wrapped() -> None:
    _nothing()


def autocast_decorated_call() -> None:
    """A call of a function decorated with `torch.autocast`."""
    _under_autocast()


def wraps_decorated_call() -> None:
    """A call of a function behind one that does nothing but call it, as with `functools.wraps`."""
    _wrapped()


def _by_hand(*args: Any, **kwargs: Any) -> None:
    cache, on = torch.is_autocast_cache_enabled(), torch.is_autocast_enabled(_DEVICE)
    dtype = torch.get_autocast_dtype(_DEVICE)
    torch.set_autocast_enabled(_DEVICE, True)
    torch.set_autocast_dtype(_DEVICE, _DTYPE)
    torch.set_autocast_cache_enabled(False)
    try:
        _nothing(*args, **kwargs)
    finally:
        torch.clear_autocast_cache()
        torch.set_autocast_enabled(_DEVICE, on)
        torch.set_autocast_dtype(_DEVICE, dtype)
        torch.set_autocast_cache_enabled(cache)


def call_by_hand() -> None:
    """A call of a wrapper that puts autocast on, without its copies of weights, and back, and does no more."""
    _by_hand()


_lock = threading.RLock()
_precision: Any = getattr(torch._C, "_get_fp32_precision_getter", lambda *_: "none")
_autograd: Any = vars(torch.autograd)
_hooks: Any = optimizers._global_optimizer_pre_hooks


def _watched_by_hand(*args: Any, **kwargs: Any) -> None:
    compiled = "torch._inductor.config" in sys.modules or _precision("cuda", "all") != "none"
    assert not compiled, "a block would have more to do here"
    with _lock:
        engine = _autograd["_engine_run_backward"]
        _autograd["_engine_run_backward"] = _hooks["benchmark"] = _nothing
    try:
        _by_hand(*args, **kwargs)
    finally:
        with _lock:
            _autograd["_engine_run_backward"] = engine
            del _hooks["benchmark"]


def call_watched_by_hand() -> None:
    """The same, with what turbo has in place for backward and steps, and the look at what compiling would change."""
    _watched_by_hand()


def decorated_re_entry() -> None:
    """A call of a decorated function under the same profile, where nothing changes."""
    _decorated()


def re_entry() -> None:
    """`turbo` entered within itself, where nothing changes."""
    with _fast:
        pass


CONTENDERS: tuple[Callable[[], None], ...] = (
    autocast_alone,
    by_hand,
    *((by_hand_exactly,) if hasattr(torch.backends.cuda.matmul, "fp32_precision") else ()),
    turbo_block,
    turbo_made_anew,
    decorated_call,
    autocast_decorated_call,
    wraps_decorated_call,
    # What the profile fast comes to without a GPU.
    *((call_by_hand, call_watched_by_hand) if _DEVICE == "cpu" else ()),
)


def _forget_by_hand() -> None:
    """Puts back what `by_hand` leaves behind (``ieee`` in cells that were ``none``), so that all start alike."""
    if by_hand_exactly in CONTENDERS:
        torch.backends.cuda.matmul.fp32_precision = "none"
        torch.backends.mkldnn.matmul.fp32_precision = "none"  # type: ignore[attr-defined]


def _burst(contender: Callable[[], None]) -> float:
    start = time.perf_counter()
    for _ in range(BURST):
        contender()
    taken = time.perf_counter() - start
    _forget_by_hand()
    return taken / BURST * 1e6


def measure(rounds: int) -> dict[str, list[float]]:
    """Microseconds for one entry and exit, by contender, a sample a round.

    Args:
        rounds: how often each contender has its turn.
    """
    samples: dict[str, list[float]] = {contender.__name__: [] for contender in CONTENDERS}
    for name in (re_entry.__name__, decorated_re_entry.__name__, "turbo_block_pretending_h100"):
        samples[name] = []
    for each in range(rounds + 5):
        taken = {contender.__name__: _burst(contender) for contender in CONTENDERS}
        with _fast:
            taken[re_entry.__name__] = _burst(re_entry)
            taken[decorated_re_entry.__name__] = _burst(decorated_re_entry)
        with pretend_hardware("H100"):
            taken["turbo_block_pretending_h100"] = _burst(turbo_block)
        if each >= 5:  # the first rounds warm up
            for name, sample in taken.items():
                samples[name].append(sample)
    return samples


def _ratio(samples: dict[str, list[float]], name: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(samples[name], samples[other], strict=True))


def record(rounds: int, path: Path | None) -> None:
    """Measures, prints a table and, where a path is given, writes a record.

    Args:
        rounds: how often each contender has its turn.
        path: of the record.
    """
    samples = measure(rounds)
    table = Table(title=f"one entry and exit, torch {torch.__version__}, {hardware.detect().device_type}")
    for heading in ("", "median us", "10 % .. 90 %", "by hand = 1", "over autocast us", "autocast, decorated = 1"):
        table.add_column(heading, justify="left" if not heading else "right")
    summary = {}
    for name, taken in samples.items():
        tenths = statistics.quantiles(taken, n=10)
        row = {
            "median_us": statistics.median(taken),
            "ratio_to_by_hand": _ratio(samples, name, "by_hand"),
            "ratio_to_autocast_decorated": _ratio(samples, name, autocast_decorated_call.__name__),
            "over_autocast_us": statistics.median(a - b for a, b in zip(taken, samples["autocast_alone"], strict=True)),
        }
        summary[name] = row
        table.add_row(
            name.replace("_", " "),
            f"{row['median_us']:.2f}",
            f"{tenths[0]:.2f} .. {tenths[-1]:.2f}",
            f"{row['ratio_to_by_hand']:.2f}",
            f"{row['over_autocast_us']:+.2f}",
            f"{row['ratio_to_autocast_decorated']:.2f}",
        )
    Console().print(table)
    if path:
        command = f"python -m benchmarks.overhead --rounds {rounds}"
        _record.write(path, "overhead", command, {"summary": summary, "samples_us": samples})


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--rounds", type=int, default=300)
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    record(asked.rounds, asked.json)


if __name__ == "__main__":
    main()
