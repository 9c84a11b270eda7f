"""The rules of the house: each reads one file and says what breaks it, in which line.

ARCHITECTURE.md says why they are there.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import attrs
from architecture import (
    CORE_LIBRARIES,
    GUESTS,
    NEVER,
    OPTIONAL_LIBRARIES,
    PUBLIC_MODULES,
    PURE,
    PURE_IMPORTS,
    UNWANTED_WORDS,
    floor,
)
from module_state import modules_hold_no_state
from source import Import, Source, dotted, imports

Rule: TypeAlias = Callable[[Source], Iterator[tuple[int, str]]]


@attrs.frozen
class Breach:
    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"src/outbox/{self.path}:{self.line}: {self.text}"


def rooms(item: Import) -> Iterator[str]:
    """The rooms of the house that an import enters: ``from outbox import codec`` enters codec."""
    parts = item.module.split(".")
    if parts[0] != "outbox":
        return
    if len(parts) > 1:
        yield parts[1]
        return
    for name in item.names or ("__init__",):
        # `outbox.outbox` is a file and `from outbox import outbox` enters it; a public name comes from the roof.
        yield name if floor(name) is not None else "__init__"


def every_file_is_on_a_floor(source: Source) -> Iterator[tuple[int, str]]:
    if floor(source.room) is None:
        yield 1, f"{source.room!r} has no floor: give it one in tests/architecture.py"


def imports_go_down(source: Source) -> Iterator[tuple[int, str]]:
    mine = floor(source.room)
    for item in imports(source):
        for room in rooms(item):
            theirs = floor(room)
            if mine is None or theirs is None or room == source.room:
                continue
            if theirs >= mine:
                yield item.line, f"imports {room} (floor {theirs}) from floor {mine}"


def imports_are_written_out(source: Source) -> Iterator[tuple[int, str]]:
    """One that is computed would pass by every other rule."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in {
            "import_module",
            "__import__",
        }:
            yield node.lineno, f"{dotted(node.func)} hides what is imported"


def stores_and_transports_keep_apart(source: Source) -> Iterator[tuple[int, str]]:
    forbidden = NEVER.get(source.room, frozenset())
    for item in imports(source):
        for room in forbidden.intersection(rooms(item)):
            yield item.line, f"{source.room} must not know {room}"


def the_deciding_files_are_pure(source: Source) -> Iterator[tuple[int, str]]:
    if source.room not in PURE:
        return
    for item in imports(source):
        if item.top != "outbox" and item.top not in PURE_IMPORTS:
            yield item.line, f"imports {item.module}, which is not on the list of what pure code needs"
        if "SystemClock" in item.names:
            yield item.line, "takes a clock of its own: have it handed in"
        if item.module == "random" and set(item.names) - {"Random"}:
            yield item.line, f"draws from the process's die: {', '.join(item.names)}"
    for node in ast.walk(source.tree):
        yield from _impure(node)


def _impure(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Attribute) and dotted(node.value) == "random" and node.attr != "Random":
        yield node.lineno, f"draws from the process's die: random.{node.attr}"
    if isinstance(node, ast.Call):
        called = dotted(node.func)
        if called in {"Random", "random.Random"}:
            yield node.lineno, "makes a die of its own: have it handed in"
        if called in {"open", "print", "input", "exec", "eval", "__import__"}:
            yield node.lineno, f"calls {called}"


def time_is_read_in_the_clock(source: Source) -> Iterator[tuple[int, str]]:
    if source.path == "clock.py":
        return
    for item in imports(source):
        if item.module == "time":
            yield item.line, "imports time: have a Clock handed in"
        if item.module == "email.utils" and {"localtime", "make_msgid"} & set(item.names):
            yield item.line, "email.utils reads the time (and the host name) by itself"
    for node in ast.walk(source.tree):
        yield from _reads_time(node)


