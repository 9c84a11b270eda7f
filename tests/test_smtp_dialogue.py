"""The dialogue without sockets: what is said, and what is made of every answer and of every loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import pytest
from played import played

from outbox.errors import RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.message import Message
from outbox.outcome import Accepted, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.transports.smtp.auth import Password
from outbox.transports.smtp.commands import Terms
from outbox.transports.smtp.envelope import Mail, prepare
from outbox.transports.smtp.extensions import Extensions
from outbox.transports.smtp.opening import Channel, Opening, opening
from outbox.transports.smtp.reply import Reply
from outbox.transports.smtp.steps import Action, Dialogue, Hear, Lost, Pour, Read, Secure, Step, Write
from outbox.transports.smtp.transaction import Transaction

T = TypeVar("T")

RELAY = "mx.example:587"
A, B, C = "a@example.org", "b@example.org", "c@example.org"

USUAL: Mapping[Step, str] = {
    Step.GREETING: "220 mx.example",
    Step.EHLO: "250 mx.example",
    Step.STARTTLS: "220 go ahead",
    Step.AUTH: "235 welcome",
    Step.MAIL: "250 sender ok",
    Step.RCPT: "250 recipient ok",
    Step.DATA: "354 go on",
    Step.DOT: "250 queued as 1",
    Step.RSET: "250 ok",
}


class Stage:
    """Drives a dialogue against a server of our making.

    *replies* are by step, one for each time it comes and the last for good;
    *breaks* is what is thrown where that step is written or, as
    ``"read"``, where its reply is awaited.
    """

    def __init__(
        self,
        replies: Mapping[Step, str | Sequence[str]] = USUAL,
        breaks: Mapping[tuple[str, Step], Lost] | None = None,
    ) -> None:
        self.said: list[str] = []
        self.secured = 0
        self._replies = {
            step: [reply] if isinstance(reply, str) else list(reply)
            for step, reply in {**USUAL, **replies}.items()
        }
        self._breaks = dict(breaks or {})

    def play(self, dialogue: Dialogue[T]) -> T:
        return played(dialogue, self._perform)

    def _next(self, step: Step) -> Reply:
        self._break("read", step)
        queue = self._replies[step]
        return reply(queue.pop(0) if len(queue) > 1 else queue[0])

    def _perform(self, action: Action) -> Reply | Sequence[Reply] | None:
        match action:
            case Read(step):
                return self._next(step)
            case Hear(steps):
                return [self._next(steps[0])]
            case Write(step, data):
                self._break("write", step)
                assert data.endswith(b"\r\n")
                assert data.count(b"\n") == 1
                self.said.append(data.decode().removesuffix("\r\n"))
            case Pour(content, b"", 1):
                self._break("write", Step.CONTENT)
                self.said.append(b"".join(content.blocks()).decode())
            case Secure():
                self._break("write", Step.TLS)
                self.secured += 1
                self.said.append("(TLS)")
        return None

    def _break(self, where: str, step: Step) -> None:
        if lost := self._breaks.get((where, step)):
            raise lost


def reply(text: str) -> Reply:
    lines = text.split("\n")
    return Reply(int(lines[0][:3]), tuple(line[4:] for line in lines))


def mail(
    *recipients: str, content: bytes = b"Subject: a\r\n\r\nb\r\n", sender: str = "s@example.org"
) -> Mail:
    return prepare(Message(recipients=recipients, content=content, sender=sender), recipients)[0]


def offering(*keywords: str) -> Extensions:
    return Extensions.parse(Reply(250, ("mx", *keywords)))


def hand_over(
    stage: Stage, *recipients: str, extensions: Extensions | None = None, **message: str | bytes
) -> Transaction:
    sent = mail(*recipients, **message)  # type: ignore[arg-type]  # each by its own name
    report = Transaction(sent, recipients, extensions or Extensions(), Terms(relay=RELAY))
    stage.play(report.envelope())
    if report.ready:
        stage.play(report.hand_over())
    return report


# --- one transaction ---------------------------------------------------------------------------


def test_a_message_goes_from_mail_to_its_dot() -> None:
    stage = Stage()
    report = hand_over(stage, A, B, extensions=offering("SIZE 1000"))

    assert stage.said == [
        "MAIL FROM:<s@example.org> SIZE=17",
        f"RCPT TO:<{A}>",
        f"RCPT TO:<{B}>",
        "DATA",
        "Subject: a\r\n\r\nb\r\n.\r\n",
    ]
    assert report.results == dict.fromkeys([A, B], Accepted("250 queued as 1"))
    assert (report.again, report.room, report.unopened, report.fault) == ((), None, False, None)


REFUSALS = {
    "450 4.7.1 not now": TempFailed("450 4.7.1 not now"),
    "550 5.7.1 never": PermFailed("550 5.7.1 never"),
    "421 4.3.2 going down": TempFailed("421 4.3.2 going down"),
}


@pytest.mark.parametrize("step", [Step.MAIL, Step.RCPT, Step.DATA, Step.DOT])
@pytest.mark.parametrize(("said", "result"), REFUSALS.items())
def test_a_refusal_at_any_step_is_the_result(step: Step, said: str, result: Result) -> None:
    report = hand_over(Stage({step: said}), A)

    assert report.results == {A: result}
    assert report.fault is None


@pytest.mark.parametrize(
    ("where", "step", "result"),
    [
        ("read", Step.MAIL, TempFailed),
        ("write", Step.RCPT, TempFailed),
        ("read", Step.RCPT, TempFailed),
        ("write", Step.DATA, TempFailed),
        ("read", Step.DATA, TempFailed),
        ("write", Step.CONTENT, TempFailed),
        ("read", Step.DOT, Uncertain),
    ],
)
def test_a_loss_is_temporary_before_the_dot_and_uncertain_behind_it(
    where: str, step: Step, result: type[TempFailed | Uncertain]
) -> None:
    report = hand_over(Stage(breaks={(where, step): Lost(step, "the server closed it")}), A, B)

    assert report.results == dict.fromkeys(
        [A, B], result(f"connection lost at {step.words}: the server closed it")
    )


@pytest.mark.parametrize(
    "stage",
    [
        Stage(breaks={("read", Step.MAIL): Lost(Step.MAIL, "closed")}),
        Stage(breaks={("read", Step.RCPT): Lost(Step.RCPT, "reset")}),
        Stage(breaks={("write", Step.CONTENT): Lost(Step.CONTENT, "reset")}),
        Stage(breaks={("read", Step.DOT): Lost(Step.DOT, "no answer in time")}),
        Stage({Step.MAIL: "421 4.3.2 going down"}),
        Stage({Step.RCPT: "421 4.3.2 going down"}),
        Stage({Step.DATA: "421 4.3.2 going down"}),
        Stage({Step.DOT: "421 4.3.2 going down"}),
    ],
)
def test_a_message_whose_connection_ended_before_it_had_its_answer_says_so(stage: Stage) -> None:
    assert hand_over(stage, A).cut


@pytest.mark.parametrize(
    "stage",
    [
        Stage(),
        Stage({Step.MAIL: "450 not now"}),
        Stage({Step.RCPT: "550 5.1.1 no such user"}),
        Stage({Step.DOT: "451 4.3.0 try later"}),
        Stage({Step.RCPT: "550 5.1.1 no"}, {("read", Step.RSET): Lost(Step.RSET, "gone")}),
    ],
)
def test_one_that_had_its_answer_was_not_cut_off(stage: Stage) -> None:
    assert not hand_over(stage, A).cut


def test_what_was_lost_before_mail_was_sent_is_no_affair_of_the_message() -> None:
    with pytest.raises(Lost):
        hand_over(Stage(breaks={("write", Step.MAIL): Lost(Step.MAIL, "the server had closed it")}), A)


@pytest.mark.parametrize(
    ("beyond", "result"), [(-1, TempFailed), (0, TempFailed), (1, Uncertain), (3, Uncertain)]
)
def test_it_is_uncertain_from_the_moment_the_kernel_has_the_dot(
    beyond: int, result: type[TempFailed | Uncertain]
) -> None:
    sent = mail(A).content.dot + beyond
    report = hand_over(Stage(breaks={("write", Step.CONTENT): Lost(Step.CONTENT, "reset", sent=sent)}), A)

    assert type(report.results[A]) is result


@pytest.mark.parametrize("said", REFUSALS)
def test_what_came_before_the_first_byte_of_a_content_is_no_answer_to_it(said: str) -> None:
    lost = Lost(Step.CONTENT, "the server spoke out of turn", reply=reply(said), astray=True)
    report = hand_over(Stage(breaks={("write", Step.CONTENT): lost}), A)

    assert report.in_vain
    assert report.results == {A: TempFailed(str(lost))}


@pytest.mark.parametrize("sent", [1, 10_000])
@pytest.mark.parametrize(("said", "result"), REFUSALS.items())
def test_a_refusal_that_came_before_the_content_was_written_counts(
    sent: int, said: str, result: Result
) -> None:
    lost = Lost(Step.CONTENT, "broken pipe", sent=sent, reply=reply(said))
    report = hand_over(Stage(breaks={("write", Step.CONTENT): lost}), A)

    assert report.results == {A: result}


@pytest.mark.parametrize(("sent", "result"), [(0, TempFailed), (10_000, Uncertain)])
def test_an_acceptance_that_came_before_the_content_was_written_is_not_believed(
    sent: int, result: type[TempFailed | Uncertain]
) -> None:
    lost = Lost(Step.CONTENT, "broken pipe", sent=sent, reply=reply("250 queued"))
    report = hand_over(Stage(breaks={("write", Step.CONTENT): lost}), A)

    assert type(report.results[A]) is result


@pytest.mark.parametrize("where", [("read", Step.DATA), ("write", Step.DATA), ("read", Step.DOT)])
@pytest.mark.parametrize("astray", [True, False])
def test_no_refusal_is_final_that_a_server_out_of_step_may_have_meant_for_another(
    where: tuple[str, Step], astray: bool
) -> None:
    lost = Lost(where[1], "the server answered 250, which is no answer to it", astray=astray)
    stage = Stage({Step.RCPT: ["250 ok", "550 5.1.1 no such user", "450 4.7.1 greylisted"]}, {where: lost})
    report = hand_over(stage, A, B, C)

    assert report.results[B] == (TempFailed(str(lost)) if astray else PermFailed("550 5.1.1 no such user"))
    assert report.results[C] == TempFailed("450 4.7.1 greylisted")


def test_a_server_that_is_found_out_of_step_at_last_has_refused_nobody_for_good() -> None:
    lost = Lost(Step.RSET, "the server answered 354, which is no answer to it", astray=True)
    report = hand_over(Stage({Step.DATA: "550 no such user"}, {("read", Step.RSET): lost}), A, B)

    assert report.results == dict.fromkeys([A, B], TempFailed(str(lost)))


def test_each_recipient_has_its_own_answer() -> None:
    stage = Stage({Step.RCPT: ["250 ok", "550 5.1.1 no such user", "450 4.7.1 greylisted"]})
    report = hand_over(stage, A, B, C)

    assert report.results == {
        A: Accepted("250 queued as 1"),
        B: PermFailed("550 5.1.1 no such user"),
        C: TempFailed("450 4.7.1 greylisted"),
    }
    assert "DATA" in stage.said


def test_the_reply_to_the_content_is_that_of_the_accepted_only() -> None:
    stage = Stage({Step.RCPT: ["550 5.1.1 no such user", "250 ok"], Step.DOT: "451 4.3.0 try later"})

    assert hand_over(stage, A, B).results == {
        A: PermFailed("550 5.1.1 no such user"),
        B: TempFailed("451 4.3.0 try later"),
    }


@pytest.mark.parametrize("replies", [{Step.RCPT: "550 no"}, {Step.DATA: "554 no valid recipients"}])
def test_a_transaction_that_comes_to_no_content_is_reset(replies: Mapping[Step, str]) -> None:
    stage = Stage(replies)
    hand_over(stage, A, B)

    assert stage.said[-1] == "RSET"
    assert not any("Subject" in said for said in stage.said)


def test_a_server_that_is_closing_is_asked_for_nothing_more() -> None:
    stage = Stage({Step.DATA: "421 4.3.2 going down"})
    hand_over(stage, A)

    assert stage.said[-1] == "DATA"


def test_a_loss_while_resetting_changes_no_result() -> None:
    stage = Stage({Step.RCPT: "550 5.1.1 no"}, {("read", Step.RSET): Lost(Step.RSET, "gone")})

    assert hand_over(stage, A).results == {A: PermFailed("550 5.1.1 no")}


def test_a_server_that_closes_among_the_recipients_leaves_none_accepted() -> None:
    stage = Stage({Step.RCPT: ["250 ok", "421 4.7.0 too much", "250 ok"]})
    report = hand_over(stage, A, B, C)

    assert {type(result) for result in report.results.values()} == {TempFailed}
    assert report.results[B] == TempFailed("421 4.7.0 too much")
    assert "DATA" not in stage.said


@pytest.mark.parametrize("said", ["421 4.3.2 idle for too long", None])
def test_a_connection_that_was_gone_at_mail_is_reported_as_such(said: str | None) -> None:
    stage = (
        Stage({Step.MAIL: said}) if said else Stage(breaks={("read", Step.MAIL): Lost(Step.MAIL, "closed")})
    )

    assert hand_over(stage, A).unopened
    assert not hand_over(Stage({Step.MAIL: "450 not now"}), A).unopened


def test_a_refusal_of_mail_for_good_is_reported_as_one_that_a_used_connection_may_owe_to_another() -> None:
    report = hand_over(Stage({Step.MAIL: "552 5.3.4 too big"}), A)

    assert report.unopened
    assert report.results == {A: PermFailed("552 5.3.4 too big")}


# --- too many recipients -----------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["452 4.5.3 too many", "552 5.5.3 too many", "550 5.5.3 too many"])
def test_the_rest_waits_for_a_further_transaction_where_the_server_says_how_many(limit: str) -> None:
    stage = Stage({Step.RCPT: ["250 ok", limit]})
    report = hand_over(stage, A, B, C)

    assert report.results == {A: Accepted("250 queued as 1")}
    assert report.again == (B, C)
    assert report.room == 1
    assert f"RCPT TO:<{C}>" not in stage.said


@pytest.mark.parametrize("limit", ["452 too many", "552 too many"])
def test_only_the_one_waits_where_it_could_be_its_own_mailbox(limit: str) -> None:
    report = hand_over(Stage({Step.RCPT: ["250 ok", limit, "250 ok"]}), A, B, C)

    assert set(report.results) == {A, C}
    assert report.again == (B,)
    assert report.room is None


@pytest.mark.parametrize(
    ("said", "result"),
    [
        ("452 too many", TempFailed("452 too many")),
        ("452 4.5.3 too many", TempFailed("452 4.5.3 too many")),
        ("552 too much", PermFailed("552 too much")),
    ],
)
def test_what_meets_the_first_recipient_can_be_no_limit(said: str, result: Result) -> None:
    report = hand_over(Stage({Step.RCPT: [said, "250 ok"]}), A, B)

    assert report.results == {A: result, B: Accepted("250 queued as 1")}
    assert report.again == ()


@pytest.mark.parametrize("limit", ["452 too many", "552 too many"])
def test_after_the_second_in_a_row_nobody_else_is_named(limit: str) -> None:
    """One may be a full mailbox; a server that is full says so of everybody else, too."""
    everybody = [f"r{n}@example.org" for n in range(9)]
    stage = Stage({Step.RCPT: ["250 ok", limit, "250 ok", limit, "550 who?", limit]})
    report = hand_over(stage, *everybody)

    assert sum(said.startswith("RCPT") for said in stage.said) == 6
    assert report.again == (everybody[1], everybody[3], *everybody[5:])
    assert set(report.results) == {everybody[0], everybody[2], everybody[4]}


def test_a_full_mailbox_is_no_limit() -> None:
    report = hand_over(Stage({Step.RCPT: ["250 ok", "552 5.2.2 full"]}), A, B)

    assert report.results[B] == PermFailed("552 5.2.2 full")


# --- what concerns the relay -------------------------------------------------------------------


def test_no_message_dies_because_we_are_not_let_in() -> None:
    report = hand_over(Stage({Step.MAIL: "530 5.7.0 authentication required"}), A, B)

    assert report.results == {A: Untried(), B: Untried()}
    assert isinstance(report.fault, RelayMisconfigured)
    assert "530 5.7.0 authentication required" in str(report.fault)


@pytest.mark.parametrize("step", [Step.RCPT, Step.DATA])
def test_a_login_that_is_wanted_for_a_message_stops_no_other_and_is_not_final(step: Step) -> None:
    report = hand_over(Stage({step: "530 5.7.0 authentication required"}), A, B)

    assert report.results == dict.fromkeys([A, B], TempFailed("530 5.7.0 authentication required"))
    assert report.fault is None


RELAYING = [
    "554 5.7.1 <x@example.org>: Relay access denied",
    "554 5.7.1 <x@example.org>: Recipient address rejected: Access denied",
    "554 5.7.1 <unknown[192.0.2.1]>: Client host rejected: Access denied",
    "550 relay not permitted",
    "550 5.7.1 Relaying denied",
    "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain",
    "550 authentication required",
    "553 sorry, that domain isn't in my list of allowed rcpthosts; you must authenticate",
]


@pytest.mark.parametrize("words", RELAYING)
def test_a_server_that_does_not_relay_for_us_kills_no_message(words: str) -> None:
    report = hand_over(Stage({Step.RCPT: [words, "250 ok"]}), A, B)

    assert report.results[A] == TempFailed(words)
    assert isinstance(report.results[B], Accepted)
    assert report.fault is None


@pytest.mark.parametrize(
    "words",
    [
        "550 5.1.1 no such user relay@example.org",
        "554 5.7.1 blocked by policy",
        "550 5.4.1 Recipient address rejected: Access denied.",
    ],
)
def test_a_refusal_of_another_kind_is_final_all_the_same(words: str) -> None:
    assert hand_over(Stage({Step.RCPT: words}), A).results == {A: PermFailed(words)}


def test_those_who_need_no_login_are_served() -> None:
    report = hand_over(Stage({Step.RCPT: ["250 ok", "530 5.7.0 authentication required"]}), A, B)

    assert report.results == {
        A: Accepted("250 queued as 1"),
        B: TempFailed("530 5.7.0 authentication required"),
    }
    assert report.fault is None


# --- extensions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "offers", "reason"),
    [
        ({"content": b"x" * 1000}, ["SIZE 999"], "1002 bytes"),
        ({"content": "é".encode()}, [], "8BITMIME"),
        ({"content": "Message-ID: <é@x>\r\n\r\n".encode()}, ["8BITMIME"], "SMTPUTF8"),
        ({"sender": "é@example.org"}, ["8BITMIME"], "SMTPUTF8"),
    ],
)
def test_what_the_server_cannot_take_is_never_begun(
    message: dict[str, str | bytes], offers: list[str], reason: str
) -> None:
    stage = Stage()
    report = hand_over(stage, A, extensions=offering(*offers), **message)

    assert stage.said == []
    result = report.results[A]
    assert isinstance(result, PermFailed)
    assert reason in result.reply


@pytest.mark.parametrize(
    ("content", "recipient"), [("é", A), ("Message-ID: <é@x>\r\n\r\n", A), ("", "é@example.org")]
)
def test_what_a_server_that_refused_ehlo_offers_is_not_known_and_nothing_is_final(
    content: str, recipient: str
) -> None:
    report = hand_over(Stage(), recipient, extensions=Extensions(told=False), content=content.encode())

    assert isinstance(report.results[recipient], TempFailed)


def test_only_the_foreign_recipient_fails_where_smtputf8_is_missing() -> None:
    stage = Stage()
    report = hand_over(stage, A, "é@example.org", extensions=offering("8BITMIME"))

    assert report.results[A] == Accepted("250 queued as 1")
    assert isinstance(report.results["é@example.org"], PermFailed)
    assert stage.said[0] == "MAIL FROM:<s@example.org>"


@pytest.mark.parametrize(
    ("message", "recipient", "line"),
    [
        ({}, A, "MAIL FROM:<s@example.org> SIZE=17"),
        ({"sender": ""}, A, "MAIL FROM:<> SIZE=17"),
        ({"content": "\r\né\r\n".encode()}, A, "MAIL FROM:<s@example.org> SIZE=6 BODY=8BITMIME"),
        ({"content": "S: é\r\n".encode()}, A, "MAIL FROM:<s@example.org> SIZE=7 BODY=8BITMIME SMTPUTF8"),
        ({}, "é@example.org", "MAIL FROM:<s@example.org> SIZE=17 SMTPUTF8"),
        ({"sender": "é@example.org"}, A, "MAIL FROM:<é@example.org> SIZE=17 SMTPUTF8"),
    ],
)
def test_what_the_message_needs_is_declared_and_nothing_else(
    message: dict[str, str | bytes], recipient: str, line: str
) -> None:
    stage = Stage()
    hand_over(stage, recipient, extensions=offering("SIZE", "8BITMIME", "SMTPUTF8"), **message)

    assert stage.said[0] == line


# --- the opening -------------------------------------------------------------------------------

OFFERS = "250-mx.example\n250-STARTTLS\n250 AUTH PLAIN LOGIN"
WHO = Password("user", "pass")


def plan(channel: Channel = "none", credentials: Password | None = None) -> Opening:
    return Opening(relay=RELAY, name=b"[192.0.2.1]", channel=channel, identity=credentials)


def open_up(stage: Stage, channel: Channel = "none", credentials: Password | None = None) -> Extensions:
    return stage.play(opening(plan(channel, credentials)))


@pytest.mark.parametrize(
    ("channel", "credentials", "said"),
    [
        ("none", None, ["EHLO [192.0.2.1]"]),
        ("tls", None, ["(TLS)", "EHLO [192.0.2.1]"]),
        ("starttls", None, ["EHLO [192.0.2.1]", "STARTTLS", "(TLS)", "EHLO [192.0.2.1]"]),
        ("opportunistic", None, ["EHLO [192.0.2.1]", "STARTTLS", "(TLS)", "EHLO [192.0.2.1]"]),
        ("tls", WHO, ["(TLS)", "EHLO [192.0.2.1]", "AUTH PLAIN AHVzZXIAcGFzcw=="]),
    ],
)
def test_a_connection_is_opened_step_by_step(
    channel: Channel, credentials: Password | None, said: list[str]
) -> None:
    stage = Stage({Step.EHLO: OFFERS})
    open_up(stage, channel, credentials)

    assert stage.said == said


def test_what_was_offered_in_clear_is_forgotten_under_tls() -> None:
    stage = Stage({Step.EHLO: ["250-mx\n250-STARTTLS\n250 SIZE 1", "250-mx\n250 SIZE 2"]})

    assert open_up(stage, "starttls").size == 2


def test_a_server_that_knows_no_ehlo_is_greeted_with_helo() -> None:
    stage = Stage({Step.EHLO: "502 what?", Step.HELO: "250 mx"})

    assert open_up(stage) == Extensions(told=False)
    assert stage.said == ["EHLO [192.0.2.1]", "HELO [192.0.2.1]"]


@pytest.mark.parametrize(
    ("replies", "channel", "fault", "word"),
    [
        ({Step.GREETING: "421 busy"}, "none", RelayUnavailable, "421 busy"),
        ({Step.GREETING: "450 busy"}, "none", RelayUnavailable, "450 busy"),
        ({Step.GREETING: "554 blocked"}, "none", RelayMisconfigured, "554 blocked"),
        ({Step.EHLO: "421 busy"}, "none", RelayUnavailable, "refused EHLO: 421 busy"),
        ({Step.EHLO: "550 who?", Step.HELO: "450 no"}, "none", RelayUnavailable, "refused HELO: 450 no"),
        ({Step.EHLO: "550 who?", Step.HELO: "550 who?"}, "none", RelayMisconfigured, "local_hostname"),
        ({Step.EHLO: "250 mx"}, "starttls", RelayMisconfigured, "does not offer STARTTLS"),
        ({Step.EHLO: OFFERS, Step.STARTTLS: "454 no TLS now"}, "starttls", RelayUnavailable, "454"),
        ({Step.EHLO: OFFERS, Step.STARTTLS: "502 no"}, "opportunistic", RelayMisconfigured, "502"),
    ],
)
def test_an_opening_that_fails_is_the_relays_fault_in_words(
    replies: Mapping[Step, str], channel: Channel, fault: type[RelayFault], word: str
) -> None:
    with pytest.raises(fault, match=word) as caught:
        open_up(Stage(replies), channel)

    assert caught.value.relay == RELAY


def test_without_starttls_opportunism_goes_on_in_clear() -> None:
    stage = Stage()
    open_up(stage, "opportunistic")

    assert stage.secured == 0


@pytest.mark.parametrize(
    ("offer", "replies", "said"),
    [
        ("AUTH PLAIN LOGIN", ["235 ok"], ["AUTH PLAIN AHVzZXIAcGFzcw=="]),
        ("AUTH LOGIN PLAIN", ["235 ok"], ["AUTH PLAIN AHVzZXIAcGFzcw=="]),
        ("AUTH=LOGIN", ["334 VXNlcg==", "334 UGFzcw==", "235 ok"], ["AUTH LOGIN", "dXNlcg==", "cGFzcw=="]),
        ("AUTH PLAIN", ["334 ", "235 ok"], ["AUTH PLAIN AHVzZXIAcGFzcw==", "AHVzZXIAcGFzcw=="]),
        (
            "AUTH PLAIN LOGIN",
            ["504 not PLAIN", "334 u", "334 p", "235 ok"],
            ["AUTH PLAIN AHVzZXIAcGFzcw==", "AUTH LOGIN", "dXNlcg==", "cGFzcw=="],
        ),
    ],
)
def test_we_authenticate_by_the_first_mechanism_both_know(
    offer: str, replies: list[str], said: list[str]
) -> None:
    stage = Stage({Step.EHLO: f"250-mx\n250 {offer}", Step.AUTH: replies})
    open_up(stage, "tls", WHO)

    assert stage.said[2:] == said


def test_a_long_secret_is_sent_when_it_is_asked_for() -> None:
    stage = Stage({Step.EHLO: OFFERS, Step.AUTH: ["334 ", "235 ok"]})
    open_up(stage, "tls", Password("user", "é" * 400))

    assert stage.said[2] == "AUTH PLAIN"
    assert len(stage.said[3]) > 512


@pytest.mark.parametrize(
    ("offers", "replies", "fault"),
    [
        (OFFERS, ["535 5.7.8 wrong"], RelayMisconfigured),
        (OFFERS, ["534 5.7.9 too weak"], RelayMisconfigured),
        (OFFERS, ["530 5.7.0 STARTTLS first"], RelayMisconfigured),
        (OFFERS, ["454 4.7.0 not now"], RelayUnavailable),
        (OFFERS, ["421 4.7.0 too many"], RelayUnavailable),
        (OFFERS, ["334 more", "334 more", "501 cancelled"], RelayMisconfigured),
        ("250-mx\n250 AUTH XOAUTH2", [], RelayMisconfigured),
        ("250 mx", [], RelayMisconfigured),
    ],
)
def test_a_login_that_fails_names_the_user_and_never_the_password(
    offers: str, replies: list[str], fault: type[RelayFault]
) -> None:
    stage = Stage({Step.EHLO: offers, Step.AUTH: replies})
    with pytest.raises(fault, match="user 'user'") as caught:
        open_up(stage, "tls", WHO)

    assert "pass'" not in repr(caught.value)


def test_a_refused_login_is_not_tried_by_another_mechanism() -> None:
    stage = Stage({Step.EHLO: OFFERS, Step.AUTH: "535 5.7.8 wrong"})
    with pytest.raises(RelayMisconfigured):
        open_up(stage, "tls", WHO)

    assert [said for said in stage.said if said.startswith("AUTH")] == ["AUTH PLAIN AHVzZXIAcGFzcw=="]


def test_a_server_that_repeats_the_secret_does_not_get_it_into_an_error() -> None:
    who = Password("user", "s3crét")
    plain = who.mechanisms[0].responses[0].decode()
    latin = "s3crét".encode("latin-1").decode("utf-8", "backslashreplace")
    said = f"535 user/s3crét is wrong, {latin} too, you said {plain}"
    with pytest.raises(RelayMisconfigured) as refused:
        open_up(Stage({Step.EHLO: OFFERS, Step.AUTH: said}), "tls", who)

    assert "s3cr" not in str(refused.value)
    assert plain not in str(refused.value)
    assert "s3cr" not in repr(plan("tls", who))


def test_of_an_answer_to_a_login_that_is_no_reply_nothing_is_shown() -> None:
    """It may repeat the secret in any form."""
    lost = Lost(
        Step.AUTH, "the server sent no reply", said="c4narypassword", reply=reply("535 c4narypassword")
    )
    lost.__cause__ = lost.__context__ = ValueError("c4narypassword")
    with pytest.raises(Lost, match=r"connection lost at AUTH: the server sent no reply$") as caught:
        open_up(Stage({Step.EHLO: OFFERS}, {("read", Step.AUTH): lost}), "tls", Password("user", "e"))

    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "c4narypassword" not in repr(vars(caught.value)) + repr(caught.value)
