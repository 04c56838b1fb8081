"""What `pytest --torchturbo-leaks` does: each test, fixture and import that leaves torch changed is named.

Fixtures of more than one test are looked at by themselves, as they are set up and torn down: what one sets is expected
in its tests, and has to be back once it has been torn down.
"""

from __future__ import annotations

import gc
import inspect
import re
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from torchturbo.errors import LeakWarning, OptionNameError
from torchturbo.testing._leaks import described, not_allowed
from torchturbo.testing._thing import Change, Raw
from torchturbo.testing._watch import State, watch

MARK = "torchturbo_leaks"
_KEY = "torchturbo_leaks"
_ON = ("true", "yes", "on", "1")


@dataclass
class _SetUp:
    """A fixture of more than one test, while it is set up.

    Attributes:
        before: how everything was before.
        owes: what it has changed, by place, as it was before.
        torn: how everything was just before it was torn down.
    """

    before: State
    owes: dict[int, Raw] = field(default_factory=dict)
    torn: State = field(default_factory=list)


class Leaks:
    """Watches one run of pytest.

    Args:
        config: the run's.
        asked: "true", or "warn", which fails nothing.

    Raises:
        pytest.UsageError: `asked` is neither, or a name in the configuration is not one.
    """

    def __init__(self, config: pytest.Config, asked: str) -> None:
        if asked not in (*_ON, "warn"):
            raise pytest.UsageError(f"torchturbo_leaks = {asked}: expected true, false or warn")
        if pytest.version_tuple < (8,):
            raise pytest.UsageError(f"--torchturbo-leaks needs pytest 8; this is {pytest.__version__}")
        self._config = config
        self._warns = asked == "warn"
        self._watch = watch(random=config.getini("torchturbo_leaks_random"))
        self._always = frozenset(config.getini("torchturbo_leaks_allow"))
        try:
            self._watch.check(self._always)
        except OptionNameError as error:
            raise pytest.UsageError(f"torchturbo_leaks_allow: {error}") from None
        self._expected: State = []
        self._item: pytest.Item | None = None
        self._leaking: pytest.Item | None = None
        self._setting_up: list[_SetUp] = []
        self._untold: list[str] = []
        self._summary: dict[str, None] = {}

    # ---------------------------------------------------------------------------------------------------- imports

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Tells of what importing a file of tests changes, and leaves it: its tests may count on it."""
        before = self._watch.look()
        report = yield
        changes = self._blamed(collector, self._watch.tell(before))
        if changes:
            place = collector.nodeid or str(collector.path)
            self._summary[f"importing {place} changed torch's global state:\n{described(changes)}"] = None
        return report

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Sees to it that each mark names what there is."""
        wrong: dict[str, None] = {}
        for item in items:
            for mark in item.iter_markers(MARK):
                try:
                    self._watch.check(mark.args)
                except OptionNameError as error:
                    wrong[f"{item.nodeid}: @pytest.mark.{MARK}: {error}"] = None
        if wrong:
            raise pytest.UsageError(*wrong)

    # ------------------------------------------------------------------------------------------------------ tests

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        """Looks at how everything is before the test."""
        self._expected = self._watch.look()
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None]:
        """Says what the test, and what was torn down after it, have left changed."""
        self._item = item
        try:
            result = yield
        except BaseException as error:
            self._settle_test()
            if self._untold:
                error.add_note(self._tell())
            raise
        self._settle_test()
        if self._untold:
            told = self._tell()
            if not self._warns:
                self._leaking = item
                pytest.fail(told, pytrace=False)
            item.warn(LeakWarning(told))
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Keeps a leak an error where the test is expected to fail, which pytest takes to mean its teardown too."""
        report = yield
        if call.when == "teardown" and self._leaking is item:
            self._leaking = None
            report.outcome = "failed"
            vars(report).pop("wasxfail", None)
        return report

    def _settle_test(self) -> None:
        """Says what the test has left changed, and puts it back, once it has been torn down itself."""
        item, self._item = self._item, None
        if item is None or not self._watch.changed(self._expected):
            return
        gc.collect()  # a generator that holds a block open may only be waiting for the collector
        self._blame(item, "the test", self._watch.put_back(self._expected))

    def _tell(self) -> str:
        told, self._untold = "\n".join(self._untold), []
        return told

    def _blame(self, node: pytest.Item | pytest.Collector, who: str, found: list[Change]) -> None:
        changes = self._blamed(node, found)
        if not changes:
            return
        names = list(dict.fromkeys(change.name for change in changes))
        back = "It is put back" if all(change.kept is None for change in changes) else "What can be is put back"
        self._untold.append(
            f"{who} leaked {', '.join(names)}: torch's global state is not as it was\n{described(changes)}\n"
            f"{back} for the tests that follow. If it is meant: {_allowing(node, names)}"
        )

    def _blamed(self, node: pytest.Item | pytest.Collector, changes: list[Change]) -> list[Change]:
        """The changes that no mark of the node, nor the configuration, allows."""
        if not changes:
            return []
        marks = list(node.iter_markers(MARK))
        if any(not mark.args for mark in marks):
            return []
        return not_allowed(changes, self._always.union(*(mark.args for mark in marks)))

    # --------------------------------------------------------------------------------------------------- fixtures

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Takes what a fixture of more than one test sets as what its tests are to find."""
        if fixturedef.scope == "function":
            return (yield)
        its = _SetUp(self._watch.look())
        # Finalizers run newest first: this one after the fixture's own, the one below before them.
        fixturedef.addfinalizer(partial(self._has_torn_down, its, fixturedef, request))
        self._setting_up.append(its)
        try:
            return (yield)
        finally:
            self._setting_up.remove(its)
            now = self._watch.look()
            for place in self._watch.moved(its.before, now):
                its.owes[place] = its.before[place]
                self._expect(place, now[place])
                for outer in self._setting_up:
                    outer.before[place] = now[place]
            fixturedef.addfinalizer(partial(self._tears_down, its))

    def _expect(self, place: int, raw: Raw) -> None:
        if self._expected:
            self._expected[place] = raw

    def _tears_down(self, its: _SetUp) -> None:
        self._settle_test()  # which has been torn down before any fixture that it shares
        its.torn = self._watch.look()

    def _has_torn_down(self, its: _SetUp, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
        wanted = list(its.torn or its.before)
        for place, raw in its.owes.items():
            wanted[place] = raw
        for place in {*its.owes, *self._watch.moved(wanted, self._watch.look())}:
            self._expect(place, wanted[place])
        self._blame(request.node, _called(fixturedef, self._config.rootpath), self._watch.put_back(wanted))

    # -------------------------------------------------------------------------------------------------- the end

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """Keeps what no test could be told of for the summary, and fails the run for it."""
        result = yield
        self._summary |= dict.fromkeys(self._untold)
        self._untold = []
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            output[_KEY] = list(self._summary)
        if self._summary and not self._warns and session.exitstatus in (0, pytest.ExitCode.OK):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Takes over what a process of pytest-xdist has found."""
        self._summary |= dict.fromkeys(getattr(node, "workeroutput", {}).get(_KEY, ()))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says what belongs to no test."""
        told: Iterable[str] = (*self._summary, *self._untold)
        if told:
            terminalreporter.section("torch's global state", sep="=", yellow=True)
            for each in told:
                terminalreporter.write_line(each)


def _allowing(node: pytest.Item | pytest.Collector, names: list[str]) -> str:
    """What to write so that these may be left changed."""
    mark = f"pytest.mark.{MARK}({', '.join(map(repr, names))}, reason=...)"
    if isinstance(node, pytest.Item):
        return f"@{mark}"
    if isinstance(node, pytest.Class):
        return f"@{mark} on the class"
    if isinstance(node, pytest.Module):
        return f"pytestmark = {mark}"
    return f"torchturbo_leaks_allow = {' '.join(names)}"


_STANDS_FOR = re.compile(r"_(?:unittest|xunit)_(\w+?)_fixture_(\w+)")
"""The fixtures by which pytest calls setUpClass, setup_module and their like."""


def _called(fixturedef: pytest.FixtureDef[Any], root: Path) -> str:
    """A fixture by its name, its scope and its place."""
    stands_for = _STANDS_FOR.fullmatch(fixturedef.argname)
    if stands_for:
        return f"{stands_for[1]} of {stands_for[2]}"
    code = inspect.unwrap(fixturedef.func).__code__ if inspect.isfunction(fixturedef.func) else None
    path = Path(code.co_filename) if code else Path()
    where = f" ({path.relative_to(root) if path.is_relative_to(root) else path}:{code.co_firstlineno})" if code else ""
    return f"the {fixturedef.scope}-scoped fixture {fixturedef.argname!r}{where}"
