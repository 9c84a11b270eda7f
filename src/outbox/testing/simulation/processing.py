"""One simulated process: its clerk, workers, keeper and listener as tasks, which all vanish when it is killed."""

from __future__ import annotations

import datetime as dt
import math
import random
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from outbox import actions as act, delivery
from outbox.errands import Errand
from outbox.errors import ConfigurationError, StoreError
from outbox.lifecycle import Claim
from outbox.message import Message
from outbox.performer import Orders, Worker
from outbox.shift import Hand
from outbox.tray import STUCK

from .breaking import SimulatedBreakers
from .kernel import HostClock, Signal, Steps, Task, Waiting
from .relaying import Course, transport_for
from .scenario import Host
from .shifting import SimulatedPerformer, SimulatedSender, SimulatedShift
from .storing import view_for
from .strangers import Strangers

if TYPE_CHECKING:
    from .world import World

__all__ = ["Process"]

_AFTER_A_BUG: Final = 1.0
_AT_ONCE: Final = 0.05
_STEPS_BETWEEN: Final = 1.5
_LAST_STEPS: Final = 3.0
_BACK_OFF: Final = 35.0
_STILL_ASKED: Final = 0.35
"""For so long a keeper who was about to extend what somebody leaves behind as he falls may still do it."""
_STORE_TRIES: Final = 5
_QUEUES: Final = ("mail", "bulk")


