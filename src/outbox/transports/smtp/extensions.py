"""What a server offers, as it said in its reply to EHLO (RFC 5321 section 4.1.1.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from outbox.values import frozen_mapping

from .reply import Reply

__all__ = ["Extensions"]

_SIZE: Final = re.compile(r"[0-9]{1,20}")
_LIMIT: Final = re.compile(r"([A-Z]+)=([1-9][0-9]{0,5})", re.IGNORECASE)


def _frozen_offers(offers: Mapping[str, str]) -> Mapping[str, str]:
    return frozen_mapping(offers)


def _stated_size(offers: Mapping[str, str]) -> int | None:
    stated = offers.get("SIZE", "")
    return int(stated) or None if _SIZE.fullmatch(stated) else None


def _limits(offers: Mapping[str, str]) -> Mapping[str, int]:
    found = (_LIMIT.fullmatch(word) for word in offers.get("LIMITS", "").split())
    return frozen_mapping({limit[1].upper(): int(limit[2]) for limit in found if limit})


@attrs.frozen
class Extensions:
    """The keywords of this connection with their parameters.

    Attributes:
        told: False after HELO: the server refused EHLO, for this once maybe,
            and what it offers is not known.
        size: The largest message it takes, in bytes; None where it does not
            say (RFC 1870).
        limits: What it takes at most, by the names of RFC 9422: RCPTMAX
            recipients in a transaction, of RCPTDOMAINMAX domains, and
            MAILMAX transactions over a connection.
    """

    offers: Mapping[str, str] = attrs.field(factory=dict, converter=_frozen_offers, hash=False)
    told: bool = True
    # Asked for with every message, and read once.
    size: int | None = attrs.field(init=False, eq=False, repr=False)
    limits: Mapping[str, int] = attrs.field(init=False, eq=False, repr=False)

    @size.default
    def _read_size(self) -> int | None:
        return _stated_size(self.offers)

    @limits.default
    def _read_limits(self) -> Mapping[str, int]:
        return _limits(self.offers)

    @classmethod
    def parse(cls, reply: Reply) -> Extensions:
        """The first line greets; each other one is a keyword and its parameters."""
        offers: dict[str, str] = {}
        for line in reply.lines[1:]:
            # "AUTH=LOGIN PLAIN" is how servers wrote it before RFC 2554, and some still do beside "AUTH".
            keyword, _, parameters = line.strip().replace("AUTH=", "AUTH ", 1).partition(" ")
            known = offers.get(keyword.upper(), "")
            offers[keyword.upper()] = f"{known} {parameters}".strip()
        return cls(offers)

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.offers

    @property
    def mechanisms(self) -> frozenset[str]:
        """The ways to authenticate (RFC 4954)."""
        return frozenset(self.offers.get("AUTH", "").upper().split())
