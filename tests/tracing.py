"""A child process that is stopped at each system call that touches its files, and what is done to it there.

:func:`trace` forks, lets the child run a function, and asks a plan at every
call on a file below a folder: let it be, kill the child before it, after it
or in the middle of a write, or let it fail.  It is done with ptrace(2), in
pure Python, on Linux.

What a process does to a file through a mapping (the WAL index of SQLite) is
no system call and is not seen; it has happened or not when the next call comes.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import platform
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import attrs
from system_calls import (
    AT_CWD,
    AT_FILTER,
    CALL_INFO,
    FILTERED,
    GO_ON,
    MACHINES,
    NEXT_CALL,
    OPTIONS,
    PAGE,
    SETOPTIONS,
    SYSCALL_STOP,
    TRACEME,
    WALL,
    Info,
    ptrace,
    stop_only_at,
)

__all__ = ["Call", "Deed", "Fail", "Plan", "Say", "Trace", "missing", "trace"]

Say: TypeAlias = Callable[[str], None]
"""With this the child tells something; it is in the trace as a call of the name ``say``."""


@attrs.frozen
class Call:
    """A system call; *path* is the file's, below the folder, or what was said.

    An ``openat`` is called ``create`` where it may make or empty a file, and
    otherwise ``open``; calls that differ in how they name a file have one name.
    """

    name: str
    path: str
    size: int = 0

    def __str__(self) -> str:
        return f"{self.name} {self.path}"


class Deed(enum.Enum):
    """What is done at a call; TEAR kills the child when half of a write is written."""

    ALLOW = enum.auto()
    KILL = enum.auto()
    KILL_AFTER = enum.auto()
    TEAR = enum.auto()


@attrs.frozen
class Fail:
    """The call is not made, and returns this error."""

    errno: int


Plan: TypeAlias = Callable[[Call], "Deed | Fail"]


@attrs.frozen
class Trace:
    """What the child did; *status* as of ``waitstatus_to_exitcode``: negative is the signal that ended it."""

    calls: tuple[Call, ...]
    status: int

    @property
    def said(self) -> list[str]:
        return [call.path for call in self.calls if call.name == "say"]

    def between(self, first: str, last: str) -> list[Call]:
        """The calls after *first* was said and until *last* was."""
        said = [call.path if call.name == "say" else None for call in self.calls]
        return list(self.calls[said.index(first) + 1 : said.index(last)])


def allow(_: Call) -> Deed:
    return Deed.ALLOW


def trace(program: Callable[[Say], None], root: Path, plan: Plan = allow) -> Trace:
    """Run *program* in a forked child, and do at each of its calls on files below *root* what *plan* says.

    The child may start threads.  An exception ends it with status 1 and is
    said, behind ``broke: ``.  One that hangs is ended by SIGALRM.
    """
    with _forked(program) as (pid, tongue):
        return _Tracer(pid, tongue, os.path.realpath(root), plan).run()


def missing() -> str:
    """Why nothing can be traced here; ``""`` where it can."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        return f"ptrace is used on Linux on {' and '.join(MACHINES)}, and this is {sys.platform} on {platform.machine()}"
    try:
        found = trace(lambda say: say("hello"), Path("/nowhere"))
    except OSError as error:
        return f"ptrace is forbidden here: {error.strerror}"
    return "" if found.said == ["hello"] else f"ptrace does not work here: {found}"


# -- the child

_PATIENCE: Final = 60


@contextlib.contextmanager
def _forked(program: Callable[[Say], None]) -> Iterator[tuple[int, int]]:
    """A child, stopped before it begins, and the descriptor that it speaks into."""
    tongue = os.open(os.devnull, os.O_WRONLY)
    with warnings.catch_warnings():
        # Python warns of the threads that the test runner has; the child uses nothing of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        _live(program, tongue)
    try:
        yield pid, tongue
    finally:
        os.close(tongue)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, WALL)


