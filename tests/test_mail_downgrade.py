"""Mail that a connection cannot carry is said otherwise where that loses nothing, and else not at all."""

from __future__ import annotations

import base64
import binascii
import quopri
import random
import re
from email.policy import default
from typing import Any

import pytest
from corpus_table import Entry, entries
from examples import examples
from hypothesis import HealthCheck, example, given, settings, strategies as st
from mime_trees import headers_of, leaves_of, sound_trees, unsound_trees, walked

from outbox.address import parse_address_list
from outbox.mail import from_email
from outbox.mail.downgrade import downgraded
from outbox.mail.transfer import base64 as in_base64, encoded, quoted_printable
from outbox.mail.wire import line_at, long_line
from outbox.testing.clock import ManualClock
from outbox.transports.smtp.content import defect

thorough = settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def seven(content: bytes) -> bytes:
    """The mail in seven bits, which there must be."""
    made = downgraded(content, eightbit=False, utf8=False)
    assert isinstance(made, bytes), made
    return made


def reason(content: bytes, *, eightbit: bool = False, utf8: bool = False) -> str:
    """Why there is none."""
    made = downgraded(content, eightbit=eightbit, utf8=utf8)
    assert isinstance(made, str), made
    return made


def bodies_of(content: bytes) -> list[Any]:
    """What stands on the wire for each part that has none within."""
    return [part.get_payload() for part in walked(content) if not part.is_multipart()]


def same(before: bytes, after: bytes) -> None:
    """Any server can carry *after*, and a reader finds in it what was in *before*."""
    assert after.isascii()
    assert long_line(after) is None
    assert not defect(after)
    assert leaves_of(after) == leaves_of(before)
    assert headers_of(after) == headers_of(before)


# --- whole mails ---------------------------------------------------------------------------------


@thorough
@given(sound_trees())
def test_every_part_decodes_to_what_it_was(content: bytes) -> None:
    same(content, seven(content))


@thorough
@given(unsound_trees())
def test_where_readers_could_differ_nothing_is_lost_or_nothing_is_sent(content: bytes) -> None:
    made = downgraded(content, eightbit=False, utf8=False)
    if isinstance(made, bytes):
        same(content, made)


@thorough
@given(sound_trees())
def test_what_fits_is_left_alone_byte_for_byte(content: bytes) -> None:
    made = seven(content)

    assert seven(made) == made
    assert seven(content) == made
    assert downgraded(made, eightbit=True, utf8=True) == made


@thorough
@given(sound_trees())
def test_with_8bitmime_only_headers_and_long_lines_change(content: bytes) -> None:
    made = downgraded(content, eightbit=True, utf8=False)

    assert isinstance(made, bytes)
    assert long_line(made) is None
    assert leaves_of(made) == leaves_of(content)
    assert headers_of(made) == headers_of(content)
    assert all(str(value).isascii() for part in walked(made) for _, value in part.raw_items())
    if long_line(content) is None:
        assert bodies_of(made) == bodies_of(content)


@thorough
@given(sound_trees())
def test_with_all_that_is_offered_only_long_lines_change(content: bytes) -> None:
    made = downgraded(content, eightbit=True, utf8=True)

    assert isinstance(made, bytes)
    assert long_line(made) is None
    assert (made == content) is (long_line(content) is None)
    assert leaves_of(made) == leaves_of(content)


DELIVERED = [entry for entry in entries() if entry.fate == "delivered"]


@pytest.mark.parametrize("entry", DELIVERED, ids=lambda entry: entry.name)
def test_mail_of_the_corpus_keeps_what_it_says_or_is_refused(entry: Entry) -> None:
    content = from_email(
        entry.read(), sender="s@example.org", recipients=["a@example.org"], clock=ManualClock()
    ).content
    made = downgraded(content, eightbit=False, utf8=False)
    if content.isascii():
        assert made == content
    else:
        same(content, seven(content))
        assert re.findall(rb"(?im)^message-id:.*", seven(content)) == re.findall(
            rb"(?im)^message-id:.*", content
        )


@pytest.mark.parametrize("entry", DELIVERED, ids=lambda entry: entry.name)
def test_mail_of_the_corpus_with_letters_of_another_script_does_so_too(entry: Entry) -> None:
    content = from_email(
        entry.read(), sender="s@example.org", recipients=["a@example.org"], clock=ManualClock()
    ).content
    for seed in range(6):
        die = random.Random(seed)
        changed = content
        for _ in range(die.choice([1, 1, 1, 5, 60])):
            at = die.randrange(len(changed))
            if changed[at : at + 1].isalpha():
                changed = changed[:at] + die.choice(["é", "漢"]).encode() + changed[at + 1 :]
        made = downgraded(changed, eightbit=False, utf8=False)
        if isinstance(made, bytes):
            same(changed, made)
        else:
            assert made


