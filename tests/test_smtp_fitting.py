"""Each connection is given what it can carry, and nothing that was not declared or not offered."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest
from examples import examples
from hypothesis import given, settings, strategies as st
from mime_trees import headers_of, leaves_of, sound_trees

from outbox.mail.downgrade import downgraded
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
PART = (
    'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\nüber\r\n--b\r\n'
    "Content-Type: text/plain; charset=latin1\r\nContent-Transfer-Encoding: 8bit\r\n"
    'Content-Disposition: attachment; filename="Grüße"\r\n\r\nGrüße\r\n--b--\r\nEpilög\r\n'
)
SEALED = PART.replace("mixed", "signed")
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
@settings(max_examples=examples(30), deadline=None)
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
        (
            PART.replace("MIME", "DKIM-Signature: a\r\nMIME").encode(),
            ("8BITMIME",),
            ["that of a part", "signs it"],
        ),
        (SEALED.encode(), ("8BITMIME",), ["SMTPUTF8", "within multipart/signed"]),
        (PART.replace("filename", "file name").encode(), ("8BITMIME",), ["SMTPUTF8", "several ways"]),
        (PART.encode("latin-1"), ("8BITMIME", "SMTPUTF8"), ["that of a part, is neither ASCII nor UTF-8"]),
        (PART.encode("latin-1"), ("8BITMIME",), ["'Content-Disposition' is neither ASCII nor UTF-8"]),
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


@pytest.mark.parametrize("content", [PART, SEALED], ids=["mixed", "signed"])
def test_a_file_s_name_is_declared_where_it_can_be_and_goes_as_it_is(content: str) -> None:
    message = Message(recipients=[A], sender=S, content=content.encode())
    with SMTPSink(manners="strict", offers=("8BITMIME", "SMTPUTF8")) as sink:
        assert isinstance(delivered(sink, message)[A], Accepted)
    [received] = sink.messages

    assert "SMTPUTF8" in received.options
    assert received.content == content.encode()


def test_where_it_cannot_be_declared_it_is_said_in_ascii_and_nothing_else_is_touched() -> None:
    message = Message(recipients=[A], sender=S, content=PART.encode())
    with SMTPSink(manners="strict", offers=("8BITMIME",)) as sink:
        assert isinstance(delivered(sink, message)[A], Accepted)
    [received] = sink.messages

    assert "SMTPUTF8" not in received.options
    ascii_name = PART.replace('; filename="Grüße"', ";\r\n filename*=utf-8''Gr%C3%BC%C3%9Fe")
    assert received.content == ascii_name.encode()


def test_a_mail_within_the_mail_counts_like_its_parts() -> None:
    content = ("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + PART).encode()

    assert Content.of(content).utf8
    assert fitted(content, "8BITMIME").whole.endswith("\r\n\r\nGrüße\r\n--b--\r\nEpilög\r\n".encode())
    assert not fitted(content, "8BITMIME").utf8


@pytest.mark.parametrize("offers", [("8BITMIME",), ("8BITMIME", "SMTPUTF8")])
@pytest.mark.parametrize("name", ["gruss", "grüße"])
def test_an_attached_mail_that_another_has_broken_goes_as_it_is(offers: tuple[str, ...], name: str) -> None:
    broken = b"Content-Type: message/rfc822\r\n\r\nSubject: Gr\xfc\xdfe\r\n\r\nbody\r\n--b--"
    content = PART.replace("Grüße", name, 1).partition("--b--")[0].encode() + b"--b\r\n" + broken
    made = fitted(content, *offers)

    assert made.whole.endswith(broken)
    assert made.utf8 is (name == "grüße" and "SMTPUTF8" in offers)
    assert "8BITMIME" in refusal(content)


@pytest.mark.parametrize("offers", [("8BITMIME",), ("8BITMIME", "SMTPUTF8")])
def test_beside_what_another_has_broken_the_field_that_is_utf8_is_declared_or_said_in_ascii(
    offers: tuple[str, ...],
) -> None:
    outer = b"MIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n\r\n"
    broken = (
        b"To: J\xf6rg\r\n <j@example.org>\r\nSubject: Gr\xc3\xbc\xc3\x9fe\r\nX-Note: gr\xfc\xdfe\r\n\r\nbody"
    )
    made = fitted(outer + broken, *offers)

    assert made.eightbit
    assert made.utf8 is ("SMTPUTF8" in offers)
    ascii_form = broken.replace(b"Gr\xc3\xbc\xc3\x9fe", b"=?utf-8?b?R3LDvMOfZQ==?=")
    assert made.whole == outer + (broken if "SMTPUTF8" in offers else ascii_form)
    assert "'To' is neither ASCII nor UTF-8" in refusal(outer + broken)


@pytest.mark.parametrize(
    ("content", "offers", "words"),
    [
        ("Received: ü\r\n\r\n", (), "is not ASCII and the server offers neither SMTPUTF8 nor 8BITMIME, and"),
        ("Received: ü\r\n\r\nü", (), "is not ASCII and the server offers neither SMTPUTF8 nor 8BITMIME, and"),
        ("Received: ü\r\n\r\n", ("SMTPUTF8",), "is not ASCII and the server does not offer 8BITMIME, and"),
        ("Received: ü\r\n\r\n", ("8BITMIME",), "is not ASCII and the server does not offer SMTPUTF8, and"),
        (
            "DKIM-Signature: a\r\n\r\nü",
            (),
            "its content is 8-bit and the server does not offer 8BITMIME, and",
        ),
    ],
)
def test_a_header_that_is_not_ascii_is_not_called_8_bit_content(
    content: str, offers: tuple[str, ...], words: str
) -> None:
    assert words in refusal(content.encode(), *offers)


# --- what it costs -------------------------------------------------------------------------------


def test_it_is_made_once_for_the_same_offers_however_many_transactions_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[bool, bool]] = []

    def noted(content: bytes, *, eightbit: bool, utf8: bool) -> bytes | str:
        made.append((eightbit, utf8))
        return downgraded(content, eightbit=eightbit, utf8=utf8)

    monkeypatch.setattr("outbox.transports.smtp.fitting.downgraded", noted)
    recipients = [f"r{number}@example.org" for number in range(250)]
    message = Message(recipients=recipients, sender=S, content=GREETING)
    with SMTPSink(manners="strict", offers=("PIPELINING",)) as sink:
        assert {type(result) for result in delivered(sink, message).values()} == {Accepted}
    assert (len(sink.messages), made) == (3, [(False, False)])

    content = Content.of(b"DKIM-Signature: a\r\n" + GREETING)
    reasons = {fit(content, offering("SIZE 999")) for _ in range(3)} | {fit(content, offering())}
    assert (len(reasons), made[1:]) == (1, [(False, False)])


def test_what_was_made_for_other_offers_is_not_taken() -> None:
    content = Content.of(GREETING)
    forms = [fit(content, offering(*offers)) for offers in [*OFFERS, *OFFERS]]

    assert forms[2] is content
    assert forms[:4] == forms[4:] == [fit(Content.of(GREETING), offering(*offers)) for offers in OFFERS]
    assert str(fit(content, offering("SIZE 85"))).startswith("it has ")
    assert isinstance(fit(content, offering()), Content)


@pytest.mark.parametrize(
    "line", ["Grüße an alle, und viele\r\n", "x" * 1200 + "\r\n"], ids=["8-bit", "overlong"]
)
@pytest.mark.parametrize("head", ["Subject: a\r\n\r\n", PART.partition("Grüße\r\n")[0]], ids=["text", "part"])
def test_a_large_mail_that_is_encoded_anew_takes_no_more_than_twice_its_size(head: str, line: str) -> None:
    body = line.encode() * (8_000_000 // len(line.encode()))
    content = Content.of(head.replace("über", "uber").encode() + body + b"\r\n--b--\r\n")
    tracemalloc.start()
    try:
        form = fit(content, offering())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert isinstance(form, Content), form
    assert peak < 2 * content.size


def test_a_large_mail_of_dots_is_not_copied_for_them() -> None:
    content = Content.of(b"Subject: a\r\n\r\n" + b".\r\n" * 2_000_000)
    tracemalloc.start()
    try:
        assert sum(map(len, content.blocks())) == content.dot + len(b".\r\n") == content.size + 2_000_003
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


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.sampled_from([b"a", b".", b"\r\n", b"\xff", b"a" * 500]), max_size=12).map(b"".join))
def test_long_lines_are_seen_wherever_they_are(content: bytes) -> None:
    assert Content.of(content).overlong is any(len(line) > 998 for line in content.split(b"\r\n"))
