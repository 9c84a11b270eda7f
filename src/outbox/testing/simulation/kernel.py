"""Time and turns of a simulated world: one thread, no clock but its own, and a seeded choice of who goes on.

A *task* is a generator.  It yields what it waits for: nothing but some time,
or a signal for so long at most.  Whoever may go on does so a moment later,
by the die: so the tasks take their turns in any order.
"""

from __future__ import annotations

import datetime as dt
import heapq
import itertools
import math
import random
from collections.abc import Generator
from typing import Any, Final, Protocol, TypeAlias

__all__ = ["Flag", "HostClock", "Kernel", "Life", "Signal", "Steps", "StoreClock", "Task", "Waiting"]

_NEW_YEAR: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_MOSTLY: Final = 0.90
_SELDOM: Final = 0.99
_LITTLE: Final = 0.0005 / _MOSTLY
_MORE: Final = 0.02 / (_SELDOM - _MOSTLY)
_MUCH: Final = 0.3 / (1.0 - _SELDOM)
"""How late who may go on does so: half a millisecond at most, and in one case of ten or of a hundred much later."""

Waiting: TypeAlias = "tuple[Signal | None, float]"
Steps: TypeAlias = Generator[Waiting, bool, Any]
"""Sent True where the signal was given, and False where the time ran out."""


class Life(Protocol):
    """What a task lives in: it does nothing while that is frozen, nor any more once that is over."""

    @property
    def alive(self) -> bool: ...

    @property
    def frozen(self) -> bool: ...


class Task:
    """One generator, and how often it has gone on: what woke it before that is no longer for it."""

    __slots__ = ("draw", "life", "name", "number", "steps", "turn")

    def __init__(self, number: int, name: str, steps: Steps, life: Life | None, rng: random.Random) -> None:
        self.number = number
        # A die of its own: what is left out of a world does not change the turns of the others.
        self.draw = rng.random
        self.name = name
        self.steps = steps
        self.life = life
        self.turn = 0


class Signal:
    """What tasks wait for; in the place of a :class:`threading.Condition`, whose lock nobody needs here."""

    __slots__ = ("_kernel", "_waiters")

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._waiters: list[tuple[Task, int]] = []

    def __enter__(self) -> None:
        """There is one thread."""

    def __exit__(self, *_: object) -> None:
        """There is one thread."""

    def add(self, task: Task) -> None:
        self._waiters.append((task, task.turn))

    def notify(self) -> None:
        """Wake who has waited longest."""
        while self._waiters:
            task, turn = self._waiters.pop(0)
            if task.turn == turn and (task.life is None or task.life.alive):
                self._kernel.soon(task, told=True)
                return

    def notify_all(self) -> None:
        waiters, self._waiters = self._waiters, []
        for task, turn in waiters:
            if task.turn == turn:
                self._kernel.soon(task, told=True)


class Flag:
    """In the place of a :class:`threading.Event`."""

    __slots__ = ("_set", "_signal")

    def __init__(self, kernel: Kernel) -> None:
        self._set = False
        self._signal = Signal(kernel)

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        self._signal.notify_all()

    def waited(self, seconds: float) -> Generator[Waiting, bool, bool]:
        """Wait until it is set, for so long at most; whether it is."""
        if not self._set:
            yield self._signal, seconds
        return self._set


class Kernel:
    """All tasks, and what time it is: seconds since the world began."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self._seed = seed
        self.steps = 0
        self.current: Task | None = None
        self._numbers = itertools.count(1)
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Task, int, bool]] = []
        self._frozen: list[tuple[Task, int, bool]] = []
        self._gone: list[Task] = []

    def spawn(self, name: str, steps: Steps, life: Life | None = None) -> Task:
        rng = random.Random(f"{self._seed}/{name}")  # noqa: S311 - a seeded die is the point
        task = Task(next(self._numbers), name, steps, life, rng)
        # Kept to the end: what a killed process had begun is never ended, not even by the collector.
        self._gone.append(task)
        self.soon(task, told=False)
        return task

    def soon(self, task: Task, *, told: bool) -> None:
        """It may go on, and does a moment later."""
        self._push(self.now + self._lateness(task), task, told=told)

    def lateness(self) -> float:
        """How late the task that goes on will go on again."""
        return 0.0 if self.current is None else self._lateness(self.current)

    def _lateness(self, task: Task) -> float:
        draw = task.draw()
        if draw < _MOSTLY:
            return draw * _LITTLE
        if draw < _SELDOM:
            return (draw - _MOSTLY) * _MORE
        return (draw - _SELDOM) * _MUCH

    def thaw(self, life: Life) -> None:
        """Who was to go on while *life* was frozen does so now."""
        mine = [entry for entry in self._frozen if entry[0].life is life]
        self._frozen = [entry for entry in self._frozen if entry[0].life is not life]
        for task, turn, told in mine:
            if task.turn == turn:
                self.soon(task, told=told)

    def step(self, until: float) -> bool:
        """Let one task go on; False where there is none before *until*, and it is then."""
        while self._heap and self._heap[0][0] <= until:
            at, _, task, turn, told = heapq.heappop(self._heap)
            if task.turn != turn or (task.life is not None and not task.life.alive):
                continue
            self.now = max(self.now, at)
            if task.life is not None and task.life.frozen:
                self._frozen.append((task, turn, told))
                continue
            self._go_on(task, told=told)
            return True
        self.now = max(self.now, until)
        return False

    def _go_on(self, task: Task, *, told: bool) -> None:
        self.steps += 1
        task.turn += 1
        self.current = task
        try:
            signal, seconds = task.steps.send(told if task.turn > 1 else None)  # type: ignore[arg-type]  # a generator that has not begun
        except StopIteration:
            task.turn += 1
            self.current = None
            return
        self.current = None
        if signal is not None:
            signal.add(task)
        if seconds != math.inf:
            # Time goes on, however short the wait: who polls by a rounded clock comes to its end.
            self._push(self.now + seconds + self._lateness(task) + 1e-6, task, told=False)

    def _push(self, at: float, task: Task, *, told: bool) -> None:
        heapq.heappush(self._heap, (at, next(self._order), task, task.turn, told))


class StoreClock:
    """The clock of the store, which decides what is due."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def now(self) -> dt.datetime:
        return _NEW_YEAR + dt.timedelta(seconds=self._kernel.now)

    def monotonic(self) -> float:
        return self._kernel.now


class HostClock:
    """The clock of a host: it began elsewhere, its wall is wrong by *skew* seconds, and a second of it lasts not quite one."""

    def __init__(self, kernel: Kernel, *, skew: float = 0.0, drift: float = 0.0, booted: float = 0.0) -> None:
        self._kernel = kernel
        self._skew = skew
        self._rate = 1.0 + drift
        self._booted = booted

    def now(self) -> dt.datetime:
        return _NEW_YEAR + dt.timedelta(seconds=self._skew + self._kernel.now * self._rate)

    def monotonic(self) -> float:
        return self._booted + self._kernel.now * self._rate

    def lasts(self, seconds: float) -> float:
        """So many seconds of this clock, in those of the world."""
        return seconds / self._rate
