"""Mail that comes as bytes: kept byte for byte, but for what must change, or refused with line and rule."""

from __future__ import annotations

import base64
import datetime as dt
import re

import pytest
from hypothesis import example, given, strategies as st

from outbox.errors import InvalidMessage
from outbox.mail import from_email, is_8bit, needs_smtputf8
from outbox.message import Message
from outbox.testing.clock import ManualClock

HEADER = b"Message-ID: <1@example.org>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\nSubject: x\r\n"
MAIL = HEADER + b"\r\nHello\r\n"


def taken(source: bytes, **options: object) -> Message:
    settings: dict[str, object] = {
        "sender": "from@example.org",
        "recipients": ["to@example.org"],
        "clock": ManualClock(),
    }
    return from_email(source, **settings | options)  # type: ignore[arg-type]  # a test may pass anything


def kept(source: bytes) -> bytes:
    return taken(source).content


def refusal(source: bytes) -> str:
    with pytest.raises(InvalidMessage) as refused:
        taken(source)
    assert str(refused.value).isprintable()
    return str(refused.value)


# --- what is kept --------------------------------------------------------------------------------


def test_wire_bytes_are_kept_and_not_even_copied() -> None:
    assert kept(MAIL) is MAIL


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no line end",
        b"\r\n\r\n\r\n",
        b".\r\n..\r\n.x\r\n",
        b"From me\r\n>From you\r\n",
        b"trailing  \r\n\ttab\t\r\n",
        b"\x01\x07\x1b[31m\x7f\x0b\x0c control characters\r\n",
        "Grüße, 日本語\r\n".encode(),
        "Grüße\r\n".encode("latin-1"),
        b"Bcc: this is text\r\n",
        b"x" * 998 + b"\r\n" + b"y" * 998,
    ],
)
def test_a_body_is_kept_whatever_it_says(body: bytes) -> None:
    assert kept(HEADER + b"\r\n" + body) == HEADER + b"\r\n" + body


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_other_kinds_of_bytes_are_bytes(kind: type) -> None:
    assert kept(kind(MAIL)) == MAIL


def test_a_file_of_a_unix_disk_gets_the_line_ends_of_the_wire() -> None:
    source = MAIL.replace(b"\r\n", b"\n")
    assert kept(source) == MAIL


@pytest.mark.parametrize("source", [b"", b"\r\n", b"\r\nbody\r\n", HEADER, HEADER.rstrip(), b"Subject: x"])
def test_a_mail_may_lack_a_header_a_body_or_its_last_line_end(source: bytes) -> None:
    content = kept(source)
    assert content.endswith(source)
    assert kept(content) == content


@pytest.mark.parametrize(
    "line",
    [
        b"X-Empty:",
        b"X:no space",
        b"!#$%&'*+-.^_`|~;[]@: odd but legal name",
        b"X-Tab:\tvalue\t",
        b"Subject: folded\r\n over\r\n\tthree lines",
        b"Subject: a line of white space\r\n \r\n\tand more",
        b"From: not an address list",
        b"To: Doe, John <j@example.org",
        b"Content-Type: text",
        "Subject: Grüße".encode(),
    ],
)
def test_header_fields_are_kept_as_they_are(line: bytes) -> None:
    source = HEADER + line + b"\r\n\r\nHello\r\n"
    assert kept(source) == source


# --- what is added and taken away ----------------------------------------------------------------


def test_message_id_and_date_are_added_on_top_where_they_are_missing() -> None:
    clock = ManualClock(dt.datetime(2026, 2, 3, 4, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=2))))
    message = taken(b"Subject: x\r\n\r\n", clock=clock)

    added = f"Message-ID: <{message.id}@example.org>\r\nDate: Tue, 03 Feb 2026 02:05:06 +0000\r\n"
    assert message.content == added.encode() + b"Subject: x\r\n\r\n"


def test_a_chosen_id_does_not_become_the_message_id() -> None:
    """Two mails of one idempotency key, in two stores, are still two mails to the world."""
    message = taken(b"Subject: x\r\n\r\n", id="order-4711")
    assert message.id == "order-4711"
    assert b"order-4711" not in message.content
    assert re.match(rb"Message-ID: <[0-9a-f-]{36}@example\.org>\r\n", message.content)


