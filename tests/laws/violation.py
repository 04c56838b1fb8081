"""What a law that does not hold raises."""

from __future__ import annotations


class Violation(AssertionError):
    """A law does not hold; the message says which and where."""


def holds(condition: object, message: str) -> None:
    """Raises `Violation` unless `condition` is true. It is no assert, so that a mistake in a test is told from it."""
    if not condition:
        raise Violation(message)
