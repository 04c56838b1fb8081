"""No fused inference of `nn.TransformerEncoder` under autocast on the CPU, where torch's own fails.

Its modules in evaluation may run one fused kernel for attention and all else. Under autocast on a GPU they do not. On
the CPU nobody asks: with a padding mask the kernel gets nested tensors, autocast makes half of them bfloat16, and torch
raises that it "expected scalar type Float but found BFloat16".
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_Answers = Callable[[], bool]

_NAME = "get_fastpath_enabled"
_MHA = vars(torch.backends.mha)


def _but_not_under_autocast(theirs: _Answers) -> _Answers:
    def get_fastpath_enabled() -> bool:
        # TorchScript compiles it with the modules that ask, and Dynamo traces it: they see torch's functions alone.
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            return theirs() and not torch.is_autocast_enabled("cpu")
        return True

    return get_fastpath_enabled


class _Exchange:
    """What torch's modules ask: torch's function, and ours while there is a region in any thread."""

    __slots__ = ("ours", "theirs")

    def __init__(self) -> None:
        self.theirs: _Answers = _MHA[_NAME]
        self.ours = _but_not_under_autocast(self.theirs)

    def opened(self) -> None:
        """Has them ask us, from the first region on."""
        now = _MHA[_NAME]
        if now is not self.theirs:
            self.theirs, self.ours = now, _but_not_under_autocast(now)
        _MHA[_NAME] = self.ours

    def closed(self) -> None:
        """Has them ask torch again, after the last one."""
        # Somebody who patched on top of us keeps us in the chain, where we answer as torch does without autocast.
        if _MHA[_NAME] is self.ours:
            _MHA[_NAME] = self.theirs


FASTPATH = _Exchange()
"""Of the process, as torch's own is."""