@pytest.mark.parametrize(
    ("origin", "host"),
    [(None, "localhost"), ("example.org", "example.org"), ("exämple.org", "xn--exmple-cua.org")],
)
def test_what_nobody_sends_has_an_id_of_the_domain_of_bare_names(origin: str | None, host: str) -> None:
    message = from_email(b"To: a@x.org\n\nx\n", sender="", origin=origin)
    assert f"Message-ID: <{message.id}@{host}>".encode() in message.content.split(b"\r\n")


@pytest.mark.parametrize(
    ("sender", "right"),
    [
        ("a@Example.org", b"Example.org"),
        ("a@bücher.example", b"xn--bcher-kva.example"),
        ("a@[192.0.2.1]", b"[192.0.2.1]"),
        ("", b"localhost"),
    ],
)
def test_the_message_id_is_of_the_sender_s_domain(sender: str, right: bytes) -> None:
    content = taken(b"Subject: x\r\n\r\n", sender=sender).content
    assert content.partition(b"@")[2].startswith(right + b">\r\n")


@pytest.mark.parametrize("name", [b"message-id", b"MESSAGE-ID", b"Message-Id"])
def test_a_field_that_is_there_is_not_added_again_in_whichever_case(name: bytes) -> None:
    source = name + b": <x@y>\r\ndate: today\r\n\r\n"
    assert kept(source) == source


@pytest.mark.parametrize("empty", [b"Message-ID:\r\n", b"message-id: \t\r\n \r\n", b"Date:\r\n"])
def test_an_empty_field_is_a_missing_one_and_makes_room(empty: bytes) -> None:
    content = kept(b"X: 1\r\n" + empty + b"Subject: x\r\n\r\nMessage-ID:\r\nDate:\r\n")

    header, _, body = content.partition(b"\r\n\r\n")
    names = [line.partition(b":")[0] for line in header.split(b"\r\n")]
    assert names == [b"Message-ID", b"Date", b"X", b"Subject"]
    assert all(len(line.partition(b":")[2]) > 1 for line in header.split(b"\r\n"))
    assert body == b"Message-ID:\r\nDate:\r\n"
    twice = HEADER + empty + b"\r\n"
    assert kept(twice) == twice


SIGNATURES = [b"DKIM-Signature", b"ARC-Message-Signature", b"DomainKey-Signature"]


@pytest.mark.parametrize("name", SIGNATURES)
@pytest.mark.parametrize(
    ("tag", "header", "field"),
    [
        (b"h=from:to:date:message-id", b"Date: today\r\n", "Message-ID"),
        (b"h=From : To :\r\n Message-Id", b"Date: today\r\n", "Message-ID"),
        (b"v=1;h=from:date:\r\n\tdate;b=", b"Message-ID: <1@x>\r\n", "Date"),
        (b"h=from:bcc", HEADER + b"Bcc: a@example.org\r\n", "Bcc"),
        (b"h=resent-bcc", HEADER + b"Resent-Bcc: a@example.org\r\n", "Resent-Bcc"),
        (b"h=message-id", b"Date: today\r\nMessage-ID:\r\n", "Message-ID"),
    ],
)
def test_what_a_signature_covers_is_neither_added_nor_taken_away(
    name: bytes, tag: bytes, header: bytes, field: str
) -> None:
    text = refusal(b"X: 1\r\n" + name + b": a=rsa-sha256; " + tag + b"; b=abc\r\n" + header + b"\r\nHi\r\n")

    assert text.startswith(f"line 2: the field {name.decode()!r} signs {field}")
    assert "RFC 6376 section 5.4" in text
    assert "before it is signed" in text


