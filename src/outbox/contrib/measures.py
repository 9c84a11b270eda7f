"""What is measured, whoever carries it away: the names, and how what is told becomes numbers.

Nothing here is of a message but its queue: no address, no id, no text of a
server.  Names of relays, and of queues that nobody configured, are counted: those beyond the hundredth are ``other``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Final, Literal, Protocol

import attrs

from outbox.clock import Clock, SystemClock
from outbox.errors import RelayMisconfigured, StoreError, StoreFull, StoreUnavailable
from outbox.events import LeaseLost, Notice, RelayPaused, RelayResumed, Settled, StoreFailed, Submitted
from outbox.lifecycle import Delivered, Event, Released
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain

__all__ = ["MOST", "OF_EVENTS", "OTHER", "Measures", "Meter", "Metric"]


# Each is the only one of its kind, and is looked up by what it is for every message.
@attrs.frozen(eq=False)
class Metric:
    """One thing that is measured; *name* as Prometheus has it, without ``outbox_`` and ``_total``."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    labels: tuple[str, ...]
    text: str
    unit: str = "1"
    buckets: tuple[float, ...] = ()


_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0

SUBMITTED: Final = Metric(
    "submitted", "counter", ("queue", "status"), "Messages put by this process: stored, or known already."
)
VERDICTS: Final = Metric(
    "verdicts",
    "counter",
    ("queue", "verdict"),
    "What became of claims: delivered, dead, held, expired, retry, or released (given back uncharged).",
)
ATTEMPTS: Final = Metric(
    "attempts", "counter", ("queue",), "Attempts that were settled, as the store counts them."
)
RECIPIENTS: Final = Metric(
    "recipients",
    "counter",
    ("queue", "result", "code"),
    "What transports reported, by recipient: the result, and the class of the reply's code (2xx, 4xx, 5xx, none).",
)
UNCERTAIN: Final = Metric(
    "uncertain", "counter", ("queue",), "Recipients who may have received a message that nobody acknowledged."
)
LEASES_LOST: Final = Metric(
    "leases_lost", "counter", ("queue",), "Claims that another worker had before they were settled."
)
STORE_FAILURES: Final = Metric(
    "store_failures", "counter", ("error",), "Calls of the store that failed, and were made again."
)
RELAY_PAUSES: Final = Metric(
    "relay_pauses", "counter", ("relay", "kind"), "Pauses of relays: unavailable, or misconfigured."
)
RELAY_PAUSED: Final = Metric(
    "relay_paused",
    "gauge",
    ("relay", "kind"),
    "1 while a relay is left alone because it is unavailable or misconfigured, until it answers again.",
)
DELIVERY: Final = Metric(
    "delivery_seconds",
    "histogram",
    ("queue",),
    "How long a transport took to hand a message over, whatever came of it.",
    "s",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, _MINUTE, 120, 300, 600),
)
LATENCY: Final = Metric(
    "latency_seconds",
    "histogram",
    ("queue",),
    "From when a message could first go (submitted, not_before, requeued) until it was delivered.",
    "s",
    (
        *(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, _MINUTE, 120, 300, 600, 1800),
        *(_HOUR, 2 * _HOUR, 4 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 4 * _DAY),
    ),
)
OF_EVENTS: Final = (
    *(SUBMITTED, VERDICTS, ATTEMPTS, RECIPIENTS, UNCERTAIN, LEASES_LOST, STORE_FAILURES),
    *(RELAY_PAUSES, RELAY_PAUSED, DELIVERY, LATENCY),
)


class Meter(Protocol):
    """Where numbers go.  Safe from many threads; a *value* of each label, in the metric's order."""

    def add(self, metric: Metric, values: Sequence[str], amount: int = 1) -> None: ...
    def observe(self, metric: Metric, values: Sequence[str], amount: float) -> None: ...
    def set(self, metric: Metric, values: Sequence[str], amount: float) -> None: ...


_RESULTS: Final = ((Accepted, "accepted"), (TempFailed, "tempfailed"), (PermFailed, "permfailed"))
_USUAL: Final = (("accepted", "2xx"), ("tempfailed", "4xx"), ("permfailed", "5xx"), ("uncertain", "none"))
_CODE: Final = re.compile(r"(?:\S{1,300}: )?([245])[0-9]{2}(?:[ -]|$)")
MOST: Final = 100
OTHER: Final = "other"
_KINDS: Final = ("unavailable", "misconfigured")
_TOLD_WITHIN: Final = 5.0
"""The seconds in which a delivery is told of once it is over: one that began later than this after a pause was let through."""


@attrs.frozen
class _Paused:
    """A relay that is left alone, since a moment of the monotonic clock."""

    name: str
    kind: str
    at: float


