"""Mail that comes as an object of the email package: written out once, safely, and never changed."""

from __future__ import annotations

import email
import email.message
import email.policy
from email.header import Header
from email.headerregistry import Address, Group
from email.message import EmailMessage, Message as Compat32
from email.mime.application import MIMEApplication
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any

import pytest
from corpus_table import HERE
from hypothesis import given, strategies as st

from outbox.errors import InvalidMessage
from outbox.mail import from_email, is_8bit, needs_smtputf8
from outbox.message import Message


def mail(text: str = "Hello\n", **header: object) -> EmailMessage:
    found = EmailMessage()
    fields = {
        "From": "a@example.org",
        "To": "b@example.org",
        "Message-ID": "<1@example.org>",
        "Date": "today",
    }
    for name, value in (fields | {name.replace("_", "-"): value for name, value in header.items()}).items():
        found[name] = value
    found.set_content(text)
    return found


def old_mail(text: str = "Hello\n", **header: Any) -> Compat32:
    found = MIMEText(text)
    for name, value in ({"From": "a@example.org", "To": "b@example.org"} | header).items():
        found[name.replace("_", "-")] = value
    return found


def read(message: Message) -> EmailMessage:
    found = email.message_from_bytes(message.content, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found


def line(message: Message, name: str) -> str:
    """The field as it stands on the wire, unfolded."""
    header = message.content.partition(b"\r\n\r\n")[0].decode().replace("\r\n ", " ").replace("\r\n\t", "\t")
    return next(text for text in header.split("\r\n") if text.lower().startswith(name.lower() + ":"))


def refusal(source: Compat32) -> InvalidMessage:
    with pytest.raises(InvalidMessage) as refused:
        from_email(source, sender="s@example.org", recipients=["r@example.org"])
    assert str(refused.value).isprintable()
    return refused.value


# --- what comes out ------------------------------------------------------------------------------


def test_an_email_message_becomes_wire_bytes() -> None:
    assert from_email(mail(Subject="Hi")).content.split(b"\r\n") == [
        b"From: a@example.org",
        b"To: b@example.org",
        b"Message-ID: <1@example.org>",
        b"Date: today",
        b"Subject: Hi",
        b'Content-Type: text/plain; charset="utf-8"',
        b"Content-Transfer-Encoding: 7bit",
        b"MIME-Version: 1.0",
        b"",
        b"Hello",
        b"",
    ]


def test_the_object_is_not_changed() -> None:
    source = MIMEMultipart()  # it gets its boundary only when it is written
    source["From"], source["To"], source["Bcc"] = "a@example.org", "b@example.org", "c@example.org"
    source.attach(old_mail("x" * 2000))
    source.attach(MIMEText("ü", _charset="utf-8"))
    before = (list(source.raw_items()), [part.get_payload() for part in source.walk()][1:])

    assert from_email(source).recipients == ("b@example.org", "c@example.org")
    assert (list(source.raw_items()), [part.get_payload() for part in source.walk()][1:]) == before
    assert source.get_boundary() is None


def test_bcc_goes_from_the_outer_header_and_stays_in_an_attached_mail() -> None:
    source = mail(Bcc="c@example.org")
    source.add_attachment(mail(Bcc="inner@example.org", Subject="inner"))

    message = from_email(source)
    assert message.recipients == ("b@example.org", "c@example.org")
    assert b"c@example.org" not in message.content
    assert b"Bcc: inner@example.org\r\n" in message.content


def test_lines_that_begin_with_from_or_a_dot_are_left_alone() -> None:
    assert from_email(mail("From me\n.\n..\n")).content.endswith(b"\r\n\r\nFrom me\r\n.\r\n..\r\n")
    old = old_mail("From me\n.\n", X="y")
    old.set_unixfrom("From a@b Thu Jan  1 00:00:00 2026")
    content = from_email(old).content
    assert content.endswith(b"\r\n\r\nFrom me\r\n.\r\n")
    assert b"From a@b" not in content


def test_long_values_are_folded_at_white_space_and_nothing_is_encoded_for_its_length() -> None:
    references = " ".join(f"<{letter * 90}@example.org>" for letter in "abc")
    unsubscribe = f"<https://example.org/{'x' * 200}>, <mailto:u@example.org?subject={'y' * 100}>"
    source = mail(References=references, List_Unsubscribe=unsubscribe, Subject="word " * 40)

    message = from_email(source)
    assert line(message, "References") == f"References: {references}"
    assert line(message, "List-Unsubscribe") == f"List-Unsubscribe: {unsubscribe}"
    assert line(message, "Subject") == "Subject: " + "word " * 40
    assert b"=?" not in message.content
    assert max(map(len, message.content.partition(b"Subject")[2].split(b"\r\n"))) <= 78


@pytest.mark.parametrize(
    "subject", ["Grüße", "日本語の件名" * 30, "🎉 Party", "ü" * 300, "a  ü  b ", "x" * 2000, "=?x?q?y?"]
)
def test_a_subject_comes_back_as_it_was(subject: str) -> None:
    message = from_email(mail(Subject=subject))
    assert message.content.isascii()
    assert read(message)["Subject"] == subject
    assert all(len(line) <= 78 for line in message.content.split(b"\r\n"))


@pytest.mark.parametrize("length", [*range(980, 1005), 1996, 2001])
def test_a_value_of_any_length_is_written_whatever_the_name_before_it_takes(length: int) -> None:
    subject = ("word " * 500)[: length - 1] + "x"
    for source in (old_mail(Subject=subject), mail(Subject=subject)):
        assert read(from_email(source))["Subject"] == subject
    folded = old_mail(Subject=subject[:500] + "\r\n " + subject[500:])
    assert line(from_email(folded), "Subject") == "Subject: " + subject[:500] + " " + subject[500:]


def test_no_fold_leaves_a_line_of_white_space_alone() -> None:
    """Some readers take such a line for the end of the header (RFC 5322 section 3.2.2)."""
    for length in range(60, 80):
        message = from_email(mail(Subject="x" * length + "  ", X_Y=("y" * length + " ") * 2))
        assert not any(line.isspace() for line in message.content.split(b"\r\n"))
        assert line(message, "Subject") == "Subject: " + "x" * length + "  "


def test_what_looks_encoded_and_is_meant_literally_is_encoded() -> None:
    source = mail(Subject="=?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?=")
    assert source["Subject"] == "=?utf-8?q?x?="
    assert read(from_email(source))["Subject"] == "=?utf-8?q?x?="


def test_a_long_line_that_a_program_encoded_itself_is_only_folded() -> None:
    to = ", ".join(f"=?utf-8?q?Z=6F=C3=AB_{i}?= <z{i}@example.org>" for i in range(60))
    message = from_email(old_mail(To=to))
    assert line(message, "To") == f"To: {to}"
    assert len(message.recipients) == 60


def test_foreign_text_in_a_compat32_message_is_encoded_field_by_field() -> None:
    source = old_mail(Subject="Grüße", Cc='"Müller, Jörg" <j@example.org>', X_Old=Header("Zoë", "utf-8"))
    message = from_email(source)

    assert message.content.isascii()
    assert message.recipients == ("b@example.org", "j@example.org")
    assert read(message)["Subject"] == "Grüße"
    assert read(message)["Cc"].addresses[0].display_name == "Müller, Jörg"
    assert read(message)["X-Old"] == "Zoë"


def test_foreign_file_names_are_encoded() -> None:
    source = mail()
    source.add_attachment(b"\xff", maintype="application", subtype="pdf", filename='Grüße "100%".pdf')
    source.add_attachment(b"\xff", maintype="application", subtype="pdf", filename="plain name.pdf")
    names = [part.get_filename() for part in read(from_email(source)).iter_attachments()]
    assert names == ['Grüße "100%".pdf', "plain name.pdf"]


def test_eight_bit_text_is_kept_and_named_so() -> None:
    message = from_email(mail("Grüße\n"))
    assert is_8bit(message)
    assert not needs_smtputf8(message)
    assert line(message, "Content-Transfer-Encoding").endswith("8bit")
    assert message.content.endswith("Grüße\r\n".encode())


def test_eight_bit_text_without_a_transfer_encoding_gets_its_name() -> None:
    source = email.message_from_bytes(
        b"From: a@b.org\nTo: c@d.org\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\nGr\xc3\xbc\n"
    )
    message = from_email(source)
    assert line(message, "Content-Transfer-Encoding") == "Content-Transfer-Encoding: 8bit"
    assert message.content.endswith(b"\r\n\r\nGr\xc3\xbc\r\n")


def test_eight_bit_text_without_any_mime_gets_no_mime() -> None:
    text = "From: a@b.org\r\nTo: c@d.org\r\n\r\nGrüße\r\n".encode()
    assert from_email(email.message_from_bytes(text)).content.endswith(text)


def test_a_policy_of_seven_bits_is_heeded() -> None:
    policy = email.policy.default.clone(cte_type="7bit")
    text = "From: a@b.org\nTo: c@d.org\nContent-Type: text/plain; charset=utf-8\n\nGrüße\n"
    message = from_email(email.message_from_bytes(text.encode(), policy=policy))
    assert message.content.isascii()
    assert read(message).get_content() == "Grüße\n"


@pytest.mark.parametrize(
    "text", ["x" * 999, "x" * 999 + "\n", "y" * 5000 + "\nshort\n.\n", "word " * 500 + "\n"]
)
def test_text_with_overlong_lines_is_encoded_anew(text: str) -> None:
    message = from_email(old_mail(text))
    assert line(message, "Content-Transfer-Encoding").endswith("quoted-printable")
    assert read(message).get_content().replace("\r\n", "\n").rstrip("\n") == text.rstrip("\n")


def test_octets_with_overlong_lines_are_encoded_anew() -> None:
    part = Compat32()
    part["Content-Type"] = "application/octet-stream"
    part["Content-Transfer-Encoding"] = "8bit"
    part.set_payload(b"\xff" * 2000)
    source = MIMEMultipart()
    source["From"], source["To"] = "a@example.org", "b@example.org"
    source.attach(part)

    message = from_email(source)
    (found,) = read(message).iter_parts()
    assert found["Content-Transfer-Encoding"] == "base64"
    assert found.get_payload(decode=True) == b"\xff" * 2000


def test_what_is_encoded_in_an_unknown_way_or_is_another_s_mail_is_not_encoded_anew() -> None:
    source = old_mail("x" * 2000)
    source.replace_header("Content-Transfer-Encoding", "x-unknown")
    assert "a line of 2000 octets" in str(refusal(source))
    source = mail()
    source.add_attachment(
        email.message_from_string("Subject: x\n\n" + "x" * 2000, policy=email.policy.default)
    )
    assert "a line of 2000 octets" in str(refusal(source))


def test_a_line_of_exactly_998_octets_is_left_alone() -> None:
    assert b"\r\n" + b"x" * 998 + b"\r\n" in from_email(old_mail("x" * 998 + "\n")).content


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wire", "recipients"),
    [
        ("Jörg <j@example.org>", "=?utf-8?b?SsO2cmc=?= <j@example.org>", ["j@example.org"]),
        ('"Doe, Ann" <a@b.org>', '"Doe, Ann" <a@b.org>', ["a@b.org"]),
        ("J. Doe <a@b.org>", '"J. Doe" <a@b.org>', ["a@b.org"]),
        ("x@bücher.example", "x@xn--bcher-kva.example", ["x@xn--bcher-kva.example"]),
        ('"a b"@c.org', '"a b"@c.org', ["a b@c.org"]),
        (
            "Team: a@b.org, Zoë <c@d.org>;",
            "Team: a@b.org, =?utf-8?q?Zo=C3=AB?= <c@d.org>;",
            ["a@b.org", "c@d.org"],
        ),
        ("undisclosed-recipients:;", "undisclosed-recipients:;", []),
        ("=?utf-8?q?e=40vil=2Eorg=2C?= <a@b.org>", '"e@vil.org," <a@b.org>', ["a@b.org"]),
        ([Address("e@vil.org, x", "a", "b.org")], '"e@vil.org, x" <a@b.org>', ["a@b.org"]),
        ([Address('q"u\\o', "a", "b.org")], r'"q\"u\\o" <a@b.org>', ["a@b.org"]),
        ([Address("=?utf-8?q?x?=", "a", "b.org")], '"=?utf-8?q?x?=" <a@b.org>', ["a@b.org"]),
        ([Group("A, B", (Address("", "a", "b.org"),))], '"A, B": a@b.org;', ["a@b.org"]),
    ],
)
def test_addresses_are_written_so_that_each_reader_finds_the_same(
    value: object, wire: str, recipients: list[str]
) -> None:
    message = from_email(mail(To=value, Cc="last@example.org"))
    assert line(message, "To") == f"To: {wire}"
    assert [address.replace('"', "") for address in message.recipients] == [*recipients, "last@example.org"]


