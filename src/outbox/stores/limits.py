"""How much a store takes in: the same for every store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from typing import Final

import attrs

from outbox.errors import ConfigurationError, StoreFull

__all__ = ["MOST", "Limits", "Load", "bounded"]

MOST: Final = 1 << 61
"""More than there ever is of anything; twice as many is still a number to a database and to a disk."""


def bounded(limit: int) -> int:
    """*limit* as a number from 0 to :data:`MOST`, of which it makes no difference where the true one lies beyond."""
    return max(0, min(limit, MOST))


@attrs.frozen
class Load:
    """How many messages, with how many bytes of content."""

    messages: int = 0
    content: int = 0

    def __add__(self, other: Load) -> Load:
        return Load(self.messages + other.messages, self.content + other.content)

    def __sub__(self, other: Load) -> Load:
        return Load(self.messages - other.messages, self.content - other.content)

    @classmethod
    def of(cls, sizes: Iterable[int]) -> Load:
        """What messages of these sizes come to."""
        each = list(sizes)
        return cls(len(each), sum(each))


@attrs.frozen(kw_only=True)
class Limits:
    """What may wait in a store at once; None is as much as there is room for.

    They are for ``put`` alone: what is in the queue is delivered, retried and
    requeued however full it is.

    Attributes:
        max_messages: How many messages that are QUEUED or CLAIMED.
        max_bytes: How many bytes of content these have.
        min_free: How many bytes have to stay free on the disk; for stores
            that are on one.

    Raises:
        ConfigurationError: a limit below 1, with which nothing could ever be put.
    """

    max_messages: int | None = None
    max_bytes: int | None = None
    min_free: int | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("max_messages", "max_bytes", "min_free"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ConfigurationError(f"{name} must be at least 1, or None for no limit, not {limit}")

    @property
    def any(self) -> bool:
        """Whether there is a limit at all, and so whether the load has to be known."""
        return self.max_messages is not None or self.max_bytes is not None

    def require_room(self, held: Load, new: Load) -> None:
        """See that *new* fits in beside *held*.

        Raises:
            StoreFull: it does not; the text names the limit and what to do.
        """
        _require("max_messages", self.max_messages, held.messages, new.messages, "messages")
        _require("max_bytes", self.max_bytes, held.content, new.content, "bytes of content")

    def require_free(self, directory: str | os.PathLike[str], *, reserve: int = 0) -> None:
        """Raise StoreFull where the disk of *directory* has less room than has to stay.

        Args:
            reserve: How many bytes the store itself needs to go on delivering what it has.
        """
        if self.min_free is None and not reserve:
            return
        free = shutil.disk_usage(directory).free
        if self.min_free is not None and free < self.min_free:
            raise StoreFull(
                f"the disk of {os.fspath(directory)} has {free} bytes left, less than min_free={self.min_free}: "
                "make room; deliveries go on"
            )
        if free < reserve + (self.min_free or 0):
            raise StoreFull(
                f"the disk of {os.fspath(directory)} is as good as full: it has {free} bytes left, and to deliver "
                f"what is stored up to {reserve} may be needed: make room; deliveries go on"
            )


def _require(name: str, limit: int | None, held: int, new: int, what: str) -> None:
    if limit is None or not new or held + new <= limit:
        return
    if new > limit:
        raise StoreFull(
            f"{new} {what} are more than {name}={limit} ever lets in: put less at a time, or raise it"
        )
    raise StoreFull(
        f"the queue holds {held} {what}, and with {new} more it would pass {name}={limit}: "
        f"put again when some are delivered or cancelled, or raise {name}"
    )
