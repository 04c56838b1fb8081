"""Law 5, for blocks and for decorated functions; and for the plain ones, so that the law is not made to measure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.laws import own_before
from tests.laws.around import Around, BlockMaker, PlainBlock, around_calls, decorated, ours
from tests.laws.catalogue import EVERYTHING
from torchturbo.testing import pretend_hardware


@pytest.fixture(autouse=True)
def _a_machine_that_can_do_everything() -> Iterator[None]:
    PlainBlock.reset()
    with pretend_hardware(EVERYTHING):
        yield


LAWS_OF_FUNCTIONS = (
    own_before.recursion,
    own_before.mutual_recursion,
    own_before.failing_recursion,
    own_before.many_threads,
)
LAWS_OF_BLOCKS = (own_before.re_entry, own_before.wrong_thread, own_before.forked)


@pytest.mark.parametrize("law", LAWS_OF_FUNCTIONS)
@pytest.mark.parametrize(
    "around", [decorated, around_calls(ours), around_calls(PlainBlock)], ids=["decorated", "with", "plain"]
)
def test_a_call_owns_its_own_before(law: Any, around: Around[Any]) -> None:
    law(around)


@pytest.mark.parametrize("law", LAWS_OF_BLOCKS)
@pytest.mark.parametrize("make", [ours, PlainBlock], ids=["turbo", "plain"])
def test_an_entry_owns_its_own_before(law: Any, make: BlockMaker) -> None:
    law(make)
