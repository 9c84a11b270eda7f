"""See what outbox does, in twenty seconds, on this machine alone.

It starts a small mail server of its own, submits six mails into a new database,
drains, and shows what became of each: one recipient is refused, two are put off
for a moment, and one mail waits for tomorrow.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Final
from urllib.parse import quote

from outbox import Outbox, Record, RetryPolicy, SupportsWait
from outbox.clock import SystemClock
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.smtp_sink import SMTPSink
from outbox.transports.smtp import SMTPTransport
from outbox.values import printable

from .capable import browsable
from .exits import CommandError, Exit
from .output import Console
from .records import reply_of

__all__ = ["arguments", "run"]

EPILOG: Final = "Nothing leaves this machine, and no configuration is read or needed.\n"

_DAY: Final = dt.timedelta(days=1)
_PATIENCE: Final = dt.timedelta(seconds=5)
_SENDER: Final = "shop@example.org"
_MAILS: Final = (
    ("Welcome", "ann@example.org"),
    ("Password reset", "grey@example.org"),
    ("Invoice 1042", "gone@example.org"),
    ("Team lunch", "bob@example.org, full@example.org, gone@example.org"),
    ("Newsletter", "bob@example.org"),
)
_TOMORROW: Final = ("Reminder", "ann@example.org")
_HEAD: Final = ("MAIL", "TO", "TRY", "WHAT THE SERVER SAID", "FATE")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep", metavar="DIR", help="put the database there (default: a new temporary directory)"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    directory = Path(options.keep) if options.keep else Path(tempfile.mkdtemp(prefix="outbox-demo-"))
    path = directory.resolve() / "outbox.db"
    _require_a_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with SMTPSink() as sink:
        _set_the_scene(sink)
        _say(console, f"A mail server of the demo's own listens on {sink.host}, port {sink.port}.")
        transport = SMTPTransport(sink.host, sink.port)
        with Outbox(SQLiteStore(path, keep_delivered=_DAY), transport, retry=_policy()) as outbox:
            records = _play(outbox, path, console)
    if console.as_json:
        console.data(
            [dict(zip(("mail", "to", "try", "said", "fate"), row, strict=True)) for row in _rows(records)]
        )
    else:
        console.table(_HEAD, list(_without_repeats(_rows(records))))
        _teach(path, records, console)
    return Exit.OK


def _require_a_name(path: Path) -> None:
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        name = printable(str(path), 200)
        raise CommandError(
            Exit.USAGE, f"{name} is not UTF-8, and no URL can name it: say --keep DIR"
        ) from None


def _set_the_scene(sink: SMTPSink) -> None:
    sink.on("rcpt", "grey@example.org", reply="450 4.7.1 greylisted: come back", times=1)
    sink.on("rcpt", "full@example.org", reply="452 4.2.2 mailbox full just now", times=1)
    sink.on("rcpt", "gone@example.org", reply="550 5.1.1 no such user here")


def _policy() -> RetryPolicy:
    return RetryPolicy.parse("0.8s*3")


def _play(outbox: Outbox, path: Path, console: Console) -> list[Record]:
    ids = [outbox.submit(_mail(subject, to)) for subject, to in _MAILS]
    ids.append(outbox.submit(_mail(*_TOMORROW), delay=_DAY))
    _say(console, f"{len(ids)} mails are submitted, and on disk: {path}")
    tally = outbox.drain()
    _say(
        console,
        f"First drain: {tally.delivered} delivered, {tally.dead} dead, {tally.retried} to be tried again.",
    )
    delivered, dead = _drain_what_comes_soon(outbox)
    _say(console, f"The retries, a moment later: {delivered} delivered, {dead} dead.\n")
    store = browsable(outbox.store)
    return [record for record in map(store.get, ids) if record is not None]


def _mail(subject: str, to: str) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = _SENDER, to, subject
    mail.set_content("This is a mail of the demo.\n")
    return mail


def _drain_what_comes_soon(outbox: Outbox) -> tuple[int, int]:
    """What a later drain, or a running one, would do: here with retries that come within a second."""
    store, clock = outbox.store, SystemClock()
    deadline = clock.monotonic() + _PATIENCE.total_seconds()
    delivered = dead = 0
    while isinstance(store, SupportsWait) and clock.monotonic() < deadline:
        due = store.next_due(["mail"])
        if due is None or due > _PATIENCE:
            break
        store.wait(due)
        tally = outbox.drain()
        delivered, dead = delivered + tally.delivered, dead + tally.dead
    return delivered, dead


def _rows(records: Sequence[Record]) -> Iterator[tuple[str, ...]]:
    """A row for each time a recipient was tried; his fate stands in the last of them."""
    subjects = [subject for subject, _ in (*_MAILS, _TOMORROW)]
    for subject, record in zip(subjects, records, strict=True):
        for recipient, fate in record.summary.fates.items():
            tries = [(a.number, a.results[recipient]) for a in record.history if recipient in a.results]
            for number, result in tries[:-1]:
                yield subject, recipient, str(number), reply_of(result), ""
            last = (str(tries[-1][0]), reply_of(tries[-1][1])) if tries else ("", "(not before tomorrow)")
            yield subject, recipient, *last, str(fate)


def _without_repeats(rows: Iterator[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """For a person, to whom an empty cell says: the same as above."""
    mail = to = ""
    for row in rows:
        again = row[0] == mail
        yield "" if again else row[0], "" if again and row[1] == to else row[1], *row[2:]
        mail, to = row[:2]


def _teach(path: Path, records: Sequence[Record], console: Console) -> None:
    mixed = next(r for r in records if len(set(r.summary.fates.values())) > 1)
    program = _program()
    for line in (
        "",
        "Who was put off was tried again; who was refused stands there, with the",
        "reason, until a person decides; who has the mail is not tried again.",
        "",
        "Look for yourself:",
        f"  export OUTBOX_STORE=sqlite:///{quote(path.as_posix(), safe='/:')}",
        f"  {program} status",
        f"  {program} list",
        f"  {program} show {mixed.summary.id}",
        "and let the refused one, and only that one, be tried again:",
        f"  {program} requeue {mixed.summary.id}",
        "",
        "The same from your program:",
        '  outbox = Outbox(SQLiteStore("outbox.db"), SMTPTransport("localhost"))',
        "  outbox.submit(mail)     # on disk when it returns",
        "  outbox.drain()          # or: with outbox.running(): ...",
    ):
        console.line(line)


def _program() -> str:
    """The command as it was called, so that the advice can be typed as it stands."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.orig_argv[0])} -m outbox"
    if called.stem != "outbox":
        return "outbox"
    found = shutil.which("outbox")
    return "outbox" if found and called.exists() and called.samefile(found) else shlex.quote(sys.argv[0])


def _say(console: Console, text: str) -> None:
    if not console.as_json and console.verbosity >= 0:
        console.line(text)