class Measures:
    """A listener: what is told becomes numbers.

    Args:
        queues: Those whose counters begin with 0 instead of with their first
            event, which a rate would miss.
    """

    def __init__(self, meter: Meter, *, queues: Sequence[str] = (), clock: Clock | None = None) -> None:
        self._meter = meter
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._relays: set[str] = set()
        self._paused: dict[str, _Paused] = {}
        self._queues: set[str] = set()
        self._strangers: set[str] = set()
        self.begin(queues)
        for error in (StoreUnavailable, StoreFull) if queues else ():
            meter.add(STORE_FAILURES, (error.__name__,), 0)

    def __call__(self, notice: Notice) -> None:
        """Measure one notice."""
        add = self._meter.add
        match notice:
            case Settled():
                self._settled(notice)
            case Submitted(message=message, status=status):
                add(SUBMITTED, (self._queue(message.queue), status))
            case LeaseLost(claim=claim):
                add(LEASES_LOST, (self._queue(claim.message.queue),))
            case StoreFailed(error=error):
                add(STORE_FAILURES, (_kind(error),))
            case RelayPaused(relay=relay, fault=fault, key=key):
                kind = _KINDS[isinstance(fault, RelayMisconfigured)]
                paused = _Paused(self._named(relay), kind, self._clock.monotonic())
                add(RELAY_PAUSES, (paused.name, kind))
                self._condition(key, paused)
            case RelayResumed(relay=key):
                self._condition(key, None)

    def begin(self, queues: Sequence[str]) -> None:
        """Have the counters of these, too, begin with 0; each is told by its name, however many there are."""
        with self._lock:
            new = [queue for queue in queues if queue not in self._queues]
            self._queues.update(new)
        for queue in new:
            self._begin(queue)

    def _begin(self, queue: str) -> None:
        zero = 0
        for event in (Event.DELIVERED, Event.DEAD, Event.HELD, Event.EXPIRED, Event.RETRY, Event.RELEASED):
            self._meter.add(VERDICTS, (queue, event), zero)
        for result, code in _USUAL:
            self._meter.add(RECIPIENTS, (queue, result, code), zero)
        for metric in (ATTEMPTS, UNCERTAIN, LEASES_LOST):
            self._meter.add(metric, (queue,), zero)

    def _settled(self, notice: Settled) -> None:
        claim, verdict, add = notice.claim, notice.verdict, self._meter.add
        queue = self._queue(claim.message.queue)
        add(VERDICTS, (queue, verdict.event))
        if isinstance(verdict, Released):
            return
        add(ATTEMPTS, (queue,))
        if isinstance(verdict, Delivered):
            self._meter.observe(LATENCY, (queue,), (claim.age + notice.took).total_seconds())
        if verdict.outcome is not None:
            self._meter.observe(DELIVERY, (queue,), notice.took.total_seconds())
            self._reported(queue, verdict.outcome)
            if self._paused:
                self._well_again(verdict.outcome, notice.took.total_seconds())

    def _reported(self, queue: str, outcome: Outcome) -> None:
        for result in outcome.results.values():
            word = _word(result)
            self._meter.add(RECIPIENTS, (queue, word, _code(result.reply)))
            if isinstance(result, Uncertain):
                self._meter.add(UNCERTAIN, (queue,))
        if outcome.relay and outcome.relay not in self._relays:
            for relay in outcome.relay.split(", "):
                self._met(relay)

    def _queue(self, name: str) -> str:
        """Anybody who may submit may name a queue: those that nobody configured are told up to a number."""
        if name in self._queues or name in self._strangers:
            return name
        with self._lock:
            if len(self._strangers) >= MOST:
                return OTHER
            self._strangers.add(name)
        return name

    def _met(self, relay: str) -> None:
        """Its condition is shown from the first answer on."""
        with self._lock:
            if relay not in self._relays and len(self._relays) < MOST:
                self._relays.add(relay)
                self._show(relay)

    def _named(self, relay: str) -> str:
        relay = relay or "(default)"
        with self._lock:
            if relay not in self._relays and len(self._relays) >= MOST:
                return OTHER
            self._relays.add(relay)
        return relay

    def _well_again(self, outcome: Outcome, took: float) -> None:
        """A drain begins anew and forgets what the one before has paused: nobody tells that it is well again."""
        begun = self._clock.monotonic() - took
        with self._lock:
            well = [
                key
                for key, paused in self._paused.items()
                if paused.name == outcome.relay and begun - paused.at > _TOLD_WITHIN
            ]
        if any(isinstance(result, Accepted) for result in outcome.results.values()):
            for key in well:
                self._condition(key, None)

    def _condition(self, key: str, paused: _Paused | None) -> None:
        with self._lock:
            before = self._paused.pop(key, None)
            if paused is not None:
                self._paused[key] = paused
            for name in {each.name for each in (before, paused) if each is not None}:
                self._show(name)

    def _show(self, name: str) -> None:
        # Several keys may be other.
        there = {(paused.name, paused.kind) for paused in self._paused.values()}
        for kind in _KINDS:
            self._meter.set(RELAY_PAUSED, (name, kind), (name, kind) in there)


def _word(result: Result) -> str:
    if isinstance(result, Uncertain):
        return "uncertain"
    return next((word for kind, word in _RESULTS if isinstance(result, kind)), "untried")


def _code(reply: str) -> str:
    """The class of a reply's code, behind the name of its relay where there were several."""
    found = _CODE.match(reply)
    return f"{found[1]}xx" if found else "none"


def _kind(error: StoreError) -> str:
    # A stranger's subclass may have any name, and each would be a series.
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == StoreError.__module__)
