"""No fused inference of `nn.TransformerEncoder` under autocast on the CPU, where torch's own fails.

Its modules in evaluation may run one fused kernel for attention and all else. Under autocast on a GPU they do not. On
the CPU nobody asks: with a padding mask the kernel gets nested tensors, autocast makes half of them bfloat16, and torch
raises that it "expected scalar type Float but found BFloat16".
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_Answers = Callable[[], bool]

NAME = "get_fastpath_enabled"
MHA = vars(torch.backends.mha)


def _but_not_under_autocast(theirs: _Answers) -> _Answers:
    def get_fastpath_enabled() -> bool:
        # TorchScript compiles it with the modules that ask, and Dynamo traces it: they see torch's functions alone.
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            return theirs() and not torch.is_autocast_enabled("cpu")
        return True

    return get_fastpath_enabled


class _Exchange:
    """What torch's modules ask: torch's function, and ours while there is a region in any thread.

    Attributes:
        theirs: what stood there before the first region.
        ours: what stands there.
    """

    __slots__ = ("ours", "theirs")

    def __init__(self) -> None:
        self.theirs: _Answers = MHA[NAME]
        self.ours = _but_not_under_autocast(self.theirs)

    def prepare(self) -> None:
        """Looks at what stands there now. Who calls this puts `ours` there, and `theirs` back, in places of its own.

        A call is where an interrupt can come, and half of what a region changes must not be there.
        """
        now = MHA[NAME]
        if now is not self.theirs and now is not self.ours:
            self.theirs, self.ours = now, _but_not_under_autocast(now)


FASTPATH = _Exchange()
"""Of the process, as torch's own is."""
