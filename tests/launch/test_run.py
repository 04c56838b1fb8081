"""`torchturbo run` beside python: the same script, run by both, tells the same of itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import torchturbo
from torchturbo import _sources
from torchturbo.cli import main
from torchturbo.cli.run import _bare
from torchturbo.errors import OptionValueError

FACTS = '''
"""Says of itself what a script can know of itself."""
from __future__ import annotations
import atexit, inspect, json, linecache, multiprocessing, os, pickle, sys, threading, warnings

class Mine:
    """Pickles by its name in __main__."""

def in_child(queue):
    queue.put((__name__, sys.argv[1:], sys.path[0], type(pickle.loads(pickle.dumps(Mine()))).__module__, Mine()))

def late():
    print("at exit", flush=True)

if __name__ == "__main__":
    main = sys.modules["__main__"]
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=in_child, args=(queue,))
    if "spawn" in sys.argv:
        process.start()
        process.join()
    else:
        queue.put(None)
    child = queue.get()
    if child:
        child = *child[:-1], type(child[-1]) is Mine
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        warnings.warn("once")
        warnings.warn("old", DeprecationWarning)
    print(json.dumps({
        "argv": sys.argv, "path": sys.path[0], "names": sorted(globals()), "file": __file__,
        "doc": __doc__, "package": __package__, "spec": __spec__ and __spec__.name, "cached": __cached__,
        "loader": repr(type(__loader__)), "get_source": __loader__.get_source(__loader__.name) is not None,
        "is_main": main.__dict__ is globals(), "pickled": pickle.loads(pickle.dumps(Mine)) is Mine,
        "annotations": __annotations__, "builtins": repr(__builtins__),
        "child": child,
        "warned": [(w.filename, w.lineno) for w in caught], "registry": len(__warningregistry__),
        "source": inspect.getsource(in_child), "line": linecache.getline(__file__, 2),
        "frame": sys._getframe().f_code.co_filename,
        "flags": [sys.flags.bytes_warning, sys.flags.dev_mode, sys.warnoptions],
        "xoptions": sys._xoptions, "excepthook": sys.excepthook is sys.__excepthook__, "executable": sys.executable,
        "stdin": sys.stdin.read(), "thread": threading.current_thread() is threading.main_thread(),
        "handler": repr(__import__("signal").getsignal(2)),
    }), flush=True)
    atexit.register(late)
    threading.Timer(0.2, lambda: print("a thread ends later", flush=True)).start()
    try:
        {}["missing"]
    except KeyError as error:
        sys.exit("and so it ends") if len(sys.argv) == 1 else sys.exit(int(sys.argv[1]))
'''

DEEP = """
import sys
def outer(): inner()
def inner():
    try:
        int("x")
    except ValueError as error:
        raise RuntimeError("deep") from error
if sys.argv[1:] == ["hook"]:
    def hook(kind, error, trace):
        print("mine", kind.__name__, trace is error.__traceback__, trace.tb_frame.f_code.co_name, trace.tb_lineno)
    sys.excepthook = hook
outer()
"""
INTERRUPTED = """
import signal, sys, time
print("here", flush=True)
try:
    time.sleep(60)
finally:
    print("cleaned", flush=True)
"""
STDIN = "import sys\nprint(__name__, __file__, __spec__, sys.argv, sys.path[0])\nraise SystemExit(5)\n"
BROKEN = "import sys\nprint('never')\nthis is not python\n"
CHILD = """
import json, multiprocessing, os, sys
import torch
from torchturbo import turbo

def here():
    loader = torch.utils.data.DataLoader(Data())
    given = loader.num_workers, loader.prefetch_factor, loader.persistent_workers, loader.pin_memory
    return torch.get_num_threads(), torch.is_autocast_enabled("cpu"), torch.is_anomaly_enabled(), given

def in_child(queue):
    queue.put(here())

class Data:
    def __len__(self): return 1
    def __getitem__(self, at): return torch.tensor([torch.get_num_threads(), here()[1], here()[2]])

if __name__ == "__main__":
    told = {"script": here()}
    with turbo("exact", num_threads=2):
        told["block"] = here()
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=in_child, args=(queue,))
    process.start()
    told["child"] = queue.get()
    process.join()
    loader = torch.utils.data.DataLoader(Data(), num_workers=1, multiprocessing_context="spawn")
    told["worker"] = next(iter(loader)).tolist()[0]
    told["hash"] = os.environ.get("PYTHONHASHSEED"), hash("a word")
    told["cublas"] = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    told["ours"] = [name for name in os.environ if name.startswith("_TORCHTURBO")]
    told["flags"] = sys.flags.utf8_mode, sys.warnoptions
    print(json.dumps(told))
