"""The names of the keys: all of one prefix in one slot of a cluster, and none of another prefix among them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import attrs

from outbox.errors import ConfigurationError
from outbox.values import quoted

__all__ = ["Keys"]

_PREFIX: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", re.ASCII)
_FIXED: Final = (
    *("row", "envelope", "content", "past", "ids", "gone", "meta", "suspended", "news"),
    *("delivered", "dead", "held", "expired", "cancelled"),
)
"""In the order in which ``lua/common.lua`` takes them."""
_OF_NEW: Final = ("row", "envelope", "content", "ids", "meta", "news")
"""In the order in which ``lua/put_new.lua`` takes them."""
_OF_QUEUE: Final = ("scheduled", "ready", "suspects")


@attrs.frozen
class Keys:
    """The keys of a prefix.

    Raises:
        ConfigurationError: the prefix is none that keys can begin with.
    """

    prefix: str

    def __attrs_post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise ConfigurationError(
                f"prefix {quoted(self.prefix)} is not 1 to 64 of letters, digits, '.', '_', ':' and '-', "
                "beginning with a letter or digit"
            )

    def name(self, what: str) -> str:
        # What stands in braces is all that a cluster looks at: so all of them live on one of its nodes.
        return f"{{{self.prefix}}}:{what}"

    def all(self, queues: Iterable[str] = ()) -> list[str]:
        """Those of every script, then those of *queues*."""
        return [
            *(self.name(what) for what in _FIXED),
            *(self.name(f"{what}:{queue}") for queue in queues for what in _OF_QUEUE),
        ]

    def of_new(self, queue: str) -> list[str]:
        """Those that a message of *queue* is laid in which nobody has put before."""
        return [*map(self.name, _OF_NEW), self.name(f"ready:{queue}")]
