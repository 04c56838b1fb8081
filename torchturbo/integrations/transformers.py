"""Hugging Face transformers: a callback for its `Trainer`.

Where its arguments ask for half precision (``bf16=True``, ``fp16=True``), autocast and scaling are left to it.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, ClassVar

from torchturbo._program import Left
from torchturbo.errors import TargetError
from torchturbo.integrations._around import Blocks, Instead, Within, expect, left
from torchturbo.integrations._needed import needed

with needed("transformers"):
    from transformers import Trainer, TrainerCallback

__all__ = ["TurboCallback"]

_WAITS = "TrainingArguments(gradient_accumulation_steps=...)"


def _left_to(trainer: Any) -> Left:
    precision = trainer.accelerator.mixed_precision
    autocast = None if precision == "no" else f"the Trainer's TrainingArguments({precision}=True)"
    return left(autocast=autocast, accumulate=_WAITS)


class TurboCallback(Blocks, TrainerCallback):  # type: ignore[misc] # its types are not looked at
    """A block around each ``train()``, ``evaluate()`` and ``predict()`` of a `transformers.Trainer`.

    ``Trainer(..., callbacks=[TurboCallback("fast")])``. The trainer tells no callback of an exception, nor that it
    begins to evaluate. So when the trainer has been made, these methods get blocks around them; a trainer that is there
    already is given to `attach`. An evaluation within training runs in the block that is open.

    Args:
        profile: as `turbo` takes it.
        strict: as `turbo` takes it.
        **options: as `turbo` takes them, but for ``accumulate``.

    Raises:
        TargetError: ``accumulate``, which is ``TrainingArguments(gradient_accumulation_steps=...)``.
    """

    _libraries = ("transformers", "accelerate", "trl")
    _instead: ClassVar[Instead] = {"accumulate": (1, _WAITS)}

    def attach(self, trainer: Any) -> None:
        """Puts blocks around the runs of a trainer, and makes this a callback of it.

        Args:
            trainer: a `transformers.Trainer`.

        Raises:
            TargetError: it is no `Trainer`.
        """
        expect(trainer, Trainer, "attach takes a transformers.Trainer")
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        for run in ("train", "evaluate", "predict"):
            Within(trainer, run, self._around, _left_to)

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Attaches itself to the trainer that is being made."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code is not Trainer.__init__.__code__:
            frame = frame.f_back
        if frame is not None:
            self.attach(frame.f_locals["self"])

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Looks whether the block is there.

        Raises:
            TargetError: it was added to a trainer that had been made before.
        """
        if self.active is None:
            raise TargetError(
                "TurboCallback came to a Trainer that had been made already: give it to Trainer(callbacks=[...]), or "
                "call its attach(trainer) instead of trainer.add_callback()"
            )
