"""Who sent a mail is told that it failed, or is late: once, in a form that programs read."""

from __future__ import annotations

import contextlib
import datetime as dt
import email
import email.policy
from collections.abc import Mapping, Sequence
from email.message import EmailMessage, Message as Email
from pathlib import Path
from typing import Any

import attrs
import pytest

from outbox import (
    Accepted,
    Bounces,
    ConfigurationError,
    Delayed,
    FilesystemStore,
    MemoryStore,
    Message,
    Notice,
    Outbox,
    Outcome,
    PermFailed,
    Result,
    RetryPolicy,
    Settled,
    SQLiteStore,
    State,
    StoreUnavailable,
    TempFailed,
    Uncertain,
    from_email,
)
from outbox.testing import ManualClock

HOUR = dt.timedelta(hours=1)
NO_SUCH_USER = PermFailed("550 5.1.1 <ann@example.com>: no such user")


def mail(*recipients: str, text: str = "Hello.\n", **options: Any) -> Message:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.org", "ann@example.com", "Your order"
    mail["Message-ID"] = "<order-1@example.org>"
    mail.set_content(text)
    return attrs.evolve(from_email(mail, recipients=recipients or ["ann@example.com"]), **options)


@attrs.define
class Post:
    """An outbox with bounces, and relays that say what a test puts down for each recipient."""

    clock: ManualClock = attrs.Factory(ManualClock)
    answers: dict[str, Result] = attrs.Factory(dict)
    notices: list[Notice] = attrs.Factory(list)
    options: Mapping[str, Any] = attrs.Factory(dict)
    bounces: Mapping[str, Any] = attrs.Factory(dict)
    store: MemoryStore = attrs.field(init=False)
    outbox: Outbox = attrs.field(init=False)
    listener: Bounces = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.store = MemoryStore(clock=self.clock)
        self.listener = Bounces(self.store, "postmaster@mail.example", clock=self.clock, **self.bounces)
        self.outbox = Outbox(
            self.store,
            self,
            clock=self.clock,
            **{"listeners": [self.notices.append, self.listener], **self.options},
        )

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        results = {r: self.answers.get(r, Accepted("250 ok")) for r in recipients}
        return Outcome(results=results, relay="mx.example.com:25")

    def close(self) -> None:
        """Nothing to close."""

    def reports(self) -> list[Message]:
        found = [self.store.get(each.id) for each in self.store.browse()]
        return [each.message for each in found if each is not None and each.message.id.startswith("bounce-")]

    @property
    def report(self) -> Email:
        (message,) = self.reports()
        return parsed(message)


def parsed(message: Message) -> Email:
    read = email.message_from_bytes(message.content, policy=email.policy.default)
    assert not any(part.defects for part in read.walk())
    return read


def status(report: Email) -> list[Email]:
    part = report.get_payload(1)
    assert isinstance(part, Email)
    assert part.get_content_type() == "message/delivery-status"
    blocks = part.get_payload()
    assert isinstance(blocks, list)
    return [block for block in blocks if isinstance(block, Email)]


@pytest.fixture
def post() -> Post:
    # A bounce is kept back, so that a test finds it where it was put.
    return Post(bounces={"queue": "bounces"})


def test_a_refused_mail_is_reported_to_its_sender_from_the_null_sender(post: Post) -> None:
    post.answers["ann@example.com"] = NO_SUCH_USER
    post.outbox.submit(mail())
    post.outbox.drain()

    (bounce,) = post.reports()
    assert (bounce.sender, bounce.recipients) == ("", ("shop@example.org",))
    report = parsed(bounce)
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    assert report["Auto-Submitted"] == "auto-replied"
    assert report["References"] == "<order-1@example.org>"
    assert "no such user" in report.get_payload(0).get_content()  # type: ignore[union-attr]  # it has parts


