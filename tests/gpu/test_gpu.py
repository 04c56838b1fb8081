"""What only a GPU can show: that the settings act there, and that nothing of it stays.

Run by ``make gpu``, on a machine with an NVIDIA GPU of compute capability 8.0 or higher.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchturbo
from torchturbo import accelerate, hardware, turbo
from torchturbo._catalogue import CELLS

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def everything_is_back() -> Iterator[None]:
    before = [cell.read() for cell in CELLS]
    yield
    assert [cell.read() for cell in CELLS] == before


def test_a_gpu_is_seen_as_torch_sees_it() -> None:
    here = hardware.detect()
    assert here.device_type == "cuda"
    assert [gpu.name for gpu in here.gpus] == [
        torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
    ]
    assert here.gpus[0].capability == torch.cuda.get_device_capability(0)


def test_looking_starts_no_cuda() -> None:
    code = (
        "import torch, torchturbo; torchturbo.hardware.detect(); torchturbo.report(); "
        "assert not torch.cuda.is_initialized(), 'CUDA was started'; "
        "assert torchturbo.hardware.detect().gpus, torchturbo.hardware.detect().reasons"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=300)


def test_readings_are_of_this_moment() -> None:
    (reading, *_) = hardware.readings()
    torch.empty(1 << 28, device="cuda").normal_()
    assert reading.memory_used is not None
    assert reading.memory_used > 0


def _error(compute: nn.Module | None, shape: tuple[int, ...]) -> float:
    """How far a float32 computation on the GPU is from the same in float64, relatively."""
    generator = torch.Generator("cuda").manual_seed(0)
    x = torch.randn(shape, device="cuda", generator=generator)
    if compute is None:
        found, true = x @ x, x.double() @ x.double()
    else:
        found, true = compute(x), F.conv2d(x.double(), compute.get_parameter("weight").double())
    return float((found - true).norm() / true.norm())


def test_tf32_acts_on_products() -> None:
    with turbo("exact"):
        exact = _error(None, (2048, 2048))
    with turbo("fast", autocast=None):
        rounded = _error(None, (2048, 2048))
    assert exact < 1e-5 < rounded < 1e-2


def test_tf32_acts_on_convolutions() -> None:
    with torch.no_grad():
        convolution = nn.Conv2d(64, 64, 3, bias=False).cuda()
        with turbo("exact"):
            exact = _error(convolution, (8, 64, 64, 64))
        with turbo("fast", autocast=None):
            rounded = _error(convolution, (8, 64, 64, 64))
    assert exact < 1e-5 < rounded < 1e-2


class _Watching(torch.autograd.Function):
    """Notes whether backward runs under autocast, on whichever thread it runs."""

    seen: list[bool]

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        _Watching.seen.append(torch.is_autocast_enabled("cuda"))
        return grad


def _train(around: AbstractContextManager[object], each: bool) -> tuple[list[float], list[Tensor]]:
    """Six steps; autocast is entered around each forward pass (`each`) or `around` is, around everything."""
    torch.manual_seed(0)
    _Watching.seen = []
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64)).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    with around:
        for _ in range(6):
            x = torch.randn(32, 64, device="cuda")
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16) if each else nullcontext():
                loss = F.mse_loss(_Watching.apply(model(x)).float(), x)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    return losses, [parameter.detach().clone() for parameter in model.parameters()]


def test_a_whole_loop_gives_the_bits_of_autocast_entered_anew() -> None:
    # Everything but autocast alike: sums in bf16 as torch has them, float32 that is float32.
    with turbo("fast", tf32=False, cudnn_benchmark=False, autocast=None):
        losses, parameters = _train(nullcontext(), each=True)
    ours, our_parameters = _train(turbo("fast", tf32=False, cudnn_benchmark=False), each=False)
    assert _Watching.seen == [False] * 6
    assert ours == losses
    assert ours[-1] < ours[0]
    assert all(torch.equal(a, b) for a, b in zip(our_parameters, parameters, strict=True))


def test_the_report_calls_everything_effective_that_is() -> None:
    with turbo("fast") as active:
        rows = {row["name"]: row for row in active.report().to_dict()["options"]}
    assert torchturbo.hardware.detect().has_tf32
    for name in ("matmul_precision", "cudnn_benchmark", "autocast"):
        assert rows[name]["effective"], rows[name]


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64)).cuda()


def test_an_accelerated_module_gives_what_autocast_gives_in_the_type_of_its_inputs() -> None:
    x = torch.randn(32, 64, device="cuda")
    with turbo("fast", autocast=None), torch.autocast("cuda", torch.bfloat16):
        expected = _net()(x)
    found = accelerate(_net())(x)
    assert (found.dtype, expected.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(found, expected.float())


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"])
@pytest.mark.parametrize("profile", ["exact", "fast"])
def test_every_mode_of_compile_trains(mode: Any, profile: str) -> None:
    torch.compiler.reset()
    x = torch.randn(32, 64, device="cuda")
    plain, model = _net(), _net()
    losses: dict[str, list[float]] = {"plain": [], "ours": []}
    for name, its in (("plain", plain), ("ours", accelerate(model, profile=profile, compile=mode))):
        optimizer = torch.optim.AdamW(its.parameters(), lr=1e-2)
        for _ in range(6):
            optimizer.zero_grad()
            loss = F.mse_loss(its(x), x)
            loss.backward()
            optimizer.step()
            losses[name].append(loss.item())
    assert losses["ours"] == pytest.approx(losses["plain"], rel=1e-3 if profile == "exact" else 5e-2)
    assert losses["ours"][-1] < losses["ours"][0]
    torch.compiler.reset()
