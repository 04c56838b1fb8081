"""The watch against an independent look: what any of torch's own setters changes is seen, and comes back."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.laws.look import differences, look
from tests.witness.getters import discover
from tests.witness.setters import Setter
from tests.witness.setters import table as setters
from torchturbo.errors import LeakError, OptionNameError, TargetError
from torchturbo.testing import assert_restores
from torchturbo.testing._of_torch import NOT_BY_NAME, pairs
from torchturbo.testing._thing import Thing
from torchturbo.testing._watch import Watch, watch

ROOT = Path(__file__).parents[2]

LOST = ("cuda/conv", "cuda/rnn", "cudnn.conv", "cudnn.rnn", "cudnn.flags", "cudnn.allow_tf32", "cudnn_allow_tf32")
"""Setters that overwrite torch's own default of two cells, which nobody can write again (torch >= 2.13)."""
OTHERS = ("seed", "rng_state", "_set_qengine", "warnings.", "_inductor.config.deterministic")
"""Random numbers are watched only where that is asked for, filters of warnings not at all; an engine that was set reads
as the one torch chose; and every compilation writes inductor's own flag."""


def table() -> Iterator[tuple[Setter, tuple[object, ...]]]:
    """Each setter with each value, but for those that load the compiler."""
    for setter in itertools.chain(*setters().values()):
        if setter.loads_compiler:
            continue
        for values in setter.values:
            said = f"{setter.name} {'/'.join(map(str, values))}"
            if not any(word in said for word in (*LOST, *OTHERS)):
                yield setter, values


def test_what_any_setter_changes_is_seen_and_put_back() -> None:
    missed, left = [], []
    watched = watch()
    warnings_before = list(warnings.filters)
    for setter, values in table():
        start, before = look(), watched.look()
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setter.call(*values)
        changed = differences(start, look())
        if changed and not watched.changed(before):
            missed.append(f"{setter.name}{values}: {changed}")
        watched.put_back(before)
        after = differences(start, look())
        if after:
            left.append(f"{setter.name}{values}: {after}")
    assert warnings.filters == warnings_before
    assert missed == []
    assert [each.partition(":")[0] for each in left] == []


def test_each_getter_of_torch_is_watched_or_left_out_for_a_reason() -> None:
    read = pairs().keys() | NOT_BY_NAME.keys()
    with_setters = {
        name
        for name in discover()
        if hasattr(torch._C, name.replace("_get_", "_set_", 1)) and name.replace("_get_", "_set_", 1) != name
    }
    by_options = {cell for thing in watch().things for cell in [getattr(thing.read, "__name__", "")]}
    for_debugging = {"_debug_get_fusion_group_inlining", "_accelerator_hooks_get_current_device"}
    not_watched = with_setters - read - by_options - for_debugging
    assert [name for name in not_watched if "tunableop" not in name] == [], "docs/leaks.md says that tuning is not"


def test_each_thing_is_read_once_and_only_again_where_something_changed() -> None:
    reads = {"one": 0, "other": 0}
    state = {"one": 0, "other": 0}

    def thing(name: str) -> Thing:
        def read() -> int:
            reads[name] += 1
            return state[name]

        return Thing(name, name, read, lambda was, now: state.update({name: was}))

    watched = Watch(map(thing, reads))
    before = watched.look()
    assert watched.put_back(before) == []
    assert reads == {"one": 2, "other": 2}
    state["one"] = 1
    (change,) = watched.put_back(before)
    assert (change.name, change.was, change.now, change.kept) == ("one", "0", "1", None)
    assert reads == {"one": 5, "other": 4}, "once to see that something is, once to say what, once after it is back"
    assert state == {"one": 0, "other": 0}


def test_what_cannot_be_put_back_is_said() -> None:
    state = [0]

    def refuse(was: object, now: object) -> None:
        raise RuntimeError("not twice")

    for write, told in ((None, "torch has no way"), (refuse, "RuntimeError: not twice"), (print, "does not take it")):
        watched = Watch([Thing("stuck", "torch.stuck", lambda: state[0], write)])
        before = watched.look()
        state[0] += 1
        (change,) = watched.put_back(before)
        assert told in str(change.kept)