def test_each_failed_recipient_is_named_with_the_words_and_the_status_of_the_relay(post: Post) -> None:
    post.answers |= {
        "ann@example.com": NO_SUCH_USER,
        "bob@example.com": PermFailed("554 go away"),
    }
    post.outbox.submit(mail("ann@example.com", "kim@example.com", "bob@example.com"))
    post.outbox.drain()

    of_message, *of_recipients = status(post.report)
    assert of_message["Reporting-MTA"] == "dns; mail.example"
    assert [(each["Final-Recipient"], each["Action"], each["Status"]) for each in of_recipients] == [
        ("rfc822; ann@example.com", "failed", "5.1.1"),
        ("rfc822; bob@example.com", "failed", "5.0.0"),
    ]
    assert of_recipients[0]["Diagnostic-Code"] == "smtp; 550 5.1.1 <ann@example.com>: no such user"
    assert of_recipients[0]["Remote-MTA"] == "dns; mx.example.com"


def test_nobody_is_given_the_words_that_were_said_of_another() -> None:
    post = Post(bounces={"queue": "bounces"}, options={"retry": RetryPolicy(attempts=1)})
    post.answers |= {
        "ann@example.com": NO_SUCH_USER,
        "kim@example.com": PermFailed(""),
        "bob@example.com": TempFailed(""),
    }
    post.outbox.submit(mail("joann@example.com", "ann@example.com", "kim@example.com", "bob@example.com"))
    post.outbox.drain()

    of_recipients = status(post.report)[1:]
    assert [(each["Final-Recipient"], each["Diagnostic-Code"]) for each in of_recipients] == [
        ("rfc822; ann@example.com", "smtp; 550 5.1.1 <ann@example.com>: no such user"),
        ("rfc822; kim@example.com", None),
        ("rfc822; bob@example.com", "x-outbox; gave up after attempt 1"),
    ]


def test_who_was_given_up_without_a_word_is_told_how_it_was_given_up() -> None:
    post = Post(bounces={"queue": "bounces"}, options={"retry": RetryPolicy(attempts=1)})
    post.answers |= dict.fromkeys(["ann@example.com", "bob@example.com"], TempFailed(""))
    post.outbox.submit(mail("ann@example.com", "bob@example.com"))
    post.outbox.drain()
    codes = [each["Diagnostic-Code"] for each in status(post.report)[1:]]
    assert codes == ["x-outbox; gave up after attempt 1"] * 2


def test_the_mail_comes_back_whole_and_a_large_one_as_its_header(post: Post) -> None:
    post.answers["ann@example.com"] = NO_SUCH_USER
    post.outbox.submit(mail(id="small"))
    post.outbox.submit(mail(id="large", text="x" * 70 + "\n" + "line\n" * 20_000))
    post.outbox.drain()

    kinds = {}
    for bounce in post.reports():
        part = parsed(bounce).get_payload(2)
        assert isinstance(part, Email)
        kinds[bounce.attributes["bounce-of"]] = (part.get_content_type(), len(bounce.content) > 20_000)
        assert "Your order" in part.as_string()
    assert kinds == {"small": ("message/rfc822", False), "large": ("text/rfc822-headers", False)}


@pytest.mark.parametrize("answer", [NO_SUCH_USER, TempFailed("451 later")])
def test_nobody_is_told_of_what_the_null_sender_sent(
    answer: Result, caplog: pytest.LogCaptureFixture
) -> None:
    post = Post(bounces={"queue": "bounces", "delayed": True}, options={"warn_after": HOUR})
    post.answers["ann@example.com"] = answer
    post.outbox.submit(mail(sender=""))
    post.outbox.drain()
    post.clock.advance(3 * HOUR)
    post.outbox.drain()
    post.listener.catch_up()
    assert not post.reports()
    assert not [each for each in caplog.records if each.name == "outbox.bounces"]


def test_a_bounce_that_fails_is_not_bounced() -> None:
    post = Post(answers={"ann@example.com": NO_SUCH_USER, "shop@example.org": NO_SUCH_USER})
    post.outbox.submit(mail())
    for _ in range(3):
        post.outbox.drain()
    (bounce,) = post.reports()
    assert [each.id for each in post.store.browse(states=[State.DEAD])] == sorted(
        [bounce.id, *dead_ids(post)]
    )
    assert len(post.store.browse()) == 2


