"""Reads torch's global context from memory: every flag of it, also those no getter shows, and the raw precision cells.

``at::globalContext()`` is an exported function of libtorch; the object it returns holds nearly all of torch's
process-wide flags as plain members. Two children of one parent have it at the same address, so its bytes can be
compared. This is the witness with the least faith in torch's own getters. Where the symbol, /proc or the layout
is another one (another system, another standard library) ``locate`` returns None, and the other witnesses stand alone.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.witness.children import in_child

WINDOW = 4096
BACKENDS = ("generic", "cuda", "mkldnn")
OPERATIONS = ("all", "conv", "rnn", "matmul")
PRECISIONS = ("none", "ieee", "tf32", "bf16", "default", "bfx9")
CELLS = (
    ("generic", "all"),
    *((backend, op) for backend in ("cuda", "mkldnn") for op in ("all", "matmul", "conv", "rnn")),
)


@dataclass(frozen=True)
class ContextMemory:
    """Where the context lies, how long it is, and where in it the table of precision cells begins (None: no cells)."""

    address: int
    length: int
    table: int | None

    def read(self) -> dict[str, str]:
        """The bytes of the context, eight at a time, and the raw precision cells."""
        data = _memory(self.address, self.length)
        words = {f"at::Context+{at}": data[at : at + 8].hex() for at in range(0, self.length, 8)}
        return words | {f"raw cell {name}": value for name, value in self.cells().items()}

    def cells(self) -> dict[str, str]:
        """The raw precision cells, "backend/operation" -> precision, ``none`` and ``default`` included."""
        if self.table is None:
            return {}
        found = {}
        # A std::unordered_map<pair<Float32Backend, Float32Op>, Float32Precision> of libstdc++: the third word is the
        # first node, a node is (next, backend, operation, precision).
        (node,) = struct.unpack("<Q", _memory(self.address + self.table + 16, 8))
        while node:
            node, backend, op, precision = struct.unpack("<Qiii", _memory(node, 20))
            name = PRECISIONS[precision] if 0 <= precision < len(PRECISIONS) else f"precision {precision}"
            found[f"{BACKENDS[backend]}/{OPERATIONS[op]}"] = name
        return dict(sorted(found.items()))


def _memory(address: int, length: int) -> bytes:
    """Read this process's memory; an address that is not mapped raises OSError, where a pointer would crash."""
    own = os.open("/proc/self/mem", os.O_RDONLY)
    try:
        return os.pread(own, length, address)
    finally:
        os.close(own)


def locate() -> ContextMemory | None:
    """Find the context of this process, or None where it cannot be read."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        function = ctypes.CDLL(str(library))._ZN2at13globalContextEv
        function.restype = ctypes.c_void_p
        address = int(function())
        data = _memory(address, WINDOW)
    except (OSError, AttributeError):
        return None
    if not hasattr(torch._C, "_set_fp32_precision_setter"):
        return _without_cells(address)
    for table in range(8, WINDOW - 56, 8):
        first, count, load = struct.unpack_from("<QQf", data, table + 16)
        if count == len(CELLS) and load == 1.0 and first:
            found = ContextMemory(address, length=table + 64, table=table)
            return found if _tells_the_truth(found) else None
    return None


def _without_cells(address: int) -> ContextMemory | None:
    """Torch 2.8 has no cells: the quantized engine is nearly the last member, and shows where the context ends."""

    def last_change() -> int:
        before = _memory(address, WINDOW)
        current = torch._C._get_qengine()
        torch._C._set_qengine(next(engine for engine in torch._C._supported_qengines() if engine != current))
        after = _memory(address, WINDOW)
        return max(at for at in range(WINDOW) if before[at] != after[at])

    answer = in_child(last_change)
    return None if answer.crash else ContextMemory(address, length=(answer.value // 8 + 2) * 8, table=None)


def _tells_the_truth(found: ContextMemory) -> bool:
    """Whether cells written with torch's setter are read back from memory as written (tried in a child)."""

    def read_what_was_written() -> bool:
        for backend, op in CELLS:
            for precision in ("tf32", "ieee", "none"):
                torch._C._set_fp32_precision_setter(backend, op, precision)
                if found.cells()[f"{backend}/{op}"] != precision:
                    return False
        return True

    answer = in_child(read_what_was_written)
    return answer.crash is None and bool(answer.value)
