"""Messages on their way, one after the other, over one connection at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs

from outbox.errors import RelayFault, RelayUnavailable
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, Result, TempFailed, Untried
from outbox.protocols import Delivery
from outbox.values import printable

from .commands import Terms
from .connection import CHUNK, Connection
from .envelope import prepare
from .extensions import Extensions
from .steps import Lost
from .transaction import Transaction
from .transcript import Recorder

__all__ = ["Courier", "Parcel", "chunk"]

_UNTRIED: Final = Untried()
_NOTHING: Final = frozenset({Untried})
_EVERYBODY: Final = frozenset({Accepted})


class Parcel:
    """One delivery under way.

    Attributes:
        results: One for each of its recipients, Untried until more is known.
        rest: Whom no transaction has named yet, or one in vain.
        wary: It is said one command at a time.
        fault: What of the relay ended it early.
        error: What else ended it early, to be raised when it has been told of.
        recorder: Hears what is said on its way.
        told: Its outcome has been given out.
        retracted: Its latest transaction came to nothing, over a connection
            that was used before: it is to be had once more, over a new one.
    """

    def __init__(self, message: Message, recipients: Sequence[str]) -> None:
        self.mail, refused = prepare(message, recipients)
        self.results: dict[str, Result] = {**dict.fromkeys(recipients, _UNTRIED), **refused}
        self.rest = tuple(self.mail.paths)
        self.wary = False
        self.fault: RelayFault | None = None
        self.error: BaseException | None = None
        self.recorder = Recorder()
        self.told = self.retracted = False
        self._transaction: Transaction | None = None
        self._before = self.rest
        self._noted = False

    @property
    def known(self) -> bool:
        """Somebody has a result: to raise would be to forget it."""
        self.note()
        return not self._kinds <= _NOTHING

    @property
    def _kinds(self) -> set[type[Result]]:
        return set(map(type, self.results.values()))

    @property
    def fresh(self) -> bool:
        """No transaction of it has come to anything yet."""
        return not self._noted

    def begin(self, transaction: Transaction) -> None:
        """What this one comes to is to be noted, however it ends; those it names are no longer among the rest."""
        self._transaction, self._before = transaction, self.rest
        rest: tuple[str, ...] = ()
        if len(transaction.recipients) < len(self.rest):
            named = set(transaction.recipients)
            rest = tuple(r for r in self.rest if r not in named)
        self.rest = transaction.doubted + transaction.again + rest

    def retract(self) -> None:
        """The transaction under way was in vain: it is as though it had not begun."""
        self._transaction, self.rest, self.retracted = None, self._before, True

    def note(self) -> None:
        """Take over what the transaction under way came to."""
        if self._transaction is not None:
            # Here and not where we were interrupted: another interrupt could come between.
            self._transaction.doubt()
            self._noted = True
            self.results |= self._transaction.results
            self.fault = self.fault or self._transaction.fault
            self._transaction = None

    def give_up(self, error: Exception) -> None:
        """Who has no result has failed for now, by what ended it so early."""
        failed = TempFailed(f"not sent: {type(error).__name__} in the middle of it")
        self.results = {r: failed if isinstance(x, Untried) else x for r, x in self.results.items()}

    def outcome(self, relay: str) -> Outcome:
        """What is to be told.

        Raises:
            RelayFault: nothing is known of anybody; or whatever else ended it so early.
        """
        self.note()
        early = self.fault or self.error
        if early and not self.known:
            raise early
        dialogue = "" if self._kinds <= _EVERYBODY else self.recorder.text
        return Outcome(results=self.results, relay=relay, fault=self.fault, dialogue=dialogue)


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
        return connection.usable and parcel.fault is None

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
                connection.run(transaction.envelope())
            except Lost as lost:
                if not used:
                    raise RelayUnavailable(self._terms.relay, printable(str(lost))) from lost
            else:
                if not (used and self._had_its_day(connection, transaction)):
                    connection.welcome |= transaction.granted
                    connection.room = transaction.room or connection.room
                    return connection, transaction
            connection = self._another(parcel)

    def _another(self, parcel: Parcel) -> Connection:
        """A new connection, instead of one that was used before and came to nothing.

        What was said over that is left out of the dialogue: it may have been
        meant for the message before.
        """
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
        named = chunk(parcel.rest, connection.room, connection.extensions)
        terms = attrs.evolve(self._terms, pipelining=False) if parcel.wary else self._terms
        return Transaction(parcel.mail, named, connection.extensions, terms)

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
        following = self._following(connection, parcel) if transaction.answers == 1 else None
        connection.run(transaction.hand_over(following))
        if connection.usable:
            self._begun = following

    def _following(self, connection: Connection, parcel: Parcel) -> Transaction | None:
        """What may begin behind the content that is sent now, over the same connection."""
        if not self._terms.pipelined(connection.extensions) or self._worn(connection):
            return None
        owner = parcel if parcel.rest else self._look_ahead()
        if owner is None or not owner.rest:
            return None
        transaction = self._begin(connection, owner)
        return None if transaction.idle else transaction

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
