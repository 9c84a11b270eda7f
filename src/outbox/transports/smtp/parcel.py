"""One delivery on its way: what is known of it, and who is to be named next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from outbox.errors import RelayFault
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, Result, TempFailed, Untried

from .connection import CHUNK
from .envelope import prepare
from .transaction import Transaction
from .transcript import Recorder

__all__ = ["Parcel"]

_UNTRIED: Final = Untried()
_NOTHING: Final = frozenset({Untried})
_EVERYBODY: Final = frozenset({Accepted})
_LOSSES: Final = 8
"""So many connections may be lost at recipients of one delivery."""


class Parcel:
    """One delivery under way.

    Attributes:
        results: One for each of its recipients, Untried until more is known.
        rest: Whom no transaction has named yet, or one in vain.
        wary: It is said one command at a time.
        fault: What of the relay ended it early.
        error: What else ended it early, to be raised when it has been told of.
        recorder: Hears what is said on its way.
        room: How many recipients a transaction of it names at most.
        told: Its outcome has been given out.
        retracted: Its latest transaction came to nothing, over a connection
            that was used before: it is to be had once more, over a new one.
    """

    # What mostly stays as it is, is not set anew for each message.
    room = CHUNK
    _suspects: frozenset[str] = frozenset()
    _losses = 0
    _lost_after = -1

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
        self._noted = self._cut = False

    @property
    def next(self) -> Sequence[str]:
        """Who may be named in one transaction: others before each at whom a connection was lost, who comes alone."""
        if not self._suspects:
            return self.rest
        return [r for r in self.rest if r not in self._suspects] or self.rest[:1]

    @property
    def troubled(self) -> bool:
        """A connection was lost at one of its recipients, and may be so again."""
        return self._losses > 0

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
        if transaction.stuck is not None:
            self._set_aside(transaction, transaction.stuck)

    @property
    def worth_another(self) -> bool:
        """After a connection was lost at one of its recipients: may the others be named over one more?"""
        return self._losses < _LOSSES

    def _set_aside(self, transaction: Transaction, stuck: str) -> None:
        """The others are named without the one at whom the connection was lost, who may be to blame, and comes last.

        Lost twice after as many answers, that is rather all that the server takes.
        """
        # Where it answered nobody, it may be that it answers nobody.
        self._losses += 1 if transaction.answered_to else 2
        if not self.worth_another:
            return
        last = (stuck,) if len(transaction.recipients) > 1 else ()
        self.rest = tuple(dict.fromkeys(transaction.doubted + transaction.spared + self.rest + last))
        self._suspects |= {stuck}
        if 0 < transaction.answered_to == self._lost_after:
            self.room = min(self.room, transaction.answered_to)
            self._suspects = frozenset()
        self._lost_after = transaction.answered_to

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
            # Of several only the last: who is asked again over a new connection was not cut off.
            self._cut = self._transaction.cut
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
        return Outcome(results=self.results, relay=relay, fault=self.fault, cut=self._cut, dialogue=dialogue)
