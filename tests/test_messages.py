"""Every error says what was asked, what is true here, and what to write instead, in these very words."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from torchturbo import PROFILES, Profile, accelerate, errors, turbo
from torchturbo._catalogue import OPTIONS, SETTINGS
from torchturbo.errors import (
    AccumulationError,
    CheckpointError,
    DistributedError,
    LeakError,
    OptionNameError,
    OptionValueError,
    ProfileNameError,
    ReproducibilityError,
    RestoreError,
    ScalingError,
    TargetError,
    TurboError,
    UnsupportedHere,
    WrongThreadError,
)
from torchturbo.testing import pretend_hardware

MESSAGES: list[tuple[Callable[[], object], type[BaseException], str]] = []


def says(error: type[BaseException], message: str) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Notes that a function must raise this error, with this message."""

    def note(action: Callable[[], object]) -> Callable[[], object]:
        MESSAGES.append((action, error, message))
        return action

    return note


def option(error: type[BaseException], message: str, **options: Any) -> None:
    says(error, message)(lambda: turbo("exact", **options))


# ------------------------------------------------------------------------------------------------- names of options

NONE_NEAR = "known: " + ", ".join(sorted(OPTIONS))
option(
    OptionNameError,
    "there is no option 'cudnn_bencmark': did you mean 'cudnn_benchmark' or 'cudnn_benchmark_limit' or "
    "'cudnn_enabled'?",
    cudnn_bencmark=True,
)
option(OptionNameError, "there is no option 'autocats': did you mean 'autocast'?", autocats="bf16")
option(OptionNameError, "there is no option 'TF32': did you mean 'tf32'?", TF32=True)
option(OptionNameError, "there is no option 'threads': did you mean 'num_threads'?", threads=2)
option(
    OptionNameError,
    "there is no option 'precision': did you mean 'cudnn_precision' or 'mkldnn_precision' or 'matmul_precision'?",
    precision="high",
)
option(OptionNameError, f"there is no option 'qqqqqqqq': {NONE_NEAR}", qqqqqqqq=1)

# ------------------------------------------------------------------------------------------------ values of options

option(OptionValueError, "cudnn_benchmark=1: expected one of True, False", cudnn_benchmark=1)
option(OptionValueError, "cudnn_benchmark='on': expected one of True, False", cudnn_benchmark="on")
option(OptionValueError, "cudnn_benchmark=None: expected one of True, False", cudnn_benchmark=None)
option(
    OptionValueError,
    "matmul_precision='hihg': expected one of 'highest', 'high', 'medium'; did you mean 'high'?",
    matmul_precision="hihg",
)
option(
    OptionValueError,
    "matmul_precision='HIGH': expected one of 'highest', 'high', 'medium'; did you mean 'high' or 'highest'?",
    matmul_precision="HIGH",
)
option(
    OptionValueError, "matmul_precision='exact': expected one of 'highest', 'high', 'medium'", matmul_precision="exact"
)
option(OptionValueError, "deterministic=1: expected one of False, 'warn', True", deterministic=1)
option(
    OptionValueError,
    "deterministic='warning': expected one of False, 'warn', True; did you mean 'warn'?",
    deterministic="warning",
)
option(
    OptionValueError,
    "fp16_reduction='nosplitk': expected one of True, False, 'no_split_k'; did you mean 'no_split_k'?",
    fp16_reduction="nosplitk",
)
option(
    OptionValueError,
    "default_dtype=torch.int64: expected one of 'float32', 'float64', 'bfloat16', 'float16'",
    default_dtype=torch.int64,
)
option(
    OptionValueError,
    "autocast='fp8': expected one of 'auto', 'bf16', 'fp16', None; did you mean 'fp16'?",
    autocast="fp8",
)
option(OptionValueError, "autocast=torch.float32: expected one of 'auto', 'bf16', 'fp16', None", autocast=torch.float32)
option(OptionValueError, "autocast=['bf16']: expected one of 'auto', 'bf16', 'fp16', None", autocast=["bf16"])
option(OptionValueError, "num_threads=0: expected at least 1", num_threads=0)
option(OptionValueError, "num_threads=2.0: expected an int", num_threads=2.0)
option(OptionValueError, "num_threads=True: expected an int", num_threads=True)
option(OptionValueError, "num_threads='4': expected an int", num_threads="4")
option(OptionValueError, "cudnn_benchmark_limit=-1: expected at least 0", cudnn_benchmark_limit=-1)
option(
    OptionValueError,
    "cublas_workspace=':4096': expected :SIZE:COUNT, SIZE in KiB, as ':4096:8' or ':16:8'",
    cublas_workspace=":4096",
)
option(OptionValueError, "cublas_workspace=4096: expected a str", cublas_workspace=4096)
_NO_POWER = "expected a power of two {}, which changes no bits of the gradients that it scales"
option(OptionValueError, f"init_scale=1000.0: {_NO_POWER.format('such as 65536.0')}", init_scale=1000.0)
option(OptionValueError, f"init_scale=1000.0: {_NO_POWER.format('such as 65536.0')}", init_scale=1000)
option(OptionValueError, f"growth_factor=1.5: {_NO_POWER.format('above 1, such as 2.0')}", growth_factor=1.5)
option(OptionValueError, f"growth_factor=1.0: {_NO_POWER.format('above 1, such as 2.0')}", growth_factor=1.0)
option(OptionValueError, f"backoff_factor=0.9: {_NO_POWER.format('below 1, such as 0.5')}", backoff_factor=0.9)
option(OptionValueError, "backoff_factor='half': expected a float", backoff_factor="half")
option(OptionValueError, "growth_interval=0: expected at least 1", growth_interval=0)

