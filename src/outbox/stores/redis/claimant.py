"""Claims for all threads of a store."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import attrs

from outbox.lifecycle import Claim
from outbox.stores.content import Codings
from outbox.stores.forking import whole_after_fork
from outbox.stores.selection import Turns

from . import claiming
from .caller import Caller
from .claiming import Found, Order
from .scripts import CLAIM, SETTLE
from .steering import hold
from .tidings import Number, Tidings, number

__all__ = ["Claimant"]


class Claimant:
    """What was claimed; what could not be read is held by then, and others are taken for it."""

    def __init__(self, caller: Caller, codings: Codings, tidings: Tidings) -> None:
        self._caller = caller
        self._codings = codings
        self._tidings = tidings
        self._lock = threading.Lock()
        self._turns = Turns()
        whole_after_fork(self._lock)

    def in_turn(self, order: Order) -> Order:
        """The same, the queue first whose turn it is."""
        with self._lock:
            return attrs.evolve(order, queues=self._turns.order(order.queues))

    def claim(self, order: Order) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.claim`."""
        while True:
            order = self.in_turn(order)
            asked = self._tidings.latest
            answer = self._caller.run(CLAIM, order.args(), queues=order.queues)
            claims, more = self.received(answer, asked)
            if claims or not more:
                return claims

    def received(self, answer: Sequence[Any], asked: Number) -> tuple[Sequence[Claim], bool]:
        """The claims in a script's answer, and whether there was something at all; *asked* as for :meth:`Tidings.learn`."""
        now, news, _, taken = answer
        self._tidings.saw(number(news), asked=asked)
        found = Found.of(now, taken)
        if found.first:
            with self._lock:
                self._turns.took(found.first)
        try:
            claims, held = claiming.sorted_out(found, self._codings)
        except claiming.UNREADABLE_NOW:
            claiming.released(self._caller, found)
            raise
        hold(self._caller, found.damaged)
        if held:
            queues = [row.queue for _, row, _, _ in found.taken]
            self._caller.run(SETTLE, {"settlements": held, "keep": True, "remembers": True}, queues=queues)
        return claims, bool(found.first)