def test_many_recipients_are_folded_and_none_is_lost() -> None:
    to = [Address(f"Member Nö. {i}, of {i % 7}", f"m{i}", "example.org") for i in range(300)]
    message = from_email(mail(To=to))
    assert message.recipients == tuple(address.addr_spec for address in to)
    assert [address.display_name for address in read(message)["To"].addresses] == [a.display_name for a in to]
    assert max(map(len, message.content.split(b"\r\n"))) <= 110


def test_a_foreign_local_part_makes_the_whole_header_utf8() -> None:
    message = from_email(mail(To="Jörg <jörg@bücher.example>", Subject="Grüße"))
    assert message.recipients == ("jörg@xn--bcher-kva.example",)
    assert needs_smtputf8(message)
    assert line(message, "To") == "To: Jörg <jörg@xn--bcher-kva.example>"
    assert line(message, "Subject") == "Subject: Grüße"


def test_a_policy_of_utf8_is_heeded() -> None:
    source = EmailMessage(email.policy.SMTPUTF8)
    source["From"], source["To"], source["Subject"] = "a@example.org", "Zoë <b@example.org>", "Grüße"
    source.set_content("x")
    assert line(from_email(source), "Subject") == "Subject: Grüße"
    assert line(from_email(source), "To") == "To: Zoë <b@example.org>"


