"""Several relays, by key: each by itself."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import random
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Final

import attrs

from outbox.errors import RelayFault, RelayUnavailable

from .admission import Admission, Go, Pause, Wait, lasting
from .agenda import Agenda
from .breaker import Breaker
from .condition import Condition
from .limits import EVERY_OTHER, RelayLimits, limits_by_key
from .purse import Purses
from .rates import Rates
from .room import Room
from .sharing import Drawn, Order
from .spreading import place_behind, strewn

__all__ = ["Relays"]

_KNOWN_AT_MOST: Final = 10_000
_LOOKED_AT: Final = 2
_UNKNOWN_AT_MOST: Final = 2
"""So many connections at most are spent on finding out how a relay is: it may be a black hole."""
_FOR_A_PLACE: Final = 1.0
_FOR_PERMITS: Final = 0.25
_TOO_LATE: Final = 0.4
"""Seconds: less than one may draw ahead, so that nothing is lost by it."""
_SPREAD: Final = 3600.0
_COME_BACK: Final = 200.0
"""Messages a second that come back at most: each costs a write, also where the relay is still down."""


@attrs.define
class _Relay:
    """One of them.  Behind *last* the next message comes back that is given back unsent."""

    room: Room
    rates: Rates
    purses: Purses | None = None
    breaker: Breaker = attrs.Factory(Breaker)
    last: float = -math.inf

    @classmethod
    def of(cls, limits: RelayLimits, begun: float) -> _Relay:
        """One that is held to *limits*, in a process that began to count then."""
        room = Room.of(limits.connections)
        if not limits.shared:
            return cls(room, Rates.of(limits, begun))
        purses = Purses.of(limits)
        messages, connections = purses.messages, purses.connections
        rates = Rates([messages] if messages else [], [connections] if connections else [])
        return cls(room, rates, purses)

    def closed(self, now: float) -> Wait | None:
        """Why no message may go now, whatever it is."""
        closed, soonest = self.breaker.closed(now), self.rates.wait(now)
        if self.room.in_use == 0:
            soonest = max(soonest, self.to_connect(now))
        if closed is None:
            return self._limited(soonest, now) if soonest else None
        longest = max(closed.delay, lasting(soonest))
        return closed if longest == closed.delay else attrs.evolve(closed, delay=longest)

    def _limited(self, seconds: float, now: float) -> Wait:
        if self.purses is not None and self.purses.unasked(now):
            return Wait(lasting(seconds), "its limit is shared, and the store cannot be asked what may go")
        return _limited(seconds)

    def crowded(self, now: float) -> Wait | None:
        """Why there is no connection now."""
        room = self.room
        if room.taken >= self.width or room.in_use >= room.most:
            return Wait(lasting(_FOR_A_PLACE), f"the connections to it are in use: {room.in_use}", full=True)
        soonest = self.to_connect(now)
        # Those that are open serve whoever waits: he is not to be sent away for long.
        return (
            Wait(lasting(soonest), "no further connection to it may be opened yet", full=True)
            if soonest
            else None
        )

    def drawing(self, now: float, wanted: int | None) -> Wait | None:
        """Why nobody knows now whether a message may go: what is asked for first is laid in the purses."""
        connect = wanted is not None and self.room.fresh(now)
        if self.purses is None or not self.purses.lacks(now, connect=connect):
            return None
        reason = "its limit is shared with other processes, and what this one may send is being asked for"
        return Wait(lasting(_FOR_PERMITS), reason, limited=True, drawing=True)

    def to_connect(self, now: float) -> float:
        """The seconds until there may be a further connection."""
        return self.rates.wait_to_connect(now) if self.room.fresh(now) else 0.0

    @property
    def width(self) -> int:
        """How many connections there may be now, beside what is left over."""
        if self.breaker.proven:
            return self.room.width
        # Probes that were given up may hang there still, and must not keep the next one away.
        return self.room.most if self.breaker.fault else _UNKNOWN_AT_MOST

    def go(self, now: float, wanted: int | None) -> Go:
        """So many of those that are wanted go."""
        most = self.room.number if self.breaker.proven else 1
        number = max(1, self.rates.free(now, min(wanted or 1, most)))
        self.rates.take(number, now, connect=wanted is not None and self.room.fresh(now))
        if wanted is not None:
            self.room.take(now)
        return Go(self.breaker.probe is not None, number, now, self.room.generation)

    def condition(self, key: str, now: float) -> Condition:
        """How it is found now."""
        opens_in = self.breaker.opens_in(now)
        state = "well" if self.breaker.proven else "new"
        if self.breaker.fault is not None:
            state = "paused" if opens_in else "probing"
        return Condition(
            key=key,
            state=state,  # type: ignore[arg-type]  # each of these is one of its words
            opens_in=opens_in,
            fault=self.breaker.fault,
            connections=self.room.in_use,
            limited_for=self.rates.wait(now),
            shared=self.purses is not None,
        )

    def forgettable(self, now: float) -> bool:
        """Whether nothing is under way there, and no limit has to remember it."""
        return self.room.in_use == 0 and self.breaker.probe is None and self.rates.settled(now)


class Relays:
    """The condition, the room and the rates of several relays, by key.

    A relay that is not known yet is tried with one message, and the others
    wait for its report: what is wrong with the settings is met once, and not
    by every worker.  Where the report does not come, a further one goes
    every :data:`UNANSWERED` seconds, so that a slow first message holds up
    the others for no longer; over two connections at most, where these are
    counted.

    A relay that fails is paused: five seconds at first, doubling to five
    minutes; one that is costly to ask (a misconfigured one, say) a minute,
    doubling to a quarter of an hour;
    and for as long as it asked for, a day at most.  When the pause is over
    one message goes as a probe, and the others wait for its report.  A
    message that has met the fault lets the others go first, for it may be
    the cause; it probes where there is no other.

    A message whose connection was lost in the middle of it may be the cause
    itself.  When three different ones in a row were, the relay is paused.

    Connections, and messages at a time, grow with what the relay has taken
    (:mod:`outbox.relay.room`), within *limits*; a failure begins anew.

    At most ten thousand relays are known.  Of more, those are forgotten that
    were not asked for the longest; but none to which a message is under way,
    or of which a limit of time has to remember what it took.

    *hasty*: where the relay is unavailable the first fault pauses nothing,
    and the next message probes at once: for a run that is too short to wait
    a pause out.  What is costly is not asked twice in haste: a wrong
    password said again and again locks its account.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        hasty: bool = False,
        limits: RelayLimits | Mapping[str, RelayLimits] | None = None,
    ) -> None:
        self._rng = rng
        self._hasty = hasty
        self._limits = limits_by_key(limits)
        self._begun: float | None = None
        self._relays: OrderedDict[str, _Relay] = OrderedDict()
        # When there is something to ask of the registers of those whose limits are shared.
        self._agenda = Agenda()

    def __len__(self) -> int:
        """How many are known."""
        return len(self._relays)

    def closed_for(self, key: str, now: float) -> Wait | None:
        """Why nothing may be handed over now, whatever it is; without taking the probe."""
        relay = self._relays.get(key)
        return None if relay is None else relay.closed(now)

    def conditions(self, now: float, most: int) -> list[Condition]:
        """How they are found now: those that are not well first, then those asked for last, *most* of them."""
        latest_first = reversed(self._relays.items())
        shown = [relay.condition(key, now) for key, relay in itertools.islice(latest_first, _KNOWN_AT_MOST)]
        return sorted(shown, key=lambda each: each.fault is None)[:most]

    def probing(self, key: str) -> bool:
        """Whether a probe is under way."""
        relay = self._relays.get(key)
        return relay is not None and relay.breaker.probe is not None

    def admit(self, key: str, now: float, message: str, wanted: int | None = None) -> Admission:
        """May the message of this id go to this relay, and up to *wanted* messages with it?

        Every Go is answered by :meth:`answered`, :meth:`failed` or
        :meth:`cut` for each message that was handed over, and a probe that
        comes to nothing by :meth:`abandon`.  With *wanted* it takes a
        connection, until :meth:`leave`; without, it is for one message, and
        no connection is counted.
        """
        relay = self._known(key, now)
        closed = relay.closed(now) or (relay.crowded(now) if wanted is not None else None)
        closed = closed or relay.drawing(now, wanted)
        if closed is None and not relay.breaker.proven:
            closed = relay.breaker.behind(message)
            if closed is None:
                relay.breaker.ask(message, now)
        answer = closed or relay.go(now, wanted)
        self._see_to(key, relay, now)
        return answer

    def insist(self, key: str, now: float, message: str, wanted: int | None = None) -> Go:
        """The message goes to this relay as its probe, however it is: no pause and no limit keeps it."""
        relay = self._known(key, now)
        relay.breaker.ask(message, now)
        return self._goes(key, relay, now, wanted)

    def join(self, key: str, now: float, wanted: int | None = None) -> Go:
        """One message goes beside the probe that is under way, for the probe would wait for it."""
        go = self._goes(key, self._known(key, now), now, wanted)
        return attrs.evolve(go, probe=False, number=1)

    def leave(
        self, key: str, now: float, go: Go, *, unused: int = 0, well: bool = True, in_vain: bool = False
    ) -> None:
        """A connection that was taken is free.

        Args:
            go: By which it was taken.
            unused: How many of its messages were not handed over; they count
                for no rate.
            well: Whether it went well: no connection was lost on the way.
            in_vain: Whether none of its messages was taken or refused for
                good: that proves nothing of what the relay can take.
        """
        relay = self._relays.get(key)
        if relay is None or relay.room.in_use == 0:
            return
        relay.room.leave(
            now, go.number - unused, go.generation, well=well and relay.breaker.proven, in_vain=in_vain
        )
        relay.rates.give_back(unused, go.at, now)
        self._see_to(key, relay, now)

    def answered(self, key: str, message: str) -> bool:
        """The relay answered to the message of this id; True where that ended a pause."""
        relay = self._relays.get(key)
        return relay is not None and relay.breaker.answered(message)

    def failed(self, key: str, fault: RelayFault, now: float, message: str) -> Pause:
        """The relay failed with the message of this id; how long it is left alone from *now*."""
        relay = self._known(key, now)
        pause = relay.breaker.failed(fault, now, message, self._rng, hasty=self._hasty)
        if pause.news:
            relay.room.close(now)
        return pause

    def cut(self, key: str, now: float, message: str, relay: str = "") -> Pause | None:
        """The connection was lost in the middle of this message; the pause, where it is the relay's doing.

        It is when three different messages in a row met it.  From the second
        on the relay has less room.

        Args:
            relay: How the relay is to be named.
        """
        known = self._known(key, now)
        in_a_row = known.breaker.cut(message)
        if known.breaker.cut_off:
            reason = f"{in_a_row} messages in a row lost their connection in the middle"
            return self.failed(key, RelayUnavailable(relay or key, reason), now, message)
        if in_a_row > 1:
            known.room.halve(now)
        return None

    def slow(self, key: str, now: float, per_second: float, lasting: float) -> None:
        """The relay is given so many messages a second at most, for so many seconds from *now*."""
        self._known(key, now).rates.slow(per_second, now, now + lasting)

    # -- limits that are kept by several processes

    @property
    def next_order(self) -> float:
        """The moment at which there is something to ask of registers although nobody asks to be admitted until then."""
        return self._agenda.soonest

    def orders(self, now: float, keys: Collection[str] | None = None) -> dict[str, Order]:
        """What to ask of registers now, of those of *keys* only; each is answered by :meth:`drawn` or :meth:`refused`."""
        found = {}
        for key in self._agenda.take(now) if keys is None else keys:
            relay = self._relays.get(key)
            if relay is None or relay.purses is None:
                continue
            order = relay.purses.order(now)
            if order is not None:
                found[key] = order
            self._see_to(key, relay, now)
        return found

    def asking(self, key: str, now: float) -> bool:
        """Whether an order for this relay is under way."""
        relay = self._relays.get(key)
        return relay is not None and relay.purses is not None and relay.purses.asking(now)

    def drawn(self, key: str, drawn: Drawn, now: float) -> int:
        """The register of this relay gave so much; see :attr:`.Purses.vain`."""
        relay = self._relays.get(key)
        if relay is None or relay.purses is None:
            return 0
        relay.purses.drawn(drawn, self._rng.uniform(0.0, _TOO_LATE))
        self._see_to(key, relay, now)
        return relay.purses.vain

    def refused(self, key: str, until: float, now: float, *, again: bool = False) -> None:
        """It could not be asked: nothing goes there before then, and then it is asked again; see :meth:`.Purses.refused`."""
        relay = self._relays.get(key)
        if relay is not None and relay.purses is not None:
            relay.purses.refused(until, again=again)
            self._see_to(key, relay, now)

    def _see_to(self, key: str, relay: _Relay, now: float) -> None:
        if relay.purses is not None:
            self._agenda.put(key, relay.purses.due(now))

    def _goes(self, key: str, relay: _Relay, now: float, wanted: int | None) -> Go:
        go = relay.go(now, wanted)
        self._see_to(key, relay, now)
        return go

    def abandon(self, key: str, message: str) -> None:
        """Nothing was learned from the probe, if it was the message of this id: another may go."""
        relay = self._relays.get(key)
        if relay is not None:
            relay.breaker.abandon(message)

    def put_off(self, key: str, now: float) -> dt.timedelta:
        """How long a message of this relay is given back for, that may not go now.

        Each comes back behind the one before, as fast as the relay is going
        to take them, and within an hour: so thousands do not come at once.
        """
        relay = self._known(key, now)
        closed = relay.closed(now)
        opens = now + (closed.delay.total_seconds() if closed else 0.0)
        pace = min(relay.room.pace, relay.rates.pace, _COME_BACK)
        relay.last = place_behind(relay.last, opens, pace)
        comes = strewn(relay.last, opens, _SPREAD, self._rng)
        relay.last = min(relay.last, opens + _SPREAD)
        return lasting(comes - now)

    def _known(self, key: str, now: float) -> _Relay:
        relay = self._relays.get(key)
        if relay is None:
            self._begun = now if self._begun is None else self._begun
            limits = self._limits.get(key) or self._limits[EVERY_OTHER]
            relay = self._relays[key] = _Relay.of(limits, self._begun)
            self._forget(now)
        else:
            self._relays.move_to_end(key)
        return relay

    def _forget(self, now: float) -> None:
        """Let go of two at most for the one that came: so the number falls again when it may."""
        for _ in range(_LOOKED_AT):
            if len(self._relays) <= _KNOWN_AT_MOST:
                return
            key, oldest = next(iter(self._relays.items()))
            if oldest.forgettable(now):
                del self._relays[key]
            else:
                self._relays.move_to_end(key)


def _limited(seconds: float) -> Wait:
    return Wait(lasting(seconds), "its limit of messages or connections is reached for now", limited=True)
