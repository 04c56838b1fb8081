"""Faulty blocks with turbo's interface, each with one fault that is in wide use. The witness must catch all."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, ClassVar

import torch

C = torch._C


class Block:
    """What the mutants share: the interface, and nothing else."""

    def __init__(self, profile: str = "fast", *, strict: bool = False, **options: Any) -> None:
        self.options = options
        self.before: list[Any] = []

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return None


class Idle(Block):
    """Does nothing, and so leaves nothing: the witness must see no difference (it is no mutant)."""


class PublicCalls(Block):
    """Reads with torch's public getters and puts back with the public setters, as nearly everybody does.

    The setters of float32 precision write more than they say, and some getters raise.
    """

    def __enter__(self) -> Any:
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        self.before.append(before)
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        return self

    def __exit__(self, *about: object) -> None:
        matmul, cudnn = self.before.pop()
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn


class LastInFirstOut(Block):
    """Puts back exactly what it found, which is right only if the newest block leaves first."""

    def __enter__(self) -> Any:
        self.before.append(C._get_cudnn_benchmark())
        C._set_cudnn_benchmark(True)
        return self

    def __exit__(self, *about: object) -> None:
        C._set_cudnn_benchmark(self.before.pop())


class BeforeOnTheObject(Block):
    """Keeps what it found on the object, so that a second entry overwrites it."""

    def __enter__(self) -> Any:
        self.before = [torch.is_grad_enabled()]
        C._set_grad_enabled(False)
        return self

    def __exit__(self, *about: object) -> None:
        C._set_grad_enabled(*self.before)


class HalfOfAPair(Block):
    """Puts determinism back without ``warn_only``, as the public getter gives it."""

    def __enter__(self) -> Any:
        self.before.append(torch.are_deterministic_algorithms_enabled())
        return self

    def __exit__(self, *about: object) -> None:
        C._set_deterministic_algorithms(self.before.pop())


class TorchAutocast(Block):
    """Opens torch's own autocast on one object: exact when nested, not when entered twice or left out of order."""

    def __init__(self, profile: str = "fast", *, strict: bool = False, **options: Any) -> None:
        super().__init__(profile, strict=strict, **options)
        self.region = torch.autocast("cpu", dtype=torch.bfloat16)

    def __enter__(self) -> Any:
        self.region.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *about: object) -> None:
        self.region.__exit__(None, None, None)


class ForgetsAfterAnError(Block):
    """Puts nothing back when the body raised."""

    def __enter__(self) -> Any:
        self.before.append(C._get_mkldnn_deterministic())
        C._set_mkldnn_deterministic(not C._get_mkldnn_deterministic())
        return self

    def __exit__(self, kind: object = None, *about: object) -> None:
        before = self.before.pop()
        if kind is None:
            C._set_mkldnn_deterministic(before)


class SeedsAsForked(Block):
    """Seeds in torch's own `fork_rng`, which forgets the seeds that wait for devices to start."""

    def __enter__(self) -> Any:
        fork = torch.random.fork_rng()
        self.before.append(fork)
        fork.__enter__()
        torch.manual_seed(self.options.get("seed", 0))
        return self

    def __exit__(self, *about: object) -> None:
        self.before.pop().__exit__(None, None, None)


class Swallows(Block):
    """Swallows the body's exception."""

    def __exit__(self, kind: object = None, *about: object) -> bool:
        return kind is not None


class TouchesDefaults(Block):
    """Writes the convolution cell it has read: it reads the same afterwards, and torch's ``default`` is gone."""

    def __exit__(self, *about: object) -> None:
        if hasattr(C, "_set_fp32_precision_setter"):
            C._set_fp32_precision_setter("cuda", "conv", C._get_fp32_precision_getter("cuda", "conv"))
        else:
            C._set_cudnn_allow_tf32(not C._get_cudnn_allow_tf32())


class OldestWins(Block):
    """Restores exactly in any order, but a newer block does not beat an older one: law 3 is broken only inside."""

    _lock = threading.Lock()
    _open: ClassVar[list[Any]] = []
    _beneath: ClassVar[list[bool]] = []

    def __enter__(self) -> Any:
        with self._lock:
            if not self._open:
                self._beneath.append(C._get_cudnn_benchmark())
                C._set_cudnn_benchmark(self.options.get("cudnn_benchmark", True))
            self._open.append(self)
        return self

    def __exit__(self, *about: object) -> None:
        with self._lock:
            self._open.remove(self)
            if not self._open:
                C._set_cudnn_benchmark(self._beneath.pop())


# How each shows: by what it leaves behind, or only by what is wrong while it is open.
MUTANTS: dict[type[Block], str] = {
    PublicCalls: "left_behind",
    LastInFirstOut: "left_behind",
    BeforeOnTheObject: "left_behind",
    HalfOfAPair: "left_behind",
    TorchAutocast: "left_behind",
    ForgetsAfterAnError: "left_behind",
    TouchesDefaults: "left_behind",
    SeedsAsForked: "left_behind",
    Swallows: "inside",
    OldestWins: "inside",
}
