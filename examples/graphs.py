"""Random graphs that are built in plain Python for each batch, as many loaders do it, and a small graph network.

Building a batch of 256 nodes and 2,560 edges takes several times as long as training on it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

FEATURES = 16
CLASSES = 4

Sample = tuple[list[tuple[int, int]], list[list[float]], int]
"""The edges of a graph, the features of its nodes, and its class."""


class Batch(NamedTuple):
    """Graphs side by side, as one graph whose parts do not touch.

    Attributes:
        nodes: features, nodes by `FEATURES`.
        edges: from and to which node, 2 by edges, loops to itself among them.
        weights: of each edge in the normalised adjacency matrix.
        graph: which graph each node is of.
        labels: the class of each graph.
    """

    nodes: Tensor
    edges: Tensor
    weights: Tensor
    graph: Tensor
    labels: Tensor


class Graphs(Dataset[Sample]):
    """Random graphs, the same one at each index each time.

    Args:
        length: how many there are.
        nodes: of each graph.
        edges: of each graph.
    """

    def __init__(self, length: int = 256, nodes: int = 32, edges: int = 320) -> None:
        self.length, self.nodes, self.edges = length, nodes, edges

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(index)
        chance = random.Random(index)
        label = index % CLASSES
        # A class is how far edges reach.
        reach = 2 + label * self.nodes // (2 * CLASSES)
        edges = []
        for _ in range(self.edges):
            start = chance.randrange(self.nodes)
            edges.append((start, (start + chance.randint(1, reach)) % self.nodes))
        features = [[chance.gauss(0, 1) for _ in range(FEATURES)] for _ in range(self.nodes)]
        return edges, features, label


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of several graphs, with the weights that a graph convolution multiplies by.

    Args:
        samples: of `Graphs`.
    """
    nodes: list[list[float]] = []
    edges: list[tuple[int, int]] = []
    graph: list[int] = []
    for number, (its_edges, features, _) in enumerate(samples):
        first = len(nodes)
        for start, end in its_edges:
            edges.append((first + start, first + end))
        nodes.extend(features)
        graph.extend([number] * len(features))
    edges.extend((node, node) for node in range(len(nodes)))
    degrees = [0] * len(nodes)
    for _, end in edges:
        degrees[end] += 1
    weights = []
    for start, end in edges:
        weights.append((degrees[start] * degrees[end]) ** -0.5)
    return Batch(
        torch.tensor(nodes),
        torch.tensor(edges).T.contiguous(),
        torch.tensor(weights),
        torch.tensor(graph),
        torch.tensor([label for _, _, label in samples]),
    )


def loader(graphs: Graphs | None = None, **keywords: object) -> DataLoader[Sample]:
    """Batches of 8 graphs, which are 256 nodes and 2,560 edges.

    Args:
        graphs: the dataset.
        **keywords: for the `DataLoader`.
    """
    return DataLoader(graphs or Graphs(), batch_size=8, collate_fn=collate, **keywords)  # type: ignore[arg-type]


class GraphNet(nn.Module):
    """Two graph convolutions, the mean over each graph, and its class.

    Args:
        width: features between the layers.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, width), nn.Linear(width, width)
        self.last = nn.Linear(width, CLASSES)

    def forward(self, batch: Batch) -> Tensor:
        """The logits of each graph."""
        hidden = batch.nodes
        start, end = batch.edges
        for layer in (self.first, self.second):
            hidden = layer(hidden)
            sent = hidden[start] * batch.weights[:, None]
            hidden = torch.zeros_like(hidden).index_add(0, end, sent.to(hidden.dtype)).relu()
        sums = hidden.new_zeros(len(batch.labels), hidden.shape[1]).index_add(0, batch.graph, hidden)
        logits: Tensor = self.last(sums / batch.graph.bincount(minlength=len(batch.labels))[:, None])
        return logits
