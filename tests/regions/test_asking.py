"""What the regions of threads ask for: settled, and not counted, in threads and in forked children."""

from __future__ import annotations

import os
import threading
import traceback

import pytest
import torch
from torch import nn

from torchturbo import turbo
from torchturbo.regions import _formats
from torchturbo.regions._asking import Asked, Asking
from torchturbo.regions._calls import module_calls


class _Told(Asked):
    def begin(self) -> None:
        self.log = ["begin"]

    def end(self) -> None:
        self.log.append("end")


def test_what_acts_is_there_while_any_thread_asks() -> None:
    there: list[bool] = []
    asking = Asking(_Told, there.append)
    cell = asking.cell("a cell")

    def ask() -> None:
        cell.write(True, None)
        asking.thread.its.log.append("another thread's")
        cell.write(None, True)

    cell.write(True, None)
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert there == [True, True, True]
    assert (cell.read(), asking.thread.its.log) == (True, ["begin"])
    cell.write(False, True)  # asked not to act, which is not nothing
    assert (there[-1], asking.thread.its.log) == (False, ["begin"])
    cell.write(None, False)
    assert (cell.read(), there[-1], asking.thread.its.log) == (None, False, ["begin", "end"])


@pytest.mark.parametrize("in_children", [True, False])
def test_a_forked_child_has_one_thread(in_children: bool) -> None:
    there: list[bool] = []
    asking = Asking(_Told, there.append, in_children=in_children)
    cell = asking.cell("a cell")
    asking.asking[_Told()] = None  # another thread's
    cell.write(True, None)
    asking.forked()
    assert (bool(cell.read()), there[-1], len(asking.asking)) == (in_children, in_children, int(in_children))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_can_open_blocks_of_its_own() -> None:
    """Several of what make calls of modules are open, whose handlers of forks come in any order."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    code = nn.Module.__call__.__code__
    with turbo("exact", channels_last=True, checkpoint=True):
        assert module_calls.needed == 2
        child = os.fork()
        if not child:
            try:
                assert (module_calls.needed, module_calls.hand, module_calls.again) == (0, None, None)
                with turbo("exact", channels_last=True):
                    assert module_calls.needed == 1
                    model(torch.randn(1, 3, 4, 4))
                    assert _formats.told() == "Sequential got images in channels_last"
                assert module_calls.needed == 0
                assert nn.Module.__call__.__code__ is code
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert module_calls.needed == 0
    assert nn.Module.__call__.__code__ is code