# --- what is not touched -------------------------------------------------------------------------

SIGNED = 'Content-Type: multipart/signed; boundary="b"\r\n\r\n--b\r\n\r\nü\r\n--b\r\n\r\ns\r\n--b--\r\n'
MIXED = 'Content-Type: multipart/mixed; boundary="b"\r\n\r\n{}--b\r\n\r\nü\r\n--b{}'


def attached(mail: str, kind: str = "message/rfc822") -> str:
    return f'Content-Type: multipart/mixed; boundary="a"\r\n\r\n--a\r\nContent-Type: {kind}\r\n\r\n{mail}\r\n--a--\r\n'


def nested(depth: int) -> str:
    return "Content-Type: message/rfc822\r\n\r\n" * depth + "\r\nü\r\n"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("DKIM-Signature: a\r\n\r\nü", "'DKIM-Signature' signs it"),
        ("DKIM-Signature: a\r\nSubject: ü\r\n\r\n", "'DKIM-Signature' signs it"),
        ("arc-message-signature: a\r\n\r\nü", "'arc-message-signature' signs it"),
        ("DomainKey-Signature: a\r\n\r\nü", "signs it"),
        ("DKIM-Signature: a\r\n\r\n" + "a" * 999, "signs it"),
        (attached("DKIM-Signature: a\r\n\r\nü"), "signs it"),
        (SIGNED, "within multipart/signed"),
        (attached(SIGNED), "within multipart/signed"),
        (SIGNED.replace("multipart/signed", "Multipart/Encrypted"), "within multipart/encrypted"),
        (attached("ü", "message/delivery-status"), "'message/delivery-status' must not be encoded"),
        (attached("ü", "message/partial; id=1"), "'message/partial' must not be encoded"),
        ("Content-Transfer-Encoding: quoted-printable\r\n\r\nü", "'quoted-printable'"),
        ("Content-Transfer-Encoding: base64\r\n\r\nü", "'base64'"),
        ("Content-Transfer-Encoding: x-uuencode\r\n\r\nü", "'x-uuencode'"),
        ("Content-Transfer-Encoding: 8bit (really)\r\n\r\nü", "cannot be read"),
        ("Content-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 7bit\r\n\r\nü", "twice"),
        ("Content-Type: text/plain\r\ncontent-type: multipart/mixed\r\n\r\nü", "twice"),
        ("Content-Type: multipart; boundary=b\r\n\r\nü", "Content-Type that cannot be read"),
        (MIXED.format("ü\r\n", "--"), "outside of the parts"),
        (MIXED.format("", "--\r\nü"), "outside of the parts"),
        (MIXED.format("a" * 999 + "\r\n", "--"), "outside of the parts"),
        (MIXED.format("", "--").replace("--b--", ""), "not closed"),
        (MIXED.format("", "bb"), "goes on otherwise"),
        (MIXED.replace("--b", "--c").format("", ""), "no parts"),
        (MIXED.replace("; boundary", "; x").format("", ""), "no boundary"),
        (MIXED.replace("; boundary", "; boundary*0").format("", ""), "no boundary"),
        (MIXED.replace('"b"', '"b"; boundary=c').format("", ""), "no boundary"),
        (MIXED.replace('"b"', '"b" oh').format("", ""), "no boundary"),
        (MIXED.replace('"b"', "<b>").format("", "--"), "in different ways"),
        (MIXED.replace('"b"', '"<b>"').format("", "--"), "in different ways"),
        (MIXED.replace('"b"', r'"\b"').format("", "--"), "in different ways"),
        (MIXED.replace("multipart/mixed", "(a) multipart/mixed").format("", "--"), "cannot be read"),
        (MIXED.replace('"b"', '""').format("", ""), "boundary that is none"),
        ("no field\r\n\r\nü", "neither a header field"),
        (nested(40), "nested more than 32 deep"),
        ("X: " + "a" * 999 + "\r\n\r\nü", "a line of the header"),
        ("Message-ID: <ü@example.org>\r\n\r\n", "'Message-ID' is not ASCII"),
        ("References: <ü@example.org>\r\n\r\n", "'References' is not ASCII"),
        ("To: jörg@example.org\r\n\r\n", "'jörg@example.org' is not ASCII before its @"),
        ("To: a@straße.example\r\n\r\n", "old and new IDNA"),
        ("To: a@example.org (Jörg)\r\n\r\n", "a comment"),
        ("To: Jörg a@example.org\r\n\r\n", "words beside an address"),
        ("Subject: ü =?utf-8?q?=C3=BC?=\r\n\r\n", "encoded-words beside"),
        ("Subject: \xfc\r\n\r\n".encode("latin-1"), "neither ASCII nor UTF-8"),
        ("Subject: ü\x1b[31m\r\n\r\n", "control character"),
        ("Subject: ü\u2028X: y\r\n\r\n", "control character"),
        ("Content-Disposition: inline; filename=ü b\r\n\r\n", "several ways"),
        ("Content-Disposition: inline; filename=ü; filename*=utf-8''%C3%BC\r\n\r\n", "one parameter twice"),
        ("Content-Disposition: ü\r\n\r\n", "nothing can be encoded"),
        ('Content-Disposition: inline; filename="' + "ü" * 300 + '"\r\n\r\n', "would have a line"),
    ],
)
def test_what_would_lose_something_is_refused_with_the_reason(content: str | bytes, word: str) -> None:
    octets = content if isinstance(content, bytes) else content.encode()

    assert word in reason(octets)


