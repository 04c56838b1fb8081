"""Hugging Face's models under `checkpoint=`: by the switch of their own, which is as it was afterwards."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from torchturbo import Profile, turbo
from torchturbo._catalogue import SETTINGS

transformers = pytest.importorskip("transformers", reason="transformers comes with the extra 'models'")
# Now, since what they import changes the filters of warnings.
GPT2, LLAMA = transformers.GPT2LMHeadModel, transformers.LlamaForCausalLM


def made(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "GPT2":
        tokens = {"bos_token_id": 1, "eos_token_id": 1}
        config = transformers.GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=50, n_positions=16, **tokens)
        return GPT2(config).train()
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    return LLAMA(transformers.LlamaConfig(num_hidden_layers=2, vocab_size=50, **sizes)).train()


def step(model: Any, use_cache: bool | None = None, **options: Any) -> tuple[list[Any], str]:
    torch.manual_seed(1)
    symbols = torch.randint(50, (2, 8))
    model.zero_grad()
    with turbo(Profile("only", accumulate=1, **options)):
        model(input_ids=symbols, labels=symbols, use_cache=use_cache).loss.backward()
        told = SETTINGS["checkpoint"].told
        assert told is not None
        return [each.grad for each in model.parameters()], told() or ""


@pytest.mark.parametrize(("kind", "layer"), [("GPT2", "GPT2Block"), ("Llama", "LlamaDecoderLayer")])
def test_their_own_switch(kind: str, layer: str) -> None:
    model = made(kind)
    # Their switch does without a cache, with which attention may be computed by another kernel.
    theirs, _ = step(model, use_cache=False)
    before = [dict(vars(each)) for each in model.modules()]
    ours, told = step(model, checkpoint=True)
    assert all(map(torch.equal, ours, theirs))
    assert told == f"2 x {layer} computed again in backward; {type(model).__name__} does so by the switch of its own"
    ours, told = step(model, checkpoint=[layer])
    assert all(map(torch.equal, ours, theirs))
    assert told.startswith(f"2 x {layer} computed again")
    assert [dict(vars(each)).keys() for each in model.modules()] == [each.keys() for each in before]
    assert not any(getattr(each, "gradient_checkpointing", False) for each in model.modules())
    assert step(model.eval(), checkpoint=True)[1].endswith("is evaluated, where the switch of its own does nothing")
    model.train()._set_gradient_checkpointing(True, partial(checkpoint, use_reentrant=False))
    assert step(model, checkpoint=True)[1].endswith("had the switch of its own on already")
    assert all(each.gradient_checkpointing for each in model.modules() if type(each).__name__ == layer)
