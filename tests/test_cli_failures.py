"""Whatever is wrong around it: one clear line, the right status, and the mail is still there."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from command_line import MAIL, CommandLine, Ran

from outbox.testing.smtp_sink import SMTPSink


@pytest.fixture
def outbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    outbox = CommandLine(tmp_path, monkeypatch, capsys)
    outbox.submit("ann@example.org", id="order-1042")
    return outbox


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


def waits_unharmed(outbox: CommandLine) -> bool:
    (row,) = outbox("list", "--json").rows
    return (row["id"], row["state"], row["attempts"]) == ("order-1042", "queued", 0)


def failed(ran: Ran, status: int, says: str) -> None:
    assert (ran.status, ran.out) == (status, ""), ran.err
    assert says.lower() in ran.complaint.lower()


# -- the relay


def test_an_unknown_host(outbox: CommandLine) -> None:
    failed(outbox("drain", "-q", "--transport", "smtp://no.such.host.invalid"), 75, "no.such.host.invalid")
    assert waits_unharmed(outbox)


def test_a_relay_that_refuses_the_connection(outbox: CommandLine) -> None:
    with SMTPSink() as sink:
        url = sink.url
    failed(outbox("drain", "-q", "--transport", url), 75, "refused")
    assert waits_unharmed(outbox)


def test_a_certificate_of_a_stranger(outbox: CommandLine, tls: ssl.SSLContext) -> None:
    with SMTPSink(tls=tls) as sink:
        failed(outbox("drain", "-q", "--transport", sink.url), 78, "certificate")
        assert waits_unharmed(outbox)
        assert sink.commands == ()


def test_an_authority_of_ones_own_is_named_in_the_url(
    outbox: CommandLine, tls: ssl.SSLContext, authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with SMTPSink(tls=tls) as sink:
        ran = outbox("drain", "-q", "--transport", f"{sink.url}?ca_file={tmp_path}/ca.pem")
        assert (ran.status, ran.err) == (0, "")
        assert len(sink.messages) == 1


class Handler:
    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.messages.append(envelope.content)
        return "250 taken"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def aiosmtpd(tls: ssl.SSLContext) -> Iterator[Controller]:
    """A server by other authors, that knows one user."""

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"app", b"c4narypassword"), handled=False)

    controller = Controller(
        Handler(),
        hostname="127.0.0.1",
        port=free_port(),  # it cannot choose one itself
        tls_context=tls,
        require_starttls=True,
        authenticator=authenticate,
        auth_required=True,
    )
    controller.start()
    yield controller
    controller.stop()


def test_a_wrong_password_and_then_the_right_one(
    outbox: CommandLine, aiosmtpd: Controller, authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    outbox.environ(OUTBOX_TRANSPORT=f"smtp://app@127.0.0.1:{aiosmtpd.port}?ca_file={tmp_path}/ca.pem")
    outbox.environ(OUTBOX_SMTP_PASSWORD="c4narypassword-wr0ng")
    ran = outbox("drain", "-q")
    failed(ran, 78, "535")
    assert "wr0ng" not in ran.err
    assert waits_unharmed(outbox)
    outbox.environ(OUTBOX_SMTP_PASSWORD="c4narypassword")
    assert outbox("drain", "-q").status == 0
    assert len(aiosmtpd.handler.messages) == 1


# -- the store


def write_version(path: Path, version: str) -> str:
    """Let the database claim *version*; returns what it claimed before."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        (before,) = database.execute("SELECT value FROM outbox_meta WHERE name = 'version'").fetchone()
        database.execute("UPDATE outbox_meta SET value = ? WHERE name = 'version'", (version,))
    return str(before)


def test_a_database_of_a_newer_version(outbox: CommandLine) -> None:
    outbox.environ(OUTBOX_TRANSPORT="smtp://127.0.0.1:1")
    known = write_version(outbox.path, "9999")
    for command in (["drain"], ["status"], ["submit", "ann@example.org"]):
        failed(outbox(*command, stdin=MAIL), 78, "9999")
    write_version(outbox.path, known)
    assert waits_unharmed(outbox)


