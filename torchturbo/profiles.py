"""Profiles: named values for options, as frozen data, each with what you gain and what you give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from torchturbo._catalogue import OPTIONS
from torchturbo._words import arguments
from torchturbo.errors import OptionNameError, ProfileNameError, near
from torchturbo.settings._base import Group

if TYPE_CHECKING:
    from typing import Unpack

    from torchturbo._options import Options


_ELSEWHERE = {
    "float8": "it is for one model, whose layers it converts: accelerate(model, float8=True)",
}
"""What looks like an option and is something else, and what to write instead."""


def parsed(options: Mapping[str, object]) -> dict[str, object]:
    """Options by name, each value in its one spelling.

    Raises:
        OptionNameError: an option does not exist; the message names the near ones.
        OptionValueError: an option does not take its value.
    """
    for name in options:
        if name == "on_oom":
            raise OptionNameError(
                "on_oom= is for accelerate, around the function that takes one step, "
                "@accelerate(on_oom='split') def step(model, batch, optimizer): a block cannot be run again"
            )
        if name not in OPTIONS:
            instead = _ELSEWHERE.get(name) or near(name, OPTIONS)
            raise OptionNameError(f"there is no option {name!r}: {instead}")
    return {name: OPTIONS[name].parse(value) for name, value in options.items()}


def _members(name: str, value: object) -> Mapping[str, object]:
    """What an option stands for, if it is a group."""
    option = OPTIONS[name]
    return option.members(value) if isinstance(option, Group) else {}


class Profile(Mapping[str, object]):
    """Named values for options: an immutable mapping that hashes, pickles and combines.

    An option that a profile does not hold is left as it is. ``a | b`` holds what either holds, and where both do, what
    ``b`` says.

    Args:
        name: what the report calls it.
        gain: what it gives you, as a sentence.
        give: what it costs you, as a sentence.
        options: the values, by option.

    Raises:
        OptionNameError: an option does not exist.
        OptionValueError: an option does not take its value.

    >>> mine = Profile("mine", cudnn_benchmark=False)
    >>> (profile("fast") | mine)["cudnn_benchmark"]
    False
    """

    __slots__ = ("_hash", "_values", "gain", "give", "name")

    name: str
    gain: str
    give: str
    _values: Mapping[str, object]
    _hash: int

    def __init__(self, name: str, /, gain: str = "", give: str = "", **options: Unpack[Options]) -> None:
        self._fill(name, gain, give, parsed(options))

    def _fill(self, name: str, gain: str, give: str, values: Mapping[str, object]) -> None:
        for attribute, value in (
            ("name", name),
            ("gain", gain),
            ("give", give),
            ("_values", MappingProxyType(dict(values))),
            ("_hash", hash((name, gain, give, frozenset(values.items())))),
        ):
            object.__setattr__(self, attribute, value)

    @classmethod
    def _of(cls, name: str, gain: str, give: str, values: Mapping[str, object]) -> Profile:
        made = cls.__new__(cls)
        made._fill(name, gain, give, parsed(values))
        return made

    def __getitem__(self, option: str) -> object:
        return self._values[option]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __or__(self, other: Profile) -> Profile:
        """What either holds; where both do, what `other` says."""
        if not isinstance(other, Profile):
            return NotImplemented
        # A group says what its members say, so it beats those that the older profile names.
        spoken_for = {member for name, value in other.items() for member in _members(name, value)}
        return Profile._of(
            f"{self.name} | {other.name}",
            " ".join(filter(None, (self.gain, other.gain))),
            " ".join(filter(None, (self.give, other.give))),
            {**{name: value for name, value in self.items() if name not in spoken_for}, **other._values},
        )

    def without(self, *options: str) -> Profile:
        """This profile, leaving `options` as they are, and what they stand for.

        Raises:
            OptionNameError: the profile holds no such option.
        """
        for option in options:
            if option not in self:
                raise OptionNameError(f"profile {self.name!r} holds no option {option!r}: {near(option, self)}")
        members = {member for option in options for member in _members(option, self[option])}
        left = {name: value for name, value in self.items() if name not in options and name not in members}
        return Profile._of(f"{self.name} without {', '.join(options)}", self.gain, self.give, left)

    def __setattr__(self, attribute: str, value: object) -> None:
        raise AttributeError(f"a Profile cannot be changed; combine it: profile | Profile('mine', {attribute}=...)")

    def __delattr__(self, attribute: str) -> None:
        raise AttributeError("a Profile cannot be changed")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Profile):
            return NotImplemented
        mine, theirs = ((p.name, p.gain, p.give, {k: (type(v), v) for k, v in p.items()}) for p in (self, other))
        return mine == theirs

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[object, ...]:
        return Profile._of, (self.name, self.gain, self.give, dict(self._values))

    def __repr__(self) -> str:
        return f"<Profile {self.name!r}: {arguments(self)}>"


_FAST = Profile(
    "fast",
    gain="TF32 and bf16 where the hardware has them: usually several times faster, with training curves as before.",
    give="About three significant digits inside matrix products and convolutions; not the same bits on each run.",
    tf32=True,
    autocast="auto",
    cudnn_benchmark=True,
)
_EXACT = Profile(
    "exact",
    gain="float32 that is float32: no TF32, no autocast, no shortened sums; the reference to compare others with.",
    give="Speed: on GPUs with TF32, several times slower than fast.",
    tf32=False,
    mkldnn_precision="ieee",
    fp16_reduction=False,
    bf16_reduction=False,
    fp16_accumulation=False,
    autocast=None,
)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            _FAST,
            Profile._of(
                "max",
                "Everything fast does, float32 products that may round to bf16, and fp16 sums in fp16.",
                "More precision than fast; compare your loss with it before you rely on it.",
                {
                    **_FAST,
                    "matmul_precision": "medium",
                    "fp16_reduction": True,
                    "bf16_reduction": True,
                    "fp16_accumulation": True,
                },
            ),
            _EXACT,
            Profile._of(
                "reproducible",
                "The same bits twice on the same machine, or an error that names the operation without such a kernel.",
                "Speed, as exact does, and more where deterministic kernels are slower.",
                {
                    **_EXACT,
                    "deterministic": True,
                    # Costs a pass over every new tensor, and only code that reads what nobody wrote needs it.
                    "fill_uninitialized_memory": False,
                    "cudnn_deterministic": True,
                    "cudnn_benchmark": False,
                    "mkldnn_deterministic": True,
                    "cublas_workspace": ":4096:8",
                    "cudnn_sdp": False,
                },
            ),
            Profile._of(
                "inference",
                "What fast gains, and no memory for gradients.",
                "What fast gives, and backward: nothing inside is recorded.",
                {**_FAST, "grad": False},
            ),
            Profile._of(
                "low_memory",
                "A fraction of the activations: repeated blocks keep their inputs alone; no gradients are kept between "
                "steps; GPU memory is cut so that little of it is lost. The same gradients, to the bit.",
                "Time: the forward of each block runs twice, and kernels of convolutions are not tried out.",
                {
                    "checkpoint": True,
                    "set_to_none": True,
                    "alloc_conf": "expandable_segments:True",
                    "cudnn_benchmark": False,
                },
            ),
            Profile._of(
                "debug",
                "float32, anomaly detection that names the forward call behind a NaN, and a warning at each operation "
                "that may give other bits next time.",
                "Speed: anomaly detection alone can take several times as long.",
                {**_EXACT, "anomaly": True, "deterministic": "warn", "cudnn_benchmark": False},
            ),
        )
    }
)
"""The built-in profiles by name."""


def profile(named: object, more: Mapping[str, Profile] = MappingProxyType({})) -> Profile:
    """The profile of that name, or the profile itself.

    Args:
        named: a name, or a profile.
        more: others than the built-in ones, by name.

    Raises:
        ProfileNameError: there is none; the message names the near ones.
    """
    if isinstance(named, Profile):
        return named
    if isinstance(named, str) and (named in PROFILES or named in more):
        return more[named] if named in more else PROFILES[named]
    if not isinstance(named, str):
        raise ProfileNameError(f"expected the name of a profile or a Profile, got {type(named).__name__}")
    raise ProfileNameError(f"there is no profile {named!r}: {near(named, (*PROFILES, *more))}")
