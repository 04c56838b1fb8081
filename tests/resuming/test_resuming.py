"""A run that was stopped and gone on with ends with the same bits as one that was not."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.resuming.run import STEPS_PER_EPOCH, Augmented, Streamed, train
from torchturbo import turbo
from torchturbo.errors import AccumulationError, DeterminismWarning

KINDS: dict[str, dict[str, Any]] = {
    "alone": {},
    "two workers": {"workers": 2},
    "two workers that stay": {"workers": 2, "persistent": True},
    "a generator of the loader's": {"own_generator": True},
    "a generator and workers": {"own_generator": True, "workers": 2},
    "no indices": {"streamed": True},
    "no indices and workers": {"streamed": True, "workers": 2},
    "fp16": {"autocast": "fp16", "init_scale": 2.0**40},
}
whole = cache(lambda kind: train(**KINDS[kind]))


def reloaded(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """As it comes from a file, which may hold nothing that runs code."""
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def alike(some: Iterable[Tensor], others: Iterable[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return alike(one["model"].values(), other["model"].values())


@pytest.mark.parametrize("stop", [3, STEPS_PER_EPOCH + 1])
@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_in_the_middle_of_an_epoch(kind: str, stop: int) -> None:
    stopped = train(stop=stop, **KINDS[kind])
    resumed = train(checkpoint=reloaded(stopped), **KINDS[kind])
    seen = [*stopped["seen"], *resumed["seen"]]
    assert alike(seen, whole(kind)["seen"])
    assert same(resumed, whole(kind))


@pytest.mark.parametrize("kind", ["alone", "two workers that stay", "a generator of the loader's"])
def test_after_the_last_batch_the_next_epoch_comes(kind: str) -> None:
    stopped = train(stop=STEPS_PER_EPOCH, **KINDS[kind])
    assert same(train(checkpoint=reloaded(stopped), **KINDS[kind]), whole(kind))


@pytest.mark.parametrize("kind", ["alone", "a generator of the loader's"])
def test_twice_and_with_other_workers(kind: str) -> None:
    first = train(**{**KINDS[kind], "stop": 2, "workers": 2})
    second = train(**KINDS[kind], stop=STEPS_PER_EPOCH + 2, checkpoint=reloaded(first))
    assert same(train(**{**KINDS[kind], "workers": 1}, checkpoint=reloaded(second)), whole(kind))


def test_without_the_state_it_ends_elsewhere() -> None:
    """Else the others could not fail."""
    stopped = train(stop=3)
    for name in ("random", "loaders"):
        spoiled = reloaded(stopped)
        if name == "loaders":
            spoiled["turbo"]["loaders"]["loaders"] = {}
        else:
            spoiled["turbo"]["streams"] = {}
        assert not same(train(checkpoint=spoiled), whole("alone"))


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_fresh_process(workers: int, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    command = [sys.executable, "-m", "tests.resuming.run", str(file), str(workers), "3"]
    subprocess.run(command, check=True, timeout=120)
    assert same(train(checkpoint=torch.load(file, weights_only=True), workers=workers), whole("alone"))


def orders(
    loop: Callable[[Any, Any], Iterator[Tensor]], stop: int | None, state: dict[str, Any] | None, **loaders: Any
) -> tuple[list[Tensor], dict[str, Any]]:
    """What a loop over a training and a validation loader sees, from a state or from its beginning, until a state."""
    seen: list[Tensor] = []
    with turbo("reproducible", seed=42) as active:
        generator = torch.Generator().manual_seed(3)
        train, validation = (DataLoader(Augmented(), 4, shuffle=True, generator=generator, **loaders) for _ in range(2))
        if state is not None:
            active.load_state_dict(reloaded(state))
        running = loop(train, validation)
        for batch in running:
            seen.append(batch)
            if len(seen) == stop:
                break
        return seen, active.state_dict()


def looked_at(train: Any, validation: Any) -> Iterator[Tensor]:
    """In the middle of an epoch, the same loader is gone through for another purpose."""
    for _ in range(2):
        for number, batch in enumerate(train):
            if number == 1:
                next(iter(train))
            yield batch


def validated(train: Any, validation: Any) -> Iterator[Tensor]:
    """After each epoch, with the generator of both."""
    for _ in range(2):
        yield from train
        yield torch.cat(list(validation))


def made_anew(train: Any, validation: Any) -> Iterator[Tensor]:
    """A loader that is made for each epoch."""
    for _ in range(2):
        yield from DataLoader(Augmented(), 4, shuffle=True)


@pytest.mark.parametrize("loop", [looked_at, validated, made_anew])
def test_loops_with_more_than_one_iteration(loop: Callable[[Any, Any], Iterator[Tensor]]) -> None:
    complete, _ = orders(loop, None, None)
    per_epoch = len(complete) // 2
    for stop in (3, per_epoch, per_epoch + 2):
        first, state = orders(loop, stop, None)
        # A loop over one epoch less, where the first has been gone through.
        again, _ = orders(loop, len(complete) - stop, state)
        assert alike(first, complete[:stop])
        assert alike(again, complete[stop:]), stop


def test_a_state_changes_nothing_of_the_run_that_saves_it() -> None:
    def run(save: bool) -> list[Tensor]:
        with turbo("reproducible", seed=42) as active:
            generator = torch.Generator().manual_seed(3)
            train, validation = (DataLoader(Augmented(), 4, shuffle=True, generator=generator) for _ in range(2))
            seen = []
            for _ in range(2):
                for batch in train:
                    seen.append(batch)
                    if save:
                        active.state_dict()
                    if len(seen) % STEPS_PER_EPOCH == 0:
                        seen.extend(validation)
            return seen

    assert alike(run(save=True), run(save=False))


def test_a_loop_that_was_left_is_told() -> None:
    with turbo("reproducible", seed=42) as active:
        loader = DataLoader(Augmented(), 4)
        for _ in loader:
            break
        with pytest.warns(DeterminismWarning, match="was left after 1 batches"):
            active.state_dict()


def test_an_epoch_that_is_empty_is_told() -> None:
    with turbo("reproducible", seed=42) as active:
        for _ in (loader := DataLoader(Streamed(), 4)):
            state = active.state_dict()
    with turbo("reproducible", seed=42) as active:
        active.load_state_dict(state)
        with pytest.warns(DeterminismWarning, match="an empty one"):
            assert list(loader) == []


# ------------------------------------------------------------------------------------------------- what is refused


def test_two_loops_in_the_middle_of_one_loader_are_refused() -> None:
    with turbo("reproducible", seed=42) as active:
        loader = DataLoader(Augmented(), 4)
        both = iter(loader), iter(loader)
        for each in both:
            next(each)
        with pytest.raises(RuntimeError, match="2 loops are in the middle of one data loader"):
            active.state_dict()


@pytest.mark.parametrize("lacks", ["loaders", "streams"])
def test_a_state_that_lacks_a_part_is_refused(lacks: str) -> None:
    with turbo("reproducible", seed=42) as active:
        state = active.state_dict()
        del state[lacks]
        before = random.getstate()
        random.random()
        after = random.getstate()
        with pytest.raises(ValueError, match=lacks):
            active.load_state_dict(state)
        assert random.getstate() == after != before


def drawn() -> tuple[float, float]:
    return random.random(), float(torch.rand(()))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"seed": 43}, "with seed=42, and this block is one without fp16 scaling and with seed=43"),
        ({"autocast": "fp16"}, "this block is one with fp16 scaling"),
    ],
)
def test_a_block_with_other_options_is_refused(options: dict[str, Any], told: str) -> None:
    with turbo("reproducible", seed=42) as active:
        state = active.state_dict()
    with turbo("reproducible", **{"seed": 42, **options}):
        expected = drawn()
    with turbo("reproducible", **{"seed": 42, **options}) as active:
        with pytest.raises(ValueError, match=told):
            active.load_state_dict(state)
        assert drawn() == expected, "nothing has been changed"


def test_a_block_that_is_closed_is_refused() -> None:
    with turbo("reproducible", seed=42) as active:
        state = active.state_dict()
    with pytest.raises(RuntimeError, match="inside the block"):
        active.state_dict()
    with pytest.raises(RuntimeError, match="inside the block"):
        active.load_state_dict(state)


def test_a_newer_seed_is_not_gone_on_with() -> None:
    with turbo("reproducible", seed=42) as active:
        state = active.state_dict()
        expected = drawn()
        with turbo("fast", seed=1):
            with pytest.raises(RuntimeError, match="a seed of its own"):
                active.load_state_dict(state)
            later = active.state_dict()
        active.load_state_dict(state)
        assert drawn() == expected
        active.load_state_dict(later)
        after = drawn()
    with turbo("reproducible", seed=42):
        assert (drawn(), drawn()) == (expected, after)


def test_micro_batches_that_wait_are_told() -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with turbo("reproducible", seed=42, accumulate=2) as active:
        for batch in DataLoader(Augmented(), 4):
            last = active.is_last_micro_step
            model(batch).mean().backward()
            optimizer.step()
            if last:
                active.state_dict()
            else:
                with pytest.raises(AccumulationError, match=r"active\.flush\(\)"):
                    active.state_dict()


def test_a_loader_that_never_came_is_told() -> None:
    """As where the dataset has another length than in the run before."""
    with turbo("reproducible", seed=42) as active:
        batches = iter(DataLoader(Augmented(), 4))
        next(batches)
        state = active.state_dict()
    block = turbo("exact", seed=42)
    block.__enter__().load_state_dict(state)
    list(DataLoader(Augmented(), 4, shuffle=True))
    with pytest.warns(DeterminismWarning, match=r"Augmented\(16\), SequentialSampler"):
        block.__exit__(None, None, None)
    with turbo("exact", seed=42) as active:
        active.load_state_dict(state)
        assert len(list(DataLoader(Augmented(), 4))) == STEPS_PER_EPOCH - 1


def test_a_block_without_a_seed_has_nothing_but_its_scale() -> None:
    with turbo("fast") as active:
        assert active.state_dict() == {}
        active.load_state_dict({})
    with turbo("fast", autocast="fp16", init_scale=2.0**9) as active:
        assert active.state_dict()["scaler"]["scale"] == 2.0**9
