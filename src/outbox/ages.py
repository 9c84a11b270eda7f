"""How old is what waits, and whither it has yet to go: of each message no more than that."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import attrs

from .address import domain

__all__ = ["Group", "SupportsAges", "domains"]


@attrs.frozen
class Group:
    """Messages that wait, and are alike in this.

    Attributes:
        number: How many they are.
        age: How many of the borders they were submitted at, or before.
        domains: Where their open recipients are, in small letters; ``""`` is one without a domain.
    """

    number: int
    age: int
    domains: frozenset[str]


@runtime_checkable
class SupportsAges(Protocol):
    """A store that tells how old is what waits without showing each message."""

    def ages(self, borders: Sequence[dt.datetime], /) -> Iterator[Group]:
        """All that are queued or claimed, in any number of groups.

        They are counted a bounded number at a time, and between two nothing
        is kept from anybody: what comes or goes meanwhile may be counted or not.
        """
        ...


def domains(recipients: Iterable[str]) -> frozenset[str]:
    """Where these are, as a :class:`Group` says it."""
    return frozenset(domain(r).lower() if "@" in r else "" for r in recipients)
