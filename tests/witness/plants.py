"""Single leaks, each planted in a child that should have none: what the witness must see, one by one.

``python -m tests.witness.plants`` prints, as JSON, what the witness says of each plant, in which case it catches each
mutant, and which getters it reads here.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from tests.witness import setters
from tests.witness.cases import make
from tests.witness.children import in_child
from tests.witness.getters import Reading
from tests.witness.mutants import MUTANTS, Block, Idle
from tests.witness.probing import HAS_CELLS, probe
from tests.witness.reading import Witness, differences
from tests.witness.subjects import load
from tests.witness.verdict import judge

C = torch._C


@dataclass(frozen=True)
class Plant:
    """A change that a faulty block could leave behind. ``hidden``: every getter says the same before and after."""

    leak: Callable[[], object]
    before: Callable[[], object] = lambda: None
    hidden: bool = False


def _cell(backend: str, op: str, precision: str) -> Callable[[], object]:
    return lambda: C._set_fp32_precision_setter(backend, op, precision)


def _default_cells() -> bool:
    """Whether this torch starts with ``default`` cells, which a write destroys."""
    return HAS_CELLS and tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)


def _in_thread(function: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()

    return run


def _leave_open(context: Any) -> object:
    _OPEN.append(context)
    return context.__enter__()


_OPEN: list[Any] = []


def _hook(optimizer: Any, args: Any, kwargs: Any) -> None:
    return None


def _hook_optimizers() -> None:
    sys.modules["torch.optim.optimizer"].register_optimizer_step_pre_hook(_hook)


def plants() -> dict[str, Plant]:
    """Every plant that this version of torch has room for."""
    found = {
        "a plain flag": Plant(lambda: C._set_cudnn_benchmark(True)),
        "a flag of one attention kernel": Plant(lambda: C._set_sdp_use_math(False)),
        "the order of attention kernels": Plant(lambda: C._set_sdp_priority_order([4, 3, 2, 1, 0])),
        "warn_only while determinism is off": Plant(lambda: C._set_deterministic_algorithms(False, warn_only=True)),
        "check_nan while anomaly detection is off": Plant(lambda: torch.set_anomaly_enabled(False, False)),
        "the word of matmul precision": Plant(lambda: torch.set_float32_matmul_precision("high")),
        "a refused library that torch stored first": Plant(_refused_library),
        "the default dtype": Plant(lambda: torch.set_default_dtype(torch.float64)),
        "grad mode": Plant(lambda: C._set_grad_enabled(False)),
        "an open autocast": Plant(lambda: _leave_open(torch.autocast("cpu"))),
        "an open autocast that is disabled": Plant(lambda: _leave_open(torch.autocast("cpu", enabled=False))),
        "an autocast dtype while it is off": Plant(lambda: torch.set_autocast_dtype("cuda", torch.bfloat16)),
        "autocast's cache": Plant(lambda: torch.set_autocast_cache_enabled(False)),
        "the number of threads": Plant(lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
        "the number of threads that new threads get": Plant(_in_thread(lambda: torch.set_num_threads(3))),
        "denormals": Plant(lambda: torch.set_flush_denormal(True)),
        "a default device": Plant(lambda: torch.set_default_device("cpu")),
        "a mode on torch's function stack": Plant(lambda: _leave_open(torch.device("cpu"))),
        "an environment variable": Plant(lambda: os.environ.__setitem__("CUBLAS_WORKSPACE_CONFIG", ":4096:8")),
        "an environment variable that only C sees": Plant(lambda: os.putenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")),
        "a warning filter": Plant(lambda: warnings.simplefilter("always")),
        "a number drawn from random": Plant(random.random),
        "a number drawn from torch": Plant(lambda: torch.rand(1)),
        "a queued CUDA seed": Plant(lambda: torch.cuda.manual_seed(5)),
        "another queued CUDA seed": Plant(lambda: torch.cuda.manual_seed(6), lambda: torch.cuda.manual_seed(5)),
        "a queued CUDA state": Plant(lambda: torch.cuda.set_rng_state(torch.get_rng_state())),
        "a replaced engine": Plant(_replace_engine),
        "other code in Module.__call__": Plant(_exchange_code),
        "a filter on the compiler's log": Plant(_filter_log),
        "a hook on every optimizer": Plant(_hook_optimizers),
        "a hook on every module": Plant(lambda: torch.nn.modules.module.register_module_forward_pre_hook(_hook)),
        "a replaced method": Plant(lambda: setattr(torch.Tensor, "backward", _hook)),
        "a thread left running": Plant(lambda: threading.Thread(target=threading.Event().wait, daemon=True).start()),
        "a fast path of Python's": Plant(lambda: torch.backends.mha.set_fastpath_enabled(False)),
        "warnings repeated": Plant(lambda: C._set_warnAlways(True)),
    }
    if isinstance(C._get_cublas_allow_fp16_reduced_precision_reduction(), tuple):
        put = C._set_cublas_allow_fp16_reduced_precision_reduction
        found["half of a pair"] = Plant(lambda: put(False, True), lambda: put(False, False))
    if HAS_CELLS:
        found |= {
            "a cell that says what its parent says": Plant(
                _cell("mkldnn", "conv", "ieee"), _cell("generic", "all", "ieee"), hidden=True
            ),
            "a parent that says what its own parent says": Plant(
                _cell("cuda", "all", "tf32"), _cell("generic", "all", "tf32"), hidden=True
            ),
            "the flag of cuDNN's TF32, behind cells that say otherwise": Plant(
                _hidden_flag, lambda: [_cell("cuda", op, "ieee")() for op in ("conv", "rnn")]
            ),
        }
    if _default_cells():
        found["torch's own default, overwritten with what it reads"] = Plant(_cell("cuda", "conv", "tf32"), hidden=True)
    return found


def _hidden_flag() -> None:
    C._set_cudnn_allow_tf32(False)
    for op in ("conv", "rnn"):
        C._set_fp32_precision_setter("cuda", op, "ieee")


def _refused_library() -> None:
    """On a build without MAGMA the setter raises, and has stored the value all the same (2.13)."""
    try:
        C._set_linalg_preferred_backend(C._LinalgBackend.Magma)
    except RuntimeError:
        return


def _replace_engine() -> None:
    module: Any = sys.modules["torch.autograd"]
    original = module._engine_run_backward
    module._engine_run_backward = lambda *args, **kwargs: original(*args, **kwargs)


def _exchange_code() -> None:
    function: Any = torch.nn.Module._wrapped_call_impl
    function.__code__ = function.__code__.replace(co_firstlineno=1)


def _filter_log() -> None:
    logging.getLogger("torch._dynamo.convert_frame").addFilter(logging.Filter())


def _life(witness: Witness, plant: Plant, leaks: bool) -> dict[str, Reading]:
    random.seed(1)
    plant.before()
    if leaks:
        plant.leak()
    found = witness.read()
    memory = {name: found.pop(name) for name in list(found) if name.startswith(("at::", "raw cell"))}
    return {"getters": found, "memory": memory, "probing": probe()}


def look(witness: Witness) -> dict[str, Any]:
    """What each of the witness's three ways of looking sees of every plant."""
    seen: dict[str, Any] = {}
    for name, plant in plants().items():
        without = in_child(partial(_life, witness, plant, leaks=False))
        with_leak = in_child(partial(_life, witness, plant, leaks=True))
        if without.crash or with_leak.crash:
            seen[name] = {"crash": without.crash or with_leak.crash}
            continue
        ways = {
            way: differences(without.value[way], with_leak.value[way])[:5] for way in ("getters", "memory", "probing")
        }
        seen[name] = {"hidden": plant.hidden, **ways}
    return seen


def catch(mutant: type[Block], kind: str, witness: Witness, cases: int = 60) -> str:
    """What the first case says that catches a mutant, or nothing."""
    subject = load(f"{mutant.__module__}:{mutant.__qualname__}")
    table = setters.table()
    for seed in range(1, cases + 1):
        case = make(seed, table)
        if mutant is Idle and any("seed" in layer.options for layer in case.layers):
            continue  # what is drawn in a block with a seed is put back, which one that does nothing does not
        verdict = judge(case, subject, witness, table)
        if found := getattr(verdict, kind):
            return f"case {seed}: {found[0]}"
    return ""


def main() -> None:
    """Print what the witness can read here, and what it sees of the plants and of the mutants."""
    warnings.simplefilter("ignore")
    witness = Witness.prepare()
    report: dict[str, Any] = {"plants": look(witness), "getters": witness.getters, "memory": witness.memory is not None}
    report["mutants"] = {mutant.__name__: catch(mutant, kind, witness) for mutant, kind in MUTANTS.items()}
    report["idle"] = catch(Idle, "complaints", witness)
    json.dump(report, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