def test_odd_address_fields_are_left_to_whoever_names_the_recipients() -> None:
    for value in ("root", "All customers", "a@b@c", "Zoë"):
        message = from_email(mail(To=value), recipients=["b@example.org"])
        assert read(message)["To"] == value or line(message, "To") == f"To: {value}"
        with pytest.raises(InvalidMessage, match="the field 'To'"):
            from_email(mail(To=value))


def test_a_domain_that_two_readers_take_for_two_is_refused() -> None:
    assert "different domains" in str(refusal(mail(To="a@straße.example")))


# --- what was parsed -----------------------------------------------------------------------------

policies = pytest.mark.parametrize("policy", [email.policy.compat32, email.policy.default])
SIGNED = [
    "dkim-signed.eml",
    "pgp-mime.eml",
    "smime-signed.eml",
    "smime-enveloped.eml",
    "gmail-emoji.eml",
    "newsletter.eml",
    "forward-with-bcc.eml",
    "bounce.eml",
    "latin1-8bit.eml",
    "flowed-dots.eml",
    "huge-folding.eml",
]


@policies
@pytest.mark.parametrize("name", SIGNED)
def test_a_parsed_mail_has_the_body_and_the_parts_that_it_came_with(name: str, policy: Any) -> None:
    source = (HERE / name).read_bytes()
    content = from_email(email.message_from_bytes(source, policy=policy)).content
    assert (
        content.partition(b"\r\n\r\n")[2]
        == source.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n").partition(b"\r\n\r\n")[2]
    )