def dead_ids(post: Post) -> list[str]:
    return [each.id for each in post.store.browse(states=[State.DEAD]) if not each.id.startswith("bounce-")]


def test_who_is_given_up_is_told_of_with_the_reason(post: Post) -> None:
    post = Post(bounces={"queue": "bounces"}, options={"retry": RetryPolicy(attempts=1)})
    post.answers["ann@example.com"] = TempFailed("451 greylisted")
    post.outbox.submit(mail())
    post.outbox.drain()

    (_, block) = status(post.report)
    assert (block["Status"], block["Diagnostic-Code"]) == ("4.4.7", "smtp; 451 greylisted")


def test_what_expired_is_told_of(post: Post) -> None:
    post.answers["ann@example.com"] = TempFailed("451 later")
    post.outbox.submit(mail(expires_at=post.clock.now() + HOUR))
    post.outbox.drain()
    post.clock.advance(2 * HOUR)
    post.outbox.drain()
    (_, block) = status(post.report)
    assert block["Diagnostic-Code"] == "x-outbox; expires_at has passed"


def test_who_is_refused_is_told_of_at_once_and_the_others_when_they_fail(post: Post) -> None:
    post.answers |= {"ann@example.com": NO_SUCH_USER, "bob@example.com": TempFailed("451 later")}
    post.outbox.submit(mail("ann@example.com", "bob@example.com"))
    post.outbox.drain()
    assert [each["Final-Recipient"] for each in status(post.report)[1:]] == ["rfc822; ann@example.com"]

    post.answers["bob@example.com"] = PermFailed("550 no")
    post.clock.advance(HOUR)
    post.outbox.drain()
    named = [[b["Final-Recipient"] for b in status(parsed(each))[1:]] for each in post.reports()]
    assert sorted(named) == [["rfc822; ann@example.com"], ["rfc822; bob@example.com"]]


def test_who_may_have_received_it_is_not_told_of(post: Post) -> None:
    post = Post(bounces={"queue": "bounces"}, options={"retry": RetryPolicy(uncertain="hold")})
    post.answers["ann@example.com"] = Uncertain()
    post.outbox.submit(mail())
    post.outbox.drain()
    assert not post.reports()


def test_what_died_with_the_process_that_was_to_tell_is_told_by_the_next_once() -> None:
    post = Post(bounces={"queue": "bounces"}, options={"listeners": []})
    post.answers |= {"ann@example.com": NO_SUCH_USER, "bob@example.com": TempFailed("451 later")}
    post.outbox.submit(mail("ann@example.com", "bob@example.com"))
    post.outbox.drain()
    post.answers["bob@example.com"] = PermFailed("550 no")
    post.clock.advance(HOUR)
    post.outbox.drain()
    assert not post.reports()

    assert [post.listener.catch_up() for _ in range(2)] == [2, 0]
    assert len(post.reports()) == 2


def test_catching_up_tells_nothing_twice_that_the_listener_told(post: Post) -> None:
    post.answers |= {"ann@example.com": NO_SUCH_USER, "bob@example.com": TempFailed("451 later")}
    post.outbox.submit(mail("ann@example.com", "bob@example.com"))
    post.outbox.drain()
    post.answers["bob@example.com"] = PermFailed("550 no")
    post.clock.advance(HOUR)
    post.outbox.drain()
    assert len(post.reports()) == 2
    assert post.listener.catch_up() == 0


def test_catching_up_leaves_what_failed_long_ago_alone() -> None:
    post = Post(bounces={"queue": "bounces"}, options={"listeners": []})
    post.answers["ann@example.com"] = NO_SUCH_USER
    post.outbox.submit(mail())
    post.outbox.drain()
    post.clock.advance(25 * HOUR)
    assert post.listener.catch_up() == 0


