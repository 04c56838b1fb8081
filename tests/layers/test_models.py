"""The models that are built in: they train, they are the same each time, and making one draws nothing of anybody's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import torchturbo._models
from torchturbo import turbo
from torchturbo._models import MODELS, SIZES, make
from torchturbo.errors import TargetError


def test_each_file_is_a_model_with_every_size() -> None:
    folder = Path(torchturbo._models.__file__).parent
    assert sorted(path.stem for path in folder.glob("*.py") if path.stem not in ("__init__", "made")) == list(MODELS)
    for model in MODELS:
        sizes = getattr(__import__(f"torchturbo._models.{model}", fromlist=["SIZES"]), "SIZES")  # noqa: B009
        assert tuple(sizes) == SIZES


@pytest.mark.parametrize("model", MODELS)
def test_each_learns_its_batch_and_is_the_same_each_time(model: str) -> None:
    state = torch.get_rng_state()
    made, again = make(model, "tiny", "cpu"), make(model, "tiny", "cpu")
    assert torch.equal(torch.get_rng_state(), state)
    first = made.step()
    assert torch.equal(again.step(), first)
    with turbo("exact", num_threads=1):  # other threads have nothing to do in anything so small
        for _ in range(30):
            last = made.step()
    assert last < 0.97 * first
    parameters = sum(parameter.numel() for parameter in made.model.parameters())
    assert made.about.startswith(f"{model} tiny: {parameters:,} parameters, ")


def test_what_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(TargetError, match="there is no model 'gtp': did you mean 'gpt'"):
        make("gtp")
    with pytest.raises(TargetError, match="there is no size 'big': known: large, medium, small, tiny"):
        make("gpt", "big")
