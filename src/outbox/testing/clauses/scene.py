"""What the clauses share: messages, verdicts, and the word that says what a clause asks of a store."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, TypeVar

from outbox.ages import SupportsAges
from outbox.clock import Clock
from outbox.filters import SupportsFind
from outbox.lifecycle import (
    Claim,
    Dead,
    Delivered,
    Expired,
    Fate,
    Held,
    PutResult,
    Record,
    Released,
    Retry,
    Settlement,
    State,
    Summary,
    Verdict,
)
from outbox.message import Message
from outbox.moving import SupportsMove
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain
from outbox.protocols import (
    Change,
    Guarantee,
    Store,
    SupportsBrowse,
    SupportsExchange,
    SupportsHandOver,
    SupportsHold,
    SupportsMaintain,
    SupportsManage,
    SupportsPresence,
    SupportsSuspend,
    SupportsTransaction,
    SupportsWait,
)

__all__ = [
    "DAY",
    "LEASE",
    "LONG",
    "SECOND",
    "SHORT",
    "VERDICTS",
    "ZERO",
    "Beside",
    "Clauses",
    "Reopen",
    "Whole",
    "all_of",
    "clause",
    "dead",
    "delivered",
    "expired",
    "held",
    "ids",
    "known",
    "line",
    "mail",
    "put",
    "raises",
    "released",
    "retry",
    "settle",
    "states",
    "statuses",
    "summaries",
    "take",
    "unknown_setting",
]

F = TypeVar("F", bound=Callable[..., Any])

SECOND: Final = dt.timedelta(seconds=1)
ZERO: Final = dt.timedelta(0)
LEASE: Final = dt.timedelta(minutes=5)
DAY: Final = dt.timedelta(days=1)
SHORT: Final = dt.timedelta(milliseconds=30)
"""How long is waited for what must not come."""
LONG: Final = dt.timedelta(seconds=30)
"""How long is waited for what must come, and comes at once."""


class Whole(
    Store,
    SupportsExchange,
    SupportsHandOver,
    SupportsBrowse,
    SupportsFind,
    SupportsAges,
    SupportsManage,
    SupportsHold,
    SupportsSuspend,
    SupportsPresence,
    SupportsWait,
    SupportsMaintain,
    SupportsTransaction,
    SupportsMove,
    Protocol,
):
    """A store with every capability; a clause says which of them it needs, and is skipped where one is missing."""


class Reopen(Protocol):
    """Close the store of this test, and open it again with other *settings*.

    With *crash* it is left as it is, as a process leaves it that is killed.
    """

    def __call__(self, *, crash: bool = False, **settings: Any) -> Whole: ...


class Beside(Protocol):
    """Another store of the same kind, which knows nothing of this test's; the same one when it is called again."""

    def __call__(self, **settings: Any) -> Whole: ...


class Clauses:
    """What the clauses ask of the suite that they are part of; see :class:`outbox.testing.StoreSuite`."""

    persistent: ClassVar[bool]
    many: ClassVar[int]

    def open(self, clock: Clock, path: Path, **settings: Any) -> Store:
        """Open the store that lives in the directory *path*."""
        raise NotImplementedError

    def corrupt(self, store: Whole, id: str) -> None:
        """Damage the stored content of a message."""
        raise NotImplementedError

    def transaction(self, store: Whole, path: Path) -> AbstractContextManager[Any]:
        """A transaction of the caller's."""
        raise NotImplementedError

    def require_persistence(self) -> None:
        """Skip where the store does not outlive its object."""
        raise NotImplementedError


def unknown_setting(settings: Mapping[str, Any], error: TypeError) -> str | None:
    """Which of *settings* a store did not take as a keyword, where *error* says that."""
    return next((name for name in settings if f"unexpected keyword argument '{name}'" in str(error)), None)


def clause(*needs: type | Guarantee) -> Callable[[F], F]:
    """Mark a test with the capabilities and the guarantees that it asks for."""

    def mark(test: F) -> F:
        setattr(test, "needs", needs)  # noqa: B010 - mypy knows no attributes of functions
        return test

    return mark


