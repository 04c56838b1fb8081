"""`accelerate(model, float8=True)`: torchao's layers in the place of a model's own, and these back again.

There is no float8 in a CPU's hardware; torchao emulates it here, and tests/gpu asks a GPU.
"""

from __future__ import annotations

import copy
import pickle
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from torchturbo import accelerate, restore, turbo
from torchturbo._float8 import fitting, why_not
from torchturbo._report import gather
from torchturbo.errors import (
    HardwareWarning,
    MissingPackageError,
    OptionNameError,
    OptionValueError,
    TargetError,
    UnsupportedHere,
)
from torchturbo.testing import MACHINES, pretend_hardware


@pytest.fixture
def emulated(_float8: None) -> Any:
    from torchao.float8 import Float8LinearConfig

    return Float8LinearConfig(emulate=True)


@pytest.fixture(scope="module")
def _float8(_libraries: None) -> None:
    """torchao, with what it does to inductor when it first converts something: for good, whoever asks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        float8 = pytest.importorskip("torchao.float8")
        float8.convert_to_float8_training(nn.Sequential(nn.Linear(16, 16)))


def model() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16), nn.Linear(16, 10))


def test_the_same_layers_compute_in_float8_and_then_as_before(emulated: Any) -> None:
    its = model()
    before, layers, x = [dict(vars(each)) for each in its], [*its], torch.randn(8, 32)
    parameters, plain = [*its.parameters()], its(x)
    assert accelerate(its, profile="exact", float8=emulated) is its
    assert [*its] == layers
    assert [type(each).__name__ for each in its] == ["Float8Linear", "ReLU", "Float8Linear", "Linear"]
    rough = its(x)
    assert not torch.equal(rough, plain)
    torch.testing.assert_close(rough, plain, rtol=0.1, atol=0.1)
    assert all(map(torch.equal, its.state_dict().values(), model().state_dict().values()))
    assert restore(its) is its
    assert [vars(each) for each in its] == before
    assert [id(each) for each in its.parameters()] == [id(each) for each in parameters]
    assert torch.equal(its(x), plain)


def test_it_has_the_bits_of_torchaos_own_conversion(emulated: Any) -> None:
    from torchao.float8 import convert_to_float8_training

    theirs = convert_to_float8_training(
        model(), config=emulated, module_filter_fn=lambda layer, name: layer.out_features % 16 == 0
    )
    ours = accelerate(model(), profile="exact", float8=emulated)
    for trained in (theirs, ours):
        optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-2)
        for step in range(50):
            optimizer.zero_grad()
            x = torch.randn(16, 32, generator=torch.Generator().manual_seed(step))
            trained(x).square().mean().backward()
            optimizer.step()
    assert all(map(torch.equal, theirs.parameters(), ours.parameters()))


def test_hooks_and_the_optimizer_go_on_through_both(emulated: Any) -> None:
    its, seen = model(), []
    its[0].register_forward_hook(lambda *_: seen.append("before"))
    optimizer = torch.optim.SGD(its.parameters(), lr=0.1)
    accelerate(its, profile="exact", float8=emulated)
    its[0].register_forward_hook(lambda *_: seen.append("in float8"))
    its(torch.ones(16, 32)).sum().backward()
    optimizer.step()
    its.eval()
    restore(its)
    its(torch.ones(16, 32))
    assert seen == ["before", "in float8"] * 2
    assert not its[0].training
    assert not torch.equal(its[0].weight, model()[0].weight)


def test_copies_and_pickles_can_be_restored(emulated: Any) -> None:
    its = accelerate(model(), profile="exact", float8=emulated)
    for again in (copy.deepcopy(its), pickle.loads(pickle.dumps(its))):
        assert type(again[0]).__name__ == "Float8Linear"
        assert type(restore(again)[0]) is nn.Linear
    restore(its)


def test_only_plain_layers_of_fitting_sizes_are_converted() -> None:
    class Other(nn.Linear):
        pass

    whole = nn.Sequential(Other(16, 16), nn.Linear(16, 10), nn.Linear(10, 16), nn.Linear(16, 16))
    assert fitting(whole) == [whole[3]]


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        ("H100", None),
        ("RTX 4090", None),
        ("B200", None),
        ("A100", "float8 needs compute capability 8.9, and NVIDIA A100-SXM4-80GB does not have it"),
        ("cpu", "float8 products run on NVIDIA GPUs of compute capability 8.9, and there is none here"),
        ("apple", "float8 products run on NVIDIA GPUs of compute capability 8.9, and there is none here"),
        ("B580", "float8 products run on NVIDIA GPUs of compute capability 8.9, and there is none here"),
    ],
)
def test_it_needs_hardware(machine: str, reason: str | None) -> None:
    assert why_not(MACHINES[machine]) == reason


@pytest.mark.usefixtures("_float8")
def test_without_such_hardware_it_is_left_out_and_says_so() -> None:
    with pretend_hardware("A100"):
        with pytest.warns(
            HardwareWarning, match=r"float8 is left out here: .* A100-SXM4-80GB does not have it"
        ) as told:
            its = accelerate(model(), profile="exact", float8=True)
        assert told[0].filename == __file__
        assert type(its[0]) is nn.Linear
        restore(its)
        with pytest.raises(UnsupportedHere, match="strict=True"):
            accelerate(its, profile="exact", strict=True, float8=True)
        assert "forward" not in vars(its)


@pytest.mark.usefixtures("_float8")
def test_with_it_torchaos_layers_are_there() -> None:
    with pretend_hardware("H100"):
        for asked in (True, "rowwise"):
            its = accelerate(profile="exact", float8=asked)(model())
            assert type(its[0]).__name__ == "Float8Linear"
            assert its[0].config.pad_inner_dim is (asked is True)
            restore(its)


@pytest.mark.usefixtures("_float8")
@pytest.mark.parametrize("asked", ["columnwise", 8, None])
def test_what_torchao_does_not_know_is_refused(asked: Any) -> None:
    with pytest.raises(OptionValueError, match=f"float8={asked!r}: expected a bool"):
        accelerate(model(), profile="exact", float8=asked)


def test_what_cannot_be_converted_is_refused(emulated: Any) -> None:
    with pytest.raises(TargetError, match=r"Sequential has no nn.Linear whose sizes are multiples of 16"):
        accelerate(nn.Sequential(nn.Linear(3, 3)), profile="exact", float8=emulated)
    with pytest.raises(TargetError, match="float8 is for modules, whose layers it converts, and this is function"):
        accelerate(float8=emulated)(lambda: None)
    with pytest.raises(TargetError, match="float8 is for modules"):
        accelerate(nn.Linear, float8=emulated)


def test_the_report_says_what_computes_in_float8_and_why_nothing_does(emulated: Any) -> None:
    with pretend_hardware("H100"):
        row = gather()["float8"]
        assert (row.now, row.effective, row.reason, row.origin) == (None, True, None, "not set by torchturbo")
        its = accelerate(model(), profile="exact", float8="rowwise")
        row = gather()["float8"]
        assert (row.now, row.asked, row.effective, row.origin) == ("2 layers", "rowwise", True, "accelerate")
        assert str(row.where).startswith(f"{__file__}:")
        restore(its)
        assert gather()["float8"].origin == "not set by torchturbo"
    with pretend_hardware("A100"):
        with pytest.warns(HardwareWarning):
            its = accelerate(model(), profile="exact", float8=True)
        row = gather()["float8"]
        reason = "float8 needs compute capability 8.9, and NVIDIA A100-SXM4-80GB does not have it"
        assert (row.now, row.asked, row.effective, row.reason) == (None, True, False, reason)
        restore(its)
        assert gather()["float8"].reason == reason
    its = accelerate(model(), profile="exact", float8=emulated)
    row = gather()["float8"]
    assert (row.now, row.asked, row.effective) == ("2 layers", "Float8LinearConfig", True)
    assert row.note == "torchao emulates float8, as it was told to"
    assert "2 layers" in gather().to_text()
    del its


def test_blocks_name_where_it_goes() -> None:
    options: Any = {"float8": True}
    with pytest.raises(OptionNameError, match=r"it is for one model, .*: accelerate\(model, float8=True\)"):
        turbo("fast", **options)


def test_without_torchao_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'torchturbo\[float8\]'"):
        accelerate(model(), profile="exact", float8=True)
