"""What goes on in the store, painted anew every two seconds.

Queues with the one on top whose mail has been due for longest; what is stopped
and by whom; who is at work and how much they do; relays that are not well; what
those that wait have met, and what failed last.  It looks as `outbox status`
does: it changes nothing, and asks nothing that a million messages make slow.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import threading
from collections.abc import Sequence
from typing import Final

import attrs

from outbox.clock import SystemClock
from outbox.errors import OutboxError
from outbox.lifecycle import Summary
from outbox.locate import Config, masked, spell
from outbox.values import printable

from .arguments import add_duration, add_key, whole
from .capable import browsable
from .columns import Toned, cut, padded, width_of, wrapped
from .exits import CommandError, Exit, Signalled
from .failing import failures
from .moments import local
from .opening import opened_store
from .output import Console, can_be_steered
from .picture import Section, Trend, fitted, sections
from .screen import Screen
from .settings import config_of
from .sight import Sight, data, looked
from .signals import heeded

__all__ = ["EPILOG", "arguments", "run"]

EPILOG: Final = """\
examples:
  outbox top                      until q or Ctrl-C
  outbox top --interval 10s       looks less often
  outbox top --once               one picture, whole, then the end
  outbox top -n 6 --interval 10s > minute.txt
  outbox top --json               a line each time, as outbox status --json

keys: q ends it, the space bar looks at once, Ctrl-Z rests it.