@policies
def test_a_signed_header_that_the_parser_kept_is_written_as_it_was(policy: Any) -> None:
    """With simple canonicalisation each blank counts; those behind the colon the parser does not keep."""
    source = (HERE / "dkim-signed.eml").read_bytes()
    content = from_email(email.message_from_bytes(source, policy=policy)).content
    normal = source
    for odd in (b"Date:", b"From:  ", b"To:\t"):
        normal = normal.replace(b"\r\n" + odd, b"\r\n" + odd.strip() + b" ", 1)
    assert content == normal


@policies
def test_overlong_lines_of_signed_mail_are_refused_and_not_mended(policy: Any) -> None:
    text = b"From: a@b.org\nTo: c@d.org\nDKIM-Signature: v=1\nContent-Type: text/plain\n\n" + b"x" * 1000
    assert "a line of 1000 octets" in str(refusal(email.message_from_bytes(text, policy=policy)))
    text = (
        b'From: a@b.org\nTo: c@d.org\nContent-Type: multipart/signed; boundary="b"\n\n--b\n'
        b"Content-Type: text/plain\n\n" + b"x" * 1000 + b"\n--b\n\nsignature\n--b--\n"
    )
    assert "a line of 1000 octets" in str(refusal(email.message_from_bytes(text, policy=policy)))


