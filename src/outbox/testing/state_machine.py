"""Any store driven against the memory store, by whatever sequence of calls hypothesis thinks of.

::

    class MyStoreMachine(StoreStateMachine):
        def open(self, clock, path, **settings):
            return MyStore(path / "store", clock=clock, **settings)

    TestMyStoreMachine = MyStoreMachine.TestCase
"""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, cast

import attrs

try:
    import hypothesis.strategies as st
    from hypothesis.stateful import (
        RuleBasedStateMachine,
        initialize,
        invariant,
        precondition,
        rule,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'StoreStateMachine needs hypothesis: pip install "durable-outbox[testing]"', name=error.name
    ) from error

from outbox.clock import Clock
from outbox.errors import ConflictError
from outbox.lifecycle import (
    Claim,
    Dead,
    Delivered,
    Expired,
    Fate,
    Held,
    Record,
    Released,
    Retry,
    Settlement,
    State,
    Summary,
    Verdict,
)
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, TempFailed, Uncertain
from outbox.protocols import Change, Store
from outbox.stores.memory import MemoryStore
from outbox.testing.clauses.scene import Whole
from outbox.testing.clock import ManualClock

__all__ = ["StoreStateMachine"]

_HOUR: Final = dt.timedelta(hours=1)
_QUEUES: Final = ("mail", "mail.bulk")
_NAMES: Final = tuple(f"m{n}" for n in range(8))
_SPANS: Final = tuple(dt.timedelta(seconds=n) for n in (0, 1, 30, 60, 3600))
_LEASES: Final = st.sampled_from([dt.timedelta(seconds=n) for n in (1, 30, 300)])
_RECIPIENTS: Final = ("x@example.org", "y@example.org", "z@example.org")


@attrs.frozen
class _Held:
    """One claim as the store and as the model gave it out: the same but for the token."""

    store: Claim
    model: Claim


