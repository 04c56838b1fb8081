"""Which GPUs torch calls ``cuda``, found without starting CUDA: NVML answers, and torch once it has."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from contextlib2 import ExitStack

from torchturbo.hardware._base import Gpu, Reading, Reason
from torchturbo.hardware._nvml import Card, Nvml, connect


@dataclass(frozen=True, slots=True)
class Found:
    """The GPUs, and what there is to say of them.

    Attributes:
        gpus: those that torch can use, in its order.
        reasons: sentences on what is absent or uncertain.
        final: asking again, once torch has started CUDA, would tell nothing new.
    """

    gpus: tuple[Gpu, ...]
    reasons: tuple[str, ...]
    final: bool


def ask() -> Found:
    """The GPUs that torch can use. Starts nothing: no CUDA context, no driver call but NVML's."""
    if torch.version.hip is not None:
        return _rocm(torch.version.hip)
    with ExitStack() as stack:
        found = _found(connect(stack))
    return found


def has_started() -> bool:
    """Whether torch has started CUDA (or ROCm) in this process."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def readings() -> tuple[Reading, ...]:
    """What each GPU that torch can use does at this moment; empty where NVML or torch has none."""
    with reader() as read:
        now = read()
    return now


@contextmanager
def reader() -> Iterator[Callable[[], tuple[Reading, ...]]]:
    """What gives `readings` again and again; NVML stays open from the first one on, as opening it takes long."""
    with ExitStack() as stack:
        opened: list[Nvml | Reason] = []

        def read() -> tuple[Reading, ...]:
            if torch.version.cuda is None:
                return ()
            if not opened:
                opened.append(connect(stack))
            nvml = opened[0]
            return () if isinstance(nvml, str) else tuple(_read(nvml))

        yield read


def _read(nvml: Nvml) -> Iterator[Reading]:
    for index, card in enumerate(_cards(nvml)):
        yield Reading(index) if card is None else nvml.reading(index, card)


def _cards(nvml: Nvml) -> list[Card | None]:
    """NVML's cards in torch's order; None for a device that NVML cannot find."""
    if not has_started():
        return [*_visible(nvml).cards]
    return [_card_of(nvml, index) for index in range(torch.cuda.device_count())]


def _card_of(nvml: Nvml, index: int) -> Card | None:
    """NVML's card for a device of a torch that has started: its UUID is the same for both."""
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    return nvml.card_called(f"GPU-{uuid}") or nvml.card_called(f"MIG-{uuid}")


def _found(nvml: Nvml | str) -> Found:
    if torch.version.cuda is None:
        return _without_cuda(nvml)
    if has_started():
        return _from_torch(nvml)
    if isinstance(nvml, str):
        return Found((), (nvml,), final=not _has_driver())
    return _from_nvml(nvml, torch.version.cuda)


