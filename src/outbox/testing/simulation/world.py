"""One simulated world: its kernel, its store, its processes, and all that befalls them."""

from __future__ import annotations

import datetime as dt
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from outbox.errors import StoreError
from outbox.message import Message
from outbox.protocols import Suspension
from outbox.stores.memory import MemoryStore
from outbox.values import frozen_mapping

from .kernel import HostClock, Kernel, Steps, StoreClock
from .processing import Process
from .relaying import relay_of
from .scenario import Doing, Host, Plan, Scenario
from .storing import put
from .witness import Violation, Witness

__all__ = ["Line", "Result", "World", "simulate"]

_NEW_YEAR: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_DAY: Final = dt.timedelta(days=1)
_BOUND: Final = 3600.0
"""The seconds after the last fault within which everything is settled."""
_GRACE: Final = 10.0
_MOST_STEPS: Final = 100_000
_PUT_TRIES: Final = 60


@attrs.frozen
class Line:
    """One line of a trace."""

    at: float
    who: str
    message: str
    text: str

    def __str__(self) -> str:
        return f"{self.at:10.4f}  {self.who:6}  {self.message:4}  {self.text}"


def _frozen_counts(counts: Mapping[str, int]) -> Mapping[str, int]:
    return frozen_mapping(counts)


@attrs.frozen(kw_only=True)
class Result:
    """What came of a world.

    *again* are the second copies by their cause, *faults* what was injected,
    by its name; *calm* how long after the last fault everything was settled.
    """

    scenario: Scenario
    violations: Sequence[Violation]
    faults: Mapping[str, int] = attrs.field(converter=_frozen_counts)
    again: Mapping[str, int] = attrs.field(converter=_frozen_counts)
    copies: int
    steps: int
    calm: float
    trace: Sequence[Line] = ()


def simulate(scenario: Scenario, *, trace: bool = False) -> Result:
    """Let it happen, to its end or to the first broken promise."""
    return World(scenario, trace=trace).run()


