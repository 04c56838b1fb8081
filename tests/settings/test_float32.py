"""Float32 precision: from whatever old and new setters have left, to the bit, and nothing that cannot be put back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from tests.laws import precision, start
from tests.laws.pristine import HAS_CELLS, isolated
from torchturbo import PROFILES, Profile, turbo
from torchturbo._catalogue import OPTIONS, SETTINGS
from torchturbo.settings import _cells, _cudnn, _matmul, mkldnn
from torchturbo.settings._cells import UNDECIDED
from torchturbo.settings._cudnn import CUDNN, Cudnn
from torchturbo.settings._matmul import MATMUL, Matmul
from torchturbo.settings.mkldnn import MKLDNN, Mkldnn
from torchturbo.testing import pretend_hardware

WORDS = {"matmul_precision": ("highest", "high", "medium"), "cudnn_precision": ("ieee", "tf32")}
if MKLDNN is not None:
    WORDS["mkldnn_precision"] = ("ieee", "tf32", "bf16")
options = st.fixed_dictionaries({}, optional={name: st.sampled_from(words) for name, words in WORDS.items()})
needs_cells = pytest.mark.skipif(not HAS_CELLS, reason="torch 2.8 has two values and no cells")
needs_default = pytest.mark.skipif(not _cells.HAS_DEFAULT, reason="default cells came with torch 2.13")


@settings(max_examples=250)
@given(before=start.precision)
def test_cells_read_the_truth(before: list[start.Step]) -> None:
    def check() -> None:
        start.play_precision(before)
        precision.reads_the_truth()

    isolated(check)


@settings(max_examples=150)
@given(
    before=start.precision,
    asked=st.lists(options, min_size=1, max_size=4),
    order=st.lists(st.integers(0, 3), max_size=4),
)
def test_layers_leave_in_any_order(before: list[start.Step], asked: list[dict[str, str]], order: list[int]) -> None:
    def check() -> None:
        start.play_precision(before)
        precision.any_order(asked, order)

    isolated(check)


@settings(max_examples=100)
@given(before=start.precision, asked=options)
def test_what_compiling_does_is_undone(before: list[start.Step], asked: dict[str, str]) -> None:
    def check() -> None:
        start.play_precision(before)
        precision.whatever_the_body_did(asked, [start.COMPILE])

    isolated(check)


@settings(max_examples=150)
@given(before=start.precision, asked=options, word=st.sampled_from(WORDS["matmul_precision"]), body=start.MATMUL)
def test_what_the_body_does_to_products_is_undone_where_they_were_asked_for(
    before: list[start.Step], asked: dict[str, str], word: str, body: list[start.Step]
) -> None:
    def check() -> None:
        start.play_precision(before)
        precision.whatever_the_body_did(asked | {"matmul_precision": word}, body)

    isolated(check)


@settings(max_examples=150)
@given(before=start.precision, asked=options, precision_of=st.sampled_from(("ieee", "tf32")), body=start.CONVOLUTION)
def test_what_the_body_does_to_convolutions_is_undone(
    before: list[start.Step], asked: dict[str, str], precision_of: str, body: list[start.Step]
) -> None:
    def check() -> None:
        start.play_precision(before)
        precision.whatever_the_body_did(asked | {"cudnn_precision": precision_of}, body)

    isolated(check)


# ------------------------------------------------------------------------------------- a torch that nobody has touched


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Notes every write to a cell."""
    writes: list[tuple[str, str, str]] = []
    original: Callable[..., None] = _cells.put

    def put(backend: str, operation: str, value: str) -> None:
        writes.append((backend, operation, value))
        original(backend, operation, value)

    with monkeypatch.context() as patched:
        for module in (_cells, _cudnn, _matmul, mkldnn):
            patched.setattr(module, "put", put)
        yield writes


@needs_cells
def test_reading_it_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch) as writes:
        for name in WORDS:
            SETTINGS[name].now()
    assert not writes


