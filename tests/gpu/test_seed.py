"""What only a GPU can show of seeds: its generators, before and after CUDA has started, and the same bits twice."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.laws.around import NOTHING
from torchturbo import turbo

pytestmark = pytest.mark.gpu


def drawn() -> list[float]:
    return torch.rand(3, device="cuda").tolist()  # type: ignore[no-any-return]


def test_a_gpu_that_runs_starts_from_the_seed_and_comes_back() -> None:
    torch.cuda.init()
    states = torch.cuda.get_rng_state_all()
    with turbo(NOTHING, seed=5):
        mine = drawn()
        torch.cuda.manual_seed_all(8)
        drawn()
    for state, now in zip(states, torch.cuda.get_rng_state_all(), strict=True):
        assert torch.equal(state, now)
    generator = torch.Generator("cuda").manual_seed(5)
    assert torch.rand(3, device="cuda", generator=generator).tolist() == mine
    with turbo(NOTHING, seed=5):
        assert drawn() == mine


FRESH = """
import torch
from torchturbo import Profile, turbo

nothing = Profile("nothing")
torch.manual_seed(3)
with turbo(nothing, seed=5):
    assert not torch.cuda.is_initialized()
    mine = torch.rand(3, device="cuda").tolist()
outside = torch.rand(3, device="cuda").tolist()
assert mine == torch.rand(3, device="cuda", generator=torch.Generator("cuda").manual_seed(5)).tolist()
assert outside == torch.rand(3, device="cuda", generator=torch.Generator("cuda").manual_seed(3)).tolist()
"""


def test_cuda_that_starts_in_a_block_does_what_waited_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_training_has_the_same_bits_twice() -> None:
    def trained() -> list[torch.Tensor]:
        with turbo("reproducible", seed=1):
            model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout(), nn.Flatten(), nn.LazyLinear(10)).cuda()
            images = torch.randn(16, 3, 32, 32, device="cuda")
            model(images)
            optimizer = torch.optim.AdamW(model.parameters())
            for _ in range(5):
                optimizer.zero_grad()
                model(images).square().mean().backward()
                optimizer.step()
            return [parameter.detach() for parameter in model.parameters()]

    for one, other in zip(trained(), trained(), strict=True):
        assert torch.equal(one, other)
