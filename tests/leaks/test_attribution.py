"""Whose leak it is: the test's, a fixture's, an import's; and nobody's where all is put back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.leaks.conftest import Run
from tests.leaks.planted import PREAMBLE
from torchturbo.testing._plugin import Leaks

ON = "--torchturbo-leaks"

CLEAN = """
import random
import unittest
from hypothesis import given, settings, strategies


@pytest.fixture(params=["session", "module", "class", "function"], scope="session")
def every(request):
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def inner():
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


@pytest.fixture(scope="module")
def outer(request, inner):
    torch.backends.cudnn.benchmark = True
    request.getfixturevalue("later")
    yield
    torch.backends.cudnn.benchmark = False


@pytest.fixture(scope="module")
def later():
    torch.autograd.set_detect_anomaly(True)
    yield
    torch.autograd.set_detect_anomaly(False)


@pytest.fixture(scope="class")
def of_class():
    torch.set_grad_enabled(False)
    yield
    torch.set_grad_enabled(True)


@pytest.fixture
def of_function():
    torch.set_num_threads(7)
    yield
    torch.set_num_threads(THREADS)


def setup_module():
    torch.set_printoptions(precision=7)


def teardown_module():
    torch.set_printoptions(precision=4)


def test_parametrized(every):
    assert torch.get_default_dtype() is torch.float64


def test_nested(outer, of_function):
    assert torch.is_anomaly_enabled() and torch.get_num_threads() == 7


def test_again(outer, monkeypatch):
    monkeypatch.setenv("OMP_SCHEDULE", "3")
    torch.rand(3), random.random()


class TestClass:
    def test_one(self, of_class):
        assert not torch.is_grad_enabled()

    def test_two(self, of_class, later):
        assert not torch.is_grad_enabled()


class TestCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        torch.set_deterministic_debug_mode("warn")

    @classmethod
    def tearDownClass(cls):
        torch.set_deterministic_debug_mode("default")

    def setUp(self):
        torch.set_autocast_cache_enabled(False)
        self.addCleanup(torch.set_autocast_cache_enabled, True)

    def test_it(self):
        assert not torch.is_autocast_cache_enabled()


@settings(database=None, max_examples=3)
@given(strategies.booleans())
def test_drawn(on):
    with torch.set_grad_enabled(on), turbo("exact"):
        torch.nn.Linear(2, 2)(torch.ones(2)).sum()


def generator():
    with torch.no_grad():
        yield


def test_of_a_suspended_generator():
    suspended = [generator()]
    next(suspended[0])
    suspended.append(suspended)  # a circle, which the collector alone ends
"""

FIXTURES = """
@pytest.fixture(scope="session")
def of_session():
    torch.set_warn_always(True)


@pytest.fixture(scope="module")
def of_module():
    torch.backends.cudnn.benchmark = True
    yield


@pytest.fixture(scope="module", params=[1, 2])
def of_param(request):
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype([None, torch.float32, torch.float16][request.param])


@pytest.fixture
def of_function():
    torch.set_autocast_cache_enabled(False)


class TestClass:
    @classmethod
    def setup_class(cls):
        torch.set_grad_enabled(False)

    def test_one(self, of_session, of_module):
        assert not torch.is_grad_enabled()

    def test_two(self):
        assert not torch.is_grad_enabled()
        torch.autograd.set_detect_anomaly(True)


def test_back():
    assert torch.is_grad_enabled() and torch.backends.cudnn.benchmark and not torch.is_anomaly_enabled()


def test_param(of_param):
    pass


def test_function(of_function):
    pass
