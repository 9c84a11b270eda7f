"""Simulated relays: what becomes of each message handed over, drawn from a die of its own, and how long each step takes.

A transport is called at once and answers at once, as the code that calls it
expects; how the answer came about in time is its *course*, which the worker
lives through before he learns of the answer.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import attrs

from outbox.errors import ConfigurationError, RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.protocols import Delivery, Transport
from outbox.values import frozen_mapping

if TYPE_CHECKING:
    from .processing import Process
    from .world import World

__all__ = ["Course", "relay_of", "transport_for"]

Course: TypeAlias = "list[tuple[float, Callable[[], None] | None]]"
"""After so many seconds each, this happens."""


_ASKS_FOR_TIME: Final = 0.2


class Interrupted(BaseException):
    """What is no Exception, as an interrupt is none."""


@attrs.frozen(kw_only=True)
class _Dialogue:
    """What is answered, in which course; *closes*: the connection is of no more use."""

    answer: Outcome | BaseException | None
    course: Course
    closes: bool = False


class _Speaker:
    """What all transports of a process do with one message."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        dialogue = self._speak(message, recipients)
        if isinstance(dialogue.answer, BaseException):
            raise dialogue.answer
        return cast("Outcome", dialogue.answer)

    def close(self) -> None:
        """There is nothing to give back."""

    def _speak(self, message: Message, recipients: Sequence[str]) -> _Dialogue:
        world, process = self._world, self._process
        number = world.witness.handed_over(process, message, recipients)
        die = random.Random(f"{world.scenario.seed}/{message.id}/{number}")  # noqa: S311 - a seeded die is the point
        relay = self._relay(message, recipients[0])
        made = _Making(world, process, message, tuple(recipients), relay, die)
        dialogue = made.dialogue()
        world.witness.answered(process, message, recipients, dialogue.answer)
        process.course += dialogue.course
        return dialogue

    def _relay(self, _message: Message, _recipient: str) -> str:
        return "relay1"


class _Batching(_Speaker):
    """One message behind the other, and the next one pulled while the relay is at this one."""

    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        pulling = iter(deliveries)
        delivery = next(pulling, None)
        while delivery is not None:
            dialogue = self._speak(delivery.message, delivery.recipients)
            delivery = next(pulling, None)
            if isinstance(dialogue.answer, BaseException):
                raise dialogue.answer
            yield cast("Outcome", dialogue.answer)
            if dialogue.closes:
                return


class _Leading(_Speaker):
    """To several relays, by the recipient's domain."""

    def relay(self, _message: Message, recipient: str, /) -> str:
        return relay_of(recipient.partition("@")[2], self._world.scenario.relays)

    def _relay(self, _message: Message, _recipient: str) -> str:
        return self.relay(_message, _recipient)


class _BatchingLeading(_Leading, _Batching):
    """Both."""


def relay_of(domain: str, relays: int) -> str:
    """Which of so many relays the mail for a domain goes to."""
    return f"relay{'abc'.index(domain[:1]) % relays + 1}"


def transport_for(world: World, process: Process) -> Transport:
    """The transport of one process."""
    kinds: dict[tuple[bool, bool], type[_Speaker]] = {
        (False, False): _Speaker,
        (True, False): _Batching,
        (False, True): _Leading,
        (True, True): _BatchingLeading,
    }
    return kinds[world.scenario.batches, world.scenario.relays > 1](world, process)


