"""The suite itself: it finds what is broken, and asks of a narrow store only what that one promises."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

STORES = '''
import attrs
from hypothesis import settings
from outbox.lifecycle import State
from outbox.protocols import Guarantee
from outbox.stores import standing
from outbox.stores.memory import MemoryStore
from outbox.testing import StoreStateMachine, StoreSuite


class AnyToken(MemoryStore):
    """Takes a stale token for a good one."""
    def _held(self, claim):
        row = self._rows.get(claim.message.id)
        return row if row is not None and row.standing.state is State.CLAIMED else None


class NeverLost(MemoryStore):
    """Does not count claims that never settled."""
    def _lease(self, row, now, until):
        claim = super()._lease(row, now, until)
        row.standing = attrs.evolve(row.standing, lost=0)
        return attrs.evolve(claim, lost=0)


class Trusting(MemoryStore):
    """Takes for granted that who never reported back sent nothing."""
    def _lease(self, row, now, until):
        fates = row.standing.fates
        claim = super()._lease(row, now, until)
        row.standing = attrs.evolve(row.standing, fates=fates)
        return attrs.evolve(claim, fates=dict(zip(row.message.recipients, fates)))


class Backwards(MemoryStore):
    """Gives the worst first."""
    def _offer(self, queue, now, limit, promoted):
        offer = super()._offer(queue, now, limit, promoted)
        return attrs.evolve(offer, ready=offer.ready[::-1])


class Disorderly(Backwards):
    """Says that it keeps no order."""
    lacks = frozenset({Guarantee.ORDER})


class Forgetful(MemoryStore):
    """Leaves no tombstone."""
    def _remove(self, row, now, *, bury):
        super()._remove(row, now, bury=False)


class Piecemeal(MemoryStore):
    """Stores a batch one by one."""
    def put(self, messages, /):
        return [result for message in messages for result in super(Piecemeal, self).put([message])]


class Hasty(MemoryStore):
    """Hands over what is not due."""
    def _enqueue(self, row, now):
        self._lane(row).make_ready(row)


class Costly(MemoryStore):
    """Charges a released claim."""
    def _stand(self, row, new, now):
        if new.reason == "the relay is down":
            new = attrs.evolve(new, attempts=new.attempts + 1)
        super()._stand(row, new, now)


class Greedy(MemoryStore):
    """Shares nothing between queues."""
    def claim(self, *, limit, lease, queues, **more):
        claims = []
        for queue in queues:
            claims += super().claim(limit=limit - len(claims), lease=lease, queues=[queue], **more)
        return claims


class Ruthless(MemoryStore):
    """Cancels under a live lease."""
    def cancel(self, ids, /):
        for id in ids:
            row = self._rows.get(id)
            if row is not None and row.standing.state is State.CLAIMED:
                row.standing = attrs.evolve(row.standing, due=0)
        return super().cancel(ids)


class Narrow:
    """The five verbs, and not one guarantee beyond them."""
    lacks = frozenset(Guarantee)
    def __init__(self, inner):
        self.put, self.claim, self.extend = inner.put, inner.claim, inner.extend
        self.settle, self.close = inner.settle, inner.close
'''

BROKEN = {
    "AnyToken": "test_a_stale_token_changes_nothing_whatever_the_verdict",
    "NeverLost": "test_claims_that_never_settled_are_counted_until_one_does",
    "Trusting": "test_who_was_in_the_hands_of_a_worker_that_never_reported_back_is_doubtful_from_then_on",
    "Backwards": "test_higher_priority_goes_first",
    "Forgetful": "test_an_id_is_known_however_its_message_was_settled",
    "Piecemeal": "test_a_conflict_stores_nothing_of_its_batch",
    "Hasty": "test_nothing_is_claimed_before_it_is_due",
    "Costly": "test_a_released_claim_was_never_counted",
    "Greedy": "test_the_limit_is_shared_evenly_over_the_queues",
    "Ruthless": "test_a_message_under_a_live_lease_is_left_alone_and_says_until_when",
}


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The clauses that failed, by the name of the store."""
    folder = tmp_path_factory.mktemp("suite")
    classes = [
        f"class Test{name}(StoreSuite):\n"
        "    persistent = False\n"
        f"    def open(self, clock, path, **settings): return {name}(clock=clock, **settings)\n"
        for name in BROKEN
    ]
    classes.append(
        "class TestNarrow(StoreSuite):\n"
        "    persistent = False\n"
        "    def open(self, clock, path, **settings): return Narrow(MemoryStore(clock=clock, **settings))\n"
    )
    classes.append(
        "class TestDisorderly(StoreSuite):\n"
        "    persistent = False\n"
        "    def open(self, clock, path, **settings): return Disorderly(clock=clock, **settings)\n"
    )
    (folder / "test_stores.py").write_text(STORES + "\n\n" + "\n".join(classes))
    run = pytest_in(folder)
    found = defaultdict(set)
    for name, clause in re.findall(r"^FAILED \S+::Test(\w+)::(\w+)", run, re.MULTILINE):
        found[name].add(clause)
    assert " passed" in run, run
    return found


def pytest_in(folder: Path) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", "-W", "error"]
    return subprocess.run(
        [*command, "--rootdir", str(folder), str(folder)], capture_output=True, text=True, check=False
    ).stdout


@pytest.mark.parametrize(("store", "clause"), BROKEN.items())
def test_a_broken_store_fails_the_clause_that_it_breaks(
    failed: dict[str, set[str]], store: str, clause: str
) -> None:
    assert clause in failed[store]
    # And not everything: a suite that fails whole says nothing of where to look.
    assert len(failed[store]) < 25


def test_a_narrow_store_is_asked_for_nothing_that_it_does_not_promise(failed: dict[str, set[str]]) -> None:
    assert failed["Narrow"] == set()


def test_a_store_without_order_is_not_asked_for_it(failed: dict[str, set[str]]) -> None:
    assert failed["Disorderly"] == set()


def test_the_state_machine_finds_a_broken_store(tmp_path: Path) -> None:
    machines = "".join(
        f"""
class {name}Machine(StoreStateMachine):
    persistent = False
    def open(self, clock, path, **settings): return {name}(clock=clock, **settings)

Test{name} = {name}Machine.TestCase
Test{name}.settings = settings(max_examples=300, stateful_step_count=30, deadline=None, database=None, phases=["generate"])
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
