"""The suite itself: it finds what is broken, and asks of a narrow store only what that one promises."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from breaking import BROKEN as BROKEN_IN_ONE_WAY
from suite_runs import failures, once, pytest_in

BROKEN_IN = (
    "broken_claims",
    "broken_exactly",
    "broken_holds",
    "broken_moves",
    "broken_presence",
    "broken_registers",
    "broken_races",
    "broken_stores",
)
for module in BROKEN_IN:
    importlib.import_module(module)  # which notes its stores

STORES = '''
import os
import sqlite3
import attrs
from hypothesis import settings
from outbox.lifecycle import State
from outbox.protocols import Exchanged, Guarantee, Suspension
from outbox.stores import intake, standing
from outbox.stores.limits import Limits
from outbox.stores.memory import MemoryStore
from outbox.stores.shelf import Shelf
from outbox.stores.sqlite import SQLiteStore
from outbox.testing import StoreStateMachine, StoreSuite
from outbox.testing.clauses import suspending
from suite_runs import only


class OnAShelf(MemoryStore):
    """A memory store whose shelf is broken."""
    class Shelf(Shelf): pass
    def __init__(self, **settings):
        super().__init__(**settings)
        self._shelf.__class__ = self.Shelf


class AnyToken(OnAShelf):
    """Takes a stale token for a good one."""
    class Shelf(Shelf):
        def held(self, claim):
            row = self.rows.get(claim.message.id)
            return row if row is not None and row.standing.state is State.CLAIMED else None


class NeverLost(OnAShelf):
    """Does not count claims that never settled."""
    class Shelf(Shelf):
        def lease(self, row, now, until):
            claim = super().lease(row, now, until)
            row.standing = attrs.evolve(row.standing, lost=0)
            return attrs.evolve(claim, lost=0)


class Credulous(OnAShelf):
    """Takes for granted that who never reported back sent nothing."""
    class Shelf(Shelf):
        def lease(self, row, now, until):
            fates = row.standing.fates
            claim = super().lease(row, now, until)
            row.standing = attrs.evolve(row.standing, fates=fates)
            return attrs.evolve(claim, fates=dict(zip(row.message.recipients, fates)))


class Backwards(MemoryStore):
    """Gives the worst first."""
    def __init__(self, **settings):
        super().__init__(**settings)
        right = self._shelf._lanes.offer
        def wrong(*arguments):
            offer = right(*arguments)
            return attrs.evolve(offer, ready=offer.ready[::-1])
        self._shelf._lanes.offer = wrong


class Disorderly(Backwards):
    """Says that it keeps no order."""
    lacks = frozenset({Guarantee.ORDER})


class Forgetful(MemoryStore):
    """Leaves no tombstone."""
    def __init__(self, **settings):
        super().__init__(**settings)
        self._shelf._tombstones.bury = lambda *_: None


class Piecemeal(MemoryStore):
    """Stores a batch one by one."""
    def put(self, messages, /):
        return [result for message in messages for result in super(Piecemeal, self).put([message])]


class Hasty(MemoryStore):
    """Hands over what is not due."""
    def __init__(self, **settings):
        super().__init__(**settings)
        lanes = self._shelf._lanes
        lanes.enqueue = lambda row, now: lanes._of(row).make_ready(row)


class Costly(OnAShelf):
    """Charges a released claim."""
    class Shelf(Shelf):
        def stand(self, row, new, now):
            if new.reason == "the relay is down":
                new = attrs.evolve(new, attempts=new.attempts + 1)
            super().stand(row, new, now)


class Greedy(MemoryStore):
    """Shares nothing between queues."""
    def claim(self, *, limit, lease, queues, **more):
        claims = []
        for queue in queues:
            claims += super().claim(limit=limit - len(claims), lease=lease, queues=[queue], **more)
        return claims


class Ruthless(MemoryStore):
    """Cancels under a live lease."""
    def cancel(self, ids, /, **more):
        for id in ids:
            row = self._shelf.rows.get(id)
            if row is not None and row.standing.state is State.CLAIMED:
                row.standing = attrs.evolve(row.standing, due=0)
        return super().cancel(ids, **more)


class ClaimsFirst(MemoryStore):
    """Exchanges the wrong way round."""
    def exchange(self, settlements, /, **order):
        claims = self.claim(**order)
        return Exchanged(self.settle(settlements), claims)


class Trusting(MemoryStore):
    """Takes any token in an exchange."""
    def exchange(self, settlements, /, **order):
        rows = self._shelf.rows
        named = [
            attrs.evolve(each, claim=attrs.evolve(each.claim, token=str(rows[each.claim.message.id].generation)))
            for each in settlements if each.claim.message.id in rows
        ]
        return super().exchange(named, **order)


class Unleased(MemoryStore):
    """Hands over without a lease."""
    def put_claimed(self, messages, /, *, lease, attempted=False):
        claims = super().put_claimed(messages, lease=lease, attempted=attempted)
        for claim in claims:
            self._shelf.settle(
                [standing_again(claim)], [tuple(claim.fates.values())], self._now()
            )
        return claims


def standing_again(claim):
    from outbox.testing.clauses.scene import Settlement, released
    return Settlement(claim, released(claim))


class HandsOverAll(MemoryStore):
    """Hands over what was known too."""
    def put_claimed(self, messages, /, *, lease, attempted=False):
        claims = list(super().put_claimed(messages, lease=lease, attempted=attempted))
        there = {claim.message.id for claim in claims}
        return claims + [
            standing.claim(m, standing.claimed(standing.fresh(m, 0), 1), "0", 0) for m in messages if m.id not in there
        ]


class Unstoppable(OnAShelf):
    """Claims what is suspended."""
    class Shelf(Shelf):
        def served(self, queues, now):
            return list(queues)


class Unending(OnAShelf):
    """Does not see the end of a suspension."""
    class Shelf(Shelf):
        def suspend(self, suspension):
            super().suspend(attrs.evolve(suspension, until=None))


suspending.LONG = suspending.SHORT


class Silent(MemoryStore):
    """Tells nobody that a suspension has ended."""
    def unsuspend(self, kind, value, /):
        tell, self._news.tell = self._news.tell, lambda: None
        try:
            return super().unsuspend(kind, value)
        finally:
            self._news.tell = tell


class StopsAll(MemoryStore):
    """Takes every suspension for one of a queue."""
    def suspend(self, suspension, /):
        super().suspend(suspension)
        super().suspend(Suspension(kind="queue", value="mail"))


class Hoarder(MemoryStore):
    """Knows no end of ids."""
    def __init__(self, *, remember_at_most=0, discard_after=None, **settings):
        super().__init__(**settings)


class Shredder(OnAShelf):
    """Takes the content of all that is settled."""
    class Shelf(Shelf):
        def stand(self, row, new, now):
            super().stand(row, new, now)
            if not new.queued:
                row.message = attrs.evolve(row.message, content=b"")


class Keeper(MemoryStore):
    """Keeps content that it should not."""
    def __init__(self, *, keep_content=True, **settings):
        super().__init__(**settings)


class Shrunk(OnAShelf):
    """Forgets the size with the content."""
    class Shelf(Shelf):
        def _delivered(self, row, now):
            super()._delivered(row, now)
            row.size = len(row.message.content)


class Boundless(MemoryStore):
    """Takes in whatever comes."""
    def __init__(self, *, max_messages=None, max_bytes=None, **settings):
        super().__init__(**settings)


class Crammed(OnAShelf):
    """Never sees that anything left."""
    class Shelf(Shelf):
        def stand(self, row, new, now):
            load = self._load
            super().stand(row, new, now)
            self._load = load


class Deaf(OnAShelf):
    """A full one that answers nothing, not even what it knows."""
    class Shelf(Shelf):
        def put(self, drafts, now):
            from outbox.stores.limits import Load
            self._limits.require_room(self._load, Load.of(len(draft.message.content) for draft in drafts))
            return super().put(drafts, now)


class Miscounting(MemoryStore):
    """Counts what is settled as due."""
    def count(self):
        return [attrs.evolve(each, due=each.number) for each in super().count()]


class Clockwork(OnAShelf):
    """Takes no lease for one that began later than now."""
    class Shelf(Shelf):
        def claim(self, queues, now, **order):
            for row in self.rows.values():
                if row.standing.state is State.CLAIMED and row.standing.submitted > now:
                    row.standing = attrs.evolve(row.standing, due=now)
                    self._lanes.enqueue(row, now)
            return super().claim(queues, now, **order)


class Mended(OnAShelf):
    """Alters what it sends again."""
    class Shelf(Shelf):
        def lease(self, row, now, until):
            if row.standing.attempts:
                row.message = attrs.evolve(row.message, content=row.message.content + b" ")
            return super().lease(row, now, until)


class OnDisk(SQLiteStore):
    """A store that lasts."""
    def __init__(self, path, **settings):
        super().__init__(path / self.name(path), **settings)
    def name(self, path):
        return "outbox.db"


class Scattered(OnDisk):
    """Each process has its own copy."""
    def name(self, path):
        mine = f"{os.getpid()}.db"
        others = sorted(each for each in path.glob("*.db") if each.name != mine)
        if others and not (path / mine).exists():
            theirs, ours = sqlite3.connect(others[0]), sqlite3.connect(path / mine)
            theirs.backup(ours)
            theirs.close()
            ours.close()
        return mine


class Lazy(OnDisk):
    """Writes what it has said when it is closed."""
    later = ()
    def settle(self, settlements, /):
        self.later = (*self.later, *settlements)
        return []
    def close(self):
        later, self.later = self.later, ()
        if later:
            super().settle(later)
        super().close()


class Fickle(OnDisk):
    """Forgets every claim when it is opened."""
    def __init__(self, path, **settings):
        super().__init__(path, **settings)
        def forget(sql):
            sql.execute("UPDATE outbox_message SET stage = 2, state = 'queued' WHERE state = 'claimed'")
        self._database.write(forget)


class Literal(MemoryStore):
    """Takes whatever it is asked for to be a name."""
    def get(self, id, /):
        return super().get(id.encode().decode())
'''

BROKEN = {
    "AnyToken": "test_a_stale_token_changes_nothing_whatever_the_verdict",
    "Hasty": "test_nothing_is_claimed_before_it_is_due",
    "Ruthless": "test_a_message_under_a_live_lease_is_left_alone_and_says_until_when",
}
"""These are held to the whole suite."""

SUBTLE = {
    "NeverLost": "test_claims_that_never_settled_are_counted_until_one_does",
    "Credulous": "test_who_was_in_the_hands_of_a_worker_that_never_reported_back_is_doubtful_from_then_on",
    "Backwards": "test_higher_priority_goes_first",
    "Forgetful": "test_an_id_is_known_however_its_message_was_settled",
    "Piecemeal": "test_a_conflict_stores_nothing_of_its_batch",
    "Costly": "test_a_released_claim_was_never_counted",
    "Greedy": "test_the_limit_is_shared_evenly_over_the_queues",
    "ClaimsFirst": "test_what_an_exchange_puts_back_it_may_take_again",
    "Trusting": "test_a_stale_token_changes_nothing_in_an_exchange_and_stops_no_other",
    "Unleased": "test_what_is_put_claimed_is_the_caller_s_alone",
    "HandsOverAll": "test_what_was_known_is_not_handed_over",
    "Unstoppable": "test_a_suspended_queue_gives_no_claims_and_the_others_go_on",
    "Unending": "test_a_suspension_ends_by_itself_when_its_time_comes",
    "Silent": "test_the_end_of_a_suspension_is_news",
    "StopsAll": "test_the_other_kinds_stop_no_claim",
    "Hoarder": "test_of_too_many_remembered_ids_pruning_forgets_the_oldest",
    "Shredder": "test_only_what_was_delivered_loses_its_content",
    "Keeper": "test_without_its_content_a_delivered_record_keeps_all_else",
    "Shrunk": "test_without_its_content_a_delivered_record_keeps_all_else",
    "Boundless": "test_as_many_messages_are_taken_as_was_said_and_no_more",
    "Crammed": "test_what_is_settled_makes_room",
    "Deaf": "test_what_is_known_is_answered_by_a_full_store_too",
    "Miscounting": "test_after_every_verb_the_counts_are_the_rows",
    "Clockwork": "test_a_clock_that_is_set_back_ends_no_lease",
    "Mended": "test_the_message_is_the_same_at_every_attempt",
    "Literal": "test_an_id_that_no_message_can_have_has_no_record",
}
"""These only to the one clause, which they break."""

LASTING = {
    "Scattered": "test_processes_claim_disjointly_and_each_message_is_settled_once",
    "Lazy": "test_after_every_verb_the_store_tells_the_same_though_it_was_never_closed",
    "Fickle": "test_after_every_verb_the_store_that_is_opened_again_tells_the_same",
}


ALONE = {**SUBTLE, **LASTING}


def suites(names: Iterable[str], opened: str, *, persistent: bool = False) -> str:
    """The stores are held to the whole suite; or where *names* says to which clause, to that one."""
    alone = names if isinstance(names, Mapping) else {}
    return "\n".join(
        f"class Test{name}(StoreSuite):\n"
        f"    persistent = {persistent}\n"
        + (f"    locals().update(only(StoreSuite, [{alone[name]!r}]))\n" if name in alone else "")
        + f"    def open(self, clock, path, **settings): return {opened.format(name)}\n"
        for name in names
    )


def said_of(text: str, folder: Path) -> str:
    """What pytest says of these stores."""
    (folder / "test_stores.py").write_text(text)
    return pytest_in(folder)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The clauses that failed, by the name of the store."""
    text = suites([*BROKEN, "Disorderly"], "{}(clock=clock, **settings)")
    return failures(once(tmp_path_factory, "suite", lambda folder: said_of(STORES + "\n\n" + text, folder)))


