"""Law 3: over made-up state and simulated threads, and over torch with real blocks and real threads."""

from __future__ import annotations

import pytest

from tests.laws import blocks, newest
from tests.laws.around import BlockMaker, ours
from tests.laws.layers import Maker, Ours, Plain
from tests.laws.newest import Collected, Machine, NewestWins, Whole


@pytest.mark.parametrize("make", [Ours, Plain])
@pytest.mark.parametrize("machine", [NewestWins, Whole, Collected])
def test_layers_come_and_go_in_any_order(machine: type[Machine], make: Maker) -> None:
    newest.judge(machine, make, examples=120)


@pytest.mark.parametrize("make", [ours])
def test_blocks_come_and_go_in_any_order_over_threads(make: BlockMaker) -> None:
    blocks.judge(make, examples=120)