def _live(program: Callable[[Say], None], tongue: int) -> None:
    def say(text: str) -> None:
        os.write(tongue, text.encode())

    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_PATIENCE)
        os.setpgid(0, 0)
        ptrace(TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        stop_only_at(MACHINES[platform.machine()].shapes)
        program(say)
        status = 0
    except BaseException:  # noqa: BLE001 - it is told to the parent
        say("broke: " + traceback.format_exc())
    finally:
        os._exit(status)


# -- the tracer


class _Tracer:
    """See :func:`trace`; one life of one child."""

    def __init__(self, pid: int, tongue: int, root: str, plan: Plan) -> None:
        self._pid = pid
        self._tongue = tongue
        self._root = root
        self._plan = plan
        self._machine = MACHINES[platform.machine()]
        self._calls: list[Call] = []
        # What is to be done at the end of the call that a thread is in.
        self._pending: dict[int, Deed | Fail] = {}

    def run(self) -> Trace:
        _, status = os.waitpid(self._pid, 0)
        if not os.WIFSTOPPED(status):
            raise PermissionError(1, "the child could not ask to be traced")
        ptrace(SETOPTIONS, self._pid, 0, OPTIONS)
        self._resume(self._pid, 0)
        while True:
            # The child has a process group of its own: all its threads, and no other child of ours.
            thread, status = os.waitpid(-self._pid, WALL)
            if os.WIFSTOPPED(status):
                self._stopped(thread, status)
            elif thread == self._pid:
                return Trace(tuple(self._calls), os.waitstatus_to_exitcode(status))

    def _stopped(self, thread: int, status: int) -> None:
        received = 0
        with contextlib.suppress(ProcessLookupError):  # it was killed meanwhile
            if status >> 16 == FILTERED:
                self._at_call(thread)
            elif os.WSTOPSIG(status) == signal.SIGTRAP | SYSCALL_STOP:
                self._end(thread, self._pending.pop(thread))
            elif status >> 16 == 0 and os.WSTOPSIG(status) != signal.SIGSTOP:
                received = os.WSTOPSIG(status)
        self._resume(thread, received)

    def _resume(self, thread: int, received: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            ptrace(NEXT_CALL if thread in self._pending else GO_ON, thread, 0, received)

    def _at_call(self, thread: int) -> None:
        info = Info()
        ptrace(CALL_INFO, thread, ctypes.sizeof(info), ctypes.addressof(info))
        call = self._seen(thread, info) if info.op == AT_FILTER else None
        if call is not None:
            self._calls.append(call)
            self._begin(thread, call, self._plan(call))

    def _begin(self, thread: int, call: Call, deed: Deed | Fail) -> None:
        if deed is Deed.ALLOW:
            return
        self._pending[thread] = deed
        if deed is Deed.TEAR and call.size > 1:
            self._machine.resize(thread, call.size // 2)
        elif deed is not Deed.KILL_AFTER:
            self._machine.skip(thread)
        if deed is Deed.KILL:
            os.kill(self._pid, signal.SIGKILL)

    def _end(self, thread: int, deed: Deed | Fail) -> None:
        if isinstance(deed, Fail):
            self._machine.answer(thread, -deed.errno)
        else:
            os.kill(self._pid, signal.SIGKILL)

    def _seen(self, thread: int, info: Info) -> Call | None:
        """The call, where it is one on a file below the folder."""
        shape = self._machine.shapes.get(info.number)
        if shape is None:
            return None
        if shape.name == "write" and info.args[0] == self._tongue:
            return Call("say", self._memory(thread, info.args[1], info.args[2]).decode())
        files = [
            file for each in shape.files if (file := self._below(self._file(thread, info, each))) is not None
        ]
        if not files:
            return None
        name = shape.name
        if name == "open" and info.args[shape.flags] & (os.O_CREAT | os.O_TRUNC):
            name = "create"
        return Call(name, " -> ".join(files), info.args[2] if name == "write" else 0)

    def _below(self, path: str) -> str | None:
        if path == self._root:
            return "."
        return path.removeprefix(self._root + "/") if path.startswith(self._root + "/") else None

    def _file(self, thread: int, info: Info, file: tuple[int | None, int | None]) -> str:
        """A file as a call names it: by a descriptor, by a path, or by a path from a descriptor on."""
        at, name = file
        path = "" if name is None or not info.args[name] else self._text(thread, info.args[name])
        if path.startswith("/"):
            return os.path.normpath(path)
        number = AT_CWD if at is None else ctypes.c_int(info.args[at]).value
        link = f"/proc/{thread}/cwd" if number == AT_CWD else f"/proc/{thread}/fd/{number}"
        try:
            return os.path.normpath(str(Path(os.readlink(link), path)))  # noqa: PTH115 - it need not be a path
        except OSError:
            return ""

    def _text(self, thread: int, address: int) -> str:
        found = b""
        while b"\0" not in found:
            # Up to the end of a page: the next one may not be there.
            place = address + len(found)
            found += self._memory(thread, place, PAGE - place % PAGE)
        return os.fsdecode(found[: found.index(b"\0")])

    def _memory(self, thread: int, address: int, size: int) -> bytes:
        with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(size)
