"""Lightning's own runs: where autocast is on in them, and how they end."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.integrations.digits import loader, net, optimizer_of
from tests.witness.children import in_child
from torchturbo._turbo import in_force

pytest.importorskip("sklearn")

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
    "default_root_dir": "/nonexistent",
    "max_steps": 3,
}


class Failed(Exception):
    pass


def run(
    profile: str, *, step: Callable[[], None] = lambda: None, package: str = "lightning.pytorch", **asked: Any
) -> list[tuple[str, bool]]:
    """Three steps with validation before them; whether autocast was on where."""
    pl = pytest.importorskip(package)
    from torchturbo.integrations.lightning import TurboCallback

    seen: list[tuple[str, bool]] = []

    def see(where: str) -> None:
        seen.append((where, torch.is_autocast_enabled("cpu")))

    class Digits(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def training_step(self, batch: Any, index: int) -> Any:
            see("step")
            step()
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            loss.register_hook(lambda gradient: see("backward"))
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            see("validation")

        def configure_optimizers(self) -> Any:
            optimizer = optimizer_of(self)
            optimizer.register_step_post_hook(lambda *_: see("optimizer"))
            return optimizer

        def on_fit_end(self) -> None:
            see("end")

    callback = TurboCallback(profile)
    trainer = pl.Trainer(callbacks=[callback], **QUIET | asked)
    try:
        trainer.fit(Digits(), loader(), loader())
    finally:
        assert callback.active is None
        assert in_force() == ()
        assert not torch.are_deterministic_algorithms_enabled()
    return seen


def in_a_child(function: Callable[[], Any]) -> Any:
    pytest.importorskip("lightning.pytorch")

    def live() -> Any:
        warnings.simplefilter("ignore")
        return function()

    answer = in_child(live, seconds=120)
    assert answer.crash is None, answer.crash
    return answer.value


def test_autocast_is_on_in_forward_passes_and_off_in_backward_and_the_optimizer() -> None:
    # The hook of the optimizer comes after the last of torchturbo's, as code after a step does.
    told = dict(in_a_child(lambda: Counter(run("fast"))))
    assert told == {
        ("validation", True): 2,
        ("step", True): 3,
        ("backward", False): 3,
        ("optimizer", False): 3,
        ("end", True): 1,
    }


@pytest.mark.parametrize("error", [Failed, KeyboardInterrupt])
def test_a_run_that_ends_with_an_error_leaves_nothing(error: type[BaseException]) -> None:
    def step() -> None:
        assert torch.are_deterministic_algorithms_enabled()
        raise error("mine")

    def live() -> str:
        try:
            run("reproducible", step=step)
        except SystemExit:
            return "KeyboardInterrupt"  # Lightning's way with one
        except Failed as failed:
            return type(failed).__name__
        return "nothing"

    assert in_a_child(live) == error.__name__


def test_lightning_by_its_other_name() -> None:
    pytest.importorskip("pytorch_lightning")
    told = in_a_child(lambda: run("fast", package="pytorch_lightning"))
    assert ("step", True) in told
    assert ("backward", False) in told
