"""How many samples and tokens a batch has, as far as the batch tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

_WHOLE = frozenset({"torch.int64", "torch.int32"})
_TOKENS = "input_ids"
_PARTS = 8
"""Parts of a batch that are looked at: what has more of them before its first tensor is nothing that tells."""


def samples_in(batch: Any, most: int | None = None) -> int | None:
    """How many samples a batch has, or None where nobody tells.

    Args:
        batch: what a loader has given. Nothing is asked of a device.
        most: how many a whole batch has; None where the loader does not say. What has more is no row a sample, as
            the nodes of graphs are not.
    """
    found = _first(batch)
    return most if found is None or (most is not None and found > most) else found


def _first(batch: Any) -> int | None:
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.dim() else None
    if isinstance(batch, PackedSequence):
        return int(batch.batch_sizes[0])  # sequences, which all have a first step
    if isinstance(batch, list | tuple):
        if len(batch) > 1 and type(batch[0]) is type(batch[1]) and not isinstance(batch[0], Tensor):
            return len(batch)  # samples as they are, and not what they are made of
    elif isinstance(batch, Mapping):
        batch = batch.values()
    else:
        graphs = getattr(batch, "num_graphs", None)
        if isinstance(graphs, int) or not is_dataclass(batch):
            return graphs if isinstance(graphs, int) else None
        batch = [getattr(batch, field.name, None) for field in fields(batch)]
    for part in islice(batch, _PARTS):
        found = _first(part)
        if found is not None:
            return found
    return None


def tokens_in(batch: Any) -> int | None:
    """How many tokens a batch has, padding among them, or None where it does not tell that it is text.

    It does by an ``input_ids``, or where its first two tensors are matrices of whole numbers of one shape: what a
    language model reads, and what it is to say.

    Args:
        batch: what a loader has given.
    """
    if isinstance(batch, list | tuple) and len(batch) > 1:
        read, said = batch[0], batch[1]
        if isinstance(read, Tensor) and isinstance(said, Tensor) and read.dim() == 2 and read.shape == said.shape:
            return read.numel() if str(read.dtype) in _WHOLE and read.dtype is said.dtype else None
        return None
    if isinstance(batch, Mapping):
        ids = batch.get(_TOKENS)
        return ids.numel() if isinstance(ids, Tensor) else None
    ids = None if isinstance(batch, Tensor) else getattr(batch, _TOKENS, None)
    return ids.numel() if isinstance(ids, Tensor) else None
