"""The vocabulary of histories: torch's own setters, public and raw, old and new, with the values they take.

A history is a list of (name, arguments) in plain data, so that a case can be printed and played again. A setter that
this version or build lacks is not in the table; one that raises is played all the same, because some store first.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

C = torch._C
BOOL = ((False,), (True,))
PRECISION = (("none",), ("ieee",), ("tf32",), ("bf16",))
MATMUL = (("highest",), ("high",), ("medium",))


@dataclass(frozen=True)
class Setter:
    """One way to change torch's state. ``owned``: a turbo block may set the same thing too."""

    name: str
    call: Callable[..., Any]
    values: tuple[tuple[Any, ...], ...]
    thread: bool = False  # changes the calling thread only
    owned: bool = True
    loads_compiler: bool = False  # imports dynamo and inductor when nothing has yet: seconds
    weight: int = 1


def assign(path: str) -> Callable[[Any], None]:
    """A function that assigns to a public attribute, as a user writes it."""
    owner, _, attribute = path.rpartition(".")

    def write(value: Any) -> None:
        target: Any = torch
        for part in owner.split(".")[1:]:
            target = getattr(target, part)
        setattr(target, attribute, value)

    return write


def keep_open(make: Callable[[Any], AbstractContextManager[Any]]) -> Callable[[Any], None]:
    """A function that enters one of torch's own contexts and never leaves it: the caller's world is inside it."""

    def enter(value: Any) -> None:
        context = make(value)
        context.__enter__()
        _OPEN.append(context)

    return enter


def open_and_close(make: Callable[[Any], AbstractContextManager[Any]]) -> Callable[[Any], None]:
    """A function that passes through one of torch's own contexts, which do not all put back what they found."""

    def through(value: Any) -> None:
        with make(value):
            pass

    return through


_OPEN: list[AbstractContextManager[Any]] = []


def _fp32() -> Iterator[Setter]:
    yield Setter("torch.set_float32_matmul_precision", torch.set_float32_matmul_precision, MATMUL, weight=4)
    yield Setter("torch._C._set_float32_matmul_precision", C._set_float32_matmul_precision, MATMUL, weight=2)
    yield Setter(
        "torch.backends.cuda.matmul.allow_tf32", assign("torch.backends.cuda.matmul.allow_tf32"), BOOL, weight=4
    )
    yield Setter("torch.backends.cudnn.allow_tf32", assign("torch.backends.cudnn.allow_tf32"), BOOL, weight=4)
    yield Setter("torch._C._set_cudnn_allow_tf32", C._set_cudnn_allow_tf32, BOOL, weight=2)
    cudnn_flags = open_and_close(lambda on: torch.backends.cudnn.flags(enabled=on))
    yield Setter("with torch.backends.cudnn.flags", cudnn_flags, BOOL)
    yield Setter(
        "with torch.backends.mkldnn.flags", open_and_close(lambda on: torch.backends.mkldnn.flags(enabled=on)), BOOL
    )
    if not hasattr(C, "_set_fp32_precision_setter"):
        return
    for path in (
        "backends",
        "backends.cudnn",
        "backends.mkldnn",
        "backends.cuda.matmul",
        "backends.cudnn.conv",
        "backends.cudnn.rnn",
        "backends.mkldnn.matmul",
        "backends.mkldnn.conv",
        "backends.mkldnn.rnn",
    ):
        yield Setter(f"torch.{path}.fp32_precision", assign(f"torch.{path}.fp32_precision"), PRECISION, weight=2)
    cells = [("generic", "all")] + [(b, op) for b in ("cuda", "mkldnn") for op in ("all", "matmul", "conv", "rnn")]
    every = tuple((backend, op, value) for backend, op in cells for (value,) in (*PRECISION, ("bfx9",)))
    yield Setter("torch._C._set_fp32_precision_setter", C._set_fp32_precision_setter, every, weight=10)


