"""A report as frozen data, and the forms it takes: a dictionary, JSON, HTML and text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torchturbo._environment import Found
from torchturbo._told import Told, of_that_name
from torchturbo.hardware import Build, Hardware, Reading
from torchturbo.regions.compiling import Compiled
from torchturbo.settings._base import Scope

NOT_SET = "not set by torchturbo"
"""The origin of a value that is torch's own, or somebody else's: torch does not tell these two apart."""


@dataclass(frozen=True, slots=True)
class Row:
    """One option: a setting, a region, or a group of settings; and ``float8``, which is one of `accelerate`.

    Attributes:
        name: the option.
        area: the file that declares it.
        members: the settings that a group stands for; empty for any other option.
        help: what it is, in one sentence.
        scope: who sees a change: every thread of the process, or the one that made it; None where this torch has
            no such state.
        now: the value in force; ``"mixed"`` for a group whose members disagree.
        before: what it was beneath the blocks, or when the block that the report is about was entered.
        asked: what was last asked for, also where it was left out; None where nobody asked.
        origin: who asked for it, or that nobody did.
        where: the line that opened the block that asked, as ``file:line``.
        held: whether an open block put the value in force, this one or an older one.
        effective: whether it acts on this machine. For a group: whether any member does.
        reason: why it does not, as a sentence.
        note: what else there is to know about the value, as a sentence.
    """

    name: str
    area: str
    members: tuple[str, ...]
    help: str
    scope: Scope | None
    now: object
    before: object
    asked: object
    origin: str
    where: str | None
    held: bool
    effective: bool
    reason: str | None
    note: str | None

    @property
    def wanted(self) -> bool:
        """Whether some open block asked for it."""
        return self.origin != NOT_SET


@dataclass(frozen=True, slots=True)
class Block:
    """A block of torchturbo.

    Attributes:
        profile: the name of its profile.
        overrides: the options that it was given beside.
        where: the line that opened it, as ``file:line``.
        thread: the thread that opened it.
        left_out: the options that it asked for and this machine does not have.
        wanted: how many settings it asked for, with those left out.
        open: whether it still is.
        disabled: who has switched torchturbo off, as ``TORCHTURBO_DISABLE=1``, or None.
    """

    profile: str
    overrides: Mapping[str, object]
    where: str
    thread: str
    left_out: tuple[str, ...]
    wanted: int
    open: bool
    disabled: str | None = None


@dataclass(frozen=True, slots=True)
class Versions:
    """What runs here, by version; None for what this build of torch does not have."""

    torchturbo: str
    torch: str
    cuda: str | None
    hip: str | None
    cudnn: str | None
    python: str
    platform: str

    @classmethod
    def of(cls, build: Build) -> Versions:
        """The versions of a build, and ours."""
        from torchturbo import __version__

        cudnn = None if build.cudnn is None else _dotted(build.cudnn)
        return cls(__version__, build.torch, build.cuda, build.hip, cudnn, build.python, build.platform)


def _dotted(cudnn: int) -> str:
    # cuDNN counts in tens of thousands since 9, and counted in thousands before.
    unit = 10_000 if cudnn >= 90_000 else 1_000
    return f"{cudnn // unit}.{cudnn % unit // 100}.{cudnn % 100}"


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A place where torch's older and newer float32 precision settings contradict each other: getters raise.

    Attributes:
        option: the option that it is about.
        getters: the getters of torch that raise.
        says: who says what, as a sentence.
        instead: what to write, so that both say the same, and that as near as may be to what is in force now.
    """

    option: str
    getters: tuple[str, ...]
    says: str
    instead: str


@dataclass(frozen=True, slots=True)
class Report(Told):
    """What is in force, who asked for it, and what has no effect here and why, at one moment.

    ``report["autocast"]`` is one option's row. It shows itself as a table in a terminal and in a notebook.

    Attributes:
        rows: every option, in the order of the catalogue, and float8.
        blocks: the blocks that are open, in every thread, oldest first.
        about: the block that the report was asked of; None for the whole process.
        hardware: the machine.
        readings: what each NVIDIA GPU did at that moment.
        versions: what runs here.
        environment: the environment variables that are set and matter to torch.
        contradictions: where torch's own getters raise.
        compiled: what blocks have compiled in this process so far, oldest first.
        advice: what to do, in plain words.
    """

    rows: tuple[Row, ...]
    blocks: tuple[Block, ...]
    about: Block | None
    hardware: Hardware
    readings: tuple[Reading, ...]
    versions: Versions
    environment: tuple[Found, ...]
    contradictions: tuple[Contradiction, ...]
    compiled: tuple[Compiled, ...]
    advice: tuple[str, ...]

    def __getitem__(self, option: str) -> Row:
        """The row of one option.

        Raises:
            KeyError: there is none; the message names the near ones.
        """
        return of_that_name(self.rows, option, "option")

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The report as dictionaries and lists of strings, numbers, booleans and None."""
        told = Told.to_dict(self)  # Python has no `super()` in dataclasses with slots before 3.14
        told["options"] = {row.pop("name"): row for row in told.pop("rows")}
        for name in ("device_type", "has_tf32", "has_bf16", "has_fp16_tensor_cores", "has_fp8"):
            told["hardware"][name] = getattr(self.hardware, name)
        return told

    def _repr_html_(self) -> str:
        from torchturbo._report.html import page

        return page(self)

    def __repr__(self) -> str:
        counted = {"options": self.rows, "open blocks": self.blocks, "pieces of advice": self.advice}
        return f"<Report: {', '.join(f'{len(things)} {name}' for name, things in counted.items())}>"
