"""Float32 precision with one fault each, of the kind that a reader of torch's documentation would make."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch

from tests.laws import precision
from tests.laws.precision import Swapped
from tests.laws.pristine import HAS_CELLS, isolated
from tests.laws.start import PRECISIONS, play_precision
from tests.witness.memory import CELLS
from torchturbo.settings import _cells, _cudnn, _matmul, cudnn, mkldnn
from torchturbo.settings._base import Cell
from torchturbo.settings._cudnn import CUDNN, Cudnn
from torchturbo.settings._edits import Raw
from torchturbo.settings._matmul import MATMUL, Matmul
from torchturbo.settings.mkldnn import MKLDNN

_C: Any = torch._C
_get, _set = _cells.get, _cells.put
_MODULES = (_cells, _matmul, _cudnn, mkldnn, cudnn)


@dataclass(frozen=True, repr=False)
class Mutant:
    """One fault: names of a module that are replaced, and cells that are."""

    name: str
    replaced: tuple[tuple[Any, str, Any], ...] = ()
    swapped: tuple[tuple[Cell, Cell], ...] = ()

    def __repr__(self) -> str:
        return self.name


def fault(name: str, replacement: Any) -> Mutant:
    """A function replaced, in every module that knows it."""
    knowing = [module for module in _MODULES if callable(getattr(module, name, None))]
    assert knowing, name
    return Mutant(f"{name} {replacement.__name__}", replaced=tuple((module, name, replacement) for module in knowing))


def written(cell: Cell | None, write: Callable[[Any, Any], None]) -> Mutant:
    """A cell's write replaced."""
    assert cell is not None
    return Mutant(f"{cell.name} {write.__name__}", swapped=((cell, replace(cell, write=write)),))


def read(cell: Cell | None, wrong: Callable[[], Raw]) -> Mutant:
    """A cell's read replaced."""
    assert cell is not None
    return Mutant(f"{cell.name} {wrong.__name__}", swapped=((cell, replace(cell, read=wrong)),))


# ------------------------------------------------------------------------------------------------ reading by a probe


def without_putting_generic_back(backend: str) -> str:
    value: str = _get(backend, "all")
    generic = _get("generic", "all")
    if value == "none" or value != generic:
        return value
    other = "tf32" if generic == "ieee" else "ieee"
    _set("generic", "all", other)
    return "none" if _get(backend, "all") == other else value


def takes_the_resolved_value(backend: str, operation: str = "all") -> str:
    value: str = _get(backend, operation)
    return value


def takes_what_follows_for_none(backend: str, operation: str) -> str:
    """Leaves that are ``default`` are read as ``none``, which follows its parent as well."""
    raw = _leaf(backend, operation)
    return "none" if raw == "default" else raw


def without_putting_the_parent_back(backend: str, operation: str) -> str:
    raw = _leaf(backend, operation)
    if _get(backend, operation) == _get(backend, "all") != "none":
        _set(backend, "all", _get("generic", "all"))
    return raw


_leaf = _cells.raw_leaf


def takes_undecided_for_explicit(operation: str) -> str:
    return "tf32"


def takes_undecided_for_default(operation: str) -> str:
    return "default"


def believes_the_leaves(conv: str, rnn: str) -> bool:
    return bool(_get("cuda", "conv") == "tf32" or _get("cuda", "rnn") == "tf32")


def believes_that_nothing_happened(over: Cudnn) -> bool:
    return True


def from_torchs_own_getter() -> Matmul:
    try:
        word = _C._get_float32_matmul_precision()
    except RuntimeError:
        word = "highest"
    return _matmul._read_matmul()._replace(legacy=word)


# ------------------------------------------------------------------------------------------------------------ writing


def writes_cells_first(raw: Matmul, over: Matmul) -> None:
    """The older word comes last, and overwrites two cells."""
    _set("cuda", "matmul", raw.cuda)
    _set("mkldnn", "matmul", raw.mkldnn)
    _C._set_float32_matmul_precision(raw.legacy)


def writes_the_word_only(raw: Matmul, over: Matmul) -> None:
    """As nearly everybody does: what torch's own getter said goes back through torch's own setter."""
    _C._set_float32_matmul_precision(raw.legacy)


def writes_the_cells_only(raw: Matmul, over: Matmul) -> None:
    _set("cuda", "matmul", raw.cuda)
    _set("mkldnn", "matmul", raw.mkldnn)


def writes_what_differs(raw: Matmul, over: Matmul) -> None:
    """Trusts that what was put is still there, though compiling has changed it."""
    if raw.legacy != over.legacy:
        _C._set_float32_matmul_precision(raw.legacy)
    for part, backend in ((raw.cuda, "cuda"), (raw.mkldnn, "mkldnn")):
        if part != getattr(over, backend) or raw.legacy != over.legacy:
            _set(backend, "matmul", part)


def writes_the_leaves_always(raw: Cudnn, over: Cudnn) -> None:
    """``default`` is put back as what it reads, which nobody can tell at once, and which is lost for good."""
    CUDNN.write(raw, over)
    for operation in ("conv", "rnn"):
        _set("cuda", operation, _get("cuda", operation))


def writes_the_flag_last(raw: Cudnn, over: Cudnn) -> None:
    CUDNN.write(raw, over)
    if raw.allow_tf32 != over.allow_tf32:
        _C._set_cudnn_allow_tf32(raw.allow_tf32)


