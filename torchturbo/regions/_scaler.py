"""The scale of gradients, and what the steps with them came to: the state of `torch.amp.GradScaler`, kept for the user.

Scales are powers of two, so that scaling and unscaling are exact: what a loop computes is, bit for bit, what it
computes with a `GradScaler` of its own.
"""

from __future__ import annotations

import math
import threading
import warnings
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from torchturbo.errors import ScalingWarning
from torchturbo.regions._finite import all_finite, has_gradient
from torchturbo.regions._here import Factors
from torchturbo.regions._sharded import is_sharded, told_to_all
from torchturbo.regions._unscaled import Unscaled

_LARGEST = 2.0**127
_SMALLEST = 2.0**-126
"""The powers of two that float32 holds in full precision."""
_AT_MOST = 2**16
"""Gradients that are remembered as finite."""


def power_of_two(value: float) -> bool:
    """Whether multiplying by `value` changes no bit but those of the exponent."""
    return math.isfinite(value) and value > 0 and math.frexp(value)[0] == 0.5


_Overflow = tuple["weakref.ref[Tensor]", "Tensor | bool", int]
"""A leaf or a gradient, whether it overflowed, and in which backward."""


class Scaler:
    """The gradient scaling of a `turbo` object or of what `accelerate` made: one for all its entries.

    Nothing has to be called: backward scales and unscales, steps with gradients that are not finite do not run, and the
    scale moves by itself at the first backward after a step. What is here can be read at any time.

    Args:
        factors: how the scale starts and moves.
    """

    def __init__(self, factors: Factors) -> None:
        self.factors = factors
        self._scale = factors.init_scale
        self._tracker = 0
        self._lock = threading.RLock()
        # Since the last update of the scale: whether there was a step, and whether one was skipped.
        self._stepped = self._found = False
        self._told = False
        # Leaves whose gradient overflowed in a backward, and such gradients, until a step has been skipped for it: what
        # hides that later, as clipping by value does, does not undo it.
        self._bad: dict[int, _Overflow] = {}
        # Backwards that have begun; and how many in a row found that an overflow was thrown away, without any step. One
        # alone is how two backwards before a step look, of which the second begins with other gradients cleared.
        self._window = 0
        self._drops = 0
        # Gradients that it has scaled, and that were finite.
        self._seen: dict[int, weakref.ref[Tensor]] = {}
        self.unscaled = Unscaled()
        self.steps = 0
        """Optimizer steps that ran."""
        self.skipped_steps = 0
        """Optimizer steps that did not run, because a gradient was not finite."""
        self.last_step_ran: bool | None = None
        """Whether the last optimizer step ran; None before the first."""
        self.told_outside = False
        """Whether the user has been told that backward or steps seem to run outside of the block."""

    # ---------------------------------------------------------------------------------------------------- to be read

    def get_scale(self) -> float:
        """The factor that the next backward scales its gradients by."""
        return self._next()[0]

    @property
    def growth_tracker(self) -> int:
        """The steps in a row that ran since the scale last changed."""
        return self._next()[1]

    def state_dict(self) -> dict[str, Any]:
        """The state, with the keys of `torch.amp.GradScaler`, which loads it."""
        scale, tracker = self._next()
        _, growth, backoff, interval = self.factors
        return {
            "scale": scale,
            "growth_factor": growth,
            "backoff_factor": backoff,
            "growth_interval": interval,
            "_growth_tracker": tracker,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from a state, of a `Scaler` or of a `torch.amp.GradScaler`.

        Args:
            state_dict: what ``state_dict()`` of one returned.

        Raises:
            ValueError: it has not the keys, is empty as that of a disabled `GradScaler` is, or holds a factor that is
                no power of two.
        """
        keys = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
        missing = [key for key in keys if key not in state_dict]
        if missing:
            disabled = "" if state_dict else "; it is empty, as that of a GradScaler(enabled=False) is"
            raise ValueError(f"the state of a gradient scaler has {', '.join(keys)}; this lacks {missing}{disabled}")
        scale, growth, backoff = (float(state_dict[key]) for key in keys[:3])
        for key, value in zip(keys, (scale, growth, backoff), strict=False):
            if not power_of_two(value):
                raise ValueError(f"{key}={value!r} is no power of two: scaling by it would change the gradients' bits")
        with self._lock:
            self.factors = Factors(self.factors.init_scale, growth, backoff, int(state_dict["growth_interval"]))
            self._scale, self._tracker = scale, int(state_dict["_growth_tracker"])
            self._stepped = self._found = False

    def __repr__(self) -> str:
        return f"<Scaler at {self.get_scale():g}: {self.steps} steps, {self.skipped_steps} skipped>"

    def tell_of_a_step_outside(self) -> None:
        """Warns where a block ends with gradients that overflowed, and no optimizer has stepped in one so far."""
        if self.steps or self.skipped_steps or self.told_outside or not self._bad:
            return
        bad = [
            tensor for reference, found, _ in list(self._bad.values()) if (tensor := reference()) is not None and found
        ]
        if any((tensor.grad if tensor.is_leaf and tensor.requires_grad else tensor) is not None for tensor in bad):
            self.told_outside = True
            warnings.warn(
                "gradients overflowed in this block, and no optimizer has stepped in it yet: a step outside of it "
                "is not skipped, and makes the parameters inf or nan. Put optimizer.step() into the block, or into the "
                "function that is accelerated",
                ScalingWarning,
                stacklevel=2,
            )

    # ------------------------------------------------------------------------------------------------ moving the scale

    def _next(self) -> tuple[float, int]:
        scale, tracker = self._scale, self._tracker
        _, growth, backoff, interval = self.factors
        if self._found or (self._drops > 1 and not self._stepped):
            return max(scale * backoff, _SMALLEST), 0
        if not self._stepped:
            return scale, tracker
        if tracker + 1 < interval:
            return scale, tracker + 1
        return scale * growth if scale * growth <= _LARGEST else scale, 0

    def begin(self, leaves: Iterable[Tensor] = ()) -> float:
        """The scale for a backward that begins; it has moved, if there were steps since the last one.

        It has too if gradients that overflowed are gone again and again and nobody has stepped: the loop guards itself.

        Args:
            leaves: what the backward writes to.
        """
        with self._lock:
            self._window += 1
            self._drops += self.forget_what_is_gone(leaves)
            if self._stepped or self._drops > 1:
                self._scale, self._tracker = self._next()
                self._drops = 0 if self._stepped else 1
                self._stepped = self._found = False
                self._seen.clear()
                if self._scale < 1 and self.skipped_steps and not self._told:
                    self._told = True
                    warnings.warn(
                        f"gradients overflow however little they are scaled: {self.skipped_steps} of "
                        f"{self.skipped_steps + self.steps} steps have been skipped, and the scale is {self._scale:g}. "
                        "Look for inf or nan in the data, the loss or the forward pass; or use autocast='bf16'",
                        ScalingWarning,
                        stacklevel=2,
                    )
            return self._scale

    def back_off(self) -> None:
        """Makes the scale smaller at once, for a closure that is evaluated again."""
        with self._lock:
            self._found = self._stepped = True
            self._scale, self._tracker = self._next()
            self._found = self._stepped = False

    # --------------------------------------------------------------------------------------- what backwards have found

    def overflowed(self, tensor: Tensor, found: Tensor | bool) -> None:
        """Notes that a gradient is not finite.

        Args:
            tensor: the gradient, or the leaf that it is of.
            found: whether it is not; a tensor is asked when a step wants to know.
        """
        self._bad[id(tensor)] = weakref.ref(tensor), found, self._window

    def cleared(self, leaf: Tensor) -> None:
        """Notes that a leaf has no gradient, or one of zeros."""
        if self._bad:
            self._bad.pop(id(leaf), None)
            self._bad.pop(id(leaf.grad), None)

    def forget_what_is_gone(self, leaves: Iterable[Tensor]) -> bool:
        """Has no overflow outlive the gradient that it was in, once another backward has begun; whether any has gone.

        Until then who clears it does not undo it, as clipping does not.

        Args:
            leaves: some leaves.
        """
        known = [(leaf, self._known(leaf)) for leaf in leaves] if self._bad else []
        bad = [leaf for leaf, its in known if any(each[2] != self._window for each in its) and self.is_bad(leaf)]
        # Which shard it was in nobody knows: those of all ranks have to be empty.
        shards = [leaf for leaf in bad if is_sharded(leaf) and leaf.grad is not None]
        empty = bool(shards) and told_to_all(not any(map(has_gradient, shards)), shards)
        gone = [leaf for leaf in bad if not has_gradient(leaf) and (empty or leaf.grad is None or not is_sharded(leaf))]
        for leaf in gone:
            self.cleared(leaf)
        return bool(gone)

    def knows(self, leaves: Iterable[Tensor]) -> bool:
        """Whether it has scaled any of the gradients that leaves have now.

        Args:
            leaves: some leaves.
        """
        for leaf in leaves:
            seen = self._seen.get(id(leaf.grad))
            if (seen is not None and seen() is leaf.grad) or (self._bad and self._known(leaf)):
                return True
        return False

    def asked_for(self, grads: list[Tensor]) -> None:
        """Notes scaled gradients that were given to who asked for them, and stand nowhere yet.

        Args:
            grads: the true gradients.
        """
        bad = [grad for grad in grads if not all_finite([grad])] if not all_finite(grads) else []
        self.finite(grads)
        self._drops += bool(bad)
        for grad in bad:
            self.overflowed(grad, True)

    def _known(self, leaf: Tensor) -> list[_Overflow]:
        """What is known of a leaf, and of the gradient that it has."""
        found = [(each, self._bad.get(id(each))) for each in (leaf, leaf.grad) if each is not None]
        return [known for each, known in found if known is not None and known[0]() is each]

    def is_bad(self, leaf: Tensor) -> bool:
        """Whether a leaf's gradient overflowed in a backward, and no step has been skipped for it yet."""
        return bool(self._bad) and any(bool(known[1]) for known in self._known(leaf))

    def finite(self, grads: Iterable[Tensor]) -> None:
        """Notes gradients that it has scaled, and that have not overflowed, as far as it knows."""
        if len(self._seen) > _AT_MOST:
            # Where steps are taken outside, nothing else ends it.
            self._seen.clear()
        self._seen.update((id(grad), weakref.ref(grad)) for grad in grads)

    def allows(self, leaves: Iterable[Tensor]) -> bool:
        """Whether a step may be taken with the gradients of `leaves`: each is finite, and was after its backward.

        Args:
            leaves: the parameters of an optimizer.

        Raises:
            ScalingError: some were never scaled.
        """
        leaves = list(leaves)
        self.unscaled.refuse(leaves)
        self.forget_what_is_gone(leaves)
        if self._bad and any(map(self.is_bad, leaves)):
            return told_to_all(False, leaves)
        # Once more: what reduces gradients between processes writes to them, as .data and NumPy do, without a trace.
        return told_to_all(all_finite([leaf.grad for leaf in leaves if leaf.grad is not None]), leaves)

    def noted(self, leaves: Iterable[Tensor], *, ran: bool) -> None:
        """Notes what a step came to.

        Args:
            leaves: the optimizer's parameters.
            ran: whether it ran.
        """
        with self._lock:
            self._stepped = True
            self.last_step_ran = ran
            if ran:
                self.steps += 1
                return
            self._found = True
            self.skipped_steps += 1
            for leaf in leaves:
                self.cleared(leaf)
