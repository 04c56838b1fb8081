"""One step that may run out of memory: taken whole, or in parts of its batch, or not at all."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torchturbo._oom.batch import Batch, parts
from torchturbo._oom.before import Before
from torchturbo._oom.equal import verified
from torchturbo._oom.failed import Failed, largest, look, not_split, note
from torchturbo._oom.freed import Once
from torchturbo._oom.returned import Rules
from torchturbo._oom.struck import is_out_of_memory, is_with_others, let_go
from torchturbo._oom.targets import AsManyTargets
from torchturbo._turbo import _within, turbo
from torchturbo.errors import AccumulationError, RestoreError, TargetError, in_a_line
from torchturbo.regions._backward import ACCUMULATING
from torchturbo.regions._here import thread
from torchturbo.regions._shares import CannotSplit, Shares
from torchturbo.settings._edits import always


class Step:
    """A step, and what is known of it after its calls so far.

    Args:
        call: runs it, accelerated.
        function: as it was written.
        around: the block that it runs in.
    """

    def __init__(self, call: Callable[..., Any], function: Callable[..., Any], around: turbo) -> None:
        self._call, self._function, self._around = call, function, around
        self._rules: Rules | None = None
        # The numbers of the smallest batch that did not fit, and of the largest part that did since.
        self._too_large: int | None = None
        self._fits = 0
        self._grads_are_dropped = False
        self._on_host = False
        self._once = Once(around)

    # -------------------------------------------------------------------------------------------------------- raise

    def explained(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs it; where memory runs out, the error says what used it.

        Args:
            args: what it is called with.
            kwargs: what it is called with by name.
        """
        try:
            return self._call(*args, **kwargs)
        except BaseException as error:
            if is_out_of_memory(error):
                batch, _ = self._batch(args, kwargs)
                found = self._before(args, kwargs, batch, looks=True)
                looked = look(error, found, batch, self._around)
                looked.tell(error)
                looked.tell_switches(error, self._once.counted(looked.called, found), split=True)
            raise

    # -------------------------------------------------------------------------------------------------------- split

    def split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs it; where memory runs out, in parts of its batch.

        Args:
            args: what it is called with.
            kwargs: what it is called with by name.

        Raises:
            TargetError: a block with `accumulate=` is open.
        """
        outer = thread.here.accumulating
        if isinstance(outer, Shares):
            return self._call(*args, **kwargs)  # a part of a step around this one, which sees to it
        if outer is not None and outer.every > 1:
            raise TargetError(
                f"on_oom='split' and accumulate={outer.every} do not go together, since a step that waits for its "
                "micro-batches cannot be put back: leave accumulate= out, and on_oom='split' accumulates where it must"
            )
        batch, why_not = self._batch(args, kwargs)
        before = self._before(args, kwargs, batch)
        try:
            return self._split(before, batch, why_not, args, kwargs)
        except CannotSplit:
            # What is remembered is no longer true.
            self._rules = self._too_large = None
            return self.split(args, kwargs)

    def _split(
        self, before: Before, batch: Batch | None, why_not: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        count = self._remembered(batch)
        error: BaseException | None
        looked = None
        result, error = self._whole(before, args, kwargs) if count == 1 else (None, None)
        try:
            if error is not None:
                looked = look(error, before, batch, self._around)
                looked.tell(error)
                batch = self._put_back(error, before, batch, why_not)
                count = max(self._remembered(batch), 2)
            if batch is not None and count > 1:
                result = self._in_parts(error, before, batch, count)
            self._grads_are_dropped = before.has_gradients and not before.gradients_were_written_to
            return result
        except BaseException as raised:
            if looked is not None and raised is error:
                looked.tell_switches(raised, self._once.counted(looked.called, before), split=False)
            raise
        finally:
            error = None  # its frames come back to this one, and would be held until the collector comes

    def _batch(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Batch | None, str]:
        try:
            return Batch(self._function, args, kwargs), ""
        except CannotSplit as no:
            return None, no.reason

    def _before(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], batch: Batch | None, *, looks: bool = False
    ) -> Before:
        return Before(
            self._function,
            args,
            kwargs,
            batch.tensors if batch is not None else [],
            self._around,
            grads_are_dropped=self._grads_are_dropped,
            on_host=self._on_host,
            looks=looks,
        )

    def _remembered(self, batch: Batch | None) -> int:
        """How many parts a batch is taken in at first."""
        if batch is None or self._too_large is None or self._rules is None or batch.size < self._too_large:
            return 1
        if not self._fits:
            return 2
        fit = max(int(self._fits * batch.samples / batch.size), 1)
        return -(-batch.samples // fit)

    def _whole(self, before: Before, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, BaseException | None]:
        try:
            with before.watched():
                return self._call(*args, **kwargs), None
        except BaseException as error:
            if not is_out_of_memory(error):
                raise
            return None, error

    def _put_back(self, error: BaseException, before: Before, batch: Batch | None, why_not: str) -> Batch:
        """Puts everything back after the whole did not fit; raises the error where that is the end."""
        let_go(error)
        if before.many:
            note(
                error,
                "not split, and nothing was put back: optimizers have stepped more than once in this call. Decorate "
                "the function that takes one step, def step(model, batch, optimizer), not the loop around it",
            )
            raise error
        lost = before.lost()
        try:
            before.put_back()
        except RestoreError as failed:
            note(error, f"not split: {failed}")
            raise error from failed
        if lost:
            note(
                error,
                f"not split: {', '.join(lost[:3])} {'were' if len(lost) > 1 else 'was'} written to by the step while "
                "there was no copy, and could not be put back; all else is as it was before the call",
            )
            raise error
        if batch is None:
            raise not_split(error, why_not)
        if is_with_others():
            raise not_split(error, "other processes take part in the step, which would wait for ever")
        if batch.samples < 2:
            raise not_split(error, "its batch has one sample")
        self._too_large = min(batch.size, self._too_large or batch.size)
        self._on_host = True
        before.to_host()
        return batch

    def _in_parts(self, error: BaseException | None, before: Before, batch: Batch, count: int) -> Any:
        """Takes it in parts, and in smaller ones where these do not fit.

        Args:
            error: why it is not taken whole; None where that is remembered.
            before: what it may change.
            batch: what it is called with.
            count: of the parts.

        Raises:
            CannotSplit: nothing has failed yet, but it cannot be taken in parts as it was before.
        """
        try:
            if self._rules is None:
                self._rules = self._verified(before, batch)
        except CannotSplit as no:
            assert error is not None
            raise not_split(error, no.reason) from None
        tried = []
        while True:
            tried.append(count)
            try:
                result = self._parts(self._rules, before, batch, count)
            except Failed as failed:
                its, reason, notes = failed.error, str(failed), failed.notes
            except CannotSplit as no:
                if error is None:
                    raise
                raise not_split(error, no.reason) from None
            else:
                self._fits = max(self._fits, largest(batch, count))
                return result
            if not is_out_of_memory(its):
                if error is None or not isinstance(its, Exception):
                    note(its, f"in {reason}; everything is as it was before the call")
                    raise its
                raise not_split(error, f"{reason} fails: {in_a_line(its)}") from its
            self._fits = min(self._fits, largest(batch, count) - 1)
            if error is None:
                error = its
                for text in notes:
                    note(error, text)
            if count >= batch.samples:
                self._too_large, self._fits = None, 0
                told = ", ".join(map(str, tried))
                note(
                    error,
                    f"tried in {told} parts: one sample alone does not fit. Everything is as it was before the call",
                )
                raise error
            count = min(count * 2, batch.samples)

    def _parts(self, rules: Rules, before: Before, batch: Batch, count: int) -> Any:
        """Takes it in parts; or puts everything back.

        Raises:
            Failed: a part has failed.
            CannotSplit: the step would not be that of the whole.
        """
        cuts = parts(batch.samples, count)
        sums = Shares([(cut.stop - cut.start) / batch.samples for cut in cuts])
        returned: list[Any] = []
        targets = AsManyTargets()
        try:
            with before.watched(), targets:
                for cut in cuts:
                    targets.next(cut.stop - cut.start)
                    args, kwargs = batch.some(cut)
                    call = functools.partial(self._call, *args, **kwargs)
                    returned.append(_within(((ACCUMULATING, always(sums)),), call))
                    sums.next()
            return rules.together(returned, sums.shares)
        except CannotSplit:
            before.put_back()
            raise
        except BaseException as error:
            notes = []
            if is_out_of_memory(error):
                looked = look(error, before, batch, self._around)
                notes = [looked.used.words(), *looked.switches(self._once.found, split=False)]
                let_go(error)
                error.__traceback__ = None
            before.put_back()
            raise Failed(error, len(returned), count, notes) from None

    def _verified(self, before: Before, batch: Batch) -> Rules:
        """How results go together, where the step over a batch is that over its parts.

        Raises:
            CannotSplit: it is not, or cannot be told.
        """
        every = 2 if batch.samples > 2 else 1
        while True:
            try:
                return verified(self._call, before, batch, every, self._around)
            except Exception as error:
                if not is_out_of_memory(error):
                    if isinstance(error, AccumulationError):
                        raise CannotSplit(str(error)) from None
                    raise CannotSplit(f"with some samples alone it fails: {in_a_line(error)}") from None
                let_go(error)
            every *= 2
            if len(range(0, batch.samples, every)) < 2:
                raise CannotSplit(
                    "not even two samples fit, and so nobody can tell whether it would come to what the whole comes to"
                )
