"""Autograd: anomaly detection is two flags, of the process though it looks like a thread's; grad mode is a thread's."""

from __future__ import annotations

import pytest
import torch

from tests.laws.crew import in_new_thread
from torchturbo import Profile, turbo


@pytest.mark.parametrize("before", [(False, True), (False, False), (True, False), (True, True)])
@pytest.mark.parametrize("asked", [False, True])
def test_both_flags_of_anomaly_detection_come_back(before: tuple[bool, bool], asked: bool) -> None:
    def read() -> tuple[bool, bool]:
        return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()

    torch.set_anomaly_enabled(*before)
    try:
        with turbo(Profile("one"), anomaly=asked):
            assert read() == (asked, True)
            assert in_new_thread(read) == (asked, True)
        assert read() == before
    finally:
        torch.set_anomaly_enabled(False, True)


def test_anomaly_detection_names_the_forward_call() -> None:
    def backward() -> None:
        with pytest.raises(RuntimeError, match="returned nan"):
            result.backward()

    with turbo(Profile("one"), anomaly=True):
        result = torch.sqrt(torch.tensor(-1.0, requires_grad=True))
        with pytest.warns(UserWarning, match="Traceback of forward call"):
            backward()


def test_nothing_is_recorded_without_grad() -> None:
    weight = torch.ones(2, requires_grad=True)
    with turbo(Profile("one"), grad=False):
        assert not (weight * 2).requires_grad
        assert in_new_thread(lambda: (weight * 2).requires_grad)
        with turbo(Profile("one"), grad=True):
            assert (weight * 2).requires_grad
        assert not (weight * 2).requires_grad
    assert (weight * 2).requires_grad
