"""What more processes buy, on paper: the sums, their limits, and what was measured beside them."""

from __future__ import annotations

import pytest

from benchmarks import _links, scaling_model
from tests.distributed.started import ROOT


def test_the_table_of_the_document_is_what_is_computed() -> None:
    document = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert scaling_model.table() in document
    assert scaling_model.beside() in document


def test_sums_on_paper_have_their_limits() -> None:
    link = _links.Link(1e-6, 1e9)
    assert _links.reduced(1e9, 1, link) == _links.gathered(1e9, 1, link) == 0
    # A large message on two: each sends half and gets half, twice.
    assert _links.reduced(1e9, 2, link) == pytest.approx(1.0, rel=1e-4)
    # A small one on many goes along trees.
    assert _links.reduced(8, 1024, link) == pytest.approx(2 * 10 * 1e-6, rel=1e-2)
    one = scaling_model.ddp(scaling_model.SMALL, scaling_model.H100, 1, 4)
    assert one.efficiency == 1
    assert scaling_model.fsdp(scaling_model.LARGE, scaling_model.H100, 8, 2, within=8).efficiency == pytest.approx(
        scaling_model.fsdp(scaling_model.LARGE, scaling_model.H100, 8, 2).efficiency
    )


def test_the_paper_is_near_what_others_have_measured_and_a_ring_leaves_a_machine_once() -> None:
    assert all(abs(its.on_paper - its.kept) < 0.02 for its in scaling_model.PUBLISHED)
    cluster = scaling_model.H100
    assert cluster.around(8) is cluster.inside
    assert cluster.around(16).bandwidth == pytest.approx(8 * cluster.between.bandwidth)
    assert cluster.inside.latency < cluster.around(16).latency < cluster.between.latency


def test_a_link_is_found_in_what_was_timed_and_steps_are_put_beside_it() -> None:
    link = _links.Link(50e-6, 2e9)
    sizes = (1024, 2**20, 2**26)
    alone = {
        "all-reduce": {str(size): [2 * _links.gathered(size, 4, link)] for size in sizes},
        "all-gather": {str(size): [_links.gathered(size, 4, link)] for size in sizes},
        "reduce-scatter": {str(size): [_links.gathered(size, 4, link)] for size in sizes},
    }
    found = _links.fitted(alone["all-reduce"], 4, 2)
    assert (found.latency, found.bandwidth) == (pytest.approx(50e-6), pytest.approx(2e9))
    run = {"ranks": 4, "bytes of gradients": 2**22, "units of fsdp": 3, "seconds alone, by bytes": alone}
    run["median"] = {
        "not reduced": 0.1,
        "fsdp of one": 0.12,
        "ddp": 0.1 + _links.reduced(2**22, 4, link),
        "fsdp": 0.2,
    }
    ddp, fsdp = scaling_model.check({"runs": [{"ranks": 1}, run]})
    assert ddp["error"] == pytest.approx(0)
    assert fsdp["error"] < 0
