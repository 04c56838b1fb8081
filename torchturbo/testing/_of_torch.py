"""What torch keeps in C++ beyond the options: getters of ``torch._C`` that have a setter of the same name, and modes.

Found by looking, so that a flag of a torch that is newer than this is watched as well.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from torchturbo._catalogue import CELLS
from torchturbo.testing._thing import Raw, Thing

_C: Any = torch._C

_PAIRS = (
    (re.compile(r"_(jit_)?get_(\w+)"), r"_\1set_\2"),
    (re.compile(r"_get_(\w+)_sdp_enabled"), r"_set_sdp_use_\1"),
    (re.compile(r"_is_(\w+_enabled)"), r"_set_\1"),
    (re.compile(r"_cuda_get_(cudnn_benchmark_limit|sync_debug_mode)"), r"_cuda_set_\1"),
)
"""From a getter's name to its setter's."""

NOT_BY_NAME = {
    "_get_cublas_allow_tf32": "matmul_precision holds it",
    "_get_cudnn_allow_tf32": "cudnn_precision holds it",
    "_get_float32_matmul_precision": "matmul_precision holds it",
    "_get_cublas_allow_fp16_reduced_precision_reduction": "fp16_reduction holds it",
    "_get_cublas_allow_bf16_reduced_precision_reduction": "bf16_reduction holds it",
    "_get_blas_preferred_backend": "blas_library holds it",
    "_get_linalg_preferred_backend": "linalg_library holds it",
    "_get_deterministic_algorithms": "deterministic holds it",
    "_get_onednn_allow_tf32": "only builds for XPU can write it; others warn",
    "_get_tracing_state": "what is traced is no setting",
    "_get_value_trace": "what is traced is no setting",
    "_get_graph_exec_group": "about the call in progress",
    "_get_thread_name": "about the operating system's thread",
    "_jit_get_emit_hooks": "torch's own tests set it",
}
"""Getters that are not watched by themselves, and why."""

_PUBLIC = {
    "_get_warnAlways": "torch.set_warn_always",
    "_get_qengine": "torch.backends.quantized.engine",
    "_get_sdp_priority_order": "torch.nn.attention.sdpa_kernel(set_priority=True)",
    "_get_nnpack_enabled": "torch.backends.nnpack.set_flags",
    "_get_cudnn_depthwise_kernel": "torch.backends.cudnn.depthwise_kernel",
    "_get_miopen_immediate": "torch.backends.miopen.immediate",
    "_get_math_sdp_allow_fp16_bf16_reduction": "torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp",
    "_is_multithreading_enabled": "torch.autograd.set_multithreading_enabled",
    "_is_view_replay_enabled": "torch.autograd._force_original_view_tracking",
    "_is_fwd_grad_enabled": "torch.autograd.forward_ad._set_fwd_grad_enabled",
    "_cuda_get_sync_debug_mode": "torch.cuda.set_sync_debug_mode",
    "_cuda_get_cudnn_benchmark_limit": "torch.backends.cudnn.benchmark_limit",
}


_NAMES = {"warnAlways": "warn_always"}


def of_torch() -> Iterator[Thing]:
    """Every pair of a getter and a setter, and the modes of this thread."""
    for getter, setter in pairs().items():
        put = getattr(_C, setter)
        name = re.sub(r"^_(?:jit_|cuda_)?(?:get|is)_|_enabled$", "", getter)
        name = _NAMES.get(name, f"jit_{name}" if "_jit_" in getter else name)
        yield Thing(name, _PUBLIC.get(getter, f"torch._C.{setter}"), getattr(_C, getter), partial(_write, put))
    yield from _modes()
    yield from _autocast()


def pairs() -> dict[str, str]:
    """The names of getters that are watched, each with its setter's."""
    owned = {cell.name for cell in CELLS} | NOT_BY_NAME.keys()
    found = {}
    for name in dir(_C):
        for getter, setter in _PAIRS:
            put = getter.sub(setter, name) if getter.fullmatch(name) else name
            if put != name and name not in owned and hasattr(_C, put) and _answers(getattr(_C, name)):
                found[name] = put
    return found


