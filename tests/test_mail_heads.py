"""What is not ASCII in the header of any part is seen, however the mail is put together."""

from __future__ import annotations

import tracemalloc

import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from mime_trees import sound_trees, unsound_trees, walked

from outbox.errors import InvalidMessage
from outbox.mail import from_email, needs_smtputf8
from outbox.mail.heads import DEPTH, foreign_heads

thorough = settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

BLANK = "\r\n\r\n"
FILE = 'Content-Disposition: attachment; filename="Grüße.txt"'


def mixed(part: str, boundary: str = "boundary=b", mark: str = "--b", kind: str = "multipart/mixed") -> str:
    return f"Content-Type: {kind}; {boundary}\r\n\r\n{mark}\r\n\r\nü\r\n{mark}\r\n{part}\r\n{mark}--\r\n"


def foreign_fields(content: bytes) -> int:
    """As another author's reader sees them."""
    return sum(not str(value).isascii() for part in walked(content) for _, value in part.raw_items())


@thorough
@given(sound_trees())
def test_where_all_readers_see_the_same_parts_exactly_their_headers_are_seen(content: bytes) -> None:
    assert bool([*foreign_heads(content)]) is (foreign_fields(content) > 0)


@thorough
@given(unsound_trees())
def test_where_readers_see_different_parts_what_one_of_them_sees_is_seen(content: bytes) -> None:
    if foreign_fields(content):
        assert [*foreign_heads(content)]


@pytest.mark.parametrize(
    "content",
    [
        "Subject: ü\r\n\r\n",
        "Subject: ü",
        mixed(f"{FILE}\r\n\r\ntext"),
        mixed(f"{FILE}\r\n\r\ntext", 'boundary = "b"'),
        mixed(f"{FILE}\r\n\r\ntext", 'charset=x;\r\n\tBOUNDARY="\\b"'),
        mixed(f"{FILE}\r\n\r\ntext", "boundary*=us-ascii''%62"),
        mixed(f"{FILE}\r\n\r\ntext", 'boundary*0="b"; boundary*1="c"', "--bc"),
        mixed(f"{FILE}\r\n\r\ntext", "boundary=<b>"),
        mixed(f"{FILE}\r\n\r\ntext", 'boundary="<b>"'),
        mixed(f"{FILE}\r\n\r\ntext", r'boundary="\"b\""'),
        mixed(f"{FILE}\r\n\r\ntext", 'boundary="b"c', '--"b"c'),
        mixed(f"{FILE}\r\n\r\ntext", 'boundary="b "'),
        mixed(f"{FILE}\r\n\r\ntext", "boundary=b c"),
        mixed(f"{FILE}\r\n\r\ntext", "boundary=b(comment)"),
        mixed(f"{FILE}\r\n\r\ntext", "\x0cboundary=b"),
        mixed(f"{FILE}\r\n\r\ntext", kind="(comment) multipart/mixed"),
        mixed(f"{FILE}\r\n\r\ntext", kind="multipart (comment) / mixed"),
        mixed(f"{FILE}\r\n\r\ntext", mark="--b \t"),
        mixed(f"{FILE}\r\n\r\ntext", kind="MULTIPART/x-unknown"),
        mixed(f"{FILE}\r\n\r\ntext", mark="--bb"),
        mixed(f"{FILE}\r\n\r\ntext").replace("--b--", ""),
        mixed(FILE),
        mixed(mixed(f"{FILE}\r\n\r\ntext", "boundary=c", "--c")),
        mixed("Content-Type: message/rfc822\r\n\r\nSubject: ü\r\n\r\n"),
        mixed("\r\nSubject: ü\r\n\r\n", kind="multipart/digest"),
        mixed("X: y\r\n\r\nSubject: ü\r\n\r\n", kind="multipart/digest"),
        "Content-Type: text/plain\r\n" + mixed(f"{FILE}\r\n\r\ntext"),
        "Content-Type: message/rfc822\r\n\r\n" * (DEPTH + 9) + "\r\nü",
    ],
)
def test_a_header_that_some_reader_could_see_is_seen(content: str) -> None:
    assert [*foreign_heads(content.encode())]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\r\nü",
        "Subject: u\r\n\r\nü\r\nSubject: ü",
        "Content-Type: multipart/mixed\r\n\r\n--b\r\nSubject: ü\r\n\r\n",
        mixed("X: y\r\n\r\nSubject: ü\r\n\r\n"),
        mixed("\r\n--ü\r\nü: ü\r\n\r\n"),
        mixed("\r\n") + f"epilogue\r\n{FILE}\r\n\r\n--b\r\n{FILE}\r\n",
        mixed("\r\n").replace("\r\n\r\n", "\r\n\r\nü\r\nSubject: ü\r\n", 1),
        mixed("Content-Type: text/plain; charset=utf-8 (Plain text)\r\n\r\nü: ü"),
        mixed("Content-Type: message/global\r\n\r\nSubject: ü\r\n\r\n"),
        mixed("Content-Type: text/rfc822-headers\r\n\r\nSubject: ü\r\n\r\n"),
        "Content-Type: message/rfc822\r\n\r\n" * (DEPTH + 9) + "\r\nu",
    ],
)
def test_text_that_looks_like_a_header_is_none(content: str) -> None:
    assert not [*foreign_heads(content.encode())]


def test_what_is_not_utf8_in_a_part_s_header_is_refused_at_submit() -> None:
    content = "From: s@example.org\nTo: a@example.org\n" + mixed(FILE + BLANK).replace("\r\n", "\n")

    from_email(content.encode())
    from_email(content.replace("Grüße", "Gruss").encode("latin-1"))
    with pytest.raises(InvalidMessage, match=r"^line 9: bytes in the header of a part .* nor UTF-8"):
        from_email(content.encode("latin-1"))


def test_who_asks_before_submitting_is_told_of_the_parts_too() -> None:
    addresses = "From: s@example.org\r\nTo: a@example.org\r\n"

    assert needs_smtputf8(from_email(f"{addresses}{mixed(FILE + BLANK)}".encode()))
    assert not needs_smtputf8(from_email(f"{addresses}{mixed('X: y' + BLANK + 'ü')}".encode()))


@pytest.mark.parametrize(
    "content",
    [
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n" * 10_000 + b"\xff",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n\xff\r\n" * 30_000,
        b"Content-Type: multipart/mixed; boundary=b\r\n" * 31 + b"\r\n" + b"--b\r\n\r\n\xff\r\n" * 1000,
        b"".join(
            b"Content-Type: multipart/mixed; boundary=%b\r\nContent-Type: multipart/mixed; boundary=%bx\r\n\r\n--%bx\r\n"
            % ((b"%d" % n,) * 3)
            for n in range(31)
        )
        + b"\r\n\xff",
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" * 31) + b"\r\n\xff\r\n" * 30_000,
        *(
            b"Content-Type: multipart/mixed;" + each * 20_000 + b"\r\n\r\n\xff"
            for each in (
                b"boundary",
                b'boundary="',
                b';boundary="',
                b';boundary*="\\',
                b"; boundary*0* ",
                b"*",
            )
        ),
    ],
)
def test_who_wants_to_keep_us_busy_with_it_cannot(content: bytes) -> None:
    """Each of these would take minutes where its time were more than in proportion to its size."""
    tracemalloc.start()
    try:
        assert not any(content.isascii() for content in foreign_heads(content))
        assert tracemalloc.get_traced_memory()[1] < 8 * len(content) + 100_000
    finally:
        tracemalloc.stop()
