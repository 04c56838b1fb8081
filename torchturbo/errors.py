"""Every error torchturbo raises, in one tree.

.. code-block:: text

    TurboError
    ├── OptionNameError    (TypeError)     an option that does not exist; names the near ones
    ├── OptionValueError   (ValueError)    a value that the option does not take; names what it takes
    ├── ProfileNameError   (LookupError)   a profile that does not exist; names the near ones
    ├── ConfigError        (ValueError)    a pyproject.toml or torchturbo.toml that cannot be read; says which line
    ├── TargetError        (TypeError)     `accelerate` or a check cannot take this; says what to do instead
    ├── ScalingError       (RuntimeError)  fp16 gradients that cannot be scaled; says what to write instead
    ├── AccumulationError  (RuntimeError)  a step that cannot wait for its micro-batches; says what to write
    ├── DistributedError   (RuntimeError)  what cannot be done on several ranks like that; says what to write instead
    ├── CheckpointError    (RuntimeError)  a checkpoint that is not there, or is of something else
    ├── ReproducibilityError (RuntimeError) strict=True and two runs differ, or a fresh process failed
    ├── CacheError         (RuntimeError)  what `cached` cannot keep, as it is random or no data; says what to cache
    ├── UnsupportedHere    (RuntimeError)  strict=True and this machine cannot do what was asked
    ├── RanksError         (RuntimeError)  processes that train together cannot do the same; says which, and why
    ├── MissingPackageError (ImportError)  an optional package that is not installed; says what to type
    ├── WrongThreadError   (RuntimeError)  a block was closed in a thread that did not open it
    ├── RestoreError       (RuntimeError)  torch refused a value on the way back; says which
    └── LeakError          (AssertionError) a block that was to leave torch as it was has not; says what it changed

    CompileWarning         (UserWarning)   what was to be compiled runs eagerly; says what and why
    AccumulationWarning    (UserWarning)   a step was taken before all its micro-batches had come
    ScalingWarning         (UserWarning)   a model may not learn from its fp16 gradients; says why
    HardwareWarning        (UserWarning)   a profile is of another machine, or a model is not converted on this one
    RanksWarning           (UserWarning)   processes that train together are asked for different things; says which
    CacheWarning           (UserWarning)   something is built anew where it was to be kept; says why
    DeterminismWarning     (UserWarning)   the next run may have other bits; says by what, and where it was called
    LeakWarning            (UserWarning)   a test has left torch's global state changed; says which
    WatchWarning           (UserWarning)   a loop keeps the machine waiting; says why, and what to try

Errors about what was asked are raised before anything has been changed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TurboError(Exception):
    """The root of every error that torchturbo raises."""


class OptionNameError(TurboError, TypeError):
    """An option was named that does not exist."""


class OptionValueError(TurboError, ValueError):
    """An option was given a value that it does not take."""


class ScalingError(TurboError, RuntimeError):
    """A backward or a step in fp16 that cannot be scaled so that it trains as well; says what to write instead."""


class ProfileNameError(TurboError, LookupError):
    """A profile was named that does not exist."""


class ConfigError(TurboError, ValueError):
    """A pyproject.toml or torchturbo.toml that cannot be read, or says what cannot be."""


class TargetError(TurboError, TypeError):
    """`accelerate` was given what it cannot decorate, or a check what it cannot run."""


class ReproducibilityError(TurboError, RuntimeError):
    """``strict=True`` and two runs of a check differ, or one of its fresh processes failed."""


class CacheError(TurboError, RuntimeError):
    """Something that cannot be built once and kept: it is random, changes, or is no data; says what to write."""


class UnsupportedHere(TurboError, RuntimeError):
    """``strict=True``, and this machine cannot do what was asked."""


class RanksError(TurboError, RuntimeError):
    """Processes that train together cannot decide alike."""


class MissingPackageError(TurboError, ImportError):
    """What was asked for needs a package that is optional, and not installed."""


class WrongThreadError(TurboError, RuntimeError):
    """A block was closed in a thread that did not open it."""


class RestoreError(TurboError, RuntimeError):
    """torch refused a value that had to be put back."""


class LeakError(TurboError, AssertionError):
    """Something has left torch's global state changed that was to leave it as it was."""


class AccumulationError(TurboError, RuntimeError):
    """A step that cannot wait for the rest of its micro-batches; says what to write instead."""


class DistributedError(TurboError, RuntimeError):
    """What cannot be done on several ranks like that; says what to write instead."""


class CheckpointError(TurboError, RuntimeError):
    """A checkpoint that is not there, is not whole, or is of something else than it is to be loaded into."""


class AccumulationWarning(UserWarning):
    """A step was taken before all its micro-batches had come."""


class ScalingWarning(UserWarning):
    """Gradients are computed in fp16, and the model may not learn from them."""


class CompileWarning(UserWarning):
    """Something that was to be compiled runs eagerly, wholly or in part."""


class HardwareWarning(UserWarning):
    """A profile that was measured on another machine or torch, or a model that this machine cannot compute as asked."""


class RanksWarning(UserWarning):
    """Processes that train together are asked for different things, or one has not told what it is asked for."""


class CacheWarning(UserWarning):
    """Something was to be kept, and is built anew: there is no room, it is broken, or what it comes of has changed."""


class DeterminismWarning(UserWarning):
    """Something that may give other bits in the next run, where the same ones are asked for."""


class LeakWarning(UserWarning):
    """A test, a fixture or an import has left torch's global state changed, and is only to be told of it."""


class WatchWarning(UserWarning):
    """A watched loop leaves the machine idle for much of the time."""


def near(word: str, words: Iterable[str]) -> str:
    """A half sentence that names the words nearest to `word`, or all of them if none is near.

    Args:
        word: what was written.
        words: what could have been written.
    """
    known = {known.lower(): known for known in sorted(words)}
    close = difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.55)
    if not close and word:
        close = [lower for lower in known if word.lower() in lower or lower in word.lower()][:3]
    if close:
        return "did you mean " + " or ".join(repr(known[lower]) for lower in close) + "?"
    return "known: " + ", ".join(known.values())


def in_a_line(error: BaseException) -> str:
    """An error by its name and the first line of what it says; one that a data loader's worker has raised by its own.

    Args:
        error: any.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    if len(lines) > 2 and lines[1].startswith("Original Traceback"):
        return lines[-1]
    return f"{type(error).__name__}: {lines[0] if lines else 'no more is known'}"
