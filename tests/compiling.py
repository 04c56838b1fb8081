"""What is left of compiling inside blocks, told by forks of a process that has never compiled anything.

    python -m tests.compiling    # prints {case: what differs, line by line} as JSON

torch's own precision after a compilation is not what it was before, and cannot always be put back, so each case needs a
pristine process: a child with the blocks is compared to one without.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, Literal

import torch

from tests.witness import memory, probing
from tests.witness.children import in_child
from tests.witness.reading import differences
from torchturbo import accelerate, turbo
from torchturbo.settings._base import TORCH
from torchturbo.testing import pretend_hardware

CONTEXT = memory.locate()


def compile_something() -> None:
    torch.compiler.reset()
    torch.compile(lambda x: (x @ x).sin(), backend="eager")(torch.ones(4, 4))


def nothing() -> None:
    """Leaves the history as it is."""


# ------------------------------------------------------------------------------------------------------ precision


def _set(owner: Any, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(owner, name, value)


HISTORIES: dict[str, Callable[[], None]] = {
    "nothing": nothing,
    "matmul=medium": lambda: torch.set_float32_matmul_precision("medium"),
    "cudnn.allow_tf32=False": _set(torch.backends.cudnn, "allow_tf32", False),
}
if hasattr(torch._C, "_set_fp32_precision_setter"):
    HISTORIES |= {
        "all=tf32": _set(torch.backends, "fp32_precision", "tf32"),
        "all=ieee": _set(torch.backends, "fp32_precision", "ieee"),
        "cudnn=tf32": _set(torch.backends.cudnn, "fp32_precision", "tf32"),
    }


def blocks() -> None:
    with pretend_hardware("A100"):
        with turbo("max"):
            compile_something()
            with turbo("exact"):
                compile_something()
        accelerate(compile_something)()
    with pretend_hardware("cpu-bf16"), turbo("fast"):
        compile_something()


def _precision_after(history: Callable[[], None], then: Callable[[], None]) -> dict[str, str]:
    history()
    then()
    return (CONTEXT.read() if CONTEXT else {}) | probing.probe()


def precision(history: str, then: Callable[[], None]) -> list[str]:
    without, found = (in_child(lambda do=do: _precision_after(HISTORIES[history], do)) for do in (nothing, then))
    crashes = [answer.crash for answer in (without, found) if answer.crash]
    return crashes or differences(without.value, found.value)


# ------------------------------------------------------------------------------------- inductor's own configuration

COMPILING_OVERWRITES_IT = TORCH >= (2, 10)


def _inductor() -> Any:
    import torch._inductor.config

    return torch._inductor.config


def deterministic(asked: Literal[False, "warn", True, None], set_by_user: bool) -> list[str]:
    """What inductor is told inside of a block that asks for determinism (or not), and what it believes afterwards."""

    def life() -> list[str]:
        if set_by_user:
            _inductor().deterministic = True
        with turbo("fast") if asked is None else turbo("fast", deterministic=asked):
            compile_something()
            inside = _inductor().deterministic
        after = _inductor().deterministic
        wrong = [f"inside it is {inside}"] if inside != bool(asked) and COMPILING_OVERWRITES_IT else []
        return wrong + ([f"afterwards it is {after}"] if after != set_by_user else [])

    answer = in_child(life, seconds=60)
    return [answer.crash] if answer.crash else list(answer.value)


def loads_nothing() -> list[str]:
    """Asking for determinism through torch imports all of the compiler the first time, which takes seconds."""

    def life() -> list[str]:
        before = set(sys.modules)
        with turbo("reproducible"):
            assert torch.are_deterministic_algorithms_enabled()
        return sorted(name for name in set(sys.modules) - before if name.startswith("torch._"))

    answer = in_child(life)
    return [answer.crash] if answer.crash else list(answer.value)


def main() -> None:
    """Runs every case, those first that need a process without the compiler."""
    found = {"reproducible loads nothing": loads_nothing()}
    found["deterministic=True, loaded inside"] = deterministic(True, set_by_user=False)
    import torch._dynamo  # noqa: F401 - so that the children need not

    found |= {f"precision after {name}": precision(name, blocks) for name in HISTORIES}
    found["precision without blocks"] = precision("matmul=medium", compile_something) + (
        precision("all=tf32", compile_something) if "all=tf32" in HISTORIES else []
    )
    found["deterministic=True"] = deterministic(True, set_by_user=False)
    found["deterministic=True, as the user has it"] = deterministic(True, set_by_user=True)
    found["deterministic='warn', the user has True"] = deterministic("warn", set_by_user=True)
    found["deterministic=False, the user has True"] = deterministic(False, set_by_user=True)
    found["deterministic not named, the user has True"] = deterministic(None, set_by_user=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
