"""What blocks have compiled is told in every form of the report, and only where there is something to tell."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.regions.compiled import BARE, Backend
from tests.report.facts import COMPILED, facts
from torchturbo import turbo
from torchturbo._report import gather

pytestmark = pytest.mark.usefixtures("compiler")

FAILED = replace(COMPILED, name="Net", count=1, reason="could not be compiled")
LINES = ("GPT (default): compiled 2 times, 12.3 s", "Net (default): compiled once, 12.3 s; could not be compiled")


def test_it_is_told_in_every_form() -> None:
    report = facts("cpu", compiled=(COMPILED, FAILED))
    for line in LINES:
        assert f"  {line}\n" in report.to_text(width=200)
        assert f"<div>{line}</div>" in report._repr_html_()
    assert json.loads(report.to_json())["compiled"] == [
        {"name": "GPT", "how": "default", "count": 2, "seconds": 12.34, "reason": None},
        {"name": "Net", "how": "default", "count": 1, "seconds": 12.34, "reason": "could not be compiled"},
    ]


def test_where_nothing_is_compiled_nothing_is_told() -> None:
    report = facts("cpu")
    assert "Compiled" not in report.to_text()
    assert "Compiled" not in report._repr_html_()


def test_a_report_has_what_blocks_compiled() -> None:
    backend = Backend()
    with turbo(BARE, compile=backend.options):
        nn.Linear(1, 1)(torch.ones(1, 1))
    torch.compiler.reset()
    (found,) = (compiled for compiled in gather().compiled if str(backend) in compiled.how)
    assert (found.name, found.count) == ("Linear", 1)
