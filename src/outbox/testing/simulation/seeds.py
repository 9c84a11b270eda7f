"""Many worlds one after the other, and in words what was broken in one of them."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from outbox.values import frozen_mapping

from .scenario import Plan, drawn
from .shrinking import concerning, shrunk
from .world import Line, Result, simulate

__all__ = ["Tally", "failure", "first_broken", "run_seeds", "traced"]


def _frozen_counts(counts: Mapping[str, int]) -> Mapping[str, int]:
    return frozen_mapping(counts)


@attrs.frozen(kw_only=True)
class Tally:
    """What came of several seeds; *broken* are those in which a promise was."""

    seeds: int
    broken: Sequence[int]
    faults: Mapping[str, int] = attrs.field(converter=_frozen_counts)
    again: Mapping[str, int] = attrs.field(converter=_frozen_counts)
    copies: int
    steps: int

    def __reduce__(self) -> tuple[object, ...]:
        # A frozen mapping does not travel from process to process.
        return _tally, (self.seeds, self.broken, dict(self.faults), dict(self.again), self.copies, self.steps)


def _tally(*values: object) -> Tally:
    names = ("seeds", "broken", "faults", "again", "copies", "steps")
    return Tally(**dict(zip(names, values, strict=True)))  # type: ignore[arg-type]  # what __reduce__ took apart


def run_seeds(seeds: Iterable[int]) -> Tally:
    """Simulate the world of each."""
    with _silent():
        results = [simulate(drawn(seed)) for seed in seeds]
    faults: Counter[str] = Counter()
    again: Counter[str] = Counter()
    for result in results:
        faults.update(result.faults)
        again.update(result.again)
    return Tally(
        seeds=len(results),
        broken=[result.scenario.seed for result in results if result.violations],
        faults=faults,
        again=again,
        copies=sum(result.copies for result in results),
        steps=sum(result.steps for result in results),
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
        least = shrunk(result)
    return "\n".join(_told(seed, result, least))


def traced(seed: int) -> Sequence[Line]:
    """All that happens in the world of this seed."""
    with _silent():
        return simulate(drawn(seed), trace=True).trace


def _told(seed: int, result: Result, least: Result) -> Iterator[str]:
    yield f"seed {seed}: {result.violations[0]}"
    yield f"replay it: python -m outbox.testing.simulation --seed {seed} --trace"
    scenario = least.scenario
    yield "the least world with the same in it:"
    for host in scenario.hosts:
        yield f"  {host.name}, workers: {host.workers}{', drains' if host.drains else ''}"
    for plan in scenario.plans:
        yield f"  {_shown(plan)}"
    for doing in scenario.doings:
        yield f"  {doing.what} {doing.whom} at {doing.at:.3f} s for {doing.seconds:.1f} s"
    for outage in scenario.outages:
        yield f"  {outage.whom} is {outage.what} from {outage.begin:.3f} s to {outage.end:.3f} s"
    yield f"  faults: {', '.join(scenario.rates) or 'none'}"
    yield "what happened in it:"
    yield from (f"  {line}" for line in concerning(least))


def _shown(plan: Plan) -> str:
    message = plan.message
    words = [
        f"{message.id} at {plan.at:.3f} s to {len(message.recipients)} of {message.queue}",
        plan.nature if plan.nature != "plain" else "",
        "at-most-once" if message.at_most_once else "",
        f"expires {message.expires_at:%H:%M:%S}" if message.expires_at else "",
        f"not before {message.not_before:%H:%M:%S}" if message.not_before else "",
    ]
    return ", ".join(filter(None, words))


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
