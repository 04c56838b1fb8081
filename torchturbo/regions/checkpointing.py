"""Activations computed again in backward instead of kept: of the repeated blocks of a model, by torch's own checkpoint.

`torchturbo.regions._checkpointing` does it where they are called, and nothing of it is in the modules.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from torchturbo.errors import OptionValueError
from torchturbo.regions._checkpointing import ASKED, told
from torchturbo.settings._base import Setting, Values, same
from torchturbo.settings._edits import always


class _Checkpointing(Values):
    """The values of `checkpoint`, of which one is a list of classes."""

    def parse(self, option: str, value: object) -> object:
        if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
            value = [word.strip().strip("\"'") for word in value[1:-1].split(",")]
        if not isinstance(value, list | tuple):
            return super().parse(option, value)
        for each in value:
            if not (isinstance(each, str) and each.isidentifier()) and not (
                isinstance(each, type) and issubclass(each, nn.Module)
            ):
                raise OptionValueError(f"{option}={value!r}: {each!r} is no class of modules, and no name of one")
        if not value:
            raise OptionValueError(
                f"{option}={value!r}: expected classes of modules, or their names; or False for none"
            )
        return tuple(value)

    @property
    def annotation(self) -> str:
        """The values as a type annotation."""
        return 'bool | Literal["auto"] | Sequence[type | str] | None'


def _edits(value: Any, hardware: object) -> Any:
    return ((ASKED, always(value)),)


checkpoint = Setting(
    help="Compute activations of repeated blocks again in backward, and do not keep them: torch.utils.checkpoint.",
    values=_Checkpointing(
        (False, "auto", True), {None: False}, also="or a list of classes of modules, or of their names"
    ),
    cells=(ASKED,),
    edits=_edits,
    show=same,
    told=told,
)
