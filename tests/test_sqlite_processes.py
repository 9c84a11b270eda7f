"""Several processes on one SQLite file: nothing twice, nothing lost, also over fork and kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from started import PATIENCE

from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clauses.scene import LEASE, ids, mail, put, states, take

FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")

BEGIN = """
import datetime as dt, json, os, sys, threading
from pathlib import Path
from outbox.stores.sqlite import SQLiteStore
from outbox.lifecycle import Settlement
from outbox.testing.clauses.scene import delivered, ids, mail, put, settle, take
path = Path(sys.argv[1])
"""


def python(path: Path, script: str, *arguments: str) -> subprocess.Popen[str]:
    """Another Python process; every warning of it is an error too."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", BEGIN + textwrap.dedent(script), os.fspath(path), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> object:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert err == ""
    return json.loads(out)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def test_eight_processes_may_create_it_at_once(path: Path) -> None:
    script = """
        print("ready", flush=True)
        sys.stdin.readline()
        store = SQLiteStore(path)
        put(store, sys.argv[2])
        store.close()
        print("0")
    """
    processes = [python(path, script, f"p{n}") for n in range(8)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        answer(process)

    store = SQLiteStore(path)
    assert sorted(ids(take(store))) == [f"p{n}" for n in range(8)]
    store.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_four_processes_of_three_threads_take_each_message_once(path: Path) -> None:
    store = SQLiteStore(path)
    names = [f"m{n:03}" for n in range(240)]
    put(store, *(mail(name) for name in names))

    workers = [
        python(
            path,
            """
            store, done, lock = SQLiteStore(path), [], threading.Lock()
            def work():
                while claims := take(store, 5):
                    stale = store.settle([Settlement(claim, delivered(claim)) for claim in claims])
                    assert not stale
                    with lock:
                        done.extend(ids(claims))
            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            store.close()
            print(json.dumps(done))
            """,
        )
        for _ in range(4)
    ]
    settled: Counter[str] = Counter()
    for worker in workers:
        done = answer(worker)
        assert isinstance(done, list)
        settled.update(done)

    assert settled == Counter(names)
    assert states(store) == {}
    assert store.check()[-1].level == "ok"
    store.close()


def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    process = python(
        path,
        """
        store = SQLiteStore(path)
        for n in range(100_000):
            put(store, mail(f"m{n:05}", content=b"x" * 3000))
            print(n, flush=True)
        """,
    )
    assert process.stdout is not None
    last = 0
    while last < 300:
        last = int(process.stdout.readline())
    process.kill()
    # By the same reader, who has read ahead; communicate() would begin behind him.
    rest = process.stdout.read()
    process.communicate()
    acknowledged = int((rest.split() or [str(last)])[-1])

    store = SQLiteStore(path)
    # However far it came while nobody read: all of it, whatever its size.
    stored = ids(store.claim(limit=100_000, lease=LEASE, queues=["mail"], max_bytes=1 << 40))
    assert stored == [f"m{n:05}" for n in range(len(stored))]
    # One more may have been committed than could be told.
    assert len(stored) - (acknowledged + 1) in (0, 1)
    assert {finding.level for finding in store.check()} == {"ok"}
    store.close()


@FORK
def test_what_a_forked_child_stores_survives_its_parent_s_close(path: Path) -> None:
    """SQLite alone loses it: see the module of the connection."""
    process = python(
        path,
        """
        store = SQLiteStore(path)
        put(store, "before")
        closed_r, closed_w = os.pipe()
        ready_r, ready_w = os.pipe()
        child = os.fork()
        if child == 0:
            put(store, "child-1")
            os.write(ready_w, b"x")
            os.read(closed_r, 1)
            put(store, "child-2")
            store.close()
            os._exit(0)
        os.read(ready_r, 1)
        put(store, "parent")
        store.close()
        os.write(closed_w, b"x")
        assert os.waitpid(child, 0)[1] == 0
        again = SQLiteStore(path)
        print(json.dumps(sorted(ids(take(again)))))
        again.close()
        """,
    )
    assert answer(process) == ["before", "child-1", "child-2", "parent"]


@FORK
def test_parent_and_child_claim_disjointly_after_a_fork(path: Path) -> None:
    store = SQLiteStore(path)
    put(store, *(mail(f"m{n:02}") for n in range(60)))
    store.close()
    process = python(
        path,
        """
        store = SQLiteStore(path)
        first = ids(take(store, 1))
        child = os.fork()
        mine = []
        while claims := take(store, 3):
            mine += ids(claims)
            store.settle([Settlement(claim, delivered(claim)) for claim in claims])
        path.with_name(f"{'child' if child == 0 else 'parent'}.json").write_text(json.dumps(mine))
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        store.close()
        print(json.dumps(first))
        """,
    )
    first = answer(process)
    parent = json.loads(path.with_name("parent.json").read_text())
    child = json.loads(path.with_name("child.json").read_text())

    assert sorted([*parent, *child]) == [f"m{n:02}" for n in range(60) if [f"m{n:02}"] != first]


@FORK
def test_a_fork_waits_for_the_transactions_of_other_threads(path: Path) -> None:
    process = python(
        path,
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of any fork beside threads
        store, stop = SQLiteStore(path), threading.Event()
        def submit(thread):
            n = 0
            while not stop.is_set():
                put(store, f"t{thread}-{n}")
                n += 1
            counts[thread] = n
        counts = {}
        threads = [threading.Thread(target=submit, args=(n,)) for n in range(3)]
        for thread in threads: thread.start()
        for n in range(5):
            child = os.fork()
            if child == 0:
                put(store, f"child-{n}")
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        for thread in threads: thread.join()
        found = ids(take(store, 1_000_000))
        assert sorted(found) == sorted(
            [f"t{t}-{n}" for t in counts for n in range(counts[t])] + [f"child-{n}" for n in range(5)]
        )
        store.close()
        print("0")
        """,
    )
    assert answer(process) == 0


@FORK
def test_a_child_that_inherits_a_connection_of_its_parent_s_own_is_refused_until_it_is_closed(
    path: Path,
) -> None:
    """SQLite's locks do not hold in such a child: what it commits goes when its parent closes."""
    process = python(
        path,
        """
        import sqlite3
        from outbox.errors import StoreUnavailable
        store = SQLiteStore(path, prefix="mail_")
        shop = sqlite3.connect(path)
        shop.execute("CREATE TABLE orders (number)")
        child = os.fork()
        if child == 0:
            try:
                put(store, "child")
            except StoreUnavailable as error:
                assert "connection of its own" in str(error)
                shop.close()
                put(store, "later")
                os._exit(0)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        put(store, "parent")
        print(json.dumps(sorted(ids(take(store)))))
        shop.close()
        store.close()
        """,
    )
    assert answer(process) == ["later", "parent"]


@FORK
def test_a_fork_that_could_not_wait_gives_the_child_no_store(path: Path) -> None:
    process = python(
        path,
        """
        from outbox.errors import StoreUnavailable
        from outbox.stores.sqlite import links
        links._FORK_PATIENCE = 0.05
        store = SQLiteStore(path)
        def fork(sql):
            child = os.fork()
            if child == 0:
                try:
                    put(store, "child")
                except StoreUnavailable as error:
                    os._exit(0 if "forked" in str(error) else 1)
                os._exit(2)
            return child
        child = store._database.read(fork)
        assert os.waitpid(child, 0)[1] == 0
        put(store, "parent")
        store.close()
        print("0")
        """,
    )
    assert answer(process) == 0
