"""The rules of the house as functions over source text: each reads one file and says what breaks it.

The rules are DESIGN's and ARCHITECTURE's.  The tables below are the only
place to change when a file is added, moved or excused; an excuse carries its
reason, and one that is no longer needed fails the test too.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import attrs

ROOT: Final = Path(__file__).parents[1]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FLOORS: Final[Sequence[frozenset[str]]] = tuple(
    _words(names)
    for names in (
        "errors values",
        "address clock retry",
        "message outcome",
        "codec lifecycle mail",
        "protocols",
        "events judge relay stores transports",
        "delivery logs turns",
        "crew",
        "runner",
        "outbox",
        "__init__ locate",
        "contrib tasks testing web",
        "__main__ cli",
    )
)
"""From the ground up.  A name is a file, or a package whose files may import each other."""

NEVER: Final[Mapping[str, frozenset[str]]] = {
    "stores": frozenset({"retry", "judge", "relay", "transports", "delivery", "runner"}),
    "transports": frozenset({"stores"}),
}
"""What a room may not import although it is on a lower floor, or beside it."""

PURE: Final = frozenset({"judge", "retry", "lifecycle", "relay", "outcome", "delivery"})
"""No I/O, no clock, and no die that is not handed in."""

PURE_IMPORTS: Final = _words(
    "__future__ abc attrs bisect collections contextlib copy datetime enum functools hashlib heapq itertools math "
    "operator random re string types typing typing_extensions"
)

CORE_LIBRARIES: Final = frozenset({"attr", "attrs", "typing_extensions"})

OPTIONAL_LIBRARIES: Final[Mapping[str, frozenset[str]]] = {
    "hypothesis": frozenset({"testing/state_machine.py"}),
    "pytest": frozenset({"testing/store_suite.py"}),
}
"""An optional library is imported only in the file named after it (or after what it is for)."""

PUBLIC_MODULES: Final = _words(
    "address clock codec errors events judge lifecycle locate mail message outcome protocols retry "
    "stores testing transports"
)
"""Beside ``outbox`` itself, what a user may import from; the rest may change without notice."""

GUESTS: Final = frozenset({"cli", "__main__", "contrib", "tasks", "testing", "web"})
"""They use what any user could use."""

UNWANTED_WORDS: Final = frozenset({"manager", "helper", "util", "utility", "utilitie", "job"})

EXCUSES: Final[Mapping[tuple[str, str], str]] = {
    ("threads start in few places", "crew.py"): "the threads of one run: the lower half of runner.py",
}
"""By rule and file, the reason why it may."""


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


@attrs.frozen
class Breach:
    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"src/outbox/{self.path}:{self.line}: {self.text}"


Rule: TypeAlias = Callable[[Source], Iterator[tuple[int, str]]]


def sources(folder: Path = ROOT / "src" / "outbox") -> list[Source]:
    return [
        Source.parse(path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
    ]


def floor(room: str) -> int | None:
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)


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


# --- the rules ---------------------------------------------------------------------------------


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
    for item in imports(source):
        if item.top in sys.stdlib_module_names or item.top in CORE_LIBRARIES or item.top == "outbox":
            continue
        if source.path not in OPTIONAL_LIBRARIES.get(item.top, frozenset()):
            yield item.line, f"imports {item.top}, which belongs in a file named after it"


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


MUTABLE_CALLS: Final = _words(
    "list dict set bytearray defaultdict deque OrderedDict Counter ChainMap count cycle iter "
    "Lock RLock Condition Event Semaphore BoundedSemaphore Barrier local Queue LifoQueue PriorityQueue SimpleQueue "
    "WeakKeyDictionary WeakValueDictionary WeakSet Random SystemRandom ContextVar "
    "Outbox Runner MemoryStore SQLiteStore SMTPTransport FunctionTransport"
)
DECLARATIONS: Final = _words(
    "TypeVar ParamSpec TypeVarTuple NewType TypeAliasType getLogger"
)
MUTATING_METHODS: Final = _words(
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
    elif _mutable(node.value) and not final and called not in DECLARATIONS:
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


def dotted(node: ast.expr) -> str:
    """``a.b.c`` as text; ``""`` for what is not a plain path of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    if isinstance(node, ast.Call):
        return dotted(node.func)
    return ""


RULES: Final[Mapping[str, Rule]] = {
    rule.__name__.replace("_", " "): rule
    for rule in (
        every_file_is_on_a_floor,
        imports_go_down,
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


# --- sizes ---------------------------------------------------------------------------------------


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
