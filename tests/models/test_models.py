"""Models that nobody here wrote: they train and evaluate under it, by module, by class and by function, bit for bit."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchturbo import Profile, accelerate, restore, turbo
from torchturbo.testing import pretend_hardware

pytest.importorskip("timm", reason="timm comes with the extra 'models'", exc_type=Exception)
pytest.importorskip("transformers", reason="transformers comes with the extra 'models'")

STEPS = 20
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
by_hand = partial(torch.autocast, "cpu", torch.bfloat16, cache_enabled=False)


@cache
def resnet() -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=10)


@cache
def vit() -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=4, num_classes=10)


@cache
def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_embd=64, n_head=2, vocab_size=61, n_positions=32, bos_token_id=0, eos_token_id=0)
    )


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 32, 32, generator=generator), torch.arange(8)


def tokens() -> tuple[Tensor, Tensor]:
    text = torch.randint(61, (8, 32), generator=torch.Generator().manual_seed(1))
    return text, text


def class_loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(inputs), labels)


def token_loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    loss: Tensor = model(inputs, labels=labels).loss
    return loss


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]], Loss]] = {
    "resnet18": (resnet, images, class_loss),
    "vit_tiny": (vit, images, class_loss),
    "gpt2": (gpt2, tokens, token_loss),
}


def train(model: nn.Module, batch: tuple[Tensor, Tensor], loss_of: Loss) -> list[float]:
    torch.manual_seed(2)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, *batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def evaluate(model: nn.Module, batch: tuple[Tensor, Tensor], loss_of: Loss) -> float:
    model.eval()
    return float(loss_of(model, *batch))


def loss_by_hand(loss_of: Loss) -> Loss:
    def loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        with by_hand():
            return loss_of(model, inputs, labels)

    return loss


def forward_by_hand(model: nn.Module) -> nn.Module:
    """What people write where only the model may know of it."""
    inner = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with by_hand():
            outputs = inner(*args, **kwargs)
        if isinstance(outputs, Tensor):
            return outputs.float()
        outputs.logits = outputs.logits.float()
        return outputs

    model.forward = forward
    return model


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """What they import when they are first used changes Python's warning filters."""
    with warnings.catch_warnings():
        for make, data, loss_of in MODELS.values():
            loss_of(copy.deepcopy(make()), *data())


@pytest.fixture(autouse=True)
def on_a_cpu_with_bf16() -> Iterator[None]:
    # Small as they are, more threads wait for each other longer than they compute.
    with pretend_hardware("cpu-bf16"), turbo(Profile("one thread"), num_threads=1):
        yield


@pytest.mark.parametrize("name", MODELS)
def test_they_train_and_evaluate_in_a_function(name: str) -> None:
    make, data, loss_of = MODELS[name]
    batch, reference, model = data(), copy.deepcopy(make()), copy.deepcopy(make())
    expected = train(reference, batch, loss_by_hand(loss_of))
    losses = accelerate(train)(model, batch, loss_of)
    assert losses == expected
    assert losses[-1] < 0.9 * losses[0]
    accelerated = accelerate(profile="inference")(evaluate)
    assert accelerated(model, batch, loss_of) == evaluate(reference, batch, loss_by_hand(loss_of))
    assert evaluate(model, batch, loss_of) == evaluate(reference, batch, loss_of)


@pytest.mark.parametrize("by", ["module", "class"])
@pytest.mark.parametrize("name", MODELS)
def test_they_train_and_evaluate_as_what_they_are(name: str, by: str) -> None:
    make, data, loss_of = MODELS[name]
    batch, reference, model = data(), copy.deepcopy(make()), copy.deepcopy(make())
    keys, kind = list(model.state_dict()), type(model)
    forward_by_hand(reference)
    expected = [*train(reference, batch, loss_of), evaluate(reference, batch, loss_of)]
    target: Any = model if by == "module" else kind
    assert accelerate(target) is target
    try:
        losses = [*train(model, batch, loss_of), evaluate(model, batch, loss_of)]
        assert (type(model), list(model.state_dict())) == (kind, keys)
        copied = copy.deepcopy(model)
        assert evaluate(copied, batch, loss_of) == losses[-1]
    finally:
        restore(target)
    assert losses == expected
    assert losses[-1] < 0.9 * losses[0]
    del reference.forward
    assert evaluate(model, batch, loss_of) == evaluate(reference, batch, loss_of)


def test_a_language_model_generates_and_says_what_it_did() -> None:
    plain, model = copy.deepcopy(gpt2()).eval(), accelerate(copy.deepcopy(gpt2())).eval()
    start = torch.arange(8)[None]
    outputs = model(start)
    assert type(outputs) is type(plain(start))
    assert outputs.logits.dtype is outputs["logits"].dtype is torch.float32
    made = model.generate(start, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert made.shape == (1, 16)