@pytest.fixture(scope="module")
def failed_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The same, of the clauses that are named with the stores."""
    text = suites(SUBTLE, "{}(clock=clock, **settings)")
    text += suites(LASTING, "{}(path, clock=clock, **settings)", persistent=True)
    return failures(once(tmp_path_factory, "subtle", lambda folder: said_of(STORES + "\n\n" + text, folder)))


OPENED = f"""
import contextlib, sqlite3, sys
import {", ".join(BROKEN_IN)}
from breaking import BROKEN
from outbox.testing import StoreSuite
from outbox.testing.clauses import scene
from suite_runs import only

# All of them are to go red, and some by a wait that comes to its end.
for module in list(sys.modules.values()):
    if getattr(module, "LONG", None) is scene.LONG and module is not scene:
        module.LONG = 10 * scene.SHORT


class Suite(StoreSuite):
    def open(self, clock, path, **settings):
        return self.broken(path, clock=clock, **settings) if self.persistent else self.broken(clock=clock, **settings)

    @contextlib.contextmanager
    def transaction(self, store, path):
        with contextlib.closing(sqlite3.connect(path / "outbox.db")) as connection, connection:
            yield connection


for name, (broken, clause) in BROKEN.items():
    told = dict(broken=broken, persistent=getattr(broken, "lasting", False), **only(StoreSuite, [clause]))
    globals()["Test" + name] = type("Test" + name, (Suite,), told)
