"""What comes out of a cache is what went in, bit for bit, and nobody's else: a law, and mutants that it must catch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cached.datasets import Items, Pair, Picture, ordered
from torchturbo import cached
from torchturbo._cached import blob, datasets, kept
from torchturbo._cached.proof import difference
from torchturbo.errors import CacheError

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool]
DTYPES += [torch.complex64, torch.float8_e4m3fn, torch.int16]


@st.composite
def tensors(draw: Any) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    size = math.prod(shape)
    dtype = draw(st.sampled_from(DTYPES))
    width = torch.empty(0, dtype=dtype).element_size()
    raw = draw(st.binary(min_size=size * width, max_size=size * width))
    if dtype is torch.bool:
        raw = bytes(byte & 1 for byte in raw)
    made = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
    made = made.reshape(shape)
    form = draw(st.sampled_from(["", "turned", "strided", "expanded", "leaf"]))
    if form == "turned":
        return made.permute(tuple(reversed(range(made.dim()))))
    if form == "strided" and made.dim():
        return made[::2]
    if form == "expanded":
        return made.expand(2, *made.shape)
    return made.clone().requires_grad_() if form == "leaf" and made.is_floating_point() else made


@st.composite
def arrays(draw: Any) -> Any:
    shape = draw(st.lists(st.integers(0, 3), max_size=2))
    dtype = draw(st.sampled_from(["<f4", ">i2", "u1", "bool", "<M8[s]", "<U3", "c16", "O"]))
    made = np.zeros(shape, dtype) if dtype == "O" else np.arange(math.prod(shape)).astype(dtype).reshape(shape)
    return draw(st.sampled_from([made, np.asfortranarray(made), made[..., None], np.array(made).T]))


LEAVES = (
    tensors()
    | arrays()
    | st.text(max_size=4)
    | st.binary(max_size=4)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.none()
    | st.just(np.float32(1.5))
    | st.just(torch.bfloat16)
    | st.builds(Picture, st.binary(max_size=3), st.just((1, 2)))
    | st.builds(Pair, tensors(), st.integers())
)
ITEMS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3).map(ordered)
    ),
    max_leaves=6,
)


def spoil(value: Any) -> None:
    """Writes to all of a value that can be written to."""
    if isinstance(value, torch.Tensor):
        with torch.no_grad():
            value.zero_() if value.dtype is not torch.bool else value.logical_not_()
            value.add_(1) if value.dtype not in (torch.bool, torch.float8_e4m3fn) else None
    elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value[...] = 1 - value
    elif isinstance(value, dict):
        [spoil(each) for each in value.values()]
        value["spoiled"] = True
    elif isinstance(value, list | tuple):
        [spoil(each) for each in value]
        if isinstance(value, list):
            value.append("spoiled")
    elif isinstance(value, Picture):
        value.raw += b"!"


def holds(items: list[Any], where: str = "memory") -> None:
    """The law: an item of the cache is the dataset's, and what is done to one is not seen in the next."""
    untouched = copy.deepcopy(items)
    data = cached(Items(items), where, max_bytes="10 MB")
    for _ in range(2):
        for index, item in enumerate(untouched):
            out = data[index]
            assert difference(item, out) is None
            spoil(out)


@given(st.lists(ITEMS, min_size=1, max_size=3))
@settings(deadline=None, max_examples=60)
def test_items_are_the_same_to_the_bit_whatever_is_done_to_them(items: list[Any]) -> None:
    holds(items)


def test_the_same_in_a_folder(tmp_path: Any) -> None:
    items: list[Any] = [{"x": torch.arange(4.0).bfloat16(), "p": Picture(b"a", (1, 1))}, (np.arange(3), "b"), [1, None]]
    holds(items, str(tmp_path))
    holds(items, str(tmp_path))


def test_what_stands_twice_in_an_item_is_one_thing_and_strides_stay() -> None:
    x, images = torch.ones(3), torch.zeros(1, 3, 4, 4).to(memory_format=torch.channels_last)
    one, other, kept_images, array = cached(Items([(x, x, images, np.asfortranarray(np.ones((2, 3))))]))[0]
    assert one is other
    assert kept_images.is_contiguous(memory_format=torch.channels_last)
    assert kept_images.storage_offset() == 0
    assert kept_images.untyped_storage().resizable()
    assert array.flags.f_contiguous
    frozen = np.ones(2)
    frozen.flags.writeable = False
    assert not cached(Items([frozen]))[0].flags.writeable


def test_special_tensors_come_back() -> None:
    items = [torch.eye(2).to_sparse(), torch.nn.Parameter(torch.ones(2)), torch.ones(2, dtype=torch.complex64).conj()]
    data = cached(Items(items))
    assert [difference(item, data[n]) for n, item in enumerate(items)] == [None] * 3


class NoCopy(kept.Kept):
    """Hands out what it keeps."""

    def take(self, item: str) -> tuple[bool, Any]:
        memo = self.__dict__.setdefault("memo", {})
        if item not in memo:
            memo[item] = super().take(item)
            if not memo[item][0]:
                del memo[item]
                return False, None
        found: tuple[bool, Any] = memo[item]
        return found


def _dtype_lost(item: Any) -> list[blob.Memory]:
    return ENCODE(item.float() if isinstance(item, torch.Tensor) and item.is_floating_point() else item)


ENCODE = blob.encode


def _no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchturbo._cached.Kept", NoCopy)


def _other_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob, "encode", _dtype_lost)


def _by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "name_of", lambda index: str(index // 2))


@pytest.mark.parametrize("mutant", [_no_copy, _other_types, _by_position])
def test_the_law_catches(mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, CacheError)):
        holds([torch.ones(2).bfloat16(), torch.zeros(2).bfloat16(), torch.zeros(3)])


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (torch.tensor([0.0]), torch.tensor([-0.0]), "the numbers in item (float32 [1])"),
        (torch.ones(2), torch.ones(2).double(), "item (float32 [2]) in one, item (float64 [2]) in the other"),
        ({"a": 1}, {"a": True}, "item['a'] = 1 in one, item['a'] = True in the other"),
        ([1], (1,), "item = list of 1 in one, item = tuple of 1 in the other"),
        ([torch.ones(1)], [1], "item[0] (float32 [1]) in one, item[0] = 1 in the other"),
        ({"a": 1}, {"b": 1}, "item['a'] = 1 in one, item['b'] = 1 in the other"),
    ],
)
def test_the_first_difference_is_named(one: Any, other: Any, said: str) -> None:
    assert difference(one, other) == said


def test_bytes_that_are_not_as_they_were_written_are_told() -> None:
    whole = bytes(blob.joined(blob.encode({"x": torch.arange(20)})))
    assert blob.whole(memoryview(whole))
    for at in range(0, len(whole), 7):
        assert not blob.whole(memoryview(whole[:at]))
        assert not blob.whole(memoryview(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])) or 40 <= at < 64
