"""A module that answers like pynvml, for machines that are not here."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

GIB = 1024**3


class NVMLError(Exception):
    """What pynvml raises for everything."""


@dataclass(eq=False)
class Card:
    """A GPU; `slices` makes it one in MIG mode, with None for a vacant place."""

    name: str = "NVIDIA A100-SXM4-80GB"
    uuid: str = "GPU-aaaa0000-1111"
    capability: tuple[int, int] = (8, 0)
    memory: int = 80 * GIB
    used: int = 3 * GIB
    throttle: int = 0
    slices: list[Card | None] | None = None
    board: Card | None = None

    def __post_init__(self) -> None:
        for piece in self.slices or []:
            if piece is not None:
                piece.board = self


def slice_of(name: str, uuid: str) -> Card:
    """A slice of a GPU in MIG mode."""
    return Card(name=name, uuid=uuid, memory=5 * GIB, used=1 * GIB)


@dataclass
class Driver:
    """The driver behind the module, which a test can bend.

    Attributes:
        cards: what NVML counts; None is a GPU that cannot be opened.
        refused: functions that answer "not supported".
        broken: the error of `nvmlInit`, if it shall fail.
        opened: how often NVML is open now.
    """

    cards: list[Card | None] = field(default_factory=lambda: [Card()])
    version: str = "570.86.15"
    cuda: int = 12080
    refused: set[str] = field(default_factory=set)
    broken: str | None = None
    opened: int = 0
    in_bytes: bool = False

    def module(self) -> ModuleType:
        """What ``import pynvml`` shall find."""
        module = ModuleType("pynvml")
        module.NVMLError = NVMLError  # type: ignore[attr-defined]
        module.NVML_CLOCK_SM = 1  # type: ignore[attr-defined]
        module.NVML_TEMPERATURE_GPU = 0  # type: ignore[attr-defined]
        for name in (name for name in dir(self) if name.startswith("nvml")):
            setattr(module, name, self._guarded(name))
        return module

    def _guarded(self, name: str) -> Any:
        answer = getattr(self, name)

        def guarded(*arguments: Any) -> Any:
            if name != "nvmlInit" and not self.opened:
                raise NVMLError("Uninitialized")
            if name in self.refused:
                raise NVMLError("Not Supported")
            return answer(*arguments)

        return guarded

    def _said(self, text: str) -> Any:
        return text.encode() if self.in_bytes else text

    @staticmethod
    def _board_only(card: Card) -> None:
        if card.board is not None:
            raise NVMLError("Not Supported")

    def nvmlInit(self) -> None:
        if self.broken is not None:
            raise NVMLError(self.broken)
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlSystemGetDriverVersion(self) -> Any:
        return self._said(self.version)

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self.cuda

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        card = self.cards[index]
        if card is None:
            raise NVMLError("GPU is lost")
        return card

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:
        whole = [card for card in self.cards if card is not None]
        slices = itertools.chain.from_iterable(card.slices or [] for card in whole)
        for card in (*whole, *slices):
            if card is not None and card.uuid == uuid:
                return card
        raise NVMLError("Not Found")

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, card: Card) -> Card:
        if card.board is None:
            raise NVMLError("Invalid Argument")
        return card.board

    def nvmlDeviceGetMigMode(self, card: Card) -> list[int]:
        return [0, 1] if card.slices is None else [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, card: Card) -> int:
        return len(card.slices or [])

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: Card, index: int) -> Card:
        piece = (card.slices or [])[index]
        if piece is None:
            raise NVMLError("Not Found")
        return piece

    def nvmlDeviceGetUUID(self, card: Card) -> Any:
        return self._said(card.uuid)

    def nvmlDeviceGetName(self, card: Card) -> Any:
        return self._said(card.name)

    def nvmlDeviceGetCudaComputeCapability(self, card: Card) -> tuple[int, int]:
        self._board_only(card)
        return card.capability

    def nvmlDeviceGetMemoryInfo(self, card: Card) -> SimpleNamespace:
        return SimpleNamespace(total=card.memory, used=card.used)

    def nvmlDeviceGetUtilizationRates(self, card: Card) -> SimpleNamespace:
        self._board_only(card)
        return SimpleNamespace(gpu=97, memory=41)

    def nvmlDeviceGetPowerUsage(self, card: Card) -> int:
        self._board_only(card)
        return 312_500

    def nvmlDeviceGetTemperature(self, card: Card, sensor: int) -> int:
        assert sensor == 0
        self._board_only(card)
        return 61

    def nvmlDeviceGetClockInfo(self, card: Card, clock: int) -> int:
        assert clock == 1
        self._board_only(card)
        return 1095

    def nvmlDeviceGetMaxClockInfo(self, card: Card, clock: int) -> int:
        assert clock == 1
        self._board_only(card)
        return 1410

    def nvmlDeviceGetCurrentClocksEventReasons(self, card: Card) -> int:
        self._board_only(card)
        return card.throttle

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, card: Card) -> int:
        self._board_only(card)
        return card.throttle
