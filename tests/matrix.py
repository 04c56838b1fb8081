"""The large randomised run: thousands of random histories and schedules, and no difference afterwards.

    python -m tests.matrix --cases 5000 --seed 1 --json result.json
    python -m tests.matrix --only 4711              # play one case again, make it small, and show it

Run it with the Python of each torch version. The exit status is 1 where anything differed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import selectors
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import torch

from tests.witness import setters, subjects
from tests.witness.cases import Case, make
from tests.witness.reading import Witness
from tests.witness.verdict import Verdict, judge, shrink
from tests.witness.workers import compile_something

SHRUNK = 3  # failures made small in each process; the others are reported by their seed and complaints
COMPILER = ("numpy.random", "torch._dynamo", "torch._inductor.config")


def with_compiler(seed: int) -> bool:
    """Every fifth case runs with dynamo and inductor loaded, whose configuration is state too."""
    return seed % 5 == 0


class Judge:
    """A pristine process that judges cases: first those without the compiler, then those with it."""

    def __init__(self, subject: str) -> None:
        self._subject = subjects.load(subject)
        self._prepare()

    def _prepare(self) -> None:
        self._witness = Witness.prepare()
        self._setters = setters.table()
        # The children's writes to reference counts copy pages; what does not move between generations is not visited.
        gc.freeze()

    def load_compiler(self) -> None:
        """Import dynamo and inductor, and compile once. That must leave this process as pristine as it was."""
        before = self._witness.read_memory()
        for module in COMPILER:
            import_module(module)
        # The first compilation patches and fills in much of torch for good, in a way that is not ours to put back.
        compile_something()
        if self._witness.read_memory() != before or threading.active_count() != 1:
            raise RuntimeError("to load the compiler changed torch's state: no pristine parent can have it")
        self._prepare()

    def case(self, seed: int) -> Case:
        """The case of a seed, on this torch."""
        return make(seed, self._setters, loaded=with_compiler(seed))

    def judge(self, seed: int, *, small: bool) -> dict[str, Any]:
        """What came of one case, as plain data; a failing one made small first."""
        case = self.case(seed)
        verdict = self._judge(case)
        if verdict.complaints and small:
            kinds = bool(verdict.left_behind)
            case = shrink(
                case, lambda smaller: bool(self._judge(smaller).left_behind if kinds else self._judge(smaller).inside)
            )
            verdict = replace(self._judge(case), entered=verdict.entered, refused=verdict.refused)
        found: dict[str, Any] = asdict(verdict) | {"seed": seed}
        if verdict.complaints:
            found["case"] = case.describe()
            found["again"] = f"python -m tests.matrix --subject {self._subject.name} --only {seed}"
        return found

    def _judge(self, case: Case) -> Verdict:
        return judge(case, self._subject, self._witness, self._setters)


def judge_all(subject: str, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Judge these seeds in this process."""
    judging = Judge(subject)
    failures = 0
    for loaded in (False, True):
        waiting = [seed for seed in seeds if with_compiler(seed) is loaded]
        if loaded and waiting:
            judging.load_compiler()
        for seed in waiting:
            result = judging.judge(seed, small=failures < SHRUNK)
            failures += "case" in result
            yield result


def share(subject: str, seeds: Sequence[int], jobs: int) -> Iterator[dict[str, Any]]:
    """Judge the seeds in several processes forked from this one, and yield results as they come."""
    waiting = selectors.DefaultSelector()
    children = []
    for job in range(jobs):
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            os.close(reading)
            _judge_and_exit(subject, seeds[job::jobs], writing)
        os.close(writing)
        children.append(child)
        waiting.register(os.fdopen(reading), selectors.EVENT_READ)
    try:
        while waiting.get_map():
            for key, _ in waiting.select():
                line = key.fileobj.readline()  # type: ignore[union-attr]
                if line:
                    yield json.loads(line)
                else:
                    waiting.unregister(key.fileobj)
    finally:
        for child in children:
            os.kill(child, signal.SIGTERM)  # one that has ended is a zombie until it is waited for
            os.waitpid(child, 0)


def _judge_and_exit(subject: str, seeds: Sequence[int], writing: int) -> NoReturn:
    """A child's whole life: it must not return into its parent's code."""
    status = 1
    try:
        with os.fdopen(writing, "w") as pipe:
            for result in judge_all(subject, seeds):
                print(json.dumps(result), file=pipe, flush=True)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases asked for, and say what came of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=5000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the first case's seed (default: %(default)s)")
    parser.add_argument("--only", type=int, metavar="SEED", help="one case, made small and shown")
    parser.add_argument(
        "--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    parser.add_argument("--stop", action="store_true", help="stop at the first failure")
    parser.add_argument("--subject", default="torchturbo", help="what is tested, or module:Class for a mutant")
    asked = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # torch's own, about its own old setters

    first = asked.seed if asked.only is None else asked.only
    seeds = range(first, first + (asked.cases if asked.only is None else 1))
    print(
        f"torch {torch.__version__}, python {sys.version.split()[0]}, {len(seeds)} cases from seed {first}", flush=True
    )
    start = shown = time.monotonic()
    done = entered = refused = 0
    failures = []
    for result in share(asked.subject, seeds, min(asked.jobs, len(seeds))):
        done, entered, refused = done + 1, entered + result["entered"], refused + result["refused"]
        if "case" in result:
            failures.append(result)
            show(result)
            if asked.stop:
                break
        if time.monotonic() - shown > 5:
            shown = time.monotonic()
            print(f"  {done} cases, {done / (shown - start):.0f} a second, {len(failures)} failed", flush=True)
    seconds = time.monotonic() - start
    summary = {
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "subject": asked.subject,
        "cases": done,
        "first_seed": first,
        "blocks_entered": entered,
        "entries_refused": refused,
        "seconds": round(seconds, 1),
        "differences": sum(bool(failure["left_behind"]) for failure in failures),
        "wrong_inside": sum(bool(failure["inside"]) for failure in failures),
        "failures": failures,
    }
    if asked.json:
        asked.json.write_text(json.dumps(summary, indent=1) + "\n")
    print(
        f"torch {torch.__version__}: {done} cases, {entered} blocks entered ({refused} refused), "
        f"{seconds:.0f} s ({done / seconds:.0f} a second), differences afterwards: {summary['differences']}, "
        f"wrong inside: {summary['wrong_inside']}"
    )
    if done != len(seeds) and not asked.stop:
        print(f"only {done} of {len(seeds)} cases came to an end")
    return int(bool(failures) or done != len(seeds))


def show(result: dict[str, Any]) -> None:
    """Print a failure."""
    print(f"\n{result['case']}")
    for kind in ("left_behind", "inside"):
        for line in result[kind][:6]:
            print(f"  ! {kind.replace('_', ' ')}: {line[:300]}")
    print(f"  again: {result['again']}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
