"""What goes over the wire is what was submitted, and nothing in it can be taken for a command."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings, strategies as st

from outbox.message import Message
from outbox.outcome import PermFailed
from outbox.transports.smtp.content import BLOCK, DOTTED, Content, defect
from outbox.transports.smtp.envelope import path, prepare

LINES = st.lists(st.sampled_from([b"", b".", b"..", b".x", b"x", b"x.", b"\xc3\xa9"])).map(b"\r\n".join)


def unstuffed(sent: bytes) -> bytes:
    """What a receiver makes of it (RFC 5321 section 4.5.2), line by line."""
    lines = sent.split(b"\r\n")
    end = lines.index(b".")
    assert lines[end + 1 :] == [b""], "something stands behind the final dot"
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:end])


@settings(deadline=None)
@given(LINES)
def test_a_receiver_finds_what_was_submitted_and_its_end(content: bytes) -> None:
    wire = Content.of(content)
    sent = b"".join(wire.blocks())

    ended = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    assert unstuffed(sent) == ended
    assert sent[wire.dot :] == b".\r\n"
    assert wire.size == len(ended)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 7])
def test_it_goes_out_in_blocks_and_whole(size: int) -> None:
    content = b"x" * size
    blocks = [bytes(block) for block in Content.of(content).blocks()]

    assert b"".join(blocks).removesuffix(b"\r\n.\r\n").removesuffix(b".\r\n") == content
    assert all(0 < len(block) <= BLOCK + 5 for block in blocks)


def naive(content: bytes) -> bytes:
    """RFC 5321 section 4.5.2, line by line."""
    lines = (content if content.endswith(b"\r\n") or not content else content + b"\r\n").split(b"\r\n")
    return b"\r\n".join([*(b"." + line if line.startswith(b".") else line for line in lines[:-1]), b".\r\n"])


EDGES = st.lists(st.sampled_from([b"\r\n", b".", b"\r\n.", b"a", b"."]), max_size=8).map(b"".join)


@settings(max_examples=200, deadline=None)
@given(EDGES, st.integers(-12, 4), st.sampled_from([0, BLOCK, DOTTED, 2 * BLOCK, 2 * DOTTED]), EDGES)
@example(b"", -3, DOTTED, b"\r\n.\r\n")
@example(b"", -2, DOTTED, b"\r\n.\r\n")
@example(b"", -1, DOTTED, b"\r\n.\r\n")
@example(b".\r\n." * 20_000, 0, 0, b"")
@example(b"\r\n." * 50_000, 0, 0, b"")
def test_wherever_a_block_ends_what_goes_out_is_the_same(
    before: bytes, shift: int, blocks: int, behind: bytes
) -> None:
    filler = b"a" * max(0, blocks + shift - len(before))
    content = before + filler + behind
    wire = Content.of(content)
    pieces = [bytes(piece) for piece in wire.blocks()]

    assert b"".join(pieces) == naive(content)
    assert all(0 < len(piece) <= BLOCK + 5 for piece in pieces)
    assert wire.dot == len(naive(content)) - 3


def test_a_large_content_is_not_copied_where_no_dot_is_to_be_added() -> None:
    content = b"x" * 1_000_000

    assert all(
        isinstance(block, memoryview) and block.obj is content
        for block in list(Content.of(content).blocks())[:-1]
    )


@pytest.mark.parametrize(
    "content",
    [
        b"a\nb\r\n",
        b"a\r\n.\nMAIL FROM:<x@example.org>\r\n",
        b"\n",
        b"a\rb\r\n",
        b"a\r\n.\r\r\nx",
        b"\r",
        b"a\r\r\n",
        b"a\n\r\n",
        b"a\0b\r\n",
    ],
)
def test_what_could_smuggle_a_message_is_refused_for_everybody(content: bytes) -> None:
    message = Message(recipients=("a@example.org", "b@example.org"), content=content)
    mail, refused = prepare(message, message.recipients)

    assert not mail.paths
    assert list(refused) == ["a@example.org", "b@example.org"]
    assert all("malformed" in result.reply for result in refused.values())


@settings(deadline=None)
@given(st.binary(max_size=50))
def test_only_whole_line_ends_are_without_defect(content: bytes) -> None:
    clean = not re.search(rb"\0|\r(?!\n)|(?<!\r)\n", content)

    assert (defect(content) == "") is clean


@pytest.mark.parametrize(
    ("content", "eightbit", "utf8"),
    [
        (b"Subject: a\r\n\r\nb", False, False),
        ("Subject: a\r\n\r\né".encode(), True, False),
        ("Subject: é\r\n\r\na".encode(), True, True),
        ("Subject: é".encode(), True, True),
        ("\r\né\r\n\r\n".encode(), True, False),
        (b"", False, False),
    ],
)
def test_what_it_demands_of_a_server_is_seen(content: bytes, eightbit: bool, utf8: bool) -> None:
    wire = Content.of(content)

    assert (wire.eightbit, wire.utf8) == (eightbit, utf8)


@pytest.mark.parametrize(
    "address",
    [
        "a@example.org",
        "postmaster",
        '"a b"@example.org',
        '"a>b"@example.org',
        r'"a\"b"@example.org',
        "ä@exämple.org",
        "a@[IPv6:::1]",
        "a..b.@example.org",
        "a" * 242 + "@example.org",
        "é" * 121 + "@example.org",
    ],
)
def test_an_address_goes_out_as_it_is(address: str) -> None:
    assert path(address) == address.encode()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a b@example.org",
        "a@example.org> SIZE=1",
        "<a@example.org>",
        "a@example.org\r\nRCPT TO:<b@example.org>",
        "a\t@example.org",
        "a\u00a0b@example.org",
        "a\u2028b@example.org",
        '"a@example.org',
        'a"@example.org',
        '"a\\"@example.org',
        '"a\r\nb"@example.org',
        "a" * 400 + "@example.org",
        "a" * 243 + "@example.org",
        "é" * 122 + "@example.org",
        "@relay.example:a@example.org",
        "a@b@example.org",
        "a,b@example.org",
        "a(b)@example.org",
        "a\\@b@example.org",
        "=?utf-8?q?a?=@example.org",
    ],
)
def test_an_address_that_could_mean_more_than_itself_is_never_written(address: str) -> None:
    assert path(address) is None


@settings(deadline=None)
@given(st.text(max_size=20))
def test_no_path_holds_what_ends_a_command(address: str) -> None:
    written = path(address)
    assert written is None or not re.search(rb"[\x00-\x1f\x7f]", written)


def test_only_the_recipient_that_cannot_be_named_is_refused() -> None:
    message = Message(recipients=("a@example.org", "b>@example.org"), content=b"", sender="s@example.org")
    mail, refused = prepare(message, message.recipients)

    assert dict(mail.paths) == {"a@example.org": b"a@example.org"}
    assert list(refused) == ["b>@example.org"]
    assert isinstance(refused["b>@example.org"], PermFailed)


def test_a_sender_that_cannot_be_named_refuses_all() -> None:
    message = Message(recipients=("a@example.org",), content=b"", sender="s >@example.org")
    mail, refused = prepare(message, message.recipients)

    assert not mail.paths
    assert "sender" in refused["a@example.org"].reply


def test_the_null_sender_is_a_path() -> None:
    message = Message(recipients=("a@example.org",), content=b"")

    assert prepare(message, message.recipients)[0].sender == b""
