"""A disk in memory that can be counted on, made to fail, killed at any call, and robbed of its power.

It keeps exactly what ``outbox.stores.filesystem.disk`` says that the store
builds on: a loss of power keeps what was synced, with what that depends on,
and any combination of the rest.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from outbox.stores.filesystem.disk import BURIED, Disk, Identity, Kind, Listing, Spares, Status

__all__ = ["Killed", "ModelDisk"]


class Killed(BaseException):
    """The process is no more: nothing of the store may catch it."""


@attrs.define
class _File:
    content: bytes = b""
    mode: int = 0o600
    mtime: int = 0
    synced: bool = False


@attrs.define
class _Operation:
    """What was done to the names of a folder, or to a file: *entries* are (folder, name)."""

    apply: Callable[[_State], None]
    folders: frozenset[int]
    things: frozenset[object]
    removes: int | None = None
    durable: bool = False


class _State:
    """Folders by number: name to number.  Files by number."""

    def __init__(self) -> None:
        self.folders: dict[int, dict[str, int]] = {1: {}}
        self.files: dict[int, _File] = {}

    def links(self, number: int) -> int:
        return sum(list(names.values()).count(number) for names in self.folders.values())


class _ModelListing(Listing):
    def __init__(self, names: Iterator[tuple[str, Kind]], tell: Callable[[], None]) -> None:
        self._names = names
        self._tell = tell

    def __next__(self) -> tuple[str, Kind]:
        found = next(self._names)
        self._tell()
        return found

    def close(self) -> None:
        self._names = iter(())


def _error(number: int, name: str) -> OSError:
    return OSError(number, os.strerror(number), name)


class ModelDisk(Disk):
    """See the module; *step* is called with the name of each call before it is made.

    Args:
        logged: Whether the power may be lost; without that it is faster.
        frugal: Whether the number of a removed file is given to the next
            one, as file systems do; not where the power may be lost.
    """

    def __init__(self, *, logged: bool = True, frugal: bool = False) -> None:
        self.step: Callable[[str], None] = lambda _: None
        self._logged = logged
        self._frugal = frugal
        self._free: list[int] = []
        self.calls: Counter[str] = Counter()
        self.log: list[_Operation] = []
        self.state = _State()
        self.boots = 1
        self._numbers = 1
        self._handles: dict[int, int] = {}
        self._gone: set[int] = set()
        self._links: Counter[int] = Counter()
        self._lock = threading.RLock()
        self._locks: dict[int, threading.Lock] = {}

    def _call(self, name: str) -> None:
        with self._lock:
            self.calls[name] += 1
        self.step(name)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _names(self, folder: int) -> dict[str, int]:
        number = self._handles[folder]
        if number in self._gone:
            raise _error(errno.ENOENT, "")
        return self.state.folders[number]

    def _find(self, folder: int, name: str) -> int:
        names = self._names(folder)
        if name not in names:
            raise _error(errno.ENOENT, name)
        return names[name]

    def _do(
        self,
        apply: Callable[[_State], None],
        folders: set[int],
        things: set[object],
        removes: int | None = None,
    ) -> None:
        apply(self.state)
        if self._logged:
            self.log.append(_Operation(apply, frozenset(folders), frozenset(things), removes))

    def _handle(self, number: int) -> int:
        handle = self._number()
        self._handles[handle] = number
        return handle

    # -- folders

    def may_ask(self, spares: Spares) -> None:
        """It has no descriptors to run out of."""

    def leave_alone(self, spares: Spares) -> None:
        """The same."""

    def identity(self, place: str | int) -> Identity:
        return (1, self._handles[place] if isinstance(place, int) else 1)

    def open_root(self, path: str) -> int:
        return self._handle(1)

    def anchor_root(self, root: int) -> None:
        """Its root is always there."""

    def born(self) -> None:
        """Its locks are of one process."""

    def open_folder(self, parent: int, name: str) -> int:
        self._call("open_folder")
        with self._lock:
            number = self._find(parent, name)
            if number in self.state.files:
                raise _error(errno.ENOTDIR, name)
            return self._handle(number)

    def make_folder(self, parent: int, name: str) -> None:
        self._call("make_folder")
        with self._lock:
            if name in self._names(parent):
                raise _error(errno.EEXIST, name)
            above, number = self._handles[parent], self._number()

            def apply(state: _State) -> None:
                state.folders.setdefault(number, {})
                state.folders.setdefault(above, {})[name] = number

            self._do(apply, {above}, {(above, name)})

    def remove_folder(self, parent: int, name: str) -> None:
        self._call("remove_folder")
        with self._lock:
            number = self._find(parent, name)
            if self.state.folders[number]:
                raise _error(errno.ENOTEMPTY, name)
            above = self._handles[parent]
            self._gone.add(number)
            self._do(lambda state: _drop(state, above, name), {above}, {(above, name)}, removes=number)

    def removed(self, folder: int) -> bool:
        return self._handles[folder] in self._gone

    def listing(self, folder: int) -> Listing:
        self._call("listing")
        with self._lock:
            files = self.state.files
            names = [(n, Kind.FILE if i in files else Kind.FOLDER) for n, i in self._names(folder).items()]
        random.Random(len(names)).shuffle(names)
        return _ModelListing(iter(names), self._count_entry)

    def _count_entry(self) -> None:
        self.calls["entry"] += 1

    def sync(self, folder: int) -> None:
        self._call("sync")
        with self._lock:
            number = self._handles[folder]
            pending = [i for i, op in enumerate(self.log) if number in op.folders and not op.durable]
            while pending:
                index = pending.pop()
                self.log[index].durable = True
                pending += [i for i in self._needs(index) if not self.log[i].durable]

    def _needs(self, index: int) -> list[int]:
        """The earlier operations that this one depends on."""
        op = self.log[index]
        return [
            i
            for i, earlier in enumerate(self.log[:index])
            if earlier.things & op.things or (op.removes is not None and op.removes in earlier.folders)
        ]

    def close(self, folder: int) -> None:
        self._handles.pop(folder, None)

    # -- files

    def create(self, folder: int, name: str, data: bytes) -> None:
        self._call("create")
        with self._lock:
            if name in self._names(folder):
                raise _error(errno.EEXIST, name)
            above, number = self._handles[folder], heapq.heappop(self._free) if self._free else self._number()
            file = _File()

            def apply(state: _State) -> None:
                state.files[number] = file
                state.folders.setdefault(above, {})[name] = number

            self._do(apply, {above}, {(above, name), number})
            self._links[number] += 1
        try:
            file.content = data[: len(data) // 2]
            self._call("write")
            file.content = data
            self._call("flush")
            file.synced = True
        except OSError:
            with self._lock:
                self._do(lambda state: _drop(state, above, name), {above}, {(above, name), number})
                self._unlinked(number)
            raise

    def link(self, folder: int, name: str, other: int, new: str) -> None:
        self._call("link")
        with self._lock:
            number, target = self._find(folder, name), self._handles[other]
            if new in self._names(other):
                raise _error(errno.EEXIST, new)

            def apply(state: _State) -> None:
                state.folders.setdefault(target, {})[new] = number

            self._do(apply, {target}, {(target, new), number})
            self._links[number] += 1

    def rename(self, folder: int, name: str, other: int, new: str) -> None:
        self._call("rename")
        with self._lock:
            number, source, target = self._find(folder, name), self._handles[folder], self._handles[other]
            replaced = self._names(other).get(new)
            if replaced is not None:
                self._unlinked(replaced)

            def apply(state: _State) -> None:
                _drop(state, source, name)
                state.folders.setdefault(target, {})[new] = number

            self._do(apply, {source, target}, {(source, name), (target, new), number})

    def unlink(self, folder: int, name: str) -> None:
        self._call("unlink")
        with self._lock:
            number, above = self._find(folder, name), self._handles[folder]
            self._do(lambda state: _drop(state, above, name), {above}, {(above, name), number})
            self._unlinked(number)

    def _unlinked(self, number: int) -> None:
        self._links[number] -= 1
        if self._frugal and not self._links[number]:
            heapq.heappush(self._free, number)

    @property
    def locked(self) -> bool:
        """Whether somebody is alone in a folder."""
        return any(lock.locked() for lock in self._locks.values())

    def stat(self, folder: int, name: str) -> Status:
        self._call("stat")
        with self._lock:
            number = self._find(folder, name)
            if number not in self.state.files:
                return Status(
                    inode=number, links=2, size=0, mode=0o700, mtime=0, kind=Kind.FOLDER, owner=os.geteuid()
                )
            file = self.state.files[number]
            return Status(
                inode=number,
                links=self._links[number],
                size=len(file.content),
                mode=file.mode,
                mtime=file.mtime,
                owner=os.geteuid(),
            )

    def read(self, folder: int, name: str, limit: int | None = None) -> tuple[Status, bytes]:
        self._call("read")
        with self._lock:
            status = self.stat(folder, name)
            if status.kind is not Kind.FILE:
                raise _error(errno.EISDIR, name)
            return status, self.state.files[status.inode].content[:limit]

    def content(self, folder: int, name: str) -> bytes:
        return self.read(folder, name)[1]

    def cut(self, folder: int, name: str, size: int) -> None:
        self._call("cut")
        with self._lock:
            self._shorten(self._find(folder, name), size)

    def bury(self, folder: int, name: str, size: int, mtime: int) -> None:
        self._call("bury")
        with self._lock:
            number = self._find(folder, name)
            file = self._shorten(number, size)
            file.mode, file.mtime = BURIED, mtime

    def _shorten(self, number: int, size: int) -> _File:
        file = self.state.files[number]
        before = attrs.evolve(file)
        file.content = file.content[:size]
        if self._logged:
            # Never synced: a loss of power may keep all of it, or half, or nothing.
            self.log.append(
                _Operation(
                    lambda state: _unbury(state, number, before), frozenset(), frozenset({("buried", number)})
                )
            )
        return file

    def touch(self, folder: int, name: str, mtime: int) -> None:
        self._call("touch")
        with self._lock:
            names = self._names(folder)
            number = names.setdefault(name, self._number())
            self.state.files.setdefault(number, _File()).mtime = mtime

    def jot(self, folder: int, name: str, data: bytes) -> None:
        with self._lock:
            there = name in self._names(folder)
        if there:
            self.unlink(folder, name)
        self.create(folder, name, data)

    # -- the rest

    @contextlib.contextmanager
    def lock(self, folder: int) -> Iterator[None]:
        self._call("lock")
        with self._lock:
            lock = self._locks.setdefault(self._handles[folder], threading.Lock())
        with lock:
            yield

    def boot(self) -> str:
        return str(self.boots)

    def lose_power(self, rng: random.Random) -> None:
        """Keep what is durable and any of the rest that can be kept without what it depends on being lost."""
        self.step = lambda _: None
        odds = rng.choice([0.0, 0.3, 0.7, 0.95, 1.0])
        kept: list[_Operation] = []
        lost: set[int] = set()
        for index, op in enumerate(self.log):
            if not op.durable and (rng.random() > odds or any(i in lost for i in self._needs(index))):
                lost.add(index)
            else:
                kept.append(op)
        state = _State()
        burials = [op for op in self.log if not op.folders]
        for op in kept:
            if op.folders:
                op.apply(state)
        for op in burials:
            if op not in kept:
                op.apply(state)
        for file in state.files.values():
            if not file.synced:
                file.content = file.content[: rng.randrange(len(file.content) + 1)]
        self._settle_down(state, kept)

    def _settle_down(self, state: _State, kept: list[_Operation]) -> None:
        reachable = {1}
        queue = [1]
        while queue:
            for number in state.folders.get(queue.pop(), {}).values():
                if number in state.folders and number not in reachable:
                    reachable.add(number)
                    queue.append(number)
        state.folders = {number: names for number, names in state.folders.items() if number in reachable}
        self._links = Counter(
            number for names in state.folders.values() for number in names.values() if number in state.files
        )
        self.state = state
        for op in kept:
            op.durable = True
        self.log = kept
        self._handles = {}
        self._gone = set()
        self._locks = {}
        self.boots += 1


def _drop(state: _State, folder: int, name: str) -> None:
    state.folders.setdefault(folder, {}).pop(name, None)


def _unbury(state: _State, number: int, before: _File) -> None:
    if number in state.files:
        state.files[number] = before


def tree(disk: ModelDisk) -> dict[str, Any]:
    """All files by path: number."""
    found: dict[str, Any] = {}

    def walk(number: int, path: str) -> None:
        for name, inner in disk.state.folders[number].items():
            if inner in disk.state.files:
                found[f"{path}{name}"] = inner
            else:
                walk(inner, f"{path}{name}/")

    walk(1, "")
    return found
