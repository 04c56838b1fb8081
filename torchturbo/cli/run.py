"""`torchturbo run`: an unmodified script under a profile, otherwise as python runs it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from torchturbo.cli import Launch
from torchturbo.cli._typed import ProfileName, set_option
from torchturbo.errors import OptionValueError, TurboError

if TYPE_CHECKING:
    from torchturbo._sources import Given

_BARE = {
    "DETERMINISTIC": "deterministic",
    "SEED": "seed",
    "USE_AMP": "autocast",
    "NUM_WORKERS": "num_workers",
    "PIN_MEMORY": "pin_memory",
    "PREFETCH_FACTOR": "prefetch_factor",
    "PERSISTENT_WORKERS": "persistent_workers",
}
"""Names that people use in launch lines, and the option that each stands for."""

_ALLOW_WORKERS = "ALLOW_UNSAFE_DATALOADER"
"""Where this is off, data are loaded by one process, whatever NUM_WORKERS says."""

_SCRIPT = "torchturbo.script"


class _Run(click.Command):
    """A command whose options end where the script begins, as python's do."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Takes what is ours; what comes after the script or ``-m module`` is the script's."""
        valued = {name for p in self.params if isinstance(p, click.Option) and not p.is_flag for name in p.opts}
        place, module, script = 0, False, len(args)
        while place < len(args):
            word = args[place]
            if word.startswith("-m") or not word.startswith("-") or word in ("-", "--"):
                script = place
                break
            place += 2 if word in valued else 1
        theirs = args[script:]
        if theirs and theirs[0].startswith("-m"):
            module, theirs = True, [theirs[0][2:], *theirs[1:]] if len(theirs[0]) > 2 else theirs[1:]
            if not theirs and not ctx.resilient_parsing:
                raise click.UsageError("-m takes the name of a module", ctx)
        elif theirs and theirs[0] == "--":
            theirs = theirs[1:]
        ctx.meta[_SCRIPT] = theirs, module
        return super().parse_args(ctx, args[:script])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Our options until the script is named, and from there on whatever the shell has: files."""
        theirs, module = ctx.meta[_SCRIPT]
        if incomplete.startswith("-") and not theirs and not module:
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(incomplete, type="file")]

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """What stands after the command's name."""
        return ["[OPTIONS]", "{SCRIPT | -m MODULE | -}", "[ARGUMENTS]..."]


@click.command(
    cls=_Run,
    epilog="Exit codes: the script's own, as are signals that end it; 2 says that this line is wrong.",
)
@click.option(
    "--profile", type=ProfileName(), metavar="NAME", help="A profile, built in or from a file; in code's blocks too."
)
@set_option("An option; again for another one.")
@click.option("--seed", metavar="S", help="The same as --set seed=S.")
@click.option("--monitor", is_flag=True, help="Watch its loops over data loaders; the same as --set monitor=true.")
@click.option("--report", is_flag=True, help="At the end, say on stderr what is in force, and who asked for it.")
@click.option(
    "--bare-names/--no-bare-names",
    default=True,
    help="Whether SEED, NUM_WORKERS and their like are options (they are).",
)
@click.pass_context
def run(
    ctx: click.Context,
    profile: str | None,
    options: tuple[str, ...],
    seed: str | None,
    monitor: bool,
    report: bool,
    bare_names: bool,
) -> None:
    r"""Run a script as python does, under a profile.

    \b
    Example:
        torchturbo run --profile fast train.py --epochs 3
        torchturbo run --set num_threads=4 --report -m package.train
        torchrun --nproc-per-node 2 -m torchturbo run train.py

    Without --profile it is that of TORCHTURBO_PROFILE, or of the file that configures torchturbo, or fast.
    """
    from torchturbo import _sources
    from torchturbo.cli._start import launched, started_right

    theirs, module = ctx.meta[_SCRIPT]
    if not theirs:
        raise click.UsageError("what is to be run is missing: a script, '-m module', or '-' for stdin", ctx)
    script, *arguments = theirs
    if not module:
        from torchturbo.cli._script import refuse_missing

        refuse_missing(script)
    try:
        others = _sources.read(
            os.environ,
            _sources.folder(),
            command=_written(options, seed, monitor),
            profile=profile,
            bare=_bare(os.environ) if bare_names else None,
        )
        _sources.settle(others)
        around = started_right()
    except TurboError as error:
        raise click.UsageError(str(error), ctx) from None
    raise Launch(lambda: launched(around, script, tuple(arguments), module=module, report=report))


def _written(options: tuple[str, ...], seed: str | None, monitor: bool) -> dict[str, Given]:
    from torchturbo._sources import Given

    written = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals:
            raise OptionValueError(f"--set {text}: expected OPTION=VALUE, as --set num_threads=4")
        written[name.strip()] = Given(value, f"--set {text}")
    if seed is not None:
        written["seed"] = Given(seed, f"--seed {seed}")
    if monitor:
        written["monitor"] = Given("true", "--monitor")
    return written


def _bare(environ: Mapping[str, str]) -> dict[str, Given]:
    from torchturbo._sources import Given, switch

    given = {option: Given(environ[name], name) for name, option in _BARE.items() if environ.get(name)}
    allowed = environ.get(_ALLOW_WORKERS)
    if allowed and not switch(_ALLOW_WORKERS, allowed):
        given["num_workers"] = Given("0", f"{_ALLOW_WORKERS}={allowed}")
    return given
