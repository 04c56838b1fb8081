"""An item as bytes, and back: tensors and arrays by their memory, the rest as pickle has it.

What comes back is another object each time, with memory of its own, so nobody can write to what is kept.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import io
import pickle
import struct
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchturbo._replay.bits import ONLY_STORED
from torchturbo.errors import CacheError, in_a_line

Memory = memoryview
Read = Callable[[int, Memory], None]
"""Fills memory with the bytes that stand at a place of a blob."""

_MAGIC = b"TTURBO01"
_HEAD = struct.Struct("<8sQQ16s")
"""What it is, its size in bytes, the size of the pickle in it, and a checksum of that and all that follows."""
START = 64
"""Where the pickle begins. Tensors follow, each where a multiple of this is."""

_HARMLESS = {
    ("builtins", name) for name in ("bytearray", "complex", "frozenset", "range", "set", "slice")
} | {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "scalar"),
}  # fmt: skip
"""What a pickle may name that nobody has vouched for."""


class NotTrusted(Exception):
    """A pickle names what could run code, and comes from somebody else."""


def encode(item: Any) -> list[Memory]:
    """The pieces of memory that, one after the other, are an item.

    Args:
        item: anything that can be pickled.

    Raises:
        CacheError: it cannot be pickled, or is still to be differentiated through.
    """
    file = io.BytesIO()
    pickler = _Pickler(file)
    try:
        # What a prefetching thread writes to `item` meanwhile is its own fault.
        pickler.dump(item)
    except CacheError:
        raise
    except Exception as error:
        raise CacheError(
            f"an item cannot be kept, as it cannot be pickled ({in_a_line(error)}): let the dataset return tensors, "
            "arrays, numbers, strings, and containers of them"
        ) from error
    skeleton = Memory(file.getvalue())  # a view of the file itself would keep it from being closed
    pieces = [Memory(bytes(START)), skeleton]
    at = _aligned(START + len(skeleton))
    pieces.append(Memory(bytes(at - START - len(skeleton))))
    for buffer in pickler.buffers:
        pieces += (buffer, Memory(bytes(_aligned(len(buffer)) - len(buffer))))
    size = sum(map(len, pieces))
    checksum = _checksum(len(skeleton), pieces[1:])
    pieces[0] = Memory(_HEAD.pack(_MAGIC, size, len(skeleton), checksum).ljust(START, b"\0"))
    return pieces


def decode(read: Read, trusted: bool = True) -> Any:
    """The item that a blob is.

    Args:
        read: reads of it.
        trusted: whether its pickle may name anything. If not, it may name only what holds data.

    Raises:
        NotTrusted: it names something else.
    """
    head = bytearray(START)
    read(0, Memory(head))
    skeleton = bytearray(_HEAD.unpack_from(head)[2])
    read(START, Memory(skeleton))
    return _Unpickler(skeleton, read, trusted).load()


def whole(blob: Memory) -> bool:
    """Whether bytes are a blob as it was written, to the last of them.

    Args:
        blob: all of them.
    """
    if len(blob) < START:
        return False
    magic, size, skeleton, checksum = _HEAD.unpack_from(blob)
    return bool(magic == _MAGIC and size == len(blob) and _checksum(skeleton, [blob[START:]]) == checksum)


def _checksum(skeleton: int, pieces: list[Memory]) -> bytes:
    made = hashlib.blake2b(skeleton.to_bytes(8, "little"), digest_size=16)
    for piece in pieces:
        made.update(piece)
    return made.digest()


def reading(blob: Memory) -> Read:
    """Reads of bytes that are in memory.

    Args:
        blob: all of them.
    """

    def read(at: int, memory: Memory) -> None:
        memory[:] = blob[at : at + len(memory)]

    return read


def joined(pieces: list[Memory]) -> Memory:
    """The pieces as one.

    Args:
        pieces: of `encode`.
    """
    return Memory(b"".join(pieces))


def _aligned(at: int) -> int:
    return -(-at // START) * START


def _memory(tensor: Tensor) -> Memory:
    """A tensor's memory, without NumPy, which need not be installed."""
    size = tensor.numel() * tensor.element_size()
    if not size:
        return Memory(b"")
    array: Any = (ctypes.c_char * size).from_address(tensor.data_ptr())
    array.held = tensor
    return Memory(array).cast("B")


