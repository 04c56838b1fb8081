"""The trainings of a race start alike, do not disturb each other, and are timed apart from their warm-up."""

from __future__ import annotations

import pytest
import torch

from examples.gpt.data import Text, sample
from examples.gpt.model import GPT, SIZES
from examples.gpt.train import loss_on, make_optimizer, step
from examples.side_by_side import race
from examples.side_by_side.race import HELD_OUT_BATCHES, LOOKS, STEPS_PER_ROUND, Arm, Race
from torchturbo.testing import pretend_hardware

TINY = SIZES["tiny"]
STEPS = 8  # two whole rounds, and a shorter one


@pytest.fixture(scope="module")
def run(text: Text) -> tuple[Race, list[str]]:
    """A race on a CPU with bf16, and whose turn it was."""
    turns: list[str] = []
    # An operation with no native bf16 is emulated to the same bits, so this holds on any CPU.
    with torch.random.fork_rng(devices=[]), pretend_hardware("cpu-bf16"):
        racing = race.line_up(TINY, seed=5)
        race.run(racing, text, STEPS, lambda arm: turns.append(arm.label))
    return racing, turns


def test_all_start_from_the_same_weights() -> None:
    racing = race.line_up(TINY, seed=5)
    assert racing.plain.start == racing.turbo.start == racing.other.start
    for arm in racing.arms:
        assert torch.equal(arm.weights(), racing.first_weights)
    assert race.line_up(TINY, seed=6).plain.start != racing.plain.start


def test_turbo_is_fed_what_plain_is_fed(run: tuple[Race, list[str]]) -> None:
    racing, _ = run
    assert racing.plain.fed == racing.turbo.fed
    assert racing.plain.fed != racing.other.fed


def test_first_weights_are_kept_while_the_models_move_on(run: tuple[Race, list[str]]) -> None:
    racing, _ = run
    assert torch.equal(racing.first_weights, race.line_up(TINY, seed=5).plain.weights())
    assert not torch.equal(racing.plain.weights(), racing.first_weights)


def test_plain_is_what_it_would_have_been_alone(run: tuple[Race, list[str]], text: Text) -> None:
    racing, _ = run
    assert racing.plain.losses == _alone(text, None)


def test_turbo_is_autocast_written_by_hand_around_each_forward(run: tuple[Race, list[str]], text: Text) -> None:
    racing, _ = run
    by_hand = _alone(text, torch.bfloat16)
    assert racing.turbo.losses == by_hand
    assert by_hand != racing.plain.losses


def _alone(text: Text, dtype: torch.dtype | None) -> list[float]:
    """The losses of the race's model, trained with nothing beside it."""
    torch.manual_seed(5)
    model = GPT(TINY)
    optimizer = make_optimizer(model)
    generator = torch.Generator().manual_seed(5)
    losses = []
    for _ in range(STEPS):
        batch = sample(text.training, TINY.batch, TINY.context, generator)
        if dtype is None:
            losses.append(step(model, optimizer, batch))
            continue
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype):
            loss = loss_on(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_turns_alternate(run: tuple[Race, list[str]]) -> None:
    _, turns = run
    plain, turbo, other = "float32", 'turbo("fast")', "float32, other batches"
    assert turns == [plain, turbo, other, turbo, plain, other, plain, turbo, other]


def test_the_warm_up_is_kept_apart(run: tuple[Race, list[str]]) -> None:
    racing, _ = run
    for arm in racing.arms:
        assert len(arm.losses) == STEPS
        assert len(arm.warm_up) == STEPS_PER_ROUND
        assert len(arm.seconds) == STEPS - STEPS_PER_ROUND
        assert len(arm.rounds) == 2
        # A round holds its steps, and entering and leaving its block besides.
        assert arm.rounds[0] >= sum(arm.seconds[:STEPS_PER_ROUND])
        assert arm.rounds[1] >= sum(arm.seconds[STEPS_PER_ROUND:])


def test_the_held_out_loss_is_taken_at_the_start_on_the_way_and_at_the_end(
    run: tuple[Race, list[str]],
) -> None:
    racing, _ = run
    looks = [steps for steps, _ in racing.plain.held_out]
    assert looks == [0, 3, 6, 8]
    assert looks == [steps for steps, _ in racing.turbo.held_out] == [steps for steps, _ in racing.other.held_out]
    first = {arm.held_out[0][1] for arm in racing.arms}
    assert len(first) == 1


def test_a_longer_race_is_looked_at_as_often_as_promised(text: Text) -> None:
    racing = race.line_up(TINY, seed=0)
    race.run(racing, text, 30, lambda arm: None)
    assert [steps for steps, _ in racing.plain.held_out] == [0, 6, 12, 18, 24, 30]
    assert len(racing.plain.held_out) == LOOKS + 1


def test_the_held_out_loss_is_taken_in_float32(text: Text) -> None:
    judge = torch.Generator().manual_seed(0)
    held_out = [sample(text.held_out, TINY.batch, TINY.context, judge) for _ in range(HELD_OUT_BATCHES)]
    torch.manual_seed(5)
    model = GPT(TINY)
    with pretend_hardware("cpu-bf16"):
        racing = race.line_up(TINY, seed=5)
        racing.turbo.look(held_out)
    with torch.no_grad():
        expected = sum(loss_on(model, batch).item() for batch in held_out) / HELD_OUT_BATCHES
    assert racing.turbo.held_out == [(0, expected)]


def test_a_block_that_raises_is_not_counted(text: Text) -> None:
    arm: Arm = race.line_up(TINY, seed=0).plain
    arm.model.size = SIZES["small"]  # longer pieces than the model has positions for
    with pytest.raises(IndexError):
        arm.run(text, 1)
    assert (arm.losses, arm.warm_up, arm.seconds, arm.rounds) == ([], [], [], [])