class StoreStateMachine(RuleBasedStateMachine):
    """Subclass it and say how your store is opened, as for :class:`outbox.testing.StoreSuite`.

    It is for stores with every capability that lack no guarantee.  What the
    contract leaves open (tokens, wording, which queue is first) is not
    compared.

    Attributes:
        persistent: Whether what is stored outlives the store object.
    """

    persistent: ClassVar[bool] = True

    def open(self, clock: Clock, path: Path, **settings: Any) -> Store:
        """Open the store that lives in the directory *path*: the same one, when it is called again."""
        raise NotImplementedError("say in `open` how your store is opened")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.path = Path(tempfile.mkdtemp(prefix="outbox-"))
        self.settings: dict[str, Any] = {"remember": _HOUR}
        self.held: list[_Held] = []
        self.unsettled: list[_Held] = []

    @initialize(
        data=st.data(), keep=st.sampled_from([None, dt.timedelta(0), dt.timedelta(minutes=10), 2 * _HOUR])
    )
    def begin(self, data: st.DataObject, keep: dt.timedelta | None) -> None:
        self.settings["keep_delivered"] = keep
        self.model = MemoryStore(clock=self.clock, **self.settings)
        self.store = self._open()
        self.put(data)

    def _open(self) -> Whole:
        return cast(Whole, self.open(self.clock, self.path, **self.settings))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.model.close()
        shutil.rmtree(self.path, ignore_errors=True)

    # -- messages

    @rule(data=st.data())
    def put(self, data: st.DataObject) -> None:
        names = data.draw(st.lists(st.sampled_from(_NAMES), min_size=1, max_size=5))
        batch = [self._message(data, name) for name in names]
        assert _answer(self.store.put, batch) == _answer(self.model.put, batch)

    def _message(self, data: st.DataObject, name: str) -> Message:
        """An id has mostly the same envelope, so that most repeats are known and some are conflicts."""
        odd = data.draw(st.integers(0, 9)) == 9
        number = int(name[1:])
        delay, life = (data.draw(st.sampled_from([None, None, None, *_SPANS])) for _ in range(2))
        return Message(
            id=name,
            queue=_QUEUES[number % 2],
            sender="other@example.org" if odd else "sender@example.org",
            recipients=_RECIPIENTS[: 1 + number % 3],
            content=data.draw(st.binary(max_size=8)),
            priority=data.draw(st.integers(-1, 1)),
            not_before=None if delay is None else self.clock.now() + delay,
            expires_at=None if life is None else self.clock.now() + life,
        )

    # -- claims

    @rule(
        after=st.sampled_from(_SPANS),
        limit=st.integers(1, 5),
        lease=_LEASES,
        queue=st.sampled_from(_QUEUES),
    )
    def claim(self, after: dt.timedelta, limit: int, lease: dt.timedelta, queue: str) -> None:
        self.clock.advance(after)
        self._claimed(
            self.store.claim(limit=limit, lease=lease, queues=[queue]),
            self.model.claim(limit=limit, lease=lease, queues=[queue]),
        )

    @precondition(lambda self: not self._suspects())
    @rule(limit=st.integers(1, 5), lease=_LEASES)
    def claim_from_all_queues(self, limit: int, lease: dt.timedelta) -> None:
        """Which queue is first is the store's affair: the model follows it, queue by queue."""
        due = {queue: self._due(queue) for queue in _QUEUES}
        ours = list(self.store.claim(limit=limit, lease=lease, queues=_QUEUES))
        taken = Counter(claim.message.queue for claim in ours)
        theirs: list[Claim] = []
        for queue in _QUEUES:
            theirs += self.model.claim(limit=taken[queue], lease=lease, queues=[queue])
        assert len(ours) == min(limit, sum(due.values()))
        for queue in _QUEUES:
            assert taken[queue] == due[queue] or taken[queue] >= max(taken.values()) - 1
        ours.sort(key=lambda claim: _QUEUES.index(claim.message.queue))
        self._claimed(ours, theirs)

    def _claimed(self, ours: Sequence[Claim], theirs: Sequence[Claim]) -> None:
        assert [_anonymous(claim) for claim in ours] == [_anonymous(claim) for claim in theirs]
        claims = list(map(_Held, ours, theirs))
        self.held += claims
        self.unsettled += claims

    def _suspects(self) -> bool:
        return any(summary.lost or summary.leased_until for summary in self.model.browse())

    def _due(self, queue: str) -> int:
        return sum(count.due for count in self.model.count() if count.queue == queue)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), lease=_LEASES)
    def extend(self, data: st.DataObject, lease: dt.timedelta) -> None:
        held = self._some(data)
        ours = self.store.extend([each.store for each in held], lease=lease)
        theirs = self.model.extend([each.model for each in held], lease=lease)
        assert [_anonymous(claim) for claim in ours] == [_anonymous(claim) for claim in theirs]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        held = self._some(data)
        verdicts = [data.draw(_verdicts(each.store)) for each in held]
        ours = self.store.settle(list(map(Settlement, (each.store for each in held), verdicts)))
        theirs = self.model.settle(list(map(Settlement, (each.model for each in held), verdicts)))
        self.unsettled = [each for each in self.unsettled if each not in held]
        assert [_anonymous(claim) for claim in ours] == [_anonymous(claim) for claim in theirs]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def settle_with_a_forged_token(self, data: st.DataObject) -> None:
        for held in self._some(data):
            forged = attrs.evolve(held.store, token=held.store.token + "1")
            assert list(self.store.settle([Settlement(forged, _delivered(forged))])) == [forged]

    def _some(self, data: st.DataObject) -> list[_Held]:
        """Claims, mostly such as may still be held; the settled ones stay among them for ever."""
        either = st.sampled_from(self.held)
        likely = st.sampled_from(self.unsettled[-4:]) if self.unsettled else either
        return data.draw(st.lists(st.one_of(likely, likely, either), min_size=1, max_size=3))

    # -- a person, time, and the machine

    @rule(data=st.data(), command=st.sampled_from(["requeue", "cancel", "purge"]))
    def steer(self, data: st.DataObject, command: str) -> None:
        ids = self._ids(data)
        how = {"uncertain": data.draw(st.booleans())} if command == "requeue" else {}
        ours, theirs = getattr(self.store, command)(ids, **how), getattr(self.model, command)(ids, **how)
        assert _plain(ours) == _plain(theirs)

    def _ids(self, data: st.DataObject) -> list[str]:
        there = [summary.id for summary in self.model.browse()]
        return data.draw(st.lists(st.sampled_from([*there, "nobody"]), max_size=2))

    @rule(delta=st.sampled_from(_SPANS))
    def advance(self, delta: dt.timedelta) -> None:
        self.clock.advance(delta)

    @rule(after=st.sampled_from([dt.timedelta(0), _HOUR]), limit=st.integers(0, 3))
    def prune(self, after: dt.timedelta, limit: int) -> None:
        self.clock.advance(after)
        assert self.store.prune(limit=limit) == self.model.prune(limit=limit)

    @precondition(lambda self: self.persistent)
    @rule()
    def close_and_open_again(self) -> None:
        self.store.close()
        self.store = self._open()

    # -- what is always true

    @invariant()
    def the_lists_are_the_same(self) -> None:
        if hasattr(self, "store"):
            ours, theirs = self.store.browse(), self.model.browse()
            assert [_wordless(summary) for summary in ours] == [_wordless(summary) for summary in theirs]

    @invariant()
    def the_counts_are_the_same(self) -> None:
        if hasattr(self, "store"):
            assert list(self.store.count()) == list(self.model.count())
            assert [self.store.next_due([q]) for q in _QUEUES] == [self.model.next_due([q]) for q in _QUEUES]

    @rule()
    def look_closely(self) -> None:
        everything = self.store.browse()
        for state in State:
            assert list(self.store.browse(states=[state])) == [s for s in everything if s.state is state]
        for summary in self.model.browse():
            assert _told(self.store.get(summary.id)) == _told(self.model.get(summary.id))


