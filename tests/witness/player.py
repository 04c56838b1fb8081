"""Plays a case in a child: the history, then (if there is a subject) its blocks, and then takes the reading."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.witness import setters
from tests.witness.cases import MAIN, WORKERS, Case, Step
from tests.witness.expectation import FLAGS, PROCESS, THREAD, Entry, Model, Values, read_flags
from tests.witness.getters import Reading
from tests.witness.probing import probe
from tests.witness.reading import Witness, differences
from tests.witness.subjects import Block, Subject, failing
from tests.witness.workers import Worker, compile_something, draw_and_seed, work

EXCEPTIONS: dict[str, type[BaseException]] = {
    error.__name__: error for error in (ValueError, RuntimeError, KeyboardInterrupt, StopIteration)
}


@dataclass
class Outcome:
    """What a child has to say in the end."""

    reading: Reading
    problems: list[str]
    entered: int = 0
    refused: int = 0


@dataclass
class Player:
    """One life: a case, and the subject whose blocks are played (None: the history only)."""

    case: Case
    witness: Witness
    setters: setters.Table
    subject: Subject | None = None
    forced: Sequence[Values | None] = ()
    problems: list[str] = field(default_factory=list)
    entered: int = 0
    refused: int = 0

    def play(self) -> Outcome:
        """Play everything, and read."""
        random.seed(1)  # Python seeds every forked child anew
        self._blocks: dict[int, Block] = {}
        self._workers = [Worker() for _ in range(WORKERS)]
        for step in self.case.history:
            self._on(step.actor, partial(setters.play, self.setters, *step.arguments))
        beneath = {actor: self._on(actor, lambda: read_flags(THREAD)) for actor in range(WORKERS + 1)}
        self._model = Model(self.forced, read_flags(PROCESS), beneath)
        if self.case.free and self.subject is not None:
            self._play_freely()
        else:
            for at, step in enumerate(self.case.blocks):
                self._on(step.actor, partial(self._step, at, step))
        self._close_all()
        return Outcome(self._read(), self.problems, self.entered, self.refused)

    def _on(self, actor: int, function: Callable[[], Any]) -> Any:
        """Do something in an actor's thread, and wait for it."""
        if actor == MAIN:
            return function()
        self._workers[actor - 1].start(function)
        return self._workers[actor - 1].wait()

    def _read(self) -> Reading:
        found: Reading = {}
        for actor in range(1, WORKERS + 1):
            reading = self._on(actor, self.witness.read_thread)
            found |= {f"{name} [thread {actor}]": value for name, value in reading.items()}
        # Probing destroys what it shows: last.
        return found | self.witness.read(thorough=self.case.seed % 4 == 0) | probe()

    # ------------------------------------------------------------------------------------------------- scheduled steps

    def _step(self, at: int, step: Step) -> None:
        if step.kind == "set":
            setters.play(self.setters, *step.arguments)
        elif step.kind == "work":
            work(optimizer=self.case.loaded)
        elif step.kind == "meddle":
            self._meddle(step.actor, *step.arguments)
        elif self.subject is not None:
            getattr(self, f"_{step.kind}")(self.subject, step.actor, *step.arguments)
            if step.kind == "compile":
                return  # what compiling wrote is in force now, and no layer's
            self._check(step.actor, f"after step {at} ({step.kind} in thread {step.actor})")

    def _meddle(self, actor: int, name: str, start: int) -> None:
        """Change a flag in a body. Without blocks, only one that the block would not have put back."""
        own = name in (self.forced[0] or {}) and any(other.kind == "enter" for other in self.case.blocks)
        if self.subject is not None or not own:
            FLAGS[name].write(FLAGS[name].starts[start])
        if not own:
            thread = self._model.thread_beneath[actor]
            (thread if FLAGS[name].thread else self._model.process_beneath).update(read_flags((name,)))

    def _check(self, actor: int, when: str) -> None:
        """Law 3: what is in force now, in the thread that did the last step."""
        must_be = self._model.must_be(actor)
        found = read_flags(tuple(must_be))
        self.problems += [f"{when}, {line}" for line in differences(must_be, found)]

    def _block(self, subject: Subject, layer: int) -> Block:
        if layer not in self._blocks:
            self._blocks[layer] = subject.make(self.case.layers[layer])
        return self._blocks[layer]

    def _enter(self, subject: Subject, actor: int, layer: int, fault: str = "", after: bool = False) -> None:
        before = self._trace()
        try:
            with subject.on(self.case.layers[layer].machine), failing(fault, after):
                self._block(subject, layer).__enter__()
        except BaseException as error:
            self._enter_failed(actor, layer, error, bool(fault), before)
        else:
            self.entered += 1
            self._model.entered(actor, layer)

    def _enter_failed(self, actor: int, layer: int, error: BaseException, fault: bool, before: Reading) -> None:
        self.refused += 1
        if self.forced[layer] is not None and not fault:
            self.problems.append(f"turbo {layer} can be entered alone, but here it raised {error!r}")
        after = self._trace()
        if self._model.has_strays(actor):
            # What went astray in this thread is settled first, whether the entry then succeeds or not.
            before, after = ({k: v for k, v in trace.items() if k not in THREAD} for trace in (before, after))
        self.problems += [f"turbo {layer} raised on entry and left a trace: {d}" for d in differences(before, after)]

    def _exit(self, subject: Subject, actor: int, layer: int, raised: str | None = None) -> None:
        entry = self._model.newest(layer, actor)
        if entry is not None:
            self._leave(subject, entry, raised)
            self._model.left(entry)

    def _leave(self, subject: Subject, entry: Entry, raised: str | None) -> None:
        block = self._block(subject, entry.layer)
        try:
            if raised is None:
                swallowed = block.__exit__(None, None, None)
            else:
                try:
                    raise EXCEPTIONS[raised]("from the body")
                except BaseException as error:
                    swallowed = block.__exit__(type(error), error, error.__traceback__)
        except BaseException as error:
            self.problems.append(f"leaving turbo {entry.layer} raised {error!r}")
        else:
            if swallowed:
                self.problems.append(f"leaving turbo {entry.layer} swallowed the body's {raised}")

    def _stray(self, subject: Subject, actor: int, layer: int) -> None:
        """Leave a block in a thread that never entered it: refused, with the process's part put back at once."""
        entry = self._model.newest(layer)
        if entry is None or not subject.errors or self._model.newest(layer, actor) is not None:
            return
        try:
            self._block(subject, layer).__exit__(None, None, None)
        except subject.errors:
            entry.astray = True
        else:
            self.problems.append(f"turbo {layer} was left by thread {actor}, which never entered it, without a word")

    def _call(self, subject: Subject, actor: int, layer: int, depth: int, raised: str | None) -> None:
        """Call a recursive decorated function, which raises at the bottom or not."""
        if subject.accelerate is None or self.forced[layer] is None:
            return
        asked = self.case.layers[layer]
        wanted = None if raised is None else EXCEPTIONS[raised]("from the bottom")

        def body(left: int) -> int:
            self._model.entered(actor, layer)
            self.entered += 1
            try:
                if left > 1:
                    return int(decorated(left - 1))
                self._check_inside(actor)
                if wanted is not None:
                    raise wanted
                return 7
            finally:
                entry = self._model.newest(layer, actor)
                assert entry is not None
                self._model.left(entry)

        with subject.on(asked.machine):
            decorated = subject.accelerate(profile=asked.profile, strict=asked.strict, **asked.options)(body)
            try:
                result, error = decorated(depth), None
            except BaseException as caught:
                result, error = None, caught
        if isinstance(error, Warning):
            return  # where warnings are errors: that the body is not compiled
        if error is not wanted or (wanted is None and result != 7):
            self.problems.append(f"a call of turbo {layer} gave {result!r} and {error!r}, not 7 or {wanted!r}")

    def _check_inside(self, actor: int) -> None:
        if not self.case.free:
            self._check(actor, "inside a decorated function")

    def _draw(self, subject: Subject, actor: int, seed: int) -> None:
        """Draw random numbers and seed by hand, if some block has a seed: outside of them both are for good."""
        if any("seed" in self.case.layers[entry.layer].options and not entry.astray for entry in self._model.open):
            draw_and_seed(seed)

    def _compile(self, subject: Subject, actor: int) -> None:
        """Compile a function, if it is inside a block at all: outside, what compiling leaves behind is nobody's."""
        if self._model.open:
            compile_something()

    def _refuse(self, subject: Subject, actor: int, kind: str) -> None:
        """Ask for what does not exist: refused by an error of the package, before anything changes."""
        if not subject.errors:
            return
        profile = "fsat" if kind == "profile" else "fast"
        wrong: dict[str, dict[str, Any]] = {"name": {"cudnn_bench": True}, "value": {"cudnn_benchmark": "perhaps"}}
        before = self._trace()
        try:
            subject.turbo(profile, **wrong.get(kind, {}))
        except subject.errors:
            self.problems += [f"refusing a bad {kind} left a trace: {d}" for d in differences(before, self._trace())]
        else:
            self.problems.append(f"a bad {kind} was not refused")

    def _trace(self) -> Reading:
        return {} if self.case.free else read_flags(PROCESS + THREAD) | self.witness.read_memory()

    # ---------------------------------------------------------------------------------------------------- free running

    def _play_freely(self) -> None:
        """Every worker does its own steps as fast as it can, with as many switches between them as Python allows."""
        assert self.subject is not None
        patience = sys.getswitchinterval()
        with self.subject.on(self.case.layers[0].machine):
            for layer in range(len(self.case.layers)):
                self._block(self.subject, layer)
            sys.setswitchinterval(1e-6)
            for actor, worker in enumerate(self._workers, start=1):
                own = [step for step in self.case.blocks if step.actor == actor]
                worker.start(partial(self._run_alone, own))
            for worker in self._workers:
                worker.wait()
            sys.setswitchinterval(patience)

    def _run_alone(self, steps: list[Step]) -> None:
        for step in steps:
            if step.kind == "work":
                work(optimizer=self.case.loaded)
            elif self.subject is not None:
                getattr(self, f"_{step.kind}")(self.subject, step.actor, *step.arguments)

    # ------------------------------------------------------------------------------------------------------ at the end

    def _close_all(self) -> None:
        """Leave what a shortened case left open, newest first, and settle what went astray."""
        if self.subject is None:
            return
        for entry in reversed(list(self._model.open)):
            if not entry.astray:
                self._on(entry.actor, partial(self._leave, self.subject, entry, None))
        for actor in range(WORKERS + 1):
            if self._model.has_strays(actor):
                self._on(actor, self._pass_through)

    def _pass_through(self) -> None:
        assert self.subject is not None
        with self.subject.turbo("low_memory"):
            pass
