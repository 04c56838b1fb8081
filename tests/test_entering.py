"""One block can be entered again, within itself, in several threads, and left in any order and by any exception."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from torchturbo import turbo
from torchturbo._turbo import in_force
from torchturbo.errors import WrongThreadError
from torchturbo.testing import pretend_hardware


def anomaly() -> bool:
    return bool(torch.is_anomaly_enabled())


def autocast() -> bool:
    return bool(torch.is_autocast_enabled("cpu"))


def test_one_block_can_be_entered_again() -> None:
    block = turbo("debug")
    for _ in range(3):
        with block:
            assert anomaly()
        assert not anomaly()


def test_one_block_can_be_entered_within_itself() -> None:
    block = turbo("debug", num_threads=1)
    threads = torch.get_num_threads()
    with block as outer, block as inner:
        assert outer is not inner
        assert (anomaly(), torch.get_num_threads()) == (True, 1)
        with contextlib.suppress(ValueError), block:
            raise ValueError
        assert (anomaly(), torch.get_num_threads()) == (True, 1)
    assert (anomaly(), torch.get_num_threads()) == (False, threads)


def test_recursion() -> None:
    block = turbo("debug")
    seen = []

    def descend(depth: int) -> None:
        with block:
            seen.append(anomaly())
            if depth:
                descend(depth - 1)
            seen.append(anomaly())
        seen.append(anomaly())

    descend(5)
    assert seen == [True] * 6 + [True, True] * 5 + [True, False]


def test_the_newest_wins_and_the_others_come_back() -> None:
    with turbo("debug"):
        with turbo("exact", anomaly=False):
            assert not anomaly()
            with turbo("debug"):
                assert anomaly()
            assert not anomaly()
        assert anomaly()


def test_blocks_may_leave_in_any_order() -> None:
    first, second = turbo("debug"), turbo("exact", anomaly=False)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not anomaly()
    second.__exit__(None, None, None)
    assert not anomaly()


def test_one_block_in_an_exit_stack() -> None:
    block = turbo("debug")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(block)
            assert anomaly()
    assert not anomaly()


def test_entered_twice_and_closed_once_by_another_thread() -> None:
    block = turbo("debug", num_threads=1)
    threads = torch.get_num_threads()
    block.__enter__()
    block.__enter__()
    with ThreadPoolExecutor(1) as pool, pytest.raises(WrongThreadError):
        pool.submit(block.__exit__, None, None, None).result()
    assert (anomaly(), torch.get_num_threads()) == (True, 1)
    block.__exit__(None, None, None)
    assert (anomaly(), torch.get_num_threads()) == (False, threads)
    assert not in_force()


def test_leaving_without_having_entered() -> None:
    with pytest.raises(RuntimeError, match=r"turbo\('debug'\) was left without having been entered"):
        turbo("debug").__exit__(None, None, None)


@pytest.mark.parametrize("error", [ValueError, StopIteration, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_comes_out_as_it_is(error: type[BaseException]) -> None:
    raised = error("from the block")
    with pytest.raises(error) as caught, turbo("debug"):
        raise raised
    assert caught.value is raised
    assert not hasattr(raised, "__notes__")
    assert not anomaly()


def test_threads_share_what_the_process_shares_and_nothing_else() -> None:
    with pretend_hardware("cpu-bf16"), turbo("inference", anomaly=True), ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: (anomaly(), autocast(), torch.is_grad_enabled())).result()
        assert found == (True, False, True)
        assert (anomaly(), autocast(), torch.is_grad_enabled()) == (True, True, False)


def test_one_block_in_many_threads() -> None:
    block = turbo("inference", autocast=None)
    barrier = threading.Barrier(4)

    def work(turns: int) -> list[bool]:
        seen = []
        for turn in range(turns):
            with block:
                seen.append(not torch.is_grad_enabled())
                if turn == 0:
                    barrier.wait(timeout=60)
            seen.append(torch.is_grad_enabled())
        return seen

    with ThreadPoolExecutor(4) as pool:
        assert [all(seen) for seen in pool.map(work, [50] * 4)] == [True] * 4
    assert torch.is_grad_enabled()
