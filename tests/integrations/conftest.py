"""The libraries are loaded once, before any test: what loading them changes is not a test's doing."""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from collections.abc import Iterator

import pytest

LIBRARIES = (
    "lightning.pytorch",
    "accelerate",
    "transformers",
    "ignite.engine",
    "skorch",
    "torch_geometric.loader",
    "torch_geometric.nn",
)


@pytest.fixture(scope="session", autouse=True)
def _libraries(_look_around_first: None) -> Iterator[None]:
    """All that are here; the environment, which some of them write to, is put back in the end."""
    environment = dict(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for library in LIBRARIES:
            with contextlib.suppress(ImportError):
                importlib.import_module(library)
        with contextlib.suppress(ImportError):
            importlib.import_module("transformers").Trainer  # noqa: B018 - it is loaded when it is asked for
    yield
    os.environ.clear()
    os.environ.update(environment)
