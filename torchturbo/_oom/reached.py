"""What a step reaches, found and kept at each call of it: lightly, since most calls put nothing back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchturbo._replay.kept import Keeper, KeptTensor
from torchturbo._replay.positions import Position
from torchturbo._replay.search import Search, is_foreign

_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size})
"""Types of what cannot change; numbers in a tuple of torch's are no more."""


class Lightly(Keeper):
    """Keeps weights by their versions alone, and copies them later.

    Attributes:
        late: the tensors that are copied when a step begins.
        gradients: those that stood before, by identity.
    """

    def __init__(self, grads_are_dropped: bool, looks: bool) -> None:
        super().__init__()
        self._looks = looks
        self.late: dict[int, KeptTensor] = {}
        self.gradients: dict[int, KeptTensor] = {}
        self.of_optimizers = False
        self._grads_are_dropped = grads_are_dropped

    def tensor(self, tensor: Tensor, *, copied: bool = True) -> None:
        """Keeps a tensor, and its gradient."""
        if id(tensor) in self.tensors:
            return
        weight = self.of_optimizers or isinstance(tensor, nn.Parameter) or (tensor.is_leaf and tensor.requires_grad)
        if not weight:
            if self._looks:
                self.watch(tensor)
            else:
                super().tensor(tensor, copied=False)
            return
        kept = self.tensors[id(tensor)] = self.late[id(tensor)] = KeptTensor(tensor, copied=False)
        if kept.grad is not None and id(kept.grad) not in self.tensors:
            its = KeptTensor(kept.grad, copied=not (self._grads_are_dropped or self._looks))
            self.tensors[id(kept.grad)] = self.gradients[id(kept.grad)] = its

    def watch(self, tensor: Tensor) -> None:
        """Notes a tensor of the batch, which is not copied."""
        self.tensors.setdefault(id(tensor), KeptTensor(tensor, copied=False))

    def position(self, position: Position) -> None:
        """Leaves iterators alone: what a step takes of one is taken."""


class Reached(Search):
    """Finds what a step reaches at each call of it: modules and optimizers are gone through without their names."""

    _keeper: Lightly

    def __init__(self, keeper: Lightly) -> None:
        super().__init__(keeper)
        self._roots: list[tuple[str, nn.Module]] = []

    def _object(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module):
            self._roots.append((name, value))
            self._modules(name, value)
        elif isinstance(value, Optimizer):
            self._states(name, value)
        else:
            super()._object(name, value)

    def _modules(self, name: str, root: nn.Module) -> None:
        keeper, waiting = self._keeper, [root]
        while waiting:
            module = waiting.pop()
            if id(module) in self._seen and module is not root:
                continue
            self._seen[id(module)] = module
            attributes = vars(module)
            keeper.container("", attributes)
            for held in (module._parameters, module._buffers):
                if held:
                    keeper.container("", held)
                    for tensor in held.values():
                        if tensor is not None:
                            keeper.tensor(tensor)
            if module._modules:
                keeper.container("", module._modules)
                waiting += [each for each in module._modules.values() if each is not None]
            for key, entry in attributes.items():
                if key[0] != "_" and type(entry) not in _PLAIN:
                    self._wait(f"{name}.{key}", entry)
            if not is_foreign(type(module).__module__):
                self._wait(type(module).__name__, type(module))

    def _states(self, name: str, optimizer: Optimizer) -> None:
        keeper = self._keeper
        self.optimizers[id(optimizer)] = name, optimizer
        for held in (vars(optimizer), optimizer.param_groups, optimizer.state):
            keeper.container("", held)
        for group in optimizer.param_groups:
            keeper.container("", group)
            for parameter in group["params"]:
                keeper.tensor(parameter)
        keeper.of_optimizers = True
        for state in optimizer.state.values():
            if isinstance(state, dict):
                keeper.container("", state)
                for entry in state.values():
                    if isinstance(entry, Tensor):
                        keeper.tensor(entry)
        keeper.of_optimizers = False
        for key, entry in vars(optimizer).items():
            if key not in ("param_groups", "state") and type(entry) not in _PLAIN:
                self._wait(f"{name}.{key}", entry)
        self._wait(type(optimizer).__name__, type(optimizer))

    @property
    def models(self) -> list[nn.Module]:
        """The modules that were met first, before those in them."""
        return [module for _, module in self._roots]

    def name(self, value: Any) -> str:
        """What a tensor is called; looked for now, which takes long."""
        for name, module in self._roots:
            for path, tensor in (*module.named_parameters(), *module.named_buffers()):
                if tensor is value:
                    return f"{name}.{path}"
        return super().name(value)
