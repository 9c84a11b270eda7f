"""Each connection is given what it can carry, and nothing that was not declared or not offered."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest
from hypothesis import given, settings, strategies as st
from mime_trees import headers_of, leaves_of, sound_trees

from outbox.message import Message
from outbox.outcome import Accepted, PermFailed
from outbox.testing.smtp_sink import SMTPSink
from outbox.transports.smtp import SMTPTransport
from outbox.transports.smtp.content import Content
from outbox.transports.smtp.envelope import prepare
from outbox.transports.smtp.extensions import Extensions
from outbox.transports.smtp.fitting import fit, fit_mail, fit_path

A, S = "a@example.org", "s@example.org"
GREETING = "Message-ID: <1@example.org>\r\nSubject: Grüße\r\n\r\nViele Grüße an alle\r\n".encode()
OFFERS = [(), ("8BITMIME",), ("8BITMIME", "SMTPUTF8"), ("SMTPUTF8",)]


def offering(*keywords: str, told: bool = True) -> Extensions:
    offers = dict(keyword.partition(" ")[::2] for keyword in keywords)
    return Extensions(offers, told=told)


def fitted(content: bytes, *keywords: str) -> Content:
    made = fit(Content.of(content), offering(*keywords))
    assert isinstance(made, Content), made
    return made


def refusal(content: bytes, *keywords: str) -> str:
    made = fit(Content.of(content), offering(*keywords))
    assert isinstance(made, str)
    return made


# --- content -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "offers"),
    [
        (b"", ()),
        (b"Subject: a\r\n\r\nb\r\n", ()),
        (b"a" * 998 + b"\r\n" + b"." * 998, ()),
        ("Subject: a\r\n\r\nü\r\n".encode(), ("8BITMIME",)),
        (GREETING, ("8BITMIME", "SMTPUTF8")),
        (GREETING, ("8BITMIME", "SMTPUTF8", f"SIZE {len(GREETING)}")),
    ],
)
def test_what_a_server_takes_as_it_is_goes_as_it_is(content: bytes, offers: tuple[str, ...]) -> None:
    before = Content.of(content)

    assert fit(before, offering(*offers)) is before


@pytest.mark.parametrize("offers", OFFERS)
@settings(max_examples=30, deadline=None)
@given(sound_trees())
def test_nothing_goes_that_would_need_what_is_not_offered(offers: tuple[str, ...], content: bytes) -> None:
    made = fitted(content, *offers)

    assert not made.overlong
    assert "8BITMIME" in offers or not made.eightbit
    assert "SMTPUTF8" in offers or not made.utf8
    assert leaves_of(made.whole) == leaves_of(content)
    assert headers_of(made.whole)[0] == headers_of(content)[0]
    assert fitted(content, *offers) == made, "the same bytes at every attempt"


def test_the_size_is_that_of_what_goes_out() -> None:
    content = b"Subject: a\r\n\r\n" + "ü".encode() * 100

    assert fitted(content, "8BITMIME", "SIZE 220").whole == content
    assert "server takes 220 at most" in refusal(content, "SIZE 220")
    assert fitted(content, "SIZE 1000").size == len(fitted(content).whole) + 2


@pytest.mark.parametrize(
    ("content", "offers", "words"),
    [
        ("DKIM-Signature: a\r\n\r\nü".encode(), (), ["8BITMIME", "'DKIM-Signature' signs it"]),
        ("DKIM-Signature: a\r\nSubject: ü\r\n\r\n".encode(), ("8BITMIME",), ["SMTPUTF8", "signs it"]),
        (b"DKIM-Signature: a\r\n\r\n" + b"a" * 999, ("8BITMIME",), ["998 octets", "signs it"]),
        (b"Subject: " + b"a" * 990, ("8BITMIME",), ["998 octets", "a line of the header"]),
        ("Message-ID: <ü@x>\r\n\r\n".encode(), ("8BITMIME",), ["SMTPUTF8", "'Message-ID' is not ASCII"]),
        (b"Subject: \xff\r\n\r\n", ("8BITMIME", "SMTPUTF8"), ["neither ASCII nor UTF-8"]),
        (b"a" * 2000, ("SIZE 1999",), ["2002 bytes", "1999 at most"]),
    ],
)
def test_the_reason_says_what_is_missing_and_why_there_is_no_other_way(
    content: bytes, offers: tuple[str, ...], words: list[str]
) -> None:
    said = refusal(content, *offers)

    assert all(word in said for word in words), said


def test_a_large_mail_that_fits_is_neither_copied_nor_scanned_into_memory() -> None:
    message = Message(
        recipients=[A], sender=S, content=b"a" * 76 + b"\r\n" + b"b" * 998 + b"\r\n" * 8_000_000
    )
    tracemalloc.start()
    try:
        mail, _ = prepare(message, [A])
        fitting, _ = fit_mail(mail, [A], offering())
        assert sum(map(len, fitting.content.blocks())) > 16_000_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


# --- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "ascii_form"),
    [
        ("a@example.org", "a@example.org"),
        ("a@bücher.example", "a@xn--bcher-kva.example"),
        ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
        ("a@例え.テスト", "a@xn--r8jz45g.xn--zckzah"),
        ("jörg@example.org", None),
        ("jörg@bücher.example", None),
        ("a@straße.example", None),
        ("a@βόλος.example", None),
        ("a@x\u200dy.example", None),
        ("a@BÜCHER.example", "a@xn--bcher-kva.example"),
        ("a@①.example", None),
        ("jörg", None),
        ("a@ü..example", None),
    ],
)
def test_a_domain_is_written_in_ascii_where_all_readers_agree_on_it(
    address: str, ascii_form: str | None
) -> None:
    known = ascii_form and ascii_form.encode()

    assert fit_path(address.encode(), offering("8BITMIME")) == known
    assert fit_path(address.encode(), offering("8BITMIME", "SMTPUTF8")) == address.encode()


def test_each_recipient_is_asked_for_by_itself() -> None:
    recipients = (A, "jörg@example.org", "b@bücher.example")
    mail, _ = prepare(Message(recipients=recipients, sender=S, content=b""), recipients)
    fitting, refused = fit_mail(mail, recipients, offering())

    assert dict(fitting.paths) == {A: b"a@example.org", "b@bücher.example": b"b@xn--bcher-kva.example"}
    assert list(refused) == ["jörg@example.org"]
    assert fit_mail(mail, [A], offering())[0].content is mail.content


# --- over the wire -------------------------------------------------------------------------------


def delivered(sink: SMTPSink, message: Message) -> dict[str, object]:
    with contextlib.closing(SMTPTransport(sink.host, sink.port)) as transport:
        return dict(transport.deliver(message, message.recipients).results)


@pytest.mark.parametrize("offers", OFFERS)
@pytest.mark.parametrize(
    "content", [GREETING, b"Subject: a\r\n\r\n" + b"." * 1001 + b"\r\n"], ids=["8-bit", "overlong"]
)
def test_a_strict_server_has_nothing_to_say_against_it(offers: tuple[str, ...], content: bytes) -> None:
    message = Message(recipients=[A, "b@bücher.example"], sender="s@bücher.example", content=content)
    with SMTPSink(manners="strict", offers=offers) as sink:
        results = [delivered(sink, message) for _ in range(2)]

    assert {type(result) for each in results for result in each.values()} == {Accepted}
    assert sink.violations == ()
    first, second = sink.messages
    assert first.content == second.content
    assert leaves_of(first.content) == leaves_of(content)
    assert headers_of(first.content) == headers_of(content)
    if "8BITMIME" not in offers:
        assert not any(option.startswith("BODY") for option in first.options)


def test_what_is_refused_for_it_was_never_begun() -> None:
    message = Message(recipients=[A], sender=S, content="DKIM-Signature: a\r\n\r\nü".encode())
    with SMTPSink(manners="strict", offers=()) as sink:
        [result] = delivered(sink, message).values()

    assert isinstance(result, PermFailed)
    assert sink.messages == ()
    assert not any(command.startswith("MAIL") for command in sink.commands)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([b"a", b".", b"\r\n", b"\xff", b"a" * 500]), max_size=12).map(b"".join))
def test_long_lines_are_seen_wherever_they_are(content: bytes) -> None:
    assert Content.of(content).overlong is any(len(line) > 998 for line in content.split(b"\r\n"))