@pytest.mark.parametrize("kind", [MemoryStore, SQLiteStore, FilesystemStore])
@pytest.mark.parametrize("end", ["dead", "cancelled"])
def test_a_bounce_that_a_person_purged_does_not_come_back(tmp_path: Path, kind: Any, end: str) -> None:
    clock = ManualClock()
    paths = [] if kind is MemoryStore else [tmp_path / "mail"]
    with contextlib.closing(kind(*paths, clock=clock)) as store:
        bounces = Bounces(store, "postmaster@mail.example", queue="bounces", clock=clock)
        outbox = Outbox(store, Refusing(), clock=clock, listeners=[bounces])
        outbox.submit(mail())
        outbox.drain()
        (bounce,) = store.browse(queues=["bounces"])
        if end == "cancelled":
            store.cancel([bounce.id])
        else:
            Outbox(store, Refusing(), clock=clock, queues=["bounces"]).drain()
        assert [each.state for each in store.browse(queues=["bounces"])] == [end]

        assert [change.status for change in store.purge([bounce.id])] == ["done"]
        assert bounces.catch_up() == 0
        assert not store.browse(queues=["bounces"])


class Refusing:
    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        return Outcome(results=dict.fromkeys(recipients, NO_SUCH_USER))

    def close(self) -> None:
        """Nothing to close."""


def test_a_second_death_after_a_requeue_is_told_of_again(post: Post) -> None:
    post.answers["ann@example.com"] = NO_SUCH_USER
    key = post.outbox.submit(mail())
    post.outbox.drain()
    post.clock.advance(HOUR)
    post.store.requeue([key])
    post.outbox.drain()
    assert len(post.reports()) == 2