# --------------------------------------------------------------------------------------------------------- profiles

NO_PROFILE_NEAR = "known: debug, exact, fast, inference, low_memory, max, reproducible"
says(ProfileNameError, "there is no profile 'fsat': did you mean 'fast'?")(lambda: turbo("fsat"))
says(ProfileNameError, "there is no profile 'Exact': did you mean 'exact'?")(lambda: turbo("Exact"))
says(ProfileNameError, "there is no profile 'memory': did you mean 'low_memory'?")(lambda: turbo("memory"))
says(ProfileNameError, f"there is no profile 'quick': {NO_PROFILE_NEAR}")(lambda: turbo("quick"))
says(ProfileNameError, f"there is no profile '': {NO_PROFILE_NEAR}")(lambda: turbo(""))
says(ProfileNameError, "expected the name of a profile or a Profile, got NoneType")(lambda: turbo(None))
says(ProfileNameError, "expected the name of a profile or a Profile, got dict")(lambda: turbo({"tf32": True}))
says(ProfileNameError, "there is no profile 'fsat': did you mean 'fast'?")(lambda: accelerate(profile="fsat"))
says(OptionNameError, "there is no option 'anomoly': did you mean 'anomaly'?")(lambda: Profile("mine", anomoly=True))
says(OptionNameError, "profile 'fast' holds no option 'tf23': did you mean 'tf32'?")(
    lambda: PROFILES["fast"].without("tf23")
)
says(AttributeError, "a Profile cannot be changed; combine it: profile | Profile('mine', tf32=...)")(
    lambda: setattr(PROFILES["fast"], "tf32", False)
)
says(OptionValueError, "There is no pretend machine 'A10': did you mean 'A100' or 'V100' or 'H100'?")(
    lambda: pretend_hardware("A10")
)

# ---------------------------------------------------------------------------------------------------------- targets


says(
    TargetError,
    "accelerate cannot decorate DataLoader: decorate the function that loops over it, or put `with turbo('max', "
    "tf32=False):` around the loop",
)(lambda: accelerate(profile="max", tf32=False)(torch.utils.data.DataLoader([1])))
says(
    TargetError,
    "accelerate cannot decorate the class date: decorate those of its methods that compute something; only classes of "
    "torch.nn.Module are accelerated whole",
)(lambda: accelerate(datetime.date))
says(
    TargetError,
    "ModuleList has no forward to accelerate: accelerate what defines one, or what calls its parts",
)(lambda: accelerate(torch.nn.ModuleList()))
says(TargetError, "output_dtype is for modules and their classes, and this is function")(
    lambda: accelerate(lambda: None, output_dtype=None)
)
says(
    TargetError,
    "torch.jit.script cannot compile what is accelerated: TorchScript does not run Python, so the profile would be "
    "lost without a word. Script it first and accelerate the function that calls it, or use torch.compile",
)(lambda: torch.jit.script(accelerate(lambda x: x)))
says(TargetError, "accelerate('max'): a profile goes by keyword, accelerate(profile=...)")(lambda: accelerate("max"))

# ----------------------------------------------------------------------------------------------------------- blocks


def _enter(*machine: str, **options: Any) -> None:
    with pretend_hardware(machine[0]), turbo(machine[1], strict=True, **options):
        pytest.fail("the block was entered")


