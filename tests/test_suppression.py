"""Lists of who is not to be written to: a file, and a table of a database."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from outbox import (
    ConfigurationError,
    MemoryStore,
    Message,
    Outbox,
    Suppress,
    SuppressionFile,
    SuppressionTable,
)
from outbox.testing import RecordingTransport

RECIPIENTS = ["Ann@Example.com", "bob@example.com", "kim@gone.example", "eve@sub.gone.example"]
MAIL = Message(recipients=RECIPIENTS, content=b"")
LIST = """\
# asked to be left alone
ann@example.com\t2024-05-01 by telephone

@Gone.example  the company closed
"""


def listed(path: Path, text: str = LIST) -> SuppressionFile:
    path.write_text(text, "utf-8")
    return SuppressionFile(path)


def table(path: Path, *names: str) -> SuppressionTable:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute('CREATE TABLE IF NOT EXISTS "un subscribed" (email TEXT)')
        database.executemany('INSERT INTO "un subscribed" VALUES (?)', [(name,) for name in names])
    return SuppressionTable(path, "un subscribed", "email")


@pytest.fixture(params=["file", "table"])
def suppress(request: pytest.FixtureRequest, tmp_path: Path) -> Suppress:
    if request.param == "file":
        return listed(tmp_path / "list.txt")
    return table(tmp_path / "shop.db", "ANN@example.com", "@gone.example")


def test_addresses_and_whole_domains_are_found_in_any_case(suppress: Suppress) -> None:
    assert set(suppress(MAIL, RECIPIENTS)) == {"Ann@Example.com", "kim@gone.example"}


def test_who_is_listed_is_not_written_to_and_the_others_are(suppress: Suppress) -> None:
    transport = RecordingTransport()
    with Outbox(MemoryStore(), transport, suppress=suppress) as outbox:
        outbox.submit(MAIL)
        outbox.drain()
        record = outbox.store.get(MAIL.id)  # type: ignore[attr-defined]  # a MemoryStore
    assert transport.deliveries[0].recipients == ("bob@example.com", "eve@sub.gone.example")
    assert record.summary.fates["Ann@Example.com"] == "failed"


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    suppress = listed(tmp_path / "list.txt")
    (tmp_path / "new.txt").write_text("bob@example.com\n")
    (tmp_path / "new.txt").replace(tmp_path / "list.txt")
    assert suppress(MAIL, RECIPIENTS) == {"bob@example.com"}


def test_a_file_that_does_not_change_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suppress = listed(tmp_path / "list.txt")
    monkeypatch.setattr(Path, "open", None)
    assert suppress(MAIL, RECIPIENTS)


def test_a_row_that_is_added_counts_at_once(tmp_path: Path) -> None:
    suppress = table(tmp_path / "shop.db")
    assert not suppress(MAIL, RECIPIENTS)
    table(tmp_path / "shop.db", "bob@example.com")
    assert suppress(MAIL, RECIPIENTS) == {"bob@example.com"}


def test_a_list_that_is_gone_puts_its_recipients_off(suppress: Suppress, tmp_path: Path) -> None:
    transport = RecordingTransport()
    with Outbox(MemoryStore(), transport, suppress=suppress) as outbox:
        for path in tmp_path.iterdir():
            path.unlink()
        outbox.submit(MAIL)
        assert outbox.drain().retried == 1
    assert not transport.deliveries
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["ann\n", "# fine\n\nann@@example.com", "@\n", "*@example.com x"])
def test_a_line_that_is_neither_is_named(tmp_path: Path, text: str) -> None:
    number = len(text.rstrip().splitlines())
    with pytest.raises(ConfigurationError, match=rf"list\.txt:{number}: .*write ann@example\.org, or"):
        listed(tmp_path / "list.txt", text)


FOREIGN = (
    "ÜBER@exämple.com",
    "ann@EXÄMPLE.de",
    "@exämple.org",
    "bob@example.com",
    '"Kim"@example.com',
    "ZOË@example.com",
)
MAILS = {
    "as U-labels": (
        "über@exämple.com",
        "ann@exämple.de",
        "c@Exämple.org",
        "zoë@example.com",
        "zoe\u0308@example.com",
    ),
    "as A-labels": ("über@xn--exmple-cua.com", "ann@xn--exmple-cua.de", "c@XN--exmple-cua.org"),
    "in quotes": ('"bob"@example.com', '"B\\ob"@example.com', "kim@example.com"),
}
OTHERS = (
    "zoe@example.com",
    "über@example.com",
    '"bob@example.com"@example.net',
    "ann@exämple.com",
    "c@sub.exämple.org",
)


@pytest.mark.parametrize("entries", ["as they are written", "as they are sent"])
@pytest.mark.parametrize("kind", ["file", "table"])
@pytest.mark.parametrize("recipients", MAILS.values(), ids=MAILS.keys())
def test_who_is_listed_is_found_however_he_is_written(
    tmp_path: Path, kind: str, entries: str, recipients: Sequence[str]
) -> None:
    names = [
        each.replace("exämple", "xn--exmple-cua").replace("EXÄMPLE", "XN--exmple-cua")
        if entries == "as they are sent"
        else each
        for each in FOREIGN
    ]
    suppress = (
        listed(tmp_path / "list.txt", "\n".join(names)) if kind == "file" else table(tmp_path / "db", *names)
    )
    assert set(suppress(MAIL, [*recipients, *OTHERS])) == set(recipients)


@pytest.mark.parametrize("kind", ["file", "table"])
def test_an_address_without_a_name_before_its_at_sign_is_not_its_domain(tmp_path: Path, kind: str) -> None:
    names = '""@example.com'
    suppress = listed(tmp_path / "list.txt", names) if kind == "file" else table(tmp_path / "db", names)
    assert set(suppress(MAIL, ["bob@example.com", names])) == {names}


def test_a_domain_that_readers_take_to_two_is_found_as_either(tmp_path: Path) -> None:
    for number, name in enumerate(["@strasse.example", "@xn--strae-oqa.example"]):
        suppress = listed(tmp_path / f"{number}.txt", name)
        assert suppress(MAIL, ["ann@straße.example", "ann@strasen.example"]) == {"ann@straße.example"}


def test_a_row_that_is_no_text_hides_no_other(tmp_path: Path) -> None:
    suppress = table(tmp_path / "db", "ZOË@example.com")
    with contextlib.closing(sqlite3.connect(tmp_path / "db")) as database, database:
        database.execute(
            """INSERT INTO "un subscribed" VALUES (NULL), (7), (x'ff40'), (CAST(x'ff40' AS TEXT))"""
        )
    assert suppress(MAIL, ["zoë@example.com", "bob@example.com"]) == {"zoë@example.com"}


def test_what_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        SuppressionFile(tmp_path / "list.txt")
    with pytest.raises(ConfigurationError, match="unable to open database file"):
        SuppressionTable(tmp_path / "shop.db", "unsubscribed")
    table(tmp_path / "shop.db")
    with pytest.raises(ConfigurationError, match="no such table"):
        SuppressionTable(tmp_path / "shop.db", "unsubscribed")
    with pytest.raises(ConfigurationError, match="address"):
        SuppressionTable(tmp_path / "shop.db", "un subscribed")
    assert [path.name for path in tmp_path.iterdir()] == ["shop.db"]


FOLDED = ("straße", "stra\u1e9ee", "\ufb01nn", "\u017fam", "\u212aim")
"""Letters beyond ASCII of which case folding makes letters of ASCII."""


@pytest.mark.parametrize("kind", ["file", "table"])
@pytest.mark.parametrize("name", FOLDED)
def test_who_stands_there_letter_for_letter_is_found(tmp_path: Path, kind: str, name: str) -> None:
    entry = f"{name}@example.org"
    suppress = listed(tmp_path / "list.txt", entry) if kind == "file" else table(tmp_path / "db", entry)
    others = ["stra\u017fe@example.org", "kurt@example.org"]
    assert suppress(MAIL, [entry, *others]) == {entry}


@pytest.mark.parametrize("host", ["\ufb01nn.example", "\uff45xample.org"])
def test_a_domain_that_is_folded_to_ascii_is_found_letter_for_letter(tmp_path: Path, host: str) -> None:
    assert table(tmp_path / "db", f"@{host}")(MAIL, [f"ann@{host}"])


@pytest.mark.parametrize("kind", ["file", "table"])
def test_a_blank_within_quotes_is_the_name_s_and_what_follows_another_is_a_note(
    tmp_path: Path, kind: str
) -> None:
    names = ['"john doe"@example.org', '"#1"@example.org a note', "ann@example.org ", "zoë@example.org\t2024"]
    suppress = (
        listed(tmp_path / "list.txt", "\n".join(names)) if kind == "file" else table(tmp_path / "db", *names)
    )
    recipients = ['"John Doe"@example.org', "#1@example.org", "ann@example.org", "zoë@example.org"]
    assert set(suppress(MAIL, [*recipients, "ann@example.organic", "doe@example.org"])) == set(recipients)


def test_an_index_on_the_column_in_lower_case_is_used(tmp_path: Path) -> None:
    suppress = table(tmp_path / "db", "ann@example.org")
    with contextlib.closing(sqlite3.connect(tmp_path / "db")) as database, database:
        database.execute('CREATE INDEX quick ON "un subscribed" (lower(email))')
        plan = database.execute(f"EXPLAIN QUERY PLAN {suppress._asks(2)}", ["a", "a!", "b", "b!"]).fetchall()
    assert not [row for row in plan if "SCAN" in row[3]]
