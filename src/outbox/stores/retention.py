"""How long what is settled stays, and what of it: the same settings for every store."""

from __future__ import annotations

import datetime as dt
from typing import Final

import attrs

from outbox.errors import ConfigurationError
from outbox.lifecycle import State

from .instants import width
from .limits import MOST
from .standing import Standing, remembered

__all__ = ["FAILED", "Retention"]

_WEEK: Final = dt.timedelta(days=7)
_ZERO: Final = dt.timedelta(0)

FAILED: Final = (State.DEAD, State.HELD, State.EXPIRED, State.CANCELLED)
"""What waits for a person, unless ``discard_after`` says otherwise."""


def _countable(number: int) -> int:
    return min(number, MOST)


@attrs.frozen(kw_only=True)
class Retention:
    """What becomes of a message that has left the queue.

    Attributes:
        remember: How long the id of a delivered message is known, so that a
            repeated put stores nothing.
        remember_at_most: How many such ids; the oldest are forgotten first.
        keep_delivered: How long the record of a delivered message stays;
            None is not at all.
        keep_content: Whether such a record keeps its content.
        discard_after: How long DEAD, HELD, EXPIRED and CANCELLED messages
            stay; None is until a person purges them.
    """

    remember: dt.timedelta = _WEEK
    remember_at_most: int = attrs.field(default=1_000_000, converter=_countable)
    keep_delivered: dt.timedelta | None = None
    keep_content: bool = True
    discard_after: dt.timedelta | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("remember", "keep_delivered", "discard_after"):
            if (getattr(self, name) or _ZERO) < _ZERO:
                raise ConfigurationError(f"{name} must not be negative")
        if self.remember_at_most < 0:
            raise ConfigurationError("remember_at_most must not be negative")

    @property
    def remembers(self) -> bool:
        return self.remember > _ZERO and self.remember_at_most > 0

    def known_since(self, now: int) -> int:
        """An id whose message was settled at this instant or before is known no more."""
        return now - width(self.remember)

    def kept_since(self, now: int, state: State) -> int | None:
        """A record in *state* that was settled at this instant or before goes; None where none goes."""
        span = (self.keep_delivered or _ZERO) if state is State.DELIVERED else self.discard_after
        return None if span is None else now - width(span)

    def buries(self, id: str, standing: Standing, now: int) -> bool:
        """Whether the id stays known when this record is removed."""
        settled = now if standing.settled is None else standing.settled
        return self.remembers and remembered(id, standing) and settled > self.known_since(now)
