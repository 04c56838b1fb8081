"""How a script is started under a profile: what has to be right before Python starts, and the block around it."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
from functools import partial
from types import CodeType

import click

from torchturbo import _inherited
from torchturbo._active import Active
from torchturbo._arrays import float_arrays, half_asked
from torchturbo._ranks import agree_at_launch
from torchturbo._report import gather
from torchturbo._turbo import _enter, _leave, turbo
from torchturbo.cli._script import run
from torchturbo.hardware import place

_TYPES = re.compile(r"BFloat16|bfloat16|\bHalf\b|float16|dtype|scalar type|Simplex\(\)")
"""What torch's errors say where an operation refuses half precision, or it beside float32; the last is its check that
probabilities add up to 1 within a millionth."""

_AGAIN = "_TORCHTURBO_STARTED_AGAIN"
_HASHES, _WORKSPACE = "PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG"


def started_right() -> turbo:
    """The block for a script, in a process that was started with what the block needs.

    Python reads PYTHONHASHSEED when it starts, so it is started again where that has to be another one, in the same
    process and with the same flags. What this machine cannot do is left out, and told in the report.
    """
    again = os.environ.pop(_AGAIN, None) == str(os.getpid())
    around = turbo()
    values = {d.name: d.value for d in around._prepared().plan.decisions if d.refused is None}
    seed, deterministic = values.get("seed"), values.get("deterministic") not in (None, False)
    if deterministic:
        os.environ.setdefault(_WORKSPACE, str(values.get("cublas_workspace", ":4096:8")))
    if (seed is not None or deterministic) and os.environ.get(_HASHES, "random") == "random":
        os.environ[_HASHES] = str(seed % 2**32) if isinstance(seed, int) else "0"
        if sys.flags.ignore_environment:
            click.echo(f"torchturbo: {_HASHES} is not heeded, since python was started with -E or -I", file=sys.stderr)
        elif not again:
            os.environ[_AGAIN] = str(os.getpid())
            sys.stdout.flush()
            sys.stderr.flush()
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    # Not before Python was started for good: who serves the others must not end.
    agree_at_launch()
    return turbo()


def launched(around: turbo, script: str, arguments: tuple[str, ...], *, module: bool, report: bool) -> None:
    """Runs a script in a block, which stays in force until Python ends: threads and exit handlers may still run.

    Args:
        around: the block.
        script: a file, a folder, ``-`` or the name of a module.
        arguments: the script's.
        module: whether it is the name of a module.
        report: whether to say at the end what is in force.
    """
    active = _enter(around, (0, _named(f"-m {script}" if module else script), -1))
    float_arrays(around)
    atexit.register(_end, active, os.getpid() if report else None)
    _inherited.hand_down()
    try:
        run(script, arguments, module=module, hint=partial(_hint, half_asked(around)))
    except SystemExit as ended:
        if not ended.code:
            active.end()
        raise
    active.end()


def _hint(half: str | None, error: BaseException) -> str | None:
    """What may help a script that autocast has ended, or None where another cause is as likely.

    Args:
        half: what forward passes are computed in, or None where that is float32.
        error: what ended it.
    """
    if half is None or not isinstance(error, (RuntimeError, TypeError, ValueError)) or not _TYPES.search(str(error)):
        return None
    return (
        f"torchturbo: forward passes are computed in {half} here, which some operations refuse. "
        "--set autocast=none computes them in float32, with all else of the profile"
    )


def _named(name: str) -> CodeType:
    """Code for messages and reports to say where the block was opened."""
    return compile("", name, "exec")


def _end(active: Active, reporting: int | None) -> None:
    if reporting == os.getpid() and sys.stderr is not None and place().rank == 0:
        sys.stderr.write(gather(active).to_text(shutil.get_terminal_size((100, 24)).columns) + "\n")
    if active in active._open:
        _leave(active, None, ended=False)
