"""The leaves that a backward writes gradients into, found by walking the graph from its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from torchturbo.hardware._ranks import in_group

_Node = Any
_ACCUMULATE: Any = torch._C._functions.AccumulateGrad  # type: ignore[attr-defined]


class Graph:
    """What a backward from `outputs` can run.

    Args:
        outputs: what backward starts from.

    Attributes:
        nodes: every node.
        leaves: the leaves that it writes gradients into, by identity.
    """

    __slots__ = ("leaves", "nodes")

    def __init__(self, outputs: Iterable[Tensor | GradientEdge]) -> None:
        self.nodes: set[_Node] = set()
        nodes = self.nodes
        ends: list[_Node] = []
        waiting: list[_Node] = []
        add, take, wait, end = nodes.add, waiting.pop, waiting.append, ends.append
        found: Iterable[tuple[_Node, int]] = [(_node(output), 0) for output in outputs]
        while True:
            for node, _ in found:
                if node is not None and node not in nodes:
                    add(node)
                    if node.__class__ is _ACCUMULATE:
                        end(node)
                    else:
                        wait(node)
            if not waiting:
                break
            found = take().next_functions
        leaves = [node.variable for node in ends]
        self.leaves: dict[int, Tensor] = {id(leaf): leaf for leaf in leaves}
        if in_group():
            for node in nodes:
                # A parameter that this process has not used gets the gradient of those that have.
                if node.__class__.__name__ == "_DDPSinkBackward":
                    parameters = node.ddp_weakref().parameters()
                    self.leaves.update((id(leaf), leaf) for leaf in parameters if leaf.requires_grad)


def _node(output: Tensor | GradientEdge) -> _Node | None:
    if isinstance(output, GradientEdge):
        return output.node
    if output.grad_fn is not None or not output.requires_grad:
        return output.grad_fn
    return torch.autograd.graph.get_gradient_edge(output).node


def as_leaves(inputs: Sequence[Tensor | GradientEdge]) -> list[Tensor]:
    """The tensors that ``backward(inputs=...)`` writes gradients into.

    Args:
        inputs: what it was given.
    """
    return [_variable(each) if isinstance(each, GradientEdge) else each for each in inputs]


def leaf_of(asked: Tensor | GradientEdge) -> Tensor | None:
    """The leaf that is asked for, or None if it is something else in the graph.

    Args:
        asked: an input of `torch.autograd.grad`.
    """
    if isinstance(asked, GradientEdge):
        variable: Tensor | None = getattr(asked.node, "variable", None)
        return variable
    return asked if asked.is_leaf else None


def _variable(edge: GradientEdge) -> Tensor:
    variable: Tensor = edge.node.variable  # type: ignore[attr-defined]
    return variable