"""
LAST = (
    "def test_last():\n    assert torch.get_default_dtype() is torch.float32 and not torch.backends.cudnn.benchmark\n"
)


def test_a_clean_suite_has_none(run_here: Run, capsys: pytest.CaptureFixture[str]) -> None:
    text = PREAMBLE + "\nTHREADS = torch.get_num_threads()\n" + CLEAN
    outcome = run_here({"test_clean_{}.py": text, "test_last_{}.py": PREAMBLE}, ON, capture=capsys)
    assert outcome.errors == {}
    assert outcome.code == 0, outcome.printed
    assert "global state" not in outcome.printed
    assert len(outcome.passed) == 11


def test_fixtures_are_named_and_tests_are_not(run_here: Run) -> None:
    outcome = run_here({"test_a_{}.py": PREAMBLE + FIXTURES, "test_b_{}.py": PREAMBLE + LAST}, ON)
    errors = outcome.errors
    assert outcome.failed == []
    assert "the test leaked anomaly:" in errors["TestClass::test_two"]
    assert "\nsetup_class of TestClass leaked grad:" in errors["TestClass::test_two"]
    assert "pytest.mark.torchturbo_leaks('grad', reason=...) on the class" in errors["TestClass::test_two"]
    assert errors["test_function"].startswith("the test leaked autocast_cache:")
    assert "the module-scoped fixture 'of_module' (test_a_" in errors["test_function"]
    assert (
        "If it is meant: pytestmark = pytest.mark.torchturbo_leaks('cudnn_benchmark', reason=...)"
        in errors["test_function"]
    )
    assert "the module-scoped fixture 'of_param'" in errors["test_function"]
    assert "'float32' before, 'float16' after" in errors["test_function"], "of its second parameter, torn down last"
    assert "the session-scoped fixture 'of_session'" in errors["test_last"]
    assert "torchturbo_leaks_allow = warn_always" in errors["test_last"]
    assert errors.keys() == {"TestClass::test_two", "test_function", "test_last"}
    assert outcome.left == ""


MARKED = """
@pytest.mark.torchturbo_leaks("grad", "torch.set_warn_always", reason="meant")
def test_named():
    torch.set_grad_enabled(False)
    torch.set_warn_always(True)


@pytest.mark.torchturbo_leaks("grad")
def test_other():
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)


@pytest.mark.torchturbo_leaks
def test_all():
    torch.set_default_dtype(torch.float64)


@pytest.mark.torchturbo_leaks("OMP_SCHEDULE", "torch._dynamo.config.verbose", "environment")
def test_variable():
    os.environ["OMP_SCHEDULE"] = "3"


def test_back():
    assert torch.is_grad_enabled() and torch.get_default_dtype() is torch.float32
    assert "OMP_SCHEDULE" not in os.environ


def test_by_configuration():
    torch.backends.cudnn.benchmark = True
"""


def test_marks_and_the_configuration_allow_by_name(run_here: Run) -> None:
    outcome = run_here({"test_{}.py": PREAMBLE + MARKED}, ON, ini="torchturbo_leaks_allow = cudnn_benchmark")
    assert list(outcome.errors) == ["test_other"]
    assert "leaked default_dtype:" in outcome.errors["test_other"]
    assert len(outcome.passed) == 6
    assert outcome.left == ""


@pytest.mark.parametrize(
    ("text", "ini", "told"),
    [
        ("@pytest.mark.torchturbo_leaks('cudnn_bencmark')\ndef test(): pass", "", "did you mean 'cudnn_benchmark'"),
        ("", "torchturbo_leaks_allow = grads", "nothing called 'grads' is watched for leaks: did you mean 'grad'"),
        ("", "torchturbo_leaks = yess", "torchturbo_leaks = yess: expected true, false or warn"),
    ],
)
def test_a_wrong_name_is_an_error(
    run_here: Run, capsys: pytest.CaptureFixture[str], text: str, ini: str, told: str
) -> None:
    asks = [] if "yess" in ini else [ON]
    assert run_here({"test_{}.py": PREAMBLE + text}, *asks, ini=ini).code == pytest.ExitCode.USAGE_ERROR
    assert told in "".join(capsys.readouterr())


LEAKY = """
def test_fails():
    torch.backends.cudnn.benchmark = True
    assert False, "as it must"


@pytest.fixture
def breaks():
    yield
    raise OSError("in teardown")


def test_breaks(breaks):
    torch.set_grad_enabled(False)


@pytest.mark.xfail(reason="it must")
def test_expected():
    torch.set_warn_always(True)
    assert False, "as it must"


@pytest.mark.xfail(reason="it must")
def test_expected_and_clean():
    assert False, "as it must"


def test_draws():
    torch.rand(1)