def _answer(put: Callable[[Sequence[Message]], Any], batch: Sequence[Message]) -> Any:
    try:
        return list(put(batch))
    except ConflictError:
        return ConflictError


def _anonymous(claim: Claim) -> Claim:
    return attrs.evolve(claim, token="")


def _plain(changes: Sequence[Change]) -> list[Change]:
    return [attrs.evolve(change, reason="") for change in changes]


def _wordless(summary: Summary) -> Summary:
    return attrs.evolve(summary, reason="")


def _told(record: Record | None) -> object:
    return record and (_wordless(record.summary), record.message, record.history)


def _verdicts(claim: Claim) -> st.SearchStrategy[Verdict]:
    waiting = st.sampled_from([Fate.WAITING, Fate.DOUBTFUL, Fate.ACCEPTED, Fate.FAILED])
    partly = st.tuples(*(waiting for _ in claim.message.recipients)).map(
        lambda fates: dict(zip(claim.message.recipients, fates, strict=True))
    )
    return st.one_of(
        st.just(_delivered(claim)),
        st.just(
            Dead(fates=_all(claim, Fate.FAILED), reason="550", outcome=_outcome(claim, PermFailed("550")))
        ),
        st.just(Held(fates=_all(claim, Fate.UNCERTAIN), reason="?", outcome=_outcome(claim, Uncertain("?")))),
        st.just(Expired(fates=_all(claim, Fate.FAILED))),
        st.builds(
            Retry,
            delay=st.sampled_from(_SPANS),
            fates=partly,
            outcome=st.just(_outcome(claim, TempFailed("451"))),
        ),
        st.builds(Released, delay=st.sampled_from(_SPANS), fates=st.just(claim.fates)),
    )


def _delivered(claim: Claim) -> Delivered:
    return Delivered(fates=_all(claim, Fate.ACCEPTED), outcome=_outcome(claim, Accepted("250")))


def _all(claim: Claim, fate: Fate) -> dict[str, Fate]:
    return dict.fromkeys(claim.message.recipients, fate)


def _outcome(claim: Claim, result: Accepted | TempFailed | PermFailed | Uncertain) -> Outcome:
    return Outcome.same(claim.message.recipients, result, relay="mx.example.org:25")
