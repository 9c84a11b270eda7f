"""What a user hands to a Runner: his hook, whom he suppresses, his listener. They are a stranger's, and do what they like."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from outbox.errors import RelayFault
from outbox.events import Notice
from outbox.lifecycle import Claim, Dead, Delivered, Fate, Held, Released, Retry, Verdict
from outbox.message import Message
from outbox.outcome import Outcome, PermFailed

from .verdicts import Answer, Expected

if TYPE_CHECKING:
    from .processing import Process
    from .world import World

__all__ = ["HOOKS", "LISTENING", "SUPPRESSING", "Strangers"]

HOOKS: Final = ("hook-discards", "hook-holds", "hook-delays", "hook-lies", "hook-raises")
SUPPRESSING: Final = ("suppress-raises", "suppress-lies")
LISTENING: Final = ("listener-raises",)
_SOON: Final = dt.timedelta(seconds=1)


class _Interrupt(BaseException):
    """What is no Exception, and ends no thread of ours."""


class Strangers:
    """Those of one process."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._die = random.Random(f"{world.scenario.seed}/strangers/{process.name}")  # noqa: S311 - a seeded die is the point

    def listener(self, notice: Notice) -> None:
        """What is called after each settlement."""
        self._world.witness.told(self._process, notice)
        if self._world.fault(self._die, LISTENING):
            raise self._bug()

    def hook(self, claim: Claim, _report: Outcome | RelayFault, judged: Verdict) -> Verdict:
        """What becomes of a claim instead."""
        kind = self._world.fault(self._die, HOOKS)
        answer = self._answer(kind, claim, judged)
        # A lie, and an exception, change nothing.
        expected = self._expected(claim, judged, judged if kind == "hook-lies" or answer is None else answer)
        self._world.witness.amended(claim, judged, expected)
        if answer is None:
            raise self._bug()
        return answer

    def _answer(self, kind: str, claim: Claim, judged: Verdict) -> Verdict | None:
        if kind == "hook-raises":
            return None
        if kind == "hook-lies":
            return self._lie(claim, judged)
        if kind in ("hook-discards", "hook-holds") and not isinstance(judged, Delivered):
            fates = {r: fate.given_up for r, fate in judged.fates.items()}
            discards = kind == "hook-discards" and Fate.UNCERTAIN not in fates.values()
            return (Dead if discards else Held)(fates=fates, reason="the hook said so")
        if kind == "hook-delays" and isinstance(judged, Retry | Released):
            return attrs.evolve(judged, delay=dt.timedelta(seconds=self._die.choice((-5.0, 0.0, 3.0, 90.0))))
        return judged

    def _lie(self, claim: Claim, judged: Verdict) -> Verdict:
        first = claim.message.recipients[0]
        other = Fate.WAITING if judged.fates[first] is Fate.ACCEPTED else Fate.ACCEPTED
        lies: list[Any] = [
            Held(fates={**judged.fates, first: other}, reason="a lie"),
            Delivered(fates=dict.fromkeys(judged.fates, Fate.ACCEPTED)),
            Dead(fates={}, reason="nobody is named"),
            "no verdict",
        ]
        lie: Verdict = self._die.choice(lies)
        return lie

    def _expected(self, claim: Claim, judged: Verdict, answer: Verdict) -> Expected:
        expected = Expected.of(judged, answer)
        if expected.delay is None or expected.delay == getattr(judged, "delay", None):
            return expected
        delay = max(_SOON, expected.delay)
        if claim.expires_in is not None:
            delay = max(dt.timedelta(0), min(delay, claim.expires_in))
        return attrs.evolve(expected, delay=delay)

    def suppress(self, message: Message, recipients: Sequence[str]) -> Collection[str]:
        """Who of them is never to be written to again."""
        world = self._world
        kind = world.fault(self._die, SUPPRESSING)
        named = {r for r in recipients if world.suppressed_since(r) <= world.kernel.now}
        answers: Mapping[str, Answer] = dict.fromkeys(named, PermFailed("suppressed"))
        if kind:
            # Nobody knows now who is: they are all put off.
            answers = dict.fromkeys(recipients, RuntimeError("simulated: not known"))
        world.witness.suppressed(self._process, message, answers)
        if kind == "suppress-raises":
            raise self._bug()
        lies: Any = self._die.choice(("a string", {1, 2}, None))
        return lies if kind else named

    def _bug(self) -> BaseException:
        kind = self._die.choice((RuntimeError, _Interrupt))
        return kind("simulated: a bug of a stranger's")