def _flags() -> Iterator[Setter]:
    for name in ("enabled", "benchmark", "deterministic"):
        yield Setter(f"torch.backends.cudnn.{name}", assign(f"torch.backends.cudnn.{name}"), BOOL)
        yield Setter(f"torch._C._set_cudnn_{name}", getattr(C, f"_set_cudnn_{name}"), BOOL)
    for name in ("enabled", "deterministic"):
        yield Setter(f"torch.backends.mkldnn.{name}", assign(f"torch.backends.mkldnn.{name}"), BOOL)
        yield Setter(f"torch._C._set_mkldnn_{name}", getattr(C, f"_set_mkldnn_{name}"), BOOL)
    limits = ((0,), (3,), (10,), (100,))
    yield Setter("torch.backends.cudnn.benchmark_limit", assign("torch.backends.cudnn.benchmark_limit"), limits)
    for name, values, owned in (
        ("_cuda_set_cudnn_benchmark_limit", limits, True),
        ("_set_cudnn_depthwise_kernel", (("auto",), ("cudnn",), ("native",)), False),
        ("_set_miopen_immediate", BOOL, False),
        ("_set_nnpack_enabled", BOOL, False),
        ("_set_cublas_allow_fp16_accumulation", BOOL, True),
        ("_set_cublaslt_prefer_grouped_gemm", BOOL, False),
        ("_set_cpu_allow_fp16_reduced_precision_reduction", BOOL, True),
        ("_set_sm_carveout_experimental", ((None,), (1,), (8,)), False),
        ("_set_warnAlways", BOOL, False),
        ("_set_autograd_fallback_mode", (("nothing",), ("warn",)), False),
        ("_set_qengine", tuple((engine,) for engine in C._supported_qengines()), False),
        ("_set_backcompat_broadcast_warn", BOOL, False),
        ("_set_native_aot_enabled", BOOL, False),
    ):
        if hasattr(C, name):
            yield Setter(f"torch._C.{name}", getattr(C, name), values, owned=owned)
    for kind in ("fp16", "bf16"):
        name = f"_set_cublas_allow_{kind}_reduced_precision_reduction"
        pairs = ((True, True), (True, False), (False, True), (False, False))  # (True, False) is refused by torch
        takes_pair = isinstance(getattr(C, name.replace("_set_", "_get_"))(), tuple)
        yield Setter(f"torch._C.{name}", getattr(C, name), pairs if takes_pair else BOOL, weight=2)
        path = f"torch.backends.cuda.matmul.allow_{kind}_reduced_precision_reduction"
        yield Setter(path, assign(path), BOOL)
    for name in ("cusolver", "magma", "default"):
        yield Setter(f"torch.backends.cuda.preferred_linalg_library({name})", _linalg, ((name,),))
    for name in ("cublas", "cublaslt"):
        yield Setter(f"torch.backends.cuda.preferred_blas_library({name})", _blas, ((name,),))


def _linalg(name: str) -> None:
    torch.backends.cuda.preferred_linalg_library(name)


def _blas(name: str) -> None:
    torch.backends.cuda.preferred_blas_library(name)


def _attention() -> Iterator[Setter]:
    for kind in ("flash", "mem_efficient", "math", "cudnn"):
        yield Setter(f"torch.backends.cuda.enable_{kind}_sdp", getattr(torch.backends.cuda, f"enable_{kind}_sdp"), BOOL)
    for raw in (
        "_set_sdp_use_overrideable",
        "_set_sdp_use_fa3",
        "_set_sdp_use_fa4",
        "_set_math_sdp_allow_fp16_bf16_reduction",
    ):
        if hasattr(C, raw):
            yield Setter(f"torch._C.{raw}", getattr(C, raw), BOOL, owned=False)
    orders = (([1, 2, 0, 3, 4],), ([0, 1, 2, 3, 4],), ([4, 3, 2, 1, 0],))
    yield Setter("torch._C._set_sdp_priority_order", C._set_sdp_priority_order, orders, owned=False)
    attention = import_module("torch.nn.attention")
    math_only = keep_open(lambda priority: attention.sdpa_kernel([attention.SDPBackend.MATH], set_priority=priority))
    yield Setter("with sdpa_kernel(MATH), open", math_only, BOOL)
    yield Setter("torch.backends.mha.set_fastpath_enabled", torch.backends.mha.set_fastpath_enabled, BOOL, owned=False)


