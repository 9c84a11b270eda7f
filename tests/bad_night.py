"""A store as it is when somebody is called: long names, wide letters, long replies, whatever can be stopped or fail."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Mapping
from typing import Final

from outbox import Message, Outbox, PermFailed, Result, RetryPolicy, TempFailed, Uncertain
from outbox.bulletin import Bulletin, RelayBulletin, written
from outbox.protocols import Suspension
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.recording import RecordingTransport

__all__ = ["LONG", "fill"]

LONG: Final = "mail.transactional.invoices-and-reminders-of-the-northern-branch"
REPLY: Final = (
    "450 4.7.1 <mx17.example.net[192.0.2.17]>: Client host rejected: your address has a poor reputation; see "
    "https://postmaster.example.net/why?code=a8f3e1c09b77&host=mx17.example.net for what to do, and write to "
    "postmaster if that does not help within one working day"
)
WIDE: Final = "用户@例子.广告"
ANSWERS: Final[Mapping[str, Result]] = {
    "gone@example.org": PermFailed("550 5.1.1 no such user"),
    "grey@example.net": TempFailed(REPLY),
    WIDE: TempFailed("451 4.3.0 メールサーバーは現在過負荷です。しばらくしてから再送してください"),
    "mute@example.org": Uncertain("no answer to the final dot"),
    "rené.müller-lüdenscheidt.der.ältere@sehr-lange-domain-namen-sind-schön.example": PermFailed(
        "550 5.7.1 " + "e\u0301".join(["v\u0153ux de sant"] * 12)
    ),
}
MANY: Final = 250


def fill(store: SQLiteStore) -> list[str]:
    """Put all that in; the ids of some messages, one of each kind."""
    numbers = itertools.count()

    def message(*recipients: str, queue: str = "mail", at_most_once: bool = False) -> Message:
        return Message(
            id=f"night-{next(numbers):04}",
            recipients=recipients,
            sender="shop@example.org",
            content="Subject: Grüße 你好\r\n\r\nThank you.\r\n".encode(),
            queue=queue,
            at_most_once=at_most_once,
        )

    kinds = [
        message("ann@example.org", "gone@example.org"),
        message("grey@example.net"),
        message(WIDE, queue=LONG),
        message("mute@example.org", at_most_once=True),
        message("e\u0301te\u0301@example.org", "grey@example.net"),
        message(list(ANSWERS)[-1]),
    ]
    store.put(kinds)
    Outbox(store, RecordingTransport(ANSWERS), queues=["mail", LONG], retry=RetryPolicy(attempts=4)).drain()
    waiting = [message("ann@example.org", queue="bulk") for _ in range(MANY)]
    store.put([*waiting, message("ann@example.org", queue="nobody.serves"), message(WIDE)])
    store.hold(
        [waiting[0].id], reason="wrong attachment, ask Ann before it goes: she knows who was promised what"
    )
    store.cancel([each.id for each in waiting[1 : MANY // 2]])
    _stop(store)
    _announce(store)
    return [each.id for each in (*kinds, waiting[0], waiting[1], waiting[-1])]


def _stop(store: SQLiteStore) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=2, minutes=5)
    store.suspend(Suspension(kind="queue", value="bulk", until=later, reason="the relay is moved: 引っ越し"))
    store.suspend(
        Suspension(kind="domain", value="example.net", reason="their move, as the ticket says " * 4)
    )
    long = "campaign=spring-and-summer-collection-for-returning-customers"
    store.suspend(Suspension(kind="attribute", value=long))


def _announce(store: SQLiteStore) -> None:
    relays = (
        RelayBulletin(
            name="smtp.example.org:587",
            state="paused",
            opens_in=42,
            fault="cannot connect: Connection refused",
        ),
        RelayBulletin(
            name="mx.eu-central-1.backup.mail-provider.example:465",
            state="paused",
            opens_in=300,
            misconfigured=True,
            fault="535 5.7.8 Error: authentication failed: for the user that was given",
        ),
        RelayBulletin(name="smtp.limit.example:25", state="well", limited_for=120, connections=2),
        RelayBulletin(name="smtp.well.example:25", state="well", connections=7),
    )
    done = {"delivered": 3712, "retried": 44, "dead": 2, "released": 9}
    for name, host, queues in (("one", "app-1.example.org", ("mail", LONG)), ("two", "app-2", ("mail",))):
        said = Bulletin(
            host=host, pid=2998, queues=queues, workers=4, up=86461, window=300, done=done, relays=relays
        )
        store.announce(name, written(said), for_=dt.timedelta(minutes=5))
    gone = Bulletin(host="app-3", pid=18, queues=("mail", "bulk"), workers=1, up=5)
    store.announce("gone", written(gone), for_=dt.timedelta(microseconds=1))
