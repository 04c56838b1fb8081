"""Ranks decide alike: by what all of them can do, and what rank 0 is asked for."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

from tests.distributed.started import Start, torchrun
from torchturbo import _ranks, _sources, hardware
from torchturbo._plan import decide
from torchturbo._ranks import Known, common, of_rank_0
from torchturbo._sources import NOTHING, Given, Sources
from torchturbo.errors import RanksError, RanksWarning
from torchturbo.hardware import Hardware
from torchturbo.profiles import PROFILES, Profile
from torchturbo.regions.seeding import of_rank
from torchturbo.testing._machines import MACHINES


def known(*machines: str, **sources: Any) -> list[Known]:
    return [Known(f"host {number}", MACHINES[name], NOTHING) for number, name in enumerate(machines)]


def decisions(known: list[Known], profile: str, **options: Any) -> list[dict[str, Any]]:
    """What each rank's plan comes to: the value of each setting, and whether it is left out."""
    plans = [decide(PROFILES[profile], options, common(known, rank)) for rank in range(len(known))]
    return [{each.name: (each.value, each.refused is None) for each in plan.decisions} for plan in plans]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("machines", [("H100", "A100", "T4"), ("T4", "H100"), ("cpu", "cpu-bf16"), ("cpu-bf16",) * 2])
def test_every_rank_decides_the_same(machines: tuple[str, ...], profile: str) -> None:
    first, *others = decisions(known(*machines), profile)
    assert all(other == first for other in others)
    least = "T4" if "T4" in machines else machines[0]
    assert first == decisions(known(least), profile)[0]


def test_alone_they_would_not() -> None:
    assert decisions(known("H100"), "fast") != decisions(known("T4"), "fast")


def test_where_all_can_do_the_same_nothing_is_made_anew() -> None:
    ranks = known("A100", "A100")
    assert common(ranks, 1) is ranks[1].hardware


def test_what_the_others_lack_is_said_with_their_rank_and_host() -> None:
    ours = common(known("H100", "T4"), 0)
    assert ours.gpus[0].name.endswith("(rank 1)")
    assert not ours.has_bf16
    assert "rank 1 on host 1 has" in ours.reasons[-1]
    cpus = common(known("cpu-bf16", "cpu"), 0)
    assert not cpus.cpu.bf16
    assert "bf16: not rank 1" in cpus.reasons[-1]


def test_what_one_gpu_of_intel_lacks_none_has() -> None:
    both, lacks = known("B580", "Max 1550")
    ours = common([both, replace(lacks, hardware=without_bf16(lacks.hardware))], 0)
    assert (ours.has_bf16, ours.xpus[0].fp16) == (False, True)
    assert f"bf16: not rank 1 ({lacks.hardware.name})" in ours.reasons[-1]


def without_bf16(machine: Hardware) -> Hardware:
    return replace(machine, xpus=tuple(replace(each, bf16=False) for each in machine.xpus))


def test_the_smallest_memory_is_that_of_all() -> None:
    big, small = known("A100", "A100")
    gpu = replace(small.hardware.gpus[0], memory=1000)
    ranks = [big, replace(small, hardware=replace(small.hardware, gpus=(gpu,)))]
    machine = replace(common(ranks, 0), reasons=())
    assert {each.memory for each in machine.gpus} == {1000}


def test_other_versions_of_torch_are_told() -> None:
    one, other = known("cpu", "cpu")
    build = replace(other.hardware.build, torch="2.9.0")
    found = common([one, replace(other, hardware=replace(other.hardware, build=build))], 0)
    assert "rank 1 has 2.9.0" in found.reasons[-1]


def test_devices_of_different_types_are_refused() -> None:
    with pytest.raises(RanksError, match=r"rank 0 on host 0 has cpu and rank 1 on host 1 has cuda.*CUDA_VISIBLE"):
        common(known("cpu", "A100"), 0)


def test_rank_0_is_asked_and_the_others_say_what_they_were_asked_for() -> None:
    theirs = Sources(
        environment={"autocast": Given("bf16", "TORCHTURBO_AUTOCAST")}, profile=(PROFILES["max"], "--profile")
    )
    mine = Sources(command={"num_threads": Given(2, "--set num_threads=2")})
    asked, otherwise = of_rank_0(theirs, mine)
    assert asked.environment["autocast"] == Given("bf16", "TORCHTURBO_AUTOCAST, on rank 0")
    assert asked.profile == (PROFILES["max"], "--profile, on rank 0")
    assert not asked.command
    assert otherwise == ["no autocast", "num_threads=2 (--set num_threads=2)", "no other profile"]