says(
    UnsupportedHere,
    """\
this machine cannot do all that was asked of it, and strict=True:
  cudnn_precision='tf32' (profile fast, tf32=True): TF32 needs compute capability 8.0, and Tesla T4 does not have it
  matmul_precision='medium' (argument): TF32 needs compute capability 8.0, and Tesla T4 does not have it
  autocast='auto' (profile fast): Tesla T4 computes bf16 by emulation only; it is fast in fp16: \
autocast='fp16', around what calls backward too""",
)(lambda: _enter("T4", "fast", matmul_precision="medium"))
says(
    UnsupportedHere,
    """\
this machine cannot do all that was asked of it, and strict=True:
  autocast='bf16' (argument): AMD EPYC 7763 64-Core Processor computes bf16 by emulation only, which is slower than \
float32""",
)(lambda: _enter("cpu", Profile("mine"), autocast="bf16"))
says(RuntimeError, "turbo('exact', num_threads=1) was left without having been entered")(
    lambda: turbo("exact", num_threads=1).__exit__(None, None, None)
)


@pytest.mark.parametrize(
    ("action", "error", "message"),
    MESSAGES,
    ids=[f"{at}-{message[:50]}" for at, (_, _, message) in enumerate(MESSAGES)],
)
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_every_message(action: Callable[[], object], error: type[BaseException], message: str) -> None:
    with pytest.raises(error) as caught:
        action()
    assert str(caught.value) == message
    assert type(caught.value) is error


def test_closed_by_another_thread() -> None:
    block = turbo("inference", autocast=None, anomaly=True)
    active = block.__enter__()
    said: list[BaseException] = []

    def close() -> None:
        try:
            block.__exit__(None, None, None)
        except WrongThreadError as error:
            said.append(error)

    thread = threading.Thread(target=close, name="closer")
    thread.start()
    thread.join()
    assert str(said[0]) == (
        f"the block opened at {active.where} in thread 'MainThread' was closed in thread 'closer'. What the process "
        "shares is back as it was; autocast, grad mode and the number of threads belong to 'MainThread' and come back "
        "there when it next enters or leaves a block. Close a block in the thread that opened it"
    )
    assert not torch.is_anomaly_enabled()
    assert not torch.is_grad_enabled()
    with turbo("exact"):
        assert torch.is_grad_enabled(), "this thread has entered a block"
    assert torch.is_grad_enabled()


@pytest.fixture
def refusing() -> Iterator[Callable[[], None]]:
    """Makes torch refuse from now on to switch anomaly detection, until the test is over."""
    (cell,) = SETTINGS["anomaly"].cells
    write = cell.write

    def refuse(*arguments: object) -> None:
        raise RuntimeError("not today")

    yield lambda: object.__setattr__(cell, "write", refuse)
    object.__setattr__(cell, "write", write)
    torch.set_anomaly_enabled(False, True)


REFUSED = "torch refused to put back anomaly detection: not today"


def test_what_torch_refuses_to_put_back(refusing: Callable[[], None]) -> None:
    block = turbo("inference", autocast=None, anomaly=True)
    block.__enter__()
    refusing()
    with pytest.raises(RestoreError) as caught:
        block.__exit__(None, None, None)
    assert str(caught.value) == REFUSED
    assert str(caught.value.__cause__) == "not today"
    assert torch.is_grad_enabled(), "what can be put back is"


def test_the_error_of_the_block_itself_comes_first(refusing: Callable[[], None]) -> None:
    error = ValueError("from the block")

    def fail() -> None:
        refusing()
        raise error

    with pytest.raises(ValueError, match="from the block") as caught, turbo("exact", anomaly=True):
        fail()
    assert caught.value is error
    assert error.__notes__ == [f"torchturbo: {REFUSED}"]


ELSEWHERE = {
    ScalingError,  # tests/scaling
    AccumulationError,  # tests/accumulating
    CheckpointError,  # tests/distributed
    DistributedError,  # tests/distributed
    ReproducibilityError,  # tests/reproducible
    errors.ConfigError,  # tests/launch
    errors.MissingPackageError,  # tests/pictures
    errors.RanksError,  # tests/distributed
    errors.CacheError,  # tests/cached
}
"""What something else than a block raises, and the tests that have its messages."""


def test_the_tree_of_errors_is_as_drawn() -> None:
    drawn = errors.__doc__ or ""
    found = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, TurboError)]
    assert len(found) == 1 + drawn.count("──")
    for error in found:
        (line,) = (
            line for line in drawn.splitlines() if f"─ {error.__name__} " in line or line.strip() == error.__name__
        )
        others = [base.__name__ for base in error.__bases__ if base.__module__ == "builtins"]
        assert error is TurboError or all(f"({base})" in line for base in others), error
    raised = {error for _, error, _ in MESSAGES} | {WrongThreadError, RestoreError, LeakError, *ELSEWHERE, TurboError}
    assert set(found) <= raised, "an error has no test of its message"
