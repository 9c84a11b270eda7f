"""status, list, show, requeue, cancel, purge and check: what a person sees and steers."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import pytest
from command_line import MAIL, CommandLine
from plug_ins import install
from started import PATIENCE

from outbox import Message, Outbox, PermFailed, Result, RetryPolicy, TempFailed, Uncertain
from outbox.protocols import Glance
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.recording import RecordingTransport

ANSWERS: Mapping[str, Result] = {
    "gone@example.org": PermFailed("550 5.1.1 no such user"),
    "grey@example.org": TempFailed("450 4.7.1 come back"),
    "mute@example.org": Uncertain("no answer to the final dot"),
}
MOMENT = dt.timedelta(microseconds=1)


class Backwards:
    """A coding that the command is not told of."""

    name = "backwards"

    def encode(self, content: bytes, /, *, id: str) -> bytes:
        return content[::-1]

    def decode(self, data: bytes, /, *, id: str) -> bytes:
        return self.encode(data, id=id)


@pytest.fixture
def store(outbox: CommandLine) -> Iterator[SQLiteStore]:
    store = SQLiteStore(outbox.path)
    yield store
    store.close()


def message(
    name: str, *recipients: str, queue: str = "mail", attributes: dict[str, str] | None = None
) -> Message:
    return Message(
        id=name,
        recipients=recipients or ("ann@example.org",),
        sender="shop@example.org",
        content=MAIL.replace(b"\n", b"\r\n"),
        queue=queue,
        attributes=attributes or {},
    )


def drain(store: SQLiteStore, **policy: int) -> None:
    Outbox(store, RecordingTransport(ANSWERS), retry=RetryPolicy(**policy)).drain()  # type: ignore[arg-type]  # the two whole numbers of a policy


def three_fates(store: SQLiteStore, name: str = "order-1042") -> None:
    store.put([message(name, "ann@example.org", "grey@example.org", "gone@example.org")])
    drain(store, attempts=1)


# -- status


def test_status_counts_what_is_there(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put(
        [message("a"), message("b"), message("bulk", queue="mail.bulk"), message("dead", "gone@example.org")]
    )
    Outbox(store, RecordingTransport(ANSWERS), queues=["mail"]).drain()
    store.put([message("c"), message("d")])
    data = outbox("status", "--json").data
    rows = {(count["queue"], count["state"]): (count["number"], count["due"]) for count in data["counts"]}
    assert rows == {("mail", "dead"): (1, 0), ("mail", "queued"): (2, 2), ("mail.bulk", "queued"): (1, 1)}
    assert data["unserved"] == {"mail.bulk": 1}


def test_status_is_loud_about_a_queue_that_nobody_serves(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put([message("a"), message("bulk", queue="mail.bulk")])
    ran = outbox("status")
    assert ran.status == 0
    assert "NOBODY SERVES mail.bulk here (1 waiting; served: mail)" in ran.out
    assert "NOBODY" not in outbox("status", "--queue", "mail", "--queue", "mail.bulk").out


def test_a_number_of_what_nobody_serves_says_that_it_was_not_counted_to_its_end(
    outbox: CommandLine, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put([message(f"m{n:03}", queue="mail.bulk") for n in range(60)])
    seen = Glance(counts=[attrs.evolve(count, number=25, more=True) for count in store.count()])
    monkeypatch.setattr(SQLiteStore, "glance", lambda _self: seen)
    assert "NOBODY SERVES mail.bulk here (25+ waiting; served: mail)" in outbox("status").out
    assert "NOBODY SERVES mail.bulk here: 25+ waiting" in outbox("top", "--once").out
    assert "25+ messages wait in queue mail.bulk" in outbox("check").out
    data = outbox("status", "--json").data
    assert (data["unserved"], data["unserved_more"]) == ({"mail.bulk": 25}, ["mail.bulk"])
    exact = outbox("status", "--json", "--exact").data
    assert (exact["unserved"], exact["unserved_more"]) == ({"mail.bulk": 60}, [])


def test_status_points_to_what_is_dead_or_held(outbox: CommandLine, store: SQLiteStore) -> None:
    three_fates(store)
    assert "outbox list --state dead " in outbox("status").out


def test_status_of_an_empty_store_says_so(outbox: CommandLine, store: SQLiteStore) -> None:
    assert outbox("status").out == "No messages.\n"


# -- list


def test_list_into_a_pipe_is_one_whole_line_a_message(outbox: CommandLine, store: SQLiteStore) -> None:
    long = "x" * 60 + "@" + "y" * 60 + ".example.org"
    store.put([message("a", long), message("b", "gone@example.org", "ann@example.org")])
    drain(store)
    store.put([message("c", long)])
    head, *lines = outbox("list").out.splitlines()
    assert head.split() == ["ID", "STATE", "AGE", "TRIES", "TO", "QUEUE", "WHY"]
    assert len(lines) == 2
    assert " ".join(lines[0].split()).endswith(
        "gone@example.org (+1) mail gone@example.org: 550 5.1.1 no such user"
    )
    assert long in lines[1]


def test_list_on_a_terminal_fits_it_and_has_the_reason_below(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put(
        [
            message("a", "gone@example.org", "x" * 60 + "@example.org"),
            message("b" * 64, "y" * 60 + "@example.org"),
        ]
    )
    drain(store)
    store.put([message("b" * 64, "y" * 60 + "@example.org")])
    lines = outbox("list", terminal=True).out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.lstrip().startswith("gone@example.org: 550 5.1.1 no such user") for line in lines)


def test_list_shows_what_is_asked_for(outbox: CommandLine, store: SQLiteStore) -> None:
    three_fates(store, "dead")
    store.put([message("waits"), message("bulk", queue="mail.bulk")])

    def ids(*argv: str) -> list[str]:
        return [row["id"] for row in outbox("list", "--json", *argv).rows]

    assert ids() == ["bulk", "dead", "waits"]
    assert ids("--state", "dead") == ["dead"]
    assert ids("--state", "dead,QUEUED", "--queue", "mail") == ["dead", "waits"]
    assert ids("--after", "bulk") == ["dead", "waits"]
    assert ids("--state", "held") == []


def test_list_says_how_to_see_the_next_page(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put([message("a"), message("b"), message("c")])
    ran = outbox("list", "--limit", "2")
    assert len(ran.out.splitlines()) == 3
    assert ran.err == "  -> outbox list --limit 2 --after b   there are more\n"
    assert outbox("list", "--limit", "3").err == ""


def test_the_next_page_is_one_of_the_same_list(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put([message(f"m{n}", attributes={"note": "it's\n-x"}, queue="-q") for n in range(4)])
    store.put([message("m9")])
    said = (
        *("--state", "queued,held", "--queue=-q", "--older-than", "0s", "--recipient", "ann@example.org"),
        *("--domain", "example.org", "--sender", "shop@example.org", "--attribute", "note=it's\n-x"),
    )
    seen: list[str] = []
    command, argv = "", ["list", *said, "--limit", "2"]
    for _ in range(2):
        ran = outbox(*argv)
        seen += [line.split()[0] for line in ran.out.splitlines()[1:]]
        command = ran.err.partition("-> outbox ")[2].partition("   there")[0]
        if command:
            read = subprocess.run(["bash", "-c", f"printf '%s|' {command}"], capture_output=True, check=True)
            argv = [word.decode() for word in read.stdout.split(b"|")[:-1]]
    assert seen == ["m0", "m1", "m2", "m3"]
    assert not command


# -- show


def test_show_tells_each_recipients_fate_and_what_was_said(outbox: CommandLine, store: SQLiteStore) -> None:
    three_fates(store)
    ran = outbox("show", "order-1042")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert "ann@example.org accepted 250 recorded" in lines
    assert "grey@example.org failed 450 4.7.1 come back" in lines
    assert "gone@example.org failed 550 5.1.1 no such user" in lines
    assert "grey@example.org deferred 450 4.7.1 come back" in lines
    assert any(line.startswith("state dead: gave up after attempt 1") for line in lines)
    assert "Thank you" not in ran.out


def test_show_names_the_attempts_that_never_reported_back(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put([message("order-1042", "grey@example.org")])
    for _ in range(2):
        store.claim(limit=1, lease=MOMENT, queues=["mail"])
    drain(store)
    store.requeue(["order-1042"], uncertain=True)
    store.claim(limit=1, lease=MOMENT, queues=["mail"])
    drain(store)
    store.requeue(["order-1042"], uncertain=True)
    store.claim(limit=1, lease=dt.timedelta(hours=1), queues=["mail"])
    lines = outbox("show", "order-1042").out.splitlines()
    told = [line.partition(":")[0].partition(",")[0] + ("!" if "never" in line else "") for line in lines]
    history = told[told.index("try 1!") :]
    assert [line for line in history if not line.startswith(" ")] == [
        "try 1!",
        "try 2!",
        "try 3",
        "requeued",
        "try 1!",
        "try 2",
        "requeued",
        "try 1",
    ]
    assert lines[-1] == "try 1: under way"


@pytest.mark.shows("a body", "a control", because="--content asks for it, byte for byte")
def test_show_content_is_the_message_byte_for_byte(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put([message("order-1042")])
    process = outbox.start("show", "--content", "order-1042")
    out, err = process.communicate(timeout=PATIENCE)
    assert (out, err) == (MAIL.replace(b"\n", b"\r\n"), b"")


def test_show_without_the_key_shows_all_but_what_is_sealed(outbox: CommandLine) -> None:
    with contextlib.closing(SQLiteStore(outbox.path, coding=[Backwards()])) as sealed:
        three_fates(sealed)
    for name in ("order-1042", "order-10"):
        ran = outbox("show", name)
        assert ran.status == 78
        assert "kept in the coding 'backwards'" in ran.complaint
        assert re.search("^gone@example.org +failed", ran.out, re.MULTILINE)
        assert "outbox requeue order-1042" in ran.out
    assert outbox("show", "--content", "order-1042").out == ""
    assert outbox("show", "--json", "order-1042").out == ""


def test_show_of_a_damaged_message_shows_what_can_be_read(outbox: CommandLine, store: SQLiteStore) -> None:
    three_fates(store)
    with contextlib.closing(sqlite3.connect(outbox.path, isolation_level=None)) as sql:
        sql.execute("UPDATE outbox_attempt SET results = '{'")
    ran = outbox("show", "order-1042")
    assert ran.status == 74
    assert ran.complaint
    assert re.search("^ann@example.org +accepted", ran.out, re.MULTILINE)


def test_show_escapes_what_strangers_wrote(outbox: CommandLine, store: SQLiteStore) -> None:
    hostile = "\u202egro.live@nna"
    store.put([message("order-1042", hostile, attributes={"note": "\x1b[31mred\nid  forged"})])
    for command in (["show", "order-1042"], ["list"]):
        out = outbox(*command).out
        assert "\u202e" not in out
        assert "\x1b" not in out
        assert "\nid  forged" not in out


def test_what_is_not_there_is_said(outbox: CommandLine, store: SQLiteStore) -> None:
    ran = outbox("show", "nothing")
    assert (ran.status, ran.out) == (1, "")
    assert "there is no message nothing" in ran.complaint


def test_an_id_may_be_cut_short_where_it_is_the_only_one(outbox: CommandLine, store: SQLiteStore) -> None:
    names = ["customer-a-1", "customer-a-2", "customer-b", "customer"]
    store.put([message(name) for name in names])
    assert outbox("show", "--json", "customer-b").data["id"] == "customer-b"
    assert outbox("show", "--json", "customer").data["id"] == "customer", (
        "a whole id is never taken for a part"
    )
    assert outbox("show", "--json", "customer-a-1").data["id"] == "customer-a-1"
    ran = outbox("show", "customer-a")
    assert ran.status == 64
    assert "customer-a-1, customer-a-2" in ran.complaint
    store.put([message("invoices-of-today")])
    assert outbox("show", "--json", "invoices").data["id"] == "invoices-of-today"
    assert outbox("show", "invoice").status == 1, "fewer than eight characters are a whole id"


# -- requeue, cancel, purge


@pytest.mark.parametrize("command", ["cancel", "purge", "requeue"])
def test_a_message_is_not_changed_in_place_of_another_whose_id_begins_its_own(
    outbox: CommandLine, store: SQLiteStore, command: str
) -> None:
    store.put([message("order-4711")])
    ran = outbox(command, "order-471")
    assert (ran.status, ran.out) == (1, "")
    assert "order-471 not" in ran.complaint
    assert outbox("show", "--json", "order-4711").data["state"] == "queued"


def test_a_drawn_id_may_be_cut_short_in_a_change_too(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put([message("0199e3f1-2c44-7d09-8f42-000000000001")])
    assert outbox("cancel", "0199e3f1").out == "0199e3f1-2c44-7d09-8f42-000000000001 cancelled\n"


def test_requeue_tries_only_those_who_failed(outbox: CommandLine, store: SQLiteStore) -> None:
    three_fates(store)
    ran = outbox("requeue", "order-1042")
    assert (ran.status, ran.out) == (0, "order-1042 requeued\n")
    fates = outbox("show", "--json", "order-1042").data["fates"]
    assert fates == {
        "ann@example.org": "accepted",
        "grey@example.org": "waiting",
        "gone@example.org": "waiting",
    }


def test_requeue_leaves_the_uncertain_alone_unless_told(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put([message("order-1042", "mute@example.org")])
    drain(store, attempts=1)
    assert outbox("show", "--json", "order-1042").data["state"] == "held"
    ran = outbox("requeue", "order-1042")
    assert (ran.status, "uncertain" in ran.complaint) == (1, True)
    assert outbox("requeue", "--uncertain", "order-1042").status == 0
    assert outbox("show", "--json", "order-1042").data["state"] == "queued"


def test_show_says_uncertain_where_a_second_copy_is_possible_and_nowhere_else(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    store.put([message("first"), message("second")])
    store.claim(limit=1, lease=dt.timedelta(0), queues=["mail"])
    store.cancel(["first", "second"])
    assert "outbox requeue --uncertain first" in outbox("show", "first").out
    assert "outbox requeue second" in outbox("show", "second").out


def test_each_id_is_answered_and_one_refusal_is_status_1(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put([message("first"), message("leased"), message("waits")])
    store.claim(limit=1, lease=dt.timedelta(hours=1), queues=["mail"])
    ran = outbox("cancel", "first", "leased", "nothing", "leased")
    assert ran.status == 1
    assert ran.out == "leased cancelled\n"
    assert [line.split(" not ")[0] for line in ran.err.splitlines()] == ["outbox: first", "outbox: nothing"]
    assert "lease ends in 59 min" in ran.err or "lease ends in 1 h" in ran.err
    assert [row["status"] for row in outbox("cancel", "--json", "waits", "nothing").rows] == [
        "done",
        "unknown",
    ]


def test_purge_takes_only_what_is_settled(outbox: CommandLine, store: SQLiteStore) -> None:
    three_fates(store)
    store.put([message("waits")])
    ran = outbox("purge", "order-1042", "waits")
    assert (ran.status, ran.out) == (1, "order-1042 purged\n")
    assert "cancel it first" in ran.complaint
    assert [row["id"] for row in outbox("list", "--json").rows] == ["waits"]


# -- check


def test_check_of_a_house_in_order_finds_no_error(outbox: CommandLine, store: SQLiteStore) -> None:
    outbox.environ(OUTBOX_TRANSPORT="smtp://localhost")
    ran = outbox("check")
    data = outbox("check", "--json").data
    assert {finding["level"] for finding in data["findings"]} <= {"ok", "warning"}
    assert ran.status == {"ok": 0, "warning": 1}[data["level"]]


def test_check_names_every_error_and_ends_with_2(outbox: CommandLine) -> None:
    outbox.environ(
        OUTBOX_TRANSPORT="smtp://app:c4narypassword@localhost?security=none",
        OUTBOX_STORE="sqlite:////no/such.db",
    )
    ran = outbox("check")
    errors = [line for line in ran.out.splitlines() if line.startswith("error")]
    assert (ran.status, len(errors)) == (2, 2)
    assert "c4narypassword" not in ran.out + ran.err


def test_check_finds_the_other_distribution_of_our_name(
    outbox: CommandLine, store: SQLiteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "packages" / "outbox-9.9.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: outbox\nVersion: 9.9\n", "utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "packages")])
    importlib.invalidate_caches()
    ran = outbox("check")
    assert (ran.status, "outbox 9.9" in ran.out) == (2, True)


def level_of(outbox: CommandLine, text: str) -> list[str]:
    ran = outbox("check", "--json")
    levels = [finding["level"] for finding in ran.data["findings"] if text in finding["text"]]
    assert ran.status == 2 or "error" not in levels
    return levels


def test_check_finds_a_setting_that_every_other_command_would_stop_at(
    outbox: CommandLine, store: SQLiteStore, tmp_path: Path
) -> None:
    config = tmp_path / "outbox.toml"
    outbox.environ(OUTBOX_CONFIG=str(config), OUTBOX_TRANSPORT="smtp://localhost")
    for text, says in (
        ("lease = 0", "lease"),
        ('queues = ["Mail"]', "queue 'Mail'"),
        ('domain = "bad domain"', "bad domain"),
        ('[retry.queues]\nMial = "1m"', "queue 'Mial'"),
    ):
        config.write_text(text, "utf-8")
        assert level_of(outbox, says) == ["error"]


def test_check_tells_of_names_that_fit_nothing(
    outbox: CommandLine, store: SQLiteStore, tmp_path: Path
) -> None:
    (tmp_path / "outbox.toml").write_text('[retry.queues]\nmial = "1m"\n', "utf-8")
    outbox.environ(OUTBOX_CONFIG=str(tmp_path / "outbox.toml"))
    assert level_of(outbox, "retry.queues names 'mial'") == ["warning"]
    store.put([message("a", queue="bulk"), message("b", queue="bulk")])
    assert level_of(outbox, "2 messages wait in queue bulk") == ["warning"]


def test_check_finds_a_limit_of_a_relay_that_is_none(
    outbox: CommandLine, store: SQLiteStore, tmp_path: Path
) -> None:
    (tmp_path / "outbox.toml").write_text("[limits.relays]\n'mx.example' = { connections = 2 }\n", "utf-8")
    outbox.environ(OUTBOX_CONFIG=str(tmp_path / "outbox.toml"), OUTBOX_TRANSPORT="smtp://mx.example")
    assert level_of(outbox, "limits names 'mx.example', and SMTPTransport leads to one relay") == ["error"]


def test_check_warns_of_a_limit_that_no_route_has(
    outbox: CommandLine, store: SQLiteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = """
