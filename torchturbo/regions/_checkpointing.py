"""Which modules a thread's region has computed again in backward, where they are called, without a trace in them.

The outermost module that is called is looked at once: its repeated blocks, and models of Hugging Face in it, which have
a switch of their own. While it runs, calls of these go through `torchturbo.regions._recompute`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torchturbo._dynamo import untraced
from torchturbo.hardware import detect
from torchturbo.regions import _blocks, _targets
from torchturbo.regions._asking import Asked, Asking
from torchturbo.regions._calls import Args, Kwargs, module_calls
from torchturbo.regions._others import has_any_global_hook, has_hooks, has_its_own, is_fx_tracing
from torchturbo.regions._recompute import recomputed
from torchturbo.regions._recompute import thread as recomputing
from torchturbo.regions._twice import cannot_be_given

_C: Any = torch._C
Wanted = Any
"""False, True, ``"auto"``, or classes of modules and names of such."""


class _Asked(Asked):
    """What a thread's region asks for, and what has come of it since it was opened.

    Attributes:
        wanted: what it asks for.
        outermost: whether a module runs, within which the others are.
        found: what is found in that module; None where nothing of it is to be computed again.
        blocks: modules that were computed again, by class, each once.
        kept: why others were not, by class.
        whole: what was decided about models as a whole, as sentences.
    """

    wanted: Wanted = False

    def __init__(self) -> None:
        super().__init__()
        self.outermost = False
        self.found: _blocks.Found | None = None

    def begin(self) -> None:
        """Forgets what has come of it."""
        self.blocks: dict[str, set[int]] = {}
        self.kept: dict[str, str] = {}
        self.whole: dict[str, str] = {}


@untraced
def _again(module: Any, args: Args, kwargs: Kwargs) -> Any:
    """Calls a module."""
    here = ASKING.thread.its
    if not here.wanted or recomputing.within:
        return module_calls.call(module, args, kwargs, False, False, False)
    if not here.outermost:
        return as_outermost(module, _Called(module), args, kwargs)
    if here.found is None or not _is_asked_for(here.wanted, here.found, module) or _is_left_alone():
        return module_calls.call(module, args, kwargs, False, False, False)
    return _block(here, module, _Called(module), args, kwargs)


class _Called:
    """Calls a module past what is done about it here."""

    __slots__ = ("_module",)

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    @untraced
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return module_calls.call(self._module, args, kwargs, False, False, False)


def _is_asked_for(wanted: Wanted, found: _blocks.Found, module: nn.Module) -> bool:
    if isinstance(wanted, tuple):
        return _blocks.is_one_of(module, wanted)
    reference = found.blocks.get(id(module))
    return reference is not None and reference() is module


@untraced
def _block(
    here: _Asked, block: nn.Module, call: Callable[..., Any], args: Args, kwargs: Kwargs, own: bool = True
) -> Any:
    """Calls a block, and has what it saves computed again if it can be.

    Args:
        here: this thread's state.
        block: the block.
        call: calls it.
        args: what it is called with.
        kwargs: what it is called with by name.
        own: whether hooks of its own are called by `call`.
    """
    name = type(block).__name__
    reason = _why_not(block, own) or cannot_be_given(args, kwargs)
    if reason is not None:
        here.kept[name] = reason
        return call(*args, **kwargs)
    here.blocks.setdefault(name, set()).add(id(block))
    return recomputed(block, call, args, kwargs, partial(_kept, here, block))


def _kept(here: _Asked, block: nn.Module, reason: str) -> None:
    name = type(block).__name__
    here.kept[name] = reason
    here.blocks[name].discard(id(block))


def _why_not(block: nn.Module, own: bool) -> str | None:
    if has_any_global_hook():
        return "a hook for all modules is registered, which would be called twice"
    for each in block.modules():
        if (own or each is not block) and has_hooks(each):
            return "it has hooks, which would be called twice"
        if each._compiled_call_impl is not None or has_its_own(each):
            return "it is compiled by the code's own torch.compile"
        if any(type(its) is Tensor for its in each._parameters.values()):
            return "it is called with other weights than its own (torch.func.functional_call)"
    return None


@untraced
def _theirs(model: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What models of Hugging Face call their layers by: mostly with a partial of a method, or of a function."""
    here, call = ASKING.thread.its, function
    if isinstance(function, partial):
        call, args, kwargs = function.func, (*function.args, *args), {**function.keywords, **kwargs}
    runs_hooks = getattr(call, "__name__", "") != "forward"
    block = getattr(call, "__self__", None)
    if not isinstance(block, nn.Module) and args and isinstance(args[0], nn.Module):
        block, call, args = args[0], partial(call, args[0]), args[1:]
    if not here.wanted or recomputing.within or _is_left_alone():
        return call(*args, **kwargs)
    if isinstance(here.wanted, tuple) and not (isinstance(block, nn.Module) and _blocks.is_one_of(block, here.wanted)):
        return call(*args, **kwargs)
    here.whole[model] = f"{model} does so by the switch of its own"
    if not isinstance(block, nn.Module):
        return checkpoint(call, *args, use_reentrant=False, **kwargs)
    return _block(here, block, call, args, kwargs, own=runs_hooks)


