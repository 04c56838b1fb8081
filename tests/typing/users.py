"""What users write, for type checkers to judge: `make types` reads this file, and nobody runs it.

`assert_type` says what a thing must be; a line with ``type: ignore`` must be refused for the reason it gives, since an
ignore that is not needed is an error too. Editors complete from the same types.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, assert_type

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import torchturbo
from torchturbo import (
    PROFILES,
    Active,
    CacheStats,
    Profile,
    Report,
    Reproduction,
    accelerate,
    cache_of,
    cached,
    check_reproducible,
    report,
    restore,
    turbo,
    watch,
)
from torchturbo.hardware import Cpu, Gpu, Hardware, Mps, Reading, detect, readings
from torchturbo.testing import MACHINES, pretend_hardware

# ------------------------------------------------------------------------------------------------------------ blocks

with turbo() as active:
    assert_type(active, Active)
    assert_type(active.where, str)
    assert_type(active.thread, str)
    assert_type(active.plan.profile, Profile)
    assert_type(active.report(), Report)

turbo("fast", strict=True)
turbo(profile="exact")
turbo(PROFILES["fast"] | Profile("mine", cudnn_benchmark=False))
turbo("fast", False)  # type: ignore[call-arg]
turbo(strict="yes")  # type: ignore[arg-type]
turbo(3)  # type: ignore[arg-type]


def falls_through() -> int:
    with turbo():
        return 1  # a block swallows no exception, so nothing is missing after it


# ------------------------------------------------------------------------------------------------------------ checks

reproduction = check_reproducible(falls_through, 3, profile="reproducible", num_threads=1)
assert_type(reproduction, Reproduction)
assert_type(reproduction.identical, bool)
assert_type(reproduction.difference.largest if reproduction.difference else 0.0, float | None)
assert_type(reproduction.price.ratio if reproduction.price else 1.0, float)
check_reproducible("train.py:step", fresh=True, strict=True, args=(1,), kwargs={"more": 2}, modules=[nn.Linear(1, 1)])
check_reproducible(falls_through, runs="2")  # type: ignore[arg-type]
check_reproducible(falls_through, cudnn_bencmark=True)  # type: ignore[call-arg]
check_reproducible(3)  # type: ignore[arg-type]

# ----------------------------------------------------------------------------------------------------------- options

turbo(matmul_precision="high", tf32=True, cudnn_precision="ieee", mkldnn_precision="bf16")
turbo(fp16_reduction="no_split_k", bf16_reduction=True, fp16_accumulation=False)
turbo(cudnn_enabled=True, cudnn_benchmark=True, cudnn_benchmark_limit=0, cudnn_deterministic=False)
turbo(flash_sdp=True, mem_efficient_sdp=True, cudnn_sdp=False, math_sdp=False)
turbo(deterministic="warn", fill_uninitialized_memory=False, cublas_workspace=":4096:8")
turbo("reproducible", seed=42)
turbo(deterministic=True, blas_library="cublaslt", linalg_library="magma", num_threads=4, anomaly=True, grad=False)
turbo(default_dtype="bfloat16", autocast="bf16", mkldnn_enabled=False, mkldnn_deterministic=True)
turbo(num_workers=4, prefetch_factor=2, pin_memory=True, persistent_workers=False)
turbo(num_workers="auto", prefetch_factor="auto", pin_memory="auto", persistent_workers="auto")
turbo(prefetch=True)
assert_type(torchturbo.prefetch([1, 2], "cuda"), list[int])
assert_type(torchturbo.tune_loader([1, 2], "1 min", batch_size=2), torchturbo.LoaderTuning)
turbo(num_workers="many")  # type: ignore[arg-type]
turbo(autocast="auto")
turbo(autocast=None)
turbo(compile=True)
turbo("max", compile="max-autotune-no-cudagraphs")
turbo(compile={"fullgraph": True, "options": {"epilogue_fusion": True}})

turbo(cudnn_bencmark=True)  # type: ignore[call-arg]
turbo(compile="fastest")  # type: ignore[arg-type]
turbo(compile=3)  # type: ignore[arg-type]
turbo(matmul_precision="tf32")  # type: ignore[arg-type]
turbo(matmul_precision=True)  # type: ignore[arg-type]
turbo(cudnn_benchmark="yes")  # type: ignore[arg-type]
turbo(cudnn_benchmark=None)  # type: ignore[arg-type]
turbo(num_threads="4")  # type: ignore[arg-type]
turbo(deterministic="error!")  # type: ignore[arg-type]
turbo(fp16_reduction="split_k")  # type: ignore[arg-type]
turbo(blas_library="mkl")  # type: ignore[arg-type]
turbo(autocast="fp8")  # type: ignore[arg-type]
turbo(growth_factor="2")  # type: ignore[arg-type]
turbo(cublas_workspace=4096)  # type: ignore[arg-type]


def chosen(precision: Literal["highest", "high"], on: bool, anything: str) -> None:
    turbo(matmul_precision=precision, cudnn_benchmark=on)
    turbo(matmul_precision=anything)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------- functions


@accelerate
def train(model: nn.Module, steps: int = 10, *, lr: float = 0.1) -> list[float]:
    """A function with something of everything in its signature."""
    return [lr] * steps


@accelerate(profile="max", strict=True, cudnn_benchmark=False)
def evaluate(model: nn.Module) -> Tensor:
    """A function decorated with arguments."""
    return torch.ones(1)


@accelerate()
def nothing() -> None:
    """A function decorated with none."""


model = nn.Linear(2, 2)
assert_type(train(model, 3, lr=0.5), list[float])
assert_type(evaluate(model), Tensor)
train(model, lr="fast")  # type: ignore[arg-type]
train()  # type: ignore[call-arg]
train(model, 3, 0.5)  # type: ignore[call-arg]
evaluate(model, 1)  # type: ignore[call-arg]
assert_type(accelerate(evaluate)(model), Tensor)
accelerate(train, profile="exact", tf32=True)

accelerate("max")  # type: ignore[call-overload]
accelerate(3)  # type: ignore[call-overload]
accelerate(profile=3)  # type: ignore[call-overload]
accelerate(cudnn_bencmark=True)  # type: ignore[call-overload]
accelerate(train, matmul_precision="tf32")  # type: ignore[call-overload]


class Net(nn.Module):
    """Methods are functions with an object."""

    @accelerate(profile="inference")
    def forward(self, x: Tensor) -> Tensor:
        """The forward pass."""
        return x

    @classmethod
    @accelerate
    def load(cls, path: str) -> Net:
        """One from a file."""
        return cls()

    @staticmethod
    @accelerate
    def count(x: Tensor) -> int:
        """A number."""
        return x.numel()


assert_type(Net().forward(torch.ones(1)), Tensor)
assert_type(Net.load("here"), Net)
assert_type(Net.count(torch.ones(1)), int)
Net().forward("x")  # type: ignore[arg-type]

# ----------------------------------------------------------------------------------------- all else that it decorates


@accelerate
def batches(start: int, *, stop: int = 3) -> Iterator[Tensor]:
    """A generator function."""
    yield torch.ones(stop - start)


@accelerate(profile="inference")
async def answer(question: str) -> Tensor:
    """A coroutine function."""
    return torch.ones(len(question))


@accelerate
async def answers(*questions: str) -> AsyncIterator[Tensor]:
    """An async generator function."""
    for question in questions:
        yield await answer(question)


@contextmanager
@accelerate
def borrowed(model: nn.Module) -> Generator[nn.Module]:
    """A context manager above an accelerated generator."""
    yield model


async def asks() -> None:
    assert_type(await answer("why"), Tensor)
    await answer(3)  # type: ignore[arg-type]
    async for one in answers("why", "how"):
        assert_type(one, Tensor)
    answers(3)  # type: ignore[arg-type]


for batch in batches(0, stop=2):
    assert_type(batch, Tensor)
batches("a")  # type: ignore[arg-type]
with borrowed(model) as lent:
    assert_type(lent, nn.Module)

assert_type(accelerate(len)([1]), int)
assert_type(accelerate(lambda: 1.0)(), float)
assert_type(accelerate(partial(train, model)), "partial[list[float]]")
assert_type(accelerate(profile="max")(train)(model), list[float])
assert_type(accelerate(model.forward)(torch.ones(1)), Tensor)


class Holder:
    """What a class holds, with `accelerate` above and beneath."""

    @property
    @accelerate
    def beneath(self) -> int:
        """A property above."""
        return 1

    @accelerate
    def method(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        """A method."""
        return x * scale

    @accelerate
    def parts(self) -> Iterator[int]:
        """A generator."""
        yield 1

    @classmethod
    @accelerate(profile="exact")
    async def made(cls) -> Holder:
        """A coroutine of the class."""
        return cls()


def free(x: Tensor) -> int:
    return x.numel()


holder = Holder()
assert_type(holder.beneath, int)
assert_type(holder.method(torch.ones(1), scale=2.0), Tensor)
assert_type(next(holder.parts()), int)
holder.method("x")  # type: ignore[arg-type]
holder.method(torch.ones(1), 2.0)  # type: ignore[call-arg]
assert_type(accelerate(property(lambda self: 1)), property)
assert_type(accelerate(staticmethod(free))(torch.ones(1)), int)
accelerate(staticmethod(free))("x")  # type: ignore[arg-type]
assert_type(accelerate(holder.method)(torch.ones(1)), Tensor)

# ----------------------------------------------------------------------------------------------------------- modules

assert_type(accelerate(model), nn.Linear)
assert_type(accelerate(model, profile="inference", output_dtype=None).in_features, int)
assert_type(accelerate(profile="max", output_dtype=torch.float32)(model), nn.Linear)
assert_type(accelerate(nn.Linear), type[nn.Linear])
assert_type(accelerate(nn.Linear)(2, 2), nn.Linear)
assert_type(restore(model), nn.Linear)
assert_type(restore(nn.Linear), type[nn.Linear])


@accelerate(profile="fast")
class Whole(nn.Module):
    """A class of modules."""

    def forward(self, x: Tensor) -> Tensor:
        """The forward pass."""
        return x


assert_type(Whole(), Whole)
assert_type(Whole().forward(torch.ones(1)), Tensor)

loader: DataLoader[tuple[Tensor, ...]] = DataLoader(TensorDataset(torch.ones(1)))
restore(train)  # type: ignore[type-var]
restore(3)  # type: ignore[type-var]
accelerate(model, output_dtype="float32")  # type: ignore[call-overload]
accelerate(torch.optim.SGD(model.parameters()))  # type: ignore[call-overload]
accelerate(loader)  # type: ignore[call-overload]
accelerate([model])  # type: ignore[call-overload]
accelerate(torch.ones(1))  # type: ignore[call-overload]
accelerate(profile="max")(3)  # type: ignore[type-var]

# ---------------------------------------------------------------------------------------------------------- profiles

mine = Profile("mine", "More.", "Less.", num_threads=2, autocast=None)
assert_type(mine | PROFILES["debug"], Profile)
assert_type(mine.without("autocast"), Profile)
assert_type(mine["num_threads"], object)
assert_type(PROFILES, Mapping[str, Profile])
assert_type((mine.name, mine.gain, mine.give), tuple[str, str, str])
Profile(num_threads=2)  # type: ignore[call-arg]
Profile("mine", num_treads=2)  # type: ignore[call-arg]
Profile("mine", num_threads=2.0)  # type: ignore[arg-type]
mine | {"num_threads": 1}  # type: ignore[operator]
mine["num_threads"] = 3  # type: ignore[index]

# ------------------------------------------------------------------------------------------- loops that are watched

for number in watch([1, 2, 3], name="numbers", alert=None):
    assert_type(number, int)
watch([1, 2, 3], show="bars")  # type: ignore[arg-type]
watch(3)  # type: ignore[arg-type]
with turbo("fast", monitor=True):
    pass
turbo("fast", monitor="bars")  # type: ignore[arg-type]

# --------------------------------------------------------------------------------------- reports, hardware, testing

assert_type(report(), Report)
assert_type(report().to_dict(), dict[str, Any])
assert_type(report().to_json(), str)
assert_type(detect(), Hardware)
assert_type(detect().device_type, Literal["cuda", "xpu", "mps", "cpu"])
assert_type(detect().gpus, tuple[Gpu, ...])
assert_type(detect().cpu, Cpu)
assert_type(detect().mps, Mps | None)
assert_type(readings(), tuple[Reading, ...])
detect().cpu.cores = 4  # type: ignore[misc]
with pretend_hardware("A100") as machine:
    assert_type(machine, Hardware)
pretend_hardware(MACHINES["T4"])
pretend_hardware(4)  # type: ignore[arg-type]
assert_type(torchturbo.__version__, str)

# ------------------------------------------------------------------------------------------------------------ data

assert_type(cached([1, 2]), list[int])
assert_type(cached(TensorDataset(torch.ones(2)), where="folder", max_bytes="1 GB"), TensorDataset)
assert_type(cache_of([1]).stats(), CacheStats)
cached([1], max_bytes=[1])  # type: ignore[arg-type]