def test_a_file_that_is_no_database(outbox: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"This is not a database.\n" * 100)
    for command in (["status"], ["submit", "ann@example.org"]):
        ran = outbox("--store", f"sqlite:///{tmp_path}/notes.txt", *command, stdin=MAIL)
        assert ran.status in (74, 78)
        assert "notes.txt" in ran.complaint
    assert (tmp_path / "notes.txt").read_bytes() == b"This is not a database.\n" * 100


def test_a_directory_that_is_not_there(outbox: CommandLine, tmp_path: Path) -> None:
    ran = outbox(
        "-q", "--store", f"sqlite:///{tmp_path}/none/outbox.db", "submit", "ann@example.org", stdin=MAIL
    )
    assert ran.status == 78
    assert "there is no directory" in ran.err
    assert "Traceback" not in ran.err


UNPRIVILEGED = """
import hashlib, locale, os, secrets, sys, traceback  # needed later, when the interpreter's own files may be out of reach
import outbox.cli, outbox.cli.hearing, outbox.cli.status, outbox.cli.submit, outbox.stores.sqlite
if os.geteuid() == 0:
    os.setuid(65534)
sys.exit(outbox.cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("mode", ["file", "directory", "read-only"])
def test_a_database_that_may_not_be_opened(outbox: CommandLine, tmp_path: Path, mode: str) -> None:
    place = Path("/tmp") / f"outbox-test-{os.getpid()}-{mode}"  # where also somebody else may look
    place.mkdir()
    try:
        shutil.copy(outbox.path, place / "outbox.db")
        (place / "outbox.db").chmod({"file": 0, "directory": 0o666, "read-only": 0o444}[mode])
        place.chmod({"file": 0o777, "directory": 0o600, "read-only": 0o555}[mode])
        argv = ["-q", "--store", f"sqlite:///{place}/outbox.db", "submit", "ann@example.org"]
        ran = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, *argv],
            input=MAIL,
            capture_output=True,
            check=False,
            env={"HOME": "/"},
        )
        failed(Ran(ran.returncode, ran.stdout.decode(), ran.stderr.decode()), 78, str(place))
    finally:
        place.chmod(0o700)
        shutil.rmtree(place)


FULL = """
mount -t tmpfs -o size=4m none "$1" || exit 99
cd "$1"
status=0
while [ $status = 0 ] && [ "$(ls -l outbox.db* 2>/dev/null | wc -l)" -lt 9 ]; do
    "$2" -m outbox -q --store sqlite:///outbox.db submit ann@example.org < "$3" >> "$4"
    status=$?
done
"$2" -m outbox list --limit 1000 --json --store sqlite:///outbox.db > "$5" || exit 98
exit $status
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare for a small file system of its own")
def test_a_full_disk_keeps_what_was_acknowledged(outbox: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    (tmp_path / "mail.eml").write_bytes(MAIL + b"x" * 76 + b"\n" * 500 + (b"y" * 70 + b"\n") * 6000)
    names = [
        tmp_path / "mount",
        Path(sys.executable),
        tmp_path / "mail.eml",
        tmp_path / "ids",
        tmp_path / "list",
    ]
    ran = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", FULL, "sh", *map(str, names)],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode in (1, 99):
        pytest.skip(f"no small file system can be had here: {ran.stderr.strip()}")
    complaint = ran.stderr.splitlines()[-1]
    assert (ran.returncode, complaint.startswith("outbox: ")) == (75, True), ran.stderr
    assert "is as good as full" in complaint
    acknowledged = (tmp_path / "ids").read_text().split()
    listed = (tmp_path / "list").read_text()
    assert acknowledged
    assert all(name in listed for name in acknowledged)
    assert "Traceback" not in ran.stderr
