"""What the state machine draws: times and verdicts.  It comes with ``durable-outbox[testing]``."""

from __future__ import annotations

import datetime as dt
from typing import Final

import hypothesis.strategies as st

from outbox.lifecycle import Claim, Dead, Delivered, Expired, Fate, Held, Released, Retry, Verdict
from outbox.outcome import Accepted, Outcome, PermFailed, TempFailed, Uncertain

__all__ = ["LEASES", "SPANS", "delivered", "verdicts"]

SPANS: Final = tuple(dt.timedelta(seconds=n) for n in (0, 1, 30, 60, 3600))
LEASES: Final = st.sampled_from([dt.timedelta(seconds=n) for n in (1, 30, 300)])


def verdicts(claim: Claim) -> st.SearchStrategy[Verdict]:
    """Every kind of verdict on *claim*."""
    waiting = st.sampled_from([Fate.WAITING, Fate.DOUBTFUL, Fate.ACCEPTED, Fate.FAILED])
    partly = st.tuples(*(waiting for _ in claim.message.recipients)).map(
        lambda fates: dict(zip(claim.message.recipients, fates, strict=True))
    )
    return st.one_of(
        st.just(delivered(claim)),
        st.just(
            Dead(fates=_all(claim, Fate.FAILED), reason="550", outcome=_outcome(claim, PermFailed("550")))
        ),
        st.just(Held(fates=_all(claim, Fate.UNCERTAIN), reason="?", outcome=_outcome(claim, Uncertain("?")))),
        st.just(Expired(fates=_all(claim, Fate.FAILED))),
        st.builds(
            Retry,
            delay=st.sampled_from(SPANS),
            fates=partly,
            outcome=st.just(_outcome(claim, TempFailed("451"))),
        ),
        st.builds(Released, delay=st.sampled_from(SPANS), fates=st.just(claim.fates)),
    )


def delivered(claim: Claim) -> Delivered:
    return Delivered(fates=_all(claim, Fate.ACCEPTED), outcome=_outcome(claim, Accepted("250")))


def _all(claim: Claim, fate: Fate) -> dict[str, Fate]:
    return dict.fromkeys(claim.message.recipients, fate)


def _outcome(claim: Claim, result: Accepted | TempFailed | PermFailed | Uncertain) -> Outcome:
    return Outcome.same(claim.message.recipients, result, relay="mx.example.org:25")