@contextlib.contextmanager
def raises(expected: type[Exception], *words: str) -> Iterator[None]:
    """The block raises *expected*, and its text holds *words*."""
    try:
        yield
    except expected as error:
        text = str(error)
    else:
        raise AssertionError(f"{expected.__name__} was not raised")
    assert all(word in text for word in words), f"{text!r} does not say all of {words}"


def mail(id: str, *recipients: str, **fields: Any) -> Message:
    """A small message of this id."""
    fields.setdefault("sender", "sender@example.org")
    fields.setdefault("content", f"Subject: {id}\r\n\r\nHello.\r\n".encode())
    return Message(id=id, recipients=recipients or (f"{id}@example.org",), **fields)


def put(store: Store, *messages: Message | str) -> None:
    """Store messages, of which a bare id is the smallest."""
    store.put([mail(each) if isinstance(each, str) else each for each in messages])


def line(store: Store, limit: int = 100, *queues: str, lease: dt.timedelta = LEASE) -> list[Claim]:
    """Claims in the order in which the store gives them out."""
    return list(store.claim(limit=limit, lease=lease, queues=queues or ("mail",)))


def take(store: Store, limit: int = 100, *queues: str, lease: dt.timedelta = LEASE) -> list[Claim]:
    """Claims by their ids, for those clauses that ask for no order."""
    return sorted(line(store, limit, *queues, lease=lease), key=lambda claim: claim.message.id)


def all_of(store: Store, *queues: str) -> list[Claim]:
    """All that can be claimed, in the order in which it comes; a store may give less at a time than it was asked for."""
    claims: list[Claim] = []
    while more := line(store, 500, *queues):
        claims += more
    return claims


def ids(claims: Sequence[Claim]) -> list[str]:
    return [claim.message.id for claim in claims]


def settle(store: Store, claim: Claim, verdict: Verdict) -> None:
    """Settle, and see that the lease was held."""
    assert list(store.settle([Settlement(claim, verdict)])) == []


def statuses(answers: Sequence[PutResult | Change]) -> list[str]:
    """The first word of each answer to a put or to a command."""
    return [answer.status for answer in answers]


def summaries(store: Whole) -> dict[str, Summary]:
    return {summary.id: summary for summary in store.browse(limit=10_000)}


def states(store: Whole) -> dict[str, State]:
    return {name: summary.state for name, summary in summaries(store).items()}


def known(store: Whole, id: str) -> Record:
    record = store.get(id)
    assert record is not None, f"{id} is not there any more"
    return record


def delivered(claim: Claim) -> Delivered:
    fates = {r: Fate.ACCEPTED if fate.open else fate for r, fate in claim.fates.items()}
    return Delivered(fates=fates, outcome=_outcome(claim, Accepted("250 taken")))


def dead(claim: Claim) -> Dead:
    outcome = _outcome(claim, PermFailed("550 no such user"))
    return Dead(fates=_given_up(claim), reason="550 no such user", outcome=outcome)


def held(claim: Claim) -> Held:
    outcome = _outcome(claim, Uncertain("no reply after the dot"))
    fates = {r: fate.doubted.given_up for r, fate in claim.fates.items()}
    return Held(fates=fates, reason="no reply after the dot", outcome=outcome)


def expired(claim: Claim) -> Expired:
    return Expired(fates=_given_up(claim))


def retry(claim: Claim, delay: dt.timedelta = ZERO) -> Retry:
    outcome = _outcome(claim, TempFailed("451 later", retry_after=SECOND))
    return Retry(delay=delay, fates=claim.fates, reason="451 later", outcome=outcome)


def released(claim: Claim, delay: dt.timedelta = ZERO) -> Released:
    return Released(delay=delay, fates=claim.fates, reason="the relay is down")


VERDICTS: Final[Mapping[State, Callable[[Claim], Verdict]]] = {
    State.DELIVERED: delivered,
    State.DEAD: dead,
    State.HELD: held,
    State.EXPIRED: expired,
}
"""The verdicts that take a message out of the queue, by the state they lead to."""


def _given_up(claim: Claim) -> dict[str, Fate]:
    return {r: fate.given_up for r, fate in claim.fates.items()}


def _outcome(claim: Claim, result: Result) -> Outcome:
    return Outcome.same(claim.recipients, result, relay="mx.example.org:25")