@pytest.mark.parametrize(
    "source",
    [
        b"DKIM-Signature: v=1; h=from:to:subject; b=h=date\r\nSubject: x\r\n\r\n",
        b"DKIM-Signature: v=1\r\nSubject: h=date\r\n\r\n",
        b"X-Signature: h=date:message-id\r\n\r\n",
        b"DKIM-Signature: h=date:bcc:message-id:message-id\r\n" + HEADER + b"\r\n",
    ],
)
def test_a_signature_that_does_not_cover_it_hinders_nothing(source: bytes) -> None:
    assert kept(source).endswith(source)


@pytest.mark.parametrize(
    "blind",
    [
        b"Bcc: a@example.org\r\n",
        b"bcc:a@example.org\r\n",
        b"BCC:\r\n\ta@example.org,\r\n b@example.org\r\n",
        b"Resent-Bcc: a@example.org\r\n",
        b"Bcc:\r\n",
        b"Bcc: a@example.org\r\nBcc: b@example.org\r\n \r\n",
        b"Bcc: not, an < address\r\n",
    ],
)
@pytest.mark.parametrize("end", [b"\r\nBcc: a@example.org stays in the body\r\n", b""])
def test_blind_copies_go_from_the_header_and_nothing_else_does(blind: bytes, end: bytes) -> None:
    before, after = HEADER, b"X-Bcc: stays\r\nTo: b@example.org\r\n"
    assert kept(blind + HEADER + end) == HEADER + end
    assert kept(before + blind + after + end) == before + after + end
    assert kept(before + after + blind + end) == before + after + end
    assert kept(before + blind + after + blind + end) == before + after + end


def test_a_blind_copy_without_a_line_end_goes_too() -> None:
    assert kept(HEADER + b"Bcc: a@example.org") == HEADER


@pytest.mark.parametrize("postmark", [b"From a@b Thu Jan  1 00:00:00 2026\r\n", b">From \r\nFrom x\r\n"])
def test_the_from_lines_of_a_mailbox_file_are_passed_over(postmark: bytes) -> None:
    assert kept(postmark + MAIL) == MAIL
    assert refusal(postmark + b"no field\r\n").startswith(f"line {len(postmark.splitlines()) + 1}: ")


