"""The transcript of a dialogue tells what was said, and of secrets and content nothing; it is bounded."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import logging
import re
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from certificates import Authority
from hypothesis import given, strategies as st

from outbox import ConfigurationError, Delivery, Message, Outcome, RelayFault, SMTPTransport
from outbox.testing import ManualClock, SMTPSink
from outbox.transports.smtp.reply import Reply
from outbox.transports.smtp.steps import Lost, Step
from outbox.transports.smtp.transcript import LOG, Transcript
from outbox.values import DIALOGUE_LIMIT, abridged, printable_lines

SECRET = "c4narypassword-pässword"
FORMS = (
    SECRET,
    base64.b64encode(f"\0ann\0{SECRET}".encode()).decode(),
    base64.b64encode(SECRET.encode()).decode(),
)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def sink() -> Iterator[SMTPSink]:
    with SMTPSink() as sink:
        yield sink


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Every line that is logged live."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, level = Keep(), LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.DEBUG)
    yield lines
    LOG.removeHandler(handler)
    LOG.setLevel(level)


def message(*recipients: str, content: bytes = b"Subject: Hello\r\n\r\nc4narybody\r\n") -> Message:
    return Message(recipients=recipients or ("ann@example.org",), sender="shop@example.org", content=content)


def deliver(sink: SMTPSink, *recipients: str, **settings: Any) -> Outcome:
    with contextlib.closing(SMTPTransport(sink.host, sink.port, **settings)) as transport:
        mail = message(*recipients)
        return transport.deliver(mail, mail.recipients)


def spoken(outcome: Outcome) -> list[str]:
    """Its lines without their times."""
    return [line[7:] for line in outcome.dialogue.split("\n")]


def test_it_tells_who_said_what_in_which_order() -> None:
    with SMTPSink(offers=["SIZE"]) as sink:
        sink.on("dot", reply="451-4.3.0 the disk\n451 4.3.0 is full")
        lines = spoken(deliver(sink))

    assert lines[0] == f"-- connecting to {sink.host}:{sink.port}"
    assert lines[-9:] == [
        "C: MAIL FROM:<shop@example.org> SIZE=30",
        "S: 250 2.1.0 sender ok",
        "C: RCPT TO:<ann@example.org>",
        "S: 250 2.1.5 recipient ok",
        "C: DATA",
        "S: 354 go on, and end with a dot",
        "C: (content, 30 bytes)",
        "S: 451-4.3.0 the disk",
        "S: 451 4.3.0 is full",
    ]


def test_each_line_says_how_many_milliseconds_had_passed() -> None:
    clock = ManualClock()
    transcript = Transcript(clock)
    transcript.said(Step.MAIL, b"MAIL FROM:<>\r\n")
    clock.advance(dt.timedelta(milliseconds=1234))
    transcript.heard(Step.MAIL, Reply(250, ("one", "two")))

    assert transcript.text.split("\n") == [
        "     0 C: MAIL FROM:<>",
        "  1234 S: 250-one",
        "  1234 S: 250 two",
    ]


def test_a_delivery_to_everybody_keeps_nothing(sink: SMTPSink) -> None:
    assert deliver(sink).dialogue == ""


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize("said", [{"reply": "550 no"}, {"reply": "450 not now"}, {"close": True}])
def test_whatever_keeps_it_from_being_delivered_is_told(sink: SMTPSink, step: Any, said: Any) -> None:
    sink.on(step, **said)
    outcome = deliver(sink)

    assert said.get("reply", "connection lost at") in outcome.dialogue


def test_never_keeps_nothing(sink: SMTPSink) -> None:
    sink.on("rcpt", reply="550 no")

    assert deliver(sink, dialogue="never").dialogue == ""
    with pytest.raises(ConfigurationError, match="dialogue 'always' is none of failed, never"):
        deliver(sink, dialogue="always")


def test_a_connection_that_was_used_before_is_said_to_be_one(sink: SMTPSink) -> None:
    transport, mail = SMTPTransport(sink.host, sink.port), message()
    transport.deliver(mail, mail.recipients)
    sink.on("rcpt", reply="550 no")
    lines = spoken(transport.deliver(mail, mail.recipients))
    transport.close()

    assert re.fullmatch(r"-- over a connection to \S+ made 0 s ago; transactions before: 1", lines[0])
    assert not [line for line in lines if "EHLO" in line or "220" in line]


def test_nothing_of_one_delivery_is_in_the_transcript_of_the_next(sink: SMTPSink) -> None:
    sink.on("rcpt", reply="550 no")
    transport = SMTPTransport(sink.host, sink.port)
    outcomes = [transport.deliver(message(f"{n}@example.org"), [f"{n}@example.org"]) for n in ("one", "two")]
    transport.close()

    assert ["one@" in outcome.dialogue for outcome in outcomes] == [True, False]
    assert ["two@" in outcome.dialogue for outcome in outcomes] == [False, True]


# -- what is left out


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("form", range(len(FORMS)))
@pytest.mark.parametrize("step", ["auth", "mail", "rcpt", "dot"])
def test_no_secret_is_in_it_though_the_server_repeats_it(
    authority: Authority, mechanism: str, form: int, step: Any, log: list[str]
) -> None:
    with SMTPSink(tls=authority.server(), users={"ann": SECRET}, mechanisms=[mechanism]) as sink:
        sink.on(step, reply=f"454-4.7.0 {FORMS[form]}\n454 4.7.0 was {FORMS[form]}?")
        with contextlib.suppress(RelayFault):
            outcome = deliver(
                sink, security="tls", ssl_context=authority.client(), username="ann", password=SECRET
            )
            log.append(outcome.dialogue)
    told = "\n".join(log)

    assert f"C: AUTH {mechanism}" in told
    assert "S: 454-4.7.0 ***" in told
    assert not [form for form in FORMS if form in told]


def test_a_challenge_that_repeats_the_secret_is_left_out() -> None:
    transcript = Transcript(ManualClock())
    transcript.said(Step.AUTH, b"AUTH LOGIN\r\n")
    transcript.heard(Step.AUTH, Reply(334, (FORMS[2],)))
    transcript.said(Step.AUTH, FORMS[2].encode() + b"\r\n")
    transcript.lost(Lost(Step.AUTH, "the server sent nonsense", said=SECRET, reply=Reply(535, (SECRET,))))

    assert [line[7:] for line in transcript.text.split("\n")] == [
        "C: AUTH LOGIN",
        "S: 334 (challenge)",
        "C: (secret)",
        "-- connection lost at AUTH: the server sent nonsense",
    ]


def test_no_content_is_in_it(sink: SMTPSink) -> None:
    sink.on("dot", reply="554 no")
    assert "Hello" not in deliver(sink).dialogue


def test_what_a_server_says_can_steer_no_terminal_and_forge_no_line(sink: SMTPSink) -> None:
    sink.on("rcpt", reply=b"550-\x1b[2J\r   99 S: 250 \xff\xe2\x80\xae\r\n550 no\r\n")
    text = deliver(sink).dialogue

    assert "S: 550-\\x1b[2J\\r   99 S: 250 \\xff\\u202e\n" in text


# -- under TLS


def test_it_tells_whose_certificate_it_was_and_until_when(authority: Authority) -> None:
    with SMTPSink(starttls=authority.server("127.0.0.1", "mx.example.org")) as sink:
        sink.on("mail", reply="450 no")
        outcome = deliver(sink, security="starttls", ssl_context=authority.client())

    assert re.search(
        r"-- TLS 1\.[23], \w+, certificate of (127\.0\.0\.1|mx\.example\.org), (127\.0\.0\.1|mx\.example\.org), "
        r"from trustme .* until \d{4}-\d\d-\d\d$",
        outcome.dialogue,
        re.MULTILINE,
    )


def test_a_certificate_that_nobody_asked_for_is_said_not_to_be_verified(authority: Authority) -> None:
    with SMTPSink(starttls=authority.server()) as sink:
        sink.on("mail", reply="450 no")
        outcome = deliver(sink, security="opportunistic")

    assert re.search(r"certificate not verified, SHA-256 [0-9a-f]{64}\n", outcome.dialogue)


def test_a_name_that_was_not_compared_is_said_not_to_be(authority: Authority) -> None:
    context = authority.client()
    context.check_hostname = False
    with SMTPSink(tls=authority.server("other.example.org")) as sink:
        sink.on("mail", reply="450 no")
        outcome = deliver(sink, security="tls", ssl_context=context)

    assert "certificate of other.example.org" in outcome.dialogue
    assert "its name not compared\n" in outcome.dialogue
    assert context.verify_mode is ssl.CERT_REQUIRED


# -- within bounds


def test_of_a_long_dialogue_the_beginning_and_the_end_are_kept(sink: SMTPSink) -> None:
    sink.on("dot", reply="451 4.3.0 not now")
    recipients = [f"somebody-{n}@example.org" for n in range(1000)]
    outcome = deliver(sink, *recipients)
    lines = outcome.dialogue.split("\n")
    (gap,) = [line for line in lines if "left out" in line]
    kept = len(lines) - 1

    assert DIALOGUE_LIMIT * 0.8 < len(outcome.dialogue) <= DIALOGUE_LIMIT
    assert "connecting to" in lines[0]
    assert lines[-1].endswith("S: 451 4.3.0 not now")
    assert sum("RCPT" in line for line in lines) < 1000
    said = re.fullmatch(r"… ([\d,]+) lines left out …", gap)
    assert said
    # A greeting of EHLO and eight lines, and of each transaction three commands with their replies and the content.
    whole = len(sink.commands) * 2 + 10 * 2 + 6 + 3
    assert abs(int(said[1].replace(",", "")) + kept - whole) < 30


def test_what_is_noted_meanwhile_is_bounded_too() -> None:
    transcript = Transcript(ManualClock())
    for _ in range(20_000):
        transcript.heard(Step.RCPT, Reply(250, ("x" * 100,)))
    noted = len(transcript._first) + len(transcript._last)

    assert noted < 1000
    lines = transcript.text.split("\n")
    (gap,) = [line for line in lines if "left out" in line]
    assert gap == f"… {20_000 - len(lines) + 1:,} lines left out …"


@given(st.lists(st.text(max_size=40), max_size=60), st.integers(100, 400))
def test_abridged_lines_are_the_first_and_the_last_of_them(lines: list[str], limit: int) -> None:
    kept = abridged(lines, limit=limit)

    assert sum(map(len, kept)) + len(kept) <= limit
    if kept != lines:
        at = next(n for n, line in enumerate(kept) if re.fullmatch(r"… [\d,]+ lines left out …", line))
        first, last = kept[:at], kept[at + 1 :]
        assert lines[: len(first)] == first
        assert lines[len(lines) - len(last) :] == last
        assert kept[at] == f"… {len(lines) - len(first) - len(last):,} lines left out …"


@given(st.text(max_size=300))
def test_lines_made_printable_stay_as_they_are_when_it_is_done_again(text: str) -> None:
    once = printable_lines(text)

    assert printable_lines(once) == once
    assert all(line.isprintable() for line in once.split("\n"))


# -- live


def test_every_line_is_logged_as_it_comes_where_somebody_listens(sink: SMTPSink, log: list[str]) -> None:
    sink.on("rcpt", reply="550 no")
    outcome = deliver(sink)

    assert log == outcome.dialogue.split("\n")


def test_a_connection_that_never_came_is_logged(log: list[str]) -> None:
    with SMTPSink() as sink:
        port = sink.port
    with pytest.raises(RelayFault), contextlib.closing(SMTPTransport("127.0.0.1", port)) as transport:
        transport.deliver(message(), ["ann@example.org"])

    assert [line[7:] for line in log] == [f"-- connecting to 127.0.0.1:{port}"]


# -- several in a row


def test_each_of_a_batch_has_its_own_transcript_though_it_was_begun_with_the_one_before(
    sink: SMTPSink,
) -> None:
    sink.on("dot", reply="450 4.3.0 not now")
    mails = [message(f"{name}@example.org") for name in ("one", "two", "three")]
    with contextlib.closing(SMTPTransport(sink.host, sink.port)) as transport:
        outcomes = list(transport.deliver_many(Delivery(mail, mail.recipients) for mail in mails))

    for mail, outcome in zip(mails, outcomes, strict=True):
        named = [line for line in spoken(outcome) if line.startswith("C: RCPT")]
        assert named == [f"C: RCPT TO:<{mail.recipients[0]}>"]
        assert spoken(outcome)[-1] == "S: 450 4.3.0 not now"
    assert "-- with the content of the mail before went:" in spoken(outcomes[1])
