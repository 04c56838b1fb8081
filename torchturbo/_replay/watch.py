"""Watching a run: what modules, backward and optimizers touch is kept before, and recorded after."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from torchturbo._dynamo import untraced
from torchturbo._replay.float64 import Float64
from torchturbo._replay.kept import Keeper
from torchturbo._replay.record import Recorder
from torchturbo._replay.search import Search
from torchturbo._replay.values import leaves
from torchturbo.regions._calls import module_calls
from torchturbo.regions._leaves import Graph, as_leaves
from torchturbo.regions._others import is_fx_tracing
from torchturbo.regions._steps import hear_no_steps, hear_steps

_ENGINE = "_engine_run_backward"


def is_being_traced() -> bool:
    """Whether what runs is no real computation: a compiler, a tracer or a transform looks at it."""
    return (
        torch.compiler.is_compiling()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
        or any(not isinstance(mode, Float64) for mode in _modes())
        or is_fx_tracing()
    )


def _modes() -> list[Any]:
    return _get_current_dispatch_mode_stack() if torch._C._len_torch_dispatch_stack() else []


class Watch:
    """What is done around each module call, backward and optimizer step of the thread that runs the function.

    Args:
        keeper: keeps what they touch.
        search: knows what it is called.
        recorder: writes down what they make.
    """

    def __init__(self, keeper: Keeper, search: Search, recorder: Recorder) -> None:
        self._keeper = keeper
        self._search = search
        self._recorder = recorder
        self._thread = threading.get_ident()
        self._calls: Counter[str] = Counter()
        self._depth = 0
        self._begun: set[int] = set()
        self._tensors = {key: kept.tensor for key, kept in keeper.tensors.items() if key in search.from_the_start}
        self._optimizers = {key: its for key, its in search.optimizers.items() if key in search.from_the_start}
        self._alike: Counter[type] = Counter()

    # ------------------------------------------------------------------------------------------------------ modules

    @untraced
    def call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a module."""
        if threading.get_ident() != self._thread or is_being_traced():
            return module_calls.call(module, args, kwargs, False)
        outermost = self._depth == 0
        self._find(module)
        if outermost:
            self._begin(module)
        name = self._search.name(module) or type(module).__name__
        self._calls[name] += 1
        call = self._calls[name]
        if outermost:
            self._recorder.look_at_streams()
            self._recorder.add("input", name, (*args, kwargs) if kwargs else args, call)
        self._depth += 1
        try:
            result = module_calls.call(module, args, kwargs, False)
        finally:
            self._depth -= 1
        self._recorder.add("output", name, result, call)
        return result

    @untraced
    def _begin(self, module: nn.Module) -> None:
        """Records what a module's weights are when it is first called."""
        if id(module) in self._begun:
            return
        self._begun.add(id(module))
        for tensor in (*module.parameters(), *module.buffers()):
            if id(tensor) not in self._begun:
                self._begun.add(id(tensor))
                self._tensors[id(tensor)] = tensor
                self._recorder.add("start", self._search.name(tensor), tensor)

    @untraced
    def _find(self, value: Any) -> None:
        """Keeps what nobody has found before, under a name that it has in every run, also where each makes its own."""
        if value not in self._search:
            self._alike[type(value)] += 1
            number = self._alike[type(value)]
            self._search.of(type(value).__name__ + (f"#{number}" if number > 1 else ""), value)

    # ----------------------------------------------------------------------------------------------------- backward

    @untraced
    def before_backward(self, outputs: Any, inputs: Any) -> None:
        """Keeps the leaves that a backward is going to write gradients into."""
        if threading.get_ident() != self._thread or is_being_traced():
            return
        for leaf in as_leaves(inputs) if inputs else Graph(outputs).leaves.values():
            self._keeper.tensor(leaf)
            self._tensors.setdefault(id(leaf), leaf)

    # ---------------------------------------------------------------------------------------------------- optimizers

    @untraced
    def meet(self, optimizer: Optimizer) -> None:
        """Keeps an optimizer that nobody has found before."""
        if id(optimizer) in self._begun or threading.get_ident() != self._thread:
            return
        self._begun.add(id(optimizer))
        self._find(optimizer)
        self._optimizers[id(optimizer)] = self._search.optimizers.get(
            id(optimizer), (type(optimizer).__name__, optimizer)
        )
        self._tensors.update((id(parameter), parameter) for parameter in _parameters(optimizer))

    @untraced
    def before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Records the gradients of a step."""
        if threading.get_ident() == self._thread and not is_being_traced():
            self.meet(optimizer)
            if not _has_closure(args, kwargs):
                self._gradients(optimizer)

    @untraced
    def after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Records the parameters after a step."""
        if threading.get_ident() == self._thread and not is_being_traced():
            if _has_closure(args, kwargs):
                self._gradients(optimizer)  # the closure has made them: before, they were those of the step before
            for parameter in _parameters(optimizer):
                self._recorder.add("parameter", self._search.name(parameter), parameter)
            self._recorder.record.steps += 1

    @untraced
    def _gradients(self, optimizer: Any) -> None:
        for parameter in _parameters(optimizer):
            if parameter.grad is not None:
                self._recorder.add("gradient", self._search.name(parameter), parameter.grad)

    # ------------------------------------------------------------------------------------------------------- the end

    def end(self, returned: Any) -> None:
        """Records what a run has left, and returned.

        Args:
            returned: by the function.
        """
        recorder, search = self._recorder, self._search
        recorder.add("returned", "", returned)
        for tensor in self._tensors.values():
            kept = self._keeper.tensors.get(id(tensor))
            # What is only watched is data, which may be large.
            if search.names(tensor) and not (kept and kept.is_as_it_was):
                recorder.add("end", search.name(tensor), tensor)
                if tensor.is_leaf and tensor.grad is not None:
                    recorder.add("end", f"{search.name(tensor)}.grad", tensor.grad)
        for name, optimizer in self._optimizers.values():
            for parameter in _parameters(optimizer):
                if parameter in optimizer.state:
                    recorder.add("end", f"{name}.state[{search.name(parameter)}]", optimizer.state[parameter])
        for name, value in self._keeper.left():
            # Numbers are not compared: many are times.
            for path, leaf in leaves(value, objects=False):
                if id(leaf) not in self._tensors if isinstance(leaf, Tensor) else leaf.is_array:
                    recorder.add("end", name + path, leaf)
        recorder.look_at_streams()
        recorder.record.modules = set(self._calls)


