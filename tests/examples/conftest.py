"""What the tests of the examples share: a small library of source to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.gpt.data import Text

SOURCES = {
    "abc.py": b"class ABC:\n    pass\n",
    "json/__init__.py": b"def dumps(thing):\n    ...\n",
    "json/decoder.py": b"class Decoder:\n    pass\n",
    "zipfile.py": b"import io\n",
}
LEFT_OUT = {"test/test_abc.py": b"# no", "site-packages/other.py": b"# no", "abc.txt": b"no"}


@pytest.fixture(scope="session", autouse=True)
def _optimizers_have_been_used() -> None:
    """The first optimizer of a process imports torch's compiler, whose sympy adds a filter for warnings for good."""
    import torch._dynamo  # noqa: F401


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return write_library(tmp_path / "library", list({**SOURCES, **LEFT_OUT}.items()))


def write_library(folder: Path, files: list[tuple[str, bytes]]) -> Path:
    for name, source in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source)
    return folder


@pytest.fixture(scope="session")
def text() -> Text:
    """A text with something to learn in it: it counts."""
    whole = np.frombuffer(b" ".join(b"%d" % number for number in range(3000)), dtype=np.uint8)
    return Text("counting", whole[:-2000], whole[-2000:])
