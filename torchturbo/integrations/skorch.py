"""skorch: a callback for its nets.

Where a net has an `Accelerator` (`skorch.hf.AccelerateMixin`), autocast and scaling are left to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skorch.callbacks import Callback

from torchturbo._active import Active
from torchturbo._program import Left
from torchturbo._report import Report
from torchturbo.integrations._around import UNNAMED, Around, Within, left
from torchturbo.profiles import Profile

if TYPE_CHECKING:
    from typing import Unpack

    from torchturbo._options import Options

__all__ = ["TurboCallback"]

_WAITS = "a train_step of your own, as skorch's documentation has it for gradient accumulation"


def _left_to(net: Any) -> Left:
    precision = getattr(getattr(net, "accelerator", None), "mixed_precision", "no")
    autocast = None if precision == "no" else f"the net's Accelerator(mixed_precision={precision!r})"
    return left(autocast=autocast, accumulate=_WAITS)


class TurboCallback(Callback):  # type: ignore[misc] # its types are not looked at
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

    def __init__(self, profile: str | Profile = UNNAMED, *, strict: bool = False, **options: Unpack[Options]) -> None:
        self.profile = profile
        self.strict = strict
        self.options = dict(options)
        self._around = self._made()

    def _made(self) -> Around:
        packages = ("skorch", "sklearn")
        return Around(packages, self.profile, self.strict, self.options, instead={"accumulate": (1, _WAITS)})

    @property
    def active(self) -> Active | None:
        """The block that is open, or None outside of a run."""
        return self._around.active

    def report(self) -> Report:
        """What the block has put in force, printed.

        Raises:
            RuntimeError: no run is under way.
        """
        return self._around.report()

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """What scikit-learn makes another one of, with the options."""
        # scikit-learn hands every one of them to another that it makes.
        return {"profile": self.profile, "strict": self.strict, **self.options}

    def set_params(self, **params: Any) -> TurboCallback:
        """Has it be as if it had been made with these."""
        self.profile = params.pop("profile", self.profile)
        self.strict = params.pop("strict", self.strict)
        self.options |= params
        self._around = self._made()
        return self

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Has the training loop that comes now run in a block."""
        Within(net, "fit_loop", self._around, _left_to, once=True)
