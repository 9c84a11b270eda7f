"""The scripts that the server runs, each a verb: read from the files beside this one, with what they share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Final

import attrs

__all__ = [
    "AGED",
    "APPLY",
    "CLAIM",
    "CONCLUDE",
    "COUNT",
    "DETAINED",
    "EXCHANGE",
    "EXTEND",
    "FORGET",
    "GIVE",
    "GLANCE",
    "HOLD",
    "IDENTITY",
    "LASTING",
    "LEAVERS",
    "LOOK",
    "NEXT_DUE",
    "OF_STATES",
    "PAGE",
    "PUT",
    "PUT_NEW",
    "REGISTERS",
    "REMEMBER",
    "REMEMBERED",
    "RIGHTS",
    "SETTLE",
    "SUSPEND",
    "SUSPENSIONS",
    "TAKE",
    "UNSUSPEND",
    "Script",
]


@attrs.frozen
class Script:
    """A text, the name by which the server knows it once it has been given it, and whether it writes nothing."""

    name: str
    text: str = attrs.field(repr=False)
    digest: str
    reads_only: bool = False

    @classmethod
    def of(
        cls, name: str, parts: Sequence[str] = (), *, common: bool = True, reads_only: bool = False
    ) -> Script:
        text = "\n".join(_read(part) for part in (*(["common"] if common else []), *parts, name))
        return cls(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), reads_only)


def _read(name: str) -> str:
    return resources.files(__package__).joinpath("lua", f"{name}.lua").read_text("utf-8")


PUT: Final = Script.of("put", ["crowding"])
PUT_NEW: Final = Script.of("put_new", common=False)
CLAIM: Final = Script.of("claim", ["claiming"])
SETTLE: Final = Script.of("settle", ["settling"])
EXCHANGE: Final = Script.of("exchange", ["settling", "claiming"])
EXTEND: Final = Script.of("extend")
APPLY: Final = Script.of("apply", ["editing"])
LOOK: Final = Script.of("look", reads_only=True)
PAGE: Final = Script.of("page", reads_only=True)
COUNT: Final = Script.of("count", ["grouping"], reads_only=True)
GLANCE: Final = Script.of("glance", ["grouping"], reads_only=True)
NEXT_DUE: Final = Script.of("next_due", reads_only=True)
FORGET: Final = Script.of("forget")
HOLD: Final = Script.of("hold")
AGED: Final = Script.of("aged")
OF_STATES: Final = Script.of("of_states", reads_only=True)
REGISTERS: Final = Script.of("registers")
RIGHTS: Final = Script.of("rights", common=False, reads_only=True)
SUSPEND: Final = Script.of("suspend")
UNSUSPEND: Final = Script.of("unsuspend")
SUSPENSIONS: Final = Script.of("suspensions", reads_only=True)
IDENTITY: Final = Script.of("identity")
LASTING: Final = Script.of("lasting")
LEAVERS: Final = Script.of("leavers", reads_only=True)
TAKE: Final = Script.of("take", ["editing"])
CONCLUDE: Final = Script.of("conclude", ["editing"])
DETAINED: Final = Script.of("detained", reads_only=True)
GIVE: Final = Script.of("give", ["crowding"])
REMEMBERED: Final = Script.of("remembered", reads_only=True)
REMEMBER: Final = Script.of("remember")
