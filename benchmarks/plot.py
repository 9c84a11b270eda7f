"""Bars, drawn by hand: who submits how much, as an SVG that is legible on light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

import attrs

__all__ = ["WIDTH", "Bar", "Panel", "draw", "page", "text"]

WIDTH: Final = 760
_LABELS: Final = 230
_BARS: Final = 400
_HEIGHT: Final = 22
_GAP: Final = 34
_STYLE: Final = """
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; }
  .quiet { fill: #57606a; }
  .line { fill: none; stroke: #0969da; stroke-width: 2; } .axis { stroke: #d0d7de; }
  .ours { fill: #0969da; } .reference { fill: #8c959f; } .peer { fill: #bf8700; }
  .weaker { fill: none; stroke: #bf8700; stroke-dasharray: 3 2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .quiet { fill: #9198a1; }
    .line { stroke: #4493f8; } .axis { stroke: #3d444d; }
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
    parts = [text(0, 16, title, "title"), text(0, 36, caption, "quiet")]
    top = 36 + _GAP
    for panel in panels:
        parts.append(text(0, top, panel.title, "title"))
        parts += _bars(panel, top + 10)
        top += 10 + len(panel.bars) * _HEIGHT + _GAP
    return page(title, parts, top - _GAP + 10)


def page(title: str, parts: Sequence[str], height: float) -> str:
    """The whole SVG, of what stands on it."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title, {chr(34): "&quot;"})}">\n<style>{_STYLE}</style>\n{body}\n</svg>\n'
    )


def _bars(panel: Panel, top: int) -> Iterator[str]:
    longest = max(bar.value for bar in panel.bars) or 1
    for number, bar in enumerate(panel.bars):
        y = top + number * _HEIGHT
        width = max(1.0, _BARS * bar.value / longest)
        yield text(_LABELS - 8, y + 15, bar.name, end=True)
        yield f'<rect class="{bar.kind}" x="{_LABELS}" y="{y + 3}" width="{width:.1f}" height="{_HEIGHT - 7}" rx="2"/>'
        yield text(_LABELS + width + 8, y + 15, f"{bar.value:,.0f}", "quiet")


def text(x: float, y: float, text: str, kind: str = "", *, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{style}{anchor}>{escape(text)}</text>'
