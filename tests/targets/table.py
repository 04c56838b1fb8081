"""Plays every target in every situation in a forked child, and compares what the witness reads there afterwards.

What it is compared with is another child of the same parent, in which the same target was played undecorated.
``python -m tests.targets.table '{"accelerate": ["function", ...]}'`` prints what was wrong in each cell; a decorator
is the package's own, or one of ``leaky``.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import pickle
import random
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from tests.targets import choice
from tests.witness.children import in_child
from tests.witness.probing import probe
from tests.witness.reading import Reading, Witness, differences
from torchturbo.testing import pretend_hardware

THREADS = 4


def returns(zoo: Any, target: Any) -> Any:
    return [target.run(target.thing(), zoo.Order()) for _ in range(2)]


def raises(zoo: Any, target: Any) -> Any:
    try:
        return target.run(target.thing(), zoo.Order(raises=True))
    except zoo.AsAsked as error:
        return "raised", error.args, error.__notes__ if hasattr(error, "__notes__") else ()


def nested(zoo: Any, target: Any) -> Any:
    found = [target.run(target.thing(), zoo.Order(depth=3))]
    with zoo.block(zoo.Order(depth=1)):
        found.append(target.run(target.thing(), zoo.Order(depth=2)))
        with zoo.block(zoo.Order(depth=3)):
            try:
                found.append(target.run(target.thing(), zoo.Order(depth=2, raises=True)))
            except zoo.AsAsked as error:
                found.append(error.args)
    return found


def threaded(zoo: Any, target: Any) -> Any:
    barrier, found = threading.Barrier(THREADS), []
    thing = target.thing()

    def calls() -> None:
        barrier.wait(timeout=20)
        found.extend(target.run(thing, zoo.Order(alone=False)) for _ in range(5))

    threads = [threading.Thread(target=calls) for _ in range(THREADS)]
    patience = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(patience)
    return len(found), {repr(one) for one in found}


def pickled(zoo: Any, target: Any) -> Any:
    return _through(pickle.dumps, zoo, target)


def cloudpickled(zoo: Any, target: Any) -> Any:
    return _through(importlib.import_module("cloudpickle").dumps, zoo, target)


def _through(dumps: Callable[[Any], bytes], zoo: Any, target: Any) -> Any:
    try:
        data = dumps(target.thing())
    except Exception as error:
        return "is not pickled", type(error).__name__
    return target.run(pickle.loads(data), zoo.Order(depth=1))


SITUATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "returns": returns,
    "raises": raises,
    "nested": nested,
    "threaded": threaded,
    "pickled": pickled,
}
if importlib.util.find_spec("cloudpickle"):
    SITUATIONS["cloudpickled"] = cloudpickled


Cell = tuple[str, list[str], Reading]
"""What a target gave in a situation, what was wrong meanwhile, and the state afterwards."""


def _life(witness: Witness, decorator: str | None, name: str) -> dict[str, Cell]:
    """A child's: one target in every situation, decorated or (None) not."""
    random.seed(1)
    choice.plain = decorator is None
    if decorator is None:
        choice.decorate = lambda thing: thing
    elif decorator != "accelerate":
        choice.decorate = getattr(importlib.import_module("tests.targets.leaky"), decorator)
    with pretend_hardware("cpu-bf16"):
        zoo = importlib.import_module("tests.targets.zoo")
        cells = {}
        for situation, play in SITUATIONS.items():
            outcome = repr(play(zoo, zoo.TARGETS[name]))
            cells[situation] = outcome, list(zoo.PROBLEMS), witness.read(thorough=False)
            zoo.PROBLEMS.clear()
    # Probing destroys what it shows: last.
    outcome, problems, reading = cells[situation]
    cells[situation] = outcome, problems, reading | probe()
    return cells


def judge(decorator: str, witness: Witness, name: str) -> dict[str, list[str]]:
    """What is wrong with a target, by situation."""
    plain, decorated = (in_child(partial(_life, witness, which, name)) for which in (None, decorator))
    if plain.crash:
        raise RuntimeError(plain.crash)
    if decorated.crash:
        return {situation: [decorated.crash] for situation in SITUATIONS}
    return {situation: _faults(plain.value[situation], decorated.value[situation]) for situation in SITUATIONS}


def _faults(plain: Cell, decorated: Cell) -> list[str]:
    outcome, problems, reading = decorated
    faults = [] if outcome == plain[0] else [f"gives {outcome}, and undecorated {plain[0]}"]
    return faults + problems + [f"left behind: {line}" for line in differences(plain[2], reading)]


def main(asked: str) -> None:
    """Prints what is wrong, by decorator, target and situation; of all targets, or of those that are named."""
    warnings.simplefilter("ignore")
    # What is made at its first use is made before the first child.
    torch.optim.SGD([nn.Parameter(torch.ones(1))])
    pickle.dumps(nn.Parameter(torch.ones(1)), 2)
    witness = Witness.prepare()
    wrong = {
        decorator: {name: judge(decorator, witness, name) for name in names}
        for decorator, names in json.loads(asked).items()
    }
    json.dump(wrong, sys.stdout, indent=1)


if __name__ == "__main__":
    main(sys.argv[1])
