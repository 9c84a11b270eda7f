"""explain and status: what keeps a message, who is at work, and what helps, seen from another process."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from command_line import MAIL, CommandLine, Ran

from outbox import Message
from outbox.bulletin import Bulletin, RelayBulletin, written
from outbox.lifecycle import Dead, Delivered, Fate, Held, Released, Retry, Settlement
from outbox.protocols import Suspension
from outbox.stores.sqlite import SQLiteStore
from outbox.testing import ManualClock

MINUTE = dt.timedelta(minutes=1)
RELAY = "smtp.example.org:587"
WELL = RelayBulletin(name=RELAY, state="well")


@pytest.fixture
def store(outbox: CommandLine) -> Iterator[SQLiteStore]:
    outbox.environ(OUTBOX_TRANSPORT=f"smtp://{RELAY}")
    store = SQLiteStore(outbox.path)
    yield store
    store.close()


def put(store: SQLiteStore, *recipients: str, **said: Any) -> None:
    content = MAIL.replace(b"\n", b"\r\n")
    store.put(
        [Message(id="order-47", recipients=recipients or ("ann@example.net",), content=content, **said)]
    )


def put_before(outbox: CommandLine, age: dt.timedelta, recipient: str) -> None:
    """Put a message so long ago."""
    with closing(SQLiteStore(outbox.path, clock=ManualClock(dt.datetime.now(dt.UTC) - age))) as earlier:
        earlier.put([Message(recipients=(recipient,), content=b"x")])


def here(
    store: SQLiteStore, *relays: RelayBulletin, name: str = "r1", lasting: dt.timedelta = MINUTE
) -> None:
    said = Bulletin(
        host="app-1",
        pid=4711,
        queues=("mail",),
        workers=4,
        up=7200,
        window=300,
        done={"delivered": 600},
        relays=relays or (WELL,),
    )
    store.announce(name, written(said), for_=lasting)


def attempted(
    store: SQLiteStore, verdict: type[Retry | Dead | Held | Released | Delivered], **said: object
) -> None:
    (claim,) = store.claim(limit=1, lease=MINUTE, queues=["mail"])
    fates = {"fates": dict(claim.fates)} | said
    assert not store.settle([Settlement(claim, verdict(**fates))])  # type: ignore[arg-type]  # what a test says


def explained(outbox: CommandLine) -> list[str]:
    """The names of what keeps it, the first first."""
    ran = outbox("explain", "order-47", "--json")
    assert ran.status == 0, ran.err
    return [reason["rule"] for reason in ran.data["reasons"] if reason["blocks"]]


def said(outbox: CommandLine) -> Ran:
    ran = outbox("explain", "order-47")
    assert (ran.status, ran.err) == (0, "")
    return ran


def test_what_is_due_and_kept_by_nothing_is_said_to_be_next(outbox: CommandLine, store: SQLiteStore) -> None:
    put(store)
    here(store)

    assert explained(outbox) == []
    assert "nothing keeps it: it is due" in said(outbox).out


def test_a_queue_that_nobody_alive_serves_is_the_cause(outbox: CommandLine, store: SQLiteStore) -> None:
    put(store, queue="mail.bulk")
    assert explained(outbox) == ["no-runner"]

    here(store)
    assert explained(outbox) == ["unserved"]
    assert "outbox run --queue mail.bulk" in said(outbox).out


def test_a_runner_that_was_killed_is_named_with_when_it_was_last_heard_of(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store)
    here(store, lasting=dt.timedelta(microseconds=1))

    assert explained(outbox) == ["no-runner"]
    assert "pid 4711 on app-1 fell silent" in said(outbox).out
    assert "SILENT" in outbox("status").out


def test_a_relay_that_is_paused_is_the_cause_and_says_why_and_when_next(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store)
    here(store, RelayBulletin(name=RELAY, state="paused", opens_in=50.0, fault=f"{RELAY}: cannot connect"))

    assert explained(outbox) == ["relay-paused"]
    line = said(outbox).out
    assert f"its relay {RELAY} is paused, and tried again in" in line
    assert line.count(RELAY) == 1
    assert f"{RELAY} is paused, and tried again in" in outbox("status").out


def test_what_several_runners_find_of_one_relay_is_said_once_with_how_many_say_it(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store)
    for number, left in enumerate((40, 20, 30)):
        paused = RelayBulletin(name=RELAY, state="paused", opens_in=left, fault="cannot connect")
        here(store, paused, name=f"r{number}")
    here(store, name="r9")

    (reason,) = (each for each in outbox("explain", "order-47", "--json").data["reasons"] if each["blocks"])
    assert re.search(r"tried again in (1?[0-9]|20) s: cannot connect \(say 3 runners, ", reason["text"])
    lines = [line for line in outbox("status").out.splitlines() if "cannot connect" in line]
    assert len(lines) == 1
    assert lines[0].endswith("(say 3 runners)")
    findings = [each["text"] for each in outbox("check", "--json").data["findings"]]
    assert sum("cannot connect" in text for text in findings) == 1


@pytest.mark.parametrize(
    ("relay", "rule"),
    [
        (
            RelayBulletin(name=RELAY, state="paused", opens_in=50.0, misconfigured=True, fault="535 no"),
            "relay-misconfigured",
        ),
        (RelayBulletin(name=RELAY, state="probing", fault="421 busy"), "relay-paused"),
        (RelayBulletin(name=RELAY, state="well", limited_for=30.0), "limit"),
    ],
)
def test_each_way_in_which_a_relay_keeps_mail_has_its_name(
    outbox: CommandLine, store: SQLiteStore, relay: RelayBulletin, rule: str
) -> None:
    put(store)
    here(store, relay)

    assert explained(outbox) == [rule]


def test_another_relay_that_is_paused_keeps_nothing(outbox: CommandLine, store: SQLiteStore) -> None:
    put(store)
    here(store, WELL, RelayBulletin(name="other.example:25", state="paused", opens_in=50.0))

    assert explained(outbox) == []
    assert "other.example" not in said(outbox).out


@pytest.mark.parametrize(
    ("kind", "value", "undone"),
    [
        ("queue", "mail", "outbox resume mail"),
        ("relay", RELAY, f"outbox unsuspend --relay {RELAY}"),
        ("relay", "*", "outbox unsuspend --relay '*'"),
        ("domain", "EXAMPLE.net", "outbox unsuspend --domain EXAMPLE.net"),
        ("attribute", "tenant=blue", "outbox unsuspend --attribute tenant=blue"),
    ],
)
def test_what_a_person_stopped_is_the_cause_with_his_words_and_the_command_that_ends_it(
    outbox: CommandLine, store: SQLiteStore, kind: str, value: str, undone: str
) -> None:
    put(store, attributes={"tenant": "blue"})
    here(store)
    store.suspend(Suspension(kind=kind, value=value, reason="the relay is moved"))  # type: ignore[arg-type]  # one of them

    assert explained(outbox) == ["suspended"]
    out = said(outbox).out
    assert "the relay is moved" in out
    assert undone in out


def test_a_domain_that_is_suspended_for_some_of_its_recipients_does_not_keep_the_others(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store, "ann@example.net", "bob@example.org")
    here(store)
    store.suspend(Suspension(kind="domain", value="example.net"))

    assert explained(outbox) == []
    assert "for 1 of its 2 recipients: recipients at example.net are suspended" in said(outbox).out


@pytest.mark.parametrize(
    "words", ["", ": the relay is moved", " until 2999-01-01T00:00:00Z: the relay is moved"]
)
def test_a_suspended_relay_is_the_cause_by_the_words_of_the_runner_where_its_relay_is_not_known_here(
    outbox: CommandLine, store: SQLiteStore, words: str
) -> None:
    outbox.environ(OUTBOX_TRANSPORT="")
    put(store)
    here(store)
    store.suspend(Suspension(kind="relay", value=RELAY))
    store.suspend(Suspension(kind="relay", value="smtp.example.org"))
    attempted(store, Released, delay=MINUTE, reason=f"suspended: relay {RELAY}{words}")

    assert explained(outbox) == ["suspended", "not-due"]
    out = " ".join(said(outbox).out.split())
    assert f"* relay {RELAY} is suspended, until it is taken back" in out
    assert f"outbox unsuspend --relay {RELAY}" in out
    assert "lets it go at once" not in out
    assert "if to this one: relay smtp.example.org is suspended" in out


def test_a_requeue_is_said_to_let_it_go_where_nothing_else_keeps_it_and_for_later_it_stays(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store)
    here(store)
    attempted(store, Retry, delay=dt.timedelta(hours=1), reason="450 4.7.1 come back")
    assert "outbox requeue order-47 (lets it go at once)" in " ".join(said(outbox).out.split())

    here(store, RelayBulletin(name=RELAY, state="paused", opens_in=50.0, fault=f"{RELAY}: cannot connect"))
    out = " ".join(said(outbox).out.split())
    assert "outbox requeue order-47 (ends this wait, and nothing else that keeps it)" in out

    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    store.put([Message(id="later-47", recipients=["a@example.net"], content=b"x", not_before=later)])
    assert "outbox requeue" not in outbox("explain", "later-47").out


def test_what_waits_for_its_next_attempt_says_what_the_last_one_met(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store)
    here(store)
    attempted(store, Retry, delay=dt.timedelta(hours=1), reason="450 4.7.1 come back")

    assert explained(outbox) == ["not-due"]
    out = said(outbox).out
    assert "1 attempt so far, the last one ended: 450 4.7.1 come back" in " ".join(out.split())
    assert "outbox requeue order-47" in out
    assert "given up when it is 4 d old" in " ".join(out.split())


def test_what_was_submitted_long_ago_is_given_up_by_the_age_that_its_requeue_began_anew(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    submitted = dt.datetime.now(dt.UTC) - dt.timedelta(days=5)
    with closing(SQLiteStore(outbox.path, clock=ManualClock(submitted))) as earlier:
        put(earlier)
    assert "if the next fails, it is given up" in " ".join(said(outbox).out.split())

    store.requeue(["order-47"])
    out = " ".join(said(outbox).out.split())
    assert "if the next fails, the next one comes about 1 min later" in out
    assert "given up when it is 4 d old, counted from 2" in out


def test_what_was_submitted_long_ago_for_now_is_as_old_as_its_not_before(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    now = dt.datetime.now(dt.UTC)
    with closing(SQLiteStore(outbox.path, clock=ManualClock(now - dt.timedelta(days=5)))) as earlier:
        put(earlier, not_before=now - MINUTE)

    assert "if the next fails, the next one comes about 1 min later" in " ".join(said(outbox).out.split())


def test_what_was_given_back_and_what_is_for_later_are_told_apart(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store)
    here(store)
    attempted(store, Released, delay=dt.timedelta(hours=1), reason="421 busy")
    assert "it was given back, and is due" in said(outbox).out

    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    store.put([Message(id="later-47", recipients=("a@example.net",), content=b"x", not_before=later)])
    assert "submitted to go out no sooner than" in outbox("explain", "later-47").out


def test_a_live_lease_is_the_cause_and_says_until_when(outbox: CommandLine, store: SQLiteStore) -> None:
    put(store)
    here(store)
    store.claim(limit=1, lease=dt.timedelta(minutes=5), queues=["mail"])

    ran = outbox("explain", "order-47", "--json").data
    assert [reason["rule"] for reason in ran["reasons"] if reason["blocks"]] == ["leased"]
    assert ran["next"] == ran["message"]["leased_until"]


def test_a_lease_that_ran_out_says_that_whoever_had_it_is_gone(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store)
    here(store)
    store.claim(limit=1, lease=dt.timedelta(microseconds=1), queues=["mail"])

    assert explained(outbox) == ["lease-ended"]


def test_what_is_over_says_how_and_which_command_brings_it_back(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store)
    attempted(store, Dead, fates={"ann@example.net": Fate.FAILED}, reason="550 5.1.1 no such user")

    assert explained(outbox) == ["dead"]
    out = said(outbox).out
    assert "550 5.1.1 no such user" in out
    assert "outbox requeue order-47" in out

    store.requeue(["order-47"])
    store.hold(["order-47"], reason="ask legal")
    assert explained(outbox) == ["held-by-hand"]
    assert "outbox release order-47" in said(outbox).out

    store.cancel(["order-47"])
    assert explained(outbox) == ["cancelled"]


def test_uncertain_recipients_are_not_sent_to_twice_by_a_careless_command(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store)
    attempted(store, Held, fates={"ann@example.net": Fate.UNCERTAIN}, reason="no reply after the dot")

    assert explained(outbox) == ["held"]
    assert "outbox requeue --uncertain order-47" in said(outbox).out


def test_what_is_not_here_is_said_not_to_be(outbox: CommandLine, store: SQLiteStore) -> None:
    ran = outbox("explain", "nobody-knows")

    assert ran.status == 1
    assert "there is no message nobody-knows" in ran.complaint


def test_no_line_that_a_stranger_wrote_reaches_the_terminal_as_it_is(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store)
    store.announce(
        "evil",
        json.dumps(
            {
                "kind": "outbox runner 1",
                "host": "\x1b[2J",
                "pid": 1,
                "queues": ["mail"],
                "workers": 1,
                "up": 1.0,
                "relays": [{"name": "\x1b[2J", "state": "paused", "opens_in": 9.0, "fault": "\x1b[31m"}],
            }
        ),
        for_=MINUTE,
    )
    store.announce("other", "no bulletin", for_=MINUTE)

    assert "\x1b" not in said(outbox).out + outbox("status").out


def test_status_shows_who_delivers_how_fast_and_where(outbox: CommandLine, store: SQLiteStore) -> None:
    put(store)
    here(store)

    out = outbox("status").out
    assert "pid 4711 on app-1: mail; 4 workers, 0 in hand; up 2 h" in out
    assert "2.0/s delivered in the last 5 min" in out
    (runner,) = outbox("status", "--json").data["runners"]
    assert (runner["alive"], runner["queues"], runner["done"]) == (True, ["mail"], {"delivered": 600})


def test_a_queue_that_a_runner_alive_serves_is_not_called_unserved(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store, queue="mail.bulk")
    assert outbox("status", "--json").data["unserved"] == {"mail.bulk": 1}

    said = Bulletin(host="app-1", pid=1, queues=("mail.bulk",), workers=1, up=1)
    store.announce("r2", written(said), for_=MINUTE)
    assert outbox("status", "--json").data["unserved"] == {}


def test_a_queue_whose_mail_is_long_due_with_no_runner_alive_is_called_out(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store)
    assert "NO RUNNER ALIVE" not in outbox("status").out

    put_before(outbox, 20 * MINUTE, "a@example.net")
    assert "NO RUNNER ALIVE serves mail: its mail has been due for 20 min" in outbox("status").out


def test_ages_are_counted_by_recipient_domain_the_largest_first(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store, "ann@example.net", "bob@example.net", "eve@EXAMPLE.org")
    put_before(outbox, 30 * MINUTE, "a@example.org")

    out = outbox("status", "--ages").out.splitlines()
    assert [line.split() for line in out[1:]] == [
        ["TOTAL", "2", "1", "0", "0", "1", *["0"] * 6],
        ["example.org", "2", "1", "0", "0", "1", *["0"] * 6],
        ["example.net", "1", "1", "0", "0", "0", *["0"] * 6],
    ]
    data = outbox("status", "--ages", "--json", "--rows", "1").data
    assert (data["total"], data["domains"], len(data["rows"])) == ([1, 0, 0, 1, 0, 0, 0, 0, 0, 0], 2, 1)
    assert outbox("status", "--ages", "--rows", "1").err.startswith("1 more domain: --rows 2")


def test_ages_of_nothing_are_no_table(outbox: CommandLine, store: SQLiteStore) -> None:
    assert outbox("status", "--ages").out == "Nothing waits.\n"
