"""What stands in many sentences, and the amounts that words of users stand for."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from torchturbo._words import arguments, bytes_of, clock, milliseconds, seconds_of, short, size, some, time
from torchturbo.errors import OptionValueError


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1010 * 2**10, "1,010 KiB"),  # and not 1.01e+03
        (2.5 * 2**20, "2.5 MiB"),
        (79.6 * 2**30, "79.6 GiB"),
        (2**60, "1,048,576 TiB"),
    ],
)
def test_bytes_in_words(count: float, words: str) -> None:
    assert size(count) == words


def test_times_in_words() -> None:
    assert [milliseconds(each) for each in (1e-6, 0.0123, 1.5)] == ["0.001", "12.3", "1,500"]
    assert [time(each) for each in (0.0123, 0.5, 1.25, 125)] == ["12.3 ms", "500 ms", "1.25 s", "125 s"]
    assert [clock(each) for each in (5, 65, 3661)] == ["00:05", "01:05", "1:01:01"]


def test_numbers_in_words() -> None:
    assert [short(each) for each in (0, 12.34, 1234, 123_456, 2.5e6, 3e9)] == [
        "0",
        "12.3",
        "1,234",
        "123k",
        "2.5M",
        "3G",
    ]
    assert arguments({"autocast": "bf16", "tf32": True}) == "autocast='bf16', tf32=True"
    assert [some(each, "core") for each in (0, 1, 2000)] == ["0 cores", "1 core", "2,000 cores"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90 s", 90), ("2 min", 120), ("1h", 3600), ("1.5 m", 90), (7, 7), ("30", 30), (timedelta(minutes=2), 120)],
)
def test_a_time_is_what_people_write(text: Any, seconds: float) -> None:
    assert seconds_of(text, "budget") == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", "2 weeks", "-1", 0, -3, timedelta(0), True, None, float("nan"), float("inf")]
)
def test_what_is_no_time_is_refused(text: Any) -> None:
    with pytest.raises(OptionValueError, match=f"^budget={re.escape(repr(text))}: expected a time, as '90 s'"):
        seconds_of(text, "budget")


@pytest.mark.parametrize(
    ("text", "count"), [("1 KB", 1000), ("1.5 KiB", 1536), ("2g", 2 * 10**9), ("3 bytes", 3), (7777, 7777)]
)
def test_bytes_are_what_people_write(text: Any, count: int) -> None:
    assert bytes_of(text, "max_bytes") == count


@pytest.mark.parametrize("text", ["much", "-1", "1 XB", 0, True, float("nan")])
def test_what_is_no_number_of_bytes_is_refused(text: Any) -> None:
    with pytest.raises(OptionValueError, match=f"^max_bytes={text!r}: expected a number of bytes, as '500 MB'"):
        bytes_of(text, "max_bytes")
