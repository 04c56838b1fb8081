"""Mixtures of torch's older and newer precision settings: told in words, with a line that mends them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests.fresh import Fresh
from torchturbo import turbo
from torchturbo._report import gather
from torchturbo._report.data import Contradiction
from torchturbo._report.precision import _instead, contradictions
from torchturbo.testing import pretend_hardware

BACKENDS: Any = torch.backends
pytestmark = pytest.mark.skipif(
    not hasattr(torch.backends, "fp32_precision"), reason="torch 2.8 has one way to say it only"
)


@contextmanager
def parent_of_all(precision: str) -> Iterator[None]:
    """The newest of torch's settings, and the one that can be put back exactly."""
    BACKENDS.fp32_precision = precision
    try:
        yield
    finally:
        BACKENDS.fp32_precision = "none"


def test_a_torch_that_nobody_touched_contradicts_nothing() -> None:
    assert contradictions() == ()
    assert gather().contradictions == ()


def test_matrix_products_that_two_settings_disagree_on() -> None:
    with parent_of_all("tf32"):
        (contradiction,) = contradictions()
        report = gather()
    assert contradiction == Contradiction(
        "matmul_precision",
        ("torch.get_float32_matmul_precision()", "torch.backends.cuda.matmul.allow_tf32"),
        "torch contradicts itself: the older torch.set_float32_matmul_precision stands at 'highest', the newer "
        "fp32_precision at 'tf32' for CUDA and 'tf32' for oneDNN",
        "torch.set_float32_matmul_precision('high')",
    )
    assert report.contradictions == (contradiction,)
    assert (report["matmul_precision"].now, report["matmul_precision"].note) == ("high", contradiction.says)
    assert report["cudnn_precision"].note is None
    assert any(contradiction.instead in sentence for sentence in report.advice)


@pytest.mark.skipif(
    not hasattr(torch._C, "_get_cudnn_depthwise_kernel"), reason="before torch 2.13 these do not follow"
)
def test_convolutions_that_two_settings_disagree_on() -> None:
    with parent_of_all("ieee"):
        (contradiction,) = contradictions()
        report = gather()
    assert contradiction == Contradiction(
        "cudnn_precision",
        ("torch.backends.cudnn.allow_tf32",),
        "torch contradicts itself: the older torch.backends.cudnn.allow_tf32 stands at True, the newer "
        "fp32_precision at 'ieee' for convolutions and 'ieee' for recurrent nets",
        "torch.backends.cudnn.allow_tf32 = False",
    )
    assert (report["cudnn_precision"].now, report["cudnn_precision"].note) == ("ieee", contradiction.says)


def test_where_a_parent_says_tf32_the_older_setting_alone_does_not_switch_it_off() -> None:
    with parent_of_all("tf32"):
        assert _instead(tf32=False).endswith(" = 'ieee'")
        assert _instead(tf32=True) == "torch.backends.cudnn.allow_tf32 = True"


def test_one_getter_alone_may_raise() -> None:
    with parent_of_all("bf16"):
        first, *_ = contradictions()
    assert first.getters == ("torch.get_float32_matmul_precision()",)


def test_a_block_of_ours_that_makes_a_getter_raise_says_whom_to_ask() -> None:
    with pretend_hardware("A100"), turbo("exact"):
        report = gather()
        raising = [contradiction.option for contradiction in report.contradictions]
        inside = [sentence for sentence in report.advice if "cannot answer inside this block" in sentence]
    assert len(inside) == len(raising)
    assert set(raising) <= {"cudnn_precision"}


# Each line that a report tells people to write, written: in processes of their own, for what torch 2.13 calls `default`
# cannot be put back once it is overwritten.
MEND = """
import itertools, json, warnings
import torch
warnings.simplefilter("ignore")
from torchturbo._report import gather
from torchturbo._report.precision import contradictions

cells = [("generic", "all"), ("cuda", "all"), ("cuda", "conv"), ("cuda", "rnn")]
cells += [("cuda", "matmul"), ("mkldnn", "matmul")]
seen = failed = 0
for values in itertools.product(("none", "ieee", "tf32"), repeat=len(cells)):
    for legacy, flag in (("highest", True), ("high", False)):
        torch.set_float32_matmul_precision(legacy)
        torch.backends.cudnn.allow_tf32 = flag
        for (backend, operation), value in zip(cells, values):
            torch._C._set_fp32_precision_setter(backend, operation, value)
        for contradiction in contradictions():
            seen += 1
            exec(contradiction.instead)
        failed += bool(contradictions())
        failed += any(row.now == "unreadable" for row in gather()) if seen % 50 == 0 else 0
print(json.dumps([seen, failed]))
"""


def test_what_to_write_instead_always_mends_it(fresh_python: Fresh) -> None:
    done = fresh_python(MEND)
    seen, failed = json.loads(done.stdout)
    assert seen > 500
    assert failed == 0
