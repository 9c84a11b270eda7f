"""PgBouncer itself before a server, where the machine has one: ``pgbouncer`` on the path, or what ``OUTBOX_TEST_PGBOUNCER`` names.

It is in no package that pip installs; beside it stands ``postgres_pooler``, which every machine can run.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
import psycopg
from postgres_server import as_nobody, reachable_folder

OURS: Final = "OUTBOX_TEST_PGBOUNCER"
MISSING: Final = f"there is no pgbouncer on the path, and {OURS} names none"
SETTINGS: Final[Mapping[str, str]] = {
    "listen_addr": "",
    "auth_type": "trust",
    "admin_users": "outbox",
    "pool_mode": "transaction",
    "default_pool_size": "20",
    "max_client_conn": "200",
    # Whoever asks in vain hears of it within the patience of a test.
    "query_wait_timeout": "20",
    "server_login_retry": "0.2",
}
_PATIENCE: Final = 60.0


def program() -> str | None:
    """Where it is; None where there is none."""
    # Debian has it where only root's path leads.
    beside = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
    return os.environ.get(OURS) or shutil.which("pgbouncer", path=beside)


def version(program: str) -> tuple[int, ...]:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, **as_nobody())
    found = re.search(r"PgBouncer (\d+)\.(\d+)", done.stdout)
    assert found is not None, done.stdout
    return tuple(map(int, found.groups()))


@attrs.define
class Bouncer:
    """One before the server of *dsn*; it may be started again after it was killed."""

    program: str
    folder: Path
    server: str
    settings: Mapping[str, str]
    _process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return f"{self.server} host={self.folder}"

    def start(self) -> None:
        said = psycopg.conninfo.conninfo_to_dict(self.server)
        lines = ["[databases]", f"* = host={said['host']} port={said.get('port', 5432)}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in self.settings.items()]
        lines += [f"unix_socket_dir = {self.folder}", f"listen_port = {said.get('port', 5432)}"]
        lines += [f"auth_file = {self.folder}/users", f"logfile = {self.folder}/log"]
        (self.folder / "users").write_text(f'"{said["user"]}" ""\n')
        (self.folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        self._process = subprocess.Popen(
            [self.program, "--quiet", os.fspath(self.folder / "pgbouncer.ini")],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **as_nobody(),
        )
        until = time.monotonic() + _PATIENCE
        while not self._takes_connections():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.02)

    def _takes_connections(self) -> bool:
        try:
            psycopg.connect(f"{self.dsn} dbname=pgbouncer", autocommit=True).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """At once, with all that it held."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def bouncing(program: str, server: str, **settings: str) -> Iterator[Bouncer]:
    """One before the server of this dsn, with these settings in the place of the usual."""
    folder = reachable_folder("outbox-pgb-")
    bouncer = Bouncer(program, folder, server, {**SETTINGS, **settings})
    try:
        if as_nobody():
            os.chown(folder, as_nobody()["user"], as_nobody()["group"])
        bouncer.start()
        yield bouncer
    finally:
        bouncer.kill()
        shutil.rmtree(folder, ignore_errors=True)
