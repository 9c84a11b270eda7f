"""requeue, cancel, hold, release and purge: by ids and by filters, in steps, foretold, asked for, ended and repeated."""

from __future__ import annotations

import datetime as dt
import io
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import pytest
from command_line import CommandLine, Ran

from outbox import Message, Outbox, PermFailed, Result, RetryPolicy, TempFailed, Uncertain
from outbox.cli import pace, steps
from outbox.lifecycle import State
from outbox.protocols import Change
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.sqlite import SQLiteStore
from outbox.testing import drawing
from outbox.testing.clauses.scene import LEASE, dead, settle, take
from outbox.testing.recording import RecordingTransport

ANSWERS: Mapping[str, Result] = {
    "gone@example.org": PermFailed("550 5.1.1 no such user"),
    "grey@example.net": TempFailed("450 4.7.1 come back"),
    "mute@example.org": Uncertain("no answer to the final dot"),
}


class AtTheTerminal(io.TextIOWrapper):
    """A person who types; reading does not end a file there."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def store(outbox: CommandLine) -> Iterator[SQLiteStore]:
    store = SQLiteStore(outbox.path)
    yield store
    store.close()


def message(id: str, *recipients: str, **fields: Any) -> Message:
    return Message(
        id=id, recipients=recipients or ("ann@example.org",), content=b"Subject: x\r\n\r\nhi\r\n", **fields
    )


def drain(store: SQLiteStore) -> None:
    Outbox(store, RecordingTransport(ANSWERS), retry=RetryPolicy(uncertain="hold")).drain()


def some_of_each(store: SQLiteStore) -> None:
    """dead, retried, unsure (held by a verdict), by-hand (held by a person), cancelled, waits, bulk."""
    store.put(
        [
            message("dead", "gone@example.org"),
            message("retried", "grey@example.net"),
            message("unsure", "mute@example.org"),
        ]
    )
    drain(store)
    store.put([message("by-hand"), message("cancelled"), message("waits")])
    store.put([message("bulk", queue="bulk", attributes={"campaign": "spring"})])
    store.hold(["by-hand"], reason="wrong prices")
    store.cancel(["cancelled"])


def standing(store: SQLiteStore) -> dict[str, str]:
    return {summary.id: summary.state for summary in store.browse()}


def typing(outbox: CommandLine, monkeypatch: pytest.MonkeyPatch, text: bytes, *argv: str) -> Ran:
    """The command at a terminal, where *text* is typed."""
    monkeypatch.setattr(io, "TextIOWrapper", AtTheTerminal)
    return outbox(*argv, stdin=text, terminal=True)


# -- what a filter means


def test_a_filter_changes_what_fits_and_says_how_many(outbox: CommandLine, store: SQLiteStore) -> None:
    some_of_each(store)
    ran = outbox("cancel", "--attribute", "campaign=spring")
    assert (ran.status, ran.out, ran.err) == (0, "1 cancelled\n", "")
    assert standing(store)["bulk"] == "cancelled"
    assert standing(store)["waits"] == "queued"


def test_a_requeue_by_filter_leaves_alone_what_a_person_cancelled_or_holds(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    some_of_each(store)
    ran = outbox("requeue", "--older-than", "0s")
    assert ran.status == 1
    assert ran.out == "4 requeued\n"
    assert "1 not requeued: the recipients left are uncertain" in ran.err
    after = standing(store)
    assert (after["cancelled"], after["by-hand"], after["unsure"]) == ("cancelled", "held", "held")

    assert outbox("requeue", "--state", "cancelled").out == "1 requeued\n"
    assert outbox("requeue", "--state", "held", "--uncertain").out == "1 requeued\n"
    assert standing(store)["by-hand"] == "held"
    assert outbox("requeue", "by-hand").out == "by-hand requeued\n"


def test_a_purge_by_filter_leaves_alone_what_is_held_unless_that_is_said(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    some_of_each(store)
    assert outbox("purge", "--older-than", "0s").out == "2 purged\n"
    assert {"unsure", "by-hand", "waits"} <= set(standing(store))
    assert outbox("purge", "--state", "held").out == "2 purged\n"
    assert set(standing(store)) == {"retried", "waits", "bulk"}


def test_a_release_by_filter_means_what_a_person_holds(outbox: CommandLine, store: SQLiteStore) -> None:
    some_of_each(store)
    ran = outbox("release", "--state", "held")
    assert (ran.status, ran.out, ran.err) == (0, "1 released\n", "")
    assert standing(store)["unsure"] == "held"
    assert standing(store)["by-hand"] == "queued"


def test_what_a_person_holds_is_told_apart_and_says_how_it_goes_on(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    some_of_each(store)
    assert outbox("hold", "waits", "--because", "ask Ann").out == "waits held\n"
    shown = outbox("show", "waits").out
    assert "state       held by a person (outbox hold): ask Ann\n" in shown
    assert "outbox release waits (then due at once)" in shown
    assert "by a person" not in outbox("show", "unsure").out
    assert "outbox requeue --uncertain unsure" in outbox("show", "unsure").out
    rows = {row["id"]: row["by_hand"] for row in outbox("list", "--state", "held", "--json").rows}
    assert rows == {"by-hand": True, "unsure": False, "waits": True}
    assert re.search(r"waits .* by hand: ask Ann", outbox("list", "--state", "held").out)


def test_a_release_of_what_a_verdict_has_held_points_to_requeue(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    some_of_each(store)
    ran = outbox("release", "unsure")
    assert ran.status == 1
    assert "nobody holds it by hand" in ran.complaint
    assert "requeue" in ran.complaint


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["--recipient", "ANN@example.org"], "bulk by-hand cancelled waits"),
        (["--domain", "@example.net"], "retried"),
        (["--domain", "example.net", "--domain", "EXAMPLE.ORG", "--queue", "bulk"], "bulk"),
        (["--reason", "come BACK"], "retried"),
        (["--reason", "wrong prices", "--reason", "no such"], "by-hand dead"),
        (["--attribute", "campaign=spring"], "bulk"),
        (["--sender", "", "--state", "dead,held"], "by-hand dead unsure"),
        (["--sender", "<>", "--state", "dead"], "dead"),
        (["--older-than", "1h"], ""),
        (["--state", "dead", "--state", "cancelled"], "cancelled dead"),
    ],
)
def test_list_takes_the_same_filters(
    outbox: CommandLine, store: SQLiteStore, argv: Sequence[str], names: str
) -> None:
    some_of_each(store)
    assert {row["id"] for row in outbox("list", "--json", *argv).rows} == set(names.split())


def test_old_messages_are_those_submitted_so_long_ago(outbox: CommandLine, clock: Any) -> None:
    clock.set_back(dt.timedelta(days=3))
    old = SQLiteStore(outbox.path, clock=clock)
    old.put([message("old")])
    old.close()
    new = SQLiteStore(outbox.path)
    new.put([message("new")])
    new.close()
    assert [row["id"] for row in outbox("list", "--json", "--older-than", "2d").rows] == ["old"]


def test_ids_and_filters_are_not_mixed_and_nothing_at_all_is_refused(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    some_of_each(store)
    before = standing(store)
    for command in ("requeue", "cancel", "hold", "release", "purge"):
        neither, both = outbox(command), outbox(command, "dead", "--state", "dead")
        assert (neither.status, both.status) == (64, 64)
        assert f"see outbox {command} --help" in neither.complaint
        assert "not both" in both.complaint
    assert standing(store) == before


# -- foretold, and asked for


def test_a_dry_run_changes_nothing_and_shows_some_and_how_many(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    store.put([message(f"m{n:02}") for n in range(13)])
    ran = outbox("hold", "--queue", "mail", "--dry-run")
    assert ran.status == 0
    assert [line.split()[0] for line in ran.out.splitlines()[1:11]] == [f"m{n:02}" for n in range(10)]
    assert ran.out.endswith("... and 3 more\n13 would be held; nothing was changed\n")
    assert len(outbox("hold", "--queue", "mail", "-n", "--json").rows) == 13
    assert set(standing(store).values()) == {"queued"}


def test_a_dry_run_of_ids_says_what_would_be_refused(outbox: CommandLine, store: SQLiteStore) -> None:
    some_of_each(store)
    before = standing(store)
    ran = outbox("release", "by-hand", "unsure", "waits", "nobody", "--dry-run")
    assert ran.status == 1
    assert ran.out == "by-hand would be released\n"
    assert "unsure would not be released: nobody holds it by hand" in ran.err
    assert "waits would not be released: it is queued" in ran.err
    assert "nobody would not be released: there is no such message" in ran.err
    assert standing(store) == before


def test_a_dry_run_by_filter_promises_nothing_that_is_then_refused(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    some_of_each(store)
    before = standing(store)
    ran = outbox("cancel", "--state", "dead,held,queued", "--dry-run")
    assert ran.status == 1
    assert "dead" not in ran.out
    assert ran.out.endswith("5 would be cancelled; nothing was changed\n")
    assert ran.complaint == "1 would not be cancelled: it is dead"
    rows = outbox("purge", "--state", "queued,dead", "-n", "--json").rows
    assert {row["id"]: (row["status"], row["reason"]) for row in rows} == {
        "dead": ("would be done", ""),
        "retried": ("would be refused", "it is queued"),
        "waits": ("would be refused", "it is queued"),
        "bulk": ("would be refused", "it is queued"),
    }
    assert standing(store) == before


def test_a_dry_run_counts_what_a_worker_has_with_what_would_be_refused(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    store.put([message("a"), message("b"), message("c")])
    (claim,) = store.claim(limit=1, lease=LEASE, queues=["mail"])
    foretold, done = outbox("cancel", "--queue", "mail", "-n"), outbox("cancel", "--queue", "mail")
    assert foretold.status == done.status == 1
    assert foretold.out.endswith("2 would be cancelled; nothing was changed\n")
    assert foretold.complaint.replace("would not be", "not") == done.complaint
    settle(store, claim, dead(claim))


def test_the_question_counts_apart_what_would_be_refused(
    outbox: CommandLine, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_of_each(store)
    no = typing(outbox, monkeypatch, b"\n", "cancel", "--state", "dead,queued")
    assert "Cancel 3 messages (1 more would be refused)? [y/N]" in no.err
    unasked = typing(outbox, monkeypatch, b"", "cancel", "--state", "dead")
    assert unasked.status == 1
    assert "outbox: 1 not cancelled: it is dead" in unasked.err


def test_at_a_terminal_many_are_changed_only_after_a_yes(
    outbox: CommandLine, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put([message("a"), message("b")])
    no = typing(outbox, monkeypatch, b"\n", "hold", "--queue", "mail")
    assert no.status == 1
    assert "Hold 2 messages? [y/N]" in no.err
    assert no.err.endswith("Nothing was changed.\n")
    assert standing(store) == {"a": "queued", "b": "queued"}

    yes = typing(outbox, monkeypatch, b"yes\n", "hold", "--queue", "mail")
    assert (yes.status, yes.out) == (0, "2 held\n")
    unasked = typing(outbox, monkeypatch, b"", "release", "--queue", "mail", "--yes")
    assert (unasked.status, unasked.out) == (0, "2 released\n")
    assert "[y/N]" not in unasked.err


def test_ctrl_c_in_the_place_of_an_answer_says_that_nothing_was_changed(
    outbox: CommandLine, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: AtTheTerminal, size: int | None = -1) -> str:
        raise KeyboardInterrupt

    store.put([message("a"), message("b")])
    monkeypatch.setattr(AtTheTerminal, "readline", interrupted)
    ran = typing(outbox, monkeypatch, b"", "hold", "--queue", "mail")
    assert ran.status == 130
    assert ran.err.endswith("Hold 2 messages? [y/N] \nNothing was changed.\n")
    assert standing(store) == {"a": "queued", "b": "queued"}


def test_one_message_and_a_script_are_not_asked_about(
    outbox: CommandLine, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put([message("a"), message("b", queue="bulk")])
    assert typing(outbox, monkeypatch, b"", "hold", "--queue", "bulk").out == "1 held\n"
    assert outbox("hold", "--queue", "mail").out == "1 held\n"
    assert (
        "No such messages: nothing to hold."
        in typing(outbox, monkeypatch, b"", "hold", "--queue", "mail").err
    )


# -- what others change meanwhile


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[SQLiteStore], Any]], None]:
    """Somebody else does something between the look of a command and its first step."""

    def before(verb: str, act: Callable[[SQLiteStore], Any]) -> None:
        right = getattr(SQLiteStore, verb)

        def later(self: SQLiteStore, ids: Sequence[str], /, **how: Any) -> Sequence[Change]:
            monkeypatch.setattr(SQLiteStore, verb, right)
            act(self)
            changes: Sequence[Change] = right(self, ids, **how)
            return changes

        monkeypatch.setattr(SQLiteStore, verb, later)

    return before


def held_again(store: SQLiteStore) -> None:
    store.requeue(["a"])
    store.hold(["a"], reason="look first")


@pytest.mark.parametrize("said", [("--state", "cancelled"), ("--queue", "mail")])
def test_a_purge_by_filter_leaves_alone_what_a_person_holds_meanwhile(
    outbox: CommandLine, store: SQLiteStore, meanwhile: Callable[..., None], said: tuple[str, str]
) -> None:
    store.put([message("a"), message("b")])
    store.cancel(["a", "b"])
    meanwhile("purge", held_again)
    ran = outbox("purge", *said)
    assert (ran.status, ran.out) == (1, "1 purged\n")
    assert ran.complaint == "1 not purged: it has changed meanwhile: it is held by a person"
    assert standing(store) == {"a": "held"}


@pytest.mark.parametrize(
    "stopped", [(SQLiteStore.cancel, "it is cancelled"), (SQLiteStore.hold, "it is held by a person")]
)
@pytest.mark.parametrize("said", [("--state", "queued"), ("--queue", "mail")])
def test_a_requeue_by_filter_leaves_alone_what_a_person_stops_meanwhile(
    outbox: CommandLine,
    store: SQLiteStore,
    meanwhile: Callable[..., None],
    said: tuple[str, str],
    stopped: tuple[Callable[..., Any], str],
) -> None:
    act, now = stopped
    store.put([message("a"), message("b")])
    meanwhile("requeue", lambda store: act(store, ["a"]))
    ran = outbox("requeue", *said)
    assert (ran.status, ran.out) == (1, "1 requeued\n")
    assert ran.complaint == f"1 not requeued: it has changed meanwhile: {now}"
    assert standing(store)["b"] == "queued"
    assert standing(store)["a"] != "queued"


@pytest.mark.parametrize("said", [("--state", "queued"), ("--queue", "mail")])
def test_a_requeue_by_filter_is_content_with_what_a_worker_takes_up_meanwhile(
    outbox: CommandLine, store: SQLiteStore, meanwhile: Callable[..., None], said: tuple[str, str]
) -> None:
    store.put([message("a"), message("b")])
    meanwhile("requeue", lambda store: store.claim(limit=1, lease=LEASE, queues=["mail"]))
    ran = outbox("requeue", "--verbose", *said)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == (
        "a with a worker: tried at this moment\nb requeued\n"
        "1 requeued\n1 with a worker: tried at this moment\n"
    )


@pytest.mark.parametrize(("kept", "word"), [(dt.timedelta(days=1), "delivered"), (None, "gone")])
def test_a_requeue_by_filter_is_content_with_what_was_delivered_meanwhile(
    outbox: CommandLine,
    store: SQLiteStore,
    meanwhile: Callable[..., None],
    kept: dt.timedelta | None,
    word: str,
) -> None:
    store.put([message("a"), message("b")])

    def delivered(_: SQLiteStore) -> None:
        with closing(SQLiteStore(outbox.path, keep_delivered=kept)) as runners:
            (claim,) = runners.claim(limit=1, lease=LEASE, queues=["mail"])
            settle(runners, claim, drawing.delivered(claim))

    meanwhile("requeue", delivered)
    ran = outbox("requeue", "--state", "queued")
    assert (ran.status, ran.out, ran.err) == (0, f"1 requeued\n1 {word} meanwhile\n", "")


def test_a_requeue_of_what_workers_have_tells_who_has_it_still(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    store.put([message("a")])
    store.claim(limit=1, lease=LEASE, queues=["mail"])
    ran = outbox("requeue", "--state", "claimed")
    assert (ran.status, ran.out) == (1, "0 requeued\n")
    assert ran.complaint.startswith("1 not requeued: with a worker at this moment")


def test_a_cancel_and_a_release_by_filter_leave_alone_what_they_no_longer_mean(
    outbox: CommandLine, store: SQLiteStore, meanwhile: Callable[..., None]
) -> None:
    store.put([message("a"), message("b")])
    meanwhile("cancel", lambda store: store.hold(["a"]))
    assert outbox("cancel", "--state", "queued").out == "1 cancelled\n"
    assert standing(store) == {"a": "held", "b": "cancelled"}
    meanwhile("release", lambda store: store.cancel(["a"]))
    assert outbox("release", "--queue", "mail").out == "0 released\n"
    assert standing(store)["a"] == "cancelled"


def test_json_says_what_has_changed_meanwhile(
    outbox: CommandLine, store: SQLiteStore, meanwhile: Callable[..., None]
) -> None:
    store.put([message("a")])
    store.cancel(["a"])
    meanwhile("purge", held_again)
    (row,) = outbox("purge", "--state", "cancelled", "--json").rows
    assert (row["id"], row["status"]) == ("a", "refused")
    assert row["reason"] == "it has changed meanwhile: it is held by a person"


def test_a_store_that_cannot_be_told_what_is_expected_is_steered_by_ids(
    outbox: CommandLine, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put([message("a"), message("b")])
    right = SQLiteStore.cancel
    monkeypatch.setattr(SQLiteStore, "cancel", lambda self, ids, /: right(self, ids))
    assert outbox("cancel", "--state", "queued").out == "2 cancelled\n"


# -- in steps


@pytest.fixture
def in_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[int]]:
    """How many messages each call of a verb of the store was for."""

    def counting(verb: str) -> list[int]:
        sizes: list[int] = []
        right = getattr(SQLiteStore, verb)

        def counted(self: SQLiteStore, ids: Sequence[str], /, **how: Any) -> Sequence[Change]:
            sizes.append(len(ids))
            changes: Sequence[Change] = right(self, ids, **how)
            return changes

        monkeypatch.setattr(SQLiteStore, verb, counted)
        return sizes

    monkeypatch.setattr(pace, "STEP", 4)
    monkeypatch.setattr(pace, "_LEAST", 4)
    return counting


def test_many_are_changed_in_bounded_steps(
    outbox: CommandLine, store: SQLiteStore, in_steps: Callable[[str], list[int]]
) -> None:
    store.put([message(f"m{n:02}") for n in range(10)])
    sizes = in_steps("cancel")
    assert outbox("cancel", "--queue", "mail").out == "10 cancelled\n"
    assert sizes == [4, 4, 2]


def test_after_each_step_whoever_delivers_has_a_turn(
    outbox: CommandLine,
    store: SQLiteStore,
    in_steps: Callable[[str], list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.put([message(f"m{n:02}") for n in range(10)])
    sizes = in_steps("cancel")
    rested: list[int] = []
    monkeypatch.setattr(pace.Pace, "rest", lambda _: rested.append(len(sizes)))
    assert outbox("cancel", "--queue", "mail").out == "10 cancelled\n"
    assert rested == [1, 2, 3]


def test_an_interrupt_ends_it_after_a_step_and_the_same_command_does_the_rest(
    outbox: CommandLine,
    store: SQLiteStore,
    in_steps: Callable[[str], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    # Who runs the tests in the background has it ignored, and then it stays so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    store.put([message(f"m{n:02}") for n in range(10)])
    store.cancel([f"m{n:02}" for n in range(10)])
    sizes = in_steps("purge")
    counted = SQLiteStore.purge

    def interrupted(self: SQLiteStore, ids: Sequence[str], /, **how: Any) -> Sequence[Change]:
        if len(sizes) == 1:
            signal.raise_signal(signal.SIGINT)
        return counted(self, ids, **how)

    monkeypatch.setattr(SQLiteStore, "purge", interrupted)
    ran = outbox("purge", "--state", "cancelled")
    assert ran.status == 130
    assert ran.out == "8 purged, and then it was ended: the same command does the rest\n"
    assert len(standing(store)) == 2
    again = outbox("purge", "--state", "cancelled")
    assert (again.status, again.out) == (0, "2 purged\n")


def test_progress_is_shown_to_who_watches_and_to_nobody_else(
    outbox: CommandLine,
    store: SQLiteStore,
    in_steps: Callable[[str], list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(steps, "_SELDOM", 0.0)
    store.put([message(f"m{n:02}") for n in range(10)])
    in_steps("hold")
    watched = outbox("hold", "--queue", "mail", terminal=True)
    assert "4 of 10 held" in watched.err
    assert "10 of 10 held" in watched.err
    assert watched.out == "10 held\n"
    in_steps("release")
    assert outbox("release", "--queue", "mail").err == ""


def test_what_a_worker_has_is_counted_and_the_others_are_changed(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    store.put([message("a"), message("b"), message("c")])
    (claim,) = store.claim(limit=1, lease=LEASE, queues=["mail"])
    ran = outbox("cancel", "--queue", "mail")
    assert (ran.status, ran.out) == (1, "2 cancelled\n")
    assert ran.complaint.startswith("1 not cancelled: with a worker at this moment")
    settle(store, claim, dead(claim))


def test_json_is_a_line_for_each_message(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put([message("a"), message("b")])
    rows = outbox("hold", "--queue", "mail", "--json").rows
    assert [(row["id"], row["status"]) for row in rows] == [("a", "done"), ("b", "done")]


# -- what a store does for it


def test_a_spool_is_walked_a_few_times_for_any_number_of_steps(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, outbox: CommandLine
) -> None:
    from outbox.stores.filesystem import walking  # noqa: PLC0415 - what is counted

    store = FilesystemStore(tmp_path / "spool")
    store.put([message(f"m{n:03}") for n in range(60)])
    monkeypatch.setattr(pace, "STEP", 5)
    monkeypatch.setattr(pace, "_LEAST", 5)
    walks = []
    right = walking.walk

    def counted(*given: Any, **how: Any) -> Any:
        walks.append(1)
        return right(*given, **how)

    monkeypatch.setattr(walking, "walk", counted)
    ran = outbox("requeue", "--queue", "mail", "--store", f"file://{tmp_path}/spool")
    store.close()
    assert ran.out == "60 requeued\n", ran.err
    assert len(walks) == 1


def test_many_rows_are_found_in_bounded_readings(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from outbox.filters import Filter  # noqa: PLC0415
    from outbox.stores.sqlite import finding  # noqa: PLC0415

    monkeypatch.setattr(finding, "_LOOKED_AT", 10)
    store.put([message(f"m{n:03}", "rare@example.org" if n == 77 else "ann@example.org") for n in range(100)])
    store.cancel([f"m{n:03}" for n in range(50)])
    read, readings = store._database.read, []

    def counting(reading: Any, **how: Any) -> Any:
        readings.append(1)
        return read(reading, **how)

    monkeypatch.setattr(store._database, "read", counting)
    assert [s.id for s in store.find(Filter(recipients=["rare@example.org"]))] == ["m077"]
    assert len(readings) == 11, "ten that show ten rows each, and the one that finds the end"
    readings.clear()
    found = [s.id for s in store.find(Filter(states=[State.CANCELLED, State.DEAD]))]
    assert found == [f"m{n:03}" for n in range(50)]
    assert len(readings) == 2 + 5 + 1 + 1
    assert [c.message.id for c in take(store, 1)] == ["m050"]
