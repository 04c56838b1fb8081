"""Apple's GPU: its facts where torch can use it, a sentence where it cannot, silence on other machines."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest
import torch

from torchturbo.hardware import Mps, _room, mps


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M1 Max", raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 2097152, "SC_PAGE_SIZE": 16384}.__getitem__)
    monkeypatch.setattr(_room, "_OWN", Path("/nonexistent"))


def test_an_apple_gpu_is_described(apple: None) -> None:
    assert mps.ask() == (Mps("Apple M1 Max", 32 * 1024**3), ("torchturbo is unproven on Apple GPUs.",))


def test_a_torch_that_tells_no_name_has_one_all_the_same(apple: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.backends.mps, "get_name")
    assert mps.ask()[0] == Mps("Apple GPU", 32 * 1024**3)


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_memory_that_cannot_be_asked_is_none(
    apple: None, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse(name: str) -> int:
        raise error(name)

    monkeypatch.setattr(os, "sysconf", refuse)
    assert mps.ask()[0] == Mps("Apple M1 Max", None)


def test_an_apple_without_a_usable_gpu_has_a_reason(apple: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    found, (reason,) = mps.ask()
    assert found is None
    assert "MPS needs Apple silicon" in reason
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: False)
    found, (reason,) = mps.ask()
    assert found is None
    assert reason == f"This torch build ({torch.__version__}) has no MPS, so it cannot use an Apple GPU."


def test_other_machines_do_not_miss_it(apple: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    assert mps.ask() == (None, ())