def test_signed_parts_stay_where_they_need_no_change() -> None:
    signed = SIGNED.replace("ü", "u")
    content = f'Content-Type: multipart/mixed; boundary="o"\r\n\r\n--o\r\n{signed}\r\n--o\r\n\r\nü\r\n--o--\r\n'.encode()
    made = seven(content)

    assert signed.encode() in made
    same(content, made)


def test_a_part_may_have_no_line_at_all() -> None:
    content = MIXED.format("--b\r\n--b \r\n", "--").encode()
    made = seven(content)

    same(content, made)
    assert made.count(b"\r\n") == content.count(b"\r\n") + 2, "two fields, and nothing else, were added"


def test_only_what_must_be_changed_is_changed() -> None:
    before = (
        'Subject:  two  spaces\r\nMime-version: 1.0\r\nContent-Type: multipart/mixed;\r\n\tboundary="b b"\r\n'
        "content-transfer-ENCODING:\t8bit\r\n\r\npreamble\r\n--b b \t\r\n"
        "Content-Type: text/plain;charset=utf-8\r\ncontent-transfer-ENCODING:\t8bit\r\nX: y\r\n\r\nViele Grüße an alle\r\n"
        "--b b\r\nContent-Transfer-Encoding: 8bit\r\n\r\nplain = --  \r\n--b b--\r\nepilogue"
    )
    after = (
        before.replace("ENCODING:\t8bit\r\n\r\npre", "ENCODING: 7bit\r\n\r\npre")
        .replace("ENCODING:\t8bit\r\nX", "ENCODING: quoted-printable\r\nX")
        .replace("Grüße", "Gr=C3=BC=C3=9Fe")
    )
    assert seven(before.encode()) == after.encode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("\r\nü\r\n", "MIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\n\r\nw7wNCg=="),
        ("MIME-Version: 1.0\r\n\r\naaaaaaaaaaü", "MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\naaaaaaaaaa=C3=BC"),
        ("Subject: ü", "Subject: =?utf-8?b?w7w=?="),
        ("Subject:aaaaaaaaü\r\n\r\n", "Subject: =?utf-8?q?aaaaaaaa=C3=BC?=\r\n\r\n"),
        ("Subject: a ü, b ü. c\r\n\r\n", "Subject: a =?utf-8?b?w7wsIGIgw7wu?= c\r\n\r\n"),
        ("To: Jörg <a@b.c>\r\n\r\n", "To: =?utf-8?b?SsO2cmc=?= <a@b.c>\r\n\r\n"),
        ("To: a@bücher.example\r\n\r\n", "To: a@xn--bcher-kva.example\r\n\r\n"),
        ('X: y\r\nTo: "a, b" <a@b.c>,Ü<b@c.d>\r\n\r\n', 'X: y\r\nTo: "a, b" <a@b.c>, =?utf-8?b?w5w=?= <b@c.d>\r\n\r\n'),
        (
            'Content-Disposition: inline; filename="ü\\"b.txt"; x=y\r\n\r\n',
            "Content-Disposition: inline;\r\n filename*=utf-8''%C3%BC%22b.txt; x=y\r\n\r\n",
        ),
    ],
)  # fmt: skip
def test_each_form_has_the_one_that_is_written_for_it(before: str, after: str) -> None:
    assert seven(before.encode()) == after.encode()


# --- headers -------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Cs"]), max_size=300)