@untraced
def as_outermost(module: nn.Module, call: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Calls a module within which this thread's region has blocks computed again, if it asks for that.

    Args:
        module: the module.
        call: calls it, or its forward.
        args: what it is called with.
        kwargs: what it is called with by name.
    """
    here = ASKING.thread.its
    if not here.wanted or here.outermost or recomputing.within or _is_left_alone():
        return call(*args, **kwargs)
    here.outermost = True
    try:
        if not _is_wanted_for(here, module):
            return call(*args, **kwargs)
        here.found = found = _blocks.found_in(module)
        with ExitStack() as stack:
            for reference in found.switches:
                model: Any = reference()
                name = type(model).__name__
                if _blocks.is_switched_on(model):
                    here.whole[name] = f"{name} had the switch of its own on already"
                elif not model.training:
                    here.whole[name] = f"{name} is evaluated, where the switch of its own does nothing"
                else:
                    stack.enter_context(_blocks.switched_on(model, partial(_theirs, name)))
            if _is_asked_for(here.wanted, found, module):
                return _block(here, module, call, args, kwargs)
            return call(*args, **kwargs)
    finally:
        here.outermost, here.found = False, None


def _is_wanted_for(here: _Asked, module: nn.Module) -> bool:
    """Whether it is worth while for a model, where that is to be decided here; that is told."""
    if here.wanted != "auto":
        return True
    name = type(module).__name__
    weights = [each for each in module.parameters() if each.device.type != "meta"]
    devices = {each.device for each in weights if each.device.type == "cuda"}
    gpus = detect().gpus
    room = min(
        (gpus[device.index or 0].memory or 0 for device in devices if (device.index or 0) < len(gpus)), default=0
    )
    if not room:
        if weights:
            here.whole[name] = f"{name} is left as it is: auto is for GPUs, and tells by their memory"
        return False
    taken = sum(each.nbytes * (4 if each.requires_grad else 1) for each in weights if each.device.type == "cuda")
    share = taken / (room * len(devices))
    short = share > 0.5
    here.whole[name] = f"auto: weights, gradients and two moments of {name} take {share:.0%} of the GPU's memory, " + (
        "more than half: activations are computed again" if short else "half or less: activations are kept"
    )
    return short


def _is_left_alone() -> bool:
    """Whether nothing is saved for a backward, or somebody else is at work on what this thread calls."""
    return (
        not torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or _C._dynamo.eval_frame.get_eval_frame_callback() is not None
        # What is compiled has a budget instead.
        or _targets.here.asked.options is not None
        or _C._current_graph_task_id() != -1
        or _C._functorch.peek_interpreter_stack() is not None
        or _C._get_tracing_state() is not None
        or _C._get_dispatch_mode(_C._TorchDispatchModeKey.PROXY) is not None
        or _C._get_dispatch_mode(_C._TorchDispatchModeKey.FUNCTIONAL) is not None
        or torch.autograd.forward_ad._current_level >= 0
        or is_fx_tracing()
        or _is_in_a_checkpoint()
    )


def _is_in_a_checkpoint() -> bool:
    """Whether a checkpoint of somebody else's is open, which computes all of this again itself."""
    hooks = _C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None and getattr(hooks[0], "__module__", None) == "torch.utils.checkpoint"


def budget() -> float | None:
    """What part of its activations compiled code may keep in this thread's region; None for all of them."""
    return BUDGET if ASKING.thread.its.wanted not in (False, "auto") else None


BUDGET = 0.3
"""Of what compiled code would keep: about what is left where each of a dozen blocks keeps its input alone."""


def told() -> str | None:
    """What has come of it in this thread's block so far, in words, or None."""
    here = ASKING.thread.its
    if not here.wanted:
        return None
    if _targets.here.asked.options is not None:
        return None if budget() is None else f"compiled code may keep {BUDGET:.0%} of its activations"
    counts = Counter({name: len(its) for name, its in here.blocks.items() if its})
    computed = [f"{count} x {name} computed again in backward" for name, count in counts.items()]
    kept = [f"{name} is kept: {reason}" for name, reason in here.kept.items()]
    named = isinstance(here.wanted, tuple)
    names = [each.__name__ if isinstance(each, type) else each for each in here.wanted] if named else []
    of_what = f"module of the class {' or '.join(names)}" if named else "repeated block"
    return "; ".join([*computed, *here.whole.values(), *kept]) or f"no {of_what} has been called in this thread yet"


def _place(needed: bool) -> None:
    module_calls.put("again", _again if needed else None)


# In a forked child modules compute on data, if anything: nobody needs gradients there.
ASKING = Asking(_Asked, _place, in_children=False)
ASKED = ASKING.cell("a region's checkpoints")
"""What a thread's region has computed again."""