def _has_closure(args: Any, kwargs: Any) -> bool:
    """Whether a step is given a closure; the optimizer itself stands first among what it is given, or not."""
    return any(callable(each) and not isinstance(each, Optimizer) for each in (*args, *kwargs.values()))


def _parameters(optimizer: Optimizer) -> Iterator[Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """A block in which a watch is told of what this process does."""

    def engine_of(engine: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if kwargs.get("accumulate_grad"):
                watch.before_backward(args[0], args[4] if len(args) > 4 else ())
            return engine(*args, **kwargs)

        return untraced(run)

    def zero_grad_of(zero_grad: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: Any, *args: Any, **kwargs: Any) -> Any:
            watch.meet(self)
            return zero_grad(self, *args, **kwargs)

        return untraced(run)

    patched: Any = Optimizer
    engine = vars(torch.autograd)[_ENGINE]
    zero_grad = patched.zero_grad
    outer = module_calls.watch
    ours, zeroing = engine_of(engine), zero_grad_of(zero_grad)
    module_calls.opened()
    try:
        # An interrupt may come between any two of these.
        module_calls.watch = watch.call
        hear_steps(watch, watch.before_step, watch.after_step)
        patched.zero_grad = zeroing
        vars(torch.autograd)[_ENGINE] = ours
        yield
    finally:
        vars(torch.autograd)[_ENGINE] = engine
        patched.zero_grad = zero_grad
        hear_no_steps(watch)
        module_calls.watch = outer
        module_calls.closed()
