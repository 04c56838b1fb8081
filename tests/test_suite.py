"""The suite in processes: no test file is left out or run twice, and what comes out is counted."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from tools import suite
from tools.suite import NOTHING_COLLECTED, ROOT, TOGETHER, Outcome, Part, main, parts, run_all


def test_every_test_file_is_in_one_part() -> None:
    found = [
        file
        for part in parts(ROOT / "tests")
        for path in part.paths
        for file in ([path] if path.is_file() else path.rglob("test_*.py"))
    ]
    assert sorted(found) == sorted((ROOT / "tests").rglob("test_*.py"))


def test_the_biggest_goes_first() -> None:
    sizes = [part.size for part in parts(ROOT / "tests")]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) > 0


def test_small_folders_share_a_process() -> None:
    found = parts(ROOT / "tests")
    assert len(found) < sum(len(part.paths) if part.paths[0].is_dir() else 1 for part in found)
    assert all(part.size <= TOGETHER for part in found if len(part.paths) > 1 and part.paths[0].is_dir())
    assert all(one.size + other.size > TOGETHER for one, other in combinations(found, 2))


@pytest.mark.parametrize(
    ("last", "counted"),
    [
        ("12 passed, 1 skipped in 3.00s", {"passed": 12, "skipped": 1}),
        ("2 failed, 10 passed, 3 errors in 1.00s", {"failed": 2, "passed": 10, "errors": 3}),
        ("no tests ran in 0.01s", {}),
    ],
)
def test_what_pytest_says_last_is_counted(last: str, counted: dict[str, int]) -> None:
    assert Outcome(Part("one", ()), 0, f"....\nmore\n{last}\n", 1.0).counted == counted


def test_only_what_needs_a_library_that_is_not_here_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        suite.importlib.util, "find_spec", lambda library: None if library in ("skorch", "torchao") else 1
    )
    assert suite.without_their_libraries() == ["torchturbo/_float8.py", "torchturbo/integrations/skorch.py"]
    assert all((ROOT / path).exists() for path in suite.without_their_libraries())


def test_each_part_runs_once_and_a_failure_is_shown_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def run(part: Part, arguments: object) -> Outcome:
        ran.append(part.name)
        return Outcome(part, int(part.name == "3"), f"the words of {part.name}\n1 passed in 1s", 1.0)

    monkeypatch.setattr("tools.suite.run", run)
    ended = run_all([Part(str(number), (Path(),)) for number in range(5)], [], 2)
    assert sorted(ran) == list("01234")
    assert [outcome.part.name for outcome in ended if outcome.code] == ["3"]
    said = capsys.readouterr().out
    assert "the words of 3" in said
    assert "the words of 2" not in said


@pytest.mark.parametrize(
    ("code", "last", "ends"),
    [(0, "2 passed in 1s", 0), (1, "1 failed in 1s", 1), (NOTHING_COLLECTED, "no tests ran in 0s", 1)],
)
def test_it_ends_as_its_worst_part_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, last: str, ends: int
) -> None:
    """Where nothing at all has run, nobody can say that all is well."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_one.py").write_text("def test_one(): pass\n")
    monkeypatch.setattr("tools.suite.ROOT", tmp_path)
    monkeypatch.setattr("tools.suite.run", lambda part, arguments: Outcome(part, code, last, 1.0))
    monkeypatch.setattr("tools.suite.subprocess.run", lambda *args, **kwargs: None)
    assert main(["-k", "one"]) == ends
