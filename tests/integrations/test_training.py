"""Fifty steps by each library: the same bits with torchturbo as alone, and nothing is left that it does not leave."""

from __future__ import annotations

import random
import warnings
from functools import cache
from typing import Any

import pytest

from tests.integrations import training
from tests.integrations.digits import STEPS
from tests.laws.look import witness
from tests.witness.children import in_child
from tests.witness.reading import differences
from torchturbo import PROFILES, Profile

NEEDS = {
    "lightning": "lightning.pytorch",
    "fabric": "lightning.pytorch",
    "accelerate": "accelerate",
    "transformers": "accelerate",
    "ignite": "ignite",
    "skorch": "skorch",
    "geometric": "torch_geometric",
}
OWNER = {
    "lightning": "Lightning's precision='{}-mixed'",
    "fabric": "Lightning's precision='{}-mixed'",
    "accelerate": "Accelerator(mixed_precision='{}')",
    "transformers": "the Trainer's TrainingArguments({}=True)",
    "ignite": "Ignite's create_supervised_trainer(amp_mode='amp')",
}


def needed(library: str) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip(NEEDS[library])
    if library == "transformers":
        pytest.importorskip("transformers")


# On a CPU nothing of "fast" but its autocast acts, which is left to the library here.
BESIDE = PROFILES["fast"] | Profile("also", deterministic=True, mkldnn_deterministic=True)


@cache
def trained(library: str, profile: str | Profile | None, precision: str, **more: Any) -> tuple[Any, dict[str, str]]:
    """What came of fifty steps in a process of their own, and the witness's reading of it afterwards."""

    def live() -> tuple[Any, dict[str, str]]:
        warnings.simplefilter("ignore")  # the libraries' own
        random.seed(3)  # Python seeds anew in a fork
        return getattr(training, library)(profile, precision, **more), witness().read(thorough=False)

    answer = in_child(live, seconds=120)
    assert answer.crash is None, answer.crash
    return answer.value


@pytest.mark.parametrize("library", NEEDS)
@pytest.mark.parametrize(("profile", "precision"), [("exact", "32"), (BESIDE, "bf16")], ids=["32", "bf16"])
def test_the_same_bits_and_nothing_left_behind(library: str, profile: str | Profile, precision: str) -> None:
    needed(library)
    if library == "skorch" and precision != "32":
        pytest.skip("skorch has no autocast of its own")
    (alone, bits, _), before = trained(library, None, precision)
    (losses, same_bits, left), after = trained(library, profile, precision)
    assert len(losses) == STEPS
    assert (losses, same_bits) == (alone, bits)
    assert differences(before, after) == []
    assert losses[-1] < losses[0]
    owner = OWNER.get(library)
    assert left.get("autocast") == (f"left to {owner.format(precision)}" if owner and precision != "32" else None)


@pytest.mark.parametrize("library", ["lightning", "fabric", "accelerate", "transformers"])
def test_in_a_plain_block_autocast_is_left_to_a_library_that_enters_it(library: str) -> None:
    """Nobody has told torchturbo of the library, and it has the bits that it has alone."""
    needed(library)
    (losses, bits, left), _ = trained(library, "fast", "bf16", inside=False)
    assert (losses, bits) == trained(library, None, "bf16")[0][:2]
    assert left["autocast"].startswith("left to the torch.autocast that the code enters by itself, at ")


def test_a_block_that_stayed_open_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    needed("accelerate")
    monkeypatch.setattr(training, "left_to", lambda active: active.__class__ and active._owner.__enter__() and {})
    _, before = trained("accelerate", None, "32")
    _, after = trained("accelerate", "debug", "32")
    assert [line for line in differences(before, after) if "anomaly" in line]


@pytest.mark.parametrize("library", ["lightning", "skorch", "transformers"])
def test_what_the_library_leaves_to_torchturbo_it_does(library: str) -> None:
    """Without a precision of the library's, "fast" computes in bf16 what a loop by hand under autocast does."""
    needed(library)
    (losses, bits, left), _ = trained(library, "fast", "32")
    assert left == {}
    assert (losses, bits) != trained(library, None, "32")[0][:2]
    if library == "lightning":
        assert (losses, bits) == trained("by_hand", None, "bf16")[0][:2]
        assert trained("lightning", "fast", "32", inside=False)[0] == (losses, bits, {})
    if library == "transformers":
        assert (losses, bits) == trained("transformers", None, "bf16")[0][:2]