def _determinism() -> Iterator[Setter]:
    def raw(mode: bool, warn_only: bool) -> None:
        C._set_deterministic_algorithms(mode, warn_only=warn_only)

    pairs = tuple((mode, warn_only) for mode in (False, True) for warn_only in (False, True))
    yield Setter("torch._C._set_deterministic_algorithms", raw, pairs, weight=3)
    yield Setter("torch.set_deterministic_debug_mode", torch.set_deterministic_debug_mode, ((0,), (1,), (2,)))
    use = torch.use_deterministic_algorithms
    yield Setter("torch.use_deterministic_algorithms", use, BOOL, loads_compiler=True, weight=2)
    yield Setter(
        "torch._C._set_deterministic_fill_uninitialized_memory",
        C._set_deterministic_fill_uninitialized_memory,
        BOOL,
        weight=2,
    )
    yield Setter("torch.autograd.set_anomaly", lambda on, nan: torch.set_anomaly_enabled(on, nan), pairs, weight=2)
    for name in ("float32", "float64", "bfloat16", "float16"):
        yield Setter("torch.set_default_dtype", lambda kind: torch.set_default_dtype(getattr(torch, kind)), ((name,),))
    yield Setter("torch.manual_seed", torch.manual_seed, ((0,), (7,)))
    yield Setter("random.seed", random.seed, ((0,), (7,)))


def _python() -> Iterator[Setter]:
    for name, values in (
        ("CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8", None)),
        ("NVIDIA_TF32_OVERRIDE", ("0", "1", None)),
        ("OMP_NUM_THREADS", ("1", None)),
    ):
        owned = name == "CUBLAS_WORKSPACE_CONFIG"
        yield Setter("os.environ", _environment, tuple((name, value) for value in values), owned=owned)
    kinds = (("ignore",), ("default",), ("error",))
    yield Setter("warnings.simplefilter", lambda action: warnings.simplefilter(action), kinds, owned=False)
    if hasattr(torch.backends, "disable_global_flags"):
        yield Setter("torch.backends.disable_global_flags", torch.backends.disable_global_flags, ((),), owned=False)
    if "torch._inductor.config" in sys.modules:
        config = sys.modules["torch._inductor.config"]
        if hasattr(config, "deterministic"):
            yield Setter(
                "torch._inductor.config.deterministic", lambda on: setattr(config, "deterministic", on), BOOL, weight=3
            )


def _environment(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _threads() -> Iterator[Setter]:
    grad = ("_set_fwd_grad_enabled", "_set_view_replay_enabled", "_set_multithreading_enabled")
    for name in (*grad, "_set_grad_layout_enforcement_enabled"):
        if hasattr(C, name):
            yield Setter(f"torch._C.{name}", getattr(C, name), BOOL, thread=True, owned=False)
    yield Setter("torch.set_grad_enabled", lambda on: C._set_grad_enabled(on), BOOL, thread=True, weight=3)
    for device in ("cpu", "cuda", "mps", "xpu"):
        every = tuple((device, on) for on in (False, True))
        dtypes = tuple((device, name) for name in ("bfloat16", "float16"))
        yield Setter("torch.set_autocast_enabled", torch.set_autocast_enabled, every, thread=True, weight=2)
        yield Setter("torch.set_autocast_dtype", _autocast_dtype, dtypes, thread=True, weight=2)
    yield Setter("torch.set_autocast_cache_enabled", torch.set_autocast_cache_enabled, BOOL, thread=True, weight=2)
    bf16 = keep_open(lambda on: torch.autocast("cpu", dtype=torch.bfloat16, enabled=on, cache_enabled=on))
    yield Setter("with torch.autocast(cpu), open", bf16, BOOL, thread=True)
    yield Setter("with torch.no_grad, open", keep_open(lambda _: torch.no_grad()), ((None,),), thread=True)
    yield Setter("with torch.inference_mode, open", keep_open(torch.inference_mode), BOOL, thread=True)
    yield Setter("torch.set_num_threads", torch.set_num_threads, ((1,), (2,), (3,)), thread=True, weight=8)
    yield Setter("torch.set_flush_denormal", torch.set_flush_denormal, BOOL, thread=True, owned=False)
    yield Setter("torch.set_default_device", torch.set_default_device, ((None,), ("cpu",)), thread=True, owned=False)


def _autocast_dtype(device: str, name: str) -> None:
    torch.set_autocast_dtype(device, getattr(torch, name))


Table = dict[str, tuple[Setter, ...]]


def table() -> Table:
    """Every setter of this version and build by name; a name has several entries where it takes unlike values."""
    found: Table = {}
    for area in (_fp32, _flags, _attention, _determinism, _python, _threads):
        for setter in area():
            found[setter.name] = (*found.get(setter.name, ()), setter)
    return found


def play(setters: Table, name: str, arguments: tuple[Any, ...]) -> str:
    """Call one setter; what it raised is part of history, and is said."""
    try:
        setters[name][0].call(*arguments)
    except Exception as error:
        return f"raised {type(error).__name__}"
    return "done"
