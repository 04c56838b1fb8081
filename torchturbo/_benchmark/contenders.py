"""Who runs against whom: what is in force anyway, PyTorch's defaults, and profiles with options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from torchturbo import _sources
from torchturbo._catalogue import SETTINGS
from torchturbo._plan import Plan
from torchturbo._sources import Sources
from torchturbo._turbo import turbo
from torchturbo._words import arguments
from torchturbo.profiles import Profile

AS_IT_IS, PLAIN_NAME = "as it is", "plain"
WIDE = "float64"
"""The reference that is no profile."""

PLAIN = Profile(
    PLAIN_NAME,
    gain="Nothing: it is what PyTorch does when nobody sets anything.",
    give="Nothing.",
    matmul_precision="highest",
    cudnn_precision="tf32",
    mkldnn_precision="ieee",
    fp16_reduction=True,
    bf16_reduction=True,
    fp16_accumulation=False,
    cudnn_enabled=True,
    cudnn_benchmark=False,
    cudnn_deterministic=False,
    mkldnn_enabled=True,
    mkldnn_deterministic=False,
    deterministic=False,
    flash_sdp=True,
    mem_efficient_sdp=True,
    math_sdp=True,
    cudnn_sdp=True,
    anomaly=False,
    autocast=None,
    compile=False,
    fused_optimizer=False,
    accumulate=1,
)
"""PyTorch's own defaults of what makes a step faster or slower."""


@dataclass(slots=True, eq=False)
class Contender:
    """Settings that a step runs under.

    Attributes:
        name: what it is called.
        around: the block, which is opened anew for each sample.
        settings: the profile by its name, and options.
        plan: what these come to here; None for what is in force anyway.
        wide: whether its numbers are computed in float64.
        values: the options that act here.
    """

    name: str
    around: AbstractContextManager[Any]
    settings: Mapping[str, object] = field(default_factory=dict)
    plan: Plan | None = None
    wide: bool = False

    @property
    def values(self) -> dict[str, object]:
        """The options that act here, with their values."""
        decisions = () if self.plan is None else self.plan.decisions
        return {d.name: d.value for d in decisions if d.refused is None}

    @property
    def refused(self) -> dict[str, str]:
        """What has no effect here, and why."""
        return {} if self.plan is None else {d.name: str(d.refused) for d in self.plan.refused}


@contextmanager
def by_the_code_alone() -> Iterator[Sources]:
    """A block in which files name profiles, and nobody's environment or command line beats what is being measured."""
    known = _sources.sources()
    alone = Sources(profiles=known.profiles)
    with _sources.settled(alone):
        yield known


def baseline() -> Contender:
    """What is in force anyway."""
    return Contender(AS_IT_IS, nullcontext())


def contender(
    profile: str | Profile, options: Mapping[str, object] | None = None, name: str | None = None
) -> Contender:
    """A profile with options over it.

    Args:
        profile: by name, or itself.
        options: what beats it.
        name: what to call it; by default after both.

    Raises:
        ProfileNameError: there is no such profile.
        OptionNameError: there is no such option.
        OptionValueError: an option does not take its value.
    """
    options = dict(options or {})
    around: Any = turbo(profile, **options)  # type: ignore[arg-type]
    shown = profile if isinstance(profile, str) else profile.name
    settings = {"profile": shown, **options}
    told = ", ".join(filter(None, (shown, arguments(options))))
    return Contender(name or told, around, settings, around._prepared().plan)


def reference(name: str) -> Contender:
    """What the numbers are compared with: a profile by name, or ``"float64"``.

    Args:
        name: the profile's.

    Raises:
        ProfileNameError: there is no such profile.
    """
    if name != WIDE:
        return contender(name)
    found = contender("exact", name=WIDE)
    found.wide = True
    return found


def only(options: Mapping[str, object], name: str | None = None) -> Contender:
    """Options with no profile under them."""
    return contender(Profile("no profile"), options, name or arguments(options))


def plain() -> Contender | None:
    """PyTorch's defaults; None where they are what is in force anyway."""
    defaults = contender(PLAIN)
    return None if all(SETTINGS[name].now() == value for name, value in defaults.values.items()) else defaults


def one_at_a_time(full: Contender) -> Iterator[tuple[str, object, Contender, Contender]]:
    """Of each option that acts: which, its value, it alone, and all without it.

    Args:
        full: all of them.
    """
    for option, value in full.values.items():
        rest = {name: its for name, its in full.values.items() if name != option}
        yield option, value, only({option: value}), only(rest, f"{full.name} without {option}")


def alike(contenders: Sequence[Contender]) -> dict[Contender, Contender]:
    """Of each that comes to the same here as one before it, that one: nobody has to time the same thing twice."""
    first: dict[str, Contender] = {}
    found: dict[Contender, Contender] = {}
    for each in contenders:
        # Options' values need not hash, and their spelling is one.
        earlier = first.setdefault(repr(sorted(each.values.items(), key=lambda item: item[0])), each)
        if earlier is not each:
            found[each] = earlier
    return found


def named(profiles: Iterable[str | Profile], options: Mapping[str, object]) -> list[Contender]:
    """The contenders that somebody asks for: profiles with options over them, or options alone."""
    made = [contender(profile, options) for profile in profiles]
    return made if made or not options else [only(options)]


Tell = Callable[[str], None]
