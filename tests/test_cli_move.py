"""outbox move: what it says, what it refuses, and how it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from outbox import Message
from outbox.cli.exits import Exit
from outbox.lifecycle import State
from outbox.moving import Batch
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clauses.scene import LEASE, all_of, delivered, ids as ids_of, put, settle, states, take

STORED = Path(__file__).parent / "stored"


@pytest.fixture
def new(outbox: CommandLine) -> str:
    """The URL of a store that is not there yet."""
    return f"sqlite:///{outbox.home}/new.db"


def ids(path: Path) -> list[str]:
    store: Any = SQLiteStore(path)
    try:
        return sorted(states(store))
    finally:
        store.close()


def test_it_says_what_was_moved_and_where_to(outbox: CommandLine, new: str) -> None:
    moved = [outbox.submit("ann@example.org") for _ in range(3)]

    ran = outbox("move", "--to", new)
    assert ran.status == 0, ran.err
    assert ran.out == f"moved 3 messages from {outbox.store} to {new}\n"
    assert ids(outbox.home / "new.db") == sorted(moved)
    assert ids(outbox.path) == []


def test_a_source_that_cannot_be_moved_from_is_refused_before_the_other_is_made(
    outbox: CommandLine, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(outbox.home)
    (outbox.home / "staying.py").write_text(
        "from outbox.stores.memory import MemoryStore\n\nclass Staying(MemoryStore):\n    take = None\n",
        "utf-8",
    )

    ran = outbox("move", "--from", "python:staying:Staying", "--to", new)
    assert (ran.status, ran.out) == (Exit.UNSUPPORTED, "")
    assert "cannot be moved from this store" in ran.complaint
    assert not list(outbox.home.glob("new.db*"))


def test_the_end_that_is_left_out_is_the_configured_store(outbox: CommandLine, new: str) -> None:
    put(SQLiteStore(outbox.home / "new.db"), "a", "b")

    assert outbox("move", "--from", new).status == 0
    assert ids(outbox.path) == ["a", "b"]


def test_for_a_program_it_answers_in_json(outbox: CommandLine, new: str) -> None:
    store: Any = SQLiteStore(outbox.path)
    put(store, "a", "b")
    (claim,) = store.claim(limit=1, lease=LEASE, queues=["mail"])
    settle(store, claim, delivered(claim))

    ran = outbox("move", "--to", new, "--json")
    assert ran.data == {
        "moved": 1,
        "known": 1,
        "refused": [],
        "unreadable": [],
        "unfit": {},
        "unsuspended": [],
        "ended": False,
    }


def test_a_dry_run_tells_what_would_be_moved_and_makes_nothing(outbox: CommandLine, new: str) -> None:
    outbox.submit("ann@example.org")

    ran = outbox("move", "--to", new, "--dry-run")
    assert (ran.status, ran.out.splitlines()) == (
        0,
        ["        1 queued in mail", "1 would be moved; nothing was changed"],
    )
    assert "there is no database" in ran.err
    assert not (outbox.home / "new.db").exists()
    assert outbox("move", "--to", new, "--dry-run", "--json").data["counts"] == [
        {"queue": "mail", "state": "queued", "number": 1}
    ]


def test_a_dry_run_says_that_the_other_store_has_messages_of_its_own(outbox: CommandLine, new: str) -> None:
    outbox.submit("ann@example.org")
    put(SQLiteStore(outbox.home / "new.db"), "b")

    ran = outbox("move", "--to", new, "-n")
    assert "--join" in ran.complaint


def test_a_store_with_messages_of_its_own_is_joined_only_where_that_was_said(
    outbox: CommandLine, new: str
) -> None:
    id = outbox.submit("ann@example.org")
    put(SQLiteStore(outbox.home / "new.db"), "b")

    ran = outbox("move", "--to", new)
    assert ran.status == Exit.CONFIGURATION
    assert "--join" in ran.complaint
    assert outbox("move", "--to", new, "--join").status == 0
    assert ids(outbox.home / "new.db") == sorted([id, "b"])


def test_what_stays_is_named_and_the_status_says_so(outbox: CommandLine, new: str) -> None:
    for path in (outbox.path, outbox.home / "new.db"):
        put(SQLiteStore(path), "a")
    put(SQLiteStore(outbox.path), "b")

    ran = outbox("move", "--to", new, "--join")
    assert (ran.status, ran.out.startswith("moved 1 messages")) == (Exit.NOT_ALL, True)
    assert ran.complaint == "1 stay, for the other store has messages of these ids: a"


def test_what_workers_have_is_waited_for_only_so_long(outbox: CommandLine, new: str) -> None:
    store: Any = SQLiteStore(outbox.path)
    put(store, "a", "b")
    store.claim(limit=1, lease=LEASE, queues=["mail"])

    ran = outbox("move", "--to", new, "--timeout", "0s")
    assert ran.status == Exit.TEMPORARY
    assert ran.out.startswith("moved 1 messages")
    assert "1 stay, for workers have them" in ran.err


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        ([], Exit.USAGE, "say --from URL, or --to URL"),
        (["--to", "{store}"], Exit.CONFIGURATION, "the same store"),
        (["--to", "memory:"], Exit.CONFIGURATION, "is forgotten when this command ends"),
        (["--to", "carrier-pigeon:"], Exit.CONFIGURATION, "carrier-pigeon"),
        (["--from", "{new}", "--to", "{store}"], Exit.CONFIGURATION, "there is no database"),
        (["--to", "{new}", "--batch", "0"], Exit.USAGE, "not a whole number from 1"),
    ],
)
def test_what_cannot_be_moved_is_refused_with_the_reason(
    outbox: CommandLine, new: str, argv: Sequence[str], status: Exit, words: str
) -> None:
    id = outbox.submit("ann@example.org")

    ran = outbox("move", *(each.format(store=outbox.store, new=new) for each in argv))
    assert (ran.status, words in ran.complaint.replace("\n", " ")) == (status, True), ran.err
    assert ids(outbox.path) == [id]


def test_a_copy_of_a_store_is_taken_for_the_same(outbox: CommandLine, new: str) -> None:
    outbox.submit("ann@example.org")
    with sqlite3.connect(outbox.path) as sql:
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    sql.close()
    shutil.copy(outbox.path, outbox.home / "new.db")

    ran = outbox("move", "--to", new)
    assert ran.status == Exit.CONFIGURATION
    assert "a copy of the other" in ran.complaint


def test_a_store_of_an_earlier_release_is_migrated_first(outbox: CommandLine, new: str) -> None:
    shutil.copy(STORED / "version-2.db", outbox.path)

    ran = outbox("move", "--to", new)
    assert ran.status == Exit.CONFIGURATION
    assert "version 2" in ran.complaint


def test_a_signal_ends_it_between_two_batches_and_the_same_command_does_the_rest(
    outbox: CommandLine, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(SQLiteStore(outbox.path), *(f"m{number}" for number in range(9)))
    give = SQLiteStore.give

    def interrupted(self: SQLiteStore, batch: Batch) -> Sequence[str]:
        answer = give(self, batch)
        os.kill(os.getpid(), signal.SIGTERM)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(SQLiteStore, "give", interrupted)
        ran = outbox("move", "--to", new, "--batch", "4")
    assert ran.status == 128 + signal.SIGTERM
    assert ran.out.startswith("moved 4 messages")
    assert len(ids(outbox.home / "new.db")) == 4
    assert len(all_of(SQLiteStore(outbox.path))) == 5

    # Whose leases are out now: they come when these end.
    ran = outbox("move", "--to", new, "--timeout", "0s")
    assert ran.out.startswith("moved 0 messages")


WAITING = """
import sys, threading
from outbox.cli import main
from outbox.stores.sqlite import SQLiteStore

