"""Scenes in which a store is killed, or its disk fails, at each system call; and what must be there afterwards.

A scene is a list of steps.  Run undisturbed up to each of them, it leaves an
image: all that can be learned of the store, and all that can still be done
with it.  Whatever befalls the child process that plays the scene, the image
that it leaves is the one before the step it was in, or the one after it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
from crash_faults import BEGIN, DONE, KILLS, OVER, RAISED, Fault, Interrupt, failing, faults
from crash_image import Image, autopsy, different, without_unreadable
from tracing import Call, Deed, Fail, Plan, Say, Trace, trace

from outbox.errors import AmbiguousPut, OutboxError
from outbox.lifecycle import Claim
from outbox.testing.clauses.scene import Whole, mail, put
from outbox.testing.clock import ManualClock

__all__ = ["Bench", "Kind", "Scene", "Step", "Trial", "workplace"]

DECADE: Final = dt.timedelta(days=3650)
MINUTE: Final = dt.timedelta(minutes=1)
AFTERWARDS: Final = dt.timedelta(days=60)
_MEMORY: Final = "/dev/shm"


@attrs.define
class Bench:
    """What a step works with."""

    open: Callable[[], Whole]
    clock: ManualClock
    path: Path
    claims: list[Claim] = attrs.field(factory=list)
    _store: Whole | None = None

    @property
    def store(self) -> Whole:
        """The store; opened when it is first asked for."""
        if self._store is None:
            self._store = self.open()
        return self._store

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


Step: TypeAlias = Callable[[Bench], object]


@attrs.frozen(kw_only=True)
class Scene:
    """Steps, and what comes before them.

    Attributes:
        prepare: Done once, in another process's place, and closed.
        crashed: Whether that other process was killed instead.
        warm: Whether the child has opened the store and written before the first step.
        settings: Of the store in the child.
        later: How long after *prepare* the child lives.
        begin: Done in the child just before the first step.
        forgets: Whether its settings hold afterwards too; else every id is known for a decade.
        strict: Whether a step that raises anything but AmbiguousPut has left nothing.
        instead: What the steps may come to as well where an error was met.
        raw: Whether the steps may also raise what is no error of ours: they use a driver themselves.
    """

    name: str
    steps: Sequence[Step]
    prepare: Step = lambda _: None
    begin: Step = lambda _: None
    crashed: bool = False
    warm: bool = True
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    later: dt.timedelta = MINUTE
    forgets: bool = False
    strict: bool = False
    instead: Sequence[Step] | None = None
    raw: bool = False

    def __str__(self) -> str:
        return self.name


@attrs.frozen(kw_only=True)
class Kind:
    """A kind of store.

    Attributes:
        open: Opens the one in this folder.
        atomic: Whether a step as a whole happens or not; else each of its messages does.
        copy: Copies the folder of one.
        holds_unreadable: Whether a message that cannot be read at one moment is held for a person.
    """

    open: Callable[..., Any]
    atomic: bool
    copy: Callable[[Path, Path], object] = shutil.copytree
    holds_unreadable: bool = False


@contextlib.contextmanager
def workplace(other: Path) -> Iterator[Path]:
    """A folder in memory, or else *other*: a kill leaves the same on every disk, and nobody waits for a platter."""
    if not os.access(_MEMORY, os.W_OK):
        yield other
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        yield Path(folder)


class Trial:
    """A scene, with the images that it leaves when it goes on undisturbed up to each of its steps."""

    def __init__(self, kind: Kind, scene: Scene, folder: Path) -> None:
        self._kind = kind
        self._scene = scene
        self._folder = folder
        self._copies = itertools.count()
        self._afterwards = scene.settings if scene.forgets else {"remember": DECADE}
        self._template = folder / "template"
        self._claims: Sequence[Claim] = []
        self._prepare()
        self._images = [self._reference(scene.steps[:number]) for number in range(len(scene.steps) + 1)]
        self._instead = [] if scene.instead is None else [self._reference(scene.instead)]

    def _prepare(self) -> None:
        place = self._folder / "prepared"
        place.mkdir()
        bench = self._bench(place, dt.timedelta(0))
        self._scene.prepare(bench)
        if self._scene.crashed:
            # As the file lies there at this moment, it would lie there after a kill.
            self._kind.copy(place, self._template)
        bench.close()
        if not self._scene.crashed:
            self._kind.copy(place, self._template)
        self._claims = bench.claims

    def _bench(self, place: Path, later: dt.timedelta) -> Bench:
        clock = ManualClock()
        clock.advance(later)

        def open() -> Whole:
            store: Whole = self._kind.open(place, clock, **self._scene.settings)
            return store

        return Bench(open, clock, place, list(self._claims))

    def _place(self) -> Path:
        place = self._folder / str(next(self._copies))
        self._kind.copy(self._template, place)
        return place

    def _began(self, place: Path) -> Bench:
        bench = self._bench(place, self._scene.later)
        if self._scene.warm:
            put(bench.store, mail("warm", queue="other"))
        self._scene.begin(bench)
        return bench

    def _reference(self, steps: Sequence[Step]) -> Image:
        place = self._place()
        bench = self._began(place)
        for step in steps:
            step(bench)
        bench.close()
        image = self._autopsy(place)
        shutil.rmtree(place)
        return image

    def undisturbed(self) -> Trace:
        """What the child does when nothing is done to it."""
        return self._traced(self._place(), lambda _: Deed.ALLOW)

    def _autopsy(self, place: Path) -> Image:
        clock = ManualClock()
        clock.advance(AFTERWARDS)
        with contextlib.closing(self._kind.open(place, clock, **self._afterwards)) as store:
            return autopsy(store)

    # -- kills

    def kill(self) -> int:
        """Kill the child at each call in each way; return how often that was."""
        return sum(self._kill(deed, among) for deed, among in KILLS)

    def _kill(self, deed: Deed, among: Callable[[Call], bool]) -> int:
        for number in itertools.count(1):
            plan = Interrupt(number, deed, among)
            place = self._place()
            traced = self._traced(place, plan)
            said = f"{self._scene}: {deed.name} at call {number}, {plan.at}"
            if plan.at is None:
                assert traced.status == 0, said
                self._require(place, said, self._images[-1])
                return number - 1
            assert traced.status < 0, said
            steps = traced.said.count(DONE)
            self._require(place, said, *self._images[steps : steps + 2])
        raise AssertionError("unreachable")

    # -- errors

    def fail(self) -> int:
        """Let each call fail in each way; return how often that was."""
        calls = [call for call in self.undisturbed().between(BEGIN, OVER) if failing(call)]
        every = list(faults(calls))
        for number, fault in every:
            self._fail(number, fault)
        return len(every)

    def _fail(self, number: int, fault: Fault) -> None:
        plan = Interrupt(number, Fail(fault.errno), failing, lasting=fault.lasting)
        place = self._place()
        traced = self._traced(place, plan, repeats=fault.repeats)
        said = f"{self._scene}: {fault} at call {number}, {plan.at}, then {traced.said}"
        assert plan.at is not None, said
        assert traced.status == 0, said
        steps = traced.said.count(DONE)
        allowed = self._images[steps : steps + 2] + self._instead
        if (
            self._scene.strict
            and traced.said[-1].startswith(RAISED)
            and AmbiguousPut.__name__ not in traced.said[-1]
        ):
            # It has said that nothing was stored.
            allowed = allowed[:1]
        self._require(place, said, *allowed, unreadable=plan.at.name == "read")

    # --

    def _traced(self, place: Path, plan: Plan, *, repeats: bool = True) -> Trace:
        return trace(lambda say: self._play(place, say, repeats=repeats), place, plan)

    def _play(self, place: Path, say: Say, *, repeats: bool) -> None:
        """The life of the child."""
        bench = self._began(place)
        say(BEGIN)
        expected: tuple[type[Exception], ...] = (Exception,) if self._scene.raw else (OutboxError,)
        for step in self._scene.steps:
            try:
                step(bench)
            except expected as error:
                say(RAISED + type(error).__name__)
                if not repeats:
                    return
                step(bench)
            say(DONE)
        say(OVER)
        bench.close()

    def _require(self, place: Path, said: str, *allowed: Image, unreadable: bool = False) -> None:
        try:
            found = self._autopsy(place)
            if unreadable and self._kind.holds_unreadable:
                found = without_unreadable(found)
        except (AssertionError, OutboxError) as error:
            raise AssertionError(f"{said}: afterwards {error!r}") from error
        wrong = different(found, *allowed, atomic=self._kind.atomic)
        assert not wrong, f"{said}: {wrong}"
        shutil.rmtree(place)
