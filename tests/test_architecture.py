"""The house as it is described: imports point down, files are small and in their place, names are documented."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import torchturbo
from tests.architecture import Module, modules

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "torchturbo"

# From the ground up: a part imports what stands before it, and nothing that stands after it. A new part gets its place.
ORDER = (
    "errors",  # what can go wrong
    "_words",  # bytes, times, counts and options in words, and amounts out of words
    "_dynamo",  # how Dynamo is told to keep away
    "_options",  # the options as types, for type checkers
    "hardware",  # facts about this machine
    "settings",  # what can be set
    "regions",  # what is opened around code
    "schedules",  # learning rates over a run
    "_catalogue",  # all options, found by looking
    "profiles",  # named values of options
    "_measured",  # what profiles were measured on
    "_config",  # what stands in a file
    "_sources",  # who else asks than the code
    "_ranks",  # what processes that train together agree on
    "_together",  # one decision of ranks that measure together
    "_plan",  # from these to decisions; pure
    "_program",  # a plan, ready to be put in force
    "_stack",  # what is in force over what
    "_active",  # one entry of a block
    "_turbo",  # decisions put in force
    "_resume",  # a block's state, for a checkpoint
    "_environment",  # the environment variables that overrule torch
    "_sheet",  # what is found, laid out for a terminal
    "_told",  # the forms that what has been found takes
    "_watch",  # what loops do with their time
    "_pictures",  # the forms that have pictures
    "_float8",  # layers that multiply in float8
    "_report",  # what is in force, in words
    "_turns",  # code that runs in turns
    "_wrap",  # what is called, in blocks
    "_outputs",  # what modules return
    "_modules",  # modules, in blocks
    "_accelerate",  # all of these
    "_prefetch",  # loaders, one batch ahead
    "_replay",  # a function again and again from the same state
    "_oom",  # a step that runs out of memory
    "_reproducible",  # the same bits twice, proven
    "_models",  # small models to measure
    "_benchmark",  # what settings buy on a step
    "_cached",  # what is built once
    "_layers",  # which layers of it cost most
    "_memory",  # where the memory of a step goes
    "_tune",  # the best settings for a step
    "_tune_loader",  # the best settings for a data loader
    "_distribute",  # a model on several processes
    "_doctor",  # what is wrong here, and how to mend it
    "_arrays",  # what NumPy gets of scripts' tensors
    "_inherited",  # what spawned processes inherit
    "testing",  # for users' tests
    "integrations",  # around the loops of other libraries
    "torchturbo",  # what users import
    "cli",  # what users type
    "__main__",
)
# What waits in a function until it is needed may point up, where this says why.
UPWARDS = {
    ("_active", "_report"): "Active.report() is a method of what is below the report",
    ("_active", "_resume"): "so are Active.state_dict() and load_state_dict()",
    ("regions", "_watch"): "a region that watches loops needs it with the first batch, and others never",
    ("_accelerate", "_oom"): "what is put back is looked for, and found, in what is accelerated too",
    (
        "_oom",
        "_memory",
    ): "what switches would have freed is counted where memory has run out, which most steps never see",
    ("_report", "torchturbo"): "a report says which torchturbo made it",
}


def part(module: str) -> str:
    """The part of the house that a module of the package belongs to."""
    parts = module.split(".")
    named = parts[1] if len(parts) > 1 and parts[1] in ORDER else "torchturbo"
    return named if len(parts) > 1 else "torchturbo"


def pointing_up(package: Path) -> list[str]:
    """The imports of a package that point up, or sideways from one area to another."""
    found = []
    for module in modules(package):
        here = part(module.name)
        for imported in module.imports:
            if not imported.of.startswith("torchturbo"):
                continue
            there = part(imported.of)
            up = ORDER.index(there) > ORDER.index(here) and not (imported.late and (here, there) in UPWARDS)
            if up or _sideways(module.name, imported.of):
                found.append(f"{module.name} imports {imported.of}")
    return sorted(found)


def _sideways(importer: str, imported: str) -> bool:
    """Whether a file of settings or regions imports another that is no underscored ground of theirs."""
    area = re.fullmatch(r"torchturbo\.(settings|regions)\.\w+", importer)
    if area is None or not imported.startswith(f"torchturbo.{area[1]}."):
        return False
    return not imported.split(".")[2].startswith("_")


def test_every_part_has_its_place() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found - {"__init__"} | {"torchturbo"} == set(ORDER)
    assert (PACKAGE / "py.typed").exists()


def test_imports_point_down() -> None:
    assert pointing_up(PACKAGE) == []


def test_an_import_that_points_up_would_be_seen(tmp_path: Path) -> None:
    files = {
        "__init__.py": "from torchturbo._turbo import turbo",
        "errors.py": "def late():\n    from torchturbo import settings",
        "_active.py": "def late():\n    from torchturbo._report import report",
        "_report.py": "from torchturbo._turbo import turbo",
        "_stack.py": "if TYPE_CHECKING:\n    from torchturbo._turbo import turbo\nimport torchturbo.cli.run",
        "settings/cudnn.py": "from torchturbo.settings._base import Cell\nfrom torchturbo.settings.float32 import tf32",
    }
    for name, text in files.items():
        path = tmp_path / "torchturbo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert pointing_up(tmp_path / "torchturbo") == [
        "torchturbo._stack imports torchturbo.cli.run",
        "torchturbo.errors imports torchturbo.settings",
        "torchturbo.settings.cudnn imports torchturbo.settings.float32.tf32",
    ]


def test_what_may_point_up_does() -> None:
    used = {
        (part(module.name), part(imported.of))
        for module in modules(PACKAGE)
        for imported in module.imports
        if imported.late and imported.of.startswith("torchturbo")
    }
    assert UPWARDS.keys() <= used, "an exception that nothing needs any more"


def test_pynvml_has_one_importer() -> None:
    importers = [m.name for m in modules(PACKAGE) if any(i.of.split(".")[0] == "pynvml" for i in m.imports)]
    assert importers == ["torchturbo.hardware._nvml"]


def test_matplotlib_has_one_importer_which_waits_for_it() -> None:
    importers = {(m.name, i.late) for m in modules(PACKAGE) for i in m.imports if i.of.split(".")[0] == "matplotlib"}
    assert importers == {("torchturbo._pictures.plot", True)}


# ------------------------------------------------------------------------------------------------------------ files


MADE_BY_TOOLS = {"out", "dist", "build", "htmlcov", "__pycache__"}


def sources() -> Iterator[Path]:
    """Every file of the project that is text, and not made by a tool."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in MADE_BY_TOOLS and (name[0] != "." or name == ".ci")]
        yield from (
            Path(folder, name) for name in files if (name[0] != "." or name == ".gitignore") and name[-4:] != ".png"
        )