def writes_the_flag_always(raw: Cudnn, over: Cudnn) -> None:
    _C._set_cudnn_allow_tf32(raw.allow_tf32)
    CUDNN.write(raw, over)


def forgets_the_parent(raw: Cudnn, over: Cudnn) -> None:
    CUDNN.write(raw._replace(all=over.all), over)


def swaps_the_leaves(raw: Cudnn, over: Cudnn) -> None:
    CUDNN.write(raw._replace(conv=raw.rnn, rnn=raw.conv), over)


def writes_the_public_attribute(raw: Any, over: Any) -> None:
    """torch.backends.mkldnn.fp32_precision writes the cell of everything (torch 2.9 to 2.15)."""
    assert MKLDNN is not None
    MKLDNN.write(raw, over)
    if raw != over:
        torch.backends.mkldnn.fp32_precision = raw.conv if raw.conv != "default" else "none"


def leaves_rnn(raw: Any, over: Any) -> None:
    assert MKLDNN is not None
    MKLDNN.write(raw._replace(rnn=over.rnn), over)


def lets_products_follow(beneath: Matmul) -> Matmul:
    """cuda/all is written, and cuda/matmul follows it."""
    return beneath


MUTANTS: tuple[Mutant, ...] = (
    (
        fault("raw_all", without_putting_generic_back),
        fault("raw_all", takes_the_resolved_value),
        fault("raw_leaf", takes_the_resolved_value),
        fault("raw_leaf", takes_what_follows_for_none),
        fault("raw_leaf", without_putting_the_parent_back),
        fault("_decided", takes_undecided_for_explicit),
        fault("_decided", takes_undecided_for_default),
        fault("_allow_tf32", believes_the_leaves),
        fault("_as_left", believes_that_nothing_happened),
        fault("explicit_matmul", lets_products_follow),
        read(MATMUL, from_torchs_own_getter),
        written(MATMUL, writes_cells_first),
        written(MATMUL, writes_the_word_only),
        written(MATMUL, writes_the_cells_only),
        written(MATMUL, writes_what_differs),
        written(CUDNN, writes_the_leaves_always),
        written(CUDNN, writes_the_flag_last),
        written(CUDNN, writes_the_flag_always),
        written(CUDNN, forgets_the_parent),
        written(CUDNN, swaps_the_leaves),
        written(MKLDNN, writes_the_public_attribute),
        written(MKLDNN, leaves_rnn),
    )
    if _cells.HAS_DEFAULT
    else ()
)
"""Only where torch has ``default`` cells: that is where every one of these faults can be made."""


@contextmanager
def broken(mutant: Mutant) -> Iterator[Swapped]:
    """The module with the mutant's fault, while the block runs."""
    patches = [patch.object(module, name, replacement) for module, name, replacement in mutant.replaced]
    for each in patches:
        each.start()
    try:
        yield dict(mutant.swapped)
    finally:
        for each in patches:
            each.stop()


def trial(swapped: Swapped, cases: int = 150) -> None:
    """Puts float32 precision to its laws from arbitrary starts, the same ones each time. For use in a child only.

    Raises:
        Violation: it does not hold one of them.
    """
    drawn = random.Random(20260101)
    for _ in range(cases):
        isolated(lambda: _one(drawn, swapped))


def _one(drawn: random.Random, swapped: Swapped) -> None:
    play_precision([_step(drawn) for _ in range(drawn.randrange(9))])
    asked = [
        {name: drawn.choice(("highest", "high") if name.startswith("matmul") else ("ieee", "tf32")) for name in names}
        for names in (drawn.sample(precision.NAMES, drawn.randrange(1, len(precision.NAMES) + 1)) for _ in range(3))
    ]
    precision.whatever_the_body_did(asked[0], [_in_the_body(drawn, asked[0])], swapped)
    precision.any_order(asked, [drawn.randrange(3) for _ in asked], swapped=swapped)
    precision.reads_the_truth(swapped)


def _step(drawn: random.Random) -> tuple[str, Any]:
    kind = drawn.choice(("word", "flag", "leaf", "leaf", "any", "any", "any") if HAS_CELLS else ("word", "flag"))
    if kind == "word":
        return "matmul", drawn.choice(("highest", "high", "medium"))
    if kind == "flag":
        return "cudnn.allow_tf32", drawn.random() < 0.5
    if kind == "leaf":  # beside a word that says otherwise: torch's own getters raise
        return drawn.choice(("cuda/matmul", "mkldnn/matmul", "cuda/conv", "cuda/rnn")), drawn.choice(PRECISIONS)
    return "/".join(drawn.choice(CELLS)), drawn.choice(PRECISIONS)


def _in_the_body(drawn: random.Random, options: precision.Options) -> tuple[str, Any]:
    """What compiling does, or what a user may do to what the block holds."""
    steps: list[tuple[str, Any]] = [("compile", None)]
    if "matmul_precision" in options:
        steps += [("matmul", "high")]
        steps += [("cuda/matmul", "tf32"), ("mkldnn/matmul", "bf16")] if HAS_CELLS else []
    if "cudnn_precision" in options:
        steps += [("cudnn.allow_tf32", on) for on in (True, False)]
    if "cudnn_precision" in options and HAS_CELLS:
        steps += [(f"cuda/{operation}", word) for operation in ("all", "conv", "rnn") for word in ("ieee", "tf32")]
    return drawn.choice(steps)
