"""The options of torchturbo as things to watch, by their own exact cells; and the parents of float32 precision."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from torchturbo._catalogue import SETTINGS
from torchturbo._turbo import _THREAD, _leave
from torchturbo.errors import TurboError
from torchturbo.settings._base import Cell, Setting
from torchturbo.settings._cells import HAS_CELLS, get, put, raw_all
from torchturbo.settings._matmul import MATMUL, Matmul
from torchturbo.testing._of_torch import _by_with, _shown_on
from torchturbo.testing._thing import Raw, Thing

_IN_TORCHS_WORDS = re.compile(r"\b(torch(?:\.\w+)+)(?:[^:]*)$")
_NO_CALL = {"cudnn_precision": "torch.backends.cudnn.allow_tf32", "autocast": "torch.autocast"}
BY_BLOCKS = ("a region", "accumulated", "how a scale", "the seed")
"""How cells begin that nothing but a block of torchturbo writes."""


def of_options() -> Iterator[Thing]:
    """Blocks first, since leaving one puts all else back; then parents before what follows them."""
    yield Thing("block", "with torchturbo.turbo", _blocks, _close, _shown_blocks, advice=_by_with)
    if HAS_CELLS:
        for backend in ("generic", "mkldnn"):
            yield _parent(backend)
    seen: set[Cell] = set()
    for setting in SETTINGS.values():
        for cell in setting.cells:
            if cell not in seen and not cell.name.startswith(BY_BLOCKS):
                seen.add(cell)
                yield _of(setting, cell)


def _of(setting: Setting, cell: Cell) -> Thing:
    alone = len(setting.cells) == 1
    if cell is MATMUL:
        return Thing(setting.name, words(setting, cell), _read_matmul, _write_matmul, advice=_compiled)
    return Thing(
        setting.name,
        words(setting, cell),
        cell.read,
        cell.write,
        partial(_shown, setting) if alone else _shown_on,
        advice=partial(_block, setting) if alone else _torchs_own_block,
    )


def words(setting: Setting, cell: Cell) -> str:
    """What users of torch write to set it, as the option's own help ends."""
    if setting.name in _NO_CALL:
        device = cell.name.rpartition(" ")[2]
        return _NO_CALL[setting.name] + (f"({device!r})" if setting.name == "autocast" else "")
    found = _IN_TORCHS_WORDS.search(setting.help)
    return found[1] if found else f"os.environ[{cell.name!r}]"


def _shown(setting: Setting, raw: Raw) -> str:
    return repr(setting.show(raw))


def _block(setting: Setting, was: Raw, now: Raw) -> str:
    """The block that has it in force and puts it back, where a block can."""
    try:
        value = setting.parse(setting.show(now))
    except (TurboError, KeyError):
        return ""
    return f'with turbo(Profile("mine", {setting.name}={value!r})): puts it back'


def _torchs_own_block(was: Raw, now: Raw) -> str:
    return "with torch.autocast(...): puts it back"


# ----------------------------------------------------------------------------------------------------- precision


class _Matmul(NamedTuple):
    """`Matmul` as it is kept; what it means changes with its parents, which are watched by themselves."""

    legacy: str
    cuda: str
    mkldnn: str


def _read_matmul() -> _Matmul:
    return _Matmul(*MATMUL.read()[:3])


def _write_matmul(was: _Matmul, now: Raw) -> None:
    MATMUL.write(Matmul(*was, was.cuda), None)


def _compiled(was: _Matmul, now: _Matmul) -> str:
    """Every compilation writes what the cell resolves to into the cell: torch's doing, and not what a test asks for."""
    if HAS_CELLS:
        pinned = was.cuda == "none" != now.cuda and now._replace(cuda="none") == was and "torch._dynamo" in sys.modules
    else:
        pinned = (was.legacy, now.legacy) == ("medium", "high") and "torch._dynamo" in sys.modules
    if pinned:
        return (
            "torch.compile itself pins what was inherited, at every compilation; a block of turbo around takes it back"
        )
    shown = {"ieee": "highest", "none": "highest", "tf32": "high"}.get(now.cuda, "highest")
    value = now.legacy if not HAS_CELLS else "medium" if now.mkldnn == "bf16" else shown
    return f'with turbo(Profile("mine", matmul_precision={value!r})): puts it back'


def _parent(backend: str) -> Thing:
    generic = backend == "generic"
    read: Callable[[], Raw] = partial(get, "generic", "all") if generic else partial(raw_all, backend)

    def write(was: Raw, now: Raw) -> None:
        put(backend, "all", was)

    name = "fp32_precision" if generic else f"{backend}_fp32_precision"
    return Thing(name, f"torch.backends.{'' if generic else 'mkldnn.'}fp32_precision", read, write)


# -------------------------------------------------------------------------------------------------------- blocks


def _blocks() -> Raw:
    return tuple(_THREAD.open)


def _close(was: Raw, now: Raw) -> None:
    for active in reversed(now):
        if active not in was:
            _leave(active, None, ended=False)


def _shown_blocks(raw: Raw) -> str:
    return ", ".join(f"open since {active.where}" for active in raw) or "none open"
