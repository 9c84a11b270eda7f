"""What one process holds of limits that are kept by several: permits that it has drawn, each of use for a while."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

import attrs

from .limits import RelayLimits
from .rates import LIMITS_OF_CONNECTIONS, LIMITS_OF_MESSAGES, Limit
from .sharing import LATE, LATE_TO_CONNECT, Drawn, Order, Permits, Unspent

__all__ = ["Purse", "Purses"]

_BUSY: Final = 0.25
"""Who spends again within so many seconds is going to spend more."""
_UNANSWERED: Final = 30.0
"""Seconds: whoever took an order and has said nothing for so long is gone."""


@attrs.define
class _Portion:
    """*number* permits, of use from *opens* on and before *ends*, drawn at *since* by the clock of the register."""

    number: int
    opens: float
    ends: float
    since: int

    def open(self, now: float) -> bool:
        return self.opens <= now < self.ends


@attrs.define
class Purse:
    """Permits of one kind, in the place of the rates that they are drawn from, and asked like one of them.

    It asks for more when somebody wants to go and there are none; and while
    it is busy, before they are spent: for *hungry* of them, twice as many
    where all were spent in a moment, and as many as were where some were not.

    Attributes:
        interval: The seconds between two in the long run, for all processes together.
        late: For how long a permit is of use.
        vain: How often in a row it was drawn for, and nothing of that has been used.
    """

    interval: float
    late: float
    hungry: int = 1
    vain: int = 0
    _wanted: bool = False
    _portions: deque[_Portion] = attrs.Factory(deque)
    _spent: deque[tuple[float, _Portion]] = attrs.Factory(deque)
    _drawn: int = 1
    _owed: int = 0
    _spent_at: float = -math.inf
    _refused_until: float = -math.inf

    def free(self, now: float) -> int:
        """How many may go now."""
        return sum(each.number for each in self._portions if each.open(now))

    def wait(self, now: float) -> float:
        """The seconds until one may go; 0 where that is not known, and has to be asked."""
        if self.free(now):
            return 0.0
        coming = [each.opens for each in self._portions if each.opens > now]
        return max(0.0, min(coming, default=self._refused_until) - now)

    def lacks(self, now: float) -> bool:
        """Whether somebody who wants to go now has to wait for what is asked of the register: it is from now on."""
        if self.free(now) or self.wait(now):
            return False
        self._wanted = True
        return True

    def take(self, number: int, now: float) -> None:
        """So many go; what was not there is paid back out of what comes."""
        busy, self._spent_at = now - self._spent_at < _BUSY, now
        self._forget_spent(now)
        for each in [each for each in self._portions if each.open(now)]:
            part = min(number, each.number)
            number -= part
            each.number -= part
            self._spent.append((now, attrs.evolve(each, number=part)))
            self.vain = 0
        self._owed += number
        self._portions = deque(each for each in self._portions if each.number)
        if not self._portions:
            self.hungry = 2 * min(self.hungry, self._drawn)
        self._wanted = (self._wanted or busy or self._owed > 0) and not self._enough(now)

    def give_back(self, number: int, since: float, now: float) -> None:
        """So many of those that were taken then did not go: they are of use for as long as they were."""
        self._forget_spent(now)
        for at, portion in self._spent:
            if at == since and number and portion.number and now < portion.ends:
                part = min(number, portion.number)
                number -= part
                portion.number -= part
                self._portions.appendleft(attrs.evolve(portion, number=part))
        self._wanted = self._wanted and not self._enough(now)

    def settled(self, now: float) -> bool:
        """Whether it holds nothing, wants nothing, and nothing keeps it from asking."""
        return not (self._portions or self._wanted or self._owed) and self._refused_until <= now

    # -- towards the register

    def due(self, now: float) -> float:
        """When there is something to draw or to give back, where nobody goes or comes back until then."""
        ends = min((each.ends for each in self._portions), default=math.inf)
        return min(ends, self._refused_until) if self._wanted and not self._enough(now) else ends

    def ask(self, now: float) -> int:
        """How many to draw now."""
        if not self._wanted or now < self._refused_until:
            return 0
        if self._enough(now):
            self._wanted = False
            return 0
        return self.hungry + self._owed

    def _enough(self, now: float) -> bool:
        held = sum(each.number for each in self._portions if now < each.ends)
        return held >= min(self.hungry, self._drawn) and not self._owed

    def lay(self, permits: Permits, begun: float, ended: float, since: int, late: float) -> None:
        """They were drawn, by a look at the register that lasted from *begun* to *ended*: none is of use too soon or for too long."""
        paid = min(self._owed, permits.number)
        self._owed -= paid
        # Who has gone already is paid for, and wakes nobody any more.
        self._wanted = self._owed > 0
        if not permits.number:
            if permits.opens:
                self._refused_until = ended + permits.opens + late
            return
        self._drawn = permits.number
        self.vain = 0 if paid else self.vain + 1
        if permits.number > paid:
            opens, ends = ended + permits.opens, begun + permits.opens + self.late
            self._portions.append(_Portion(permits.number - paid, opens, ends, since))

    def refuse(self, until: float) -> None:
        """The register cannot be asked; not before then."""
        self._wanted, self._refused_until = self._owed > 0, until

    def spoil(self, now: float) -> Sequence[Unspent]:
        """What can no more be used, to be given back."""
        self._forget_spent(now)
        over = [each for each in self._portions if each.ends <= now]
        if over:
            self._portions = deque(each for each in self._portions if now < each.ends)
            self.hungry = max(1, self._drawn - sum(each.number for each in over))
        return tuple(Unspent(each.number, each.since) for each in over)

    def _forget_spent(self, now: float) -> None:
        while self._spent and self._spent[0][1].ends <= now:
            self._spent.popleft()


@attrs.define
class Purses:
    """Those of one relay: of *messages* and of *connections*, each where there is such a limit.

    An order is under way until it is answered, and no other goes; but for half a minute at most.
    """

    limits: RelayLimits
    messages: Purse | None
    connections: Purse | None
    _asking_until: float | None = None
    _unasked_until: float = -math.inf

    @classmethod
    def of(cls, limits: RelayLimits) -> Purses:
        """For what *limits* say."""
        return cls(
            limits,
            _purse(limits, LIMITS_OF_MESSAGES, LATE),
            _purse(limits, LIMITS_OF_CONNECTIONS, LATE_TO_CONNECT),
        )

    def lacks(self, now: float, *, connect: bool) -> bool:
        """Whether somebody who wants to go now, *connect*: over a new connection, has to wait for what is asked."""
        # Both are asked at once, for each is of use for a while only.
        lacking = [purse.lacks(now) for purse in self._needed(connect=connect)]
        return any(lacking)

    def order(self, now: float) -> Order | None:
        """What to ask of the register and to give back to it now; answered by :meth:`drawn` or :meth:`refused`."""
        if self.asking(now):
            return None
        order = Order(
            limits=self.limits,
            messages=self.messages.ask(now) if self.messages else 0,
            connections=self.connections.ask(now) if self.connections else 0,
            messages_back=self.messages.spoil(now) if self.messages else (),
            connections_back=self.connections.spoil(now) if self.connections else (),
        )
        self._asking_until = None if order == Order(limits=self.limits) else now + _UNANSWERED
        return None if self._asking_until is None else order

    def asking(self, now: float) -> bool:
        """Whether an order is under way."""
        return self._asking_until is not None and now < self._asking_until

    def drawn(self, drawn: Drawn, late: float = 0.0) -> None:
        """The register gave this.  Who was refused asks again so much *late*, that not all who were come at once."""
        self._asking_until, self._unasked_until = None, -math.inf
        draft = drawn.draft
        for purse, permits in ((self.messages, draft.messages), (self.connections, draft.connections)):
            if purse is not None:
                purse.lay(permits, drawn.begun, drawn.ended, drawn.at, late)

    def refused(self, until: float, *, again: bool = False) -> None:
        """The register could not be asked; not again before then.  *again*: nor could it be several times before."""
        self._asking_until, self._unasked_until = None, until if again else -math.inf
        for purse in self._needed(connect=True):
            purse.refuse(until)

    @property
    def vain(self) -> int:
        """How often in a row permits of each kind were drawn of which none has been used, those that were drawn last among them."""
        return min(purse.vain for purse in self._needed(connect=True))

    def unasked(self, now: float) -> bool:
        """Whether the register cannot be asked, and it is not a matter of moments."""
        return now < self._unasked_until

    def due(self, now: float) -> float:
        """When there is an order, where nobody goes or comes back until then."""
        if self._asking_until is not None and now < self._asking_until:
            return self._asking_until
        return min(purse.due(now) for purse in self._needed(connect=True))

    def _needed(self, *, connect: bool) -> Sequence[Purse]:
        both = (self.messages, self.connections if connect else None)
        return [purse for purse in both if purse is not None]


def _purse(limits: RelayLimits, kinds: Sequence[Limit], late: float) -> Purse | None:
    intervals = [kind.period / number for kind in kinds if (number := kind.of(limits)) is not None]
    return Purse(max(intervals), late) if intervals else None
