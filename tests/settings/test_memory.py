"""What torch's allocator is told before it starts, and its cache."""

from __future__ import annotations

import gc
import os
import weakref
from typing import Any

import pytest
import torch

from torchturbo import Profile, turbo
from torchturbo._catalogue import SETTINGS
from torchturbo.errors import OptionValueError
from torchturbo.settings import memory
from torchturbo.testing import pretend_hardware

ASKED = "expandable_segments:True"


def only(**options: Any) -> turbo:
    return turbo(Profile("only", **options))


def test_it_stands_in_the_environment_while_the_block_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(memory._VARIABLE, raising=False)
    monkeypatch.setattr(memory, "_started", memory._Started())
    with pretend_hardware("A100"):
        with only(alloc_conf=ASKED):
            assert os.environ[memory._VARIABLE] == ASKED
            assert memory._told() is None
        assert memory._VARIABLE not in os.environ
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        with only(alloc_conf=ASKED):
            assert f"CUDA was started without it and goes on so: {'what'}" in str(memory._told())
            assert f"`{memory._VARIABLE}={ASKED} python ...`" in str(memory._told())
    with only(alloc_conf=ASKED):
        assert memory._VARIABLE not in os.environ


@pytest.mark.parametrize("wrong", ["", "expandable_segments", "a:1, b:2"])
def test_what_the_allocator_could_not_read_is_refused(wrong: str) -> None:
    with pytest.raises(OptionValueError, match="expected NAME:VALUE"):
        turbo(alloc_conf=wrong)


def test_the_cache_is_emptied_once_on_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    gc.disable()
    try:
        cycle: Any = type("Cycle", (), {})()
        cycle.itself, gone = cycle, weakref.ref(cycle)
        del cycle
        with pretend_hardware("A100"), only(empty_cache=True), only(empty_cache=True):
            assert gone() is None
            assert SETTINGS["empty_cache"].now() is True
    finally:
        gc.enable()
    assert emptied == [1]