def test_a_mail_that_a_program_signed_is_written_as_the_signer_saw_it() -> None:
    """dkimpy and its like sign as_bytes(), and put the signature into the object."""
    source = mail(
        "Grüße\n",
        Subject="Grüße, lange und noch viel länger, bis über das Ende der Zeile",
        X_Long="x " * 60,
        Date="Thu, 01 Jan 2026 00:00:00 +0000",
    )
    source["DKIM-Signature"] = "v=1; a=rsa-sha256"
    seen = source.as_bytes(policy=source.policy.clone(linesep="\r\n"))
    assert from_email(source).content == seen


def test_a_part_that_a_program_signed_is_written_as_the_signer_saw_it() -> None:
    part = mail("Grüße\n", Subject="Grüße " * 20, References="<" + "r" * 100 + "@example.org>")
    seen = part.as_bytes(policy=part.policy.clone(linesep="\r\n", max_line_length=0))
    source = MIMEMultipart("signed", protocol="application/pgp-signature")
    source["From"], source["To"] = "a@example.org", "b@example.org"
    source.attach(part)
    source.attach(MIMEApplication(b"x", "pgp-signature"))
    assert b"\r\n" + seen + b"\r\n--" in from_email(source).content


def test_raw_utf8_in_a_parsed_header_stays_and_needs_smtputf8() -> None:
    for policy in (email.policy.compat32, email.policy.default):
        source = email.message_from_bytes("From: a@b.org\nTo: Zoë <c@d.org>\n\n".encode(), policy=policy)
        message = from_email(source)
        assert line(message, "To") == "To: Zoë <c@d.org>"
        assert needs_smtputf8(message)


def test_a_header_of_no_known_encoding_is_refused() -> None:
    source = email.message_from_bytes(b"From: a@b.org\nTo: c@d.org\nSubject: Gr\xfc\xdfe\n\n")
    assert "line 3: bytes in the header that are neither ASCII nor UTF-8" in str(refusal(source))


@policies
@pytest.mark.parametrize(
    "text",
    [
        b"From: a@b.org\nTo: c@d.org\nno separator\nbody\n",
        b" folded: first\nFrom: a@b.org\nTo: c@d.org\n\n",
        b"From: a@b.org\nFrom x@y Thu Jan\nTo: c@d.org\n\n",
        b'From: a@b.org\nContent-Type: multipart/mixed; boundary="b"\n\n--b\nno separator\n\n--b--\n',
    ],
)
def test_a_mail_whose_header_the_parser_had_to_guess_is_refused(text: bytes, policy: Any) -> None:
    assert "submit the original bytes" in str(refusal(email.message_from_bytes(text, policy=policy)))