Where standard output is no terminal, pictures are written one below the other
and nothing is cut. FOR is how long the first that is due has been due, and
red from ten minutes on; CHANGE is of what waits, over the last minute. What the
screen has no room for is counted: make it larger, or ask outbox status.
"""

_TWO_SECONDS: Final = dt.timedelta(seconds=2)
_SHORTEST: Final = dt.timedelta(seconds=0.1)
_ENDING: Final = ("q", "Q", "\x03", "\x04")
_ONCE: Final = 1
_SIGINT: Final = 2


def arguments(parser: argparse.ArgumentParser) -> None:
    add_key(
        parser,
        "queues",
        "a queue that is served (may be repeated; default: the configuration's, or mail)",
    )
    add_duration(parser, "--interval", help="between two looks: 10s, 1m (default: 2s)")
    times = parser.add_mutually_exclusive_group()
    times.add_argument("-n", "--times", metavar="N", type=whole, help="look so often, then end")
    times.add_argument("--once", dest="times", action="store_const", const=_ONCE, help="look once, then end")


def run(options: argparse.Namespace, console: Console) -> int:
    interval = _TWO_SECONDS if options.interval is None else options.interval
    if interval < _SHORTEST:
        raise CommandError(Exit.USAGE, f"--interval {spell(interval)} is too short: 0.1s or more")
    watch = _Watch(config_of(options, console), interval)
    live = can_be_steered(sys.stdout) and options.times != _ONCE and not console.as_json
    if live:
        return _painted(watch, options.times, console)
    try:
        return _appended(watch, options.times, console)
    except KeyboardInterrupt:
        # At a terminal, painted or not, that is how it is ended; whoever reads a pipe has less than he asked for.
        if sys.stdout.isatty() and options.times is None:
            return Exit.OK
        raise


@attrs.frozen(kw_only=True)
class _Look:
    """What was seen, and when."""

    sight: Sight
    failed: Sequence[Summary]
    at: dt.datetime


class _Watch:
    """Looks at the store, opened anew each time: it may be another by then, or gone for a moment."""

    def __init__(self, config: Config, interval: dt.timedelta) -> None:
        self.config = config
        self._hurry = _hurry(config.store)
        self._impatient = attrs.evolve(config, store=f"{config.store or ''}{self._hurry}")
        self.interval = interval
        self.trouble = ""
        self._clock = SystemClock()
        self._trend = Trend()
        # What is wrong at the beginning is no matter of a moment: that raises. No key is heard yet.
        self.last = self.look(config)

    def look(self, config: Config) -> _Look:
        """See how it stands, in a store that is opened as *config* says.

        Raises:
            OutboxError: it cannot be looked at.
        """
        with opened_store(config) as store:
            sight, now = looked(store), self._clock.now()
            failed = failures(browsable(store), sight.counts, now)
        self._trend.add(self._clock.monotonic(), sight.counts)
        return _Look(sight=sight, failed=failed, at=now)

    def look_again(self) -> None:
        """The same; where it cannot be looked at, the last picture stays, and says so."""
        try:
            self.last = self.look(self._impatient)
            self.trouble = ""
        except (OutboxError, OSError) as error:
            # Of that nobody has written anything.
            self.trouble = printable(str(error).replace(self._hurry, "") if self._hurry else str(error))

    def picture(self, width: int | None, height: int | None) -> list[Sequence[str]]:
        """The last look, for a screen of this size."""
        now = self._clock.now()
        look = self.last
        found = sections(
            look.sight, look.failed, trend=self._trend, config=self.config, now=look.at, width=width
        )
        if self.trouble:
            since = spell(max(now - look.at, dt.timedelta(seconds=1)))
            text = f"CANNOT LOOK, and this is {since} old: {self.trouble}"
            said = [(line,) for line in wrapped(Toned(text, "bad"), width, "  ")]
            found.insert(0, Section("", said, least=len(said)))
        lines = [self._title(look, width), *fitted(found, width, None if height is None else height - 1)]
        return lines if height is None else lines[:height]

    def _title(self, look: _Look, width: int | None) -> Sequence[str]:
        name = f"outbox top   {masked(self.config.store or '')}"
        if width is None:
            return (Toned(f"{name}   {local(look.at, seconds=True)}", "head"),)
        rest = f"{look.at.astimezone():%H:%M:%S}   every {self.interval.total_seconds():g} s   q ends"
        left = width - width_of(rest) - 2
        if left < width_of("outbox top"):
            return (Toned(cut("outbox top   q ends", width), "head"),)
        return Toned(padded(cut(name, left), left), "head"), f"  {rest}"


def _hurry(store: str | None) -> str:
    """What leaves a store so little patience with who locks it that a key is heard soon, at the end of its URL."""
    if store is None or not store.startswith("sqlite:") or "busy_timeout=" in store:
        return ""
    return f"{'&' if '?' in store else '?'}busy_timeout=1s"


def _appended(watch: _Watch, times: int | None, console: Console) -> int:
    """One picture below the other, for a pipe, a file and a terminal that cannot be painted on."""
    nobody_rings = threading.Event()
    number = 0
    while True:
        number += 1
        if watch.trouble:
            console.complain(f"cannot look: {watch.trouble}")
        else:
            _written(watch, console, first=number == 1)
        if number == times:
            return Exit.TEMPORARY if watch.trouble else Exit.OK
        nobody_rings.wait(watch.interval.total_seconds())
        watch.look_again()


def _written(watch: _Watch, console: Console, *, first: bool) -> None:
    if console.as_json:
        console.data(data(watch.last.sight, watch.config) | {"at": watch.last.at})
        sys.stdout.flush()
        return
    if not first:
        console.line()
    for line in watch.picture(console.width, None):
        console.line(*line)


def _painted(watch: _Watch, times: int | None, console: Console) -> int:
    screen = Screen()
    try:
        with console.later(), heeded("", leaving=screen.leave), screen:
            return _watched(watch, screen, times, console)
    except Signalled as signalled:
        if signalled.number != _SIGINT:
            raise
        return Exit.OK


def _watched(watch: _Watch, screen: Screen, times: int | None, console: Console) -> int:
    def paint() -> None:
        width, height = screen.size
        screen.paint([console.dressed(*line) for line in watch.picture(width, height)])

    number = 0
    while True:
        number += 1
        paint()
        if number == times:
            return Exit.OK
        if screen.heard(watch.interval.total_seconds(), changed=paint)[:1] in _ENDING:
            return Exit.OK
        watch.look_again()
