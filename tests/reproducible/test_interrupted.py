"""An interrupt (Ctrl-C) while everything is put back is held until that is done: state is never left halfway."""

from __future__ import annotations

import gc
import itertools
import sys
from contextlib import nullcontext
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

from torchturbo._replay.here import Here
from torchturbo._replay.kept import Keeper


class _Interrupt:
    """Raises KeyboardInterrupt at one of the places at which Python looks for one, from where everything is put back.

    Args:
        at: which.

    Attributes:
        come: whether it has come.
    """

    def __init__(self, at: int) -> None:
        self.left = at
        self.come = self._going_back = False

    def __call__(self, frame: FrameType, event: str, what: Any) -> None:
        self._going_back |= frame.f_code is Keeper.put_back.__code__
        if self._going_back and event in ("call", "c_return") and what is not sys.setprofile:
            self.left -= 1
            if self.left < 0:
                sys.setprofile(None)
                self.come = True
                raise KeyboardInterrupt


def test_what_an_interrupt_leaves_halfway_is_put_back() -> None:
    model, losses = nn.Linear(2, 2), [0.0]
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        loss = model(torch.rand(3, 2)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    here = Here(step)
    here.find(nullcontext())
    weights, stream = model.weight.detach().clone(), torch.get_rng_state()
    came = 0
    for at in itertools.count(0, 3):
        interrupt = _Interrupt(at)
        try:
            sys.setprofile(interrupt)
            here.seconds(nullcontext())
        except KeyboardInterrupt:
            came += 1
        finally:
            sys.setprofile(None)
        assert torch.equal(model.weight, weights), at
        assert torch.equal(torch.get_rng_state(), stream), at
        assert losses == [0.0], at
        assert not optimizer.state, at
        assert model.weight.grad is None, at
        assert gc.isenabled()
        if not interrupt.come:
            break
    assert came > 20


def test_what_torch_refuses_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(keeper: Keeper) -> None:
        asked.append(keeper)
        raise RuntimeError("refused")

    here = Here(lambda: None)
    monkeypatch.setattr(Keeper, "put_back", refuse)
    with pytest.raises(RuntimeError, match="refused"):
        here.seconds(nullcontext())
    assert len(asked) == 1
