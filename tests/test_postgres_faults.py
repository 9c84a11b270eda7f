"""The server is killed, connections are cut, runners die and clocks are wrong: nothing is lost, and each second copy has a cause.

``OUTBOX_POSTGRES_FAULTS=long`` takes 20,000 messages for each of them; ``nox -s postgres-faults`` says what became of them.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import psycopg
import pytest
from postgres_cutter import Cutter, cutting
from postgres_places import Places
from postgres_server import Server, kill, own_server

from outbox.errors import AmbiguousPut, StoreError, StoreUnavailable
from outbox.lifecycle import Settlement, State
from outbox.stores.postgres import PostgresStore
from outbox.testing.clauses.scene import LEASE, delivered, ids, mail, put, settle, statuses, take

LONG: Final = os.environ.get("OUTBOX_POSTGRES_FAULTS") == "long"
NUMBER: Final = 20_000 if LONG else 2_000
RUNNERS: Final = 4
PATIENCE: Final = 1200.0 if LONG else 600.0
KILLS: Final = 10
SCHEMA: Final = "faults"
LOOKS: Final = 0.1 if LONG else 0.01


def number(short: int) -> int:
    """So many messages in a run of the tests, and as many as ever in the long form."""
    return NUMBER if LONG else short


# -- a connection is cut in the middle of a commit


@pytest.fixture
def cut(cutter: Cutter, postgres: Places, place: Path) -> Iterator[PostgresStore]:
    """The store of *place*, over connections that can be cut."""
    schema = postgres.schema(place)
    with contextlib.closing(PostgresStore(f"{postgres.dsn} host={cutter.folder}", schema=schema)) as store:
        yield store


@pytest.fixture
def straight(postgres: Places, place: Path) -> Iterator[PostgresStore]:
    with contextlib.closing(postgres.open(place)) as store:
        yield store


def test_a_put_whose_commit_is_not_answered_is_ambiguous_and_its_repeat_stores_one(
    cut: PostgresStore, straight: PostgresStore, cutter: Cutter
) -> None:
    cutter.cut_at(b"the-one", "unanswered")
    with pytest.raises(AmbiguousPut, match="same id"):
        put(cut, "the-one")
    assert cutter.cuts == 1

    assert statuses(cut.put([mail("the-one")])) == ["known"]
    assert ids(take(straight)) == ["the-one"]


def test_its_repeat_stores_none_where_the_first_has_been_delivered_meanwhile(
    cut: PostgresStore, straight: PostgresStore, cutter: Cutter
) -> None:
    cutter.cut_at(b"the-one", "unanswered")
    with pytest.raises(AmbiguousPut):
        put(cut, "the-one")
    (claim,) = take(straight)
    settle(straight, claim, delivered(claim))

    assert statuses(cut.put([mail("the-one")])) == ["known"]
    assert take(straight) == []


def test_a_put_that_the_server_never_heard_is_ambiguous_too_and_its_repeat_stores_it(
    cut: PostgresStore, straight: PostgresStore, cutter: Cutter
) -> None:
    cutter.cut_at(b"the-one", "unheard")
    with pytest.raises(AmbiguousPut):
        put(cut, "the-one")
    assert take(straight) == []

    assert statuses(cut.put([mail("the-one")])) == ["stored"]


@pytest.mark.parametrize(("moment", "answer"), [("unanswered", "known"), ("unheard", "stored")])
def test_the_same_holds_of_many_that_are_put_at_once(
    cut: PostgresStore, cutter: Cutter, moment: str, answer: str
) -> None:
    put(cut, "known")  # or it is one statement, as one message is
    batch = [mail(name) for name in ("a", "b", "c", "known")]
    cutter.cut_at(b"COMMIT", moment)  # type: ignore[arg-type]  # one of the two
    with pytest.raises(AmbiguousPut):
        cut.put(batch)

    assert statuses(cut.put(batch)) == [answer] * 3 + ["known"]


@pytest.mark.parametrize(("moment", "answer"), [("unanswered", "known"), ("unheard", "stored")])
def test_and_of_many_that_nobody_knows(cut: PostgresStore, cutter: Cutter, moment: str, answer: str) -> None:
    batch = [mail(name) for name in ("the-one", "another")]
    cutter.cut_at(b"the-one", moment)  # type: ignore[arg-type]  # one of the two
    with pytest.raises(AmbiguousPut):
        cut.put(batch)

    assert statuses(cut.put(batch)) == [answer] * 2


@pytest.mark.parametrize(("moment", "answer"), [("unanswered", "known"), ("unheard", "stored")])
def test_the_same_holds_of_a_transaction_of_several_statements(
    cut: PostgresStore, cutter: Cutter, moment: str, answer: str
) -> None:
    batch = [mail(name) for name in "abc"]
    cutter.cut_at(b"COMMIT", moment)  # type: ignore[arg-type]  # one of the two
    with pytest.raises(AmbiguousPut):
        cut.put_claimed(batch, lease=LEASE)

    assert statuses(cut.put(batch)) == [answer] * 3


def test_one_that_is_cut_before_its_commit_was_not_stored_and_says_so(
    cut: PostgresStore, straight: PostgresStore, cutter: Cutter
) -> None:
    put(cut, "known")  # or it is one statement, as one message is
    cutter.cut_at(b"SAVEPOINT outbox", "unheard")
    with pytest.raises(StoreUnavailable):
        cut.put([mail("the-one"), mail("known")])

    assert [each.id for each in straight.browse()] == ["known"]


def test_a_settle_that_is_not_answered_is_repeated_and_told_that_it_was_done(
    cut: PostgresStore, straight: PostgresStore, cutter: Cutter
) -> None:
    put(cut, "the-one")
    (claim,) = take(cut)
    cutter.cut_at(b"the-one", "unanswered")
    with pytest.raises(StoreUnavailable):
        cut.settle([Settlement(claim, delivered(claim))])

    assert list(cut.settle([Settlement(claim, delivered(claim))])) == [claim]
    assert straight.get("the-one") is None
    assert statuses(straight.put([mail("the-one")])) == ["known"]


def test_a_connection_that_was_ended_while_nobody_used_it_costs_nothing(
    cut: PostgresStore, postgres: Places
) -> None:
    put(cut, "a")
    (connection,) = cut._links._open
    with psycopg.connect(postgres.dsn, autocommit=True) as killer:
        pid = connection.info.backend_pid
        assert killer.execute("SELECT pg_terminate_backend(%s, 30000)", (pid,)).fetchone() == (True,)
    # Its end is on its way through another process.
    until = time.monotonic() + PATIENCE
    while cut._links._open and not _ended(connection) and time.monotonic() < until:
        time.sleep(0.001)

    assert statuses(cut.put([mail("b")])) == ["stored"]


def _ended(connection: psycopg.Connection) -> bool:
    import select  # noqa: PLC0415 - of this test alone

    return bool(select.select([connection.fileno()], [], [], 0)[0])


def test_backends_that_are_ended_at_random_lose_nothing_and_double_nothing(
    straight: PostgresStore, postgres: Places, place: Path
) -> None:
    """Four threads put, four deliver, and somebody ends their backends all the while."""
    number = 250
    sent: Counter[str] = Counter()
    over = threading.Event()
    schema = postgres.schema(place)

    def surely(verb: Callable[[], object]) -> object:
        while True:
            try:
                return verb()
            except StoreError:
                continue

    def submit(store: PostgresStore, thread: int) -> None:
        for n in range(number):
            surely(lambda n=n: store.put([mail(f"t{thread}-{n}")]))  # type: ignore[misc]  # mypy infers no default

    def deliver(store: PostgresStore) -> None:
        while not over.is_set():
            try:
                claims = take(store, 10)
            except StoreError:
                continue
            sent.update(ids(claims))
            done = [Settlement(claim, delivered(claim)) for claim in claims]
            surely(lambda done=done: store.settle(done))  # type: ignore[misc]  # mypy infers no default

    die = random.Random(3)
    ended = 0
    with contextlib.ExitStack() as stack:
        # All are open before the first is ended.
        dsn = f"{postgres.dsn} application_name=victim"
        opened = [
            stack.enter_context(contextlib.closing(PostgresStore(dsn, schema=schema))) for _ in range(8)
        ]
        killer = stack.enter_context(psycopg.connect(postgres.dsn, autocommit=True))
        submitters = [threading.Thread(target=submit, args=(opened[n], n)) for n in range(4)]
        workers = [threading.Thread(target=deliver, args=(store,)) for store in opened[4:]]
        for each in (*submitters, *workers):
            each.start()
        while any(each.is_alive() for each in submitters) or any(c.number for c in straight.count() if c.due):
            found = killer.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'victim'"
            ).fetchall()
            if found:
                killer.execute("SELECT pg_terminate_backend(%s)", die.choice(found))
                ended += 1
            time.sleep(0.05)
        over.set()
        for each in (*submitters, *workers):
            each.join(PATIENCE)

    # A claim whose answer was cut off is held by nobody until its lease is over; all others came once.
    held = {summary.id for summary in straight.browse(states=[State.CLAIMED], limit=10_000)}
    every = {f"t{thread}-{n}" for thread in range(4) for n in range(number)}
    assert set(sent) | held == every
    assert not set(sent) & held
    assert set(sent.values()) == {1}
    assert ended


# -- runners in processes of their own


class Crew:
    """Some runners, what each has handed over, and the store that they share."""

    def __init__(
        self, dsn: str, folder: Path, *, lease: float = 60.0, wrong_by: Sequence[float] = (0,) * RUNNERS
    ) -> None:
        self.store = PostgresStore(dsn, schema=SCHEMA, keep_delivered=dt.timedelta(days=1))
        self._dsn, self._folder, self._lease = dsn, folder, lease
        self._begun = 0
        self.processes = [self._begin(off) for off in wrong_by]
        for each in self.processes:
            self._await(each)

    def _begin(self, off: float = 0) -> subprocess.Popen[bytes]:
        self._begun += 1
        file = self._folder / f"ledger-{self._begun}"
        runner = Path(__file__).with_name("postgres_runner.py")
        # What is ended by its name is a runner's, and nobody else's.
        dsn = f"{self._dsn} application_name=runner"
        return subprocess.Popen(
            [sys.executable, runner, dsn, SCHEMA, file, str(self._lease), str(off)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

    def replace(self, which: int) -> None:
        """Kill it, and begin another in its place."""
        old = self.processes[which]
        old.kill()
        old.wait(PATIENCE)
        assert old.stdout is not None
        old.stdout.close()
        self.processes[which] = self._begin()
        self._await(self.processes[which])

    @contextlib.contextmanager
    def stopped(self, which: int) -> Iterator[None]:
        os.kill(self.processes[which].pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.processes[which].pid, signal.SIGCONT)

    def await_leases(self) -> None:
        """Wait until what was claimed by now, and is not extended, is anybody's."""
        time.sleep(self._lease + 0.5)

    def handed_over(self) -> Counter[str]:
        files = list(self._folder.glob("ledger-*"))
        return Counter(name for file in files for name in file.read_text().split())

    def await_handed_over(self, more: int, of: int) -> None:
        """Until so many more than by now were handed over, or each *of* those that there are."""
        goal = min(self.handed_over().total() + more, of)
        until = time.monotonic() + PATIENCE
        while self.handed_over().total() < goal:
            assert time.monotonic() < until
            time.sleep(LOOKS)

    def await_delivered(self, number: int) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(StoreError):
                done = sum(c.number for c in self.store.count() if c.state is State.DELIVERED)
                if done == number:
                    return
            assert time.monotonic() < until, list(self.store.count())
            time.sleep(5 * LOOKS)

    def require_explained(self, names: set[str]) -> None:
        """See that each came, and none more often than it was claimed."""
        copies = self.handed_over()
        attempts = {each.id: each.attempts for each in self.store.browse(limit=10 * NUMBER)}
        unexplained = {name: n for name, n in copies.items() if n > attempts[name]}
        print(
            f"{len(names):,} messages, {len(names - set(copies))} lost, "
            f"{sum(n > 1 for n in copies.values())} sent more than once, {len(unexplained)} of them without a cause"
        )
        assert set(copies) == names == set(attempts)
        assert unexplained == {}

    def end(self) -> None:
        for each in self.processes:
            each.kill()
            each.wait(PATIENCE)
            assert each.stdout is not None
            each.stdout.close()
        self.store.close()


