"""Any store driven against the memory store, by whatever sequence of calls hypothesis thinks of.

::

    class MyStoreMachine(StoreStateMachine):
        def open(self, clock, path, **settings):
            return MyStore(path / "store", clock=clock, **settings)

    TestMyStoreMachine = MyStoreMachine.TestCase
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import shutil
import tempfile
import unittest
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
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
from outbox.errors import ConflictError, StoreError, StoreFull
from outbox.lifecycle import Claim, Settlement, State
from outbox.message import Message
from outbox.mover import Move
from outbox.moving import SupportsMove
from outbox.protocols import (
    Guarantee,
    Store,
    SupportsBrowse,
    SupportsExchange,
    SupportsHandOver,
    SupportsHold,
    SupportsMaintain,
    SupportsManage,
    SupportsSuspend,
    SupportsWait,
    Suspension,
)
from outbox.stores.memory import MemoryStore
from outbox.testing.clauses.scene import Whole, unknown_setting
from outbox.testing.clock import ManualClock
from outbox.testing.comparing import anonymous, answer, plain, told, wordless
from outbox.testing.drawing import (
    CHOICES,
    LEASES,
    LIMITS,
    NAMES,
    QUEUES,
    ROOMS,
    SPANS,
    STOPPED,
    delivered,
    messages,
    verdicts,
)
from outbox.testing.modelling import Model, require_sound_choice

__all__ = ["StoreStateMachine"]

_HOUR: Final = dt.timedelta(hours=1)


@attrs.frozen
class _Held:
    """One claim as the store and as the model gave it out: the same but for the token."""

    store: Claim
    model: Claim


class StoreStateMachine(RuleBasedStateMachine):
    """Subclass it and say how your store is opened, as for :class:`outbox.testing.StoreSuite`.

    A store is asked for what it can do beside the five verbs, and for nothing
    else.  What the contract leaves open (tokens, wording, which queue is
    first) is not compared; nor is the order of one that lacks that
    guarantee.  One that lacks another is skipped: the model keeps them all.

    Attributes:
        persistent: Whether what is stored outlives the store object.
        ordered: Whether the order is compared all the same where the store lacks it.
        breakable: Whether :meth:`failing_commits` says how a commit is made to fail.
    """

    persistent: ClassVar[bool] = True
    ordered: ClassVar[bool] = False
    breakable: ClassVar[bool] = False

    def open(self, clock: Clock, path: Path, **settings: Any) -> Store:
        """Open the store that lives in the directory *path*: the same one, when it is called again."""
        raise NotImplementedError("say in `open` how your store is opened")

    def failing_commits(self) -> AbstractContextManager[object]:
        """While the block runs, the commits of ``self.store`` fail, before or after they have become durable.

        For stores that say so by :attr:`breakable`.  A verb that meets it
        raises a StoreError, and is then repeated.
        """
        raise NotImplementedError("say in `failing_commits` how a commit is made to fail")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.path = Path(tempfile.mkdtemp(prefix="outbox-"))
        self.settings: dict[str, Any] = {"remember": _HOUR}
        self.held: list[_Held] = []
        self.unsettled: list[_Held] = []
        self.left: list[Whole] = []
        self.others: tuple[Store, Store] | None = None
        self.latest = self.clock.now()

    @initialize(
        data=st.data(),
        keep=st.sampled_from([None, dt.timedelta(0), dt.timedelta(minutes=10), 2 * _HOUR]),
        discard=st.sampled_from([None, None, dt.timedelta(0), dt.timedelta(minutes=10)]),
        at_most=st.sampled_from([1000, 1000, 2, 0]),
        content=st.booleans(),
        limits=LIMITS,
    )
    def begin(
        self,
        data: st.DataObject,
        keep: dt.timedelta | None,
        discard: dt.timedelta | None,
        at_most: int,
        *,
        limits: dict[str, int],
        content: bool,
    ) -> None:
        self.settings |= {"keep_delivered": keep, "keep_content": content}
        self.settings |= {"discard_after": discard, "remember_at_most": at_most, **limits}
        self.store = self._open()
        self.model = Model(clock=self.clock, **self.settings)
        self.in_order = self._keeps_order()
        self.put(data)

    def _keeps_order(self) -> bool:
        lacks: frozenset[Guarantee] = getattr(self.store, "lacks", frozenset())
        if lacks - {Guarantee.ORDER}:
            names = ", ".join(sorted(lacks - {Guarantee.ORDER}))
            raise unittest.SkipTest(f"this store lacks the guarantee of {names}, and the model keeps it")
        return self.ordered or not lacks

    def _open(self) -> Whole:
        """Open it, without those settings that it does not take as keywords."""
        while True:
            try:
                return cast(Whole, self.open(self.clock, self.path, **self.settings))
            except TypeError as error:
                unknown = unknown_setting(self.settings, error)
                if unknown is None:
                    raise
                del self.settings[unknown]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            for store in (self.store, *self.left):
                store.close()
            self.model.close()
        shutil.rmtree(self.path, ignore_errors=True)

    # -- messages

    @rule(data=st.data())
    def put(self, data: st.DataObject) -> None:
        batch = self._batch(data)
        assert answer(self.store.put, batch) == answer(self.model.put, batch)

    @precondition(lambda self: self._can(SupportsHandOver))
    @rule(data=st.data(), lease=LEASES, attempted=st.booleans())
    def put_claimed(self, data: st.DataObject, lease: dt.timedelta, *, attempted: bool) -> None:
        batch = self._batch(data)
        ours = answer(functools.partial(self.store.put_claimed, lease=lease, attempted=attempted), batch)
        theirs = answer(functools.partial(self.model.put_claimed, lease=lease, attempted=attempted), batch)
        if isinstance(ours, type) or isinstance(theirs, type):
            assert ours is theirs
        else:
            self._claimed(ours, theirs)

    def _can(self, capability: type) -> bool:
        return isinstance(getattr(self, "store", None), capability)

    def _batch(self, data: st.DataObject) -> list[Message]:
        names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5))
        return [data.draw(messages(name, self.clock.now())) for name in names]

    # -- claims

    @rule(
        after=st.sampled_from(SPANS),
        limit=st.integers(1, 5),
        lease=LEASES,
        queue=st.sampled_from(QUEUES),
        room=ROOMS,
    )
    def claim(self, after: dt.timedelta, limit: int, lease: dt.timedelta, queue: str, room: int) -> None:
        self._catch_up()
        self.clock.advance(after)
        ours = self.store.claim(limit=limit, lease=lease, queues=[queue], max_bytes=room)
        if self.in_order:
            theirs = self.model.claim(limit=limit, lease=lease, queues=[queue], max_bytes=room)
            self._claimed(ours, theirs)
        else:
            self._claimed(ours, self._followed(ours, [queue], limit, lease, room))

    @rule(limit=st.integers(1, 5), lease=LEASES, room=ROOMS)
    def claim_from_all_queues(self, limit: int, lease: dt.timedelta, room: int) -> None:
        """Which queue is first is the store's affair."""
        self._catch_up()
        ours = self.store.claim(limit=limit, lease=lease, queues=QUEUES, max_bytes=room)
        self._claimed(ours, self._followed(ours, QUEUES, limit, lease, room))

    def _followed(
        self, ours: Sequence[Claim], queues: Sequence[str], limit: int, lease: dt.timedelta, room: int
    ) -> Sequence[Claim]:
        due = self.model.due(queues)
        require_sound_choice(ours, due, limit=limit, room=room, ordered=self.in_order)
        return self.model.follow([claim.message.id for claim in ours], lease=lease)

    def _claimed(self, ours: Sequence[Claim], theirs: Sequence[Claim]) -> None:
        assert anonymous(ours) == anonymous(theirs)
        claims = list(map(_Held, ours, theirs))
        self.held += claims
        self.unsettled += claims

    @precondition(lambda self: self.held)
    @rule(data=st.data(), lease=LEASES)
    def extend(self, data: st.DataObject, lease: dt.timedelta) -> None:
        held = self._some(data)
        ours = self.store.extend([each.store for each in held], lease=lease)
        theirs = self.model.extend([each.model for each in held], lease=lease)
        assert anonymous(ours) == anonymous(theirs)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        ours, theirs = self._settlements(data)
        self._lost(self.store.settle(ours), self.model.settle(theirs))

    @precondition(lambda self: self.held and self._can(SupportsExchange))
    @rule(data=st.data(), limit=st.integers(0, 5), lease=LEASES, queues=CHOICES, room=ROOMS)
    def exchange(
        self, data: st.DataObject, limit: int, lease: dt.timedelta, queues: Sequence[str], room: int
    ) -> None:
        self._catch_up()
        ours, theirs = self._settlements(data)
        our = self.store.exchange(ours, limit=limit, lease=lease, queues=queues, max_bytes=room)
        self._lost(our.lost, self.model.settle(theirs))
        if self.in_order and len(queues) == 1:
            claims = self.model.claim(limit=limit, lease=lease, queues=queues, max_bytes=room)
            self._claimed(our.claims, claims)
        else:
            self._claimed(our.claims, self._followed(our.claims, queues, limit, lease, room))

    def _settlements(self, data: st.DataObject) -> tuple[list[Settlement], list[Settlement]]:
        held = self._some(data)
        drawn = [data.draw(verdicts(each.store)) for each in held]
        self.unsettled = [each for each in self.unsettled if each not in held]
        ours = list(map(Settlement, (each.store for each in held), drawn))
        return ours, list(map(Settlement, (each.model for each in held), drawn))

    @staticmethod
    def _lost(ours: Sequence[Claim], theirs: Sequence[Claim]) -> None:
        assert anonymous(ours) == anonymous(theirs)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def settle_with_a_forged_token(self, data: st.DataObject) -> None:
        for held in self._some(data):
            forged = attrs.evolve(held.store, token=held.store.token + "1")
            assert list(self.store.settle([Settlement(forged, delivered(forged))])) == [forged]

    def _some(self, data: st.DataObject) -> list[_Held]:
        """Claims, mostly such as may still be held; the settled ones stay among them for ever."""
        either = st.sampled_from(self.held)
        likely = st.sampled_from(self.unsettled[-4:]) if self.unsettled else either
        return data.draw(st.lists(st.one_of(likely, likely, either), min_size=1, max_size=3))

    # -- a person, time, and the machine

    @precondition(lambda self: self._can(SupportsManage))
    @rule(data=st.data(), command=st.sampled_from(["requeue", "cancel", "purge"]))
    def steer(self, data: st.DataObject, command: str) -> None:
        ids = self._ids(data)
        how = {"uncertain": data.draw(st.booleans())} if command == "requeue" else {}
        ours, theirs = getattr(self.store, command)(ids, **how), getattr(self.model, command)(ids, **how)
        assert plain(ours) == plain(theirs)

    @precondition(lambda self: self._can(SupportsHold))
    @rule(data=st.data(), command=st.sampled_from(["hold", "release"]))
    def hold_or_release(self, data: st.DataObject, command: str) -> None:
        ids = self._ids(data)
        assert plain(getattr(self.store, command)(ids)) == plain(getattr(self.model, command)(ids))

    def _ids(self, data: st.DataObject) -> list[str]:
        there = [summary.id for summary in self.model.browse()]
        return data.draw(st.lists(st.sampled_from([*there, "nobody"]), max_size=2))

    @rule(delta=st.sampled_from(SPANS))
    def advance(self, delta: dt.timedelta) -> None:
        self.clock.advance(delta)

    @rule(delta=st.sampled_from(SPANS))
    def set_the_clock_back(self, delta: dt.timedelta) -> None:
        """Whether what was due already is due still is left open: so nothing is claimed until it is again."""
        if self._can(SupportsSuspend):
            # The same of suspensions that have ended.
            for kind, value in STOPPED:
                assert self.store.unsuspend(kind, value) == self.model.unsuspend(kind, value)
        self.latest = max(self.latest, self.clock.now())
        self.clock.set_back(delta)

    def _catch_up(self) -> None:
        self.clock.advance(max(self.latest - self.clock.now(), dt.timedelta(0)))

    @precondition(lambda self: self._can(SupportsSuspend))
    @rule(stopped=st.sampled_from(STOPPED), delay=st.sampled_from([None, *SPANS]))
    def suspend(self, stopped: tuple[Any, str], delay: dt.timedelta | None) -> None:
        until = None if delay is None else self.clock.now() + delay
        kind, value = stopped
        for store in (self.store, self.model):
            store.suspend(Suspension(kind=kind, value=value, until=until))

    @precondition(lambda self: self._can(SupportsSuspend) and self.model.suspensions())
    @rule(stopped=st.sampled_from(STOPPED))
    def unsuspend(self, stopped: tuple[str, str]) -> None:
        assert self.store.unsuspend(*stopped) == self.model.unsuspend(*stopped)

    @precondition(lambda self: self._can(SupportsMaintain))
    @rule(after=st.sampled_from([dt.timedelta(0), _HOUR]), limit=st.integers(0, 3))
    def prune(self, after: dt.timedelta, limit: int) -> None:
        self.clock.advance(after)
        assert self.store.prune(limit=limit) == self.model.prune(limit=limit)

    @precondition(lambda self: self.persistent)
    @rule()
    def close_and_open_again(self) -> None:
        self.store.close()
        self.store = self._open()

    @precondition(lambda self: self.persistent)
    @rule()
    def crash_and_open_again(self) -> None:
        """As a killed process leaves it: nothing is closed until the end."""
        self.left.append(self.store)
        self.store = self._open()

    @precondition(
        lambda self: self._can(SupportsMove) and self._can(SupportsBrowse) and not self._is_limited()
    )
    @rule(limit=st.integers(1, 3))
    def move_there_and_back(self, limit: int) -> None:
        """All but what is under a lease, to another store of its kind; nothing is to be seen of it afterwards."""
        if self.others is None:
            (self.path / "beside").mkdir()
            beside = cast(Whole, self.open(self.clock, self.path / "beside"))
            self.others = (beside, MemoryStore(clock=self.clock))
            self.left.append(beside)
        stores: tuple[Store, Store] = (self.store, self.model)
        for store, other in zip(stores, self.others, strict=True):
            for source, destination in ((store, other), (other, store)):
                move = Move(source, destination, joins=True, limit=limit)
                # What is under a lease stays where it is.
                for step in move.steps():
                    if step.leased:
                        break
                assert move.refused == move.unreadable == []

    def _is_limited(self) -> bool:
        return not {"max_messages", "max_bytes"}.isdisjoint(self.settings)

    # -- commits that fail: the verb raises, and once repeated all is as though it had not

    @precondition(lambda self: self.breakable)
    @rule(data=st.data())
    def put_through_a_failure(self, data: st.DataObject) -> None:
        batch = self._batch(data)
        self._failing(lambda: answer(self.store.put, batch))
        ours, theirs = answer(self.store.put, batch), answer(self.model.put, batch)
        refused = (ConflictError, StoreFull)
        assert [ours is error for error in refused] == [theirs is error for error in refused]

    @precondition(lambda self: self.breakable and self.held)
    @rule(data=st.data())
    def settle_through_a_failure(self, data: st.DataObject) -> None:
        ours, theirs = self._settlements(data)
        self._failing(lambda: self.store.settle(ours))
        # The first try may have been written after all; then the second one comes too late.
        again = {claim.message.id for claim in self.store.settle(ours)}
        assert {claim.message.id for claim in self.model.settle(theirs)} <= again

    @precondition(lambda self: self.breakable and self._can(SupportsManage))
    @rule(data=st.data())
    def cancel_through_a_failure(self, data: st.DataObject) -> None:
        ids = self._ids(data)
        self._failing(lambda: self.store.cancel(ids))
        self.store.cancel(ids)
        self.model.cancel(ids)

    def _failing(self, verb: Callable[[], object]) -> None:
        with self.failing_commits(), contextlib.suppress(StoreError):
            verb()

    # -- what is always true

    @invariant()
    def the_lists_are_the_same(self) -> None:
        if self._can(SupportsBrowse):
            ours, theirs = self.store.browse(), self.model.browse()
            assert [wordless(summary) for summary in ours] == [wordless(summary) for summary in theirs]

    @invariant()
    def the_counts_are_the_same(self) -> None:
        if self._can(SupportsBrowse) and self.clock.now() >= self.latest:
            assert list(self.store.count()) == list(self.model.count())

    @invariant()
    def the_next_due_is_the_same(self) -> None:
        if self._can(SupportsWait) and self.clock.now() >= self.latest:
            assert [self.store.next_due([q]) for q in QUEUES] == [self.model.next_due([q]) for q in QUEUES]

    @invariant()
    def the_suspensions_are_the_same(self) -> None:
        if self._can(SupportsSuspend):
            assert list(self.store.suspensions()) == list(self.model.suspensions())

    @precondition(lambda self: self._can(SupportsBrowse))
    @rule()
    def look_closely(self) -> None:
        everything = self.store.browse()
        for state in State:
            assert list(self.store.browse(states=[state])) == [s for s in everything if s.state is state]
        for summary in self.model.browse():
            assert told(self.store.get(summary.id)) == told(self.model.get(summary.id))
