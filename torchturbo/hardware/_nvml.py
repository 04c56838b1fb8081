"""Asks NVIDIA's driver through NVML, which needs no CUDA context; the only module that imports pynvml."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from contextlib2 import ExitStack

from torchturbo.hardware._base import Gpu, Reading, Reason

# The bits of nvmlClocksEventReasons, which older drivers call throttle reasons.
_THROTTLE = {
    0x001: "idle: nothing runs on it",
    0x002: "application clocks: someone set them to a fixed value",
    0x004: "power cap: it draws as much as its power limit allows",
    0x008: "hardware slowdown: too hot, or drawing too much power",
    0x010: "sync boost: it keeps the pace of other GPUs in its group",
    0x020: "heat: the driver slows it down to cool it",
    0x040: "heat: the hardware slows it down, by half or more",
    0x080: "power brake: the machine's power supply asks it to slow down",
    0x100: "display: the display clock holds it down",
    0x200: "board limit: the board's electrical limits hold it down",
    0x400: "reliability: it holds its voltage within safe bounds",
}


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU, or a slice of one (MIG), by NVML's handles.

    Attributes:
        handle: what torch calls a device; its name and memory are asked of this.
        board: the physical GPU, which alone knows its capability, power, temperature and clocks.
    """

    handle: Any
    board: Any


class Nvml:
    """NVML while it is open. Cards are counted in NVML's order, before ``CUDA_VISIBLE_DEVICES``."""

    def __init__(self, pynvml: ModuleType) -> None:
        self._pynvml = pynvml

    def ask(self, function: str, *arguments: object) -> Any:
        """NVML's answer; None if this pynvml, driver or card has no such function, or refuses it."""
        try:
            return getattr(self._pynvml, function)(*arguments)
        except (AttributeError, self._pynvml.NVMLError):
            return None

    def text(self, function: str, *arguments: object) -> str | None:
        """NVML's answer in words; old versions of pynvml give bytes."""
        answer = self.ask(function, *arguments)
        return answer.decode() if isinstance(answer, bytes) else answer

    def cards(self) -> list[Card | None]:
        """Every GPU, in NVML's order; None for one that NVML counts but cannot open."""
        count = self.ask("nvmlDeviceGetCount") or 0
        handles = (self.ask("nvmlDeviceGetHandleByIndex", index) for index in range(count))
        return [None if handle is None else Card(handle, handle) for handle in handles]

    def card_called(self, uuid: str) -> Card | None:
        """The GPU or slice with this whole UUID (``GPU-...``, ``MIG-...``)."""
        handle = self.ask("nvmlDeviceGetHandleByUUID", uuid)
        if handle is None:
            return None
        board = self.ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle)  # refused if it is no slice
        return Card(handle, handle if board is None else board)

    def uuid(self, card: Card) -> str:
        """The UUID of a GPU or slice, empty if it tells none."""
        return self.text("nvmlDeviceGetUUID", card.handle) or ""

    def name(self, card: Card) -> str:
        """The name of a GPU or slice."""
        return self.text("nvmlDeviceGetName", card.handle) or "NVIDIA GPU"

    def is_sliced(self, card: Card) -> bool:
        """The GPU is in MIG mode: CUDA uses its slices, never the whole."""
        modes = self.ask("nvmlDeviceGetMigMode", card.handle)
        return modes is not None and modes[0] == 1

    def slices(self, card: Card) -> list[Card]:
        """The slices that a GPU in MIG mode has; the places between them may be vacant."""
        places = self.ask("nvmlDeviceGetMaxMigDeviceCount", card.handle) or 0
        handles = (self.ask("nvmlDeviceGetMigDeviceHandleByIndex", card.handle, n) for n in range(places))
        return [Card(handle, card.board) for handle in handles if handle is not None]

    def driver(self) -> str | None:
        """The driver's version."""
        return self.text("nvmlSystemGetDriverVersion")

    def cuda(self) -> tuple[int, int] | None:
        """The newest CUDA that the driver can run."""
        number = self.ask("nvmlSystemGetCudaDriverVersion_v2")
        return None if number is None else (number // 1000, number % 1000 // 10)

    def gpu(self, index: int, card: Card) -> Gpu:
        """Facts about the card that torch counts as `index`."""
        memory = self.ask("nvmlDeviceGetMemoryInfo", card.handle)
        capability = self.ask("nvmlDeviceGetCudaComputeCapability", card.board)
        return Gpu(
            index=index,
            name=self.name(card),
            capability=None if capability is None else (capability[0], capability[1]),
            memory=None if memory is None else memory.total,
            driver=self.driver(),
        )

    def reading(self, index: int, card: Card) -> Reading:
        """What the card that torch counts as `index` does at this moment."""
        sm_clock, chip = self._pynvml.NVML_CLOCK_SM, self._pynvml.NVML_TEMPERATURE_GPU
        rates = self.ask("nvmlDeviceGetUtilizationRates", card.handle)
        memory = self.ask("nvmlDeviceGetMemoryInfo", card.handle)
        milliwatts = self.ask("nvmlDeviceGetPowerUsage", card.board)
        return Reading(
            index=index,
            utilization=None if rates is None else rates.gpu,
            memory_used=None if memory is None else memory.used,
            power=None if milliwatts is None else milliwatts / 1000,
            temperature=self.ask("nvmlDeviceGetTemperature", card.board, chip),
            clock=self.ask("nvmlDeviceGetClockInfo", card.board, sm_clock),
            max_clock=self.ask("nvmlDeviceGetMaxClockInfo", card.board, sm_clock),
            throttle=self._throttle(card),
        )

    def _throttle(self, card: Card) -> tuple[str, ...] | None:
        bits = self.ask("nvmlDeviceGetCurrentClocksEventReasons", card.board)
        if bits is None:
            bits = self.ask("nvmlDeviceGetCurrentClocksThrottleReasons", card.board)  # before driver 535
        if bits is None:
            return None
        unknown = bits & ~sum(_THROTTLE)
        words = tuple(reason for bit, reason in _THROTTLE.items() if bits & bit)
        return words if not unknown else (*words, f"a reason newer than torchturbo (NVML's bit {unknown:#x})")


def connect(stack: ExitStack) -> Nvml | Reason:
    """Opens NVML until `stack` closes, or says in a sentence why it cannot be asked."""
    try:
        import pynvml
    except ImportError:
        sentence = "NVIDIA's NVML cannot be asked: its Python package nvidia-ml-py is not installed."
        return Reason(sentence, "no pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        sentence = f"NVIDIA's NVML does not answer ({error}), as where no NVIDIA driver is installed."
        return Reason(sentence, "no driver")
    nvml = Nvml(pynvml)
    stack.callback(nvml.ask, "nvmlShutdown")  # through `ask`: a failing farewell is nobody's error
    return nvml