@needs_default
@pytest.mark.parametrize("profile", [*PROFILES, *(f"{name}={word}" for name, words in WORDS.items() for word in words)])
def test_no_block_writes_what_cannot_be_put_back(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, word = profile.partition("=")
    block = turbo(Profile("one", **{name: word})) if word else turbo(name)
    with watched(monkeypatch) as writes, pretend_hardware("H100"):
        with block:
            with block:
                pass
    assert not [write for write in writes if write[:2] in (("cuda", "conv"), ("cuda", "rnn"))]


@needs_default
def test_the_default_still_follows_after_a_block() -> None:
    def check() -> None:
        with pretend_hardware("H100"), turbo(Profile("one"), cudnn_precision="ieee"):
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
        torch.backends.fp32_precision = "ieee"
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"

    isolated(check)


@needs_default
def test_products_keep_their_meaning_when_their_parent_is_written() -> None:
    def check() -> None:
        for parent in ("none", "ieee", "tf32"):
            torch.backends.fp32_precision = parent
            with (
                pretend_hardware("H100"),
                turbo(Profile("one"), cudnn_precision="ieee" if parent == "tf32" else "tf32"),
            ):
                assert (torch.backends.cuda.matmul.fp32_precision == "tf32") == (parent == "tf32")

    isolated(check)


@needs_cells
def test_an_explicit_convolution_comes_back_when_the_lower_block_leaves_first() -> None:
    def check() -> None:
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        found = CUDNN.read()
        with pretend_hardware("A100"):
            first, second = turbo("fast"), turbo("fast")
            first.__enter__()
            second.__enter__()
            first.__exit__(None, None, None)
            assert torch.backends.cudnn.conv.fp32_precision == "tf32"
            second.__exit__(None, None, None)
        assert CUDNN.read() == found
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"

    isolated(check)


@needs_cells
@pytest.mark.parametrize("profile", ["debug", "exact"])
def test_a_flag_that_a_cell_contradicts_comes_back(profile: str) -> None:
    def check() -> None:
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        found = CUDNN.read()
        assert (found.allow_tf32, found.conv) == (False, "tf32")
        with pretend_hardware("A100"), turbo(profile):
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert CUDNN.read() == found
        # The flag itself shows only once the cell agrees with it again.
        torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.rnn.fp32_precision
        assert torch.backends.cudnn.allow_tf32 is False

    isolated(check)


@needs_cells
@pytest.mark.parametrize("word", ["high", "medium"])
def test_a_word_beside_bfx9_comes_back(word: str) -> None:
    def check() -> None:
        torch.set_float32_matmul_precision(word)
        try:
            torch.backends.cuda.matmul.fp32_precision = "bfx9"
        except RuntimeError:
            return  # bfx9 came with torch 2.15
        with pretend_hardware("H100"), turbo("exact"):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cuda.matmul.fp32_precision == "bfx9"
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        assert torch.get_float32_matmul_precision() == word

    isolated(check)


def test_it_does_what_set_float32_matmul_precision_does() -> None:
    def check() -> None:
        for word in WORDS["matmul_precision"]:
            torch.set_float32_matmul_precision(word)
            by_torch = MATMUL.read()
            torch.set_float32_matmul_precision("high" if word == "highest" else "highest")
            with pretend_hardware("H100"), turbo(Profile("one"), matmul_precision=word):
                assert MATMUL.read() == by_torch
                assert torch.get_float32_matmul_precision() == word

    isolated(check)


# ------------------------------------------------------------------------------------------------------ what is shown


@needs_cells
@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (Matmul("highest", "none", "none", "none"), "highest"),
        (Matmul("highest", "none", "none", "tf32"), "high"),
        (Matmul("highest", "ieee", "ieee", "ieee"), "highest"),
        (Matmul("highest", "tf32", "none", "tf32"), "high"),
        (Matmul("high", "tf32", "tf32", "tf32"), "high"),
        (Matmul("medium", "tf32", "bf16", "tf32"), "medium"),
        (Matmul("highest", "ieee", "bf16", "ieee"), "medium"),
    ],
)
def test_the_word_says_what_products_do(raw: Matmul, word: str) -> None:
    assert SETTINGS["matmul_precision"].show(raw) == word


@needs_cells
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (Cudnn(True, "none", UNDECIDED, UNDECIDED), "tf32"),
        (Cudnn(True, "none", "tf32", "tf32"), "tf32"),
        (Cudnn(False, "none", "none", "none"), "ieee"),
        (Cudnn(False, "none", "ieee", "tf32"), "conv ieee, rnn tf32"),
        (Cudnn(True, "ieee", "default", "default"), "ieee"),
        (Cudnn(True, "tf32", "default", "ieee"), "conv tf32, rnn ieee"),
        (Cudnn(True, "tf32", "none", "none"), "tf32"),
    ],
)
def test_convolutions_and_recurrent_nets_are_told_apart_where_they_differ(raw: Cudnn, words: str) -> None:
    assert SETTINGS["cudnn_precision"].show(raw) == words


@needs_cells
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (Mkldnn("none", "none"), "ieee"),
        (Mkldnn("bf16", "bf16"), "bf16"),
        (Mkldnn("ieee", "none"), "conv ieee, rnn none"),
        (Mkldnn("tf32", "bf16"), "conv tf32, rnn bf16"),
    ],
)
def test_onednns_are_told_apart_where_they_differ(raw: Mkldnn, words: str) -> None:
    assert SETTINGS["mkldnn_precision"].show(raw) == words


def test_tf32_stands_for_both() -> None:
    assert OPTIONS["tf32"].members(True) == {"matmul_precision": "high", "cudnn_precision": "tf32"}
    assert OPTIONS["tf32"].members(False) == {"matmul_precision": "highest", "cudnn_precision": "ieee"}
    assert CUDNN in SETTINGS["cudnn_precision"].cells
