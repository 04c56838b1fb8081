"""From what was measured to a sentence: which cause is named, and when."""

from __future__ import annotations

import pytest

from torchturbo._watch.cause import Judge, Loading, Window, cause_of, share_below, workers_for
from torchturbo._watch.lines import Line
from torchturbo._watch.timeline import Times

BUILDS = Line("/home/me/train.py", 31, "collate", "edges.append((i, j))", 0.62)
MOVES = Line("/home/me/train.py", 50, "train", "loss.item()", 0.9)


def window(waiting: float, optimizer: float = 0.0, *, gpu: float | None = None, **more: float) -> Window:
    times = Times(10 * waiting, 10 * (1 - waiting - optimizer), 10 * optimizer)
    busy = 1 - waiting if gpu is None else gpu
    return Window(times, 100, more.get("starting", 0.0), int(more.get("compiled", 0)), busy, gpu is not None)


def said(found: Window, loading: Loading) -> tuple[str, str]:
    cause = cause_of(found, loading, (BUILDS,), (MOVES,))
    return cause.about, str(cause)


def test_too_few_workers_are_named_with_how_many_to_try() -> None:
    about, text = said(window(0.81), Loading("a DataLoader", 2, 16))
    assert about == "loader"
    assert text.startswith(
        "waiting on the loader 81% of the time: 2 workers on 16 cores; try num_workers=8, which will"
    )
    assert "edges.append" in text


def test_no_workers_are_named_with_the_lines_that_make_batches() -> None:
    _, text = said(window(0.5), Loading("a DataLoader", 0, 16))
    assert text == (
        "waiting on the loader 50% of the time: no workers on 16 cores, batches are made in the loop's own thread; "
        "try num_workers=1. The lines that spend it:\n  train.py:31 in collate (62%): edges.append((i, j))"
    )


@pytest.mark.parametrize(
    ("loading", "advice"),
    [
        (Loading("a DataLoader", 8, 16), "there is no room for more, as the loop needs cores too"),
        (Loading("a DataLoader", 1, 1), "1 worker on 1 core; there is no room for more"),
        (
            Loading("a DataLoader", 0, 16, refused="the dataset holds an open file"),
            "not get it right (the dataset holds",
        ),
        (
            Loading("a generator", None, 4),
            "a generator makes batches in the loop's own thread, on 4 cores; try a torch.",
        ),
    ],
)
def test_advice_is_about_what_is_there(loading: Loading, advice: str) -> None:
    about, text = said(window(0.81), loading)
    assert about == "loader"
    assert advice in text


def test_workers_that_start_anew_at_each_epoch_are_a_cause_of_their_own() -> None:
    found = window(0.8, starting=6.0)
    assert said(found, Loading("a DataLoader", 4, 16))[0] == "workers' start"
    assert "persistent_workers=True" in said(found, Loading("a DataLoader", 4, 16))[1]
    assert said(found, Loading("a DataLoader", 4, 16, persistent=True))[0] == "loader"


@pytest.mark.parametrize(
    ("found", "about"),
    [
        (window(0.03, gpu=0.35), "host"),
        (window(0.03, 0.4, gpu=0.35), "optimizer"),
        (window(0.03, gpu=0.35, compiled=9), "compiling"),
        (window(0.81, gpu=0.15), "loader"),
        (window(0.20, gpu=0.65), "host"),
        (window(0.32, gpu=0.68), "loader"),
    ],
)
def test_a_gpu_that_waits_waits_for_what_takes_the_time(found: Window, about: str) -> None:
    what, text = said(found, Loading("a DataLoader", 2, 16))
    assert what == about
    if about == "host":
        assert text.startswith("host code in your loop: ")
        assert "loss.item()" in text


def test_as_many_workers_as_fetch_while_the_loop_computes() -> None:
    assert workers_for(Times(waiting=3.0, computing=1.0), 0) == 3
    assert workers_for(Times(waiting=3.0, computing=0.5, optimizer=0.5), 2) == 8
    assert workers_for(Times(), 0) == 1


def test_the_judge_speaks_once_and_only_of_what_has_lasted() -> None:
    judge = Judge(0.7, after=3.0)
    low, high = (Window(Times(share, 1 - share), 5, 0.0, 0, 1 - share, False) for share in (0.8, 0.0))
    assert [judge.add(each) for each in (low, low)] == [None, None]
    found = judge.add(low)
    assert found is not None
    assert found.times.total == pytest.approx(3)
    assert found.utilization == pytest.approx(0.2)
    assert judge.add(low) is None, "once"

    judge = Judge(0.7, after=3.0)
    assert [judge.add(each) for each in (low, high, high, high, low, high, high)] == [None] * 7
    assert judge.add(low) is None, "it was low for a second, and the mean of three is not"
    assert judge.add(low) is not None


def test_the_judge_wants_some_steps() -> None:
    judge = Judge(0.7, after=1.0)
    assert judge.add(Window(Times(60.0), 1, 0.0, 0, 0.0, False)) is None


def test_what_is_hardly_below_is_below_in_words_too() -> None:
    assert [share_below(share, 0.7) for share in (0.2, 0.694, 0.6996)] == ["20%", "69%", "69.9%"]


def test_what_is_cached_is_not_advised_again() -> None:
    for kept, words in (("items", "its items are cached, and what makes batches"), ("batches", "its batches are cach")):
        advice = said(window(0.8), Loading("a DataLoader", 4, 4, cached=kept))[1]  # type: ignore[arg-type]
        assert f"there is no room for more, as the loop needs cores too: {words}" in advice
