"""What was said over a connection, for a person to read: without secrets and content, within bounds.

Nearly every delivery succeeds, and then nobody reads it: what was said is
only noted in passing, and put into lines where it is asked for.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, TypeAlias

import attrs

from outbox.clock import Clock
from outbox.values import abridged, printable

from .content import Content
from .reply import Kind, Reply
from .scrub import scrubbed
from .secured import Secured
from .steps import Lost, Step

__all__ = ["LOG", "Heard", "Kept", "Reached", "Reaching", "Recorder", "Transcript"]

Kept: TypeAlias = Literal["failed", "never"]
"""Of which attempts the dialogue is kept."""

LOG: Final = logging.getLogger("outbox.transports.smtp")
"""Every line of every dialogue goes there where it is enabled for DEBUG."""

_HALF: Final = 32 << 10
"""Bytes from the beginning that are noted at least, and from the end: more than is shown of either."""
_EACH: Final = 64
"""What is counted for an entry besides its bytes."""


@attrs.frozen
class Heard:
    """A reply, as it may be shown, and the step that it was for."""

    step: Step
    reply: Reply


@attrs.frozen
class Reaching:
    """A new connection to *relay* is begun: what was found out over an earlier one says nothing of it."""

    relay: str


@attrs.frozen
class Reached:
    """The connection stands; whoever is there has so many *seconds* to greet, or to shake hands."""

    seconds: float


_What: TypeAlias = bytes | Reply | Content | str
_Entry: TypeAlias = tuple[float, str, _What, int]
"""When, who, what, and the bytes counted for it.  A tuple, for several are made of every message."""


def _number(entry: _Entry) -> int:
    """How many lines it comes to."""
    what = entry[2]
    if isinstance(what, Reply):
        return len(what.lines)
    return what.count(b"\n") if isinstance(what, bytes) else 1


class Recorder:
    """Hears what is said, and keeps nothing of it; a :class:`Transcript` does."""

    def hide(self, scrub: Callable[[str], str]) -> None:
        """From now on *scrub* makes text of the server fit to be shown: escaped, and without our secrets."""

    def said(self, step: Step, data: bytes) -> None:
        """We sent whole lines for *step*; those of AUTH are never kept, but for the mechanism's name."""

    def poured(self, content: Content) -> None:
        """We sent the content; of which only its size is kept."""

    def heard(self, step: Step, reply: Reply) -> None:
        """The server answered *step*."""

    def heard_more(self, steps: Sequence[Step], replies: Sequence[Reply]) -> None:
        """The server answered the first of *steps* at the same moment, each in one line, and none by a challenge."""

    def noted(self, text: str, about: object = None) -> None:
        """Something happened that neither side said; *about* is the same for a program."""

    def secured(self, facts: Secured | None) -> None:
        """The connection is under TLS."""

    def lost(self, lost: Lost) -> None:
        """The connection is of no more use."""

    @property
    def text(self) -> str:
        """All of it in lines, the middle left out where there is too much."""
        return ""


class Transcript(Recorder):
    """Of one attempt, or of the opening of a connection; used by one thread at a time.

    Args:
        live: Whether each line is logged at once, too.
        kept: Whether there is to be a text of it afterwards.
    """

    def __init__(self, clock: Clock, *, live: bool = False, kept: bool = True) -> None:
        self._clock = clock
        self._scrub: Callable[[str], str] = printable
        self._live = live
        self._kept = kept
        self._began = clock.monotonic()
        self._first: list[_Entry] = []
        self._last: deque[_Entry] = deque()
        self._room = self._spare = _HALF
        self._missing = 0
        self._silent = True

    def hide(self, scrub: Callable[[str], str]) -> None:
        self._scrub = scrub

    def said(self, step: Step, data: bytes) -> None:
        self._silent = False
        self._note("C:", _public(data) if step is Step.AUTH else data, len(data))

    def poured(self, content: Content) -> None:
        self._note("C:", content, 0)

    def heard(self, step: Step, reply: Reply) -> None:
        self._silent = False
        if step is Step.AUTH and reply.kind is Kind.GO_ON:
            # A challenge may be made of what we have just said.
            reply = Reply(reply.code, ("(challenge)",))
        self._note(
            "S:", reply, sum(map(len, reply.lines)), Heard(step, self._shown(reply)) if self._live else None
        )

    def heard_more(self, steps: Sequence[Step], replies: Sequence[Reply]) -> None:
        if self._live or self._room <= 0:
            for step, reply in zip(steps, replies, strict=False):
                self.heard(step, reply)
            return
        now = self._clock.monotonic()
        for reply in replies:
            size = len(reply.lines[0]) + _EACH
            self._room -= size
            self._first.append((now, "S:", reply, size))

    def noted(self, text: str, about: object = None) -> None:
        self._note("--", text, len(text), about)

    def secured(self, facts: Secured | None) -> None:
        if facts is not None:
            self.noted(str(facts), facts)

    def lost(self, lost: Lost) -> None:
        said = f"connection lost at AUTH: {lost.reason}" if lost.step is Step.AUTH else str(lost)
        self.noted(said, lost)

    @property
    def text(self) -> str:
        if self._silent or not self._kept:
            # Nobody has said a word: what there is to know stands in the results.
            return ""
        first = [line for entry in self._first for line in self._lines(entry)]
        last = [line for entry in self._last for line in self._lines(entry)]
        gap = len(first) if self._missing else None
        return "\n".join(abridged([*first, *last], gap=gap, missing=self._missing))

    def _note(self, mark: str, what: _What, size: int, about: object = None) -> None:
        entry = (self._clock.monotonic(), mark, what, size + _EACH)
        if self._live:
            self._log(entry, about)
        if self._room > 0:
            self._room -= size + _EACH
            self._first.append(entry)
        else:
            self._keep_late(entry)

    def _keep_late(self, entry: _Entry) -> None:
        self._last.append(entry)
        self._spare -= entry[3]
        while self._spare + self._last[0][3] < 0:
            gone = self._last.popleft()
            self._spare += gone[3]
            self._missing += _number(gone)

    def _log(self, entry: _Entry, about: object) -> None:
        for line in self._lines(entry):
            LOG.debug("%s", line, extra={"about": about})
            about = None

    def _shown(self, reply: Reply) -> Reply:
        return attrs.evolve(reply, lines=tuple(scrubbed(self._scrub, reply.lines)))

    def _lines(self, entry: _Entry) -> Iterator[str]:
        """Milliseconds, who spoke, what was said."""
        when, mark, what, _ = entry
        start = f"{(when - self._began) * 1000:6.0f} {mark}"
        match what:
            case bytes():
                for line in what.removesuffix(b"\r\n").split(b"\r\n"):
                    yield f"{start} {printable(line.decode('utf-8', 'backslashreplace'))}"
            case Reply():
                last = len(what.lines) - 1
                for number, text in enumerate(scrubbed(self._scrub, what.lines)):
                    yield f"{start} {what.code}{' ' if number == last else '-'}{text}"
            case Content():
                yield f"{start} (content, {what.size:,} bytes)"
            case _:
                yield f"{start} {self._scrub(what)}"


def _public(data: bytes) -> bytes:
    """What may be known of a line of AUTH."""
    words = data.split()
    if words[:1] == [b"AUTH"]:
        return b" ".join([*words[:2], *([b"(secret)"] if words[2:] else [])])
    return b"*" if words == [b"*"] else b"(secret)"