def test_the_error_of_the_block_stands_and_has_the_leak_as_a_note() -> None:
    @assert_restores()
    def fails() -> None:
        torch.set_grad_enabled(False)
        raise KeyError("mine")

    with pytest.raises(KeyError) as raised:
        fails()
    assert "grad (torch.set_grad_enabled): True before, False after" in raised.value.__notes__[0]
    assert torch.is_grad_enabled()


def test_it_decorates_functions_and_nests() -> None:
    guard = assert_restores("grad")

    @guard
    def inner(*, leak: bool) -> int:
        torch.set_grad_enabled(False)
        torch.set_warn_always(leak)
        return 3

    with guard, guard:
        assert inner(leak=False) == 3
        assert torch.is_grad_enabled(), "what is allowed is put back too"
    with pytest.raises(LeakError, match="warn_always"):
        inner(leak=True)
    assert not torch.is_warn_always_enabled()


def test_what_it_cannot_decorate_is_refused() -> None:
    async def later() -> None: ...

    with pytest.raises(TargetError, match=r"cannot decorate .*later, whose call ends before .*write `with assert_"):
        assert_restores()(later)


def test_an_unknown_name_names_the_near_ones() -> None:
    with pytest.raises(OptionNameError, match=r"'default_dtyp' is watched for leaks: did you mean 'default_dtype'"):
        assert_restores("default_dtyp")


def test_random_numbers_are_watched_where_that_is_asked_for() -> None:
    with assert_restores():
        torch.rand(1)
    with pytest.raises(LeakError, match=r"random \(torch.manual_seed\): at state \w+ before, at state \w+ after"):
        with assert_restores(random=True):
            torch.rand(1)
    with assert_restores("random", random=True):
        torch.rand(1)


PINNED = """
import pytest, torch

@pytest.fixture(scope="module", autouse=True)
def generic():
    before = torch.backends.cuda.matmul.fp32_precision, torch.get_float32_matmul_precision()
    {sets}
    yield
    {unsets}

def test_compiles():
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))

def test_validates():
    torch.distributions.Normal(0.0, 1.0)

def test_configures():
    torch._dynamo.config.verbose = True

def test_stance():
    torch.compiler.set_stance("force_eager")
"""


def run(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "torchturbo_pytest", "-p", "no:cacheprovider", "-q", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    return ran.stdout + ran.stderr


def test_what_compiling_changes_is_named_as_torchs_own(tmp_path: Path) -> None:
    if hasattr(torch._C, "_set_fp32_precision_setter"):
        sets, unsets = (f"torch.backends.fp32_precision = {value!r}" for value in ("tf32", "none"))
    else:
        sets, unsets = (f"torch.set_float32_matmul_precision({value!r})" for value in ("medium", "highest"))
        sets, unsets = sets, unsets
    text = PINNED.replace(
        "before = torch.backends.cuda.matmul.fp32_precision, torch.get_float32_matmul_precision()", ""
    )
    (tmp_path / "test_compiled.py").write_text(text.format(sets=sets, unsets=unsets))
    told = run(tmp_path, "--torchturbo-leaks")
    assert "torch.compile itself pins what was inherited" in told
    assert "torch._dynamo.config.verbose: not set before, True after" in told
    assert "stance (torch.compiler.set_stance): 'default' before" in told
    assert "4 passed, 3 errors" in told, told


def test_without_the_flag_no_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "test_bare.py").write_text(
        "import sys, pytest\n\n@pytest.mark.torchturbo_leaks('grad')\ndef test():\n"
        "    assert not {'torch', 'torchturbo', 'numpy'} & set(sys.modules)\n"
    )
    assert "1 passed" in run(tmp_path, "--strict-markers")