def _is_plain(tensor: Tensor) -> bool:
    return (
        type(tensor) is Tensor
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_quantized or tensor.is_nested or tensor.is_conj() or tensor.is_neg())
        and not tensor.__dict__
        and not ONLY_STORED.fullmatch(str(tensor.dtype))
    )


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.buffers: list[Memory] = []
        self._at = 0
        # By identity, and held: what stands in an item twice is one thing when it comes back.
        self._known: dict[int, tuple[Any, Any]] = {}

    def persistent_id(self, value: Any) -> Any:
        """What stands for a tensor or an array in the pickle; None for all else, which is pickled as usual."""
        if isinstance(value, Tensor):
            if value.grad_fn is not None:
                raise CacheError(
                    "an item holds a tensor that was computed from what requires gradients, and no file keeps what "
                    "backward needs: let the dataset return `tensor.detach()`"
                )
            told: Any = self._tensor if _is_plain(value) else None
        else:
            told = self._array if type(value).__module__ == "numpy" and type(value).__name__ == "ndarray" else None
        if told is None:
            return None
        if id(value) not in self._known:
            self._known[id(value)] = value, told(value)
        return self._known[id(value)][1]

    def _tensor(self, tensor: Tensor) -> Any:
        # A copy keeps the order of dimensions in memory, and leaves out what lies between.
        copy = tensor.detach().clone()
        if copy.numel() and copy.untyped_storage().nbytes() != copy.numel() * copy.element_size():
            copy = copy.contiguous().clone()
        dtype = str(copy.dtype)[6:]
        return "tensor", *self._put(_memory(copy)), dtype, tuple(copy.shape), copy.stride(), tensor.requires_grad

    def _array(self, array: Any) -> Any:
        numpy: Any = sys.modules["numpy"]
        dtype = array.dtype
        if dtype.hasobject or not dtype.itemsize or numpy.dtype(dtype.str) != dtype or dtype.metadata:
            return None
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        memory = Memory(array.tobytes(order))
        return "array", *self._put(memory), dtype.str, array.shape, order, bool(array.flags.writeable)

    def _put(self, memory: Memory) -> tuple[int, int, int]:
        number, at = len(self.buffers), self._at
        self.buffers.append(memory)
        self._at += _aligned(len(memory))
        return number, at, len(memory)


class _Unpickler(pickle.Unpickler):
    def __init__(self, skeleton: bytearray, read: Read, trusted: bool) -> None:
        super().__init__(io.BytesIO(skeleton))
        self._begin = _aligned(START + len(skeleton))
        self._read = read
        self._trusted = trusted
        self._made: dict[int, Any] = {}

    def persistent_load(self, told: Any) -> Any:
        """What stood there, in memory that nobody else has."""
        kind, number, at, size, *rest = told
        if number not in self._made:
            make = self._tensor if kind == "tensor" else self._array
            self._made[number] = make(self._begin + at, size, *rest)
        return self._made[number]

    def _tensor(
        self, at: int, size: int, dtype: str, shape: tuple[int, ...], stride: tuple[int, ...], requires_grad: bool
    ) -> Tensor:
        made = torch.empty_strided(shape, stride, dtype=getattr(torch, dtype), device="cpu")
        if size:
            self._read(at, _memory(made))
        return made.requires_grad_() if requires_grad else made

    def _array(self, at: int, size: int, dtype: str, shape: tuple[int, ...], order: Any, writeable: bool) -> Any:
        numpy: Any = importlib.import_module("numpy")
        flat = numpy.empty(size, numpy.uint8)
        if size:
            self._read(at, Memory(flat))
        made = flat.view(dtype).reshape(shape, order=order)
        made.flags.writeable = writeable
        return made

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle names."""
        harmless = (module, name) in _HARMLESS or (
            module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        )
        if not harmless and not self._trusted:
            raise NotTrusted(f"{module}.{name}")
        return super().find_class(module, name)
