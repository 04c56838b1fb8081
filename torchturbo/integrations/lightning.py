"""Lightning: a callback for its `Trainer`, and a block for loops with `Fabric`.

Where a precision plugin of Lightning's enters autocast (``precision="bf16-mixed"``), or has a `GradScaler`
(``"16-mixed"``), both are left to it. With ``precision="32-true"``, Lightning's default, they are torchturbo's.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from torchturbo._program import Left
from torchturbo.integrations._around import UNNAMED, Beside, Blocks, Instead, expect, left
from torchturbo.integrations._needed import needed
from torchturbo.profiles import Profile

if TYPE_CHECKING:
    from typing import Unpack

    from torchturbo._options import Options

with needed("lightning", "pytorch-lightning"):
    if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
        from pytorch_lightning import Callback
    else:
        try:
            from lightning.pytorch import Callback
        except ImportError:
            from pytorch_lightning import Callback

__all__ = ["TurboCallback", "turbo_for"]

_WAITS, _ANOMALY = "Trainer(accumulate_grad_batches=...)", "Trainer(detect_anomaly=...)"


def _left_to(trainer: Any) -> Left:
    left_to = (*left(autocast=_of_plugin(trainer.precision_plugin), accumulate=_WAITS), ("anomaly", _ANOMALY))
    if torch.are_deterministic_algorithms_enabled():
        # Lightning does not keep that it was asked for determinism, but torch does, and trying kernels takes it away.
        return (*left_to, ("cudnn_benchmark", "who asked for determinism: Trainer(deterministic=True), or the code"))
    return left_to


def _of_plugin(plugin: Any) -> str | None:
    """Who enters autocast or computes in half precision, or None where nobody does."""
    precision = str(plugin.precision)
    return None if precision == "32-true" else f"Lightning's precision={precision!r}"


class TurboCallback(Blocks, Callback):  # type: ignore[misc] # its types are not looked at
    """A block around each run of a Lightning `Trainer`: fit, validate, test, predict.

    ``Trainer(callbacks=[TurboCallback("fast")])``. It opens before the model is configured, and closes after the last
    hook of the run, also where the run raises or is interrupted.

    Args:
        profile: as `turbo` takes it.
        strict: as `turbo` takes it.
        **options: as `turbo` takes them, but for ``accumulate`` and ``anomaly``.

    Raises:
        TargetError: ``accumulate``, which is ``Trainer(accumulate_grad_batches=...)``, or ``anomaly``, which is
            ``Trainer(detect_anomaly=...)``.
    """

    _libraries = ("lightning", "pytorch_lightning", "lightning_fabric")
    # Lightning takes every step with a closure, which no window of micro-batches can wait for; and it switches anomaly
    # detection on or off around every run itself.
    _instead: ClassVar[Instead] = {"accumulate": (1, _WAITS), "anomaly": (False, _ANOMALY)}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Opens the block."""
        self._around.open(_left_to(trainer))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Closes the block."""
        self._around.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Closes the block, and leaves the exception to Lightning."""
        self._around.close(exception)


def turbo_for(
    fabric: Any, profile: str | Profile = UNNAMED, *, strict: bool = False, **options: Unpack[Options]
) -> Beside:
    """A `turbo` for loops with this `Fabric`: what its precision does is left to it.

    Args:
        fabric: a `lightning.Fabric`.
        profile: as `turbo` takes it.
        strict: as `turbo` takes it.
        **options: as `turbo` takes them.

    Raises:
        TargetError: it is no `Fabric`.
    """
    # Lightning has had two names, and which one the code has imported it by is the code's own.
    loaded = (sys.modules.get(name) for name in ("lightning.fabric", "lightning_fabric"))
    expect(fabric, tuple(each.Fabric for each in loaded if each is not None), "turbo_for takes a lightning.Fabric")
    plugin = fabric.strategy.precision
    scaler = "the GradScaler of Fabric's precision" if getattr(plugin, "scaler", None) is not None else None
    of_fabric: Left = left(autocast=_of_plugin(plugin), accumulate=scaler)
    return Beside(profile, of_fabric, strict=strict, **options)
