"""A program as a user would write it, with public names only.

The type checker reads it strictly, in the checkout and against the built
wheel, and it is run in both.  A line marked ``type: ignore`` is a mistake
that the checker has to see: where it sees none, the mark itself is an error.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from pathlib import Path

import outbox
from outbox import (
    Accepted,
    Claim,
    ConflictError,
    FilesystemStore,
    FunctionTransport,
    MemoryStore,
    Message,
    Notice,
    Outbox,
    Outcome,
    PutResult,
    Result,
    RetryPolicy,
    Settled,
    SQLiteStore,
    State,
    Store,
    SupportsBrowse,
    TempFailed,
    Transport,
    Verdict,
    from_email,
)


def deliver(message: Message, recipient: str) -> Result | None:
    if recipient.startswith("later"):
        return TempFailed("450 come back later", retry_after=dt.timedelta(minutes=5))
    return Accepted(f"250 took {len(message.content)} bytes")


class Printer:
    """A transport of one's own: nothing to inherit from."""

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        return Outcome.same(recipients, Accepted("printed"), relay="printer")

    def close(self) -> None:
        pass


def listen(notice: Notice) -> None:
    if isinstance(notice, Settled):
        print(notice.claim.message.id, describe(notice.verdict))


def describe(verdict: Verdict) -> str:
    match verdict:
        case outbox.Delivered():
            return "delivered"
        case outbox.Retry(delay=delay, reason=reason):
            return f"again in {delay.total_seconds():.0f} s: {reason}"
        case outbox.Dead(reason=reason) | outbox.Held(reason=reason):
            return f"stays: {reason}"
        case outbox.Expired() | outbox.Released():
            return "not handed over"


def mail() -> EmailMessage:
    email = EmailMessage()
    email["From"] = "shop@example.org"
    email["To"] = "ann@example.org"
    email["Subject"] = "Your order"
    email.set_content("It is on its way.")
    return email


def deliver_one(store: Store) -> None:
    transport: Transport = FunctionTransport(deliver)
    retry = {"mail": RetryPolicy.parse("1m, 5m*2, 1h*3", uncertain="hold")}
    with Outbox(store, transport, retry=retry, listeners=[listen]) as box:
        id_: str = box.submit(mail(), id="order-4711")
        try:
            box.submit(mail(), id="order-4711", recipients=["bob@example.org"])
        except ConflictError as error:
            print("refused:", error)
        box.submit_many(
            [Message(recipients=["later@example.org"], content=b"Hello\r\n", sender="shop@example.org")]
        )
        print("delivered", box.drain().delivered)
        if isinstance(store, SupportsBrowse):
            record = store.get(id_)
            assert record is None or record.summary.state is State.DELIVERED


def look(claims: Sequence[Claim]) -> Mapping[str, outbox.Fate]:
    return {recipient: claim.fates[recipient] for claim in claims for recipient in claim.recipients}


def mistakes(box: Outbox, store: Store, message: Message) -> None:
    """Never called: each line is wrong, and the type checker says so."""
    box.submit(42)  # type: ignore[arg-type]  # not a message
    box.submit(mail(), delay=5)  # type: ignore[arg-type]  # seconds are a timedelta
    box.submit(mail(), prioritiy=1)  # type: ignore[call-arg]  # misspelt
    Outbox(store, lambda _: None)  # type: ignore[arg-type]  # not a transport
    Message(content=b"", recipients=["a@example.org"], queue=None)  # type: ignore[arg-type]
    message.queue = "other"  # type: ignore[misc]  # values are frozen
    results: Sequence[PutResult] = store.put(message)  # type: ignore[arg-type]  # put takes many
    print(results, outbox.Outbx)  # type: ignore[attr-defined]  # no such name


def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    print(from_email(mail()).recipients)
    deliver_one(MemoryStore())
    with tempfile.TemporaryDirectory() as folder:
        deliver_one(SQLiteStore(Path(folder, "outbox.db")))
        if os.name == "posix":
            deliver_one(FilesystemStore(Path(folder, "spool")))
    with Outbox(MemoryStore(), Printer()) as box, box.running():
        box.submit(mail())


if __name__ == "__main__":
    main()
