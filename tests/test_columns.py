"""Text in the columns of a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from outbox.cli.columns import TONES, Toned, columns, cut, laid_out, width_of, wrapped

XTERM = {"red": (205, 0, 0), "magenta": (205, 0, 205)}
BRIGHT = {"red": (255, 0, 0), "magenta": (255, 0, 255)}
"""What xterm makes of the two, and of the two where they are bold."""

TEXTS = st.text(alphabet="ab -用ü\u0301ᄒ", max_size=60)


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("abc", 3),
        ("用户", 4),
        ("e\u0301", 1),
        ("\u1112\u1161\u11ab", 2),
        ("a\u20dd", 1),
        ("\uff57", 2),
        ("👍", 2),
    ],
)
def test_a_text_is_as_wide_as_it_stands(text: str, width: int) -> None:
    assert width_of(text) == width


def test_columns_stand_below_each_other_whatever_the_letters() -> None:
    lines = columns(("A", "B"), [("用户", "x"), ("e\u0301te\u0301", "x"), ("abcdef", "x")])
    assert {width_of(line[: line.index("x")]) for line in lines[1:]} == {8}


def test_marks_do_not_count_where_a_text_is_cut() -> None:
    assert cut("e\u0301" * 10, 10) == "e\u0301" * 10
    assert cut("e\u0301" * 11, 10) == "e\u0301" * 9 + "…"


@given(TEXTS, st.integers(1, 30))
def test_what_is_cut_fits(text: str, width: int) -> None:
    assert width_of(cut(text, width)) <= width


@given(TEXTS, st.integers(8, 30))
def test_what_is_wrapped_fits_and_loses_nothing(text: str, width: int) -> None:
    lines = wrapped(text, width, "  ")
    assert max(map(width_of, lines)) <= width
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_a_command_is_never_broken_and_its_remark_goes_below() -> None:
    command = "    -> outbox requeue 01a1fffd-92cb-7f85-b56e-c2d4f60f6b8f"
    assert wrapped(f"{command}   (lets it go at once)", 60) == [command, "       (lets it go at once)"]
    assert wrapped(f"{command}   (at once)", 80) == [f"{command}   (at once)"]


def test_a_long_name_makes_room_for_the_numbers() -> None:
    lines = columns(("QUEUE", "N"), [("q" * 90, "12,345")], right=("N",), width=40, give=("QUEUE",))
    assert lines[1].endswith("…  12,345")
    assert all(width_of(line) <= 40 for line in lines)


def test_no_line_of_a_table_is_wider_than_the_terminal() -> None:
    laid = laid_out(("A", "B"), [("x" * 90, "y" * 90)], width=40)
    assert [sum(map(width_of, line)) for line in laid][1] == 40


def test_every_cell_keeps_its_weight() -> None:
    (_, *row), _ = laid_out(("A", "B"), [("1", Toned("dead", "bad"))])[1], None
    assert [part.tone for part in row if isinstance(part, Toned)] == ["bad"]


@pytest.mark.parametrize("style", sorted(filter(None, TONES.values())))
def test_every_colour_can_be_read_on_black_and_on_white(style: str) -> None:
    for colour in set(style.split()) - {"bold"}:
        for shades in (XTERM, BRIGHT):
            light = _luminance(shades[colour])
            assert (light + 0.05) / 0.05 >= 3
            assert 1.05 / (light + 0.05) >= 3


def _luminance(colour: tuple[int, int, int]) -> float:
    """As WCAG 2 has it."""
    parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