@policies
def test_a_multipart_without_parts_is_text_with_one_kind_of_line_end(policy: Any) -> None:
    text = b"From: a@b.org\nTo: c@d.org\nContent-Type: multipart/mixed\n\nno\nparts\n"
    content = from_email(email.message_from_bytes(text, policy=policy)).content
    assert content.endswith(b"\r\n\r\nno\r\nparts\r\n")


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "a\nBcc: evil@example.org",
        "a\rb",
        "a\r\nb",
        "a\n",
        "a\0b",
        "a\x1bb",
        "a\x85b",
        "a\u2028b",
        "a\n\n b",
        "a\r b",
    ],
)
def test_a_value_with_a_line_break_of_its_own_is_refused(value: str) -> None:
    for name in ("Subject", "To", "X-Any", "Content-Disposition"):
        text = str(refusal(old_mail(**{name: value})))
        assert f"'{name}'" in text
        assert "control character" in text


@pytest.mark.parametrize("value", ["a\n b", "a\r\n\tb"])
def test_a_value_that_is_folded_is_one_value(value: str) -> None:
    message = from_email(old_mail(Subject=value))
    assert b"Subject: a\r\n" + value[-2:].encode() + b"\r\n" in message.content


@pytest.mark.parametrize(
    "value", ["=?utf-8?q?a=0ABcc:_x@y.org?=", "=?utf-8?q?a=0D=0A_b?=", "=?utf-8?b?AA==?="]
)
def test_a_line_break_in_an_encoded_word_is_refused(value: str) -> None:
    refusal(mail(Subject=value))
    refusal(mail(X_Any=value))
    refusal(old_mail(To=f"{value} <a@b.org>"))
    assert "'Subject' holds an encoded-word" in str(refusal(old_mail(Subject=value)))
    refusal(old_mail(Subject=Header("a\nb", "utf-8")))


def test_a_line_break_in_a_file_name_is_refused_in_every_part() -> None:
    source = MIMEMultipart()
    source["From"], source["To"] = "a@example.org", "b@example.org"
    part = MIMEApplication(b"x")
    part.add_header("Content-Disposition", "attachment", filename=("utf-8", "", "a\r\nX: y.pdf"))
    source.attach(part)
    assert "'Content-Disposition' holds a percent-encoded parameter" in str(refusal(source))


def test_a_line_break_in_a_parsed_file_name_is_refused_in_every_part() -> None:
    source = mail()
    source.add_attachment(b"x", maintype="a", subtype="b", filename="ok")
    (attachment,) = source.iter_attachments()
    attachment.replace_header("Content-Disposition", "attachment; filename*=utf-8''a%0Ab")
    assert "'Content-Disposition'" in str(refusal(source))


@pytest.mark.parametrize(
    "inner",
    [
        b"From: x@y.org\nSubject: spam\nno separating line\nbody\n",
        b" Subject: spam\n\nbody\n",
        b"From: x@y.org\nSubject: \x1b[31mspam\x07\n\nbody\n",
        b"From: x@y.org\nSubject: \xff\n\nbody\n",
    ],
)
@pytest.mark.parametrize("policy", [email.policy.default, email.policy.compat32])
def test_a_broken_mail_can_be_attached_for_it_is_another_s(inner: bytes, policy: Any) -> None:
    attached = email.message_from_bytes(inner, policy=policy)
    source = MIMEMultipart()
    source["From"], source["To"] = "a@example.org", "b@example.org"
    source.attach(MIMEMessage(attached))
    content = from_email(source).content
    assert b"body" in content

    if isinstance(attached, EmailMessage):
        new = mail()
        new.add_attachment(attached)
        assert b"message/rfc822" in from_email(new).content


@pytest.mark.parametrize("value", ["a\nb", "a\r\nX: y", "a\0b"])
def test_a_line_break_that_a_program_put_into_an_attached_mail_is_refused(value: str) -> None:
    attached = old_mail()
    attached._headers.append(("Subject", value))  # type: ignore[attr-defined]  # as no API would let it in
    source = MIMEMultipart()
    source["From"], source["To"] = "a@example.org", "b@example.org"
    source.attach(MIMEMessage(attached))

    assert "'Subject'" in str(refusal(source))


