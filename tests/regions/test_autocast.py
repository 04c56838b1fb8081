"""One block around a whole training loop gives the bits that autocast around each forward gives."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn

from tests.regions import backwards
from tests.regions.training import Forward
from torchturbo import accelerate, turbo

by_hand = partial(torch.autocast, "cpu", torch.bfloat16)

# Where backward or step is itself something that autocast would change, were they under it.
CHANGED_IN_BACKWARD_OR_STEP = [
    "attention",
    "adafactor",
    "step_in_a_gradient_hook",
    "fp32_island",
    "linalg",
    "cdist",
    "own_function",
    "gradient_penalty",
    "hessian_vector",
    "functional_gradient",
]


def trained(name: str, forward: Forward = nullcontext) -> list[Tensor]:
    torch.manual_seed(0)
    return backwards.RECIPES[name](forward)


expected = cache(partial(trained, forward=by_hand))


def same_bits(these: list[Tensor], those: list[Tensor]) -> bool:
    return len(these) == len(those) and all(
        a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(these, those, strict=True)
    )


@pytest.mark.parametrize("name", backwards.RECIPES)
def test_a_block_around_the_loop_is_autocast_around_each_forward(name: str) -> None:
    with turbo("fast"):
        found = trained(name)
    assert same_bits(found, expected(name))
    assert all(tensor.isfinite().all() for tensor in found)


@pytest.mark.parametrize("name", backwards.RECIPES)
def test_the_loops_can_tell(name: str) -> None:
    assert not same_bits(trained(name), expected(name)), "float32 gives the same bits"
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = trained(name)
    except RuntimeError:
        return
    assert not same_bits(found, expected(name)), "torch.autocast around the loop gives the same bits"


@pytest.mark.parametrize("name", CHANGED_IN_BACKWARD_OR_STEP)
def test_the_loops_can_tell_a_backward_or_step_under_autocast(name: str) -> None:
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        found = trained(name)
    assert not same_bits(found, expected(name))


@pytest.mark.parametrize("value", ["bf16", "auto", True, torch.bfloat16])
def test_the_option_alone_does_it_too(value: object) -> None:
    with turbo("exact", autocast=value):
        found = trained("mlp")
    assert same_bits(found, expected("mlp"))


def test_a_decorated_loop_does_it_too() -> None:
    assert same_bits(accelerate(trained)("ema"), expected("ema"))


def test_a_block_around_every_step_does_it_too() -> None:
    assert same_bits(trained("lbfgs", partial(turbo, "fast")), expected("lbfgs"))


@pytest.mark.parametrize("name", ["mlp", "fp32_island", "checkpoint_reentrant"])
def test_blocks_inside_blocks_change_nothing(name: str) -> None:
    with turbo("fast"), turbo("fast"):
        assert same_bits(trained(name, partial(turbo, "fast")), expected(name))


def shared(around: torch.autocast | turbo | nullcontext[None]) -> Tensor:
    torch.manual_seed(0)
    layer, x, y = nn.Linear(64, 64, bias=False), torch.randn(32, 64), torch.randn(32, 64)
    with around:
        loss = (layer(x).tanh() + layer(y).tanh()).square().mean()
    loss.backward()
    assert layer.weight.grad is not None
    return layer.weight.grad


def test_a_weight_used_twice_adds_its_gradients_up_in_float32() -> None:
    """Here alone the bits differ: autocast's cache has them added up in bf16, and a region has no cache."""
    found, cached, exact = shared(turbo("fast")), shared(by_hand()), shared(nullcontext())
    assert torch.equal(found, shared(by_hand(cache_enabled=False)))
    assert (found - exact).norm() < (cached - exact).norm()


@pytest.fixture
def encoder() -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 2).eval().requires_grad_(False)


PADDED = torch.tensor([[False] * 5 + [True] * 2, [False] * 7])


@pytest.mark.usefixtures("fresh_compiler")
def test_an_encoder_with_padding_is_evaluated(encoder: nn.TransformerEncoder) -> None:
    embedded = torch.randn(2, 7, 8)
    with by_hand(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.backends.mha, "_is_fastpath_enabled", False)
        expected = encoder(embedded, src_key_padding_mask=PADDED)
    with turbo("fast"), warnings.catch_warnings():  # Dynamo loads what adds a filter, in torch 2.8
        found = [encoder(embedded, src_key_padding_mask=PADDED)]
        found.append(torch.compile(encoder, backend="eager", fullgraph=True)(embedded, src_key_padding_mask=PADDED))
        assert torch.backends.mha.get_fastpath_enabled() is False
        with turbo(autocast=None):
            assert torch.backends.mha.get_fastpath_enabled() is True
    assert same_bits(found, [expected] * 2)
    assert torch.backends.mha.get_fastpath_enabled() is True


def test_the_fast_path_can_be_scripted_in_a_block(encoder: nn.TransformerEncoder) -> None:
    embedded = torch.randn(2, 7, 8)
    with turbo("fast"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script")
        scripted = torch.jit.script(encoder.layers[0])
    assert torch.allclose(scripted(embedded), encoder.layers[0](embedded), atol=1e-5)