def give(store, batch):
    print("gives", file=sys.stderr, flush=True)
    threading.Event().wait()

SQLiteStore.give = give
sys.exit(main(sys.argv[1:]))
"""


def test_a_second_signal_leaves_at_once_and_says_that_the_same_command_finishes_what_is_under_way(
    outbox: CommandLine, new: str
) -> None:
    """Its lease never ends: nobody else takes it up."""
    put(SQLiteStore(outbox.path), "a")
    command = [sys.executable, "-c", WAITING, "move", "--from", f"sqlite:///{outbox.path}", "--to", new]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for word in (b"gives", b"ends after this batch"):
            while word not in (line := process.stderr.readline()):
                assert line, "it ended"
            process.send_signal(signal.SIGINT)
        while process.poll() is None:  # what comes at once counts as an echo of the first
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        said = process.stderr.read().decode()
    assert process.returncode == 128 + signal.SIGINT
    assert said == "outbox: left at once; the same command finishes the batch under way\n"

    ran = outbox("move", "--to", new)
    assert ran.status == 0
    assert ids(outbox.home / "new.db") == ["a"]


def test_an_earlier_move_to_another_store_is_to_be_finished_first(outbox: CommandLine, new: str) -> None:
    store: Any = SQLiteStore(outbox.path)
    put(store, "a")
    store.take(to="another", limit=1)

    ran = outbox("move", "--to", new)
    assert ran.status == Exit.CONFIGURATION
    assert "on their way to another store (of identity another)" in ran.err
    assert "--abandon" in ran.err

    ran = outbox("move", "--abandon")
    assert (ran.status, ran.out) == (0, "1 stand as they stood before they were taken\n")
    assert outbox("move", "--to", new).out.startswith("moved 1 messages")
    assert outbox("move", "--abandon").out == "nothing was on its way\n"


def test_no_password_of_either_store_is_shown(outbox: CommandLine, new: str) -> None:
    ran = outbox("move", "--to", "carrier://ann:c4nary@example.org/x")
    assert ran.status == Exit.CONFIGURATION
    assert "c4nary" not in ran.out + ran.err
    assert "lists processes" in ran.err


def test_a_message_goes_out_of_the_new_store_as_it_would_have_from_the_old(
    outbox: CommandLine, new: str
) -> None:
    store: Any = SQLiteStore(outbox.path)
    message = Message(
        id="x", recipients=("ann@example.org",), content=b"Subject: x\r\n\r\nhi\r\n", priority=9
    )
    store.put([message])

    assert outbox("move", "--to", new).status == 0
    (claim,) = take(SQLiteStore(outbox.home / "new.db"))
    assert (claim.message, claim.attempt) == (message, 1)


def test_what_the_other_store_cannot_hold_stays_and_is_named(
    outbox: CommandLine, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(SQLiteStore(outbox.path), "a", Message(id="b", recipients=("x@example.org",), content=b"x" * 200))
    monkeypatch.setattr("outbox.stores.sqlite.putting._MOST_CONTENT", 100)

    ran = outbox("move", "--to", new)
    assert (ran.status, ran.out.startswith("moved 1 messages")) == (Exit.NOT_ALL, True)
    said = ran.err.splitlines()[-1]
    assert said.startswith(
        "outbox: 1 stay, for the other store cannot hold them (the content of b has 200 bytes"
    )
    assert said.endswith(": b")


def test_what_was_suspended_since_the_first_run_is_named(outbox: CommandLine, new: str) -> None:
    put(SQLiteStore(outbox.path), "a")
    assert outbox("move", "--to", new).status == 0
    assert outbox("suspend", "--domain", "example.org").status == 0

    ran = outbox("move", "--to", new)
    assert ran.status == 0
    assert "domain example.org is suspended in the store that they left, and not in the other" in ran.err


@pytest.fixture(params=["sqlite", "spool"])
def under_way(request: pytest.FixtureRequest, outbox: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store from which the message "a" was taken by a move that was killed."""
    if request.param == "spool":
        monkeypatch.setenv("OUTBOX_STORE", f"file://{outbox.home}/spool")
        store: Any = FilesystemStore(outbox.home / "spool")
    else:
        store = SQLiteStore(outbox.path)
    put(store, "a")
    store.take(to="another", limit=1)
    return store