del Suite, StoreSuite
"""


@pytest.fixture(scope="module")
def failed_one_by_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The same, of the stores that ``breaking`` has noted."""
    return failures(once(tmp_path_factory, "broken", lambda folder: said_of(OPENED, folder)))


@pytest.mark.parametrize(
    ("store", "clause"), [(name, clause) for name, (_, clause) in BROKEN_IN_ONE_WAY.items()]
)
def test_a_store_that_is_broken_in_one_way_fails_the_clause_for_it(
    failed_one_by_one: dict[str, set[str]], store: str, clause: str
) -> None:
    assert clause in failed_one_by_one[store]


@pytest.mark.parametrize(
    "clauses",
    ["dealing", "exacting", "fating", "joining", "racing", "rooming", "spanning", "trading", "witnessing"],
)
def test_each_clause_of_these_parts_has_a_store_that_breaks_it(clauses: str) -> None:
    part = importlib.import_module(f"outbox.testing.clauses.{clauses}")
    (name,) = part.__all__

    found = {each for each in vars(getattr(part, name)) if each.startswith("test_")}
    assert found - {clause for _, clause in BROKEN_IN_ONE_WAY.values()} == set()


@pytest.mark.parametrize(("store", "clause"), ALONE.items())
def test_a_store_that_breaks_one_clause_fails_it(
    failed_alone: dict[str, set[str]], store: str, clause: str
) -> None:
    assert clause in failed_alone[store]


