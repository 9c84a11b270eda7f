"""One rule of the house: no state at module level, where every user of the process would share it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Final

from architecture import words
from source import Source, dotted

MUTABLE_CALLS: Final = words(
    "list dict set bytearray defaultdict deque OrderedDict Counter ChainMap count cycle iter "
    "Lock RLock Condition Event Semaphore BoundedSemaphore Barrier local Queue LifoQueue PriorityQueue SimpleQueue "
    "WeakKeyDictionary WeakValueDictionary WeakSet Random SystemRandom ContextVar "
    "Outbox Runner MemoryStore SQLiteStore FilesystemStore SMTPTransport FunctionTransport"
)
DECLARATIONS: Final = words("TypeVar ParamSpec TypeVarTuple NewType TypeAliasType getLogger")
IMMUTABLE_CALLS: Final = words(
    "bytes compile date datetime float frozen_mapping frozenset int MappingProxyType namedtuple Path range str "
    "timedelta timezone tuple"
)
MUTATING_METHODS: Final = words(
    "append extend insert remove pop popitem clear update setdefault add discard sort reverse"
)


def modules_hold_no_state(source: Source) -> Iterator[tuple[int, str]]:
    """What a module keeps is a constant: UPPER_CASE, ``Final``, and never written to."""
    constants = set()
    for name, statement in _kept(source.tree.body):
        constants.add(name)
        if not name.startswith("__"):
            yield from _not_constant(name, statement)
    for node in ast.walk(source.tree):
        yield from _writes_module(node, constants)
        yield from _shared_by_a_class(node)


def _kept(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.Assign | ast.AnnAssign]]:
    """The names a module binds to values, those under ``if`` and ``try`` included."""
    for statement in body:
        for part in ("body", "orelse", "finalbody"):
            if isinstance(statement, ast.If | ast.Try | ast.With):
                yield from _kept(getattr(statement, part, ()))
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                yield from ((name.id, statement) for name in _names(target))
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, statement


def _names(target: ast.expr) -> Iterator[ast.Name]:
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node


def _not_constant(name: str, node: ast.Assign | ast.AnnAssign) -> Iterator[tuple[int, str]]:
    final = isinstance(node, ast.AnnAssign) and "Final" in ast.unparse(node.annotation)
    called = _called(node.value)
    if called in MUTABLE_CALLS:
        yield node.lineno, f"{name} is state of the module ({called}): give it to an object"
    elif _mutable(node.value) and not final and called not in DECLARATIONS | IMMUTABLE_CALLS:
        yield node.lineno, f"{name} may be changed by anybody: make it Final, or give it to an object"
    elif final and name != name.upper() and called not in DECLARATIONS:
        yield node.lineno, f"{name} is Final and so UPPER_CASE"


def _mutable(value: ast.expr | None) -> bool:
    return isinstance(
        value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp | ast.Call
    )


def _called(value: ast.expr | None) -> str:
    return dotted(value.func).rpartition(".")[2] if isinstance(value, ast.Call) else ""


def _writes_module(node: ast.AST, constants: set[str]) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Global):
        yield node.lineno, f"global {', '.join(node.names)}: give the state to an object"
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        name = dotted(node.value)
        if name in constants or name == "globals":
            yield node.lineno, f"writes into {name}, which belongs to the module"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        changes = node.func.attr in MUTATING_METHODS
        if changes and dotted(node.func.value) in constants:
            yield node.lineno, f"{dotted(node.func)} changes what belongs to the module"
    if isinstance(node, ast.FunctionDef):
        for decorator in node.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if dotted(called).rpartition(".")[2] in {"cache", "lru_cache"}:
                yield node.lineno, f"{node.name} keeps a cache that the whole process shares"


def _shared_by_a_class(node: ast.AST) -> Iterator[tuple[int, str]]:
    if not isinstance(node, ast.ClassDef):
        return
    for name, statement in _kept(node.body):
        literal = _mutable(statement.value) and not isinstance(statement.value, ast.Call)
        fixed = isinstance(statement, ast.AnnAssign) and re.search(
            "Final|ClassVar", ast.unparse(statement.annotation)
        )
        if (literal or _called(statement.value) in MUTABLE_CALLS) and not fixed and not name.startswith("__"):
            yield statement.lineno, f"{node.name}.{name} is shared by every instance"
