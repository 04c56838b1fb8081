"""PyTorch-Ignite: a block around the runs of an `Engine`.

Where the engine's step enters autocast itself (``create_supervised_trainer(amp_mode="amp")``), autocast and scaling are
left to it.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from torchturbo._program import Left
from torchturbo.integrations._around import UNNAMED, Blocks, Within, expect, left
from torchturbo.integrations._needed import needed
from torchturbo.profiles import Profile

with needed("ignite"):
    from ignite.engine import Engine

if TYPE_CHECKING:
    from typing import Unpack

    from torchturbo._options import Options

__all__ = ["Attached", "attach"]


def _left_to(engine: Any) -> Left:
    step = engine._process_function
    # Ignite keeps what a step does in the function that made it: its name, and the variables it closes over.
    made_by = str(getattr(step, "__qualname__", "")).partition(".")[0]
    closed = inspect.getclosurevars(step).nonlocals if inspect.isfunction(step) else {}
    autocast = accumulates = None
    if str(getattr(step, "__module__", "")).startswith("ignite."):
        if made_by.endswith(("_amp", "_apex")):
            made = "evaluator" if "evaluation" in made_by else "trainer"
            autocast = f"Ignite's create_supervised_{made}(amp_mode={made_by.rpartition('_')[2]!r})"
        if (waits := closed.get("gradient_accumulation_steps", 1)) > 1:
            accumulates = f"Ignite's create_supervised_trainer(gradient_accumulation_steps={waits})"
        elif closed.get("scaler"):
            accumulates = "the GradScaler of Ignite's step"
    return left(autocast=autocast, accumulate=accumulates)


class Attached(Blocks):
    """What `attach` has put around an engine's runs.

    Args:
        engine: the engine.
        profile: as `turbo` takes it.
        strict: as `turbo` takes it.
        **options: as `turbo` takes them.
    """

    _libraries = ("ignite",)

    def __init__(self, engine: Any, profile: str | Profile, *, strict: bool, **options: Unpack[Options]) -> None:
        super().__init__(profile, strict=strict, **options)
        self._within = Within(engine, "run", self._around, _left_to)

    def detach(self) -> None:
        """Has the engine run without blocks again."""
        self._within.take_off()


def attach(
    engine: Any, profile: str | Profile = UNNAMED, *, strict: bool = False, **options: Unpack[Options]
) -> Attached:
    """Puts a block around each run of an engine; it closes when ``run`` returns or raises, or is interrupted.

    Handlers of ``EXCEPTION_RAISED``, with which Ignite swallows exceptions, are not needed for it and not added.

    Args:
        engine: an `ignite.engine.Engine`.
        profile: as `turbo` takes it.
        strict: as `turbo` takes it.
        **options: as `turbo` takes them.

    Raises:
        TargetError: it is no `Engine`.
    """
    expect(engine, Engine, "attach takes an ignite.engine.Engine")
    return Attached(engine, profile, strict=strict, **options)
