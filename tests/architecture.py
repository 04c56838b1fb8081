"""Reads Python source for what it imports, defines and documents, without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One import: of what, and whether it waits in a function until it is needed."""

    of: str
    late: bool


@dataclass(frozen=True)
class Module:
    """A module of a package by its dotted name, with its source."""

    name: str
    path: Path

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"), str(self.path))

    @property
    def imports(self) -> set[Import]:
        """What running it would import; what is for type checkers only is left out."""
        return set(_imports(self.tree, late=False))

    @property
    def undocumented(self) -> list[str]:
        """The public names in it, and itself, that have no docstring."""
        return [f"{self.name}:{name}" for name in _undocumented(self.tree, "")]


def modules(package: Path) -> list[Module]:
    """Every module of the package in this folder."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found.append(Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def _imports(node: ast.AST, late: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, late) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, "imports are absolute, so that they can be searched for"
            # `from package import name`: the name may be a module.
            yield from (Import(f"{child.module}.{alias.name}", late) for alias in child.names)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        else:
            yield from _imports(child, late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def _undocumented(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    if ast.get_docstring(node) is None:
        yield prefix.rstrip(".") or "the module"
    for child in node.body:
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or child.name.startswith("_"):
            continue
        if isinstance(child, ast.ClassDef):
            yield from _undocumented(child, f"{prefix}{child.name}.")
        elif ast.get_docstring(child) is None and not _is_overload(child):
            yield f"{prefix}{child.name}"


def _is_overload(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(decorator).endswith("overload") for decorator in function.decorator_list)
