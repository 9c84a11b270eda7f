"""Who tells the sender: a listener that submits a report for what failed, and looks after what it may have missed."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from outbox.address import domain, parse_mailbox
from outbox.clock import Clock, SystemClock
from outbox.errors import ConfigurationError, ConflictError, InvalidMessage, OutboxError, StoreError
from outbox.events import Delayed, Notice, Settled
from outbox.filters import Filter, find
from outbox.lifecycle import Attempt, Claim, Event, Fate, Record, State
from outbox.mail import from_email
from outbox.message import Message
from outbox.outcome import PermFailed
from outbox.protocols import Store, SupportsBrowse
from outbox.values import quoted

from .reports import Action, Original, Report, Told, written

__all__ = ["Bounces"]

_LOG: Final = logging.getLogger("outbox.bounces")
_DAY: Final = dt.timedelta(days=1)
_PAGE: Final = 100
_KEPT: Final = 1000
_ENDS: Final = frozenset({Event.DEAD, Event.EXPIRED, Event.HELD})
_MESSAGE_ID: Final = re.compile(
    rb"^Message-ID:[ \t]*(?:\r\n[ \t]+)?(<[!-;=?-~]{1,900}>)[ \t]*\r$", re.IGNORECASE | re.MULTILINE
)


class Bounces:
    """A listener that tells the envelope's sender of each recipient for whom his mail failed for good.

    It submits a mail (RFC 3464) to *store* with the null sender, which is
    delivered like any other.  Never told are the null sender, so that no
    bounce is ever bounced, and who said NOTIFY=NEVER (the attribute
    ``dsn-notify``, as ``outbox sendmail -N never`` sets it).  Who is UNCERTAIN
    is not told of: a person has to say first what became of him.

    Each failure is told once: the bounce's id comes from the message's and
    from when it failed, so that a second submit stores nothing, for as long
    as the store remembers it.  It is submitted after the failure was
    settled.  A process that is killed between the two leaves it to
    :meth:`catch_up`, of whoever delivers next; so it is told at least once
    wherever somebody delivers within that time and the message has not been
    purged, and the store can be browsed.

    Args:
        author: Who it is from, in the header: ``MAILER-DAEMON@example.org``.
        name: What stands before that address.
        queue: Which queue it goes to; the message's own unless said.
        whole_up_to: The octets up to which the mail is returned whole; of a larger one the header.
        delayed: Whether who sent is told of a :class:`~outbox.events.Delayed`, too, once.

    Raises:
        ConfigurationError: *author* is no address.
    """

    def __init__(
        self,
        store: Store,
        author: str,
        *,
        name: str = "Mail Delivery System",
        queue: str | None = None,
        whole_up_to: int = 50_000,
        delayed: bool = False,
        clock: Clock | None = None,
    ) -> None:
        try:
            self._author = parse_mailbox(author)
        except InvalidMessage as error:
            raise ConfigurationError(f"bounces cannot come from {quoted(author, 80)}: {error}") from None
        self._from = f'"{re.sub(r"[^ !#-[^-~]|]", "", name)}" <{self._author}>'
        self._store = store
        self._queue = queue
        self._whole_up_to = whole_up_to
        self._delayed = delayed
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._left: list[Message] = []

    def __repr__(self) -> str:
        return f"Bounces({self._store!r}, {self._author!r})"

    def __call__(self, notice: Notice) -> None:
        """Tell of what a notice says, if it has to be told; and of what could not be stored before."""
        match notice:
            case Settled(claim=claim) if failed := _newly_failed(notice):
                bounce = self._of_claim(claim, failed)
            case Delayed(claim=claim) if self._delayed:
                bounce = self._of_delay(notice)
            case _:
                return
        with self._lock:
            waiting, self._left = [*self._left, *([bounce] if bounce else [])], []
        self._submit(waiting)

    def catch_up(self, within: dt.timedelta = _DAY) -> int:
        """Tell of what failed *within* this time and was not told; how many messages that were.

        It looks at those that ended dead, held or expired within it, and at
        no older ones.  What is told already is not stored again.

        Raises:
            StoreError: the store cannot be read.
        """
        if not isinstance(self._store, SupportsBrowse):
            return 0
        told, batch = 0, []
        for record in self._recent(self._store, self._clock.now() - within):
            batch += list(self._of_record(record))
            if len(batch) >= _PAGE:
                told, batch = told + self._submit(batch), []
        return told + self._submit(batch)

    def _recent(self, store: SupportsBrowse, since: dt.datetime) -> Iterator[Record]:
        ends = Filter(states=[State.DEAD, State.HELD, State.EXPIRED], settled_since=since)
        for summary in find(store, ends):
            if summary.sender and Fate.FAILED in summary.fates.values():
                record = _read(store, summary.id)
                if record is not None:
                    yield record

    def _of_claim(self, claim: Claim, failed: Sequence[str]) -> Message | None:
        if not _wanted(claim.message, "failure"):
            return None
        store, record = self._store, None
        if isinstance(store, SupportsBrowse):
            record = _read(store, claim.message.id)
        if record is not None:
            for attempt, recipients in _failures(record):
                if set(failed) & set(recipients):
                    return self._bounce(record, attempt, recipients)
        return None

    def _of_record(self, record: Record) -> Iterator[Message]:
        if _wanted(record.message, "failure"):
            for attempt, recipients in _failures(record):
                bounce = self._bounce(record, attempt, recipients)
                if bounce is not None:
                    yield bounce

    def _bounce(self, record: Record, made: Attempt, recipients: Sequence[str]) -> Message | None:
        why = _of_all(made.reason, record.message.recipients)
        told = [
            Told(recipient=r, result=made.results.get(r), why=why, relay=made.relay, at=made.at)
            for r in recipients
        ]
        key = f"{record.message.id} failed {made.number} {made.at.timestamp():.6f}"
        return self._message(record.message, key, "failed", told, record.summary.submitted_at)

    def _of_delay(self, notice: Delayed) -> Message | None:
        message = notice.claim.message
        if not _wanted(message, "delay"):
            return None
        why = _of_all(notice.reason, message.recipients)
        told = [Told(recipient=r, result=notice.results.get(r), why=why) for r in notice.recipients]
        return self._message(message, f"{message.id} delayed", "delayed", told, None)

    def _message(
        self, about: Message, key: str, action: Action, told: Sequence[Told], arrived: dt.datetime | None
    ) -> Message | None:
        """The mail itself, with as much of the original as makes a mail that can be sent."""
        id = "bounce-" + hashlib.sha256(key.encode()).hexdigest()[:40]
        found = _MESSAGE_ID.search(about.content.partition(b"\r\n\r\n")[0] + b"\r\n")
        report = Report(
            id=id,
            action=action,
            to=about.sender,
            author=self._from,
            reporting=domain(self._author),
            date=self._clock.now(),
            arrived=arrived,
            envelope_id=about.attributes.get("dsn-envid", ""),
            about=found[1].decode() if found else "",
            told=told,
        )
        brief = action == "delayed" or _asked(about, "dsn-ret") == ["hdrs"]
        limit = -1 if brief else self._whole_up_to
        originals = (
            Original.of(about.content, whole_up_to=limit),
            Original.of(about.content, whole_up_to=-1),
            Original(),
        )
        reason: InvalidMessage | None = None
        for original in originals:
            try:
                return from_email(
                    written(report, original),
                    sender="",
                    recipients=[about.sender],
                    queue=self._queue or about.queue,
                    id=id,
                    attributes={"bounce-of": about.id},
                )
            except InvalidMessage as error:
                # What is returned may be no mail at all: a store keeps whatever a transport understands.
                reason = error
        _LOG.warning("%s: its sender cannot be told: %s", about.id, reason)
        return None

    def _submit(self, bounces: Sequence[Message]) -> int:
        """Store them; how many were new.  What cannot be stored now is kept, and tried with the next."""
        try:
            return _new(self._store, bounces) if bounces else 0
        except StoreError as error:
            with self._lock:
                self._left = [*bounces, *self._left][:_KEPT]
            _LOG.warning("%d bounces could not be stored, and are tried again: %s", len(bounces), error)
            return 0


def _new(store: Store, bounces: Sequence[Message]) -> int:
    try:
        return sum(result.status == "stored" for result in store.put(bounces))
    except ConflictError:
        # It was told while the settings named another queue: one by one, to find which.
        if len(bounces) == 1:
            return 0
    return sum(_new(store, [bounce]) for bounce in bounces)


def _read(store: SupportsBrowse, id: str) -> Record | None:
    try:
        return store.get(id)
    except OutboxError as error:
        _LOG.warning("%s failed, and its sender cannot be told: %s", id, error)
        return None


def _of_all(reason: str, recipients: Sequence[str]) -> str:
    """What a message's reason says of all of them: as far as it gives nobody's own words."""
    text = f": {reason}"
    named = [at for r in recipients if (at := text.find(f": {r}:")) >= 0]
    return text[2 : min(named, default=len(text))]


def _newly_failed(notice: Settled) -> Sequence[str]:
    fates = notice.verdict.fates
    return [r for r in notice.claim.recipients if fates[r] is Fate.FAILED]


def _wanted(message: Message, condition: str) -> bool:
    """Whether the sender is to be told (RFC 3461 section 4.1); a null one never is."""
    if not message.sender:
        return False
    wanted = _asked(message, "dsn-notify")
    return wanted == [""] or condition in wanted


def _asked(message: Message, name: str) -> Sequence[str]:
    """What a program asked for: in any case of letters, as the standard has its keywords, and with blanks."""
    return [each.strip() for each in message.attributes.get(name, "").lower().split(",")]


def _failures(record: Record) -> Sequence[tuple[Attempt, Sequence[str]]]:
    """At which attempt which recipients failed.

    It is the one that refused them, if none came after it that handed them
    over; who was given up failed with the last.
    """
    found: dict[int, list[str]] = {}
    for recipient, fate in record.summary.fates.items():
        if fate is Fate.FAILED and (place := _place(record.history, recipient)) is not None:
            found.setdefault(place, []).append(recipient)
    return [(record.history[place], recipients) for place, recipients in found.items()]


def _place(history: Sequence[Attempt], recipient: str) -> int | None:
    """Where in the history he failed."""
    end = None
    for place in reversed(range(len(history))):
        attempt = history[place]
        result = attempt.results.get(recipient)
        if isinstance(result, PermFailed):
            return place
        if end is None and attempt.event in _ENDS:
            end = place
        if result is not None:
            break
    return end
