"""Batches of any make: every tensor is sent, with its values; all else stays what it is, and so does the batch."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from tests.prefetch.lanes import Late
from torchturbo.regions._batches import sent
from torchturbo.regions._lanes import Load, memories, moves_itself


class Point(NamedTuple):
    x: Tensor
    name: str


@dataclass
class Plain:
    x: Tensor
    name: str = "plain"


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Tensor
    y: Plain


@dataclass
class Checked:
    x: Tensor
    made: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.made += 1


class Listed(list[Any]):
    """A list with something of its own."""

    note = ""


class Own:
    """A batch of somebody's own, whose `to` changes it."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.on: object = "cpu"

    def to(self, device: Any) -> Own:
        self.on = device
        return self


class Time:
    """What has a `to` for something else."""

    def to(self, zone: str) -> Time:
        raise AssertionError


class Wrapped(Tensor):
    """A tensor around another one."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Wrapped:
        made: Wrapped = Tensor._make_wrapper_subclass(cls, inner.shape)  # type: ignore[attr-defined]
        made.inner = inner
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError

    @staticmethod
    def __tensor_unflatten__(tensors: Any, *_: Any) -> Wrapped:
        return Wrapped(tensors["inner"])


Pair = namedtuple("Pair", "a b")  # the older spelling, which people still have
X = torch.arange(6.0)


def arrived(batch: Any, lane: Late | None = None) -> Any:
    lane, load = lane or Late(), Load()
    with lane.open():
        new = sent(batch, lane, load)
        event = lane.mark()
    lane.wait(event, load.made)
    return new


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return type(one) is type(other) and one.dtype is other.dtype and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if hasattr(one, "items"):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "__dataclass_fields__"):
        return all(same(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__)
    return bool(one == other)


def listed() -> Listed:
    made = Listed([X, "a"])
    made.note = "kept"
    return made


BATCHES: dict[str, Any] = {
    "a tensor": X,
    "a tensor of bools": torch.tensor([True, False]),
    "an empty tensor": torch.empty(0, 3, dtype=torch.int64),
    "a list": [X, "label", 3, None],
    "a tuple": (X, X + 1),
    "dictionaries": {"x": X, "deep": {"er": [X + 2, (X + 3,)]}, "name": "n"},
    "an ordered one": OrderedDict(b=X, a=X + 1),
    "one with a default": defaultdict(list, x=X),
    "a UserDict": UserDict(x=X),
    "one that cannot be changed": MappingProxyType({"x": X}),
    "a NamedTuple": Point(X, "point"),
    "a namedtuple": Pair(X, [X + 1]),
    "a dataclass": Plain(X),
    "a frozen one with slots": Frozen(X, Plain(X + 1)),
    "one with a post_init": Checked(X),
    "a deque": deque([X, 1], maxlen=4),
    "a list of somebody's own": listed(),
    "what torch returns": torch.arange(6.0).reshape(2, 3).max(1),
}


@pytest.mark.parametrize("name", BATCHES)
def test_what_arrives_is_what_was_sent(name: str) -> None:
    batch = BATCHES[name]
    lane = Late()
    new = arrived(batch, lane)
    assert lane.copies > 0
    assert new is not batch
    assert same(batch, new)
    assert getattr(new, "note", "") == getattr(batch, "note", "")


def test_a_default_a_length_and_a_post_init_are_kept() -> None:
    assert arrived(BATCHES["one with a default"])["new"] == []
    assert arrived(BATCHES["a deque"]).maxlen == 4
    assert arrived(Checked(X)).made == 1


def test_nothing_is_seen_before_it_is_waited_for() -> None:
    lane, load = Late(), Load()
    with lane.open():
        new = sent({"x": X}, lane, load)
        event = lane.mark()
    assert not torch.equal(new["x"], X)
    lane.wait(event, [])
    assert not torch.equal(new["x"], X)  # whoever does not name it loses its memory


def test_what_is_there_twice_is_there_twice() -> None:
    inner = {"x": X}
    lane = Late()
    new = arrived([X, X, inner, inner], lane)
    assert lane.copies == 1
    assert new[0] is new[1] is new[2]["x"]
    assert new[2] is new[3]


def test_what_has_no_tensors_is_the_same_object() -> None:
    batch = {"names": ["a", "b"], "sizes": (1, 2), "set": {1}, "time": Time(), "model": torch.nn.Linear(1, 1)}
    assert arrived(batch) is batch
    there = torch.empty(3, device="meta")
    new = arrived({"there": there, "x": X, "names": batch["names"]})
    assert new["there"] is there
    assert new["names"] is batch["names"]


def test_a_batch_that_holds_itself_ends() -> None:
    batch: list[Any] = [X]
    batch.append(batch)
    assert arrived(batch)[1] is batch


def test_packed_sequences_keep_their_sizes_on_the_cpu() -> None:
    packed = pack_sequence([torch.ones(2), torch.zeros(3)], enforce_sorted=False)
    lane = Late()
    new = arrived(packed, lane)
    assert isinstance(new, PackedSequence)
    assert new.batch_sizes is packed.batch_sizes
    assert lane.copies == 3  # the data, and the order forth and back
    for one, other in zip(new, packed, strict=True):
        assert torch.equal(one, other)


def test_a_batch_of_hugging_face_stays_one_and_the_original_stays_where_it_is() -> None:
    tokens = pytest.importorskip("transformers").BatchEncoding({"input_ids": torch.ones(2, 3), "names": ["a", "b"]})
    new = arrived(tokens)
    assert type(new) is type(tokens)
    assert new is not tokens
    assert new["input_ids"] is not tokens["input_ids"]
    assert torch.equal(new.input_ids, tokens.input_ids)
    assert new["names"] is tokens["names"]


def test_what_moves_itself_does_so_as_a_copy() -> None:
    batch = Own(X)
    new = arrived([batch, batch])
    assert new[0].on == Late.device
    assert new[0] is new[1]
    assert batch.on == "cpu"
    assert not moves_itself(Time)
    assert not moves_itself(int)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta", "ignore:The PyTorch API of nested tensors")
def test_the_memory_of_a_tensor_is_found_however_it_is_made_up() -> None:
    sparse = torch.eye(3).to_sparse()
    assert [len(memories(each)) for each in (X, sparse, sparse.to_sparse_csc())] == [1, 2, 3]
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    assert {each.untyped_storage().data_ptr() for each in memories(nested)} == {nested.values().data_ptr()}
    assert [each is X for each in memories(Wrapped(X))] == [True]
