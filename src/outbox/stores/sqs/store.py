"""The store: five verbs over the queues of SQS."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from outbox.clock import Clock, SystemClock
from outbox.errors import (
    AmbiguousPut,
    ConfigurationError,
    OutboxError,
    StoreError,
    StoreUnavailable,
    UnsupportedError,
)
from outbox.lifecycle import Claim, Delivered, PutResult, Settlement
from outbox.message import Message
from outbox.protocols import MAX_BYTES, Finding, Guarantee
from outbox.stores import standing as standings
from outbox.stores.forking import whole_after_fork
from outbox.stores.instants import micros, width
from outbox.stores.intake import sift
from outbox.stores.limits import bounded
from outbox.stores.selection import distinct

from . import checking
from .blobs import Blobs
from .boto3 import Client
from .claiming import Claiming
from .hand import Out, by_queue
from .naming import require_prefix
from .packing import Packing
from .post import Letter, Post
from .settling import Settling, Work, postponed
from .slips import Slip
from .spans import Lease, seconds

__all__ = ["SQSStore"]

_CLAIMS: Final = 1000
"""No more come at once, however many were asked for: each is in flight from then on."""
_KEPT: Final = 10_000
"""Messages that are remembered, for they were stored and their put failed: whoever repeats it does so soon."""
_SMALLEST: Final = 16 << 10
_LARGEST: Final = 1 << 20
_LONGEST_POLL: Final = 20


class SQSStore:
    """Messages in standard queues of Amazon SQS, one for each queue of ours; see docs/sqs.md for what they promise.

    Args:
        region, endpoint, profile: As boto3 takes them; what is not said it
            looks for where it always does.  So it does for credentials.
        session: A ``boto3.Session``, for what these do not say.
        prefix: What the names of the queues begin with.
        queues: Those that :meth:`check` looks at and :meth:`migrate` makes.
        blobs: Where content is set aside that SQS does not take.
        max_message: Bytes of the largest message that these queues take, and
            of the largest request: 256 KiB, which every queue does, up to 1 MiB.
        poll: How long a claim waits for the first message, to the second, 20 at most: a second at first, and
            twice as long each time in vain.  It does not wait while there is a claim that may be settled any
            moment.  Zero asks some of the servers only, and may find nothing where there is something.
        create: Whether a queue that is not there is made when it is used.
        clock: Decides how old a message is, and when one is due whose delay is longer than 15 minutes.

    Raises:
        ConfigurationError: a setting makes no sense.
    """

    lacks: ClassVar[frozenset[Guarantee]] = frozenset(Guarantee) - {Guarantee.REFUNDS}

    def __init__(
        self,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        profile: str | None = None,
        session: Any = None,
        prefix: str = "outbox-",
        queues: Sequence[str] = ("mail",),
        blobs: Blobs | None = None,
        max_message: int = 256 << 10,
        poll: dt.timedelta = dt.timedelta(seconds=_LONGEST_POLL),
        create: bool = False,
        clock: Clock | None = None,
    ) -> None:
        if not _SMALLEST <= max_message <= _LARGEST:
            raise ConfigurationError(
                f"max_message is from {_SMALLEST} to {_LARGEST} bytes, not {max_message}"
            )
        if seconds(width(poll)) > _LONGEST_POLL:
            raise ConfigurationError(f"poll is up to {_LONGEST_POLL} seconds, not {poll}")
        self._queues = distinct(queues)
        self._prefix = require_prefix(prefix)
        self._clock = clock or SystemClock()
        self._client = Client("sqs", region=region, endpoint=endpoint, profile=profile, session=session)
        self._post = Post(self._client, prefix, create=create, most=max_message)
        self._packing = Packing(blobs, max_message)
        self._settling = Settling(self._post, self._packing)
        self._lock = threading.Lock()
        self._claiming = Claiming(
            self._post,
            self._packing,
            poll=seconds(width(poll)),
            lock=self._lock,
            now=lambda: micros(self._clock.now()),
        )
        self._create = create
        self._kept: dict[str, bytes] = {}
        self._closed = False
        whole_after_fork(self._lock)

    def __repr__(self) -> str:
        return f"<SQSStore {self._prefix!r}>"

    # -- the five verbs

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        """See :meth:`outbox.protocols.Intake.put`; but not all or none where there are more than one request takes.

        What was stored of a put that failed is known to this object (of the last ten thousand messages), and
        repeating it stores only the rest.  A request whose answer was lost is
        AmbiguousPut, and repeated it may be stored twice.

        Raises:
            UnsupportedError: a message is too large, or is to be sent at most once, which no standard queue keeps.
            ConfigurationError: SQS can have no queue of such a name, or there are no credentials; nothing was stored.
        """
        now = self._now()
        _require_repeatable(messages)
        with self._lock:
            known = {m.id: self._kept[m.id] for m in messages if m.id in self._kept}
        new, results = sift(messages, known)
        # What fails for its name alone fails before anything is stored: nobody could tell how much was.
        self._post.require_names(dict.fromkeys(message.queue for message in new))
        slips: list[Slip] = []
        try:
            slips += (self._packing.pack(message, standings.fresh(message, now)) for message in new)
        except OutboxError:
            self._packing.forget(slips)
            raise
        self._send(new, slips, now)
        with self._lock:
            for message in messages:
                self._kept.pop(message.id, None)
        return results

    def claim(
        self, *, limit: int, lease: dt.timedelta, queues: Sequence[str], max_bytes: int = MAX_BYTES
    ) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.claim`; the lease is in whole seconds, from one to twelve hours."""
        names = distinct(queues)
        limit = min(bounded(limit), _CLAIMS)
        now = self._now()
        if not limit or not names:
            return []
        return self._claiming.claim(names, limit, bounded(max_bytes), Lease.of(lease, now))

    def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.extend`; twelve hours after the claim a lease is over for good.

        Whoever extends is busy, and may not claim for long: what was received and waits here to be claimed goes back
        to its queue once half of its time is over.
        """
        now = self._now()
        span = Lease.of(lease, now)
        lost: list[Claim] = []
        held: list[Out] = []
        for claim in claims:
            out = self._claiming.out(claim, now)
            if out is None or out.given.until <= now:
                lost.append(claim)
            else:
                held.append(out)
        for queue, group in by_queue(held).items():
            hidden = {out.handle: left for out in group if (left := _extension(out, span))}
            gone = self._post.hide(queue, hidden)
            for out in group:
                if out.handle in gone:
                    lost.append(out.claim)
                elif out.handle in hidden:
                    out.given.until = span.end(hidden[out.handle])
        self._claiming.let_go(Lease.of(lease, self._now()))
        return lost

    def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.settle`.

        A verdict that comes after its lease ran out changes nothing here,
        unless it is that everybody has received the message, or it was
        written by half: then the rest of it is.
        """
        fates = [standings.fates_of(each.verdict, each.claim.message) for each in settlements]
        now = self._now()
        work: list[Work] = []
        stale: list[Claim] = []
        try:
            for each, new in zip(settlements, fates, strict=True):
                out = self._claiming.out(each.claim, now)
                if out is None or not _in_time(out, each, now) or not self._taken_up(out):
                    stale.append(each.claim)
                else:
                    work.append(Work(out, each.verdict, new))
            return stale + [out.claim for out in self._settling.settle(work, now)]
        finally:
            for one in work:
                one.out.given.busy = False

    def _taken_up(self, out: Out) -> bool:
        """Whether nobody else is settling it just now."""
        with self._lock:
            busy, out.given.busy = out.given.busy or out.given.settled, True
        return not busy

    def close(self) -> None:
        """See :meth:`outbox.protocols.Store.close`; what was received and not claimed goes back."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        # What cannot be given back comes back by itself when its time in hand is over.
        with contextlib.suppress(StoreError):
            self._claiming.give_back()
        self._client.close()

    # -- upkeep

    def migrate(self) -> Sequence[str]:
        """See :meth:`outbox.protocols.SupportsMaintain.migrate`: makes those queues that are not there."""
        self._now()
        if self._create:
            return []  # each is made when it is used
        return [f"made the queue {name}" for queue in self._queues for name in self._post.make(queue)]

    def check(self) -> Sequence[Finding]:
        self._now()
        return list(checking.findings(self._post, self._queues, self._packing))

    def prune(self, *, limit: int = 1000) -> int:  # noqa: ARG002 - SQS does it by itself
        """See :meth:`outbox.protocols.SupportsMaintain.prune`; SQS does it by itself, after its retention period."""
        self._now()
        return 0

    # --

    def _now(self) -> int:
        if self._closed:
            raise StoreUnavailable("this SQSStore was closed: open it again")
        return micros(self._clock.now())

    def _send(self, messages: Sequence[Message], slips: Sequence[Slip], now: int) -> None:
        places: dict[str, list[int]] = defaultdict(list)
        for place, message in enumerate(messages):
            places[message.queue].append(place)
        stored: set[int] = set()
        for queue, mine in places.items():
            try:
                sent = self._post.send(queue, [self._letter(slips[place], now) for place in mine])
            except ConfigurationError:
                # Before the first request: nobody who has no credentials has sent any.
                self._packing.forget(slips)
                raise
            stored.update(mine[each] for each in sent.stored)
            if sent.error is not None:
                self._failed(messages, slips, stored, sent.error)

    def _letter(self, slip: Slip, now: int) -> Letter:
        slip, delay = postponed(slip, slip.standing.due - now)
        return Letter(text=self._packing.text(slip), delay=delay)

    def _failed(
        self, messages: Sequence[Message], slips: Sequence[Slip], stored: set[int], error: StoreError
    ) -> None:
        with self._lock:
            self._kept |= {messages[place].id: messages[place].envelope_digest for place in stored}
            for id in list(self._kept)[: -max(_KEPT, len(stored))]:
                del self._kept[id]
        if isinstance(error, AmbiguousPut):
            raise error
        self._packing.forget(slip for place, slip in enumerate(slips) if place not in stored)
        if stored:
            raise AmbiguousPut(
                f"{len(stored)} of {len(messages)} were stored, and the others were not: repeat all of them ({error})"
            ) from error
        raise error


def _require_repeatable(messages: Sequence[Message]) -> None:
    for message in messages:
        if message.at_most_once:
            raise UnsupportedError(
                f"{message.id} is to be sent at most once: a standard queue of SQS may give a message to two at once. "
                "Put it in another store"
            )


def _extension(out: Out, span: Lease) -> int:
    """Seconds from now on, to twelve hours after the claim at most: beyond them SQS refuses it, and extends nothing."""
    left = span.within(out.given.last)
    return left if left == span.seconds or span.end(left) > out.given.until else 0


def _in_time(out: Out, settlement: Settlement, now: int) -> bool:
    given = out.given
    return given.sent or given.until > now or isinstance(settlement.verdict, Delivered)
