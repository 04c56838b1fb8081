"""Profiles are frozen data: they combine, compare, hash and pickle, and each says what it gains and gives."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from torchturbo import PROFILES, Profile, turbo
from torchturbo._catalogue import OPTIONS
from torchturbo._plan import decide
from torchturbo.errors import OptionNameError, OptionValueError
from torchturbo.testing import MACHINES


def test_the_built_in_ones() -> None:
    assert list(PROFILES) == ["fast", "max", "exact", "reproducible", "inference", "low_memory", "debug"]
    with pytest.raises(TypeError):
        PROFILES["mine"] = Profile("mine")


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_each_says_in_a_sentence_what_you_gain_and_what_you_give(profile: Profile) -> None:
    for sentence in (profile.gain, profile.give):
        assert sentence[0].isupper() or sentence.startswith("float32")
        assert sentence.endswith(".")
        assert len(sentence.split()) >= 5
    assert profile.gain != profile.give


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_each_holds_options_in_their_one_spelling(profile: Profile) -> None:
    assert len(profile) > 0
    for name, value in profile.items():
        assert OPTIONS[name].parse(value) is value


def values(profile: str | Profile, machine: str = "A100", **options: Any) -> dict[str, object]:
    """What a block comes to on a machine, by setting."""
    block = turbo(profile, **options)
    plan = decide(block._profile, dict(block._overrides), MACHINES[machine])
    return {decision.name: decision.value for decision in plan.decisions}


def test_what_they_come_to() -> None:
    """The promises of their names, on a GPU that could do all of it."""
    fast, exact = values("fast"), values("exact")
    assert fast == {
        "autocast": "bf16",
        "cudnn_benchmark": True,
        "cudnn_precision": "tf32",
        "matmul_precision": "high",
    }
    assert exact == {
        "autocast": None,
        "bf16_reduction": False,
        "cudnn_precision": "ieee",
        "fp16_accumulation": False,
        "fp16_reduction": False,
        "matmul_precision": "highest",
        "mkldnn_precision": "ieee",
    }
    assert values("max").items() > (fast | {"matmul_precision": "medium", "fp16_accumulation": True}).items()
    assert values("reproducible").items() > (exact | {"deterministic": True, "cudnn_benchmark": False}).items()
    # It costs, and has to be asked for; without it torch would fill wherever `deterministic` is on.
    assert values("reproducible")["fill_uninitialized_memory"] is False
    assert values("debug").items() > (exact | {"deterministic": "warn", "anomaly": True}).items()
    assert values("inference") == fast | {"grad": False}
    assert values("low_memory") == {
        "checkpoint": True,
        "set_to_none": True,
        "alloc_conf": "expandable_segments:True",
        "cudnn_benchmark": False,
    }


# -------------------------------------------------------------------------------------------- a mapping


def test_it_is_a_mapping() -> None:
    mine = Profile("mine", num_threads=2, autocast=False)
    assert dict(mine) == {"num_threads": 2, "autocast": None}
    assert mine["num_threads"] == 2
    assert "anomaly" not in mine
    assert mine.get("anomaly") is None
    with pytest.raises(KeyError):
        mine["anomaly"]
    assert (mine.name, mine.gain, mine.give) == ("mine", "", "")
    assert repr(mine) == "<Profile 'mine': num_threads=2, autocast=None>"


def test_it_refuses_what_turbo_refuses() -> None:
    with pytest.raises(OptionNameError):
        Profile("mine", cudnn_bencmark=True)
    with pytest.raises(OptionValueError):
        Profile("mine", num_threads=0)
    with pytest.raises(OptionNameError):
        Profile("mine", strict=True)


@pytest.mark.parametrize("attribute", ["name", "gain", "give", "_values", "num_threads", "new"])
def test_it_cannot_be_changed(attribute: str) -> None:
    mine = Profile("mine", num_threads=2)
    with pytest.raises(AttributeError):
        setattr(mine, attribute, 1)
    with pytest.raises(TypeError):
        mine["num_threads"] = 1
    assert mine == Profile("mine", num_threads=2)


def test_nothing_that_it_was_made_of_reaches_inside() -> None:
    options: dict[str, Any] = {"num_threads": 2}
    mine = Profile("mine", **options)
    options["num_threads"] = 3
    with pytest.raises(AttributeError):
        del mine.name
    assert mine["num_threads"] == 2


# -------------------------------------------------------------------------------------------- combining


def test_or_holds_what_either_holds_and_the_later_wins() -> None:
    left = Profile("left", "More speed.", "Less precision.", num_threads=1, anomaly=True)
    right = Profile("right", "Less noise.", anomaly=False, grad=False)
    both = left | right
    assert dict(both) == {"num_threads": 1, "anomaly": False, "grad": False}
    assert (both.name, both.gain, both.give) == ("left | right", "More speed. Less noise.", "Less precision.")
    assert dict(left) == {"num_threads": 1, "anomaly": True}, "neither has changed"


def test_or_is_like_options_that_beat_a_profile() -> None:
    for options in ({"tf32": False}, {"tf32": True}, {"matmul_precision": "highest"}, {"anomaly": True}):
        for name, profile in PROFILES.items():
            mine: Any = Profile("mine", **options)
            assert values(profile | mine) == values(name, **options), (name, options)


def test_or_is_associative() -> None:
    a, b, c = PROFILES["max"], Profile("b", tf32=False), Profile("c", matmul_precision="high")
    assert dict((a | b) | c) == dict(a | (b | c))
    assert values((a | b) | c) == values(a | (b | c))


def test_or_needs_two_profiles() -> None:
    with pytest.raises(TypeError):
        PROFILES["fast"] | {"anomaly": True}


def test_without_leaves_options_out() -> None:
    fewer = PROFILES["fast"].without("autocast", "tf32")
    assert dict(fewer) == {"cudnn_benchmark": True}
    assert fewer.name == "fast without autocast, tf32"
    assert dict(PROFILES["fast"].without()) == dict(PROFILES["fast"])
    with pytest.raises(OptionNameError):
        PROFILES["fast"].without("anomaly")


# -------------------------------------------------------------------------------------------- comparing and copying


def test_equal_profiles_are_equal_and_hash_alike() -> None:
    mine, same = Profile("mine", num_threads=2, grad=False), Profile("mine", grad=False, num_threads=2)
    assert mine == same
    assert hash(mine) == hash(same)
    assert len({mine, same, PROFILES["fast"]}) == 2


@pytest.mark.parametrize(
    "other",
    [
        Profile("other", num_threads=1),
        Profile("mine", gain="More.", num_threads=1),
        Profile("mine", give="More.", num_threads=1),
        Profile("mine", num_threads=2),
        Profile("mine", num_threads=1, grad=False),
        Profile("mine"),
        {"num_threads": 1},
        "mine",
    ],
    ids=["name", "gain", "give", "value", "more", "fewer", "dict", "str"],
)
def test_what_differs_is_not_equal(other: object) -> None:
    assert Profile("mine", num_threads=1) != other


@pytest.mark.parametrize("profile", [*PROFILES.values(), Profile("mine", num_threads=2)], ids=[*PROFILES, "mine"])
def test_copies_and_pickles_are_equal(profile: Profile) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(profile, protocol)) == profile
    assert copy.copy(profile) == copy.deepcopy(profile) == profile
    assert repr(copy.deepcopy(profile)) == repr(profile)
