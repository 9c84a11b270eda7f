"""What a delivering command says of each message: a line in a log, or progress on a terminal.

In a log every line is ``key=value`` pairs (logfmt) unless JSON is asked for; docs/monitoring.md has the fields::

    time=… level=info status=sent to=ann@example.org … fate=accepted state=delivered attempts=1 relay=mx:25 … reply="250 ok"
    time=… level=warning relay=mx:25 paused=5.000 reason="mx:25: connection refused"
    time=… level=info msg=drained delivered=1
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from outbox.clock import SystemClock
from outbox.errors import RelayMisconfigured
from outbox.events import Delayed, LeaseLost, Notice, RelayPaused, RelayResumed, Settled, StoreFailed
from outbox.formats import logfmt
from outbox.lifecycle import Delivered, Fate, Released, Retry, Verdict
from outbox.locate import spell
from outbox.logs import about
from outbox.outcome import Untried
from outbox.values import frozen_mapping, printable, words_of

from .columns import cut
from .output import Console

__all__ = ["Entry", "Journal", "entries"]

_ORDER: Final = ("delivered", "dead", "held", "expired", "to retry")
_EVERY: Final = 0.1
_NOT_TAKEN: Final = frozen_mapping({"msg": "event", "process": "place"})
"""What logging's records call otherwise: their own attributes have these names."""


def _frozen(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    return frozen_mapping(fields)


@attrs.frozen
class Entry:
    """One line to be: its level, its fields for a log, its words for a person."""

    level: int
    fields: Mapping[str, Any] = attrs.field(converter=_frozen, hash=False)
    words: str


class Journal:
    """A listener that writes to one console.

    On a terminal it shows the counts so far as progress, and a line for
    what is wrong; with *forever*, or in a log, a line for each recipient.
    A drain tells the faults of relays and store at its end, once; what runs
    *forever* tells them when they come.  With *log* all goes there instead,
    whatever its level, for the log has one of its own.
    """

    def __init__(self, console: Console, *, forever: bool = False, log: logging.Logger | None = None) -> None:
        self._console = console
        self._clock = SystemClock()
        self._forever = forever
        self._log = log
        self._live = console.worded and log is None
        self._progress = self._live and not forever and console.verbosity >= 0
        self._level = _level(console.verbosity, brief=self._progress)
        self._counts: Counter[str] = Counter()
        self._shown_at = 0.0

    def __call__(self, notice: Notice) -> None:
        """Write down one notice."""
        passing = isinstance(notice, RelayPaused | StoreFailed) and not self._forever
        for entry in entries(notice):
            self.write(attrs.evolve(entry, level=logging.DEBUG) if passing else entry)
        if isinstance(notice, Settled) and not isinstance(notice.verdict, Released):
            word = "to retry" if isinstance(notice.verdict, Retry) else str(notice.verdict.event)
            self._counts[word] += 1
            self._show_progress()

    def write(self, entry: Entry) -> None:
        """Write one line, if its level is asked for."""
        if self._log is not None:
            fields = {_NOT_TAKEN.get(name, name): value for name, value in entry.fields.items()}
            self._log.log(entry.level, "%s", logfmt(entry.fields), extra=fields)
            return
        if entry.level < self._level:
            return
        if self._live:
            self._console.above(self._console.discreet(entry.words))
            return
        self._console.entry(logging.getLevelName(entry.level).lower(), entry.fields, self._clock.now())

    def say(self, words: str, fields: Mapping[str, Any]) -> None:
        """A line about the whole, not about one message."""
        if self._live:
            self._console.note(words)
        else:
            self.write(Entry(logging.INFO, fields, words))

    def _show_progress(self) -> None:
        now = self._clock.monotonic()
        if self._progress and now - self._shown_at >= _EVERY:
            self._shown_at = now
            counts = [f"{self._counts[word]:,} {word}" for word in _ORDER if self._counts[word]]
            self._console.progress("  " + ", ".join(counts))


def _level(verbosity: int, *, brief: bool) -> int:
    if verbosity > 0:
        return logging.DEBUG
    if verbosity < -1:
        return logging.ERROR
    return logging.WARNING if brief or verbosity < 0 else logging.INFO


def entries(notice: Notice) -> Iterator[Entry]:
    """What there is to write of one notice: a line for each recipient that was handed over."""
    match notice:
        case Settled():
            yield from _settled(notice)
        case Delayed(claim=claim):
            fields = {"id": claim.message.id, "msg": "delayed", "waited": claim.age, "reason": notice.reason}
            words = f"late       {claim.message.id} has waited for {spell(claim.age)}: {notice.reason}"
            yield Entry(logging.WARNING, fields, words)
        case LeaseLost(claim=claim):
            words = f"{claim.message.id}: another runner took it over while it was under way here"
            yield Entry(logging.WARNING, {"id": claim.message.id, "msg": "lease lost"}, words)
        case RelayPaused(fault=fault, wait=wait):
            level = logging.ERROR if isinstance(fault, RelayMisconfigured) else logging.WARNING
            fields = {"relay": notice.relay or fault.relay, "paused": wait, "reason": fault}
            why = printable(words_of(fault))
            yield Entry(level, fields, f"paused     {why}; again in {spell(wait)}, no message is charged")
        case RelayResumed(relay=relay):
            yield Entry(logging.INFO, {"relay": relay, "msg": "resumed"}, f"resumed    {relay}")
        case StoreFailed(error=error, wait=wait):
            fields = {"msg": "store failed", "reason": error, "again_in": wait}
            yield Entry(
                logging.ERROR, fields, f"store      {printable(words_of(error))}; again in {spell(wait)}"
            )


def _settled(notice: Settled) -> Iterator[Entry]:
    released = isinstance(notice.verdict, Released)
    for recipient in notice.claim.recipients:
        fate, reply = notice.verdict.fates[recipient], _reply(notice.verdict, recipient)
        grave = fate in (Fate.FAILED, Fate.UNCERTAIN)
        level = logging.WARNING if grave else logging.DEBUG if released else logging.INFO
        tail = f" ({notice.claim.message.id})" if grave else _again(notice, fate)
        words = f"{fate:<9}  {printable(recipient, 200)}  {cut(reply, 200)}{tail}"
        yield Entry(level, about(notice, recipient), words)


def _reply(verdict: Verdict, recipient: str) -> str:
    """What the relay said of this recipient, else why the message was not handed over."""
    results = verdict.outcome.results if verdict.outcome is not None else {}
    result = results.get(recipient)
    if result is not None and (result.reply or not isinstance(result, Untried)):
        return result.reply
    return "" if isinstance(verdict, Delivered) else verdict.reason


def _again(notice: Settled, fate: Fate) -> str:
    verdict = notice.verdict
    if not isinstance(verdict, Retry | Released) or not fate.open:
        return ""
    return f" (attempt {notice.claim.attempt}; again in {spell(verdict.delay)})"
