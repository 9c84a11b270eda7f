"""Several commands in one write, LMTP, DSN and LIMITS, without sockets: what is said, and whose each reply is."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import pytest
from played import played

from outbox.errors import ConfigurationError, RelayMisconfigured
from outbox.message import Message
from outbox.outcome import Accepted, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.transports.smtp.batch import chunk
from outbox.transports.smtp.commands import GROUP, Terms
from outbox.transports.smtp.dsn import DSN, original_recipient, xtext
from outbox.transports.smtp.envelope import prepare
from outbox.transports.smtp.extensions import Extensions
from outbox.transports.smtp.reply import Kind, Reply
from outbox.transports.smtp.steps import Dialogue, HangUp, Hear, Lost, Pour, Read, Step, Write
from outbox.transports.smtp.transaction import Transaction

T = TypeVar("T")

A, B, C, D = (f"{name}@example.org" for name in "abcd")
OK = "250 ok"
GO = "354 go on"


class Play:
    """Answers what is read by *replies*, one after the other; a Lost is thrown, and what is left over is a mistake."""

    def __init__(self, *replies: str | Lost) -> None:
        self.said: list[str] = []
        self.due: list[int] = []
        self.hung_up = False
        self._replies = list(replies)

    def __call__(self, dialogue: Dialogue[T]) -> T:
        return played(dialogue, self._perform)

    @property
    def unheard(self) -> Sequence[str | Lost]:
        return self._replies

    def _next(self) -> Reply:
        said = self._replies.pop(0)
        if isinstance(said, Lost):
            raise said
        return reply(said)

    def _perform(self, action: Any) -> Reply | Sequence[Reply] | None:
        match action:
            case Read():
                return self._next()
            case Hear():
                return [self._next()]
            case Write(_, data, replies):
                self._say(data, replies)
            case Pour(content, behind, replies):
                self._say(b"".join(content.blocks()) + behind, replies)
            case HangUp():
                self.hung_up = True
        return None

    def _say(self, data: bytes, replies: int) -> None:
        self.said.append(data.decode())
        self.due.append(replies)
        if self._replies and isinstance(self._replies[0], Lost) and self._replies[0].step is Step.CONTENT:
            lost = self._replies.pop(0)
            assert isinstance(lost, Lost)
            raise lost


def reply(text: str) -> Reply:
    return Reply(int(text[:3]), (text[4:],))


def offering(*keywords: str) -> Extensions:
    return Extensions.parse(Reply(250, ("mx", *keywords)))


PIPELINED = offering("PIPELINING")


def transaction(
    recipients: Iterable[str] = (A,),
    offers: Extensions = PIPELINED,
    *,
    content: bytes = b"S: a\r\n",
    **terms: Any,
) -> Transaction:
    message = Message(recipients=tuple(recipients), content=content, sender="s@example.org", id="m1")
    mail, _ = prepare(message, message.recipients)
    return Transaction(mail, message.recipients, offers, Terms(relay="mx:25", **terms))


def hand_over(play: Play, sent: Transaction, following: Transaction | None = None) -> Transaction:
    play(sent.envelope())
    if sent.ready:
        play(sent.hand_over(following))
    assert not play.unheard
    return sent


# --- groups ------------------------------------------------------------------------------------


def test_an_envelope_goes_in_one_write_and_each_reply_is_its_commands() -> None:
    play = Play(OK, OK, "550 5.1.1 no such user", "450 4.7.1 greylisted", GO, "250 taken")
    sent = hand_over(play, transaction([A, B, C]))

    assert play.said[0].split("\r\n") == [
        "MAIL FROM:<s@example.org>",
        f"RCPT TO:<{A}>",
        f"RCPT TO:<{B}>",
        f"RCPT TO:<{C}>",
        "DATA",
        "",
    ]
    assert play.due == [5, 1]
    assert sent.results == {
        A: Accepted("250 taken"),
        B: PermFailed("550 5.1.1 no such user"),
        C: TempFailed("450 4.7.1 greylisted"),
    }


@pytest.mark.parametrize(
    ("offers", "pipelining"), [(offering(), True), (PIPELINED, False), (Extensions(told=False), True)]
)
def test_without_pipelining_each_command_waits_for_its_reply(offers: Extensions, pipelining: bool) -> None:
    play = Play(OK, OK, GO, OK)
    hand_over(play, transaction(offers=offers, pipelining=pipelining))

    assert play.due == [1, 1, 1, 1]


def test_no_group_is_larger_than_what_goes_out_unread() -> None:
    everybody = [f"{'x' * 60}{n}@{'y' * 60}.example.org" for n in range(100)]
    play = Play(*[OK] * 101, GO, OK)
    sent = hand_over(play, transaction(everybody))

    groups = play.said[:-1]
    assert all(len(said) <= GROUP for said in groups)
    assert all(len(one) + len(two) > GROUP for one, two in itertools.pairwise(groups[:-1]))
    assert "".join(groups).count("\r\n") == 102
    assert set(sent.results) == set(everybody)


def test_the_next_envelope_goes_with_the_content_and_is_not_sent_again() -> None:
    play = Play(OK, OK, GO, "250 taken first")
    first, second = transaction(), transaction([B])
    hand_over(play, first, second)

    assert play.said[1] == (f"S: a\r\n.\r\nMAIL FROM:<s@example.org>\r\nRCPT TO:<{B}>\r\nDATA\r\n")
    assert play.due == [3, 1 + 3]
    assert second.due == 3
    assert first.results == second.results == {}

    then = Play(OK, OK, GO, "250 taken second")
    then(second.answered())
    first.release(second)
    hand_over(then, second)
    assert first.results == {A: Accepted("250 taken first")}
    assert then.said == ["S: a\r\n.\r\n"]
    assert second.results == {B: Accepted("250 taken second")}


# --- refusals among what was said at once ---------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "result"), [("450 not now", TempFailed), ("550 never", PermFailed), ("530 login", Untried)]
)
def test_where_mail_is_refused_the_replies_to_the_rest_are_read_and_say_nothing(
    said: str, result: type[Result]
) -> None:
    play = Play(said, "503 MAIL first", "503 MAIL first", "503 RCPT first")
    sent = hand_over(play, transaction([A, B]))

    assert {type(each) for each in sent.results.values()} == {result}
    assert isinstance(sent.fault, RelayMisconfigured) == (result is Untried)
    assert len(play.said) == 1
    assert not play.hung_up


def test_a_server_that_closes_is_not_asked_what_it_thinks_of_the_rest() -> None:
    play = Play("421 4.3.2 going down", "never", "read")
    sent = transaction([A])
    play(sent.envelope())

    assert len(play.unheard) == 2
    assert sent.unopened


def test_a_content_that_is_for_nobody_is_nothing_and_its_reply_says_nothing() -> None:
    """RFC 2920 section 3.1."""
    play = Play(OK, "550 5.1.1 who?", "450 4.2.1 later", GO, "250 delivered to nobody")
    sent = hand_over(play, transaction([A, B]))

    assert play.said[1:] == [".\r\n"]
    assert sent.results == {A: PermFailed("550 5.1.1 who?"), B: TempFailed("450 4.2.1 later")}
    assert not sent.ready


def test_a_content_that_may_be_for_somebody_after_all_is_not_ended() -> None:
    """MAIL was refused, and yet a recipient was accepted: a lone dot might be a mail to them."""
    play = Play("451 not now", OK, GO)
    sent = hand_over(play, transaction())

    assert play.hung_up
    assert len(play.said) == 1
    assert sent.results == {A: TempFailed("451 not now")}


def test_a_loss_of_the_reply_to_nothing_changes_no_result() -> None:
    play = Play(OK, "550 5.1.1 who?", GO, Lost(Step.LONE_DOT, "closed"))

    assert hand_over(play, transaction()).results == {A: PermFailed("550 5.1.1 who?")}


@pytest.mark.parametrize(
    ("replies", "turned_away"),
    [
        (["550 not you", "503 MAIL first", "503 RCPT first"], True),
        (["451 not now", "503 MAIL first", "503 RCPT first"], True),
        (["550 late news", OK, Lost(Step.DATA, "250", astray=True, kind=Kind.DONE)], False),
        (["421 leaving"], False),
    ],
)
def test_a_refusal_of_mail_is_its_own_where_nothing_behind_it_was_out_of_step(
    replies: Sequence[str | Lost], turned_away: bool
) -> None:
    sent = transaction()
    Play(*replies)(sent.envelope())

    assert sent.turned_away is turned_away


@pytest.mark.parametrize("behind", [True, False])
@pytest.mark.parametrize(
    "said", [OK, "502 what?", "421 4.7.0 too many errors", "503 5.5.1 no valid recipients"]
)
def test_a_refusal_counts_once_the_reset_has_its_own_answer(behind: bool, said: str) -> None:
    """The server may have answered something twice before; then this is the reply to DATA."""
    sent = transaction()
    if behind:
        sent.first()
    hand_over(play := Play(OK, "550 5.1.1 who?", "554 nobody", said), sent)

    assert play.said[-1] == "RSET\r\n"
    assert {type(each) for each in sent.results.values()} == {PermFailed if said == OK else TempFailed}
    assert sent.doubted == (() if said == OK else (A,))
    assert play.hung_up == (said != OK)


CLOSED = Lost(Step.RCPT, "the server closed it")


@pytest.mark.parametrize(
    ("replies", "doubted"),
    [
        ([OK, OK, "550 stray", OK, "421 leaving"], (B,)),
        ([OK, OK, "550 stray", OK, OK, "421 leaving"], (B,)),
        ([OK, OK, "550 stray", OK, CLOSED], (B,)),
        ([OK, "550 who?", "550 who?", "450 later", "550 who?", "554 nobody", CLOSED], (A, B, D)),
        ([OK, OK, OK, "550 who?", OK, "550 shifted", CLOSED], (A, B, C, D)),
        (["554 go away", CLOSED], ()),
        ([OK, OK, "550 who?", OK, OK, GO, CLOSED], ()),
    ],
)
def test_before_354_a_loss_leaves_who_was_refused_in_doubt(
    replies: Sequence[str | Lost], doubted: Sequence[str]
) -> None:
    sent = transaction([A, B, C, D])
    hand_over(Play(*replies), sent)

    assert sent.doubted == doubted
    assert not any(isinstance(sent.results[r], PermFailed) for r in doubted)
    assert set(sent.results) == {A, B, C, D}
    said_to_all = replies[0] == "554 go away"
    refused = [r for r in sent.results if isinstance(sent.results[r], PermFailed)]
    assert refused == ([] if doubted else [A, B, C, D] if said_to_all else [B])


def test_one_command_at_a_time_a_loss_leaves_no_refusal_in_doubt() -> None:
    sent = transaction([A, B], pipelining=False)
    hand_over(Play(OK, "550 who?", "421 leaving"), sent)

    assert sent.doubted == ()
    assert isinstance(sent.results[A], PermFailed)


def test_what_was_said_before_a_limit_was_known_counts_as_it_was_answered() -> None:
    play = Play(OK, OK, "452 4.5.3 too many", OK, "550 5.1.1 who?", "452 4.5.3 too many", GO, "250 taken")
    e = "e@example.org"
    sent = hand_over(play, transaction([A, B, C, D, e]))

    assert sent.results == {
        A: Accepted("250 taken"),
        C: Accepted("250 taken"),
        D: PermFailed("550 5.1.1 who?"),
    }
    assert sent.again == (B, e)
    assert sent.room == 1


def test_after_a_limit_no_further_group_names_anybody() -> None:
    everybody = [f"{'x' * 60}{n}@{'y' * 60}.example.org" for n in range(60)]
    first = transaction(everybody).first().count(b"RCPT")
    play = Play(OK, OK, *["452 4.5.3 too many"] * (first - 1), GO, "250 taken")
    sent = hand_over(play, transaction(everybody))

    assert [said.count("RCPT") for said in play.said] == [first, 0, 0]
    assert sent.again == tuple(everybody[1:])


# --- losses ------------------------------------------------------------------------------------


SILENT = Lost(Step.DATA, "no whole reply", late=True)


@pytest.mark.parametrize(
    ("replies", "own"),
    [
        (["250 sender ok", OK, GO], True),
        (["250 sender ok", "550 who?", "554 nobody"], True),
        (["250 sender ok", OK, "421 leaving"], True),
        (["550 not you", "503 MAIL first", "503 RCPT first"], True),
        ([OK, Lost(Step.RCPT, "354", astray=True, kind=Kind.GO_ON)], False),
        ([OK, OK, Lost(Step.DATA, "250", astray=True, kind=Kind.DONE)], True),
        ([OK, "503 no", SILENT], False),
        ([OK, OK, SILENT], True),
        ([OK, SILENT], True),
        (["421 leaving"], True),
        ([OK, CLOSED], True),
    ],
)
@pytest.mark.parametrize("said", ["250 taken", "554 spam"])
def test_whose_the_reply_to_a_dot_was_shows_in_what_follows(
    said: str, replies: Sequence[str | Lost], own: bool
) -> None:
    first, second = transaction(), transaction([B])
    hand_over(Play("250 sender ok", OK, GO, said), first, second)
    Play(*replies)(second.answered())
    first.release(second)

    known = Accepted(said) if said.startswith("2") else PermFailed(said)
    assert (first.results[A] == known) is own
    assert isinstance(first.results[A], type(known) if own else Uncertain)


def test_what_is_held_when_an_interrupt_comes_is_uncertain() -> None:
    first = transaction()
    hand_over(Play(OK, OK, GO, "250 taken"), first, transaction([B]))
    first.doubt()

    assert isinstance(first.results[A], Uncertain)


def test_of_what_follows_nothing_is_known_where_the_dot_has_no_answer() -> None:
    play = Play(OK, OK, GO, Lost(Step.DOT, "the server closed it"))
    first, second = transaction(), transaction([B])
    hand_over(play, first, second)

    assert isinstance(first.results[A], Uncertain)
    assert second.results == {}


def test_what_was_sent_behind_a_content_and_met_a_loss_has_not_been_opened() -> None:
    sent = transaction()
    sent.first()
    Play(Lost(Step.MAIL, "closed"))(sent.envelope())

    assert sent.unopened
    assert isinstance(sent.results[A], TempFailed)


def test_an_interrupt_on_the_way_of_the_content_leaves_its_recipients_in_doubt() -> None:
    sent = transaction([A, B])
    play = Play(OK, OK, "550 5.1.1 who?", GO)
    play(sent.envelope())
    sent.doubt()
    assert sent.results == {B: PermFailed("550 5.1.1 who?")}

    next(sent.hand_over())
    sent.doubt()
    assert sent.results == {A: Uncertain("interrupted on its way"), B: PermFailed("550 5.1.1 who?")}


# --- LMTP --------------------------------------------------------------------------------------


@pytest.mark.parametrize("offers", [offering(), PIPELINED])
def test_over_lmtp_each_accepted_recipient_has_an_answer_to_the_dot(offers: Extensions) -> None:
    """RFC 2033 section 4.2: in the order of the RCPTs that were accepted."""
    play = Play(OK, OK, "550 5.1.1 who?", OK, OK, GO, "250 a has it", "452 4.2.2 full", "550 5.7.1 never")
    sent = hand_over(play, transaction([A, B, C, D], offers, lmtp=True))

    assert play.due[-1] == 3
    assert sent.results == {
        A: Accepted("250 a has it"),
        B: PermFailed("550 5.1.1 who?"),
        C: TempFailed("452 4.2.2 full"),
        D: PermFailed("550 5.7.1 never"),
    }


def test_over_lmtp_a_loss_among_the_answers_leaves_the_others_uncertain() -> None:
    play = Play(OK, OK, OK, OK, GO, "250 a has it", Lost(Step.DOT, "closed"))
    sent = hand_over(play, transaction([A, B, C], lmtp=True))

    assert [type(sent.results[r]) for r in (A, B, C)] == [Accepted, Uncertain, Uncertain]


def test_over_lmtp_a_refusal_among_answers_that_went_astray_may_be_anothers() -> None:
    play = Play(OK, OK, OK, OK, GO, "250 a has it", "550 never", Lost(Step.DOT, "hello", astray=True))
    sent = hand_over(play, transaction([A, B, C], lmtp=True))

    assert [type(sent.results[r]) for r in (A, B, C)] == [Accepted, Uncertain, Uncertain]


def test_over_lmtp_the_next_envelope_is_behind_all_answers() -> None:
    play = Play(OK, OK, OK, GO, "250 a", "250 b")
    first, second = transaction([A, B], lmtp=True), transaction([C], lmtp=True)
    hand_over(play, first, second)

    assert play.due[-1] == 2 + 3
    hand_over(Play(OK, OK, GO, "250 c"), second)
    assert second.results == {C: Accepted("250 c")}


def test_over_lmtp_nobody_answers_a_content_for_nobody() -> None:
    play = Play(OK, "550 5.1.1 who?", GO)
    sent = hand_over(play, transaction(lmtp=True))

    assert play.hung_up
    assert sent.results == {A: PermFailed("550 5.1.1 who?")}


@pytest.mark.parametrize(("sent", "other"), [(1, TempFailed), (10_000, Uncertain)])
def test_over_lmtp_an_early_refusal_is_that_of_the_first(sent: int, other: type[Result]) -> None:
    early = Lost(Step.CONTENT, "reset", sent=sent, reply=reply("552 5.2.2 full"))
    both = transaction([A, B], lmtp=True)
    Play(OK, OK, OK, GO)(both.envelope())
    Play(early)(both.hand_over())

    assert both.results[A] == PermFailed("552 5.2.2 full")
    assert type(both.results[B]) is other


# --- DSN ---------------------------------------------------------------------------------------


def test_notifications_are_asked_for_in_the_words_of_the_rfc() -> None:
    play = Play(OK, OK, OK, GO, OK)
    offers = offering("PIPELINING", "DSN", "SIZE")
    hand_over(
        play, transaction([A, "b+c=d@example.org"], offers, dsn=DSN(ret="hdrs", notify=("failure", "delay")))
    )

    assert play.said[0].split("\r\n")[:3] == [
        "MAIL FROM:<s@example.org> SIZE=6 RET=HDRS ENVID=m1",
        f"RCPT TO:<{A}> NOTIFY=FAILURE,DELAY ORCPT=rfc822;{A}",
        "RCPT TO:<b+c=d@example.org> NOTIFY=FAILURE,DELAY ORCPT=rfc822;b+2Bc+3Dd@example.org",
    ]


def test_a_server_that_offers_no_notifications_is_asked_for_none() -> None:
    play = Play(OK, OK, GO, OK)
    hand_over(play, transaction(dsn=DSN(ret="full", notify=("never",))))

    assert play.said[0].startswith(f"MAIL FROM:<s@example.org>\r\nRCPT TO:<{A}>\r\n")


@pytest.mark.parametrize(
    ("recipient", "original"),
    [
        (A, f"rfc822;{A}"),
        ('"a b"@example.org', 'rfc822;"a+20b"@example.org'),
        ("é@example.org", "utf-8;\\x{E9}@example.org"),
        ("é+a=b\\@example.org", "utf-8;\\x{E9}\\x{2B}a\\x{3D}b\\x{5C}@example.org"),
        ("x" * 600, ""),
    ],
)
def test_an_original_recipient_is_named_with_its_type(recipient: str, original: str) -> None:
    """RFC 3461 section 4.2, RFC 6533 section 3."""
    assert original_recipient(recipient) == original


def test_xtext_keeps_what_is_its_own() -> None:
    assert xtext("a+b=c d~!\x7f") == "a+2Bb+3Dc+20d~!+7F"


@pytest.mark.parametrize(
    ("ret", "notify", "word"),
    [("all", (), "ret"), (None, ("often",), "often"), (None, ("never", "delay"), "alone")],
)
def test_a_notification_that_there_is_none_of_is_named(ret: Any, notify: Any, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        DSN(ret=ret, notify=notify)


def test_one_notification_needs_no_tuple() -> None:
    only: Any = "failure"

    assert DSN(notify=only).notify == ("failure",)


# --- LIMITS ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "limits"),
    [
        ("LIMITS RCPTMAX=20 MAILMAX=5", {"RCPTMAX": 20, "MAILMAX": 5}),
        ("LIMITS rcptmax=20", {"RCPTMAX": 20}),
        ("LIMITS RCPTMAX=0 MAILMAX=x RCPTDOMAINMAX=1234567", {}),
        ("LIMITS", {}),
    ],
)
def test_limits_are_read_as_rfc_9422_writes_them(stated: str, limits: dict[str, int]) -> None:
    assert offering(stated).limits == limits


@pytest.mark.parametrize(
    ("stated", "named"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("LIMITS RCPTMAX=2", [0, 1]),
        ("LIMITS RCPTMAX=2000", [0, 1, 2, 3, 4]),
        ("LIMITS RCPTDOMAINMAX=1", [0, 2]),
        ("LIMITS RCPTDOMAINMAX=2", [0, 1, 2, 4]),
        ("LIMITS RCPTDOMAINMAX=2 RCPTMAX=3", [0, 1, 2]),
    ],
)
def test_no_more_are_named_in_one_transaction_than_the_server_said(stated: str, named: list[int]) -> None:
    everybody = ["a@one", "b@two", "c@ONE", "d@three", "e@two", "f@four"]

    assert list(chunk(everybody, 5, offering(stated))) == [everybody[n] for n in named]
