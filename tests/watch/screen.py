"""A terminal that is not there: a pty to write to, and what its screen shows."""

from __future__ import annotations

import os
import pty
import re
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

_PIECES = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


def shown(text: str) -> list[str]:
    """The lines of a screen after a program has written this."""
    lines, row, column = [""], 0, 0
    for number, command, control, words in _PIECES.findall(text):
        if words:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + words + line[column + len(words) :]
            column += len(words)
        elif control == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif control == "\r":
            column = 0
        elif command == "A":
            row = max(0, row - int(number or 1))
        elif command == "J":
            lines[row] = lines[row][:column]
            del lines[row + 1 :]
        elif command == "K":
            lines[row] = lines[row][:column]
    return [line.rstrip() for line in lines]


class Terminal:
    """A terminal that a program writes to."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.written = ""

    @property
    def lines(self) -> list[str]:
        """What its screen shows."""
        return shown(self.written)


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal in a block; all that was written is there after it."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 120))
    found = Terminal(os.fdopen(slave, "w"))

    def read() -> None:
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # nobody has it open any more
                return
            if not piece:
                return
            found.written += piece.decode()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield found
    finally:
        found.stream.close()
        reader.join()
        os.close(master)
