"""What the state machine draws: messages, times and verdicts.  It comes with ``durable-outbox[testing]``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final

import hypothesis.strategies as st

from outbox.lifecycle import Claim, Dead, Delivered, Expired, Fate, Held, Released, Retry, Verdict
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, TempFailed, Uncertain
from outbox.protocols import MAX_BYTES

__all__ = [
    "CHOICES",
    "LEASES",
    "LIMITS",
    "NAMES",
    "QUEUES",
    "ROOMS",
    "SPANS",
    "STOPPED",
    "delivered",
    "messages",
    "verdicts",
]

SPANS: Final = tuple(dt.timedelta(seconds=n) for n in (0, 0.900_001, 1, 30, 60, 3600))
_DELAYS: Final = (*SPANS, dt.timedelta(days=3))
LEASES: Final = st.sampled_from([dt.timedelta(seconds=n) for n in (0.900_001, 1, 30, 300, 20_000)])

QUEUES: Final = ("mail", "mail.bulk", "mail-2")
CHOICES: Final = st.sampled_from([*((queue,) for queue in QUEUES), QUEUES, QUEUES])
"""Of which queues is claimed."""
NAMES: Final = tuple(f"m{n}" for n in range(9))
ROOMS: Final = st.sampled_from([MAX_BYTES, MAX_BYTES, 0, 8, 15])
"""How much content a claim may bring."""
STOPPED: Final = tuple(
    (kind, value)
    for kind in ("queue", "relay", "domain", "attribute")
    for value in (*QUEUES, "mx.example.org")
)
"""Kinds and values of suspensions."""
LIMITS: Final = st.sampled_from([{}, {}, {"max_messages": 4}, {"max_messages": 6, "max_bytes": 12}])
"""How much may wait."""

_RECIPIENTS: Final = ("x@example.org", "X@example.org", "z@example.org")
_ATTRIBUTES: Final = st.sampled_from([{}, {}, {"tenant": "blue"}, {"a=b": "c\nd=\0", "": " é "}])
_ENDED: Final = (Fate.ACCEPTED, Fate.FAILED)
_IN_DOUBT: Final = (*_ENDED, Fate.UNCERTAIN)
_REPLIES: Final = st.sampled_from(["", "5.1.1", "4.7.1 " + "the mailbox is over its quota; " * 20 + "end"])


@st.composite
def messages(draw: st.DrawFn, name: str, now: dt.datetime) -> Message:
    """An id has mostly the same envelope, so that most repeats are known and some are conflicts."""
    odd = draw(st.integers(0, 9)) == 9
    number = int(name[1:])
    delay, life = (draw(st.sampled_from([None, None, None, *SPANS])) for _ in range(2))
    return Message(
        id=name,
        queue=QUEUES[number // 3],
        sender="other@example.org" if odd else "sender@example.org",
        recipients=_RECIPIENTS[: 1 + number % 3],
        content=draw(st.binary(max_size=8)),
        priority=draw(st.integers(-1, 1)),
        not_before=None if delay is None else now + delay,
        expires_at=None if life is None else now + life,
        at_most_once=draw(st.booleans()),
        attributes=draw(_ATTRIBUTES),
    )


def verdicts(claim: Claim) -> st.SearchStrategy[Verdict]:
    """Every kind of verdict on *claim*, each with a fate of his own for each recipient."""
    return st.one_of(
        st.just(delivered(claim)),
        st.builds(Dead, fates=_fates(claim, _ENDED), reason=_REPLIES, outcome=_outcomes(claim, PermFailed)),
        st.builds(
            Held, fates=_fates(claim, tuple(Fate)), reason=_REPLIES, outcome=_outcomes(claim, Uncertain)
        ),
        st.builds(Expired, fates=_fates(claim, _IN_DOUBT)),
        st.builds(
            Retry,
            delay=st.sampled_from(_DELAYS),
            fates=_fates(claim, tuple(Fate)),
            outcome=_outcomes(claim, TempFailed),
        ),
        st.builds(
            Released,
            delay=st.sampled_from(_DELAYS),
            fates=st.one_of(st.just(claim.fates), _fates(claim, tuple(Fate))),
        ),
    )


def delivered(claim: Claim) -> Delivered:
    fates = dict.fromkeys(claim.message.recipients, Fate.ACCEPTED)
    return Delivered(fates=fates, outcome=_outcome(claim, Accepted("250")))


def _fates(claim: Claim, which: tuple[Fate, ...]) -> st.SearchStrategy[Mapping[str, Fate]]:
    """Fates by recipient, in any order: a verdict names them, and has no places."""
    order = st.permutations(claim.message.recipients)
    each = st.tuples(*(st.sampled_from(which) for _ in claim.message.recipients))
    return st.builds(lambda names, fates: dict(zip(names, fates, strict=True)), order, each)


def _outcomes(claim: Claim, kind: type[TempFailed | PermFailed | Uncertain]) -> st.SearchStrategy[Outcome]:
    return _REPLIES.map(lambda reply: _outcome(claim, kind(reply)))


def _outcome(claim: Claim, result: Accepted | TempFailed | PermFailed | Uncertain) -> Outcome:
    return Outcome.same(claim.message.recipients, result, relay="mx.example.org:25")
