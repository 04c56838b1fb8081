"""Checks of what variables and files ask of torchturbo."""

from __future__ import annotations

from collections.abc import Iterator

from torchturbo._doctor.here import CHECKS, Here
from torchturbo._plan import decide
from torchturbo.profiles import PROFILES


@CHECKS.problem
def what_is_asked_is_refused(here: Here) -> Iterator[tuple[str, str]]:
    """Variables and files of torchturbo's that name what does not exist, or a value that cannot be."""
    for mistake in here.around.mistakes:
        says = mistake.says.rstrip(".") + ("" if mistake.says.endswith("?") else ".")
        if mistake.variable is None:
            yield says, "Mend that line: until then every block and everything accelerated raises this."
        else:
            yield says, f"`unset {mistake.variable}`, or mend it: `torchturbo settings` lists what there is."


@CHECKS.problem
def switched_off(here: Here) -> Iterator[tuple[str, str]]:
    """Somebody has switched torchturbo off in this environment."""
    off = here.around.sources.disabled
    if off is not None:
        yield f"{off}: blocks and what is accelerated change nothing.", f"`unset {off.partition('=')[0]}`"


@CHECKS.advice
def asked_twice(here: Here) -> Iterator[tuple[str, str]]:
    """An option of the file that a variable overrules with another value."""
    sources = here.around.sources
    for name, (value, place) in sources.file.items():
        if name in sources.environment and sources.environment[name].value != value:
            beats = sources.environment[name]
            yield (
                f"{beats.origin} ({name}={beats.value!r}) beats {place} ({name}={value!r}).",
                f"`unset {beats.origin}` for what the file says.",
            )


@CHECKS.advice
def asked_in_vain(here: Here) -> Iterator[tuple[str, str]]:
    """What a file or a variable asks for, and this machine does not have."""
    plan = decide(PROFILES["fast"], {}, here.report.hardware, here.around.sources)
    for decision in plan.refused:
        if not decision.origin.startswith("profile "):
            yield (
                f"{decision.origin} asks for {decision.name}={decision.asked!r}, "
                f"which is left out here: {decision.refused}.",
                "Nothing has to be done: it acts where a machine has it.",
            )


@CHECKS.problem
def deterministic_without_a_workspace(here: Here) -> Iterator[tuple[str, str]]:
    """`deterministic` on a GPU without the variable on which cuBLAS's bits depend."""
    plan = decide(PROFILES["fast"], {}, here.report.hardware, here.around.sources)
    wanted = {decision.name: decision for decision in plan.decisions}
    deterministic = wanted.get("deterministic")
    asked = deterministic is not None and deterministic.value is not False
    set_already = "cublas_workspace" in wanted or "CUBLAS_WORKSPACE_CONFIG" in here.around.environ
    if here.report.hardware.gpus and (asked or here.report["deterministic"].now is not False) and not set_already:
        by = f"{deterministic.origin} asks for deterministic" if asked and deterministic else "deterministic is on"
        yield (
            f"{by}, and CUBLAS_WORKSPACE_CONFIG is not set, on which equal bits of cuBLAS depend.",
            "`export CUBLAS_WORKSPACE_CONFIG=:4096:8` before Python starts.",
        )
