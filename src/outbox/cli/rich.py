"""What a terminal is shown where rich is installed: weight and colour, and a bar of progress.

Nothing here decides what is said or where it stands: ``columns.py`` does, for
every terminal alike.  Only what a theme adapts is used: bold, and of the
sixteen colours the two that can be read on black and on white.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Final

try:
    from rich.color import ColorSystem
    from rich.style import Style
except ImportError as error:
    raise ImportError('colours and bars need rich: pip install "durable-outbox[cli]"') from error

from .columns import TONES, Tone, Toned

__all__ = ["Bar", "dressed"]

_PLAIN: Final = ("bar.complete", "bar.finished", "bar.pulse", "progress.percentage", "progress.remaining")
"""The styles of rich's own that are bold here: its colours are of no theme."""

_STYLES: Final[Mapping[Tone, Style]] = {tone: Style.parse(style) for tone, style in TONES.items()}


def dressed(parts: Sequence[str]) -> str:
    """A line of these, each with its weight."""
    return "".join(
        _STYLES[part.tone].render(str(part), color_system=ColorSystem.STANDARD)
        if isinstance(part, Toned)
        else part
        for part in parts
    )


class Bar:
    """How far something is: words, a bar, a percentage, how long it may still take."""

    def __init__(self, total: int) -> None:
        # Slow to load, and needed by what takes long only.
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        self.total = total
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(compact=True),
            auto_refresh=False,
            expand=True,
        )
        self._task = self._progress.add_task("", total=total)

    def line(self, words: str, done: int, width: int) -> str:
        """The line at this moment, *width* columns wide."""
        from rich.console import Console  # noqa: PLC0415 - as above
        from rich.theme import Theme  # noqa: PLC0415 - as above

        self._progress.update(self._task, description=words, completed=done)
        written = io.StringIO()
        console = Console(
            file=written,
            width=width,
            force_terminal=True,
            force_jupyter=False,
            legacy_windows=False,
            color_system="standard",
            theme=Theme(dict.fromkeys(_PLAIN, "bold") | {"bar.back": "dim"}),
        )
        console.print(self._progress.get_renderable())
        return written.getvalue().partition("\n")[0]