def test_whoever_is_asked_the_same_keeps_it() -> None:
    theirs, mine = (Sources(default=Profile("mine", tf32=True)) for _ in range(2))
    assert of_rank_0(theirs, mine) == (mine, [])
    assert of_rank_0(Sources(profiles={"mine": PROFILES["max"]}), mine)[1] == ["other profiles in its file"]
    assert of_rank_0(Sources(disabled="TORCHTURBO_DISABLE=1"), NOTHING)[1] == ["that torchturbo is on"]


def test_ranks_draw_numbers_of_their_own_and_rank_0_those_of_the_seed() -> None:
    seeds = [of_rank(42, rank) for rank in range(1000)]
    assert seeds[0] == 42
    assert len(set(seeds)) == 1000
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert of_rank(43, 1) not in seeds


def test_two_processes_agree(start: Start) -> None:
    first, second = (its["apart"]["together"] for its in start(2).ranks)
    assert [first["autocast"], second["autocast"]] == [False, False]
    assert [first["threads"], second["threads"]] == [1, 1]
    assert [first["seed"], second["seed"]] == [7, of_rank(7, 1)]
    assert "bf16: not rank 1" in first["report"]
    assert f"rank 1 of 2 draws numbers of its own, from the seed {second['seed']}" in second["report"]
    assert first["warnings"] == []
    (warned,) = second["warnings"]
    assert warned.startswith(
        "RanksWarning: rank 1 is asked for num_threads=3 (TORCHTURBO_NUM_THREADS), and rank 0 is not"
    )


def test_a_rank_that_enters_alone_says_so_once_and_goes_on(start: Start) -> None:
    first, second = (its["apart"]["alone"] for its in start(2).ranks)
    assert first["autocast"]
    assert second == {"warnings": []}
    (warned,) = first["warnings"]
    assert warned.startswith("RanksWarning: rank 1 has entered no block of torchturbo's within 2 seconds of rank 0's")


def test_torchrun_runs_an_unmodified_script_and_ends_when_a_rank_fails(tmp_path: Path) -> None:
    ours = ["-m", "torchturbo", "run", "--seed", "42", "--set", "autocast=bf16", "--report"]
    code, said = torchrun(*ours, Path(__file__).with_name("launched.py"), tmp_path, seconds=120)
    assert code != 0
    assert "RuntimeError: on purpose" in said
    first, second = ((tmp_path / f"{rank}.txt").read_text().split() for rank in range(2))
    assert first[:3] == ["42", "True", "2"]
    assert second[:3] == [str(of_rank(42, 1)), "True", "2"]
    assert first[3] == second[3]
    assert said.count("Open blocks") <= 1


def test_where_nobody_else_is_nothing_is_agreed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    _ranks.agree_at_launch()
    assert _ranks.settled()
    assert not _ranks._settled


def test_whoever_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    store = distributed.HashStore()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(_ranks._Missing) as missing:
        _ranks._agree(store, timedelta(milliseconds=10))
    assert missing.value.told == "each of the ranks 0, 2"


def test_who_comes_late_is_told_who_has_decided_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    store = distributed.HashStore()
    ours = distributed.PrefixStore("torchturbo", store)
    ours.set("0", pickle.dumps(Known("host 0", hardware.detect(), _sources.sources())))
    ours.set("0 alone", "")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.warns(RanksWarning, match="rank 0 waited in vain for rank 1's first block, and has decided"):
        _ranks._agree(store, timedelta(seconds=10))


def test_what_nobody_knew_stays_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    (ours,) = known("B580")
    unknown = tuple(replace(each, bf16=None) for each in ours.hardware.xpus)
    agreed: list[Hardware] = []
    monkeypatch.setattr(hardware, "agreed_on", agreed.append)
    _ranks._settle([ours, ours], 0)
    assert agreed == []
    asked = replace(ours, hardware=replace(ours.hardware, xpus=unknown), sources=_sources.sources())
    _ranks._settle([asked, asked], 0)
    assert agreed == [asked.hardware]
