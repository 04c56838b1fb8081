"""Threads of one operation: torch's setter also changes what threads start with, which a block must not."""

from __future__ import annotations

import gc
import threading

import pytest
import torch

from tests.laws.crew import Crew, in_new_thread
from torchturbo import Profile, turbo


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_only_the_thread_that_opens_the_block_changes(number: int) -> None:
    here, new = torch.get_num_threads(), in_new_thread(torch.get_num_threads)
    with Crew(2) as (old, idle):
        theirs = old.do(torch.get_num_threads)
        with turbo(Profile("one"), num_threads=number):
            assert torch.get_num_threads() == number
            assert old.do(torch.get_num_threads) == theirs
            assert idle.do(torch.get_num_threads) == new
            assert in_new_thread(torch.get_num_threads) == new
        assert torch.get_num_threads() == here
        assert in_new_thread(torch.get_num_threads) == new


def test_each_thread_has_its_own() -> None:
    with Crew(3) as crew:
        blocks = [turbo(Profile("one"), num_threads=number) for number in (1, 2, 3)]
        before = [hand.do(torch.get_num_threads) for hand in crew]
        for hand, block in zip(crew, blocks, strict=True):
            hand.do(block.__enter__)
        assert [hand.do(torch.get_num_threads) for hand in crew] == [1, 2, 3]
        for hand, block in zip(crew, blocks, strict=True):
            hand.do(lambda block=block: block.__exit__(None, None, None))
        assert [hand.do(torch.get_num_threads) for hand in crew] == before


def test_no_thread_is_started_where_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a thread was started")

    block = turbo(Profile("one"), num_threads=torch.get_num_threads())
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        patched.setattr("_thread.start_new_thread", refuse)
        with block:
            pass


def test_a_collection_in_the_threads_that_are_asked_does_not_hang() -> None:
    def forgotten() -> object:
        with turbo(Profile("one"), flash_sdp=False):
            yield

    def drop() -> None:
        generator = forgotten()
        next(generator)
        ring = [generator]
        ring.append(ring)

    gc.collect()
    gc.disable()
    threading.setprofile(lambda *_: gc.collect() and None)
    try:
        drop()
        with turbo(Profile("one"), num_threads=1):
            pass
    finally:
        threading.setprofile(None)
        gc.enable()
        gc.collect()
    assert torch.backends.cuda.flash_sdp_enabled()
