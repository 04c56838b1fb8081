"""What a region puts into torch is gone afterwards, whoever else puts something there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.optim.optimizer as optimizers

from tests.regions.watching import ENGINES, RIGHT, Watched, in_place
from torchturbo import turbo


def test_nothing_stays_in_torch() -> None:
    before = in_place()
    with turbo("fast"):
        assert in_place() != before
        with turbo("fast"):
            pass
        assert in_place() != before
    assert in_place() == before


def test_without_autocast_nothing_is_put_in_place() -> None:
    before = in_place()
    with turbo("fast", autocast=None), turbo("exact"):
        assert in_place() == before


def test_the_hooks_of_others_stay(watched: Watched) -> None:
    called: list[str] = []
    early = optimizers.register_optimizer_step_pre_hook(lambda *args: called.append("early"))
    with turbo("fast"):
        late = optimizers.register_optimizer_step_post_hook(lambda *args: called.append("late"))
        assert watched.train() == RIGHT
    watched.train()
    early.remove()
    late.remove()
    assert called == ["early", "late"] * 2


@pytest.fixture
def engines() -> Iterator[None]:
    """Puts torch's engines back after a test that patches them for good."""
    before = [module._engine_run_backward for module in ENGINES]
    yield
    for module, engine in zip(ENGINES, before, strict=True):
        module._engine_run_backward = engine


def patch(called: list[str], modules: tuple[Any, ...] = ENGINES) -> None:
    for module in modules:

        def patched(*args: Any, engine: Callable[..., Any] = module._engine_run_backward, **kwargs: Any) -> Any:
            called.append("patched")
            return engine(*args, **kwargs)

        module._engine_run_backward = patched


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize("modules", [ENGINES, ENGINES[:1], ENGINES[1:]], ids=["both", "autograd", "graph"])
def test_who_patches_on_top_keeps_the_patch_and_ours_does_nothing(watched: Watched, modules: tuple[Any, ...]) -> None:
    called: list[str] = []
    before = in_place()
    with turbo("fast"):
        patch(called, modules)
        patches = [module._engine_run_backward for module in modules]
        assert watched.train() == RIGHT
    assert [module._engine_run_backward for module in modules] == patches
    assert [now for now in in_place() if now not in patches] == [
        was for module, was in zip(ENGINES, before[:2], strict=True) if module not in modules
    ] + before[2:]
    called.clear()
    with torch.autocast("cpu", torch.bfloat16):
        assert watched.train() == dict.fromkeys(RIGHT, True)
    with turbo("fast"):
        assert watched.train() == RIGHT
    assert called == (["patched"] * 2 if torch.autograd in modules else [])
    assert [module._engine_run_backward for module in modules] == patches


@pytest.mark.usefixtures("engines")
def test_a_patch_that_stays_is_not_wrapped_again_at_every_entry(watched: Watched) -> None:
    with turbo("fast"):
        patch([])
    with turbo("fast"):
        first = [module._engine_run_backward for module in ENGINES]
    with turbo("fast"):
        assert [module._engine_run_backward for module in ENGINES] == first


@pytest.fixture
def asked() -> Iterator[Any]:
    """What torch's modules ask about their fast path, put back after a test that patches it for good."""
    mha: Any = torch.backends.mha
    before = mha.get_fastpath_enabled
    yield mha
    mha.get_fastpath_enabled = before


def test_a_patch_of_the_fast_path_stays_and_asks_no_one_twice(asked: Any) -> None:
    with turbo("fast"):
        ours = asked.get_fastpath_enabled
        asked.get_fastpath_enabled = patch = lambda: ours()
        assert not asked.get_fastpath_enabled()
    for _ in range(2):
        assert asked.get_fastpath_enabled is patch
        assert asked.get_fastpath_enabled()
        with turbo("fast"):
            assert asked.get_fastpath_enabled is not patch
            assert not asked.get_fastpath_enabled()
