"""The files that tools/generate.py writes are what it would write now."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools import generate
from torchturbo._catalogue import OPTIONS
from torchturbo._options import Options
from torchturbo.cli._document import code
from torchturbo.profiles import PROFILES
from torchturbo.settings._base import Setting

DOCUMENT = (generate.ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_the_generated_files_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    stale = generate.main(["--check"])
    assert not stale, f"run `python tools/generate.py`:\n{capsys.readouterr().out}"


def test_a_stale_file_is_shown_and_then_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {tmp_path / path.relative_to(generate.ROOT): text for path, text in generate.generated().items()}
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "generated", lambda: files)
    (options, text), _, (document, _) = files.items()
    options.parent.mkdir()
    options.write_text(text.replace("    num_threads: int\n", "    num_threads: str\n"))

    assert generate.main(["--check"]) == 1
    shown = capsys.readouterr().out
    assert "\n-    num_threads: str\n+    num_threads: int\n" in shown
    assert "docs/settings.md, as it should be" in shown
    assert not document.exists(), "--check writes nothing"

    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    assert options.read_text() == text


def test_every_option_is_a_typed_keyword() -> None:
    assert list(Options.__annotations__) == list(OPTIONS)
    assert not Options.__total__
    for name, annotation in Options.__annotations__.items():
        assert annotation.__forward_arg__.replace("'", '"') == OPTIONS[name].values.annotation


def test_every_typed_keyword_has_its_help_where_editors_look() -> None:
    tree = ast.parse((generate.ROOT / "torchturbo" / "_options.py").read_text(encoding="utf-8"))
    (options,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    lines = options.body[1:]
    for line, doc in zip(lines[::2], lines[1::2], strict=True):
        assert isinstance(line, ast.AnnAssign)
        assert isinstance(doc, ast.Expr)
        words = ast.literal_eval(doc.value).split()
        assert words == OPTIONS[ast.unparse(line.target)].help.split()


@pytest.mark.parametrize("name", OPTIONS)
def test_the_document_has_a_section_for_each_option(name: str) -> None:
    option = OPTIONS[name]
    section = DOCUMENT.partition(f"\n### {name}\n")[2].partition("\n#")[0]
    assert f"\n{option.help}\n" in section
    for choice in option.values.choices:
        assert code(choice) in section
    for profile, values in PROFILES.items():
        if name in values:
            assert f"[{profile}](#{profile}) ({code(values[name])})" in section
    if isinstance(option, Setting):
        assert f"- **Seen by:** {option.scope}\n" in section


@pytest.mark.parametrize("name", PROFILES)
def test_the_document_has_a_section_for_each_profile(name: str) -> None:
    section = DOCUMENT.partition("\n## Profiles\n")[2].partition(f"\n### {name}\n")[2].partition("\n#")[0]
    profile = PROFILES[name]
    assert profile.gain in section
    assert profile.give in section
    assert section.count("\n- ") == len(profile)


def test_links_lead_somewhere() -> None:
    headings = {line.split()[-1] for line in DOCUMENT.splitlines() if line.startswith("#")}
    anchors = {part.split(")")[0] for part in DOCUMENT.split("](#")[1:]}
    assert anchors - {"profiles"} <= headings
    paths = [part.split(")")[0] for part in DOCUMENT.split("](../")[1:]]
    assert [path for path in paths if not (generate.ROOT / path).exists()] == []
