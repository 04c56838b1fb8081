"""Law 3 over torch itself: hypothesis opens and closes real blocks in real threads, and the timelines must agree.

What an option puts in force is written down here once more, as torch's documentation has it, and read with torch's own
functions: the catalogue is not asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import hypothesis.strategies as st
import torch
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.laws.around import Block, BlockMaker
from tests.laws.catalogue import EVERYTHING
from tests.laws.crew import Crew
from tests.laws.look import differences, look
from tests.laws.pristine import HAS_CELLS, isolated
from tests.laws.timeline import Timeline
from tests.laws.violation import Violation, holds
from torchturbo.errors import WrongThreadError
from torchturbo.settings._edits import always
from torchturbo.testing import pretend_hardware

_C: Any = torch._C
Options = tuple[tuple[str, object], ...]


def _matmul() -> tuple[bool, bool]:
    """Whether matrix products use TF32 on GPUs, and bf16 on CPUs."""
    if not HAS_CELLS:
        word = torch.get_float32_matmul_precision()
        return word != "highest", word == "medium"
    getter = _C._get_fp32_precision_getter
    return getter("cuda", "matmul") == "tf32", getter("mkldnn", "matmul") == "bf16"


def _convolution() -> tuple[bool, ...]:
    """Whether convolutions and recurrent nets use TF32."""
    if not HAS_CELLS:
        return (torch.backends.cudnn.allow_tf32,) * 2
    return tuple(_C._get_fp32_precision_getter("cuda", operation) == "tf32" for operation in ("conv", "rnn"))


PROCESS: dict[str, Callable[[], object]] = {
    "matmul": _matmul,
    "convolution": _convolution,
    "benchmark": lambda: torch.backends.cudnn.benchmark,
    "flash": torch.backends.cuda.flash_sdp_enabled,
    "deterministic": torch.get_deterministic_debug_mode,
    "dtype": torch.get_default_dtype,
    "reduction": _C._get_cublas_allow_fp16_reduced_precision_reduction,
}
THREAD: dict[str, Callable[[], object]] = {
    "grad": torch.is_grad_enabled,
    "threads": torch.get_num_threads,
    "autocast": lambda: torch.is_autocast_enabled("cuda"),
    "cache": torch.is_autocast_cache_enabled,
}

MEANS: dict[tuple[str, object], dict[str, object]] = {
    ("matmul_precision", "highest"): {"matmul": (False, False)},
    ("matmul_precision", "high"): {"matmul": (True, False)},
    ("matmul_precision", "medium"): {"matmul": (True, True)},
    ("cudnn_precision", "ieee"): {"convolution": (False, False)},
    ("cudnn_precision", "tf32"): {"convolution": (True, True)},
    ("tf32", True): {"matmul": (True, False), "convolution": (True, True)},
    ("tf32", False): {"matmul": (False, False), "convolution": (False, False)},
    ("cudnn_benchmark", True): {"benchmark": True},
    ("cudnn_benchmark", False): {"benchmark": False},
    ("flash_sdp", True): {"flash": True},
    ("flash_sdp", False): {"flash": False},
    ("deterministic", False): {"deterministic": 0},
    ("deterministic", "warn"): {"deterministic": 1},
    ("deterministic", True): {"deterministic": 2},
    ("default_dtype", "float64"): {"dtype": torch.float64},
    ("default_dtype", "bfloat16"): {"dtype": torch.bfloat16},
    ("fp16_reduction", False): {"reduction": (False, True) if isinstance(PROCESS["reduction"](), tuple) else False},
    ("grad", False): {"grad": False},
    ("grad", True): {"grad": True},
    ("num_threads", 1): {"threads": 1},
    ("num_threads", 3): {"threads": 3},
    ("autocast", "bf16"): {"autocast": True, "cache": False},
    ("autocast", None): {"autocast": False},
}
"""What each value of an option means for the flags."""


def _clear(options: Options) -> bool:
    names = {name for name, _ in options}
    return not ("tf32" in names and names & {"matmul_precision", "cudnn_precision"})


asked: st.SearchStrategy[Options] = (
    st.lists(st.sampled_from(tuple(MEANS)), max_size=5, unique_by=lambda option: option[0]).map(tuple).filter(_clear)
)


@dataclass
class Entry:
    """One entry that stands; `astray` once another thread has closed it as far as it could."""

    name: int
    actor: int
    block: int
    astray: bool = False


class Blocks(RuleBasedStateMachine):
    """Blocks of the maker on trial, over the main thread (actor 0) and two others."""

    make: ClassVar[BlockMaker]

    def __init__(self) -> None:
        super().__init__()
        self.machine = pretend_hardware(EVERYTHING)
        self.machine.__enter__()
        self.crew = Crew(2)
        self.hands = self.crew.__enter__()
        self.before = look()
        self.blocks: list[tuple[Block, dict[str, object]]] = []
        self.entries: list[Entry] = []
        self.entered = 0
        self.timelines: dict[object, Timeline] = {name: Timeline(read()) for name, read in PROCESS.items()}
        for actor in range(3):
            for name, read in THREAD.items():
                self.timelines[name, actor] = Timeline(self.do(actor, read))

    def do(self, actor: int, act: Callable[[], Any]) -> Any:
        return act() if actor == 0 else self.hands[actor - 1].do(act)

    # -------------------------------------------------------------------------------------------------------- the rules

    @rule(options=asked)
    def make_a_block(self, options: Options) -> None:
        means = {flag: value for option in options for flag, value in MEANS[option].items()}
        self.blocks.append((type(self).make(**dict(options)), means))

    @precondition(lambda self: self.blocks)
    @rule(which=st.integers(0, 11), actor=st.integers(0, 2))
    def enter(self, which: int, actor: int) -> None:
        place = which % len(self.blocks)
        block, means = self.blocks[place]
        self.settle(actor)
        self.do(actor, block.__enter__)
        self.entered += 1
        self.entries.append(Entry(self.entered, actor, place))
        for flag, value in means.items():
            self.timelines[(flag, actor) if flag in THREAD else flag].opened(self.entered, always(value))

    @precondition(lambda self: self.standing())
    @rule(
        which=st.integers(0, 11),
        error=st.sampled_from((None, None, ValueError("planted"), KeyboardInterrupt("planted"))),
    )
    def leave(self, which: int, error: BaseException | None) -> None:
        self.leave_entry(self.standing()[which % len(self.standing())], error)

    @precondition(lambda self: self.standing())
    @rule(which=st.integers(0, 11))
    def leave_in_another_thread(self, which: int) -> None:
        entry = self.standing()[which % len(self.standing())]
        stranger = (entry.actor + 1) % 3
        if any(other.actor == stranger and (other.block == entry.block or other.astray) for other in self.entries):
            return  # it would close its own, or may put its own state back, or may not
        block, _ = self.blocks[entry.block]
        # Of several threads that have entered the block, the newest entry is the one that is closed.
        entry = [other for other in self.standing() if other.block == entry.block][-1]
        try:
            self.do(stranger, lambda: block.__exit__(None, None, None))
        except WrongThreadError:
            entry.astray = True
            for flag in PROCESS:
                self.timelines[flag].closed(entry.name)
        else:
            raise Violation("law 5: a block was closed by a thread that never opened it, without a word")

    # ------------------------------------------------------------------------------------------------------------------

    def standing(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.astray]

    def leave_entry(self, entry: Entry, error: BaseException | None = None) -> None:
        block, _ = self.blocks[entry.block]
        # An object that a thread has entered twice is left by its newest entry first.
        its = [other for other in self.standing() if (other.block, other.actor) == (entry.block, entry.actor)][-1]
        swallowed = self.do(entry.actor, lambda: block.__exit__(type(error) if error else None, error, None))
        holds(not swallowed, "law 4: the body's exception was swallowed")
        holds(not getattr(error, "__notes__", []), "law 4: something was added to the body's exception")
        self.entries.remove(its)
        for timeline in self.timelines.values():
            timeline.closed(its.name)
        self.settle(entry.actor)

    def settle(self, actor: int) -> None:
        """A thread that enters or leaves a block puts its own state back for blocks that others have closed."""
        for entry in [entry for entry in self.entries if entry.astray and entry.actor == actor]:
            self.entries.remove(entry)
            for flag in THREAD:
                self.timelines[flag, actor].closed(entry.name)

    @invariant()
    def the_newest_is_in_force(self) -> None:
        for actor in range(3):
            # The thread's own state is not foretold while something in it has gone astray.
            stray = any(entry.astray and entry.actor == actor for entry in self.entries)
            found = self.do(actor, lambda: {name: read() for name, read in (PROCESS | THREAD).items()})
            for flag, value in found.items():
                if flag in THREAD and stray:
                    continue
                expected = self.timelines[(flag, actor) if flag in THREAD else flag].in_force()
                holds(value == expected, f"law 3: {flag} must be {expected} in thread {actor}, and is {value}")

    def teardown(self) -> None:
        try:
            for entry in self.entries[1::2] + self.entries[::2]:
                if not entry.astray:
                    self.leave_entry(entry)
            for entry in list(self.entries):
                self.do(entry.actor, lambda: self._pass_through())
                self.settle(entry.actor)
            self.the_newest_is_in_force()
            found = differences(self.before, look())
            holds(not found, f"law 3: all blocks are closed, and something is left: {found}")
        finally:
            self.crew.__exit__(None, None, None)
            self.machine.__exit__(None, None, None)

    def _pass_through(self) -> None:
        with type(self).make():
            pass


def judge(make: BlockMaker, *, examples: int, steps: int = 15, shrink: bool = True) -> None:
    """Drives the machine over one kind of blocks.

    Raises:
        Violation: some sequence of entries and exits does not end as the model says, with the shortest one found.
    """
    machine = type("Blocks", (Blocks,), {"make": staticmethod(make)})
    trial = settings(
        max_examples=examples,
        stateful_step_count=steps,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.normal if shrink else Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    try:
        isolated(lambda: run_state_machine_as_test(machine, settings=trial))
    except Violation:
        raise
    except Exception as error:
        raise Violation(f"{type(error).__name__} where nothing was to be refused: {error}") from error
