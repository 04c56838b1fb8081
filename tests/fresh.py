"""Code in a process whose Python has imported torch and nothing more: a fork of one that is started once for all tests.

To import torch takes seconds, and a fork of who has does not. It ends as Python ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from types import ModuleType, TracebackType

import torch  # noqa: F401 - for those that are forked

ROOT = Path(__file__).parents[1]


class Fresh:
    """A Python that forks; it starts when it is first asked to, and ends with the block."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory()
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, code: str, *, seconds: int = 120) -> CompletedProcess[str]:
        """What comes of code.

        Args:
            code: what it runs, as ``python -c`` does from the root of the repository.
            seconds: after which it is killed.
        """
        if self._process is None:
            command = [sys.executable, "-m", __name__]
            self._process = subprocess.Popen(
                command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        asks, answers = self._process.stdin, self._process.stdout
        assert asks is not None
        assert answers is not None
        print(json.dumps([code, seconds, self._folder.name]), file=asks, flush=True)
        ended = int(answers.readline())
        out, err = (Path(self._folder.name, name).read_text() for name in ("1", "2"))
        return CompletedProcess(code, ended, out, err)

    def __enter__(self) -> Fresh:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.communicate()
        self._folder.cleanup()


def _forked() -> tuple[str, int, str] | None:
    """In each fork what it is asked; None in the first process, when nobody asks any more."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code, seconds, folder = json.loads(line)
            return code, seconds, folder
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def _run(code: str, seconds: int, folder: str) -> None:
    for number in (1, 2):
        os.dup2(os.open(f"{folder}/{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.alarm(seconds)
    sys.argv[:] = ["-c"]
    sys.modules["__main__"] = made = ModuleType("__main__")
    exec(compile(code, "<string>", "exec"), vars(made))


if __name__ == "__main__" and (asked := _forked()) is not None:
    _run(*asked)
