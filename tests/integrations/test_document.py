"""The examples of docs/integrations.md run, each in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import warnings
from pathlib import Path

import pytest

from tests.witness.children import in_child

DOCUMENT = Path(__file__).parents[2] / "docs" / "integrations.md"
EXAMPLES = re.findall(r"^## (.+?)\n.*?^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_an_example_runs(title: str, code: str) -> None:
    needed = re.findall(r"^(?:from|import) (\w+)", code, re.M)
    for module in (*needed, *(("accelerate",) if "transformers" in needed else ())):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")

    def live() -> str:
        warnings.simplefilter("ignore")
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            exec(compile(code, str(DOCUMENT), "exec"), {"__name__": "__main__"})
        return told.getvalue()

    answer = in_child(live, seconds=120)
    assert answer.crash is None, answer.crash
    said = re.findall(r"^ *print\(.*\)  # (.+)$", code, re.M)
    assert all(line in answer.value for line in said)


def test_every_library_has_an_example() -> None:
    package = Path(__file__).parents[2] / "torchturbo" / "integrations"
    libraries = {path.stem for path in package.glob("[!_]*.py")}
    used = "\n".join(code for _, code in EXAMPLES)
    assert {name for name in libraries if f"torchturbo.integrations.{name} import" not in used} == set()