def test_a_bounce_that_cannot_be_stored_is_stored_with_the_next(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.answers["ann@example.com"] = NO_SUCH_USER
    post.outbox.submit_many([mail(id="one")])
    with monkeypatch.context() as patch:
        patch.setattr(post.store, "put", _down)
        post.outbox.drain()
    assert not post.reports()
    post.outbox.submit(mail(id="two"))
    post.outbox.drain()
    assert {each.attributes["bounce-of"] for each in post.reports()} == {"one", "two"}


def _down(_: object) -> None:
    raise StoreUnavailable("down")


@pytest.mark.parametrize(("notify", "told"), [("never", 0), ("delay", 0), ("failure,delay", 1), ("", 1)])
def test_who_asked_not_to_be_told_is_not(post: Post, notify: str, told: int) -> None:
    post.answers["ann@example.com"] = NO_SUCH_USER
    post.outbox.submit(mail(attributes={"dsn-notify": notify, "dsn-ret": "hdrs", "dsn-envid": "QQ+20314159"}))
    post.outbox.drain()
    assert len(post.reports()) == told
    for bounce in post.reports():
        assert status(parsed(bounce))[0]["Original-Envelope-Id"] == "QQ+20314159"
        assert [part.get_content_type() for part in parsed(bounce).iter_parts()][2] == "text/rfc822-headers"  # type: ignore[attr-defined]  # an EmailMessage


@pytest.mark.parametrize(
    ("notify", "ret", "told"),
    [
        ("SUCCESS, FAILURE", "HDRS", 1),
        ("success,\tfailure ", " Hdrs ", 1),
        ("Success, Delay", "hdrs", 0),
        (" ", "hdrs", 1),
    ],
)
def test_what_a_program_asks_for_may_be_spelled_as_in_the_standard(
    post: Post, notify: str, ret: str, told: int
) -> None:
    post.answers["ann@example.com"] = NO_SUCH_USER
    post.outbox.submit(mail(attributes={"dsn-notify": notify, "dsn-ret": ret}))
    post.outbox.drain()
    kinds = [[part.get_content_type() for part in parsed(each).walk()][-1] for each in post.reports()]
    assert kinds == ["text/rfc822-headers"] * told


def test_what_a_stranger_says_breaks_out_of_no_field(post: Post) -> None:
    post.answers["ann@example.com"] = PermFailed("550 5.7.1 no\r\nAction: delivered\r\n\r\n--x " + "é" * 900)
    post.outbox.submit(mail())
    post.outbox.drain()
    (_, block) = status(post.report)
    assert block["Action"] == "failed"
    assert block.keys() == [
        "Final-Recipient",
        "Action",
        "Status",
        "Remote-MTA",
        "Diagnostic-Code",
        "Last-Attempt-Date",
    ]


def test_what_a_program_notes_breaks_out_of_no_field(post: Post) -> None:
    post.answers["ann@example.com"] = NO_SUCH_USER
    post.outbox.submit(mail(attributes={"dsn-envid": "x\x1b[1m\r\nReporting-MTA: dns; other.example"}))
    post.outbox.drain()
    (bounce,) = post.reports()
    (of_message, _) = status(parsed(bounce))
    assert b"\x1b" not in bounce.content
    assert of_message.get_all("Reporting-MTA") == ["dns; mail.example"]


def test_foreign_recipients_and_headers_come_back_in_a_mail_that_any_relay_takes(post: Post) -> None:
    post.answers["jürgen@example.com"] = PermFailed("550 nein")
    raw = "From: shöp@example.org\r\nTo: jürgen@example.com\r\nSubject: Grüße\r\n\r\nHallo\r\n".encode()
    post.outbox.submit(from_email(raw))
    post.outbox.drain()
    (bounce,) = post.reports()
    (_, block) = status(parsed(bounce))
    assert block["Final-Recipient"] == r"utf-8; j\x{FC}rgen@example.com"
    report = parsed(bounce)
    assert report["To"] == "shöp@example.org"
    assert report.get_payload(2).get_content_type() == "text/rfc822-headers"  # type: ignore[union-attr]  # it has parts
    assert "Grüße" in report.get_payload(2).get_content()  # type: ignore[union-attr]  # as above


def test_what_is_no_mail_is_reported_without_it(post: Post) -> None:
    post.answers["ann@example.com"] = NO_SUCH_USER
    post.outbox.submit(
        Message(sender="shop@example.org", recipients=["ann@example.com"], content=b'{"a":\n\r"\0"}')
    )
    post.outbox.drain()
    assert len([*post.report.iter_parts()]) == 2  # type: ignore[attr-defined]  # an EmailMessage


def test_who_bounces_come_from_must_be_an_address() -> None:
    with pytest.raises(ConfigurationError, match="cannot come from 'postmaster'"):
        Bounces(MemoryStore(), "postmaster")


# -- what is late


def test_a_message_that_waits_for_too_long_is_told_of_once() -> None:
    post = Post(options={"warn_after": 4 * HOUR})
    post.outbox = Outbox(
        post.store,
        post,
        clock=post.clock,
        listeners=[post.notices.append],
        warn_after=4 * HOUR,
    )
    post.answers["ann@example.com"] = TempFailed("451 greylisted")
    post.outbox.submit(mail())
    for _ in range(6):
        post.outbox.drain()
        post.clock.advance(3 * HOUR)

    kinds = [type(each) for each in post.notices if isinstance(each, Settled | Delayed)]
    assert kinds == [Settled, Settled, Settled, Delayed, Settled, Settled, Settled]
    (late,) = [each for each in post.notices if isinstance(each, Delayed)]
    assert (late.recipients, late.reason) == (("ann@example.com",), "ann@example.com: 451 greylisted")


def test_the_sender_is_told_that_it_is_late_where_that_is_wanted() -> None:
    post = Post(bounces={"queue": "bounces", "delayed": True}, options={"warn_after": HOUR})
    post.answers["ann@example.com"] = TempFailed("451 4.7.1 greylisted")
    post.outbox.submit(mail())
    for _ in range(3):
        post.outbox.drain()
        post.clock.advance(3 * HOUR)
    (_, block) = status(post.report)
    assert (block["Action"], block["Status"]) == ("delayed", "4.7.1")
    assert "late" in post.report["Subject"]