class Process:
    """What :class:`outbox.crew.Crew` is in production, on the kernel instead of threads.

    *over*: it has ended, by itself or because it was killed.
    """

    def __init__(self, world: World, host: Host, number: int, clock: HostClock) -> None:
        self.world = world
        self.host = host
        self.name = f"{host.name}.{number}"
        self.number = number
        self.alive = True
        self.frozen = False
        self.why_dead = ""
        self.given_up = False
        self.disturbed_at = self.frozen_at = self.thawed_at = -math.inf
        self.stuck_at = -math.inf
        self.failures = 0
        self.stopped_at: float | None = None
        self.stopping_at = math.inf
        self.told: Counter[str] = Counter()
        self.tried = 0
        self._handed_at = -math.inf
        self.dry = False
        self.news = Signal(world.kernel)
        self.view = view_for(world, self)
        self._clock = clock
        self._courses: dict[int, Course] = {}
        self._hands: dict[int, Worker] = {}
        self._at_hand: dict[int, Claim] = {}
        self._handing: dict[int, Claim] = {}
        rng = random.Random(f"{world.scenario.seed}/process/{self.name}")  # noqa: S311 - a seeded die is the point
        strangers = Strangers(world, self)
        self._orders = Orders(
            store=self.view,
            transport=transport_for(world, self),
            retry=world.scenario.policies,
            queues=_QUEUES,
            workers=host.workers,
            lease=dt.timedelta(seconds=world.scenario.lease),
            listeners=(strangers.listener,),
            hook=strangers.hook if world.scenario.hooked else None,
            suppress=strangers.suppress if world.scenario.suppressed else None,
            clock=clock,
            rng=rng,
            breakers=SimulatedBreakers(self, clock, rng, limits=world.scenario.limits),
        )
        self.shift = SimulatedShift(self._orders, self, limit=host.limit, draining=host.drains)
        self._setup = delivery.Setup(
            policy=self._orders.policy,
            rng=rng,
            store_tries=_STORE_TRIES if host.drains else None,
            draining=host.drains,
            hooked=world.scenario.hooked,
        )
        self._sender: SimulatedSender | None = None
        self.at_work = host.workers + 1
        self._start()

    def _start(self) -> None:
        self._spawn("keeper", self._keep(lambda: delivery.keep(self._orders.lease), self.shift))
        self._spawn("tidier", self._keep(delivery.tidy, self.shift))
        if not self.host.drains:
            self._spawn("listener", self.shift.listening())
        self._spawn("clerk", self._clerk())
        for number in range(1, self.host.workers + 1):
            self._spawn(f"w{number}", self._work())

    # -- what befalls it

    def kill(self, why: str) -> None:
        if self.alive:
            self.world.note(f"dies: {why}", self)
            self.alive = False
            self.why_dead = why
            self.world.died(self)

    def freeze(self, seconds: float) -> None:
        if self.alive and not self.frozen:
            self.world.note(f"is frozen for {seconds:.1f} s", self)
            self.frozen = True
            self.frozen_at = self.world.kernel.now
            self.world.kernel.spawn(f"thaw of {self.name}", self._thaw(seconds))

    def stop(self, grace: float) -> None:
        """As a SIGTERM does; with no grace as a second one."""
        if self.alive and self.stopped_at is None:
            self.world.note(f"is to stop within {grace:.1f} s", self)
            self.stopped_at = self.world.kernel.now
            self.world.kernel.spawn(f"stop of {self.name}", self._see_out(grace), self)

    @property
    def well(self) -> bool:
        """Whether it is at work, and nothing has ended that should not."""
        return self.alive and not (self.failures or self.frozen) and self.stopped_at is None

    def disturb(self, seconds: float = 0.0) -> None:
        """For so long a lease may be lost here for a reason."""
        self.disturbed_at = max(self.disturbed_at, self.world.kernel.now + seconds)

    def lasts(self, seconds: float) -> float:
        return self._clock.lasts(seconds)

    # -- what its transport asks

    @property
    def course(self) -> Course:
        """Of the delivery at hand: the worker's who goes on."""
        return self._courses.setdefault(self._task.number, [])

    @course.setter
    def course(self, course: Course) -> None:
        self._courses[self._task.number] = course

    def courses(self) -> Generator[Waiting, bool, None]:
        """Live through it."""
        task = self._task.number
        course, self.course = self.course, []
        for seconds, happens in course:
            yield None, seconds
            if happens is not None:
                happens()
                if not self.alive:
                    yield None, math.inf
        if self._handing.pop(task, None) is not None:
            self._handed_at = self.world.kernel.now

    def takes_in_hand(self, claim: Claim) -> None:
        """The task that goes on is at this claim."""
        self._at_hand[self._task.number] = claim

    def begins(self, claim: Claim) -> None:
        """The task that goes on hands it over, and does until it has lived through the course of that."""
        self._handing[self._task.number] = claim

    def handing(self) -> Sequence[Claim]:
        """What its other tasks are handing over."""
        mine = self._task.number
        return [claim for task, claim in self._handing.items() if task != mine]

    def claim_of(self, message: str) -> Claim | None:
        """Under which claim the task that goes on hands this message over."""
        found = [claim for claim in self._pulled if claim.message.id == message]
        return found[0] if found else self._at_hand.get(self._task.number)

    def late_by(self, claim: Claim, until: float) -> float:
        """How long ago the task that goes on may have asked after its lease until then, when it hands the claim over.

        Of what is pulled it is asked when it is handed over; of what goes to
        several relays a few steps before, and it may be frozen between them.
        """
        if claim in self._pulled:
            return _AT_ONCE
        just_thawed = self.frozen_at <= until and self.world.kernel.now - self.thawed_at < _STEPS_BETWEEN
        return math.inf if just_thawed else _STEPS_BETWEEN

    @property
    def _pulled(self) -> Sequence[Claim]:
        worker = self._hands.get(self._task.number)
        return list(worker.pulled) if isinstance(worker, Hand) else ()

    @property
    def _task(self) -> Task:
        task = self.world.kernel.current
        if task is None:
            raise AssertionError("nobody goes on")
        return task

    # -- its tasks

    def _spawn(self, name: str, steps: Steps) -> None:
        self.world.kernel.spawn(f"{self.name} {name}", steps, self)

    def _work(self) -> Steps:
        yield from self._live(lambda: delivery.work(self._setup), Hand, self.shift.leave)
        self.shift.depart()
        self._end()

    def _clerk(self) -> Steps:
        if not (yield from self._live_as_clerk()):
            # As the crew does: one more writes what he left and what comes in still.
            self.shift.stop()
            yield from self._live_as_clerk()
        self.shift.stop()
        self.shift.retire()
        self._end()

    def _live_as_clerk(self) -> Generator[Waiting, bool, bool]:
        return self._live(lambda: delivery.clerk(self._setup), Worker, lambda _: self.shift.forsake())

    def send(self, message: Message) -> None:
        """As somebody does who sends it directly, in a thread of his own."""
        if self._sender is None:
            self._sender = SimulatedSender(self._orders, self)
            self._spawn(
                "sender's keeper", self._keep(lambda: delivery.keep(self._orders.lease), self._sender)
            )
        self._spawn(f"sender of {message.id}", self._send(message, self._sender))

    def _send(self, message: Message, sender: SimulatedSender) -> Steps:
        worker = Worker(errand=Errand(interruptible=True))
        self._hands[self._task.number] = worker
        setup = attrs.evolve(self._setup, store_tries=_STORE_TRIES, draining=False)
        try:
            claim = sender.claimed(message, worker)
            self.world.witness.acknowledged.add(message.id)
            if claim is not None:
                self.takes_in_hand(claim)
                yield from self._followed(delivery.deliver_now(setup, claim), worker, sender)
        except (StoreError, ConfigurationError):
            self.disturb()
        except BaseException as error:  # noqa: BLE001 - whoever sends is told of it
            self.disturb()
            self.world.failed(self, error)
        # An interrupt leaves the lease to run out, as a crash does: whether it was sent is not known.
        sender.leave(worker)

    def _end(self) -> None:
        self.at_work -= 1
        if self.at_work == 0:
            self._finish()
            self.world.ended(self)

    def _finish(self) -> None:
        self.shift.stop()
        self.shift.give_up()

    def _live(
        self, script: Callable[[], act.Script[None]], kind: Callable[[], Any], leave: Callable[[Any], None]
    ) -> Generator[Waiting, bool, bool]:
        while not (yield from self._live_once(script(), kind(), leave)):
            if self.host.drains or (yield from self.shift.stopping.waited(_AFTER_A_BUG)):  # type: ignore[attr-defined]  # a Flag
                return False
        return True

    def _live_once(
        self, script: act.Script[None], worker: Worker, leave: Callable[[Any], None]
    ) -> Generator[Waiting, bool, bool]:
        self._hands[self._task.number] = worker
        try:
            yield from self._followed(script, worker, self.shift)
        except StoreError:
            self.disturb(_STILL_ASKED)
        except Exception as error:  # noqa: BLE001 - as the crew does
            self.disturb(_STILL_ASKED)
            self.world.failed(self, error)
        else:
            leave(worker)
            return True
        leave(worker)
        return False

    def _keep(self, script: Callable[[], act.Script[None]], performer: SimulatedPerformer) -> Steps:
        while not self.shift.done:
            try:
                yield from self._followed(script(), None, performer)
            except Exception as error:  # noqa: BLE001 - as the crew does
                self.world.failed(self, error)

    def _followed(
        self, script: act.Script[None], worker: Worker | None, performer: SimulatedPerformer
    ) -> Steps:
        """As :func:`outbox.performer.follow` does."""
        answer: Any = None
        error: StoreError | None = None
        while True:
            try:
                action = script.send(answer) if error is None else script.throw(error)
            except StopIteration:
                return
            answer, error = None, None
            try:
                answer = yield from performer.doing(action, worker)
            except StoreError as raised:
                error = raised

    def _thaw(self, seconds: float) -> Steps:
        yield None, seconds
        self.frozen, self.thawed_at = False, self.world.kernel.now
        self.disturb()
        self.world.kernel.thaw(self)

    def _see_out(self, grace: float) -> Steps:
        self.shift.stop()
        self.stopping_at = self.world.kernel.now
        deadline = self.world.kernel.now + grace
        while self.at_work and self.world.kernel.now < deadline:
            yield None, min(0.05, deadline - self.world.kernel.now)
        self.given_up = bool(self.at_work)
        if self.given_up and self._could_end(grace):
            self.world.witness.broken(f"{self.name} was to stop, had nothing under way, and did not end")
        self._finish()
        yield None, 0.2
        self.kill("it was stopped")

    def _could_end(self, grace: float) -> bool:
        """Whether nothing kept it from its end within the grace time."""
        now = self.world.kernel.now
        held_up = max(
            *(self.disturbed_at + _BACK_OFF, self.thawed_at + _BACK_OFF),
            *(self._handed_at + _LAST_STEPS, self.stuck_at + STUCK + _LAST_STEPS),
        )
        return grace >= 2 * _LAST_STEPS and not self._handing and held_up < now
