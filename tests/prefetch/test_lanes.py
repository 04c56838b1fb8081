"""The way to a GPU, with streams that only write down what is asked of them; what they do is for `make gpu`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sympy  # with a filter for its warnings, and torch imports it for the first operation on meta tensors
import torch
from torch import Tensor

from torchturbo.regions import _lanes
from torchturbo.regions._ahead import Ahead
from torchturbo.regions._lanes import PlainLane, SideLane, lane_to

assert sympy


class Streams:
    """What stands in for `torch.cuda`."""

    def __init__(self) -> None:
        self.now = "the one that computes"
        self.log: list[Any] = []
        outer = self

        class Stream(str):
            def wait_event(self, event: Any) -> None:
                outer.log.append(("waits", str(self)))

        class Event:
            def record(self, stream: Any) -> None:
                outer.log.append(("marks", str(stream)))

            def synchronize(self) -> None:
                outer.log.append(("settles",))

        self.Event = Event
        self._kind = Stream

    def Stream(self, device: torch.device) -> Any:
        return self._kind("the one beside")

    def current_stream(self, device: torch.device) -> Any:
        return self._kind(self.now)

    def current_device(self) -> int:
        return 3

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self.now, before = str(stream), self.now
        yield
        self.now = before


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[Streams]:
    """All that a GPU has to say, said on the meta device."""
    made = Streams()
    monkeypatch.setattr(torch, "get_device_module", lambda device: made)
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: made.log.append(("keeps", str(stream))))

    def pinned(self: Tensor) -> Tensor:
        made.log.append(("pins", made.now))
        return self.clone()

    monkeypatch.setattr(Tensor, "pin_memory", pinned)
    monkeypatch.setattr(Tensor, "is_pinned", lambda self: hasattr(self, "stays"))
    _lanes._side_stream.cache_clear()
    yield made
    _lanes._side_stream.cache_clear()


class Own:
    """A batch of somebody's own, which makes what nobody sees."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def pin_memory(self) -> Own:
        self.x = self.x.pin_memory()
        return self

    def to(self, device: Any, non_blocking: bool = False) -> Own:
        assert non_blocking
        self.x = self.x.to(device).to_sparse() if self.x.device.type == "meta" else self.x.to(device)
        self._hidden = [torch.zeros(2, device=device)]
        return self


BESIDE, COMPUTES = "the one beside", "the one that computes"


def test_a_batch_is_pinned_copied_waited_for_and_kept(streams: Streams) -> None:
    lane = SideLane(torch.device("meta"))
    ahead = Ahead(iter([{"x": torch.ones(2), "y": torch.zeros(3)}] * 2), lane)
    batch = next(ahead)
    assert {name: its.device.type for name, its in batch.items()} == {"x": "meta", "y": "meta"}
    one = [("pins", BESIDE), ("pins", BESIDE), ("marks", BESIDE)]
    given = [("waits", COMPUTES), ("keeps", COMPUTES), ("keeps", COMPUTES)]
    assert streams.log == [*one, *one, *given]
    streams.log.clear()
    streams.now = "another one"
    next(ahead)
    assert streams.log == [(what, "another one") for what, _ in given]


def test_memory_of_the_sources_own_is_read_before_more_is_asked_for(streams: Streams) -> None:
    pinned = torch.ones(2)
    pinned.stays = True  # type: ignore[attr-defined]
    list(Ahead(iter([pinned, pinned]), SideLane(torch.device("meta"))))
    said = [what for what, *_ in streams.log if what in ("pins", "settles", "waits")]
    assert said == ["settles", "waits", "settles", "waits"]


def test_all_that_an_object_makes_is_kept(streams: Streams) -> None:
    batch = Own(torch.ones(2))
    moved = next(Ahead(iter([batch]), SideLane(torch.device("meta"))))
    assert moved.x.device.type == "meta"
    assert batch.x.device.type == "cpu"
    assert [what for what, *_ in streams.log].count("keeps") >= 2


def test_what_cannot_be_pinned_goes_as_it_is(streams: Streams) -> None:
    sparse = torch.eye(2).to_sparse()
    weight = torch.ones(2, requires_grad=True)
    batch = next(Ahead(iter([[sparse, weight]]), SideLane(torch.device("meta"))))
    assert [its.device.type for its in batch] == ["meta", "meta"]
    assert [what for what, *_ in streams.log] == ["marks", "waits", "keeps", "keeps", "keeps"]


def test_the_current_device_is_asked_for_when_the_way_is_made(streams: Streams) -> None:
    found: Any = lane_to(torch.device("cuda"))
    assert found.device == torch.device("cuda:3")
    again: Any = lane_to(torch.device("cuda:3"))
    assert again._stream is found._stream  # one for all
    assert lane_to(torch.device("cpu")) is None
    assert isinstance(lane_to(torch.device("meta")), PlainLane)


def test_without_streams_things_move_at_once() -> None:
    class Counted(Own):
        def to(self, device: Any) -> Any:  # type: ignore[override]
            self.x = self.x.to(device)
            return self

    class Inner(Counted):
        pin_memory = None  # type: ignore[assignment]

    batch = [Inner(torch.ones(2)), torch.ones(2)]
    moved, x = next(Ahead(iter([batch]), PlainLane(torch.device("meta"))))
    assert (moved.x.device.type, x.device.type) == ("meta", "meta")
    assert batch[0].x.device.type == "cpu"  # type: ignore[union-attr]