@contextlib.contextmanager
def crew(dsn: str, folder: Path, **settings: object) -> Iterator[Crew]:
    made = Crew(dsn, folder, **settings)  # type: ignore[arg-type]  # typed where it is made
    try:
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that may be killed."""
    with own_server() as server:
        yield server


@pytest.fixture
def fresh(server: Server) -> str:
    """Its dsn; the schema of the faults is empty."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE".encode())
    PostgresStore(server.dsn, schema=SCHEMA).close()
    return server.dsn


def submitted(store: PostgresStore, names: Sequence[str]) -> None:
    """Put by tens, each until it is known to be stored."""
    for start in range(0, len(names), 10):
        while True:
            try:
                store.put([mail(name) for name in names[start : start + 10]])
                break
            except StoreError:
                time.sleep(0.02)


@contextlib.contextmanager
def submitting(store: PostgresStore, names: Sequence[str]) -> Iterator[None]:
    """Put them beside what is done meanwhile; all are stored in the end."""
    thread = threading.Thread(target=submitted, args=(store, names))
    thread.start()
    yield
    thread.join(PATIENCE)
    assert not thread.is_alive()


def named(number: int) -> list[str]:
    return [f"m{n:05}" for n in range(number)]


def test_a_server_that_is_killed_ten_times_loses_nothing_and_sends_nothing_twice_without_a_cause(
    server: Server, fresh: str, tmp_path: Path
) -> None:
    names = named(NUMBER)
    with crew(fresh, tmp_path) as runners:
        for number in range(KILLS):
            part = names[number * NUMBER // KILLS : (number + 1) * NUMBER // KILLS]
            with submitting(runners.store, part):
                runners.await_handed_over(len(part) // 4, (number + 1) * NUMBER // KILLS)
                kill(server)
                server.start()
        runners.await_delivered(NUMBER)
        runners.require_explained(set(names))
        # The leases are longer than the server was ever away: nobody had to claim what another had in hand.
        assert set(runners.handed_over().values()) == {1}


def test_runners_whose_backends_are_ended_at_random_lose_nothing(fresh: str, tmp_path: Path) -> None:
    """A claim whose answer was cut off is held by nobody until its lease is over, and then it comes."""
    names, die = named(number(400)), random.Random(3)
    strikes = 10 * KILLS if LONG else KILLS
    with (
        crew(fresh, tmp_path, lease=3.0) as runners,
        psycopg.connect(fresh, autocommit=True) as killer,
        submitting(runners.store, names),
    ):
        ended = 0
        for _ in range(strikes):
            runners.await_handed_over(len(names) // strikes // 2, len(names))
            found = killer.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'runner'"
            ).fetchall()
            for victim in die.sample(found, len(found) // 2):
                killer.execute("SELECT pg_terminate_backend(%s)", victim)
                ended += 1
        assert ended
        runners.await_delivered(len(names))
        runners.require_explained(set(names))


def test_submits_whose_commits_are_cut_are_repeated_and_each_is_delivered_once(
    server: Server, fresh: str, tmp_path: Path
) -> None:
    """Before the server has heard, or before it has answered; the first may be delivered when the repeat comes."""
    names, die = named(number(200)), random.Random(5)
    cut = set(die.sample(names, len(names) // 10))
    ambiguous = 0
    with (
        crew(fresh, tmp_path) as runners,
        cutting(os.fspath(server.home)) as cutter,
        contextlib.closing(PostgresStore(f"{fresh} host={cutter.folder}", schema=SCHEMA)) as store,
    ):
        for name in names:
            if name in cut:
                cutter.cut_at(name.encode(), die.choice(["unheard", "unanswered"]))
                with pytest.raises(AmbiguousPut):
                    put(store, name)
                ambiguous += 1
            store.put([mail(name)])
        assert (ambiguous, cutter.cuts) == (len(cut), len(cut))
        runners.await_delivered(len(names))
        runners.require_explained(set(names))
        assert set(runners.handed_over().values()) == {1}


def test_hosts_whose_clocks_are_five_minutes_apart_take_nothing_from_each_other(
    fresh: str, tmp_path: Path
) -> None:
    """The leases are a fifth of that: by the clock of a host that is ahead all of the others' had run out."""
    names = named(number(500))
    with crew(fresh, tmp_path, wrong_by=(-150, 150, -150, 150)) as runners:
        submitted(runners.store, names)
        runners.await_delivered(len(names))

        runners.require_explained(set(names))
        assert set(runners.handed_over().values()) == {1}


def test_runners_that_are_killed_and_stopped_past_their_leases_lose_nothing(
    fresh: str, tmp_path: Path
) -> None:
    names = named(number(800))
    rounds = KILLS // 2 if LONG else 1
    with crew(fresh, tmp_path, lease=2.0) as runners, submitting(runners.store, names):
        for n in range(rounds):
            runners.await_handed_over(len(names) // rounds // 4, len(names))
            with runners.stopped((n + 1) % RUNNERS):
                runners.replace(n % RUNNERS)
                # What the two had in hand comes back when their leases are over, and not before.
                runners.await_leases()
        runners.await_delivered(len(names))
        runners.require_explained(set(names))


def test_a_server_that_is_away_is_told_of_as_what_it_is(server: Server, fresh: str) -> None:
    with contextlib.closing(PostgresStore(fresh, schema=SCHEMA)) as store:
        put(store, "a")
        kill(server)
        # Its end is seen before anything is sent: so this is no put of which nobody can tell.
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            put(store, "b")
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            store.claim(limit=1, lease=LEASE, queues=["mail"])
        server.start()

        assert ids(take(store)) == ["a"]