@thorough
@given(st.sampled_from(["Subject", "X-Note", "X-" + "n" * 60]), TEXT)
@example("Subject", "a" * 900 + " ü")
@example("Subject", "ü " + "a" * 900)
@example("Subject", "a\tü \t ü\tb")
def test_a_text_is_read_as_it_was(name: str, value: str) -> None:
    value = value.strip()
    made = downgraded(f"{name}: {value}\r\n\r\n".encode(), eightbit=False, utf8=False)
    if isinstance(made, str):
        assert "=?" in value or "a line of" in made
        return
    assert made.endswith(b"\r\n\r\n")
    assert made.isascii()
    assert (
        default.header_factory(name, made[:-4].replace(b"\r\n", b"").decode()[len(name) + 1 :].strip())
        == value
    )
    for line in made.split(b"\r\n"):
        words = re.findall(rb"=\?.*?\?=", line)
        assert all(len(word) <= 75 for word in words)
        assert not words or len(line) <= 76 or line.count(b" ") <= 2


NAMES = st.text(st.sampled_from("ab .,;\"\\'<>@()üßЖ漢😀"), min_size=1, max_size=60)


def quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


@thorough
@given(
    st.lists(
        st.tuples(NAMES, st.sampled_from(["a@example.org", "b.c@bücher.example", '"d e"@x.y'])), min_size=1
    )
)
def test_names_and_addresses_are_read_as_they_were(mailboxes: list[tuple[str, str]]) -> None:
    value = ", ".join(f"{quoted(name)} <{address}>" for name, address in mailboxes)
    made = downgraded(f"To: {value}\r\n\r\n".encode(), eightbit=False, utf8=False)
    if isinstance(made, str):
        assert "a comment" in made or "a line of" in made
        return
    written = made[4:-4].replace(b"\r\n", b"").decode("ascii")
    assert parse_address_list(written) == parse_address_list(value)
    shown: Any = default.header_factory("To", written)
    # Up to 3.12 the library shows the space between two encoded-words of a name.
    assert [a.display_name.replace(" ", "") for a in shown.addresses] == [
        name.replace(" ", "") for name, _ in mailboxes
    ]


# --- encodings -----------------------------------------------------------------------------------


@thorough
@given(
    st.binary(max_size=400)
    | st.lists(st.sampled_from([b"\r\n", b"--", b"=", b" ", b"\t", b"\xff", b"a"])).map(b"".join)
)
@example(b"--" * 100)
@example(b"x" * 71 + b"--" * 5)
@example(b"x" * 75 + b" ")
def test_any_octets_survive_both_encodings(octets: bytes) -> None:
    printable, based = quoted_printable(octets), b"".join(in_base64(memoryview(octets)))

    assert quopri.decodestring(printable) == binascii.a2b_qp(printable) == octets
    assert base64.b64decode(based) == octets
    for line in [*printable.split(b"\r\n"), *based.split(b"\r\n")]:
        assert re.fullmatch(rb"(?!--)([!-~ \t]{0,75}[!-~])?", line)


def test_what_a_person_can_read_stays_so() -> None:
    def encoding(octets: bytes, *, text: bool = True) -> bytes:
        return encoded(memoryview(octets), text=text)[0]

    assert encoding("Grüße aus der Küche\r\n".encode()) == b"quoted-printable"
    assert encoding(b"=" * 25 + b"a b\tc\r\n" * 15) == b"quoted-printable"
    assert encoding(b"=" * 29 + b"a b\tc\r\n" * 12) == b"base64"
    assert encoding("漢字漢字".encode()) == b"base64"
    assert encoding(b"\xfc" + b"a" * (1 << 20)) == b"base64"
    assert encoding(b"Gr\xfc\xdfe aus der K\xfcche\r\n", text=False) == b"base64"


@pytest.mark.parametrize("size", [0, 1, 57, 57 * 1024 - 1, 57 * 1024, 57 * 1024 + 1, 57 * 4096])
def test_pieces_of_base64_are_one_text(size: int) -> None:
    octets = bytes(range(256)) * (size // 256 + 1)
    based = b"".join(in_base64(memoryview(octets)[:size]))

    assert based == base64.encodebytes(octets[:size]).replace(b"\n", b"\r\n").removesuffix(b"\r\n")


def test_the_lines_before_a_part_are_counted_only_where_it_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted for each of many parts they would take the square of its size."""
    counted: list[int] = []

    def noted(content: bytes, offset: int) -> int:
        counted.append(offset)
        return line_at(content, offset)

    monkeypatch.setattr("outbox.mail.parts.line_at", noted)
    head = b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
    part = b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xc3\xa4\r\n"
    seven(head + part * 20 + b"--b--\r\n")
    assert not counted

    assert "line 10" in reason(head + part + b"--b\r\nno field\r\n\r\n\xc3\xa4\r\n--b--\r\n")