def test_line_numbers_count_the_from_line() -> None:
    assert refusal(b"From a@b\nSubject: x\nno field\n").startswith("line 3: 'no field' is neither")


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "start", "rule"),
    [
        (MAIL + b"a\nb\r\n", "line 6: a line feed without a carriage return", "2.3.8"),
        (MAIL.replace(b"\r\n", b"\n") + b"a\r\n", "line 1: a line feed without a carriage return", "2.3.8"),
        (MAIL + b"a\rb\r\n", "line 6: a carriage return without a line feed", "2.3.8"),
        (MAIL + b"a\rb\n", "line 6: a carriage return without a line feed", "2.3.8"),
        (MAIL + b"a\r\r\n", "line 6: a carriage return without a line feed", "2.3.8"),
        (MAIL + b"a\r", "line 6: a carriage return without a line feed", "2.3.8"),
        (b"Subject: x\r\rbody\r", "line 1: a carriage return without a line feed", "2.3.8"),
        (b"Subject: x\n\nbody\r", "line 3: a carriage return without a line feed", "2.3.8"),
        (MAIL + b"\r\n.\n", "line 7: a line feed", "2.3.8"),
        (MAIL + b"\r\n.\r", "line 7: a carriage return", "2.3.8"),
        (MAIL + b"a\0b\r\n", "line 6: a NUL byte", "RFC 5322 section 4"),
        ("Subject: x\n".encode("utf-16"), "line 1: a NUL byte", "RFC 5322 section 4"),
        (MAIL + b"x" * 999, "line 6: a line of 999 octets", "RFC 5322 section 2.1.1"),
        (
            HEADER + b"X: " + b"x" * 996 + b"\r\n\r\n",
            "line 4: a line of 999 octets",
            "RFC 5322 section 2.1.1",
        ),
        (b"no field\r\n\r\n", "line 1: 'no field' is neither", "RFC 5322 section 2.2"),
        (HEADER + b"text: of a body\r\nbegins\r\n", "line 5: 'begins' is neither", "RFC 5322 section 2.2"),
        (HEADER + b"two words: x\r\n", "line 4: 'two words: x' is neither", "RFC 5322 section 2.2"),
        (HEADER + b"Bcc : x\r\n", "line 4: 'Bcc : x' has a space between", "RFC 5322 section 2.2"),
        (b"From : x\r\n", "line 1: 'From : x' has a space between", "RFC 5322 section 2.2"),
        (HEADER + b": x\r\n", "line 4: ': x' has a character", "RFC 5322 section 3.6.8"),
        ("\ufeffSubject: x\r\n".encode(), "line 1: '\\\\ufeffSubject: x' has a character", "3.6.8"),
        ("Ü: x\r\n".encode(), "line 1: 'Ü: x' has a character", "RFC 5322 section 3.6.8"),
        (b" Subject: x\r\n\r\n", "line 1: the header begins with white space", "RFC 5322 section 2.2.3"),
        (b" \r\nSubject: x\r\n", "line 1: the header begins with white space", "RFC 5322 section 2.2.3"),
        (HEADER + b"X: a\x07b\r\n", r"line 4: the control character '\x07'", "RFC 5322 section 2.2"),
        (HEADER + b"X: a\r\n \x1b b\r\n", r"line 5: the control character '\x1b'", "RFC 5322 section 2.2"),
        (HEADER + b"X: \x7f\r\n", r"line 4: the control character '\x7f'", "RFC 5322 section 2.2"),
        (HEADER + "X: a\x85b\r\n".encode(), r"line 4: the control character '\x85'", "RFC 5322 section 2.2"),
        (HEADER + "X: a\u2028b\r\n".encode(), r"line 4: the control character '\u2028'", "2.2"),
        (HEADER + "X: Grüße\r\n".encode("latin-1"), "line 4: bytes in the header", "RFC 6532"),
        (HEADER + b"X: \xed\xa0\x80\r\n", "line 4: bytes in the header", "RFC 6532"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_its_line_and_rule(source: bytes, start: str, rule: str) -> None:
    text = refusal(source)
    assert text.startswith(start)
    assert rule in text


def test_a_refusal_says_what_to_do() -> None:
    assert refusal(MAIL + b"x" * 999).endswith("encode the part with quoted-printable or base64")
    assert refusal(b"X: " + b"x" * 999).endswith("fold the field: begin a new line with a space in it")
    assert refusal(MAIL + b"\n").endswith("end every line in the same way, all LF or all CRLF")


def test_a_refusal_shows_a_piece_of_the_line_and_not_all_of_it() -> None:
    assert len(refusal(b"x" * 1_000_000)) < 300


@pytest.mark.parametrize("source", ["Subject: x", None, 5, [b"x"]])
def test_text_and_other_things_are_no_mail(source: object) -> None:
    with pytest.raises(InvalidMessage, match="encode text, read files in binary mode"):
        from_email(source, recipients=["a@example.org"])  # type: ignore[arg-type]  # the point of the test


# --- line breaks in disguise ---------------------------------------------------------------------


def encoded(text: bytes, charset: str = "utf-8") -> bytes:
    return b"=?" + charset.encode() + b"?b?" + base64.b64encode(text) + b"?="


@pytest.mark.parametrize(
    "value",
    [
        b"=?utf-8?q?a=0ABcc:_x?=",
        b"=?utf-8?Q?a=0d?=",
        b"=?utf-8?q?=00?=",
        b"=?utf-8*en?q?=0A?=",
        b"=?x-unknown?q?=0A?=",
        b"=?utf-8?q?a?b=0A?=",
        b"=?utf-8?q?a b=0A?=",
        b"=?utf-8?q?a\r\n =0A?=",
        b"before =?utf-8?q?fine?= =?utf-8?q?=0A?= after",
        encoded(b"a\nb"),
        encoded(b"\r"),
        encoded(b"a\0"),
        b"=?utf-8?b?SGk=Cg==?=",
        b"=?utf-8?q?a=C2=85b?=",
        b"=?UTF8?q?a=e2=80=a8b?=",
        b"=?utf-8?b?4oCp?=",
        b"=?utf-8?q?a=0Bb?=",
        b"=?us-ascii?q?a=1Cb?=",
        b"attachment; filename*=utf-8''a%C2%85b",
        b"attachment; filename*=UTF-8''a%E2%80%A8b",
        b"=?utf-8?b?Cg?=",
        b"=?utf-8?b?C g = =?=",
        b"=?utf-7?q?+AAo-?=",
        b"=?UNICODE-1-1-UTF-7?q?+AAo-?=",
        b"=?unicode_escape?q?\\n?=",
        encoded("\n".encode("utf-16-be"), "utf-16-be"),
        encoded("\n".encode("cp500"), "cp500"),
        b"attachment; filename*=utf-8''a%0Ab",
        b"attachment; filename*0*=utf-8''a; filename*1*=%0d%0ab",
        b"attachment; filename*=\"utf-8''a%0Ab\"",
        b"attachment; filename * = utf-8''%00",
        b"attachment; filename*=utf-7''+AAo-",
        b"attachment; a=\"x; filename*=utf-8''%0A\"",
    ],
)
def test_a_line_break_that_an_encoding_hides_is_refused(value: bytes) -> None:
    for name in (b"Subject", b"X-Any", b"Content-Disposition"):
        text = refusal(HEADER + name + b": " + value + b"\r\n\r\n")
        assert text.startswith(f"line 4: the field '{name.decode()}' holds a")
        assert "RFC 2047" in text


@pytest.mark.parametrize(
    "value",
    [
        "=?utf-8?q?100=25_=3D_0A?=",
        "=?utf-8?q?%0A_is_a_newline_in_a_URL?=",
        "=?utf-8?b?R3LDvMOfZQ==?= =?iso-8859-1?q?Gr=FC=DFe?=",
        "=?iso-2022-jp?b?GyRCRnxLXBsoQg==?=",
        "=?windows-1252?q?and so on=85?= =?iso-8859-1?q?and so on=85?= =?koi8-r?q?=C2=85?=",
        "=?utf-8?q?=E2=80=A6_=C2=A0?=",
        "=?shift_jis?b?k/qWew==?= =?gb2312?b?1tDOxA==?= =?koi8-r?b?8NLJ18XU?=",
        "=?utf-8?b?broken base64 =?=",
        "=?utf-8?q?no end",
        "=? ?= =?utf-8?x?=0A?=",
        "attachment; filename*=utf-8''100%25%20%0",
        "attachment; filename*0=plain; filename*1=%0A",
        "attachment; filename=%0A",
        "attachment; filename*=utf-8''=0A",
        "<https://example.org/?a=1&b*=%0A>, <mailto:a@example.org?body=%0D%0A>",
    ],
)
def test_a_value_that_hides_nothing_is_kept(value: str) -> None:
    source = HEADER + f"X: {value}\r\n\r\n".encode()
    assert kept(source) == source


# --- what it takes to send it --------------------------------------------------------------------


def test_eight_bit_content_is_told_apart() -> None:
    assert not is_8bit(taken(MAIL))
    assert is_8bit(taken(MAIL + b"\xff\r\n"))
    assert is_8bit(taken("Subject: ü\r\n\r\n".encode()))


def test_smtputf8_is_needed_for_the_envelope_and_the_header_but_not_for_the_body() -> None:
    assert not needs_smtputf8(taken(MAIL))
    assert not needs_smtputf8(taken(MAIL + "Grüße\r\n".encode()))
    assert not needs_smtputf8(taken(b"\r\n" + "Grüße\r\n".encode()))
    assert not needs_smtputf8(taken(MAIL, recipients=["a@bücher.example"]))
    assert needs_smtputf8(taken("Subject: Grüße\r\n\r\n".encode()))
    assert needs_smtputf8(taken("Subject: Grüße".encode()))
    assert needs_smtputf8(taken(MAIL, recipients=["b@example.org", "jörg@example.org"]))
    assert needs_smtputf8(taken(MAIL, sender="jörg@example.org"))


def test_the_other_fields_are_the_message_s_own() -> None:
    later = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
    message = taken(
        MAIL,
        queue="mail.bulk",
        id="a-1",
        priority=7,
        attributes={"tenant": "x"},
        not_before=later,
        expires_at=later,
        at_most_once=True,
    )
    assert (message.queue, message.id, message.priority, message.at_most_once) == (
        "mail.bulk",
        "a-1",
        7,
        True,
    )
    assert (dict(message.attributes), message.not_before, message.expires_at) == (
        {"tenant": "x"},
        later,
        later,
    )
    with pytest.raises(InvalidMessage, match="priority"):
        taken(MAIL, priority=1000)


# --- promises over all bytes ---------------------------------------------------------------------

names = st.sampled_from(
    [b"Subject", b"To", b"bcc", b"Bcc", b"Resent-Bcc", b"From", b"X-1", b"Date", b"message-id"]
)
values = st.binary(max_size=30).map(lambda raw: re.sub(rb"[^ -~\t]", b"", raw)) | st.sampled_from(
    [b"a@b.org,\r\n c@d.org", "ü".encode(), b"=?utf-8?q?=0A?=", b"=?utf-8?q?x?=", b"\r\n ", b""]
)
bodies = st.lists(st.binary(max_size=20).map(lambda raw: re.sub(rb"[\r\n\0]", b"", raw)), max_size=5).map(
    b"\r\n".join
)
fields = st.lists(st.builds(lambda name, value: name + b": " + value + b"\r\n", names, values), max_size=6)
likely_mail = st.builds(lambda header, body: b"".join(header) + b"\r\n" + body, fields, bodies)
any_mail = (
    st.binary(max_size=80)
    | likely_mail
    | likely_mail.map(lambda mail: mail.replace(b"\r\n", b"\n"))
    | st.builds(lambda a, b: a[: len(a) // 2] + b, likely_mail, st.binary(max_size=9))
    | st.builds(lambda mail, count: mail + b"x" * count, likely_mail, st.integers(990, 1005))
)


def taken_or_none(source: bytes) -> bytes | None:
    try:
        return kept(source)
    except InvalidMessage as error:
        assert str(error).isprintable()  # noqa: PT017 - both ends of the promise are here
        return None


@given(any_mail)
@example(b"Bcc: a\r\n\tb\r\nX: y")
def test_whatever_the_bytes_they_are_refused_or_safe_to_send(source: bytes) -> None:
    content = taken_or_none(source)
    if content is None:
        return
    assert content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n")
    assert b"\0" not in content
    assert all(len(line) <= 998 for line in content.split(b"\r\n"))
    header = content.partition(b"\r\n\r\n")[0] if not content.startswith(b"\r\n") else b""
    assert not re.search(rb"(?mi)^(resent-)?bcc[ \t]*:", header)
    assert len(re.findall(rb"(?mi)^message-id:", header)) >= 1
    assert len(re.findall(rb"(?mi)^date:", header)) >= 1
    assert taken_or_none(content) == content


@given(fields.filter(lambda found: not any(b"bcc" in field.lower()[:10] for field in found)), bodies)
def test_canonical_mail_comes_back_unchanged(header: list[bytes], body: bytes) -> None:
    source = b"Message-ID: <1@b.org>\r\nDate: x\r\n" + b"".join(header) + b"\r\n" + body
    if b"=0A" not in source:
        assert kept(source) == source
        assert kept(source.replace(b"\r\n", b"\n")) == source


@pytest.mark.parametrize(
    "piece",
    [
        b"A:\r\n",
        b"A:\r\n b\r\n",
        b"Bcc: a\r\n",
        b"From \r\n",
        b"\r\n",
        b"\n",
        b"A: =?a?q?\r\n",
        b"DKIM-Signature: h=bcc:\r\n",
        b'A: ;a*="\r\n',
        b"x",
    ],
)
def test_large_mail_is_read_in_one_pass(piece: bytes) -> None:
    """Were it two nested ones, this would take hours."""
    taken_or_none(piece * (1_000_000 // len(piece)))
