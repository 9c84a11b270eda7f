"""Postfix's own queue, flushed: a private Postfix in a tree of its own, which keeps what it takes until it is told.

It needs root, for the tree is its root while it runs, and a whole unpacked
package, not only ``smtp-sink``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import trustme
from ours import CONTENT
from receivers import environment, program

sys.path.append(str(Path(__file__).parents[1] / "tests" / "interop"))

from servers import Postfix

__all__ = ["drained", "missing"]

_PATIENCE: Final = 600.0
_GLANCE: Final = 0.1
_HEARD: Final = 0.2
_SESSIONS: Final = 10
_HELD: Final = "defer_transports = smtp\n"


def missing(postfix: Path | None) -> str:
    """Why it cannot be measured here; nothing where it can."""
    if postfix is None or postfix == Path("/usr") or not (postfix / "usr/lib/postfix/sbin/master").exists():
        return "no whole Postfix is unpacked"
    return "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "it needs root"


@attrs.define(kw_only=True)
class _Queue(Postfix):
    """Everything goes on to one port, and waits in the deferred queue until :meth:`flush`."""

    unpacked: Path

    def unpack(self) -> None:
        shutil.copytree(self.unpacked, self.root, symlinks=True, dirs_exist_ok=True)

    def configure(self) -> None:
        self._make_spool()
        self.write("etc/postfix/main.cf", self._main() + _HELD)
        # Without one who picks up, postqueue takes it that nobody is there.
        self.write("etc/postfix/master.cf", self._master() + "pickup unix n - n 60 1 pickup\n")

    def let_go(self) -> None:
        """Hold nothing back any more; what waits goes when it is flushed."""
        self.write("etc/postfix/main.cf", self._main())
        # What `postfix reload` does; it is a script, and the tree has no shell.
        os.kill(int((self.root / "var/spool/postfix/pid/master.pid").read_text()), signal.SIGHUP)

    def flush(self) -> None:
        self.inside("/usr/sbin/postqueue", "-f")

    def waiting(self, *queues: str) -> int:
        """How many are in those of its queues."""
        folders = (self.root / "var/spool/postfix" / name for name in queues)
        return sum(len(files) for each in folders for _, _, files in os.walk(each))


def drained(postfix: Path, folder: Path, port: int, number: int) -> float:
    """The seconds in which so many deferred messages left for *port*, by as many processes as it likes (20).

    Raises:
        Missing: it does not start here; the text says why.
    """
    server = _Queue(root=folder / "postfix", ca=trustme.CA(), onward=port, unpacked=postfix)
    with server.running():
        _submit(postfix, server.open, number)
        _until(lambda: server.waiting("deferred") == number)
        server.let_go()
        start = time.perf_counter()
        server.flush()
        while server.waiting("deferred") == number:
            # Its queue manager was not back yet, and has not heard it.
            start = time.perf_counter()
            server.flush()
            time.sleep(_HEARD)
        _until(lambda: server.waiting("incoming", "active", "deferred") == 0)
        return time.perf_counter() - start


def _submit(postfix: Path, port: int, number: int) -> None:
    options = ["-d", "-s", str(_SESSIONS), "-m", str(number), "-l", str(len(CONTENT))]
    command = [program(postfix, "smtp-source"), *options, "-f", "s@example.com", "-t", "r@example.org"]
    subprocess.run([*command, f"127.0.0.1:{port}"], check=True, env=environment(postfix))


def _until(so: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE
    while not so():
        if time.monotonic() > until:
            raise RuntimeError(f"Postfix did not come to its end in {_PATIENCE:.0f} s")
        time.sleep(_GLANCE)
