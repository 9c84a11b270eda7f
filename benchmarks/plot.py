"""Bars, drawn by hand: who submits how much, as an SVG that is legible on light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

import attrs

__all__ = ["Bar", "Panel", "draw"]

_WIDTH: Final = 760
_LABELS: Final = 230
_BARS: Final = 400
_HEIGHT: Final = 22
_GAP: Final = 34
_STYLE: Final = """
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; }
  .quiet { fill: #57606a; }
  .ours { fill: #0969da; } .reference { fill: #8c959f; } .peer { fill: #bf8700; }
  .weaker { fill: none; stroke: #bf8700; stroke-dasharray: 3 2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .quiet { fill: #9198a1; }
    .ours { fill: #4493f8; } .reference { fill: #656c76; } .peer { fill: #d29922; } .weaker { stroke: #d29922; }
  }
"""


@attrs.frozen
class Bar:
    """*kind* is ``ours``, ``reference``, ``peer``, or ``weaker``: one that a power failure can undo."""

    name: str
    value: float
    kind: str


@attrs.frozen
class Panel:
    """Bars that are compared with each other; the longest is as long as there is room for."""

    title: str
    bars: Sequence[Bar]


def draw(title: str, caption: str, panels: Sequence[Panel]) -> str:
    parts = [_text(0, 16, title, "title"), _text(0, 36, caption, "quiet")]
    top = 36 + _GAP
    for panel in panels:
        parts.append(_text(0, top, panel.title, "title"))
        parts += _bars(panel, top + 10)
        top += 10 + len(panel.bars) * _HEIGHT + _GAP
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top - _GAP + 10}" role="img" '
        f'aria-label="{escape(title, {chr(34): "&quot;"})}">\n<style>{_STYLE}</style>\n{body}\n</svg>\n'
    )


def _bars(panel: Panel, top: int) -> Iterator[str]:
    longest = max(bar.value for bar in panel.bars) or 1
    for number, bar in enumerate(panel.bars):
        y = top + number * _HEIGHT
        width = max(1.0, _BARS * bar.value / longest)
        yield _text(_LABELS - 8, y + 15, bar.name, end=True)
        yield f'<rect class="{bar.kind}" x="{_LABELS}" y="{y + 3}" width="{width:.1f}" height="{_HEIGHT - 7}" rx="2"/>'
        yield _text(_LABELS + width + 8, y + 15, f"{bar.value:,.0f}", "quiet")


def _text(x: float, y: float, text: str, kind: str = "", *, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{style}{anchor}>{escape(text)}</text>'