def test_a_forwarded_mail_may_hold_what_its_author_wrote() -> None:
    """Who forwards a strange mail to the abuse desk must be able to."""
    inner = email.message_from_bytes(b"Subject: =?utf-8?q?a=0ABcc:_x?=\nX: " + b"y" * 200 + b"\n\nspam\n")
    source = MIMEMultipart()
    source["From"], source["To"] = "a@example.org", "abuse@example.org"
    source.attach(MIMEMessage(inner))
    assert b"\r\nSubject: =?utf-8?q?a=0ABcc:_x?=\r\nX: " + b"y" * 200 in from_email(source).content


@pytest.mark.parametrize("name", ["Bad Name", "Bad\nName", "", "Ünicode", "Bad:Name", "Bad\t"])
def test_a_field_name_that_is_none_is_refused(name: str) -> None:
    source = old_mail()
    source[name] = "x"
    assert "field name" in str(refusal(source))


def test_a_message_that_writes_other_fields_than_it_has_is_refused() -> None:
    class Leaky(EmailMessage):
        def _write_headers(self, generator: Any) -> None:
            generator._fp.write(b"From: a@example.org\r\nX: breaks\r\nBcc: out\r\n\r\n")

    source = Leaky()
    source["From"], source["X"] = "a@example.org", "fine"
    assert "breaks out of its field" in str(refusal(source))


def test_what_the_library_cannot_write_is_refused_with_its_reason() -> None:
    source = old_mail()
    source.set_payload("Grüße")
    error = refusal(source)
    assert 'set_payload(text, "utf-8")' in str(error)
    assert isinstance(error.__cause__, UnicodeEncodeError)
    source = old_mail(X=5)
    assert "the field 'X' is of type int, not text" in str(refusal(source))
    source = old_mail()
    source.set_payload(["x"])
    assert refusal(source).__cause__ is not None
    nested = old_mail()
    for _ in range(2000):
        outer = MIMEMultipart(_subparts=[nested])
        nested = outer
    assert isinstance(refusal(nested).__cause__, RecursionError)


# --- promises over all texts ---------------------------------------------------------------------

texts = st.text(
    st.one_of(
        st.sampled_from(' ,;:"\\<>@()[]=?_-.aü日\u0301\t'),
        st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]),
    ),
    max_size=120,
)


@given(texts, texts)
def test_a_subject_and_a_display_name_never_change_the_envelope_or_another_field(
    subject: str, name: str
) -> None:
    source = EmailMessage()
    source["From"] = "a@example.org"
    try:
        source["Subject"] = subject
        source["To"] = [Address(name, "b", "example.org"), Address("", "c", "example.org")]
        source["X-Last"] = "here"
    except (ValueError, IndexError, TypeError):  # the library's own parser gives up on a few
        return
    message = accepted(source)
    if message is not None:
        assert (message.sender, message.recipients) == ("a@example.org", ("b@example.org", "c@example.org"))
        assert [field.lower() for field in read(message)][-4:] == ["from", "subject", "to", "x-last"]
        assert line(message, "X-Last") == "X-Last: here"


def accepted(source: Compat32) -> Message | None:
    try:
        return from_email(source)
    except InvalidMessage:
        return None


@given(st.binary(max_size=200))
def test_whatever_was_parsed_is_refused_or_safe_to_send(source: bytes) -> None:
    for policy in (email.policy.compat32, email.policy.default):
        parsed: Any = email.message_from_bytes(b"From: a@b.org\r\nTo: c@d.org\r\n" + source, policy=policy)
        message = accepted(parsed)
        if message is not None:
            assert (
                message.content.count(b"\r") == message.content.count(b"\n") == message.content.count(b"\r\n")
            )
            assert from_email(message.content).content == message.content
