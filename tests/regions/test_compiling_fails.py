"""What cannot be compiled runs eagerly, once and whole, and says why; under strict it is an error."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.fresh import Fresh
from tests.regions.compiled import BARE, Backend, Net, Refusing, X
from torchturbo import accelerate, turbo
from torchturbo.errors import CompileWarning, OptionValueError
from torchturbo.regions import _compiler
from torchturbo.regions.compiling import Compiled, compilations
from torchturbo.settings._base import TORCH

pytestmark = pytest.mark.usefixtures("fresh_compiler")
ROOT = Path(__file__).parents[2]


def told(backend: object) -> Compiled:
    (found,) = (compiled for compiled in compilations() if str(backend) in compiled.how)
    return found


def batches(net: nn.Module) -> int:
    count: Any = net.get_submodule("inner.norm").num_batches_tracked
    return int(count)


# --------------------------------------------------------------------------------------------- backends that fail


@pytest.mark.parametrize("whole", [False, True], ids=["parts", "fullgraph"])
def test_a_backend_that_refuses_is_told_once_and_the_model_runs_once(whole: bool) -> None:
    net, refusing = Net(), Refusing()
    with turbo(BARE, compile={"backend": refusing, "fullgraph": whole}):
        with pytest.warns(CompileWarning, match="^Net could not be compiled.*RuntimeError: no kernels today") as seen:
            net(X)
        assert batches(net) == 1
        count = len(refusing.graphs)
        net(X)
    assert [warning.filename for warning in seen] == [__file__]
    assert batches(net) == 2
    assert len(refusing.graphs) == count, "it is not asked again"
    assert "no kernels today" in str(told(refusing).reason)


def test_it_is_not_asked_for_the_parts_of_what_it_refused() -> None:
    refusing = Refusing()
    with turbo(BARE, compile=refusing.options), pytest.warns(CompileWarning):
        Net()(X)
    assert len(refusing.graphs) == (1 if TORCH >= (2, 11) else 3)


@pytest.mark.parametrize("whole", [False, True], ids=["parts", "fullgraph"])
def test_under_strict_it_is_raised(whole: bool) -> None:
    net, refusing = Net(), Refusing()
    with turbo(BARE, strict=True, compile={"backend": refusing, "fullgraph": whole}):
        with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="no kernels today") as raised:
            net(X)
    assert "torchturbo: raised while compiling Net" in raised.value.__notes__[0]
    assert batches(net) == 0
    decorated = accelerate(net.forward.__func__, profile=BARE, strict=True, compile=refusing.options)  # type: ignore[attr-defined]
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed):
        decorated(net, X)


def test_strict_ends_with_its_block() -> None:
    refusing, lenient = Refusing(), turbo(BARE, compile=Refusing().options)
    with lenient:
        with turbo(BARE, strict=True, compile=refusing.options), pytest.raises(torch._dynamo.exc.BackendCompilerFailed):
            Net()(X)
        with pytest.warns(CompileWarning):
            Net()(X)


def test_dynamo_says_nothing_of_it_itself(caplog: pytest.LogCaptureFixture) -> None:
    with turbo(BARE, compile=Refusing().options), caplog.at_level("WARNING"), pytest.warns(CompileWarning):
        Net()(X)
    assert [record for record in caplog.records if record.name.startswith("torch._dynamo")] == []


def test_what_the_user_compiles_fails_as_it_always_does(caplog: pytest.LogCaptureFixture) -> None:
    theirs = torch.compile(Net(), backend=Refusing())
    with turbo(BARE, compile=Backend().options), pytest.raises(torch._dynamo.exc.BackendCompilerFailed):
        theirs(X)


def test_the_models_own_error_comes_out_as_it_is() -> None:
    class Wrong(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch._dynamo.graph_break()
            raise KeyError("mine")

    with turbo(BARE, compile=Backend().options), pytest.raises(KeyError, match="mine") as raised:
        Wrong()(X)
    assert not hasattr(raised.value, "__notes__")


NO_COMPILER = """
import torch, warnings
from torch import nn
from torchturbo import Profile, turbo
model, x = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()), torch.randn(3, 4)
with warnings.catch_warnings(record=True) as seen, turbo(Profile("bare"), compile=True):
    warnings.simplefilter("always")
    model(x).sum().backward()
assert model[1].num_batches_tracked == 1
told = [str(warning.message) for warning in seen if warning.category.__name__ == "CompileWarning"]
print(told[0])
try:
    with turbo(Profile("bare"), strict=True, compile=True):
        model(x)
except Exception as error:
    print(type(error).__name__, error.__notes__)