@attrs.frozen
class _Making:
    """One dialogue in the making."""

    world: World
    process: Process
    message: Message
    recipients: tuple[str, ...]
    relay: str
    die: random.Random

    def dialogue(self) -> _Dialogue:
        world = self.world
        condition = world.condition(self.relay)
        if condition != "up":
            return self._fault(wrong=condition == "wrong")
        nature = world.natures.get(self.message.id, "plain")
        if nature == "assassin":
            return self._fault(wrong=False)
        if nature == "poison" or (nature == "fatal-once" and world.first_death(self.message.id)):
            return self._death(self.die.choice(("dies-before", "dies-after-dot")))
        kind = world.fault(self.die, DIALOGUES)
        return self._well({}) if kind == "" else DIALOGUES[kind](self, kind)

    # -- what may come of it

    def _fault(self, *, wrong: bool) -> _Dialogue:
        kind = RelayMisconfigured if wrong else RelayUnavailable
        fault = kind(self.relay, "simulated")
        if self.die.random() < _ASKS_FOR_TIME:
            fault.retry_after = dt.timedelta(seconds=self.die.uniform(1, 120))
        return _Dialogue(answer=fault, course=[(self._short(), None)], closes=True)

    def refused(self, kind: str) -> _Dialogue:
        if kind == "unset":
            answer = ConfigurationError("simulated: a setting that a person has to mend")
            return _Dialogue(answer=answer, course=[(0.001, None)], closes=True)
        return self._fault(wrong=kind == "misconfigured")

    def replied(self, kind: str) -> _Dialogue:
        """The relay says no to all or to some of them."""
        result: Result = PermFailed("550 never") if kind.endswith("never") else TempFailed("450 later")
        if kind == "all-later" and self.die.random() < 0.3:
            result = TempFailed("450 later", dt.timedelta(seconds=self.die.uniform(1, 20)))
        everybody = kind.startswith("all")
        refused = {r: result for r in self.recipients if everybody or self.die.random() < 0.5}
        return self._well(refused)

    def cut(self, kind: str) -> _Dialogue:
        if kind == "cut-before":
            return self._all(TempFailed("the connection was lost before the dot"))
        taken = self.recipients if kind == "cut-after-taken" else ()
        return self._all(Uncertain("the connection was lost after the dot"), taken)

    def closing(self, _kind: str) -> _Dialogue:
        return self._all(TempFailed("421 closing"))

    def half_fault(self, _kind: str) -> _Dialogue:
        done, rest = self.recipients[:1], self.recipients[1:]
        if not rest:
            return self._fault(wrong=False)
        results: dict[str, Result] = dict.fromkeys(done, Accepted("250 ok"))
        results |= dict.fromkeys(rest, Untried())
        fault: RelayFault = RelayUnavailable(self.relay, "simulated, after some were done")
        outcome = Outcome(results=results, relay=self.relay, fault=fault)
        return _Dialogue(answer=outcome, course=self._course(done), closes=True)

    def silent(self, _kind: str) -> _Dialogue:
        """It says nothing of the last of them, who has it or not."""
        told = self.recipients[:-1]
        taken = self.recipients if self.die.random() < 0.5 else told
        results = dict.fromkeys(told, Accepted("250 ok"))
        return _Dialogue(answer=Outcome(results=results, relay=self.relay), course=self._course(taken))

    def slow(self, kind: str) -> _Dialogue:
        """For longer than a lease, before the dot or after it."""
        long = self.world.scenario.lease * self.die.uniform(0.5, 3.0)
        well = self._well({})
        at = 0 if kind == "slow-before" else len(well.course)
        return attrs.evolve(well, course=[*well.course[:at], (long, None), *well.course[at:]])

    def freezes(self, kind: str) -> _Dialogue:
        """Its process is stopped for longer than a lease, before the dot or after it."""
        long = self.world.scenario.lease * self.die.uniform(0.5, 3.0)
        well = self._well({})
        at = 0 if kind == "freezes-before" else len(well.course)
        freeze = (0.0, lambda: self.process.freeze(long))
        return attrs.evolve(well, course=[*well.course[:at], freeze, (0.0, None), *well.course[at:]])

    def hangs(self, _kind: str) -> _Dialogue:
        """Until the transport's own deadline; or for ever, which here is until the calm."""
        left = max(1.0, self.world.scenario.calm_at - self.world.kernel.now)
        long = left if self.die.random() < 0.3 else min(left, self.die.uniform(20, 120))
        lost = self._all(TempFailed("no reply in time"))
        return attrs.evolve(lost, course=[(long, None)])

    def odd(self, _kind: str) -> _Dialogue:
        """It returns what is no outcome; they have it, or not."""
        taken = self.recipients if self.die.random() < 0.5 else ()
        return _Dialogue(answer=None, course=self._course(taken))

    def raises(self, _kind: str) -> _Dialogue:
        bug = RuntimeError if self.die.random() < 0.7 else Interrupted
        return _Dialogue(
            answer=bug("simulated: a bug in a transport"),
            course=[(self._short(), None)],
            closes=True,
        )

    def _death(self, kind: str) -> _Dialogue:
        """Its process dies of it."""
        well = self._well({})
        if kind == "dies-before":
            well.course[:] = [(self._short(), None)]
        well.course.append((0.0, lambda: self.process.kill(f"{kind}: {self.message.id}")))
        return well

    # -- of these it is made

    def _well(self, refused: dict[str, Result]) -> _Dialogue:
        """A reply to each; who is refused gets nothing."""
        results = {r: refused.get(r, Accepted("250 ok")) for r in self.recipients}
        taken = [r for r in self.recipients if r not in refused]
        return _Dialogue(answer=Outcome(results=results, relay=self.relay), course=self._course(taken))

    def _all(self, result: Result, taken: Sequence[str] = ()) -> _Dialogue:
        outcome = attrs.evolve(Outcome.same(self.recipients, result, relay=self.relay), cut=True)
        return _Dialogue(answer=outcome, course=self._course(taken), closes=True)

    def _course(self, taken: Sequence[str]) -> Course:
        if not taken:
            return [(self._short(), None)]
        take = self.world.witness.taking(self.process, self.message, taken, self.relay)
        return [(self._short(), take), (self._short(), None)]

    def _short(self) -> float:
        return self.die.uniform(0.0005, 0.004) if self.die.random() < 0.8 else self.die.uniform(0.01, 0.5)


DIALOGUES: Final[Mapping[str, Callable[[_Making, str], _Dialogue]]] = frozen_mapping(
    {
        "refused": _Making.refused,
        "misconfigured": _Making.refused,
        "unset": _Making.refused,
        "all-later": _Making.replied,
        "all-never": _Making.replied,
        "some-later": _Making.replied,
        "some-never": _Making.replied,
        "cut-before": _Making.cut,
        "cut-after-taken": _Making.cut,
        "cut-after-lost": _Making.cut,
        "closing": _Making.closing,
        "half-fault": _Making.half_fault,
        "silent-on-some": _Making.silent,
        "slow-before": _Making.slow,
        "slow-after": _Making.slow,
        "freezes-before": _Making.freezes,
        "freezes-after": _Making.freezes,
        "hangs": _Making.hangs,
        "raises": _Making.raises,
        "odd-answer": _Making.odd,
        "dies-before": _Making._death,  # noqa: SLF001 - it is the table of this very class
        "dies-after-dot": _Making._death,  # noqa: SLF001 - as above
        "dies-after-reply": _Making._death,  # noqa: SLF001 - as above
    }
)
