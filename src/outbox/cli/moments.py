"""Until when: an hour of the day, a date, or so long from now."""

from __future__ import annotations

import argparse
import datetime as dt
import re
from typing import Final

from outbox.clock import SystemClock
from outbox.locate import parse_duration
from outbox.values import quoted

from .arguments import refused_by_argparse
from .exits import CommandError, Exit

__all__ = ["add_end", "end_of", "local", "moment"]

_DAY: Final = dt.timedelta(days=1)
_HOUR: Final = re.compile(r"(\d{1,2}):(\d{2})", re.ASCII)
_LIKE: Final = "write 18:00 (the next one), 2026-11-23T08:00 or 2026-11-23T08:00+01:00; or --for 2h"


def add_end(parser: argparse.ArgumentParser) -> None:
    """--until and --for, of which one may be said."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--until",
        metavar="WHEN",
        type=moment,
        help="ends by itself then: 18:00, 2026-11-23T08:00 (this machine's time), 2026-11-23T08:00+01:00",
    )
    either.add_argument(
        "--for",
        dest="lasting",
        metavar="TIME",
        type=_duration,
        help="ends by itself after so long: 30m, 2h, 3d (default: lasts until it is taken back)",
    )


def end_of(options: argparse.Namespace) -> dt.datetime | None:
    """When what the options ask for is to end; None is never."""
    now = SystemClock().now()
    until: dt.datetime | None = options.until
    try:
        end = until if options.lasting is None else now + options.lasting
    except OverflowError:
        raise CommandError(Exit.USAGE, "so long nobody waits: leave --for out, and it lasts") from None
    if end is not None and end <= now:
        raise CommandError(Exit.USAGE, f"{local(end)} has passed: {_LIKE}")
    return end


def moment(text: str) -> dt.datetime:
    """The instant that a person means; without an offset it is in this machine's own time."""
    now = SystemClock().now()
    try:
        hour = _HOUR.fullmatch(text.strip())
        if hour is None:
            return dt.datetime.fromisoformat(text.strip()).astimezone(dt.UTC)
        here = now.astimezone().replace(tzinfo=None)
        then = here.replace(hour=int(hour[1]), minute=int(hour[2]), second=0, microsecond=0)
        # Added to the day and not to the instant: days are not all as long.
        return (then if then > here else then + _DAY).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{quoted(text, 40)} is no time: {_LIKE}") from None


def local(moment: dt.datetime, *, seconds: bool = False) -> str:
    """In this machine's own time, with its offset, so that it can be read only one way: as every screen for a person has it.

    To the minute; with *seconds* for what is to be found in somebody else's log.
    """
    try:
        return moment.astimezone().strftime(f"%Y-%m-%d %H:%M{':%S' if seconds else ''} %z")
    except (ValueError, OverflowError):
        return moment.isoformat()


def _duration(text: str) -> dt.timedelta:
    return refused_by_argparse(parse_duration, text)