class World:
    """Everything there is; told by its parts what they ask of the die and what they do."""

    def __init__(self, scenario: Scenario, *, trace: bool = False) -> None:
        self.scenario = scenario
        self.kernel = Kernel(scenario.seed)
        self.store = MemoryStore(clock=StoreClock(self.kernel), keep_delivered=_DAY)
        self.witness = Witness(self)
        self.natures = {plan.message.id: plan.nature for plan in scenario.plans}
        self.suspended: dict[tuple[str, str], float] = {}
        self.faults: Counter[str] = Counter()
        self.calm = False
        self.over = False
        self._lines: list[Line] | None = [] if trace else None
        self._died_once: set[str] = set()
        self._submitting = 0
        self._ending = False
        self._clocks = {host.name: self._clock_of(host) for host in scenario.hosts}
        self._processes: dict[str, Process] = {}

    def run(self) -> Result:
        for host in self.scenario.hosts:
            self._start(host, 1)
        for plan in self.scenario.plans:
            self._submitting += 1
            self.kernel.spawn(f"submitter of {plan.message.id}", self._submit(plan))
        for doing in self.scenario.doings:
            self.kernel.spawn(f"{doing.what} {doing.whom} {doing.at}", self._do(doing))
        settled = self._calm_down() if self._go_on(self.scenario.calm_at) else 0.0
        if not self.witness.violations:
            self._shut_down()
        return self._result(settled)

    # -- what its parts ask

    def fault(self, die: random.Random, names: Iterable[str]) -> str:
        """Which of these faults it is now, by this die; ``""`` for none."""
        if self.calm:
            return ""
        draw = die.random()
        for name in names:
            draw -= self.scenario.rates.get(name, 0.0)
            if draw < 0:
                self.faults[name] += 1
                return name
        return ""

    def outage(self, who: str) -> str:
        """What keeps the store from working for *who*; ``""`` for nothing."""
        return self._outage({"*", who}, ("full", "down"))

    def condition(self, relay: str) -> str:
        return self._outage({relay}, ("down", "wrong")) or "up"

    def first_death(self, message: str) -> bool:
        first = message not in self._died_once
        self._died_once.add(message)
        return first

    def suppressed_since(self, recipient: str) -> float:
        """From when on nobody may write to him."""
        return self.scenario.suppressed.get(recipient, math.inf)

    def suspended_since(self, message: Message, recipient: str) -> float:
        """Since when the recipients of this message are kept back, beside the whole queue."""
        if not self.suspended:
            return math.inf
        domain = recipient.partition("@")[2]
        names = [("attribute", f"{name}={value}") for name, value in message.attributes.items()]
        names.append(("domain", domain))
        if self.scenario.relays > 1:
            names.append(("relay", relay_of(domain, self.scenario.relays)))
        return min(self.suspended.get(name, math.inf) for name in names)

    def seconds(self, moment: dt.datetime) -> float:
        return (moment - _NEW_YEAR).total_seconds()

    def note(self, text: str, process: Process | None = None, message: str = "") -> None:
        if self._lines is not None:
            task = self.kernel.current
            who = task.name if task is not None and task.life is process is not None else ""
            self._lines.append(Line(self.kernel.now, who or (process.name if process else ""), message, text))

    # -- what befalls its processes

    def failed(self, process: Process, error: BaseException) -> None:
        """A script ended by an exception."""
        process.failures += 1
        if not str(error).startswith("simulated"):
            self.witness.broken(f"a script of {process.name} failed: {type(error).__name__}: {error}")

    def died(self, process: Process) -> None:
        self.kernel.spawn(f"restart of {process.name}", self._restart(process))

    def ended(self, process: Process) -> None:
        """All its scripts came to their ends."""
        held = [] if process.failures or process.given_up else self._left_by(process)
        text = f"{process.name} has ended and still holds {held}"
        self.witness.must(not held, text, held[0] if held else "")
        if process.host.drains and process.well and process.disturbed_at < 0:
            self._drained(process)
        if process.host.drains:
            process.kill("it came to its end")

    def _drained(self, process: Process) -> None:
        """A drain that nobody disturbed has come to its end."""
        limited = process.tried == process.host.limit
        over = process.dry or limited or process.shift.met_a_pause
        self.witness.must(over, f"the drain {process.name} ended before it asked for more in vain")
        tally, told = process.shift.tally, process.told
        settled = sum((tally.delivered, tally.dead, tally.held, tally.expired, tally.retried, tally.released))
        fits = (settled, tally.lost) == (told["Settled"], told["LeaseLost"])
        self.witness.must(
            fits, f"{tally} of the drain {process.name}, and its listener was told {dict(told)}"
        )

    def _left_by(self, process: Process) -> Sequence[str]:
        return [
            name
            for name, seen in self.witness.seen.items()
            if seen.lease is not None
            and seen.lease.holder is process
            and not seen.lease.sent
            and seen.lease.granted_at > process.disturbed_at
        ]

    def _restart(self, process: Process) -> Steps:
        wait = 20.0 if process.host.drains else self.kernel.now % 7.0
        yield None, wait
        if not self._ending:
            self._start(process.host, process.number + 1)

    def _start(self, host: Host, number: int) -> None:
        self._processes[host.name] = Process(self, host, number, self._clocks[host.name])

    def _clock_of(self, host: Host) -> HostClock:
        return HostClock(self.kernel, skew=host.skew, drift=host.drift, booted=abs(host.skew))

    def _outage(self, whom: set[str], what: Sequence[str]) -> str:
        if self.calm:
            return ""
        for outage in self.scenario.outages:
            if outage.whom in whom and outage.what in what and outage.begin <= self.kernel.now < outage.end:
                self.faults[f"{'relay' if 'relay' in outage.whom else 'store'} {outage.what}"] += 1
                return outage.what
        return ""

    # -- what befalls its messages

    def _submit(self, plan: Plan) -> Steps:
        die = random.Random(f"{self.scenario.seed}/submit/{plan.message.id}")  # noqa: S311 - a seeded die is the point
        gives_up = die.random() < 0.1
        for at in (plan.at, *sorted(plan.again)):
            yield None, max(0.0, at - self.kernel.now)
            if plan.sent and self._send(plan, die):
                continue
            yield from self._put(plan, die, 1 if gives_up else _PUT_TRIES)
        self._submitting -= 1

    def _send(self, plan: Plan, die: random.Random) -> bool:
        """One of the processes sends it directly; what becomes of it then its caller knows."""
        able = [process for process in self._processes.values() if process.alive and not process.frozen]
        if able:
            self.faults["send"] += 1
            die.choice(able).send(plan.message)
        return bool(able)

    def _put(self, plan: Plan, die: random.Random, tries: int) -> Steps:
        for _ in range(tries):
            try:
                put(self, die, [plan.message])
            except StoreError as error:
                self.note(f"put failed: {type(error).__name__}", None, plan.message.id)
                yield None, die.uniform(0.5, 4.0)
            else:
                self.witness.acknowledged.add(plan.message.id)
                self._tell_of_news()
                return

    def _tell_of_news(self) -> None:
        for process in self._processes.values():
            if process.alive and process.host.hears:
                process.news.notify_all()

    def _do(self, doing: Doing) -> Steps:
        yield None, doing.at
        self.faults[doing.what] += 1
        if doing.what in ("kill", "freeze", "stop"):
            process = self._processes[doing.whom]
            if doing.what == "kill":
                process.kill("killed")
            elif doing.what == "freeze":
                process.freeze(doing.seconds)
            else:
                process.stop(doing.seconds)
        elif doing.what == "suspend":
            yield from self._suspend(doing)
        else:
            self._command(doing.what, doing.whom)

    def _suspend(self, doing: Doing) -> Steps:
        kind, _, value = doing.whom.partition(" ")
        if (kind, value) in self.suspended:
            return
        self.store.suspend(Suspension(kind=kind, value=value))  # type: ignore[arg-type]  # drawn from the kinds
        self.suspended[kind, value] = self.kernel.now
        self.faults[f"suspend {kind}"] += 1
        self.note(f"suspended: {kind} {value}")
        yield None, doing.seconds
        self.store.unsuspend(kind, value)
        del self.suspended[kind, value]
        self.note(f"goes on: {kind} {value}")
        self._tell_of_news()

    def _command(self, what: str, whom: str) -> None:
        if what == "cancel":
            changes = self.store.cancel([whom])
        elif what == "purge":
            changes = self.store.purge([whom])
        else:
            changes = self.store.requeue([whom], uncertain=what == "requeue-uncertain")
        for change in changes:
            self.witness.changed(what, change)

    # -- how it goes on

    def _go_on(self, until: float) -> bool:
        """Until then, or to the first broken promise; True while none is."""
        kernel, violations = self.kernel, self.witness.violations
        while kernel.steps < _MOST_STEPS and not violations and kernel.step(until):
            pass
        if kernel.steps >= _MOST_STEPS:
            self.witness.broken(f"it goes round and round: {kernel.steps} steps")
        return not violations

    def _calm_down(self) -> float:
        """Faults end; how long it takes until all is settled."""
        self.calm = True
        begun = self.kernel.now
        self.note("calm: no faults from now on")
        while self._go_on(self.kernel.now + 1.0):
            waited = self.kernel.now - begun
            going_on = self._submitting or self.witness.unsettled or self.suspended or self.witness.hushed
            if not going_on or waited > _BOUND:
                return waited
        return self.kernel.now - begun

    def _shut_down(self) -> None:
        self._ending = True
        begun = self.kernel.now
        self.witness.at_the_end()
        if self.witness.violations:
            return
        for process in self._processes.values():
            process.stop(_GRACE)
        while self._go_on(self.kernel.now + 1.0) and any(p.alive for p in self._processes.values()):
            late = self.kernel.now - begun > 2 * _GRACE + 60.0
            if late:
                self.witness.broken("a process did not stop within its grace time")
        self.over = True

    def _result(self, calm: float) -> Result:
        return Result(
            scenario=self.scenario,
            violations=tuple(self.witness.violations),
            faults=self.faults,
            again=self.witness.again,
            copies=self.witness.copies,
            steps=self.kernel.steps,
            calm=calm,
            trace=tuple(self._lines or ()),
        )
