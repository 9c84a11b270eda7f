"""The grammar of replies: whole ones are read however they were cut, and nothing else is taken for one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings, strategies as st

from outbox.transports.smtp.extensions import Extensions
from outbox.transports.smtp.reply import MAX_LINE, MAX_LINES, BadReply, Kind, Reply, ReplyReader


def read(*pieces: bytes) -> list[Reply]:
    reader = ReplyReader()
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (reply := reader.take()) is not None:
            found.append(reply)
    return found


@pytest.mark.parametrize(
    ("wire", "reply"),
    [
        (b"250 ok\r\n", Reply(250, ("ok",))),
        (b"250\r\n", Reply(250, ("",))),
        (b"250 \r\n", Reply(250, ("",))),
        (b"250-a\r\n250 b\r\n", Reply(250, ("a", "b"))),
        (b"250-a\r\n250\r\n", Reply(250, ("a", ""))),
        (b"250-a\n250 b\n", Reply(250, ("a", "b"))),
        (b"571 not an RFC's digit, and in use\r\n", Reply(571, ("not an RFC's digit, and in use",))),
        ("550 niemand heißt so\r\n".encode(), Reply(550, ("niemand heißt so",))),
        (b"550 \xff\r\n", Reply(550, ("\\xff",))),
    ],
)
def test_a_whole_reply_is_read(wire: bytes, reply: Reply) -> None:
    assert read(wire) == [reply]


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n",
        b"25 ok\r\n",
        b"2500 ok\r\n",
        b"ok\r\n",
        b" 250 ok\r\n",
        b"150 ok\r\n",
        b"650 ok\r\n",
        b"250_ok\r\n",
        "\uff12\uff15\uff10 fullwidth digits\r\n".encode(),
        b"HTTP/1.1 400 Bad Request\r\n",
        b"250-one\r\n550 two\r\n",
        b"250-one\r\n\r\n",
    ],
)
def test_what_is_no_reply_is_refused(wire: bytes) -> None:
    with pytest.raises(BadReply):
        read(wire)


@pytest.mark.parametrize(
    "wire",
    [
        b"250 " + b"x" * MAX_LINE,
        b"250-x\r\n" * MAX_LINES + b"250 x\r\n",
        (b"250-" + b"x" * 8000 + b"\r\n") * 9,
    ],
    ids=["line", "lines", "bytes"],
)
def test_a_reply_without_bounds_is_refused(wire: bytes) -> None:
    with pytest.raises(BadReply, match="more than"):
        read(wire)


@pytest.mark.parametrize(
    "wire", [b"", b"2", b"250", b"250 ok", b"250 ok\r", b"250-a\r\n", b"250-a\r\n250 b\r"]
)
def test_a_cut_reply_is_none(wire: bytes) -> None:
    reader = ReplyReader()
    reader.feed(wire)

    assert reader.take() is None
    assert reader.pending == bool(wire)


def test_what_stands_behind_a_reply_is_kept_for_the_next() -> None:
    reader = ReplyReader()
    reader.feed(b"250 one\r\n550 two\r\n354")

    assert [reader.take(), reader.take(), reader.take()] == [Reply(250, ("one",)), Reply(550, ("two",)), None]
    assert reader.pending


@pytest.mark.parametrize(
    ("text", "enhanced"),
    [
        ("5.1.1 no such user", (1, 1)),
        ("5.1.1", (1, 1)),
        ("4.5.3 too many", (5, 3)),
        ("no such user", None),
        ("5.1.1x", None),
        ("1.2.3.4 is listed", None),
        ("5.1.1.1 is listed", None),
    ],
)
def test_an_enhanced_code_is_read_where_there_is_one(text: str, enhanced: tuple[int, int] | None) -> None:
    assert Reply(550, (text,)).enhanced == enhanced


def test_the_first_digit_decides() -> None:
    assert [Reply(code).kind for code in (299, 354, 421, 571)] == list(Kind)
    assert Reply(421).closing
    assert not Reply(451).closing


def test_a_reply_is_shown_in_one_line() -> None:
    assert str(Reply(250, ("a ", "", "b"))) == "250 a b"


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    text = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=40)
    return Reply(draw(st.integers(200, 599)), tuple(draw(st.lists(text, min_size=1, max_size=5))))


def wire(reply: Reply) -> bytes:
    *first, last = reply.lines
    return "".join([*(f"{reply.code}-{line}\r\n" for line in first), f"{reply.code} {last}\r\n"]).encode()


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return (data[a:b] for a, b in itertools.pairwise(edges))


@settings(deadline=None)
@given(st.lists(replies(), max_size=4), st.lists(st.integers(min_value=0), max_size=8))
def test_replies_are_the_same_however_they_are_cut(sent: list[Reply], places: list[int]) -> None:
    assert read(*cut(b"".join(map(wire, sent)), places)) == sent


def fate(pieces: list[bytes]) -> object:
    try:
        return read(*pieces)
    except BadReply:
        return BadReply


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([b"2", b"5", b"0", b"-", b" ", b"\r", b"\n", b"250", b"250-a\r\n", b"x", b"\xff"])
    ).map(b"".join),
    st.lists(st.integers(min_value=0), max_size=8),
)
def test_any_bytes_are_a_reply_or_refused_and_cutting_them_changes_nothing(
    data: bytes, places: list[int]
) -> None:
    whole = fate([data])

    assert fate(list(cut(data, places))) == whole


def test_what_a_server_offers_is_read_from_its_greeting() -> None:
    extensions = Extensions.parse(
        Reply(
            250,
            ("mx.example greets you, STARTTLS", "size 1000", "auth PLAIN login", "AUTH=XOAUTH2", "8BITMIME "),
        )
    )

    assert "STARTTLS" not in extensions
    assert "8BITMIME" in extensions
    assert extensions.size == 1000
    assert extensions.mechanisms == {"PLAIN", "LOGIN", "XOAUTH2"}


@pytest.mark.parametrize("size", ["SIZE", "SIZE 0", "SIZE x", "SIZE ٣", "SIZE -1", "SIZE 1 2"])
def test_a_size_that_says_nothing_limits_nothing(size: str) -> None:
    assert Extensions.parse(Reply(250, ("mx", size))).size is None


def seen(*lines: bytes) -> ReplyReader:
    """A reader that has read each of *lines* once."""
    reader = ReplyReader()
    reader.feed(b"".join(lines))
    while reader.take():
        pass
    return reader


ANY = frozenset(Kind)


def test_what_was_seen_before_is_taken_as_far_as_it_is_asked_for() -> None:
    reader = seen(b"250 ok\r\n", b"354 go on\r\n")
    reader.feed(b"250 ok\r\n250 ok\n354 go on\r\n250 ok\r\n")

    assert [reply.code for reply in reader.known([ANY] * 3)] == [250, 250, 354]
    assert reader.take() == Reply(250, ("ok",))
    assert not reader.pending


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        (b"421 leaving\r\n", ANY),
        (b"354 go on\r\n", {Kind.DONE}),
        (b"250 never seen\r\n", ANY),
        (b"250-ok\r\n250 ok\r\n", ANY),
    ],
)
def test_what_has_to_be_looked_at_more_closely_is_left(line: bytes, kinds: frozenset[Kind]) -> None:
    reader = seen(b"250 ok\r\n", b"354 go on\r\n", b"421 leaving\r\n")
    reader.feed(b"250 ok\r\n" + line)

    assert reader.known([ANY, kinds]) == [Reply(250, ("ok",))]
    left = reader.take()
    assert left is not None
    assert left.code == int(line[:3])


@pytest.mark.parametrize("rest", [b"", b"\r", b"250 ok", b"250 ok\r"])
def test_no_part_of_a_line_is_taken_for_one_that_was_seen(rest: bytes) -> None:
    reader = seen(b"250 ok\r\n")
    reader.feed(rest)

    assert reader.known([ANY]) == []
    assert reader.take() is None
