"""Many worlds one after the other, and what came of them: as sums that can be added up, kept as lines of JSON and gone on from."""

from __future__ import annotations

import contextlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from outbox.values import frozen_mapping

from .scenario import drawn
from .shrinking import shrunk
from .telling import told
from .world import Line, Result, simulate

__all__ = ["Tally", "failure", "first_broken", "run_seeds", "traced"]


def _frozen_counts(counts: Mapping[str, int]) -> Mapping[str, int]:
    return frozen_mapping(dict(sorted(counts.items())))


@attrs.frozen(kw_only=True)
class Tally:
    """What came of several seeds.

    *broken* are those in which a promise was, *faults* what was injected, by
    its name, *again* the second copies, by their cause.  Tallies add up.
    """

    seeds: int = 0
    steps: int = 0
    copies: int = 0
    broken: Sequence[int] = ()
    faults: Mapping[str, int] = attrs.field(default={}, converter=_frozen_counts)
    again: Mapping[str, int] = attrs.field(default={}, converter=_frozen_counts)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            seeds=self.seeds + other.seeds,
            steps=self.steps + other.steps,
            copies=self.copies + other.copies,
            broken=[*self.broken, *other.broken],
            faults=Counter(self.faults) + Counter(other.faults),
            again=Counter(self.again) + Counter(other.again),
        )

    def as_json(self, **more: Any) -> str:
        """One line: of itself, behind what is said *more* of it."""
        plain = {"faults": dict(self.faults), "again": dict(self.again), "broken": list(self.broken)}
        return json.dumps({**more, "seeds": self.seeds, "steps": self.steps, "copies": self.copies, **plain})

    @classmethod
    def of_json(cls, line: str) -> Tally:
        """What :meth:`as_json` wrote."""
        read = json.loads(line)
        return cls(**{field.name: read[field.name] for field in attrs.fields(cls)})

    def __reduce__(self) -> tuple[object, ...]:
        # A frozen mapping does not travel from process to process.
        return Tally.of_json, (self.as_json(),)


def run_seeds(seeds: Iterable[int]) -> Tally:
    """Simulate the world of each."""
    tally = Tally()
    with _silent():
        for seed in seeds:
            tally += _tally(simulate(drawn(seed)))
    return tally


def _tally(result: Result) -> Tally:
    return Tally(
        seeds=1,
        steps=result.steps,
        copies=result.copies,
        broken=[result.scenario.seed] if result.violations else [],
        faults=result.faults,
        again=result.again,
    )


def first_broken(seeds: Iterable[int]) -> int | None:
    """The first of these in whose world a promise is broken; None where there is none."""
    with _silent():
        return next((seed for seed in seeds if simulate(drawn(seed)).violations), None)


def failure(seed: int) -> str:
    """How to see it again, and the least world in which it is seen; ``""`` where nothing is broken."""
    with _silent():
        result = simulate(drawn(seed))
        if not result.violations:
            return ""
        return "\n".join(told(seed, result, shrunk(result)))


def traced(seed: int, *, least: bool = False) -> Sequence[Line]:
    """All that happens in the world of this seed; or in the *least* one in which the same promise is broken."""
    with _silent():
        result = simulate(drawn(seed), trace=True)
        return shrunk(result).trace if least and result.violations else result.trace


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """What goes wrong here goes wrong on purpose, and is no news to a log."""
    log = logging.getLogger("outbox")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)
