"""The folders of the spool: opened once, made where they are missing, synced for many at once.

*Sync.*  Many threads put into the same folder, and one sync serves all whose
rename came before it began.  So the first leads, and of those who come while
it syncs one leads the next; nobody lingers for company.

*Anchors.*  What is durable in a folder is lost with the folder itself where
that is not in its parent.  Whoever made it may have been killed before it
synced the parent; so each process does that once before it first moves a
ticket into a folder that it has opened.

*Removal.*  Slots are removed when they are empty, by any process and at any
time.  Whoever still has one open is told so by ENOENT, and opens or makes it
anew.  A person may remove any other folder, or move a queue away: the first
is told in the same way, and the second is seen by a look at the queue's name.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from outbox.errors import ConfigurationError

from .disk import Disk, Kind, Listing, Status
from .names import Path

__all__ = ["Folder", "Folders"]

T = TypeVar("T")

_OPEN: Final = 320
"""How many folders are kept open: the 256 of the ids, and those that tickets move through."""
_SHARE: Final = 4
"""But no more than this part of the files that the process may have open: the rest is for others."""


class _Use:
    """Ends with the last who has the descriptor."""


class Handle(int):
    """The descriptor of an open folder: it stays open for as long as anybody has it.

    Another thread may forget the folder at any time; and once it is closed
    the kernel gives its number to the next file that is opened, in which a
    call that is about to be made would look, link and remove.
    """

    def __init__(self, _number: int) -> None:
        self.use = _Use()


class Folder:
    """An open folder.  It is closed when nobody has it, or its handle, any more."""

    def __init__(self, disk: Disk, number: int, parent: Folder | None) -> None:
        self.handle = Handle(number)
        self._disk = disk
        self._parent = parent
        self._anchored = parent is None
        self._turn = threading.Lock()
        self._begun = 0
        self._done = 0
        self._failed: dict[int, OSError] = {}
        self._closing = weakref.finalize(self.handle.use, disk.close, number)
        self._closing.atexit = False

    def close(self) -> None:
        self._closing()

    @functools.cached_property
    def inode(self) -> int:
        """Its number."""
        found = self._disk.identity(self.handle)
        return 0 if found is None else found[1]

    def sync(self) -> None:
        """Make what was done in it before this call durable, and the folder itself; raises OSError."""
        self.anchor()
        self._share()

    def anchor(self) -> None:
        """Make the folder itself durable; raises OSError."""
        if not self._anchored and self._parent is not None:
            self._parent.sync()
            self._anchored = True

    def _share(self) -> None:
        # Syncs are made one after the other.  That which begins from now on serves: read before the lock is
        # asked for, so that one which is begun while this thread stands before it does.
        mine = self._begun + 1
        with self._turn:
            self._raise_failure(mine)
            if self._done < mine:
                self._lead()

    def _lead(self) -> None:
        self._begun += 1
        try:
            self._disk.sync(self.handle)
        except OSError as error:
            self._failed[self._begun] = error
            raise
        # Only now: of one that a signal's handler cut short nothing is known, and whoever is next makes another.
        self._done = self._begun

    def _raise_failure(self, mine: int) -> None:
        """One that began later may have gone well, and says nothing: the kernel tells of an error once."""
        for number, failure in self._failed.items():
            if number >= mine:
                raise failure


class Folders:
    """See the module.

    Attributes:
        recovered: Whether the spool was put right since the machine was
            started; not where it could not be written to.
    """

    def __init__(self, disk: Disk, root: int) -> None:
        self.recovered = True
        self.disk = disk
        self.root = Folder(disk, root, None)
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, Folder] = OrderedDict()
        self._most = max(1, min(_OPEN, disk.most_files() // _SHARE))
        disk.may_ask(self)

    def close(self) -> None:
        """Nobody uses it any more, and so no lock is asked for: who had one may not be in a forked child."""
        self.disk.leave_alone(self)
        folders = [*self._open.values(), self.root]
        self._open.clear()
        for folder in folders:
            folder.close()

    def spare(self) -> bool:
        """Close those that were not used for longest; whether there were any."""
        with self._lock:
            some = [self._open.popitem(last=False) for _ in range(-(-len(self._open) // _SHARE))]
        return bool(some)

    # -- opening

    def get(self, path: Path) -> Folder:
        """The folder; raises FileNotFoundError where there is none."""
        return self._find(path, make=False)

    def need(self, path: Path) -> Folder:
        """The folder, made where there is none."""
        return self._find(path, make=True)

    def _find(self, path: Path, *, make: bool) -> Folder:
        if not path:
            return self.root
        with self._lock:
            folder = self._open.get(path)
            if folder is not None:
                self._open.move_to_end(path)
                return folder
        while True:
            above = self._find(path[:-1], make=make)
            try:
                return self._keep(path, self._enter(above, path, make=make))
            except FileNotFoundError:
                if not self._dead(path[:-1], above):
                    raise

    def _enter(self, parent: Folder, path: Path, *, make: bool) -> Folder:
        name = path[-1]
        while True:
            try:
                return Folder(self.disk, self.disk.open_folder(parent.handle, name), parent)
            except FileNotFoundError:
                if not make:
                    raise
            except (ConfigurationError, OSError) as error:
                raise _located(error, path) from error
            with contextlib.suppress(FileExistsError):
                self.disk.make_folder(parent.handle, name)

    def _keep(self, path: Path, folder: Folder) -> Folder:
        with self._lock:
            folder = self._open.setdefault(path, folder)
            while len(self._open) > self._most:
                self._open.popitem(last=False)
        return folder

    def forget(self, path: Path, folder: Folder) -> None:
        """Open it anew at the next use."""
        with self._lock:
            if self._open.get(path) is folder:
                del self._open[path]

    def _dead(self, path: Path, folder: Folder) -> bool:
        if not self.disk.removed(folder.handle):
            return False
        self.forget(path, folder)
        return True

    def renew(self, path: Path) -> None:
        """Open it, and all that is in it, anew where its name leads to another folder by now, or to none."""
        with self._lock:
            folder = self._open.get(path)
        if folder is None:
            return
        with contextlib.suppress(FileNotFoundError):
            if self.disk.stat(self.get(path[:-1]).handle, path[-1]).inode == folder.inode:
                return
        with self._lock:
            for each in [each for each in self._open if each[: len(path)] == path]:
                del self._open[each]

    # -- what is done in them

    def ask(self, path: Path, question: Callable[[Handle], T]) -> T:
        """The answer of the folder; raises FileNotFoundError where it is not there, nor what was asked for."""
        while True:
            folder = self.get(path)
            try:
                return question(folder.handle)
            except FileNotFoundError:
                if not self._dead(path, folder):
                    raise

    def stat(self, path: Path, name: str) -> Status:
        """What the file system says of an entry; raises FileNotFoundError."""
        return self.ask(path, lambda handle: self.disk.stat(handle, name))

    @contextlib.contextmanager
    def lock(self, path: Path) -> Iterator[Handle]:
        """Alone in the folder, which is made where there is none; see :meth:`Disk.lock`."""
        with contextlib.ExitStack() as stack:
            while True:
                folder = self.need(path)
                try:
                    stack.enter_context(self.disk.lock(folder.handle))
                    break
                except FileNotFoundError:
                    if not self._dead(path, folder):
                        raise
            yield folder.handle

    def link(self, path: Path, name: str, to: Path, new: str) -> None:
        """Give a file a second name; raises FileExistsError, or FileNotFoundError where it is not there."""
        while True:
            source, target = self.need(path), self.need(to)
            try:
                self.disk.link(source.handle, name, target.handle, new)
            except FileNotFoundError:
                if not (self._dead(to, target) or self._dead(path, source)):
                    raise
            else:
                return

    def move(self, path: Path, name: str, to: Path, new: str) -> bool:
        """Rename a file; False where it is not there."""
        while True:
            target = self.need(to)
            target.anchor()
            try:
                source = self.get(path)
            except FileNotFoundError:
                return False
            try:
                self.disk.rename(source.handle, name, target.handle, new)
            except FileNotFoundError:
                if self._dead(to, target) or self._dead(path, source):
                    continue
                return False
            return True

    def unlink(self, path: Path, name: str) -> bool:
        """Remove a file; False where it is not there."""
        while True:
            try:
                folder = self.get(path)
            except FileNotFoundError:
                return False
            try:
                self.disk.unlink(folder.handle, name)
            except FileNotFoundError:
                if self._dead(path, folder):
                    continue
                return False
            return True

    def create(self, path: Path, name: str, data: bytes) -> None:
        """A new file; raises FileExistsError."""
        while True:
            folder = self.need(path)
            try:
                self.disk.create(folder.handle, name, data)
            except FileNotFoundError:
                if not self._dead(path, folder):
                    raise
            else:
                return

    def jot(self, path: Path, name: str, data: bytes) -> None:
        """Write a file anew; not durable."""
        while True:
            folder = self.need(path)
            try:
                self.disk.jot(folder.handle, name, data)
            except FileNotFoundError:
                if not self._dead(path, folder):
                    raise
            else:
                return

    def sync(self, paths: Iterable[Path]) -> None:
        """Make what was done in these durable, each once; raises OSError, and a failure is final."""
        for path in dict.fromkeys(paths):
            self._sync(path)

    def _sync(self, path: Path) -> None:
        try:
            folder = self.get(path)
        except FileNotFoundError:
            # All that was in it has been moved on, and it was removed: see what a sync promises in `disk`.
            self._sync(path[:-1])
            return
        try:
            folder.sync()
        except OSError:
            self.forget(path, folder)
            raise

    def remove(self, path: Path) -> bool:
        """Remove the folder where it is empty."""
        try:
            self.disk.remove_folder(self.get(path[:-1]).handle, path[-1])
        except OSError:
            return False
        with self._lock:
            self._open.pop(path, None)
        return True

    # -- reading

    def listing(self, path: Path) -> Listing:
        """All that is in the folder; raises FileNotFoundError where there is none."""
        folder = self.get(path)
        # One that was removed looks empty, and another may stand in its place.
        while self._dead(path, folder):
            folder = self.get(path)
        try:
            return self.disk.listing(folder.handle)
        except OSError as error:
            raise _located(error, path) from error

    def entries(self, path: Path, kind: Kind) -> Iterator[str]:
        """The names of this kind in the folder; none where there is no folder."""
        try:
            listing = self.listing(path)
        except FileNotFoundError:
            return
        with contextlib.closing(listing):
            for name, found in listing:
                if found is kind:
                    yield name

    def subfolders(self, path: Path) -> list[str]:
        """The names of the folders in it, sorted."""
        return sorted(self.entries(path, Kind.FOLDER))


def _located(error: ConfigurationError | OSError, path: Path) -> Exception:
    """The same, told of the folder by its path in the spool, which the disk does not know."""
    where = "/".join(path)
    if isinstance(error, OSError):
        return OSError(error.errno, f"{where}: {error.strerror}")
    return ConfigurationError(f"{where}: {error}")
