"""What a step may change, as it was before: kept as cheaply as can be, and put back bit for bit.

Before the optimizer's step nothing changes but gradients, buffers, random streams and Python's own objects, which are
small. Weights and the optimizer's states are copied when its step begins, and only then: it may run out of memory when
it has changed half of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from torchturbo._dynamo import untraced
from torchturbo._oom.reached import Lightly, Reached
from torchturbo._replay.bits import parts, same_bits, unseen
from torchturbo._replay.kept import KeptTensor, Values, values
from torchturbo._replay.streams import global_streams
from torchturbo._turbo import in_force, turbo
from torchturbo.regions._shares import CannotSplit
from torchturbo.regions._steps import hear_no_steps, hear_steps


class Before:
    """What a call of a step may change, as it is now.

    Args:
        function: the step.
        args: what it is called with.
        kwargs: what it is called with by name.
        batch: tensors among them that are not copied.
        around: the block that it runs in.
        grads_are_dropped: whether the step is known to drop gradients that stand, and not to write to them.
        on_host: whether copies go to the machine's memory.
        looks: whether nothing is kept, and what there is only looked at.

    Attributes:
        many: whether the call has taken a second step, so that nothing of it is put back.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        batch: list[Tensor],
        around: turbo,
        *,
        grads_are_dropped: bool,
        on_host: bool,
        looks: bool = False,
    ) -> None:
        self._keeper = Lightly(grads_are_dropped, looks)
        self._search = Reached(self._keeper)
        self._on_host = on_host
        self._stepped: set[int] = set()
        self._thread = threading.get_ident()
        self.many = False
        for stream in global_streams(start=False):
            self._keeper.stream(stream)
        with unseen():
            for tensor in batch:
                self._keeper.watch(tensor)
            self._search.of(function.__name__, function)
            for name, value in (("args", list(args)), ("kwargs", dict(kwargs)), ("scaler", around.scaler)):
                self._search.of(name, value)
            for active in in_force():
                self._search.of("scaler", active.scaler)

    # ------------------------------------------------------------------------------------------------ around a try

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A block in which the optimizers' steps are seen: weights are copied before the first."""
        try:
            hear_steps(self, self._before_step, self._after_step)
            yield
        finally:
            hear_no_steps(self)
            self._stepped.clear()

    @untraced
    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if threading.get_ident() != self._thread or self.many:
            return
        if id(optimizer) in self._stepped:
            self.many = True
            self._drop()
        elif not _allocates_nothing(optimizer):
            self.copy()

    @untraced
    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if threading.get_ident() == self._thread:
            self._stepped.add(id(optimizer))

    def copy(self) -> None:
        """Copies the weights, and the optimizers' states, unless that has been done."""
        with unseen():
            for kept in self._keeper.late.values():
                if kept.values is None and not kept.is_lost:
                    kept.values = [self._copy(part) for _, part in parts(kept.tensor)]

    def _copy(self, part: Tensor) -> Values:
        if self._on_host:
            return Values(part.detach(), part.detach().cpu().clone())
        return values(part)

    def to_host(self) -> None:
        """Has copies be in the machine's memory from now on: the device has none left."""
        self._on_host = True
        with unseen():
            for kept in self._keeper.tensors.values():
                if kept.values is not None:
                    kept.values = [Values(alias, copy.cpu()) for alias, copy in kept.values]

    def _drop(self) -> None:
        for kept in self._keeper.late.values():
            kept.values = None

    # -------------------------------------------------------------------------------------------------- afterwards

    def lost(self) -> list[str]:
        """Names of tensors that were written to, and of which there is no copy to put back."""
        return [self._search.name(tensor) for tensor in self._keeper.lost]

    def put_back(self) -> None:
        """Puts everything back.

        Raises:
            RestoreError: something did not go back; everything else has.
        """
        self._keeper.put_back()

    def written(self) -> list[str]:
        """Names of tensors, other than gradients, that are not what they were."""
        with unseen():
            found = [
                kept.tensor
                for key, kept in self._keeper.tensors.items()
                if key not in self._keeper.gradients and _is_other(kept)
            ]
        return [self._search.name(tensor) for tensor in found]

    @property
    def has_gradients(self) -> bool:
        """Whether gradients stood before."""
        return bool(self._keeper.gradients)

    @property
    def gradients_were_written_to(self) -> bool:
        """Whether a gradient that stood before is not what it was, where it is still there."""
        return any(kept.version != kept.tensor._version for kept in self._keeper.gradients.values())

    def name(self, tensor: Tensor) -> str:
        """What a tensor is called."""
        return self._search.name(tensor)

    # ------------------------------------------------------------------------------------------- what takes memory

    def found(self) -> tuple[list[Tensor], list[Optimizer]]:
        """The weights, and the optimizers, that the step reaches."""
        late = [kept.tensor for kept in self._keeper.late.values() if kept.tensor.requires_grad]
        return late, [optimizer for _, optimizer in self._search.optimizers.values()]

    def knows(self, tensor: Tensor) -> bool:
        """Whether a tensor was there before."""
        return id(tensor) in self._keeper.tensors

    def models(self) -> list[nn.Module]:
        """The outermost modules that the step reaches."""
        return self._search.models

    def bytes_of_copies(self) -> int:
        """Bytes that are kept where the originals are."""
        copies = [each for kept in self._keeper.tensors.values() for each in kept.values or ()]
        return sum(copy.nbytes for alias, copy in copies if copy.device == alias.device)


def _is_other(kept: KeptTensor) -> bool:
    if kept.version is not None and kept.tensor._version != kept.version:
        return True
    if kept.values is None or kept.tensor.is_inference():
        return False
    return any(not same_bits(alias, copy.to(alias.device)) for alias, copy in kept.values)


def _allocates_nothing(optimizer: Optimizer) -> bool:
    """Whether a step writes where there is room already: by a fused kernel, into states that are there."""
    return all(
        group.get("fused") and all(each in optimizer.state for each in group["params"] if each.grad is not None)
        for group in optimizer.param_groups
    )


def refuse_written(before: Before) -> None:
    """Raises where a run without any optimizer's step has changed tensors.

    Args:
        before: what they were before.

    Raises:
        CannotSplit: names the first.
    """
    written = before.written()
    if written:
        more = f" and {len(written) - 1} more" if len(written) > 1 else ""
        raise CannotSplit(
            f"it writes to {written[0]}{more} beside its optimizer's step, which would happen once for each part, with "
            "other numbers than once for all (averages of weights, statistics of a batch)"
        )
