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


def _frozen_offers(offers: Mapping[str, str]) -> Mapping[str, str]:
    return frozen_mapping(offers)


@attrs.frozen
class Extensions:
    """The keywords of this connection with their parameters.

    Attributes:
        told: False after HELO: the server refused EHLO, for this once maybe,
            and what it offers is not known.
    """

    offers: Mapping[str, str] = attrs.field(factory=dict, converter=_frozen_offers, hash=False)
    told: bool = True

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
    def size(self) -> int | None:
        """The largest message it takes, in bytes; None where it does not say (RFC 1870)."""
        stated = self.offers.get("SIZE", "")
        return int(stated) or None if _SIZE.fullmatch(stated) else None

    @property
    def mechanisms(self) -> frozenset[str]:
        """The ways to authenticate (RFC 4954)."""
        return frozenset(self.offers.get("AUTH", "").upper().split())
