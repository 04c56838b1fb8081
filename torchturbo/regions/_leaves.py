"""The leaves that a backward writes gradients into, found by walking the graph from its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.autograd.graph import GradientEdge

_Node = Any
_ACCUMULATE: Any = torch._C._functions.AccumulateGrad  # type: ignore[attr-defined]


def nodes_of(outputs: Iterable[Tensor | GradientEdge]) -> set[_Node]:
    """Every node that a backward from `outputs` can run; those of leaves too.

    Args:
        outputs: what backward starts from.
    """
    found: set[_Node] = set()
    waiting: list[_Node] = []
    for output in outputs:
        node = output.node if isinstance(output, GradientEdge) else _node(output)
        if node is not None and node not in found:
            found.add(node)
            waiting.append(node)
    add, take, wait = found.add, waiting.pop, waiting.append
    while waiting:
        for node, _ in take().next_functions:
            if node is not None and node not in found:
                add(node)
                wait(node)
    return found


def _node(output: Tensor) -> _Node | None:
    if output.grad_fn is not None or not output.requires_grad:
        return output.grad_fn
    return torch.autograd.graph.get_gradient_edge(output).node


def leaves_of(nodes: Iterable[_Node]) -> list[Tensor]:
    """The leaves among `nodes`, and those that a reduction between processes writes to.

    Args:
        nodes: nodes of a graph.
    """
    leaves = [node.variable for node in nodes if node.__class__ is _ACCUMULATE]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        known = {id(leaf) for leaf in leaves}
        for node in nodes:
            # A parameter that this process has not used gets the gradient of those that have.
            if node.__class__.__name__ == "_DDPSinkBackward":
                parallel = node.ddp_weakref()
                leaves += [p for p in parallel.parameters() if p.requires_grad and id(p) not in known]
                known.update(map(id, leaves))
    return leaves


def as_leaves(inputs: Sequence[Tensor | GradientEdge]) -> list[Tensor]:
    """The tensors that ``backward(inputs=...)`` writes gradients into.

    Args:
        inputs: what it was given.
    """
    return [_variable(each) if isinstance(each, GradientEdge) else each for each in inputs]


def _variable(edge: GradientEdge) -> Tensor:
    variable: Tensor = edge.node.variable  # type: ignore[attr-defined]
    return variable
