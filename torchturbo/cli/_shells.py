"""Completion in bash where words have an equals sign, which bash takes for three words. The rest is click's own."""

from __future__ import annotations

from typing import Any

from click.shell_completion import BashComplete, CompletionItem


class Bash(BashComplete):
    """click's completion for bash, that puts ``--set autocast=bf16`` together again.

    bash replaces what stands after the equals sign, so that is all it is given back. Where a name waits for its value
    no blank is set after it.
    """

    name = "bash"
    source_template = BashComplete.source_template.replace(
        "    return 0\n", "    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n\n    return 0\n", 1
    )
    _given = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and that one."""
        args, incomplete = super().get_completion_args()
        whole: list[str] = []
        for word in [*args, incomplete]:
            if whole and (word == "=" or whole[-1].endswith("=")):
                whole[-1] += word
            else:
                whole.append(word)
        *before, self._given = whole
        return before, self._given

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """One line for bash."""
        name, equals, _ = self._given.partition("=")
        if equals and item.value.startswith(f"{name}="):
            item.value = item.value.removeprefix(f"{name}=")
        if item.type == "plain":
            item.value = item.value.replace(" ", "\\ ")
        return super().format_completion(item)
