"""Messages on their way, one after the other, over one connection at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import attrs

from outbox.errors import RelayFault, RelayUnavailable
from outbox.protocols import Delivery
from outbox.values import printable

from .commands import Terms
from .connection import CHUNK, Connection
from .extensions import Extensions
from .parcel import Parcel
from .steps import Lost
from .transaction import Transaction
from .transcript import Recorder

__all__ = ["Courier", "chunk"]


class Courier:
    """Takes parcels to one relay, and has a connection to itself for as long as it is at it.

    Args:
        take: A connection, used before or new, over which a recorder hears what is said.
        connect: A new one.
        spent: Has this one carried enough, or lived long enough?
        put_back: Let go of one that may be used again.
        recorder: Makes one for a parcel.
        deliveries: What comes next.  With PIPELINING one is pulled before the
            content of the one before is sent.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        take: Callable[[Recorder], Connection],
        connect: Callable[[Recorder], Connection],
        spent: Callable[[Connection], bool],
        put_back: Callable[[Connection], None],
        recorder: Callable[[], Recorder],
        deliveries: Iterator[Delivery],
    ) -> None:
        self._terms = terms
        self._take = take
        self._connect = connect
        self._spent = spent
        self._put_back = put_back
        self._recorder = recorder
        self._deliveries = deliveries
        self._connection: Connection | None = None
        self._ahead: Parcel | None = None
        self._begun: Transaction | None = None

    def next(self) -> Parcel | None:
        """The next parcel; None where there is no more."""
        parcel, self._ahead = self._ahead or self._pull(), None
        return parcel

    def carry(self, parcel: Parcel) -> None:
        """Hand *parcel* over, in as many transactions as it takes; it knows then what came of it."""
        if self._begun is None:
            parcel.recorder = self._recorder()
        try:
            if self._connection is None and self._terms.pipelining and len(parcel.rest) <= CHUNK:
                # However long that takes, no server is kept waiting meanwhile.
                self._look_ahead()
            while parcel.rest and self._transact(parcel):
                pass
        except BaseException as error:  # noqa: BLE001 - it is raised when this parcel has been told of
            self.abandon()
            parcel.error = error

    def rest(self) -> None:
        """Let go of the connection, for others to use where nothing is outstanding on it."""
        if self._begun is not None:
            self.abandon()
        connection, self._connection = self._connection, None
        if connection is not None:
            self._put_back(connection)

    def abandon(self) -> None:
        """Close the connection without a word: the commands of a message that nobody will hear of may be on it."""
        connection, self._connection, self._begun = self._connection, None, None
        if connection is not None:
            connection.close()

    def _transact(self, parcel: Parcel) -> bool:
        """Have one transaction of *parcel*; may those it leaves be named in another?"""
        try:
            connection, transaction = self._open(parcel)
        except RelayFault as fault:
            # The only place where it is this relay's: what pulling ahead raises is somebody else's.
            parcel.fault = fault
            return False
        parcel.begin(transaction)
        try:
            if transaction.ready:
                self._hand_over(connection, transaction, parcel)
                if transaction.in_vain and connection.messages > 1:
                    parcel.retract()
                    return True
        finally:
            parcel.note()
        if transaction.doubted and not parcel.wary:
            parcel.wary = True
            parcel.recorder.noted("asking again who was refused, one command at a time")
            return True
        if transaction.stuck is not None and parcel.worth_another:
            if parcel.rest:
                parcel.recorder.noted(
                    "lost at a recipient; the others without that one, over another connection"
                )
            return True
        # What has begun behind the content knows itself what its loss means.
        return (connection.usable or self._begun is not None) and parcel.fault is None

    def _open(self, parcel: Parcel) -> tuple[Connection, Transaction]:
        """A transaction of *parcel* whose recipients have been named, and the connection that it is had over.

        Where a connection that was used before turns out to be gone, which a
        server may do at any time, or out of step, or to have carried all that
        the server takes over one, there is one more, over a new one.
        """
        connection = self._another(parcel) if parcel.retracted else self._carrier(parcel.recorder)
        while True:
            transaction, self._begun = self._begun or self._begin(connection, parcel), None
            used = connection.messages > 0
            connection.messages += 1
            try:
                if not transaction.ready:
                    connection.run(transaction.envelope())
            except Lost as lost:
                if not used:
                    raise RelayUnavailable(self._terms.relay, printable(str(lost))) from lost
            else:
                if not (used and self._had_its_day(connection, transaction)):
                    connection.welcome |= transaction.granted
                    connection.room = transaction.room or connection.room
                    return connection, transaction
            said = parcel.recorder
            try:
                connection = self._another(parcel)
            except RelayFault as fault:
                if not transaction.turned_away:
                    raise
                # What it met is known, and would be taken for the relay's.
                transaction.put_off(fault)
                said.noted(f"could not be asked again: {fault}")
                parcel.recorder = said
                return connection, transaction

    def _another(self, parcel: Parcel) -> Connection:
        """A new connection, instead of one that was used before and came to nothing.

        What was said over that is left out of the dialogue: it may have been
        meant for the message before.
        """
        if self._connection is not None and self._connection.usable:
            # A server that lets us have one at a time may let us have the new one.
            self._connection.quit()
        self.abandon()
        if parcel.fresh:
            parcel.recorder = self._recorder()
        parcel.recorder.noted(
            "begun in vain over a connection that was used before; once more over a new one"
        )
        parcel.retracted = False
        self._connection = self._connect(parcel.recorder)
        return self._connection

    def _carrier(self, recorder: Recorder) -> Connection:
        connection = self._connection
        if (
            connection is not None
            and self._begun is None
            and (not connection.usable or self._worn(connection))
        ):
            self.rest()
        if self._connection is None:
            self._connection = self._take(recorder)
        else:
            self._connection.record(recorder)
        return self._connection

    def _worn(self, connection: Connection) -> bool:
        return connection.worn or self._spent(connection)

    def _begin(self, connection: Connection, parcel: Parcel) -> Transaction:
        named = chunk(parcel.next, min(connection.room, parcel.room), connection.extensions)
        terms = attrs.evolve(self._terms, pipelining=False) if parcel.wary else self._terms
        behind = connection.messages > 0
        return Transaction(parcel.mail, named, connection.extensions, terms, behind=behind)

    @staticmethod
    def _had_its_day(connection: Connection, transaction: Transaction) -> bool:
        """May what its envelope met be about this connection, which was used before, and not about this message?

        So may a 4xx to MAIL be, for some servers count what they take over
        one; but not where nothing was taken over it yet.  Where a relay puts
        off all that comes, each message would be another connection.
        """
        put_off = not (transaction.granted or transaction.idle)
        return transaction.unopened or transaction.in_vain or (connection.welcome and put_off)

    def _hand_over(self, connection: Connection, transaction: Transaction, parcel: Parcel) -> None:
        # A server that answers for too few would be answered for by what answers those commands.
        owner = self._follower(connection, parcel) if transaction.answers == 1 else None
        following = self._begin(connection, owner) if owner is not None else None
        if owner is None or following is None or following.idle:
            connection.run(transaction.hand_over())
            return
        connection.run(transaction.hand_over(following))
        if connection.usable:
            self._begun = following
            if owner is not parcel:
                owner.recorder = self._recorder()
            if connection.at_hand(following.due) or not transaction.sure:
                connection.record(owner.recorder)
                connection.run(following.answered())
            transaction.release(following)

    def _follower(self, connection: Connection, parcel: Parcel) -> Parcel | None:
        """Of which more may begin behind the content that is sent now, over the same connection."""
        if not self._terms.pipelined(connection.extensions) or self._worn(connection):
            return None
        owner = parcel if parcel.rest else self._look_ahead()
        if owner is parcel and parcel.troubled:
            # No content is to wait for its answer while they are named.
            return None
        return owner if owner is not None and owner.rest else None

    def _look_ahead(self) -> Parcel | None:
        self._ahead = self._ahead or self._pull()
        return self._ahead

    def _pull(self) -> Parcel | None:
        delivery = next(self._deliveries, None)
        return None if delivery is None else Parcel(delivery.message, delivery.recipients)


def chunk(recipients: Sequence[str], room: int, extensions: Extensions) -> Sequence[str]:
    """The first *room* of *recipients*, or as many as the server said it takes (RFC 9422)."""
    room = min(room, extensions.limits.get("RCPTMAX", room))
    domains = extensions.limits.get("RCPTDOMAINMAX")
    if domains is None:
        return recipients[:room]
    named: dict[str, None] = {}
    for recipient in recipients:
        named.setdefault(_domain(recipient))
    few = set(list(named)[:domains])
    return [recipient for recipient in recipients if _domain(recipient) in few][:room]


def _domain(recipient: str) -> str:
    return recipient.rpartition("@")[2].lower()