from outbox import RouteTransport
from outbox.testing import RecordingTransport

def make(place, **terms):
    return RouteTransport(domains={"mx.example": RecordingTransport()})
"""
    (tmp_path / "routed_relays.py").write_text(module, "utf-8")
    install(tmp_path, "routed-relays", "routed = routed_relays:make", kind="transports")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "outbox.toml").write_text(
        "[limits.relays]\n'MX.example' = { connections = 2 }\n'my.example' = { connections = 2 }\n", "utf-8"
    )
    outbox.environ(OUTBOX_CONFIG=str(tmp_path / "outbox.toml"), OUTBOX_TRANSPORT="routed://here")
    assert level_of(outbox, "limits.relays names") == ["warning"]
    assert level_of(outbox, "'my.example'") == ["warning"]


@pytest.mark.parametrize("command", ["status", "list", "show x", "requeue x", "cancel x", "purge x", "check"])
def test_looking_makes_no_database(outbox: CommandLine, command: str) -> None:
    ran = outbox(*command.split())
    assert ran.status in (2 if command == "check" else 1, 78)
    assert "there is no database" in ran.out + ran.err
    assert not outbox.path.exists()


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("list --state died", 64),
        ("list --limit 0", 64),
        ("list --limit 99999999999999999999", 64),
        ("list --after \udcff", 64),
        ("list --queue Mail", 64),
        ("status --queue Mail", 64),
        ("show", 64),
        ("show \udcff", 64),
        ("requeue", 64),
        ("cancel \udcff", 64),
    ],
)
def test_a_wrong_way_to_ask_is_one_line(
    outbox: CommandLine, store: SQLiteStore, command: str, status: int
) -> None:
    ran = outbox(*command.split())
    assert ran.status == status
    assert ran.complaint