def test_commands_say_of_what_is_under_way_that_it_is(under_way: Any, outbox: CommandLine) -> None:
    for command in (["list"], ["show", "a"], ["explain", "a"], ["requeue", "a"], ["requeue", "a", "-n"]):
        ran = outbox(*command)
        said = ran.out + ran.err
        assert "on its way to another store" in said, command
        assert "worker" not in said, command
        assert "9999" not in said, command


def test_check_says_what_is_under_way_and_what_to_do(under_way: Any, outbox: CommandLine) -> None:
    ran = outbox("check")
    assert "1 messages are on their way to another store" in ran.out + ran.err
    assert "outbox move" in ran.out + ran.err
    under_way.conclude(under_way.take(to="", limit=0).name, back=["a"])
    assert "on their way" not in outbox("check").out


def test_a_note_of_what_is_under_way_that_was_damaged_keeps_nobody_from_giving_the_move_up(
    under_way: Any, outbox: CommandLine
) -> None:
    if isinstance(under_way, SQLiteStore):
        with sqlite3.connect(outbox.path) as sql:
            sql.execute("UPDATE outbox_meta SET value = 'x' WHERE name = 'leaving'")
        sql.close()
    else:
        (outbox.home / "spool" / "moving" / "leaving").write_text("x")

    assert "--abandon" in outbox("check").out + outbox("check").err
    ran = outbox("move", "--abandon")
    assert ran.status == Exit.NOT_ALL
    assert "1 are held" in ran.err
    assert states(under_way) == {"a": State.HELD}
    assert outbox("requeue", "a").status == 0
    assert ids_of(take(under_way)) == ["a"]
    assert outbox("move", "--abandon").out == "nothing was on its way\n"