def _has_driver() -> bool:
    """Whether CUDA's own library is here, which some machines have without NVML; loading starts nothing."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _rocm(version: str) -> Found:
    unproven = f"This torch build is for AMD GPUs (ROCm {version}), on which torchturbo is unproven."
    if not has_started():
        later = "AMD GPUs can only be asked once torch has started them, and it has not yet."
        return Found((), (unproven, later), final=False)
    # torch gives these chips a capability too (MI300: 9.4), but it does not mean what it means for NVIDIA's.
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    gpus = tuple(Gpu(index, p.name, None, p.total_memory, None) for index, p in enumerate(properties))
    return Found(gpus, (unproven,), final=True)


def _without_cuda(nvml: Nvml | str) -> Found:
    build = f"This torch build ({torch.__version__}) has no CUDA"
    if isinstance(nvml, str):
        return Found((), (f"{build}.", nvml), final=True)
    here = [card for card in nvml.cards() if card is not None]
    if not here:
        return Found((), (f"{build}, and NVIDIA's driver knows of no GPU here.",), final=True)
    here_in_vain = Reason(f"{build}, so torch cannot use what is here: {_names(nvml, here)}.", "cpu-only torch")
    return Found((), (here_in_vain,), final=True)


def _from_torch(nvml: Nvml | str) -> Found:
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    driver = None if isinstance(nvml, str) else nvml.driver()
    gpus = tuple(Gpu(index, p.name, (p.major, p.minor), p.total_memory, driver) for index, p in enumerate(properties))
    return Found(gpus, (nvml,) if isinstance(nvml, str) else (), final=True)


def _from_nvml(nvml: Nvml, built_for: str) -> Found:
    seen = _visible(nvml)
    newest = nvml.cuda()
    if seen.cards and newest is not None and newest[0] < int(built_for.partition(".")[0]):
        old = Reason(
            f"The NVIDIA driver {nvml.driver()} runs CUDA {newest[0]}.{newest[1]} at most, and this torch is "
            f"built for CUDA {built_for}, so torch cannot use what is here: {_names(nvml, seen.cards)}.",
            "old driver",
        )
        return Found((), (*seen.reasons, old), final=False)
    gpus = tuple(nvml.gpu(index, card) for index, card in enumerate(seen.cards))
    return Found(gpus, tuple(seen.reasons), final=bool(gpus) and seen.certain)


@dataclass(frozen=True, slots=True)
class _Visible:
    """The cards that CUDA will count, in the order in which it will, as far as NVML can know."""

    cards: list[Card]
    reasons: list[str]
    certain: bool


def _visible(nvml: Nvml) -> _Visible:
    """Applies ``CUDA_VISIBLE_DEVICES`` and MIG as CUDA does, without CUDA.

    torch has this too, but in private functions, which for MIG ask CUDA and so start its driver.
    """
    cards = nvml.cards()
    usable = [card for card in cards if card is not None]
    lost = [n for n, card in enumerate(cards) if card is None]
    reasons: list[str] = [Reason(f"NVML counts GPU {n}, but cannot open it.", "lost GPU") for n in lost]
    if not usable:
        return _Visible([], [*reasons, "NVIDIA's driver answers, but has no GPU to offer."], certain=False)

    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    certain = True
    if wanted is None:
        chosen = usable
    elif wanted.startswith("MIG-"):
        chosen = []
        for card in map(nvml.card_called, _uuids(wanted, "MIG-")):
            if card is None:
                break
            chosen.append(card)
    elif wanted.startswith("GPU-"):
        chosen = _by_uuid(nvml, usable, _uuids(wanted, "GPU-"))
    else:
        chosen = [card for card in _by_ordinal(cards, _ordinals(wanted)) if card is not None]
    if not chosen:
        hidden = Reason(f"CUDA_VISIBLE_DEVICES={wanted!r} hides what is here: {_names(nvml, usable)}.", "hidden GPUs")
        return _Visible([], [*reasons, hidden], certain=False)

    by_name = wanted is not None and wanted.startswith(("GPU-", "MIG-"))
    if not by_name and _order_is_unknown(nvml, usable):
        reasons.append(
            "The GPUs here differ, and CUDA may count them fastest first, which is not the driver's order: "
            "their indexes are certain once CUDA has started, or with CUDA_DEVICE_ORDER=PCI_BUS_ID."
        )
        certain = False
    return _first_slice(nvml, _Visible(chosen, reasons, certain))


def _first_slice(nvml: Nvml, seen: _Visible) -> _Visible:
    """Where a GPU is cut into slices (MIG), CUDA takes the first, and that one device is all it counts."""
    whole, slices, empty = [], [], []
    for card in seen.cards:
        if card.board is not card.handle:
            slices.append(card)
        elif not nvml.is_sliced(card):
            whole.append(card)
        elif found := nvml.slices(card):
            slices += found
        else:
            empty.append(card)
    reasons = list(seen.reasons)
    if empty:
        without = f"In MIG mode without a slice, so that CUDA cannot use it: {_names(nvml, empty)}."
        reasons.append(Reason(without, "no slice"))
    if not slices:
        return _Visible(whole, reasons, seen.certain)
    if others := [*slices[1:], *whole]:
        reasons.append(f"CUDA uses one slice (MIG) and then nothing else, so not {_names(nvml, others)}.")
    return _Visible(slices[:1], reasons, certain=not others and seen.certain)


def _order_is_unknown(nvml: Nvml, cards: list[Card]) -> bool:
    if os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":  # the order that NVML has
        return False
    return len({nvml.name(card) for card in cards}) > 1


def _ordinals(wanted: str) -> list[int]:
    """The numbers of a list, read as C's strtoul does ("1gpu" is 1), up to the first that is none."""
    numbers: list[int] = []
    for word in wanted.split(","):
        number = re.match(r"[+-]?[0-9]+", word.strip())
        if number is None or int(number[0]) < 0:
            break
        numbers.append(int(number[0]))
    return numbers if len(set(numbers)) == len(numbers) else []  # CUDA shows nothing if one is repeated


def _uuids(wanted: str, prefix: str) -> list[str]:
    """The UUIDs of a list, up to the first word that is none."""
    words = wanted.split(",")
    good = next((n for n, word in enumerate(words) if not word.startswith(prefix)), len(words))
    return words[:good] if len(set(words[:good])) == good else []


def _by_ordinal(cards: list[Card | None], numbers: list[int]) -> list[Card | None]:
    good = next((n for n, number in enumerate(numbers) if number >= len(cards)), len(numbers))
    return [cards[number] for number in numbers[:good]]


def _by_uuid(nvml: Nvml, cards: list[Card], starts: list[str]) -> list[Card]:
    """The cards whose UUIDs begin so, up to the first that fits none or several of them."""
    uuids = [nvml.uuid(card) for card in cards]
    chosen: list[Card] = []
    for start in starts:
        fitting = [card for card, uuid in zip(cards, uuids, strict=True) if uuid.startswith(start)]
        if len(fitting) != 1:
            break
        chosen += fitting
    return chosen if len({id(card) for card in chosen}) == len(chosen) else []


def _names(nvml: Nvml, cards: list[Card]) -> str:
    return ", ".join(nvml.name(card) for card in cards)
