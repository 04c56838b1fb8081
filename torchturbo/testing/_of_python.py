"""What torch keeps in Python. Nothing is imported to be looked at."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.overrides import _pop_mode
from torch.utils import _device

from torchturbo.testing._of_torch import _by_with, _pop_modes, _shown_modes, _stack
from torchturbo.testing._thing import Raw, Thing, said

_C: Any = torch._C


def of_python() -> Iterator[Thing]:
    """The default device before the stack of modes that it stands on."""
    yield Thing(
        "default_device",
        "torch.set_default_device",
        _default_device,
        _set_default_device,
        _shown_device,
        advice=said("with torch.device(...): puts it back"),
    )
    yield Thing(
        "function_modes", "torch.overrides.TorchFunctionMode", _modes, _leave_modes, _shown_all_modes, advice=_by_with
    )
    yield Thing("printoptions", "torch.set_printoptions", _print_options, _set_print_options)
    for name, words, module in (
        ("module_hooks", "torch.nn.modules.module.register_module_*_hook", "torch.nn.modules.module"),
        ("optimizer_hooks", "torch.optim.optimizer.register_optimizer_step_*_hook", "torch.optim.optimizer"),
    ):
        yield Thing(
            name,
            words,
            partial(_hooks, module),
            partial(_set_hooks, module),
            _named,
            advice=said("keep the handle that registering it returns, and call its remove()"),
        )
    yield from _attributes()


# ------------------------------------------------------------------------------------- the default device, and modes


def _default_device() -> Raw:
    context: Any = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else context.device


def _set_default_device(was: Raw, now: Raw) -> None:
    torch.set_default_device(was)
    if was is None:
        # As torch starts; torch 2.8 cannot say the default device of a context that is there and None.
        vars(torch._GLOBAL_DEVICE_CONTEXT).pop("device_context", None)


def _shown_device(raw: Raw) -> str:
    return "not set" if raw is None else repr(str(raw))


def _modes() -> Raw:
    return _device.CURRENT_DEVICE, _stack(_C._len_torch_function_stack, _C._get_function_stack_at)


def _leave_modes(was: Raw, now: Raw) -> None:
    _pop_modes(_pop_mode, was[1], now[1])
    _device.CURRENT_DEVICE = was[0]


def _shown_all_modes(raw: Raw) -> str:
    return _shown_modes(raw[1]) + (f", {raw[0]} in force" if raw[0] is not None else "")


# ---------------------------------------------------------------------------------------------------- plain globals

_KEPT_IN = (
    ("fastpath", "torch.backends.mha.set_fastpath_enabled", "torch.backends.mha", "_is_fastpath_enabled"),
    ("sharing_strategy", "torch.multiprocessing.set_sharing_strategy", "torch.multiprocessing", "_sharing_strategy"),
    ("hub_dir", "torch.hub.set_dir", "torch.hub", "_hub_dir"),
    *(
        (name, f"torch.__future__.set_{name}", "torch.__future__", f"_{name}")
        for name in ("overwrite_module_params_on_conversion", "swap_module_params_on_conversion")
    ),
)
"""What it is called, what sets it, and the module and the name that it stands under."""


def _attributes() -> Iterator[Thing]:
    for name, words, where, attribute in _KEPT_IN:
        module = sys.modules.get(where)
        if hasattr(module, attribute):
            yield Thing(name, words, partial(getattr, module, attribute), partial(_set_attribute, module, attribute))
    yield Thing(
        "validate_args",
        "torch.distributions.Distribution.set_default_validate_args",
        _validate_args,
        lambda was, now: torch.distributions.Distribution.set_default_validate_args(was[0]),
        lambda raw: repr(raw[0]),
        _same_validate_args,
    )
    yield Thing("flags_frozen", "torch.backends.disable_global_flags", torch.backends.flags_frozen, _set_frozen)
    yield Thing(
        "stance",
        "torch.compiler.set_stance",
        _stance,
        _set_stance,
        advice=said("with torch.compiler.set_stance(...): puts it back"),
    )


def _set_attribute(module: object, name: str, was: Raw, now: Raw) -> None:
    setattr(module, name, was)


def _validate_args() -> tuple[bool, bool]:
    """Whether distributions validate, and whether the compiler is in use, which switches that off for good."""
    patcher = getattr(sys.modules.get("torch._dynamo.eval_frame"), "TorchPatcher", None)
    patched = getattr(getattr(patcher, "patch", None), "cache_info", None)
    return torch.distributions.Distribution._validate_args, patched is not None and patched().currsize > 0


def _same_validate_args(was: tuple[bool, bool], now: tuple[bool, bool]) -> bool:
    return was[0] == now[0] or (now == (False, True) and not was[1])


def _set_frozen(was: bool, now: bool) -> None:
    # From torch 2.9 on, torch.backends stands before the module that has it.
    owner: Any = vars(torch.backends).get("m", torch.backends)
    vars(owner)["__allow_nonbracketed_mutation_flag"] = not was


def _stance() -> Raw:
    loaded = sys.modules.get("torch._dynamo.eval_frame")
    stance = getattr(loaded, "_stance", None)
    # What it starts with is learned when it is there: before that nobody can have set it.
    return "default" if stance is None or stance == type(stance)() else stance


def _set_stance(was: Raw, now: Raw) -> None:
    eval_frame: Any = sys.modules["torch._dynamo.eval_frame"]
    eval_frame._stance = type(now)() if was == "default" else was


def _print_options() -> dict[str, Raw]:
    return dict(vars(torch._tensor_str.PRINT_OPTS))


def _set_print_options(was: dict[str, Raw], now: Raw) -> None:
    for name, value in was.items():
        setattr(torch._tensor_str.PRINT_OPTS, name, value)


# ------------------------------------------------------------------------------------------------------------ hooks


def _dicts_of_hooks(module: str) -> dict[str, dict[Any, Any]]:
    """The dictionaries of hooks of every module or optimizer, by the names that they stand under."""
    loaded = vars(sys.modules[module]) if module in sys.modules else {}
    return {name: value for name, value in loaded.items() if name.startswith("_global_") and isinstance(value, dict)}


def _hooks(module: str) -> dict[str, Raw]:
    return {name: tuple(hooks.items()) for name, hooks in _dicts_of_hooks(module).items() if hooks}


def _set_hooks(module: str, was: dict[str, Raw], now: Raw) -> None:
    for name, hooks in _dicts_of_hooks(module).items():
        hooks.clear()
        hooks.update(was.get(name, ()))


def _named(raw: dict[str, Raw]) -> str:
    names = [getattr(hook, "__qualname__", repr(hook)) for items in raw.values() for _, hook in items]
    return ", ".join(dict.fromkeys(names)) or "none"
