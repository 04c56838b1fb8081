"""Machines for these tests: a driver that can be bent, a torch built so or so, and a fresh memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from tests.hardware.driver import Driver
from torchturbo import hardware


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """`detect` has not looked yet, in a process with no wish about devices; afterwards all is as it was."""
    monkeypatch.setattr(hardware, "_real", None)
    monkeypatch.setattr(hardware, "_real_is_final", False)
    monkeypatch.setattr(hardware, "known", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """NVIDIA's driver with one A100, under a torch built for CUDA 12.8 that has not started it."""
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", driver.module())
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.version, "hip", None)
    return driver


@pytest.fixture
def libcuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The libraries of CUDA itself that can be loaded: none, until a test adds one."""
    libraries: list[str] = []

    def load(name: str) -> None:
        if name not in libraries:
            raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    return libraries


@pytest.fixture
def start_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes torch look as if it had started CUDA and found these devices."""

    def start(*devices: SimpleNamespace) -> None:
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(devices))
        monkeypatch.setattr(torch.cuda, "get_device_properties", devices.__getitem__)

    return start
