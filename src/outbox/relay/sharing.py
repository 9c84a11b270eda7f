"""The limits of one relay that several processes keep together: what stands in their register, and what one of them draws of it.

A register is a small text in the store that all of them change by turns.  It
holds of each limit the moment by the store's clock at which the bucket of
:mod:`outbox.relay.rates` will be full (:mod:`.bucket`).  A process draws *permits*: so many
messages, from a moment on and for a short while.  It may draw a little ahead
of time, so that whoever waits stands in a line and does not ask again and
again; and the fewer at a time the longer the line is, so that each gets about
as much as the others.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import attrs

from .bucket import LARGEST, Bucket
from .limits import RelayLimits
from .rates import LIMITS_OF_CONNECTIONS, LIMITS_OF_MESSAGES, Limit, Rate

__all__ = ["LATE", "LATE_TO_CONNECT", "Draft", "Drawn", "Order", "Permits", "Unspent", "draw"]

LATE: Final = 0.5
"""For so many seconds a permit is of use: what a process has drawn and not used is late by no more."""
LATE_TO_CONNECT: Final = 2.0
"""That of a permit to connect, whose message may have to stand in line for its own."""
_AHEAD: Final = 0.5
_NEAR: Final = 0.05
"""Seconds: a store that answers as fast needs no permits that open later."""
_PORTION: Final = 0.05
_SHARE: Final = 8
_KIND: Final = "outbox-limits-1"
_NANO: Final = 1_000_000_000
_ROOM: Final = 1024
"""Bytes that a register holds."""


@attrs.frozen
class Unspent:
    """So many permits of those that were drawn then, by the store's clock in nanoseconds, were not used."""

    number: int
    since: int


@attrs.frozen(kw_only=True)
class Order:
    """What a process wants of a register, and what it gives back."""

    limits: RelayLimits
    messages: int = 0
    connections: int = 0
    messages_back: Sequence[Unspent] = ()
    connections_back: Sequence[Unspent] = ()


@attrs.frozen
class Permits:
    """*number* of them, of use in *opens* seconds; where there are none, so long the line is too long."""

    number: int = 0
    opens: float = 0.0


@attrs.frozen
class Draft:
    """What is drawn, if this *text* can be written in the place of the one that was read; None: nothing has to be."""

    text: str | None
    messages: Permits = Permits()
    connections: Permits = Permits()


@attrs.frozen
class Drawn:
    """What became of an order: a draft that was written, of a look at the register from *begun* to *ended*.

    It was *at* that moment of the register's clock, in nanoseconds.
    """

    draft: Draft
    begun: float
    ended: float
    at: int


def draw(order: Order, text: str | None, at: int, took: float = 0.0, trip: float = 0.0) -> Draft:
    """What *order* comes to, where the register holds *text* at a moment of the store's clock, in nanoseconds.

    *took*: so many seconds it has taken until now; whoever has to wait for long for each draws more at a time.
    *trip*: the last way to the store and back took so long, and the next is going to: permits that would open before it is
    over would be of use for a shorter time, or for none.
    """
    known = _read(text)
    messages = _buckets(order.limits, LIMITS_OF_MESSAGES, LATE, known, at)
    connections = _buckets(order.limits, LIMITS_OF_CONNECTIONS, LATE_TO_CONNECT, known, at)
    returned = _return(messages.values(), order.messages_back, at)
    returned += _return(connections.values(), order.connections_back, at)
    lead = trip if trip > _NEAR else 0.0
    drawn = _draw(messages.values(), order.messages, took, lead)
    to_connect = _draw(connections.values(), order.connections, took, lead)
    set_back = any(bucket.set_back for bucket in (messages | connections).values())
    if not (returned or set_back or drawn.number or to_connect.number):
        return Draft(None, drawn, to_connect)
    # What this process has no limit for is kept as it stands: another may have.
    own = {name: bucket.written(at) for name, bucket in (messages | connections).items()}
    text = _written(known | own)
    if len(text.encode()) > _ROOM:
        text = _written(own)
    return Draft(text, drawn, to_connect)


def _draw(buckets: Collection[Bucket], wanted: int, took: float, lead: float) -> Permits:
    rates = [bucket.rate for bucket in buckets]
    if not (rates and wanted):
        return Permits()
    ahead = max(rate.wait(0.0) for rate in rates)
    if ahead > _AHEAD:
        return Permits(0, ahead - _AHEAD)
    lasting = min(max(_PORTION, took), LARGEST) * (1 - ahead / _AHEAD)
    number = min(wanted, *(_portion(rate, lasting) for rate in rates))
    for rate in rates:
        rate.take(number, lead)
    return Permits(number, max(lead, *(rate.full_at - rate.burst * rate.interval for rate in rates)))


def _portion(rate: Rate, lasting: float) -> int:
    """How many one may draw at a time: a little of what there is, or what comes in so many seconds."""
    return max(1, math.floor(lasting / rate.interval), rate.free(0.0) // _SHARE)


def _return(buckets: Collection[Bucket], unspent: Sequence[Unspent], at: int) -> float:
    return sum(
        bucket.give_back(each.number, (each.since - at) / _NANO) for each in unspent for bucket in buckets
    )


def _buckets(
    limits: RelayLimits, kinds: Sequence[Limit], late: float, known: Mapping[str, str], at: int
) -> dict[str, Bucket]:
    """Those of *limits*, as seen from now."""
    found = {}
    for kind in kinds:
        number = kind.of(limits)
        if number is None:
            continue
        rate = Rate.of(number, kind.period, number * kind.share - late * number / kind.period, 0.0)
        found[kind.name] = Bucket.read(rate, known.get(kind.name, ""), at, _AHEAD)
    return found


def _read(text: str | None) -> dict[str, str]:
    """By the name of the limit; what nobody can read is a register that nobody has written."""
    kind, *words = (text or "").split(" ")
    if kind != _KIND or not " ".join(words).isprintable():
        return {}
    return {name: said for name, _, said in (word.partition("=") for word in words)}


def _written(known: Mapping[str, str]) -> str:
    return " ".join([_KIND, *(f"{name}={said}" for name, said in sorted(known.items()))])
