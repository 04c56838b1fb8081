"""The step that a command measures: a function by name, or a model that is built in; and how what fails is said."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import click

from torchturbo._models import MODELS, SIZES
from torchturbo.errors import OptionValueError, TurboError

T = TypeVar("T")
WRONG = 2


def of_a_step(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the arguments that name a step: FUNCTION, or --model and --size."""
    for add in (
        click.option("--size", type=click.Choice(SIZES), help="How large the built-in model is.  [default: small]"),
        click.option("--model", type=click.Choice(MODELS), help="A model that is built in, in place of FUNCTION."),
        click.argument("function", type=click.Path(), required=False),
    ):
        command = add(command)
    return command


def measured(
    measure: Callable[..., T], function: str | None, model: str | None, size: str | None, **how: Any
) -> tuple[T, str | None]:
    """What comes of measuring a step, and what the step is where it is a built-in one; wrong usage ends the command.

    Args:
        measure: takes the step, and how.
        function: the step's name.
        model: or the model's.
        size: of the model.
        **how: what else it takes.
    """
    if (function is None) == (model is None):
        raise click.UsageError(
            "expected a FUNCTION, as train.py:step, or a model that is built in, as --model gpt"
            + ("" if function is None else ": both is one too many")
        )
    if size is not None and model is None:
        raise click.UsageError("--size is of a model that is built in: name one, as --model gpt --size small")

    def measure_it() -> tuple[T, str | None]:
        if model is None:
            return measure(function, **how), None
        from torchturbo._models import make

        made = make(model, size or "small")
        its = measure(made.step, modules=[made.model], optimizers=[made.optimizer], **how)
        return its, made.about

    return answered(measure_it)


def answered(ask: Callable[[], T]) -> T:
    """What comes of running a function of the user's; what is wrong with it ends the command.

    Of several ranks the first one goes on, which prints and writes; the command ends on the others.

    Args:
        ask: runs it.
    """
    from torchturbo.hardware import place

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        # What the function prints is not the answer.
        with redirect_stdout(sys.stderr):
            found = ask()
        if not place().rank:
            return found
        sys.exit(0)
    except TurboError as error:
        raise click.UsageError(str(error)) from error
    except Exception:
        traceback.print_exc()
    sys.exit(WRONG)


def chosen(options: tuple[str, ...]) -> dict[str, Any]:
    """Options as they are typed, OPTION=VALUE each, with the values that they mean; wrong usage ends the command.

    Args:
        options: of the command line.
    """
    from torchturbo._sources import parse

    found: dict[str, Any] = {}
    for text in options:
        name, equals, value = text.partition("=")
        try:
            if not equals:
                raise OptionValueError("expected OPTION=VALUE, as --set num_threads=4")
            found[name.strip()] = parse(name.strip(), value)
        except TurboError as error:
            raise click.UsageError(f"--set {text}: {error}") from error
    return found


def refuse_no_folder(files: Mapping[str, Path | None]) -> None:
    """Ends the command where a file cannot be written, before anything has been measured.

    Args:
        files: what the options name, by option.
    """
    for option, path in files.items():
        if path is not None and not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise click.UsageError(f"{option} {path}: nothing can be written there")


def written(path: Path, text: str) -> None:
    """Writes a text into a file, and says so.

    Args:
        path: the file.
        text: what to write.
    """
    path.write_text(text, encoding="utf-8")
    said(path)


def said(path: Path) -> None:
    """Says that a file has been written, where it is not in the way of what is printed for programs.

    Args:
        path: the file.
    """
    click.echo(f"written: {path}", err=True)
