"""skorch: a callback for its nets.

Where a net has an `Accelerator` (`skorch.hf.AccelerateMixin`), autocast and scaling are left to it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torchturbo._program import Left
from torchturbo.integrations._around import Blocks, Instead, Within, left
from torchturbo.integrations._needed import needed

with needed("skorch"):
    from skorch.callbacks import Callback

__all__ = ["TurboCallback"]

_WAITS = "a train_step of your own, as skorch's documentation has it for gradient accumulation"


def _left_to(net: Any) -> Left:
    precision = getattr(getattr(net, "accelerator", None), "mixed_precision", "no")
    autocast = None if precision == "no" else f"the net's Accelerator(mixed_precision={precision!r})"
    return left(autocast=autocast, accumulate=_WAITS)


class TurboCallback(Blocks, Callback):  # type: ignore[misc] # its types are not looked at
    """A block around each training loop of a skorch net: ``NeuralNet(..., callbacks=[TurboCallback("fast")])``.

    skorch tells no callback of an exception. So the block goes around the net's ``fit_loop``, which skorch calls when
    all callbacks have heard that training begins.

    Args:
        profile: as `turbo` takes it.
        strict: as `turbo` takes it.
        **options: as `turbo` takes them, but for ``accumulate``.

    Raises:
        TargetError: ``accumulate``: skorch takes its steps with closures.
    """

    _libraries = ("skorch", "sklearn")
    _instead: ClassVar[Instead] = {"accumulate": (1, _WAITS)}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """What scikit-learn makes another one of, with the options."""
        profile, strict, options = self._around.asked
        return {"profile": profile, "strict": strict, **options}

    def set_params(self, **params: Any) -> TurboCallback:
        """Has it be as if it had been made with these."""
        TurboCallback.__init__(self, **{**self.get_params(), **params})
        return self

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Has the training loop that comes now run in a block."""
        Within(net, "fit_loop", self._around, _left_to, once=True)
