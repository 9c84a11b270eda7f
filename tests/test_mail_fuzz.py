"""Any mail, sound or broken, over any connection: declared, or said otherwise without a loss, or refused with a reason.

A few seconds by default; as long as wanted with ``OUTBOX_MAIL_FUZZ``, the number of mails.
"""

from __future__ import annotations

import os
import re
from typing import Final

from examples import examples
from hypothesis import HealthCheck, given, settings, strategies as st
from mail_readers import READERS, Said, meaning
from mime_trees import sound_trees, unsound_trees

from outbox.message import Message
from outbox.transports.smtp.commands import commands
from outbox.transports.smtp.envelope import prepare
from outbox.transports.smtp.extensions import Extensions
from outbox.transports.smtp.fitting import fit_mail

A, S = "a@example.org", "s@example.org"
OFFERS: Final = [(), ("8BITMIME",), ("SMTPUTF8",), ("8BITMIME", "SMTPUTF8")]
NUMBER: Final = int(os.environ.get("OUTBOX_MAIL_FUZZ", examples(40)))

thorough = settings(
    max_examples=NUMBER,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

# --- the mails -----------------------------------------------------------------------------------

STRUCTURE: Final = [
    "",
    "--x",
    "--x--",
    "--xü",
    "--<x>",
    "--\\x",
    "--=_0000",
    "--=_0000--",
    "--=_0001",
    "Content-Type: message/rfc822",
    "Content-Type: message/global",
    "Content-Type: message/delivery-status",
    "Content-Type: multipart/mixed; boundary=x",
    "Content-Type: multipart/digest; boundary==_0000",
    'Content-Type: multipart/signed; boundary="=_0001"',
    "Content-Type: multipart/mixed; boundary=<x>",
    'Content-Type: multipart/mixed; boundary="<x>"',
    'Content-Type: multipart/mixed; boundary="\\x"',
    'Content-Type: multipart/mixed; boundary="x"y',
    'Content-Type: multipart/mixed; boundary="x ";',
    "Content-Type: multipart/mixed; \x0cboundary=x",
    "Content-Type: multipart/mixed (a comment); boundary=x (another)",
    "Content-Type: (a comment) multipart/mixed; boundary=x(another)",
    "Content-Type: multipart/mixed; boundary*=us-ascii''x",
    "Content-Type: text/plain; charset=latin1",
    "Content-Type: application/pkcs7-mime",
    "Content-Transfer-Encoding: 8bit",
    "Content-Transfer-Encoding: base64",
    "DKIM-Signature: v=1",
    "ARC-Message-Signature: i=1",
    "Subject: ü",
    "Subject: \udcfc",
    "To: Jörg <j@example.org>",
    "To: J\udcf6rg <j@example.org>",
    "Received: from ü",
    " folded ü",
    " folded \udcfc",
    "no field",
    "text ü",
    "text \udcfc",
    "y" * 999,
]


def octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Mails with lines put in, cut out and moved, and letters in another encoding than is said."""
    lines = draw(sound_trees() | unsound_trees()).split(b"\r\n")
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(lines)))
        match draw(st.sampled_from(["insert", "insert", "insert", "cut", "recode", "repeat"])):
            case "insert":
                lines[at:at] = map(octets, draw(st.lists(st.sampled_from(STRUCTURE), min_size=1, max_size=3)))
            case "cut":
                del lines[at : at + draw(st.integers(1, 3))]
            case "recode":
                lines[at:] = [line.replace("ü".encode(), b"\xfc") for line in lines[at:]]
            case _:
                start = draw(st.integers(0, at))
                lines[at:at] = lines[start : start + 4]
    return b"\r\n".join(lines)


@st.composite
def signed(draw: st.DrawFn) -> bytes:
    """Sound mails, with signatures over the whole, over mails within, and over parts."""
    content = draw(sound_trees())
    headers = [0, *(found.start() for found in re.finditer(rb"(?m)^Content-Type:", content))]
    at = draw(st.sampled_from(headers))
    name = draw(st.sampled_from([b"DKIM-Signature", b"arc-message-signature", b"DomainKey-Signature"]))
    sealed = [
        re.sub(rb"multipart/\w+(?:-unknown)?;", b"multipart/signed;", content),
        content.replace(b"multipart/mixed", b"Multipart/Encrypted"),
        content.replace(b"Application/Octet-Stream", b"application/pkcs7-mime"),
        content[:at] + name + b": v=1\r\n" + content[at:],
    ]
    return draw(st.sampled_from(sealed))


@st.composite
def assembled(draw: st.DrawFn) -> bytes:
    """Mails of nothing but structure; of few kinds of it each, that they meet."""
    kinds = ["", "--x", *draw(st.lists(st.sampled_from(STRUCTURE), min_size=1, max_size=5))]
    return b"\r\n".join(map(octets, draw(st.lists(st.sampled_from(kinds), max_size=14))))


# --- the rule ------------------------------------------------------------------------------------


def is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def undeclared(said: Said, declared: set[str]) -> bool:
    """RFC 6532 section 3; what another has broken in a mail that is attached is 8-bit text (docs/decisions/013)."""
    if said.octets.isascii():
        return False
    return "SMTPUTF8" not in declared if is_utf8(said.octets) else not said.attached


def check(before: bytes, after: bytes, options: set[str], offers: tuple[str, ...]) -> None:
    assert options <= set(offers), "declared and not offered"
    assert "8BITMIME" in options or "SMTPUTF8" not in options
    assert after.isascii() or "8BITMIME" in options
    assert not re.search(rb"\0|\r(?!\n)|(?<!\r)\n", after)
    assert all(len(line) <= 998 for line in after.split(b"\r\n"))
    for reader in READERS:
        assert [each for each in reader(after) if undeclared(each, options)] == [], reader.__name__
    assert meaning(after) == meaning(before)


def carried(content: bytes, offers: tuple[str, ...]) -> tuple[bytes, set[str]] | str:
    """What goes over such a connection and what is declared for it, or the reason why nothing does."""
    extensions = Extensions(dict.fromkeys(offers, ""))
    mail, _ = prepare(Message(recipients=[A], sender=S, content=content), [A])
    mail, refused = fit_mail(mail, [A], extensions)
    if refused:
        return refused[A]
    words = commands(mail, [A], extensions, None)[0][2].decode().split()
    return mail.content.whole, {word.removeprefix("BODY=") for word in words[2:]}


def judge(content: bytes) -> None:
    for offers in OFFERS:
        sent = carried(content, offers)
        if isinstance(sent, str):
            assert sent, "refused without a reason"
        else:
            check(content, *sent, offers)


@thorough
@given(sound_trees())
def test_sound_mail_is_carried_and_says_what_it_said(content: bytes) -> None:
    judge(content)


@thorough
@given(unsound_trees())
def test_mail_that_readers_could_take_apart_differently_is_carried_whole_or_refused(content: bytes) -> None:
    judge(content)


@thorough
@given(damaged())
def test_damaged_mail_is_carried_whole_or_refused(content: bytes) -> None:
    judge(content)


@thorough
@given(signed())
def test_signed_mail_is_carried_byte_for_byte_or_refused(content: bytes) -> None:
    judge(content)


@thorough
@given(assembled())
def test_mail_that_is_nothing_but_structure_is_carried_whole_or_refused(content: bytes) -> None:
    judge(content)