@pytest.mark.parametrize(("store", "clause"), BROKEN.items())
def test_a_broken_store_fails_the_clause_that_it_breaks(
    failed: dict[str, set[str]], store: str, clause: str
) -> None:
    assert clause in failed[store]
    # And not everything: a suite that fails whole says nothing of where to look.
    assert len(failed[store]) < 25


LACKING_ONE = """
import inspect
from lacking import LACKING
from outbox.testing import StoreSuite
from suite_runs import only

def asks_what_lasts(clause):
    return not {"persistent", "require_persistence"}.isdisjoint(inspect.unwrap(clause).__code__.co_names)

# What asks for no disk is asked of the same lack in memory.
LASTING = [name for name, each in inspect.getmembers(StoreSuite, inspect.isfunction) if name.startswith("test_") and asks_what_lasts(each)]

class Suite(StoreSuite):
    def open(self, clock, path, **settings):
        return self.unusual(path, clock=clock, **settings) if self.persistent else self.unusual(clock=clock, **settings)

for name, unusual in LACKING.items():
    told = dict(unusual=unusual, persistent=getattr(unusual, "lasting", False), __module__=__name__)
    if told["persistent"]:
        told |= only(StoreSuite, LASTING)
    globals()["Test" + name] = type("Test" + name, (Suite,), told)
del Suite, StoreSuite
"""


