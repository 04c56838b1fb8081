"""The model sees nothing of what comes next, learns, and knows nothing of torchturbo."""

from __future__ import annotations

from pathlib import Path

import torch

import examples.gpt
from examples.gpt.data import Text, sample
from examples.gpt.model import GPT, SIZES, continue_text
from examples.gpt.train import loss_on, make_optimizer, mean_loss, step

TINY = SIZES["tiny"]


def test_no_position_sees_what_comes_after_it() -> None:
    model = GPT(TINY)
    text = torch.randint(256, (1, TINY.context))
    changed = text.clone()
    changed[0, 20:] = (changed[0, 20:] + 1) % 256
    with torch.no_grad():
        scores, others = model(text), model(changed)
    assert torch.allclose(scores[:, :20], others[:, :20], atol=1e-6)
    assert not torch.allclose(scores[:, 20:], others[:, 20:], atol=1e-6)


def test_it_learns(text: Text) -> None:
    torch.manual_seed(0)
    model = GPT(TINY)
    optimizer = make_optimizer(model, rate=2e-3)
    generator = torch.Generator().manual_seed(0)
    held_out = [sample(text.held_out, 8, TINY.context, generator)]
    before = mean_loss(model, held_out)
    for _ in range(60):
        step(model, optimizer, sample(text.training, TINY.batch, TINY.context, generator))
    # Half way from knowing nothing (ln 256) to knowing that there are but ten digits and a space (ln 11).
    assert before > 5.4
    assert mean_loss(model, held_out) < 4


def test_a_step_returns_the_loss_before_it_and_leaves_gradients_clipped(text: Text) -> None:
    model = GPT(TINY)
    batch = sample(text.training, TINY.batch, TINY.context, torch.Generator().manual_seed(0))
    before = loss_on(model, batch).item()
    assert step(model, make_optimizer(model), batch) == before
    gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    assert 0 < gradients.norm() <= 1.0001


def test_looking_changes_nothing(text: Text) -> None:
    model = GPT(TINY)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mean_loss(model, [sample(text.held_out, 2, TINY.context, torch.Generator())])
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_writes_on_past_its_context() -> None:
    count = 2 * TINY.context
    written = [continue_text(GPT(TINY), b"def ", count, torch.Generator().manual_seed(0))]
    assert written[0].startswith(b"def ")
    assert len(written[0]) == 4 + count


def test_neither_model_nor_loop_knows_of_torchturbo() -> None:
    sources = sorted(Path(examples.gpt.__path__[0]).glob("*.py"))
    assert [path.name for path in sources] == ["__init__.py", "data.py", "model.py", "train.py"]
    assert not any("import torchturbo" in s or "from torchturbo" in s for s in (p.read_text() for p in sources))
