"""cuBLAS: pairs of which torch's own getter drops half, libraries that are stored and then refused, a variable."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.laws.around import NOTHING
from torchturbo import Profile, turbo
from torchturbo._catalogue import SETTINGS
from torchturbo.errors import DeterminismWarning, OptionValueError
from torchturbo.settings import cublas
from torchturbo.settings._base import TORCH
from torchturbo.testing import MACHINES, pretend_hardware

_C: Any = torch._C
VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
REDUCTIONS = ("fp16_reduction", "bf16_reduction")
has_split_k = pytest.mark.skipif(TORCH < (2, 10), reason="split_k came with torch 2.10")


@has_split_k
@pytest.mark.parametrize("name", REDUCTIONS)
def test_both_halves_of_a_pair_come_back(name: str) -> None:
    """torch.backends.cuda.matmul's attribute would bring (False, False) back as (False, True)."""
    (cell,) = SETTINGS[name].cells
    before = cell.read()
    cell.write((False, False), before)
    try:
        with pretend_hardware("H100"), turbo(Profile("one"), **{name: True}):
            assert cell.read() == (True, True)
        assert cell.read() == (False, False)
        assert SETTINGS[name].now() == "no_split_k"
    finally:
        cell.write(before, cell.read())


@has_split_k
@pytest.mark.parametrize(
    ("value", "raw"), [(True, (True, True)), (False, (False, True)), ("no_split_k", (False, False))]
)
def test_each_word_is_a_pair(value: object, raw: tuple[bool, bool]) -> None:
    for name in REDUCTIONS:
        ((_, edit),) = SETTINGS[name].edits(value, MACHINES["H100"])
        assert edit((True, True)) == raw
        assert SETTINGS[name].show(raw) == value


@pytest.mark.skipif(TORCH >= (2, 10), reason="split_k came with torch 2.10")
@pytest.mark.parametrize("name", REDUCTIONS)
def test_without_split_k_it_says_so(name: str) -> None:
    assert SETTINGS[name].refusal(MACHINES["H100"], "no_split_k") == "switching split-k off needs torch 2.10"


@pytest.mark.skipif(torch.version.cuda is not None, reason="a torch with CUDA has these libraries")
class TestLibraries:
    """On a torch without CUDA nearly every library is refused, once it has been stored."""

    def test_a_clean_refusal_is_an_error_and_leaves_nothing(self) -> None:
        before = _C._get_blas_preferred_backend()
        with pretend_hardware("H100"), pytest.raises(RuntimeError, match="cuBLASLt"):
            turbo(Profile("one"), blas_library="cublaslt").__enter__()
        assert _C._get_blas_preferred_backend() == before

    def test_what_was_stored_though_it_was_refused_comes_back(self) -> None:
        default = _C._get_linalg_preferred_backend()
        with pytest.raises(RuntimeError, match="cuSOLVER"):
            torch.backends.cuda.preferred_linalg_library("cusolver")
        stored = _C._get_linalg_preferred_backend()
        assert stored != default
        try:
            with pretend_hardware("H100"), turbo(Profile("one"), linalg_library="default"):
                assert SETTINGS["linalg_library"].now() == "default"
            assert _C._get_linalg_preferred_backend() == stored
        finally:
            torch.backends.cuda.preferred_linalg_library("default")

    def test_without_magma_it_says_so(self) -> None:
        hardware = MACHINES["H100"]
        lacking = replace(hardware, build=replace(hardware.build, magma=False))
        refused = SETTINGS["linalg_library"].refusal(lacking, "magma")
        assert refused == f"this build of torch ({hardware.build.torch}) has no MAGMA"


def test_a_library_without_a_word_is_shown_all_the_same() -> None:
    show = SETTINGS["blas_library"].show
    for name, member in _C._BlasBackend.__members__.items():
        assert show(member) == name.lower()


@pytest.mark.parametrize("before", [None, "", ":4096:8"])
def test_the_variable_comes_back_set_or_not(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if before is not None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", before)
    with pretend_hardware("H100"), turbo(Profile("one"), cublas_workspace=":16:8"):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == before


@pytest.mark.parametrize("text", [":16:8", ":4096:8", ":16:8:4096:2", ":0:0"])
def test_a_workspace_is_pairs_of_numbers(text: str) -> None:
    assert SETTINGS["cublas_workspace"].parse(text) == text


@pytest.mark.parametrize("text", ["", "16:8", ":16", ":16:8:", ":16:8 ", ":-1:8", "4096", ":16:8\n"])
def test_what_is_no_workspace_is_refused(text: str) -> None:
    with pytest.raises(OptionValueError, match="SIZE:COUNT"):
        SETTINGS["cublas_workspace"].parse(text)


class TestStarted:
    """CUDA reads the variable once: what it has read is found out, and who asks for another one is told."""

    @pytest.fixture(autouse=True)
    def _fresh(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cublas, "_started", cublas._Started())
        monkeypatch.delenv(VARIABLE, raising=False)

    @pytest.fixture
    def start(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        return lambda: monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)

    def test_a_block_that_comes_too_late_says_how_to_start(self, start: Callable[[], None]) -> None:
        start()
        with (
            pretend_hardware("H100"),
            pytest.warns(DeterminismWarning) as heard,
            turbo(NOTHING, cublas_workspace=":4096:8") as a,
        ):
            note = a.report()["cublas_workspace"].note
        (warning,) = heard
        late = (
            f"CUDA was started without it and goes on so. Start Python with `{VARIABLE}=:4096:8 python ...`, or open "
            "the block before the first use of the GPU"
        )
        assert str(warning.message) == f"cublas_workspace=':4096:8' has no effect: {late}"
        assert warning.filename == __file__
        assert note == late
        with pretend_hardware("H100"), turbo(NOTHING, cublas_workspace=":4096:8"):
            pass  # told once

    def test_another_value_is_named(self, start: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, ":16:8")
        start()
        with (
            pretend_hardware("H100"),
            pytest.warns(DeterminismWarning, match="was started with CUBLAS_WORKSPACE_CONFIG=:16:8 and goes on so"),
            turbo(NOTHING, cublas_workspace=":4096:8"),
        ):
            pass
        with pretend_hardware("H100"), turbo(NOTHING, cublas_workspace=":16:8"):
            pass

    def test_cuda_that_starts_in_a_block_has_what_the_block_holds(self, start: Callable[[], None]) -> None:
        with pretend_hardware("H100"), turbo(NOTHING, cublas_workspace=":4096:8"):
            start()
        with pretend_hardware("H100"), turbo(NOTHING, cublas_workspace=":4096:8") as active:
            assert active.report()["cublas_workspace"].note is None

    def test_where_warnings_are_errors_nothing_is_entered(self, start: Callable[[], None]) -> None:
        start()
        with pretend_hardware("H100"), pytest.raises(DeterminismWarning):
            turbo(NOTHING, cublas_workspace=":4096:8", anomaly=True).__enter__()
        assert VARIABLE not in os.environ
        assert not torch.is_anomaly_enabled()