def test_files_are_small() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in sources()
        if path.suffix == ".py"
        and path.relative_to(ROOT).parts[0] != "tests"  # a table of cases is as long as it is
        and (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert long == {}


def test_no_file_is_called_what_could_be_anything() -> None:
    vague = re.compile(r"(utils?|common|helpers?|misc|managers?|handlers?|core|base)$")
    assert [path for path in sources() if path.suffix == ".py" and vague.match(path.stem)] == []


def test_no_file_names_a_path_of_this_machine() -> None:
    here = [str(ROOT), f"{Path.home()}/", sys.prefix]
    for path in sources():
        text = path.read_text(encoding="utf-8")
        assert [name for name in here if name in text] == [], path


# ------------------------------------------------------------------------------------------------------------ words


def test_everything_public_is_documented() -> None:
    assert [name for module in modules(PACKAGE) for name in module.undocumented] == []


def test_what_has_no_documentation_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "bare.py"
    path.write_text(
        "def f(): ...\nclass C:\n  '''Is.'''\n  def m(self): ...\n  def _p(self): ...\n@overload\ndef g(): ...\n"
    )
    assert Module("bare", path).undocumented == ["bare:the module", "bare:f", "bare:C.m"]


NOT_MADE_BY_USERS = {"Active", "Distribution", "Report", "Reproduction"}


def public_callables() -> Iterator[tuple[str, Callable[..., object]]]:
    for module in ("torchturbo", "torchturbo.testing", "torchturbo.hardware"):
        found = importlib.import_module(module)
        for name in set(found.__all__) - NOT_MADE_BY_USERS:
            value = getattr(found, name)
            if inspect.isfunction(value) or (inspect.isclass(value) and "__init__" in vars(value)):
                yield f"{module}.{name}", value


PUBLIC = dict(public_callables())


@pytest.mark.parametrize("name", PUBLIC)
def test_each_argument_is_explained(name: str) -> None:
    value = PUBLIC[name]
    doc = inspect.getdoc(value) or ""
    arguments = set(inspect.signature(value).parameters)
    described = set(re.findall(r"^ +\*{0,2}(\w+)(?: \(.*\))?: ", doc.partition("Args:")[2], flags=re.MULTILINE))
    if inspect.isclass(value) and hasattr(value, "__dataclass_fields__"):
        described = set(re.findall(r"^ +(\w+): ", doc.partition("Attributes:")[2], flags=re.MULTILINE))
    assert arguments <= described, f"{name}: {arguments - described}"


def test_what_users_import_is_there() -> None:
    assert {*torchturbo._FROM, "__version__"} == set(torchturbo.__all__)
    assert sorted(torchturbo.__all__) == sorted(set(torchturbo.__all__))
    assert [name for name in torchturbo.__all__ if getattr(torchturbo, name, None) is None] == []
    documented = "".join(path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")])
    verbs = [name for name in torchturbo.__all__ if name.islower() and not name.startswith("_")]
    assert [name for name in verbs if not re.search(rf"\b{name}\b", documented)] == []


# ----------------------------------------------------------------------------------------------------- dependencies


def declared() -> set[str]:
    """The distributions that the package depends on, and those that it draws pictures with if they are there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["plot"]]
    return {re.split(r"[<>=!~ \[]", requirement)[0] for requirement in wanted}


ONLY_WITHIN = {"torchturbo.testing._plugin": {"pytest"}, "torchturbo._float8": {"torchao"}} | {
    # Lightning has had two names.
    f"torchturbo.integrations.{path.stem}": {path.stem, *{"lightning": {"pytorch_lightning"}}.get(path.stem, ())}
    for path in (PACKAGE / "integrations").glob("[!_]*.py")
}
"""What a module may import because nothing but that loads it, or because it is about that."""


def imported() -> set[str]:
    """The distributions that the package imports something of, sooner or later."""
    distributions = packages_distributions()
    tops = {
        top
        for module in modules(PACKAGE)
        for i in module.imports
        if (top := i.of.split(".")[0]) not in ONLY_WITHIN.get(module.name, ())
    }
    others = tops - set(sys.stdlib_module_names) - {"torchturbo"}
    return {name for top in others for name in distributions.get(top, [f"(nobody has {top})"])}


def test_each_library_beside_which_it_runs_is_an_extra_by_its_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    libraries = {path.stem for path in (PACKAGE / "integrations").glob("[!_]*.py")} - {"__init__"}
    assert libraries <= extras.keys()
    together = {*libraries, "float8", "geometric"}
    assert set(extras["integrations"]) == {requirement for name in together for requirement in extras[name]}


def test_what_is_depended_on_is_used_and_what_is_used_is_depended_on() -> None:
    assert imported() == declared()
