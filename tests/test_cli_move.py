"""outbox move: what it says, what it refuses, and how it ends."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from outbox import Message
from outbox.cli.exits import Exit
from outbox.moving import Batch
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clauses.scene import LEASE, all_of, delivered, put, settle, states, take

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
    assert ran.data == {"moved": 1, "known": 1, "refused": [], "unreadable": [], "ended": False}


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
