"""The dtype of new tensors, by every name that people type."""

from __future__ import annotations

import pytest
import torch

from torchturbo import Profile, turbo
from torchturbo._catalogue import SETTINGS


@pytest.mark.parametrize(
    ("dtype", "spellings"),
    [
        (torch.float32, ("float32", "fp32", torch.float32)),
        (torch.float64, ("float64", "fp64", torch.float64)),
        (torch.bfloat16, ("bfloat16", "bf16", torch.bfloat16)),
        (torch.float16, ("float16", "fp16", torch.float16)),
    ],
)
def test_every_name_makes_tensors_of_its_dtype(dtype: torch.dtype, spellings: tuple[object, ...]) -> None:
    for spelling in spellings:
        with turbo(Profile("one"), default_dtype=spelling):
            assert torch.ones(1).dtype is dtype
            assert SETTINGS["default_dtype"].now() == spellings[0]
    assert torch.ones(1).dtype is torch.float32