def _reads_time(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}:
        owner = dotted(node.value)
        if owner.rpartition(".")[2] in {"datetime", "date"}:
            yield node.lineno, f"{owner}.{node.attr} reads the time: ask the Clock"
    if isinstance(node, ast.Attribute) and dotted(node) in {
        "email.utils.localtime",
        "email.utils.make_msgid",
        "os.times",
    }:
        yield node.lineno, f"{dotted(node)} reads the time: ask the Clock"
    if isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] == "formatdate" and not node.args:
        yield node.lineno, "formatdate() without a time reads it by itself"


def optional_libraries_stay_in_their_file(source: Source) -> Iterator[tuple[int, str]]:
    texts = [node.value for node in ast.walk(source.tree) if isinstance(node, ast.Constant)]
    named = any(isinstance(text, str) and "durable-outbox[" in text for text in texts)
    for item in imports(source):
        if item.top in sys.stdlib_module_names or item.top in CORE_LIBRARIES or item.top == "outbox":
            continue
        files = OPTIONAL_LIBRARIES.get(item.top, frozenset())
        # Of a package the first line is run before any other.
        first = f"{source.path.rpartition('/')[0]}/__init__.py"
        if source.path not in files:
            yield item.line, f"imports {item.top}, which belongs in a file named after it"
        elif not named and (first not in files or source.path == first):
            yield item.line, f'does not say which extra brings {item.top}: pip install "durable-outbox[…]"'


def threads_start_in_few_places(source: Source) -> Iterator[tuple[int, str]]:
    if source.room in {"runner", "testing"}:
        return
    for item in imports(source):
        if item.top in {"_thread", "asyncio", "multiprocessing"} or item.module.startswith(
            "concurrent.futures"
        ):
            yield item.line, f"imports {item.module}"
        if item.module == "threading" and {"Thread", "Timer"} & set(item.names):
            yield item.line, "imports a thread from threading"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and dotted(node) in {
            "threading.Thread",
            "threading.Timer",
            "os.fork",
        }:
            yield node.lineno, f"uses {dotted(node)}"


def guests_use_public_names(source: Source) -> Iterator[tuple[int, str]]:
    if source.room not in GUESTS:
        return
    for item in imports(source):
        entered = [room for room in rooms(item) if room not in {source.room, "__init__"}]
        yield from (
            (item.line, f"imports {room}, which is not public")
            for room in entered
            if room not in PUBLIC_MODULES
        )
        if entered:
            parts = [*item.module.split("."), *item.names]
            yield from ((item.line, f"imports {part}, a private name") for part in parts if _private(part))


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def words_are_ours(source: Source) -> Iterator[tuple[int, str]]:
    yield from ((1, f"the file's name says {word!r}") for word in _unwanted(source.path))
    for node in ast.walk(source.tree):
        for name in _bound(node):
            line = getattr(node, "lineno", 1)
            yield from ((line, f"{name!r} says {word!r}") for word in _unwanted(name))


def _bound(node: ast.AST) -> Iterator[str]:
    """The identifiers that this node makes up (what it merely uses, others have named)."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case (
            ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name)
        ):
            yield name
        case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            yield name
        case _:
            return


def _unwanted(name: str) -> Iterator[str]:
    for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name):
        if word.lower().removesuffix("s") in UNWANTED_WORDS:
            yield word


RULES: Final[Mapping[str, Rule]] = {
    rule.__name__.replace("_", " "): rule
    for rule in (
        every_file_is_on_a_floor,
        imports_go_down,
        imports_are_written_out,
        stores_and_transports_keep_apart,
        the_deciding_files_are_pure,
        time_is_read_in_the_clock,
        optional_libraries_stay_in_their_file,
        threads_start_in_few_places,
        guests_use_public_names,
        modules_hold_no_state,
        words_are_ours,
    )
}


def breaches(rule: str, files: Sequence[Source]) -> list[Breach]:
    """What breaks *rule*, whether excused or not."""
    return [Breach(file.path, line, text) for file in files for line, text in RULES[rule](file)]
