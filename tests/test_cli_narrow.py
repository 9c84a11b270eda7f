"""Ids, addresses and values that are wider than a terminal: nothing is lost for them, and nobody else gives way."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence

import command_line
import pytest
from command_line import CommandLine

from outbox import Message, Outbox, PermFailed, RetryPolicy, Suspension
from outbox.cli.columns import width_of
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.recording import RecordingTransport

LONG_ID = "z" * 64
LONG = f"{'a' * 64}@{'.'.join(['b' * 57] * 4)}"


@pytest.fixture
def store(outbox: CommandLine) -> Iterator[SQLiteStore]:
    store = SQLiteStore(outbox.path)
    yield store
    store.close()


def message(id: str, *recipients: str, **attributes: str) -> Message:
    return Message(
        id=id, recipients=recipients or ("ann@example.org",), content=b"hi\r\n", attributes=attributes
    )


def shown(outbox: CommandLine, *argv: str) -> Sequence[str]:
    lines = outbox(*argv, terminal=True).out.splitlines()
    assert max(map(width_of, lines)) <= 80
    return lines


def test_one_long_id_stands_alone_and_hides_nobody_s_recipient(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    store.put([message("a"), message(LONG_ID)])
    lines = shown(outbox, "list")
    assert lines[0].split() == ["ID", "STATE", "AGE", "TRIES", "TO"]
    assert lines[1].split()[0] == "a"
    long = lines.index(LONG_ID)
    assert all(lines[n].endswith("  ann@example.org") for n in (1, long + 1))


def test_a_recipient_is_whole_in_show_however_long(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put([message("m", LONG, "bob@example.net")])
    said = {LONG: PermFailed("550 " + "no " * 30), "bob@example.net": PermFailed("551 moved")}
    Outbox(store, RecordingTransport(said), retry=RetryPolicy()).drain()
    lines = shown(outbox, "show", "m")
    fates = lines[next(n for n, line in enumerate(lines) if line.startswith("RECIPIENT")) :]
    tries = fates.index("")
    for part in (fates[:tries], fates[tries:]):
        assert LONG in "".join(line.strip() for line in part)
        assert any(line.split()[:1] == ["bob@example.net"] for line in part)


def test_the_name_of_a_fact_stands_beside_its_value_however_long(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    store.put([message("m", note="x" * 500)])
    lines = shown(outbox, "show", "m")
    (first,) = (n for n, line in enumerate(lines) if line.startswith("attribute"))
    assert lines[first] == f"attribute   note={'x' * 63}"
    assert lines[first + 1] == " " * 12 + "x" * 68


def test_what_is_said_behind_a_command_is_not_torn(outbox: CommandLine, store: SQLiteStore) -> None:
    id = "order-4711-of-the-shop-in-the-north"
    store.put([message(id)])
    store.hold([id])
    lines = shown(outbox, "show", id)
    command = lines.index(f"            outbox release {id}")
    assert lines[command + 1] == "            (then due at once)"


def test_a_list_says_once_that_one_of_several_is_suspended(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put([message("m", "ann@example.org", "bob@example.net")])
    until = dt.datetime(2999, 1, 1, tzinfo=dt.UTC)
    store.suspend(Suspension(kind="domain", value="example.net", until=until, reason="their move"))
    Outbox(store, RecordingTransport({}), retry=RetryPolicy()).drain()
    (line,) = outbox("list").out.splitlines()[1:]
    assert line.count("their move") == 1


def test_a_terminal_without_the_letters_shows_escapes_and_no_line_is_too_long(
    outbox: CommandLine, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its user has LC_ALL=C, and a terminal that breaks what is too long within a word."""
    real = command_line.Terminal
    monkeypatch.setattr(
        command_line, "Terminal", lambda raw, encoding: real(raw, encoding="ascii", errors="backslashreplace")
    )
    store.put([message(f"m{n}", f"{'é' * (20 + n)}@example.org", note="ü" * 30) for n in range(3)])
    store.suspend(Suspension(kind="domain", value="example.org", reason="ихний переезд до понедельника"))
    for argv in (
        ("list",),
        ("list", "--limit", "1"),
        ("show", "m1"),
        ("explain", "m1"),
        ("status",),
        ("check",),
        ("top", "--once"),
        ("cancel", "--dry-run", "--queue", "mail"),
    ):
        ran = outbox(*argv, terminal=True)
        lines = [line for line in re.split(r"[\r\n]+", ran.out + ran.err) if "-> outbox" not in line]
        assert [line for line in lines if len(line) > 80] == [], argv
    assert "\\xe9" * 21 in "".join(outbox("show", "m1", terminal=True).out.split())
