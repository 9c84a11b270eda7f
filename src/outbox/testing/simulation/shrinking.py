"""From a world in which a promise was broken to the least world in which the same one is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import attrs

from .scenario import Doing, Host, Scenario
from .world import Line, Result, simulate

__all__ = ["concerning", "kind_of", "shrunk"]

P = TypeVar("P")

_HALVES: Final = 6
_TO_PROCESSES: Final = frozenset({"kill", "freeze", "stop"})


def shrunk(result: Result) -> Result:
    """The same broken promise with fewer hosts, messages, doings, outages, faults and workers; its trace is kept."""
    kind, least = kind_of(result), result.scenario

    def broken(scenario: Scenario) -> bool:
        return kind_of(simulate(scenario)) == kind

    for _ in range(2):
        for name in ("hosts", "plans", "doings", "outages"):
            least = _without(least, name, broken)
        least = _with_fewer_workers(_with_fewer_faults(least, broken), broken)
        least = _calm_sooner(least, broken)
    return simulate(least, trace=True)


def kind_of(result: Result) -> str:
    """Which promise was broken first, without names and numbers; ``""`` where none was."""
    if not result.violations:
        return ""
    return re.sub(r"\S*\d\S*|\[.*|\(.*", "", result.violations[0].text)


def concerning(result: Result) -> Sequence[Line]:
    """Of its trace what befell the message of the first broken promise, and the processes that had it."""
    message = result.violations[0].message if result.violations else ""
    if not message:
        return result.trace
    its = {line.who.partition(" ")[0] for line in result.trace if line.message == message} - {""}
    return [
        line
        for line in result.trace
        if line.message == message or (not line.message and line.who.partition(" ")[0] in {*its, ""})
    ]


def _without(scenario: Scenario, name: str, broken: Callable[[Scenario], bool]) -> Scenario:
    """With as few of what it calls *name* as it takes."""

    def fits(parts: tuple[Any, ...]) -> bool:
        # A world without a host or a message is none.
        there = bool(parts) or name not in ("hosts", "plans")
        return there and broken(_with(scenario, name, parts))

    return _with(scenario, name, _fewer(getattr(scenario, name), fits))


def _with(scenario: Scenario, name: str, parts: tuple[Any, ...]) -> Scenario:
    changing: Any = {name: parts}
    changed = attrs.evolve(scenario, **changing)
    there = {host.name for host in changed.hosts}
    return attrs.evolve(changed, doings=tuple(doing for doing in changed.doings if _concerns(doing, there)))


def _concerns(doing: Doing, hosts: set[str]) -> bool:
    return doing.what not in _TO_PROCESSES or doing.whom in hosts


def _with_fewer_faults(scenario: Scenario, broken: Callable[[Scenario], bool]) -> Scenario:
    def without(rates: tuple[tuple[str, float], ...]) -> Scenario:
        return attrs.evolve(scenario, rates=dict(rates))

    return without(_fewer(tuple(scenario.rates.items()), lambda rates: broken(without(rates))))


def _with_fewer_workers(scenario: Scenario, broken: Callable[[Scenario], bool]) -> Scenario:
    for position, host in enumerate(scenario.hosts):
        for workers in range(1, host.workers):
            fewer: Host = attrs.evolve(host, workers=workers)
            hosts = (*scenario.hosts[:position], fewer, *scenario.hosts[position + 1 :])
            if broken(attrs.evolve(scenario, hosts=hosts)):
                scenario = attrs.evolve(scenario, hosts=hosts)
                break
    return scenario


def _calm_sooner(scenario: Scenario, broken: Callable[[Scenario], bool]) -> Scenario:
    """With faults for half as long, and for half of that, where it takes no longer."""
    for _ in range(_HALVES):
        sooner = attrs.evolve(scenario, calm_at=scenario.calm_at / 2)
        if not broken(sooner):
            break
        scenario = sooner
    return scenario


def _fewer(parts: tuple[P, ...], fits: Callable[[tuple[P, ...]], bool]) -> tuple[P, ...]:
    """Without its halves, its quarters and so on to single ones, where it fits without."""
    size = len(parts)
    while size:
        at = 0
        while at < len(parts):
            fewer = parts[:at] + parts[at + size :]
            if fits(fewer):
                parts = fewer
            else:
                at += size
        size //= 2
    return parts
