"""One lap of one peer, in a process and an environment of its own; prints it as one line of JSON.

Each is used as its documentation says, on its own defaults unless its name
here says otherwise, with the mail made beforehand.  What it says of its
durability is read from the connection that it writes with, or from its source.

    python peer_loops.py NAME FOLDER THREADS BY NUMBER
"""

from __future__ import annotations

import email
import email.policy
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

from laps import lap

_SUBJECT: Final = "Your invoice"
_BODY: Final = ("The quick brown fox jumps over the lazy dog, and the dog does not mind.\n" * 30)[:1800]
_SENDER: Final = "billing@example.com"
_RECIPIENT: Final = "ann@example.org"
_SYNCHRONOUS: Final = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
_FULL: Final = 2


class Durability(NamedTuple):
    """Whether what was submitted outlasts a power failure, and by what."""

    lasts: bool
    text: str


class Peer(NamedTuple):
    """*submit* takes what *make* makes, in lists of *by* where *batch* is given and asked for."""

    make: Callable[[], Any]
    submit: Callable[[Any], Any]
    batch: Callable[[list[Any]], Any] | None
    durability: Callable[[], Durability]
    close: Callable[[], Any] = lambda: None


def content() -> bytes:
    mail = EmailMessage(policy=email.policy.SMTP)
    mail["From"], mail["To"], mail["Subject"] = _SENDER, _RECIPIENT, _SUBJECT
    mail.set_content(_BODY)
    return mail.as_bytes()


def _pragmas(execute: Callable[[str], Any]) -> Durability:
    (journal,) = execute("PRAGMA journal_mode").fetchone()
    (synchronous,) = execute("PRAGMA synchronous").fetchone()
    text = f"synchronous={_SYNCHRONOUS[synchronous]}"
    if journal == "wal":
        return Durability(synchronous >= _FULL, f"WAL, {text}")
    # There the removal of the journal is the commit, and only EXTRA syncs that.
    lasts = synchronous > _FULL
    removal = "" if lasts else ", the journal's removal is not synced"
    return Durability(lasts, f"rollback journal ({journal}), {text}{removal}")


def huey(folder: Path) -> Peer:
    from huey import SqliteHuey

    queue = SqliteHuey(filename=str(folder / "huey.db"), fsync=True)

    def send(content: bytes) -> None:
        raise NotImplementedError(content)

    return Peer(
        content, queue.task()(send), None, lambda: _pragmas(queue.storage.conn.execute), queue.storage.close
    )


def litequeue(folder: Path) -> Peer:
    from litequeue import LiteQueue

    queues = threading.local()

    def queue() -> Any:
        # Its connection is not to be shared by threads.
        if not hasattr(queues, "own"):
            queues.own = LiteQueue(folder / "litequeue.db", timeout=30)
        return queues.own

    def batch(contents: list[str]) -> None:
        with queue().transaction(mode="IMMEDIATE"):
            for content in contents:
                queue().put(content)

    queue()
    durability = lambda: _pragmas(queue().conn.execute)  # noqa: E731 - one of five fields
    return Peer(lambda: content().decode(), lambda content: queue().put(content), batch, durability)


def persist_queue(folder: Path) -> Peer:
    from persistqueue import SQLiteAckQueue

    queue = SQLiteAckQueue(str(folder), multithreading=True)
    durability = lambda: _pragmas(queue._putter.execute)  # noqa: E731, SLF001 - one of five fields; it tells nowhere else
    return Peer(content, queue.put, None, durability, queue.close)


def django_with(folder: Path, *apps: str, wal: bool, **settings: Any) -> Any:
    import django
    from django.conf import settings as configuration
    from django.core.management import call_command
    from django.db import connection

    command = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL"
    options = {"timeout": 30, "init_command": command, "transaction_mode": "IMMEDIATE"} if wal else {}
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "django.db", "OPTIONS": options}
    configuration.configure(
        DATABASES={"default": database},
        INSTALLED_APPS=["django.contrib.contenttypes", *apps],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        USE_TZ=True,
        SECRET_KEY="of no use",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        **settings,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    return connection


def _of_django(connection: Any) -> Durability:
    def execute(statement: str) -> Any:
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor

    return _pragmas(execute)


def django_mailer(folder: Path, *, wal: bool = False) -> Peer:
    connection = django_with(folder, "mailer", wal=wal, EMAIL_BACKEND="mailer.backend.DbBackend")
    from django.core.mail import EmailMessage as Mail, get_connection

    def make() -> Any:
        return Mail(_SUBJECT, _BODY, _SENDER, [_RECIPIENT])

    backend = get_connection()
    return Peer(
        make,
        lambda mail: mail.send(),
        backend.send_messages,
        lambda: _of_django(connection),
        connection.close,
    )


def django_mailer_wal(folder: Path) -> Peer:
    return django_mailer(folder, wal=True)


def django_post_office(folder: Path, *, wal: bool = False) -> Peer:
    connection = django_with(folder, "post_office", wal=wal, EMAIL_BACKEND="post_office.EmailBackend")
    from post_office import mail

    def make() -> dict[str, str]:
        return {"recipients": _RECIPIENT, "sender": _SENDER, "subject": _SUBJECT, "message": _BODY}

    return Peer(
        make,
        lambda said: mail.send(**said),
        mail.send_many,
        lambda: _of_django(connection),
        connection.close,
    )


def django_post_office_wal(folder: Path) -> Peer:
    return django_post_office(folder, wal=True)


def mailqueue_runner(folder: Path, *, synced: bool = False) -> Peer:
    from schwarz.mailqueue import enqueue_message

    queue = folder / "queue"

    def submit(content: bytes) -> None:
        enqueue_message(content, str(queue), _SENDER, [_RECIPIENT])
        if synced:
            _sync(queue / "new")

    text = "the directory synced by us" if synced else "the file is synced, the directory is not"
    return Peer(content, submit, None, lambda: Durability(synced, f"maildir: {text}"))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mailqueue_runner_synced(folder: Path) -> Peer:
    """As it would have to be used for what it took to outlast a power failure."""
    return mailqueue_runner(folder, synced=True)


PEERS: Final = {
    "huey": huey,
    "litequeue": litequeue,
    "persist-queue": persist_queue,
    "django-mailer": django_mailer,
    "django-mailer WAL": django_mailer_wal,
    "django-post_office": django_post_office,
    "django-post_office WAL": django_post_office_wal,
    "mailqueue-runner": mailqueue_runner,
    "mailqueue-runner synced": mailqueue_runner_synced,
}


def run(name: str, folder: Path, threads: int, by: int, number: int) -> dict[str, Any]:
    """What the lap came to; ``failed`` where the peer has no batches."""
    peer = PEERS[name](folder)
    try:
        lasts, text = peer.durability()
        told: dict[str, Any] = {
            "version": version(name.partition(" ")[0]),
            "durable": lasts,
            "durability": text,
        }
        if by > 1 and peer.batch is None:
            return {**told, "failed": "has none"}
        made: Sequence[Any] = [peer.make() for _ in range(number + threads * by)]
        if by > 1:
            made = [made[start : start + by] for start in range(0, len(made), by)]
        done = lap(peer.batch if by > 1 and peer.batch else peer.submit, made, threads=threads, size=by)
        return {**told, "messages": done.messages, "seconds": done.seconds}
    finally:
        peer.close()


if __name__ == "__main__":
    # Peers say odds and ends on the way; the lap is the last line.
    _, name, folder, *figures = sys.argv
    print(json.dumps(run(name, Path(folder), *map(int, figures))))