"""


@dataclass
class Done:
    """How a process ended."""

    code: int
    out: str
    err: str


ROOT = str(Path(torchturbo.__file__).parents[1])
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHTURBO", "COV_", "COVERAGE"))}


class Started:
    """A process that runs, and both of its outputs."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], given: str, environ: Mapping[str, str]) -> None:
        paths = os.pathsep.join([ROOT, CLEAN.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env={**CLEAN, "PYTHONPATH": paths, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.given = given

    def ended(self) -> Done:
        out, err = self.process.communicate(self.given, timeout=90)
        return Done(self.process.returncode, out, err)


WAYS: dict[str, tuple[tuple[str, ...], str]] = {
    "script": (("there/../facts.py", "3", "spawn"), "given"),
    "link": (("there/link.py",), ""),
    "module": (("-m", "package.facts", "7", "spawn"), ""),
    "folder": (("there", "3"), ""),
    "error": (("deep.py",), ""),
    "hook": (("deep.py", "hook"), ""),
    "module error": (("-m", "deep"), ""),
    "no module": (("-m", "package.nothing"), ""),
    "stdin": (("-", "--flag"), STDIN),
    "broken": (("broken.py",), ""),
}
OURS = ("-m", "torchturbo", "run", "--profile", "debug")
FLAGS = ("-X", "utf8", "-W", "error::FutureWarning", "-b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("scripts")
    (made / "there").mkdir()
    (made / "package").mkdir()
    (made / "package" / "__init__.py").touch()
    files = {
        "facts.py": FACTS,
        "package/facts.py": FACTS,
        "there/__main__.py": FACTS,
        "deep.py": DEEP,
        "interrupted.py": INTERRUPTED,
        "broken.py": BROKEN,
        "child.py": CHILD,
    }
    for name, text in files.items():
        (made / name).write_text(text)
    (made / "there" / "link.py").symlink_to(made / "facts.py")
    return made


@pytest.fixture(scope="module")
def ways(folder: Path) -> dict[str, tuple[Done, Done]]:
    """Each way to start a script, by python and by us; two at a time."""
    done = {}
    for name, (arguments, given) in WAYS.items():
        pair = [Started(folder, (*FLAGS, *before, *arguments), given, {}) for before in ((), OURS)]
        done[name] = (pair[0].ended(), pair[1].ended())
    return done


@pytest.mark.parametrize("way", WAYS)
def test_a_script_tells_the_same_of_itself(way: str, ways: dict[str, tuple[Done, Done]]) -> None:
    plain, ours = ways[way]
    assert ours == plain
    if way in ("script", "link", "module", "folder"):
        facts, *rest = plain.out.splitlines()
        assert bool(json.loads(facts)["child"]) == (way in ("script", "module"))
        assert rest == ["a thread ends later", "at exit"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_ends_it_as_it_ends_python(folder: Path) -> None:
    endings = []
    # Shells have what runs in their background ignore it, and so would all that is started from there.
    heeded = signal.signal(signal.SIGINT, signal.default_int_handler)
    for before in ((), OURS):
        for number in (signal.SIGINT, signal.SIGTERM):
            started = Started(folder, (*before, "interrupted.py"), "", {})
            assert started.process.stdout is not None
            assert started.process.stdout.readline() == "here\n"
            time.sleep(0.2)  # until it sleeps
            started.process.send_signal(number)
            endings.append(started.ended())
    signal.signal(signal.SIGINT, heeded)
    assert endings[2:] == endings[:2]
    assert [ending.code for ending in endings[:2]] == [-signal.SIGINT, -signal.SIGTERM]


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    """What a script and its processes have in force."""
    (folder / "torchturbo.toml").write_text('[profiles.mine]\nbase = "fast"\nnum_threads = 2\n')
    started = Started(
        folder,
        (
            *("-X", "utf8", "-W", "error::FutureWarning", "-m", "torchturbo", "run", "--profile", "mine", "--report"),
            *("--set", "num_threads=1", "--seed", "7", "child.py"),
        ),
        "",
        {
            **{"DETERMINISTIC": "warn", "USE_AMP": "0", "TORCHTURBO_ANOMALY": "1"},
            **{"NUM_WORKERS": "1", "PREFETCH_FACTOR": "3", "PERSISTENT_WORKERS": "yes", "PIN_MEMORY": "0"},
        },
    )
    done = started.ended()
    (folder / "torchturbo.toml").unlink()
    assert done.code == 0, done.err
    return {**json.loads(done.out), "err": done.err}


def test_what_is_asked_for_is_in_force_in_the_script_its_blocks_and_spawned_processes(told: dict[str, Any]) -> None:
    assert told["script"] == told["block"] == told["child"] == [1, False, True, [1, 3, True, False]]
    assert told["worker"] == [1, 0, 0], "data are made as without us"


def test_python_is_started_with_what_the_profile_needs(told: dict[str, Any]) -> None:
    again = subprocess.run(
        [sys.executable, "-c", "print(hash('a word'))"],
        env={**CLEAN, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told["hash"] == ["7", int(again.stdout)]
    assert told["cublas"] == ":4096:8"
    assert told["ours"] == []
    assert told["flags"] == [1, ["error::FutureWarning"]]


def test_the_report_at_the_end_says_who_asked(told: dict[str, Any]) -> None:
    said = told["err"]
    lines = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    assert "--set num_threads=1" in lines["num_threads"]
    assert "--seed 7" in lines["seed"]
    assert "sets of strings have another order" not in said
    assert " USE_AMP " in lines["autocast"]
    assert " DETERMINISTIC " in lines["deterministic"]
    assert " NUM_WORKERS " in lines["num_workers"]
    assert " PERSISTENT_WORKERS " in lines["persistent_workers"]
    assert "2 data loaders got num_workers=1; 1 named num_workers in the call" in " ".join(said.split())
    assert " TORCHTURBO_ANOMALY " in lines["anomaly"]
    assert "profile mine (--profile)" in lines["tf32"]
    assert "1. mine at child.py:1 in MainThread" in said


BARE = {
    ("NUM_WORKERS=12", "PIN_MEMORY=1", "PREFETCH_FACTOR=3", "PERSISTENT_WORKERS=1"): {
        "num_workers": (12, "NUM_WORKERS"),
        "pin_memory": (True, "PIN_MEMORY"),
        "prefetch_factor": (3, "PREFETCH_FACTOR"),
        "persistent_workers": (True, "PERSISTENT_WORKERS"),
    },
    ("NUM_WORKERS=auto", "PIN_MEMORY=0", "PERSISTENT_WORKERS=no", "PREFETCH_FACTOR="): {
        "num_workers": ("auto", "NUM_WORKERS"),
        "pin_memory": (False, "PIN_MEMORY"),
        "persistent_workers": (False, "PERSISTENT_WORKERS"),
    },
    ("NUM_WORKERS=12", "ALLOW_UNSAFE_DATALOADER=0"): {"num_workers": (0, "ALLOW_UNSAFE_DATALOADER=0")},
    ("ALLOW_UNSAFE_DATALOADER=false",): {"num_workers": (0, "ALLOW_UNSAFE_DATALOADER=false")},
    ("NUM_WORKERS=12", "ALLOW_UNSAFE_DATALOADER=1"): {"num_workers": (12, "NUM_WORKERS")},
    ("NUM_WORKERS=12", "ALLOW_UNSAFE_DATALOADER=0", "TORCHTURBO_NUM_WORKERS=2"): {
        "num_workers": (2, "TORCHTURBO_NUM_WORKERS")
    },
}


@pytest.mark.parametrize("variables", BARE, ids=" ".join)
def test_names_that_people_use(variables: tuple[str, ...]) -> None:
    environ = dict(variable.split("=") for variable in variables)
    found = _sources.read(environ, None, bare=_bare(environ)).environment
    assert {name: tuple(given) for name, given in found.items()} == BARE[variables]


def test_names_that_people_use_have_values_that_they_take() -> None:
    with pytest.raises(OptionValueError, match=r"^ALLOW_UNSAFE_DATALOADER: .*'maybe': expected one of True, False"):
        _bare({"ALLOW_UNSAFE_DATALOADER": "maybe"})
    for name, value, wrong in (
        ("NUM_WORKERS", "many", "num_workers='many': expected an int or 'auto'"),
        ("NUM_WORKERS", "-1", "num_workers=-1: expected at least 0"),
        ("PREFETCH_FACTOR", "0", "prefetch_factor=0: expected at least 1"),
    ):
        with pytest.raises(OptionValueError, match=f"^{name}: {wrong}$"):
            _sources.read({}, None, bare=_bare({name: value}))


WRONG = {
    ("--profile", "fsat", "x.py"): "Error: --profile: there is no profile 'fsat': did you mean 'fast'?",
    ("--set", "num_treads=1", "x.py"): "Error: --set num_treads=1: there is no option 'num_treads': did you mean "
    "'num_threads' or 'num_workers'?",
    ("--set", "num_threads=x", "x.py"): "Error: --set num_threads=x: num_threads='x': expected an int",
    ("--set", "num_threads", "x.py"): "Error: --set num_threads: expected OPTION=VALUE, as --set num_threads=4",
    (
        "nothing.py",
    ): "Error: 'nothing.py' cannot be opened (No such file or directory): the name of a module goes after -m",
    ("-m",): "Error: -m takes the name of a module",
    (): "Error: what is to be run is missing: a script, '-m module', or '-' for stdin",
    ("--profle", "fast", "x.py"): "Error: No such option '--profle'. Did you mean '--profile'?",
}


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_a_wrong_line_is_refused_with_2_and_no_traceback(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.py").touch()
    with _sources.settled(None):
        result = CliRunner().invoke(main, ["run", *arguments])
    assert result.exit_code == 2
    assert result.stderr.rstrip().splitlines()[-1].replace(":  ", ": ") == WRONG[arguments]
    assert "Traceback" not in result.output