def _answers(getter: Callable[[], Raw]) -> bool:
    """Whether it can be asked without an argument, and says nothing else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            getter()
    except Exception:
        return False
    return True


def _write(put: Callable[..., object], was: Raw, now: Raw) -> None:
    put(was)


# --------------------------------------------------------------------------------------------------------- modes

_OVER_INFERENCE_MODE: list[object] = []
"""Guards that switch a leaked inference mode off for as long as they live, which is for good."""


def _write_inference_mode(was: bool, now: bool) -> None:
    guard = _C._InferenceMode(was)
    guard.__enter__()
    _OVER_INFERENCE_MODE.append(guard)


def inference() -> Iterator[Thing]:
    """Inference mode, which takes grad mode and its like with it."""
    yield Thing(
        "inference_mode",
        "torch.inference_mode",
        torch.is_inference_mode_enabled,
        _write_inference_mode,
        advice=_by_with,
    )


def _modes() -> Iterator[Thing]:
    yield Thing(
        "sparse_invariants",
        "torch.sparse.check_sparse_tensor_invariants",
        _C._check_sparse_tensor_invariants,
        partial(_write, _C._set_check_sparse_tensor_invariants),
    )
    yield Thing(
        "saved_tensors_hooks",
        "torch.autograd.graph.saved_tensors_hooks",
        partial(_C._autograd._top_saved_tensors_default_hooks, False),
        _pop_saved_tensors_hooks,
        advice=_by_with,
    )
    yield Thing("flush_denormal", "torch.set_flush_denormal", _flushes, partial(_write, torch.set_flush_denormal))
    yield Thing("interop_threads", "torch.set_num_interop_threads", torch.get_num_interop_threads, None)
    yield Thing("cuda_device", "torch.cuda.set_device", _device, partial(_write, torch.cuda.set_device))
    yield Thing(
        "dispatch_modes",
        "torch.utils._python_dispatch.TorchDispatchMode",
        partial(_stack, _C._len_torch_dispatch_stack, _C._get_dispatch_stack_at),
        partial(_pop_modes, _C._pop_torch_dispatch_stack),
        _shown_modes,
        advice=_by_with,
    )


def _by_with(was: Raw, now: Raw) -> str:
    return "enter it by `with`, or by an ExitStack that is closed"


def _flushes() -> bool:
    # torch has no getter; a denormal number tells. Both factors are variables, or Python would multiply by itself.
    smallest, two = float.fromhex("0x1p-1022"), 2.0
    return smallest / two == 0.0


def _device() -> int:
    cuda: Any = torch.cuda
    return int(cuda.current_device()) if cuda.is_initialized() else 0


def _pop_saved_tensors_hooks(was: Raw, now: Raw) -> None:
    while now is not None and now != was:
        _C._autograd._pop_saved_tensors_default_hooks()
        now = _C._autograd._top_saved_tensors_default_hooks(False)


def _stack(length: Callable[[], int], at: Callable[[int], object]) -> tuple[object, ...]:
    return tuple(map(at, range(length())))


def _pop_modes(pop: Callable[[], object], was: tuple[object, ...], now: tuple[object, ...]) -> None:
    for _ in now[len(was) :]:
        pop()


def _shown_modes(modes: tuple[object, ...]) -> str:
    return ", ".join(type(mode).__name__ for mode in modes) or "none"


# ------------------------------------------------------------------------------------------------------ autocast

_OTHER_DEVICES = ("xpu", "hpu", "xla", "ipu", "mtia")


def _autocast() -> Iterator[Thing]:
    yield Thing(
        "autocast_cache",
        "torch.set_autocast_cache_enabled",
        torch.is_autocast_cache_enabled,
        partial(_write, torch.set_autocast_cache_enabled),
    )
    yield Thing(
        "autocast_nesting", "torch.autocast.__enter__", _nesting, _leave_autocast, _shown_nesting, advice=_by_with
    )
    for device in _OTHER_DEVICES:
        try:
            torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        except RuntimeError:
            continue  # this torch does not know it
        yield Thing("autocast", f"torch.autocast({device!r})", partial(_on, device), partial(_put, device), _shown_on)


def _on(device: str) -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)


def _shown_on(raw: Raw) -> str:
    return f"{'on' if raw[0] else 'off'} ({raw[1]})"


def _put(device: str, was: tuple[bool, torch.dtype], now: Raw) -> None:
    torch.set_autocast_enabled(device, was[0])
    torch.set_autocast_dtype(device, was[1])


def _nesting() -> int:
    depth = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return depth


def _leave_autocast(was: int, now: int) -> None:
    for _ in range(now - was):
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
    for _ in range(was - now):
        torch.autocast_increment_nesting()


def _shown_nesting(depth: int) -> str:
    return f"{depth} open"
