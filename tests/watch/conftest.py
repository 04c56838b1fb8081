"""What torch loads with the first optimizer is loaded, so that no test is taken for having left it."""

from __future__ import annotations

from tests.pretended import optimizers_are_loaded

__all__ = ["optimizers_are_loaded"]
