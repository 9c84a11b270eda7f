"""What a runner says of itself to whoever looks from another process: values, and the text that they are kept as.

Information and nothing else: nothing that is claimed, settled or decided
depends on it.  It is bounded, and what cannot be read is nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from .values import frozen_mapping, printable

__all__ = ["Bulletin", "RelayBulletin", "read", "written"]

_KIND: Final = "outbox runner 1"
_RELAYS: Final = 40
_QUEUES: Final = 64
_LONG: Final = 160
_LONGEST: Final = 15_000


def _counts(counts: Mapping[str, int]) -> Mapping[str, int]:
    return frozen_mapping(counts)


@attrs.frozen(kw_only=True)
class RelayBulletin:
    """How a runner finds one relay.

    Attributes:
        name: As a person calls it, and ``suspend --relay`` takes it.
        state: ``new`` (not tried yet), ``well``, ``paused`` (nothing goes
            until it opens) or ``probing`` (one message finds out).
        opens_in: Seconds until it is tried again, when this was said; of one that is paused.
        fault: What it is paused for, in words.
        misconfigured: Whether a person has to mend something first.
        connections: In use, when this was said.
        limited_for: Seconds until a limit lets the next message go.
        shared: Whether its limits are those of all who deliver from the store together.
    """

    name: str
    state: str
    opens_in: float = 0.0
    fault: str = ""
    misconfigured: bool = False
    connections: int = 0
    limited_for: float = 0.0
    shared: bool = False


@attrs.frozen(kw_only=True)
class Bulletin:
    """What one runner says of itself.

    Attributes:
        up: Seconds since it began.
        in_hand: Messages under its leases.
        window: Seconds that *done* counts, at most five minutes.
        done: What became of its claims in the window, by the words of :class:`~outbox.Tally`.
        relays: Those that are not well first.
        more_relays: How many it knows beside these.
        clock_moved: By how many seconds its wall clock was set since it began, forward or (below 0) back. A machine
            that slept looks the same.
        place: Where *pid* is a number of a process: the namespace, where the system tells.
    """

    host: str
    pid: int
    queues: tuple[str, ...]
    workers: int
    up: float
    in_hand: int = 0
    window: float = 0.0
    done: Mapping[str, int] = attrs.field(factory=dict, converter=_counts, hash=False)
    relays: tuple[RelayBulletin, ...] = ()
    more_relays: int = 0
    clock_moved: float = 0.0
    place: str = ""


def written(bulletin: Bulletin) -> str:
    """The bulletin as a text of 16 KiB at most; of too much, the last relays are left out."""
    most = min(_RELAYS, len(bulletin.relays))
    while True:
        text = json.dumps(
            {"kind": _KIND} | attrs.asdict(_cut(bulletin, most)) | {"done": dict(bulletin.done)}
        )
        if len(text) <= _LONGEST or not most:
            return text
        most //= 2


def _cut(bulletin: Bulletin, most: int) -> Bulletin:
    relays = tuple(
        attrs.evolve(each, name=printable(each.name, _LONG), fault=printable(each.fault, _LONG))
        for each in bulletin.relays[:most]
    )
    return attrs.evolve(
        bulletin,
        host=printable(bulletin.host, _LONG),
        queues=bulletin.queues[:_QUEUES],
        relays=relays,
        more_relays=bulletin.more_relays + len(bulletin.relays) - most,
        done={},
    )


def read(text: str) -> Bulletin | None:
    """The inverse of :func:`written`; None of what somebody else says."""
    try:
        fields: dict[str, Any] = json.loads(text)
        if fields.pop("kind") != _KIND:
            return None
        relays: Sequence[dict[str, Any]] = fields.pop("relays")
        found = Bulletin(
            **_of_type(Bulletin, fields) | {"queues": tuple(map(str, fields["queues"]))},
            relays=tuple(RelayBulletin(**_of_type(RelayBulletin, each)) for each in relays),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found


_TYPES: Final[Mapping[str, tuple[type, ...]]] = frozen_mapping(
    {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,), "tuple[str, ...]": (list,)}
)


def _of_type(kind: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that *kind* has; what a later release says beside them is left out.

    Raises:
        TypeError: one of them is something else.
    """
    found = {}
    for field in attrs.fields(kind):
        if field.name in fields and field.name != "relays":
            value = fields[field.name]
            if not isinstance(value, _TYPES.get(str(field.type), (dict,))):
                raise TypeError(field.name)
            found[field.name] = value
    return found
