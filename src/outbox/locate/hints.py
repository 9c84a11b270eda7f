"""What was mistyped, and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'timeout'?"`` where one of *known* is close, else ``""``."""
    import difflib  # noqa: PLC0415 - of use where somebody mistyped

    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
