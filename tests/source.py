"""Reading the package as text: its files, what they import, how long their functions are."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

ROOT: Final = Path(__file__).parents[1]


@attrs.frozen
class Source:
    """One file of the package; *path* is relative to ``src/outbox``, with slashes."""

    path: str
    tree: ast.Module

    @classmethod
    def parse(cls, path: str, text: str) -> Source:
        return cls(path, ast.parse(text, path))

    @property
    def room(self) -> str:
        """The name by which the tables know it: the file's, or its package's."""
        return self.path.partition("/")[0].removesuffix(".py")

    @property
    def module(self) -> str:
        parts = ["outbox", *self.path.removesuffix(".py").split("/")]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def parent(self) -> str:
        """The package that its relative imports start from."""
        return self.module if self.path.endswith("__init__.py") else self.module.rpartition(".")[0]


@attrs.frozen
class Import:
    """One imported module, absolute, with the names taken from it; ``()`` is the module itself."""

    module: str
    names: tuple[str, ...]
    line: int

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def sources(folder: Path = ROOT / "src" / "outbox") -> list[Source]:
    return [
        Source.parse(path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
    ]


def imports(source: Source) -> Iterator[Import]:
    """Every import of the file, those inside functions and ``TYPE_CHECKING`` included."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, (), node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield _import_from(source, node)


def _import_from(source: Source, node: ast.ImportFrom) -> Import:
    names = tuple(alias.name for alias in node.names)
    if not node.level:
        return Import(node.module or "", names, node.lineno)
    base = source.parent.split(".")
    base = base[: len(base) - node.level + 1]
    return Import(".".join([*base, *filter(None, [node.module])]), names, node.lineno)


def dotted(node: ast.expr) -> str:
    """``a.b.c`` as text; ``""`` for what is not a plain path of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    if isinstance(node, ast.Call):
        return dotted(node.func)
    return ""


@attrs.frozen(order=True)
class Body:
    """A function's body without its docstring, in lines."""

    lines: int
    place: str


def bodies(source: Source) -> Iterator[Body]:
    """Every function but those that are a signature only (``...``)."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body and not _is_stub(body):
                length = (body[-1].end_lineno or body[-1].lineno) - body[0].lineno + 1
                yield Body(length, f"{source.path}:{node.lineno} {node.name}")


def _is_stub(body: Sequence[ast.stmt]) -> bool:
    return all(isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) for s in body)