"""


def test_one_that_fails_and_leaks_says_both(run_here: Run) -> None:
    outcome = run_here({"test_{}.py": PREAMBLE + LEAKY}, ON)
    assert outcome.failed == ["test_fails"]
    assert "the test leaked cudnn_benchmark" in outcome.errors["test_fails"]
    assert "OSError: in teardown" in outcome.errors["test_breaks"]
    assert "the test leaked grad" in outcome.errors["test_breaks"]
    assert "the test leaked" in outcome.errors["test_expected"], "pytest takes xfail to mean its teardown too"
    assert "test_expected_and_clean" not in outcome.errors
    assert "test_draws" not in outcome.errors
    assert outcome.left.startswith("random numbers"), "a drawn number is no leak unless it is asked for"


def test_random_numbers_where_they_are_asked_for(run_here: Run) -> None:
    ini = "torchturbo_leaks_random = true\ntorchturbo_leaks = true"
    text = "import random\ndef test_draws():\n    torch.rand(1), random.random()\n"
    outcome = run_here({"test_{}.py": PREAMBLE + text}, ini=ini)
    assert "the test leaked random, python_random" in outcome.errors["test_draws"]
    assert outcome.left == ""


def test_an_import_is_told_in_the_summary(run_here: Run, capsys: pytest.CaptureFixture[str]) -> None:
    changes = "torch.set_printoptions(precision=7)\n\ndef test(): assert torch._tensor_str.PRINT_OPTS.precision == 7\n"
    back = "torch.set_printoptions(precision=4)\npytestmark = pytest.mark.torchturbo_leaks\ndef test(): pass\n"
    files = {"test_a_{}.py": PREAMBLE + changes.replace(" == 7", " == 4"), "test_b_{}.py": PREAMBLE + back}
    outcome = run_here(files, ON, capture=capsys)
    assert (outcome.errors, outcome.failed) == ({}, []), "the second import has put it back"
    assert outcome.code == pytest.ExitCode.TESTS_FAILED
    assert "changed torch's global state:\n  printoptions" in outcome.printed
    assert outcome.printed.count("importing ") == 1, "the second one is marked"
    assert "importing test_a_" in outcome.printed


def test_warn_fails_nothing(run_here: Run, capsys: pytest.CaptureFixture[str]) -> None:
    text = "def test_leaks():\n    torch.set_grad_enabled(False)\n"
    outcome = run_here({"test_{}.py": PREAMBLE + text}, "-W", "default", ini="torchturbo_leaks = warn", capture=capsys)
    assert (outcome.code, outcome.errors, outcome.passed) == (0, {}, ["test_leaks"])
    assert "LeakWarning: the test leaked grad" in outcome.printed


def test_a_fixture_that_no_test_could_be_told_of(run_here: Run, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
@pytest.fixture(scope="session", autouse=True)
def kept():
    torch.set_warn_always(True)

def test(request):
    request.session.shouldstop = "enough"

def test_never(): pass
"""
    outcome = run_here({"test_{}.py": PREAMBLE + text}, ON, capture=capsys)
    told = outcome.printed + "".join(outcome.errors.values())
    assert told.count("the session-scoped fixture 'kept'") >= 1
    assert outcome.code != 0
    assert outcome.left == ""


def test_what_a_process_of_xdist_found_is_told_by_the_one_that_leads() -> None:
    def config() -> SimpleNamespace:
        values = {"torchturbo_leaks_random": False, "torchturbo_leaks_allow": []}
        return SimpleNamespace(getini=values.__getitem__, rootpath=None, workeroutput={})

    worker: Leaks = Leaks(config(), "true")  # type: ignore[arg-type]
    worker._untold.append("a fixture leaked grad")
    session = SimpleNamespace(exitstatus=0)
    ending = worker.pytest_sessionfinish(session)  # type: ignore[arg-type]
    next(ending)
    with pytest.raises(StopIteration):
        next(ending)
    assert session.exitstatus == pytest.ExitCode.TESTS_FAILED

    leader: Leaks = Leaks(config(), "true")  # type: ignore[arg-type]
    lines: list[str] = []
    for _ in range(2):  # each process imports every file
        leader.pytest_testnodedown(worker._config)
    leader.pytest_terminal_summary(  # type: ignore[arg-type]
        SimpleNamespace(section=lambda *_, **__: None, write_line=lines.append)
    )
    assert lines == ["a fixture leaked grad"]