"""


@pytest.mark.slow
def test_without_a_compiler_for_cpp_it_runs_eagerly(tmp_path: Path) -> None:
    environment = os.environ | {"CXX": "/nonexistent/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", NO_COMPILER], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    told, strict = run.stdout.strip().splitlines()
    assert told.startswith("Sequential could not be compiled")
    assert "compiler" in told or "/nonexistent" in told
    assert "raised while compiling Sequential" in strict


# --------------------------------------------------------------------------------------------- recompile limit


def test_the_recompile_limit_is_told_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    net, backend = Net().eval(), Backend()
    with turbo(BARE, compile={"backend": backend, "dynamic": False}):
        for size in range(2, 10):
            net(torch.ones(size, 4))
        with pytest.warns(CompileWarning, match=r"^Net .* \(recompile_limit=8\).*size mismatch") as seen:
            net(torch.ones(10, 4))
        net(torch.ones(11, 4))
    assert len(seen) == 1
    assert len(backend.graphs) == 8
    assert "too many times" in str(told(backend).reason)
    assert not [record for record in caplog.records if "recompile_limit" in record.getMessage()]


# --------------------------------------------------------------------------------------------- how long it takes


def test_compilations_are_counted_timed_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    net, backend = Net(), Backend()
    with caplog.at_level("INFO", "torchturbo"), turbo(BARE, compile=backend.options):
        net(X)
        net(X)
        net.eval()(X)
    found = told(backend)
    assert (found.name, found.count, found.reason) == ("Net", 2, None)
    assert 0 < found.seconds < 60
    lines = [record.getMessage() for record in caplog.records if record.name == "torchturbo"]
    assert len(lines) == 2
    assert lines[0].startswith("compiled Net (")


LATE_BACKWARD = """
from tests.regions.compiled import BARE, Net, X
from torchturbo import turbo
from torchturbo.regions.compiling import compilations
with turbo(BARE, compile={"backend": "aot_eager"}):
    loss = Net()(X).sum()
    (before,) = compilations()
    loss.backward()
    (after,) = compilations()
print(before.name, before.count, after.count)
"""


def test_a_backward_that_is_compiled_later_is_counted_too(fresh_python: Fresh) -> None:
    # In a process of its own: AOT autograd leaves a thread running.
    run = fresh_python(LATE_BACKWARD)
    assert run.stdout.split() == ["Net", "1", "2"], run.stderr


class Slow(Backend):
    """A backend that takes its time."""

    def __call__(self, graph: Any, inputs: list[Any]) -> Any:
        time.sleep(0.3)
        return super().__call__(graph, inputs)


@pytest.mark.parametrize("patience", [0.1, 30.0])
def test_a_long_compilation_says_so(
    patience: float, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_compiler, "PATIENCE", patience)
    with turbo(BARE, compile=Slow().options):
        Net()(X)
    said = capfd.readouterr().err
    assert ("torchturbo: compiling Net, 0 s so far" in said) == (patience < 1)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(5)
            assert not thread.is_alive()


def test_what_the_user_compiles_is_not_ours() -> None:
    theirs, before = torch.compile(Net(), backend=Backend()), compilations()
    with turbo(BARE, compile=Backend().options):
        theirs(X)
    assert compilations() == before


# --------------------------------------------------------------------------------------------- the option


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"fullgrap": True}, "did you mean 'fullgraph'"),
        ({"fullgraph": 1}, "expected True or False"),
        ({"mode": "max-autotun"}, "did you mean 'max-autotune'"),
        ({"backend": 3}, "name of a backend"),
        ({"options": 3}, "mapping"),
        ({"mode": "default", "options": {}}, "not both"),
        ({}, "expected one of"),
        ("reduce", "did you mean 'reduce-overhead'"),
    ],
)
def test_a_bad_value_is_refused(value: Any, message: str) -> None:
    with pytest.raises(OptionValueError, match=r"^compile=") as raised:
        turbo(compile=value)
    assert message in str(raised.value)


def test_where_compiling_is_off_dynamo_is_not_loaded(fresh_python: Fresh) -> None:
    code = (
        "import sys, torch; from torchturbo import turbo\n"
        "with turbo('fast', compile=False), turbo('fast', compile=True): pass\n"
        "with turbo('fast'): torch.nn.Linear(1, 1)(torch.ones(1, 1))\n"
        "assert not [name for name in sys.modules if name.startswith('torch._dynamo')]"
    )
    assert fresh_python(code).returncode == 0


def test_the_log_is_quiet_afterwards() -> None:
    before = list(logging.getLogger("torch._dynamo.convert_frame").filters)
    with turbo(BARE, compile=True):
        assert logging.getLogger("torch._dynamo.convert_frame").filters != before
    assert logging.getLogger("torch._dynamo.convert_frame").filters == before