def test_a_store_is_asked_for_nothing_that_it_does_not_promise(tmp_path: Path) -> None:
    (tmp_path / "test_stores.py").write_text(LACKING_ONE)
    run = pytest_in(tmp_path)

    assert re.search(r"^\d+ passed, \d+ skipped", run, re.MULTILINE), run


def test_a_store_without_order_is_not_asked_for_it(failed: dict[str, set[str]]) -> None:
    assert failed["Disorderly"] == set()


def test_the_state_machine_finds_a_broken_store(tmp_path: Path) -> None:
    machines = "".join(
        f"""
class {name}Machine(StoreStateMachine):
    persistent = False
    def open(self, clock, path, **settings): return {name}(clock=clock, **settings)

Test{name} = {name}Machine.TestCase
Test{name}.settings = settings(max_examples=300, stateful_step_count=30, deadline=None, database=None, derandomize=True, phases=["generate"])
"""
        for name in ("AnyToken", "NeverLost", "Trusting", "Backwards", "Hasty")
    )
    (tmp_path / "test_machines.py").write_text(
        STORES.replace("import settings", "import Phase, settings")
        + machines.replace('["generate"]', "[Phase.generate]")
    )
    run = pytest_in(tmp_path)

    assert re.search(r"^5 failed", run, re.MULTILINE), run


@pytest.mark.parametrize(("name", "library"), [("StoreSuite", "pytest"), ("StoreStateMachine", "hypothesis")])
def test_without_its_library_it_says_what_to_install(name: str, library: str) -> None:
    script = f"import sys; sys.modules[{library!r}] = None; import outbox.testing; outbox.testing.{name}"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert 'pip install "durable-outbox[testing]"' in run.stderr
