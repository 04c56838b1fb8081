"""What text may mean as a value of an option, on a command line, in the environment or in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator

WORDS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
    "none": None,
}
"""Words, in lower case, for values that Python writes in another way."""


def meanings(value: object) -> Iterator[object]:
    """What may be meant, the likeliest first.

    Args:
        value: text, or what a file has made of it.
    """
    yield value
    if not isinstance(value, str):
        return
    text = value.strip()
    for number in (int, float):
        try:
            yield number(text)
        except ValueError:
            continue
    if text.lower() in WORDS:
        yield WORDS[text.lower()]
    if text.lower() != value:
        yield text.lower()
    if text.startswith("{"):
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            return
