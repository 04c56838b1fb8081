"""`distribute`, `shard` and checkpoints on two ranks (on four, marked slow), beside the same loop in one process."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from tests.distributed import spread
from tests.distributed.parameters import apart, same, whole_parameters
from tests.distributed.started import Result, Start


class Found(NamedTuple):
    """What has come of a start of processes: by rank and case, and where a run of one process ends."""

    ranks: list[dict[str, Result]]
    end: list[Tensor]


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def found(request: pytest.FixtureRequest, start: Start) -> Found:
    """What each process ended with, by case."""
    its = start(request.param)
    return Found([each["spread"] for each in its.ranks], its.end)


def _flat(lists: Iterable[list[int]]) -> list[int]:
    return [each for its in lists for each in its]


# ------------------------------------------------------------------------------------------------------------- training


def test_all_ranks_end_with_the_same(found: Found) -> None:
    first, *others = found.ranks
    # Of those that run on one rank alone, losses of one of them overflow.
    cases = [case for case in first if "parameters" in first[case] and not case.startswith("whole")]
    assert [
        case for case in cases for its in others if not same(first[case]["parameters"], its[case]["parameters"])
    ] == []


STRATEGIES = pytest.mark.parametrize("strategy", ["ddp", "fsdp"])


@STRATEGIES
@pytest.mark.parametrize(
    ("how", "whole", "within"),
    [
        # The sums of two and four parts come in another order; the optimizer is AdamW.
        ("", "whole", 1e-6),
        (" compiled", "whole", 1e-6),
        (" fp16", "whole fp16", 1e-3),
        # SGD, in which rounding stays as small as it is.
        (" bf16", "whole bf16", 5e-3),
        (" sent bf16", "whole fp16 sgd", 5e-3),
        (" accumulate", "whole accumulate", 1e-6),
        (" accumulate rest", "whole accumulate rest", 1e-6),
    ],
)
def test_a_loop_ends_near_that_of_one_process(found: Found, strategy: str, how: str, whole: str, within: float) -> None:
    mine, its = found.ranks[0][strategy + how], found.ranks[0][whole]
    # Two of the last three batches of both epochs are uneven between the ranks.
    assert apart(mine["parameters"], its["parameters"]) <= within
    assert mine.get("scale") == its.get("scale")


@STRATEGIES
def test_an_uneven_batch_weighs_each_gradient_once(found: Found, strategy: str) -> None:
    for its in found.ranks:
        assert apart(its[f"{strategy} in a row"]["parameters"], its["whole in a row"]["parameters"]) < 1e-6


def test_an_overflow_of_one_rank_is_one_of_all(found: Found) -> None:
    for its in found.ranks:
        assert its["ddp fp16"]["scale"] == its["fsdp fp16"]["scale"] == 512.0


@STRATEGIES
def test_a_loop_that_drops_what_overflows_gets_to_a_scale_that_does_not(found: Found, strategy: str) -> None:
    its = found.ranks[0][f"{strategy} guarded"]
    assert its["steps"] > 0
    assert (its["steps"], its["scale"]) == (
        found.ranks[0]["ddp guarded"]["steps"],
        found.ranks[0]["ddp guarded"]["scale"],
    )


def test_the_strategies_have_the_same_bits(found: Found) -> None:
    if len(found.ranks) == 2:  # gloo adds four up in another order for shards
        assert same(found.ranks[0]["ddp"]["parameters"], found.ranks[0]["fsdp"]["parameters"])
    assert same(found.ranks[0]["ddp"]["parameters"], found.ranks[0]["auto"]["parameters"])


def test_gradients_are_sent_in_half_the_bytes(found: Found) -> None:
    for strategy in ("ddp", "fsdp"):
        its = found.ranks[0]
        assert its[f"{strategy} sent bf16"]["told"]["gradient_dtype"] == "bfloat16"
        assert not same(its[f"{strategy} sent bf16"]["parameters"], its["whole fp16 sgd"]["parameters"])


def test_fsdp_computes_in_the_precision_of_its_own(found: Found) -> None:
    its = found.ranks[0]
    assert 0 < apart(its["fsdp mixed"]["parameters"], its["whole bf16"]["parameters"]) <= 5e-3


def test_repeated_blocks_are_sharded_one_by_one_and_tied_weights_with_the_rest(found: Found) -> None:
    its = found.ranks[0]
    assert its["fsdp"]["told"]["units"] == 2
    assert "FSDPBlock" in its["fsdp"]["classes"]
    assert (its["tied"]["units"], its["tied"]["tied"]) == (0, True)
    assert apart(its["tied"]["parameters"], its["tied"]["reference"]) <= 1e-6


def test_it_is_told_how_a_model_stands(found: Found) -> None:
    for rank, its in enumerate(found.ranks):
        told = its["auto"]["told"]
        assert (told["strategy"], told["rank"], told["ranks"], told["device"]) == ("ddp", rank, len(found.ranks), "cpu")
        assert "each holds the whole" in told["why"]
        assert "gloo" in told["backend"]


# --------------------------------------------------------------------------------------------------------- accumulation


def test_micro_batches_are_reduced_once_for_each_step(found: Found) -> None:
    its = found.ranks[0]
    # And the first one of the block, before which nobody knows an optimizer.
    once = spread.STEPS + 1
    for how in ("", " fp16", " compiled"):
        assert its[f"ddp accumulate{how}"]["reductions"] == once
    groups = 3
    assert its["fsdp accumulate whole"]["reductions"] == once * groups
    assert its["fsdp accumulate"]["reductions"] == spread.STEPS * spread.EVERY * groups


@pytest.mark.parametrize("how", ["", " clip"])
def test_accumulation_has_the_bits_of_no_sync(found: Found, how: str) -> None:
    its = found.ranks[0]
    assert same(its[f"ddp accumulate{how}"]["parameters"], its[f"by hand{how}"]["parameters"])


@pytest.mark.parametrize(
    ("ours", "whole", "within"),
    [
        ("ddp accumulate ahead", "whole accumulate ahead", 1e-6),
        ("ddp accumulate fp16", "whole accumulate", 1e-3),
        ("ddp accumulate compiled", "whole accumulate", 1e-6),
        ("fsdp accumulate whole", "whole accumulate", 1e-6),
        ("fsdp accumulate whole fp16", "whole accumulate", 1e-3),
        ("fsdp accumulate whole rest", "whole accumulate rest", 1e-6),
    ],
)
def test_what_was_not_reduced_is_before_the_step(found: Found, ours: str, whole: str, within: float) -> None:
    assert apart(found.ranks[0][ours]["parameters"], found.ranks[0][whole]["parameters"]) <= within


def test_what_was_clipped_by_each_rank_alone_is_told(found: Found) -> None:
    assert all("a multiple of accumulate" in its["clipped rest"]["warned"][0] for its in found.ranks)


# ---------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize(
    ("before", "after"), [("ddp", "ddp"), ("ddp", "fsdp"), ("fsdp", "ddp"), ("alone", "ddp"), ("alone", "fsdp")]
)
def test_a_run_goes_on_from_a_checkpoint_of_another_kind(found: Found, before: str, after: str) -> None:
    ranks = 1 if before == "alone" else len(found.ranks)
    mine = found.ranks[0][f"{before}-{ranks} -> {after}"]
    end = found.end if before == "alone" else found.ranks[0][f"{before} saved"]["parameters"]
    if before != "alone":
        assert same(mine["at"], found.ranks[0][f"{before} saved"]["at"])
    if before == after:
        assert same(mine["parameters"], end)
    assert apart(mine["parameters"], end) <= 1e-3
    assert (mine["extra"], mine["scale"]) == ({"epoch": 1}, 512.0)


@STRATEGIES
def test_one_process_goes_on_from_a_checkpoint_of_several(found: Found, strategy: str) -> None:
    path = Path(found.ranks[0][f"{strategy} saved"]["path"])
    mine = spread.resumed("auto", path)
    assert same(mine["at"], found.ranks[0][f"{strategy} saved"]["at"])
    assert apart(mine["parameters"], found.ranks[0][f"{strategy} saved"]["parameters"]) <= 1e-3
    assert not [each for each in path.parent.iterdir() if each.suffix in (".writing", ".former")]


def test_plain_pytorch_reads_it(found: Found, tmp_path: Path) -> None:
    file = tmp_path / "plain.pt"
    dcp_to_torch_save(found.ranks[0]["fsdp saved"]["path"], file)
    module = spread.model(7)
    module.load_state_dict(torch.load(file)["model"])
    assert same(whole_parameters(module), found.ranks[0]["fsdp saved"]["at"])


def test_micro_batches_that_wait_are_not_saved(found: Found) -> None:
    assert "micro-batches that wait" in found.ranks[0]["in an accumulating block"]["error"]


@STRATEGIES
def test_what_has_no_state_is_saved_without_and_loaded_without(found: Found, strategy: str) -> None:
    its = found.ranks[0][f"{strategy} untouched"]
    assert its["states"] == 2
    for how in ("saved", "loaded"):
        assert same(its[how], its["parameters"]), how


def test_what_each_rank_has_of_its_own_is_saved_of_the_first(found: Found) -> None:
    first, second = (its["of each rank"] for its in found.ranks[:2])
    assert not same(first["saved"], second["saved"])
    assert same(first["loaded"], first["saved"])
    assert same(second["loaded"], first["saved"])
    assert second["notes"]["rank"] == {"is": 0}
    assert second["notes"]["seen"].tolist() == [0, 1]


def test_a_rank_that_cannot_write_has_all_raise(found: Found) -> None:
    first, *others = [its["failing"] for its in found.ranks]
    assert "extra['path'] is a PosixPath" in first["extra"]
    assert "Not a directory" in first["folder"]
    for each in others:
        assert each["extra"] == f"the checkpoint failed on rank 0: CheckpointError: {first['extra']}"
        assert each["folder"].startswith("the checkpoint failed on rank 0: NotADirectoryError: ")


# -------------------------------------------------------------------------------------------------------------- loaders


def test_the_parts_of_a_step_are_those_of_one_process(found: Found) -> None:
    ranks = len(found.ranks)
    orders = [its["orders"] for its in found.ranks]
    plain = [list(range(21))[at : at + 4] for at in range(0, 21, 4)]
    in_all = [_flat(parts) for parts in zip(*(each["in_all"] for each in orders), strict=True)]
    # The last batch has one sample: the others have it too, and it counts for nothing there.
    assert in_all == [*plain[:-1], [20] * ranks]
    per_rank = [_flat(parts) for parts in zip(*(each["per_rank"] for each in orders), strict=True)]
    assert _flat(per_rank) == list(range(21))
    assert all(len(step) == 4 * ranks for step in per_rank[:-1])
    drops = _flat(_flat(parts) for parts in zip(*(each["drops"] for each in orders), strict=True))
    assert drops == list(range(21 // (4 * ranks) * 4 * ranks))
    assert [each["workers"] for each in orders] == [each["per_rank"] for each in orders]


def test_epochs_have_orders_of_their_own_which_all_ranks_share(found: Found) -> None:
    for epoch in (0, 1):
        drawn = _flat(its["orders"]["epochs"][epoch] for its in found.ranks)
        assert sorted(drawn) == list(range(21))
    assert sorted(_flat(its["orders"]["batch sampler"] for its in found.ranks)) == list(range(21))
    first = found.ranks[0]["orders"]
    assert first["epochs"][0] != first["epochs"][1]
    assert first["again"] == first["epochs"][0]
    assert first["lengths"] == [-(-6 // len(found.ranks)), -(-6 // len(found.ranks)), 6]


def test_what_is_refused_says_what_to_write(found: Found) -> None:
    errors = found.ranks[0]["errors"]
    assert "the plain model, once" in errors["twice"]
    assert "units= is for strategy='fsdp'" in errors["units"]
    assert "as for one process" in errors["sharded"]
    assert "is not there" in errors["missing"]
    assert "weight is (1, 1) torch.float32 on rank 0 and (2, 1) torch.float32 on rank 1" in errors["different"]
    assert "an optimizer (AdamW) has them already, which would train nothing" in errors["optimizer"]
    assert "weight is on the meta device and has no values" in errors["meta"]
    assert "there is a process group already, whose time stands" in errors["timeout"]
    assert "0.weight was frozen when distribute() was called and trains now" in errors["thawed"]
