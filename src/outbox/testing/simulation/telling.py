"""In words: which promise was broken, how to see it again, and the least world in which it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from .scenario import Host, Plan, Scenario
from .shrinking import concerning
from .world import Line, Result

__all__ = ["brief", "told"]

_OFTEN: Final = 4


def told(seed: int, result: Result, least: Result) -> Iterator[str]:
    """Line by line; *least* is *result* with as little in it as it takes."""
    command = f"python -m outbox.testing.simulation --seed {seed}"
    yield f"seed {seed}: {result.violations[0]}"
    yield f"replay it: {command} --trace; the least world of it: {command} --least --trace"
    yield "the least world with the same in it:"
    yield from (f"  {line}" for line in _world(least.scenario))
    yield "what happened in it:"
    yield from (f"  {line}" for line in brief(concerning(least)))


def brief(trace: Sequence[Line]) -> Iterator[str]:
    """A trace without what it repeats again and again."""
    seen: Counter[tuple[str, str]] = Counter()
    left_out = 0
    for line in trace:
        kind = (line.message, line.text)
        seen[kind] += 1
        if seen[kind] > _OFTEN and not line.text.startswith("BROKEN"):
            left_out += 1
            continue
        if left_out:
            yield f"  ... {left_out} lines of what was told {_OFTEN} times already"
            left_out = 0
        yield str(line)


def _world(scenario: Scenario) -> Iterator[str]:
    yield (
        f"lease {scenario.lease:g} s, {scenario.relays} relays, calm at {scenario.calm_at:.3f} s"
        f"{', in batches' if scenario.batches else ''}{', with exchange' if scenario.exchanges else ''}"
        f"{', with a hook' if scenario.hooked else ''}"
    )
    yield from (_host(host) for host in scenario.hosts)
    for queue in sorted({plan.message.queue for plan in scenario.plans}):
        yield f"{queue}: {_said(scenario.policies[queue])}"
    for key, limits in (scenario.limits or {}).items():
        yield f"limits of {key}: {_said(limits)}"
    if scenario.suppressed:
        yield f"suppressed: {', '.join(f'{who} from {at:.3f} s' for who, at in scenario.suppressed.items())}"
    yield from map(_plan, scenario.plans)
    for doing in scenario.doings:
        yield f"{doing.what} {doing.whom} at {doing.at:.3f} s for {doing.seconds:.1f} s"
    for outage in scenario.outages:
        yield f"{outage.whom} is {outage.what} from {outage.begin:.3f} s to {outage.end:.3f} s"
    yield f"faults: {_rates(scenario.rates) or 'none'}"


def _host(host: Host) -> str:
    drains = "" if not host.drains else ", drains" if host.limit is None else f", drains {host.limit}"
    return f"{host.name}, workers: {host.workers}{drains}{', hears' if host.hears else ''}"


def _said(value: Any) -> str:
    """What is said of a value that is not said by its default."""
    said = {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
    return ", ".join(f"{name} {each}" for name, each in said.items() if each is not None)


def _rates(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {rate:.3f}" for name, rate in rates.items())


def _plan(plan: Plan) -> str:
    message = plan.message
    words = [
        f"{message.id} {'sent' if plan.sent else 'put'} at {plan.at:.3f} s to {len(message.recipients)} of {message.queue}",
        *(f"again at {at:.3f} s" for at in plan.again),
        plan.nature if plan.nature != "plain" else "",
        "at-most-once" if message.at_most_once else "",
        f"priority {message.priority}" if message.priority else "",
        *(f"{name}={value}" for name, value in message.attributes.items()),
        f"expires {message.expires_at:%H:%M:%S}" if message.expires_at else "",
        f"not before {message.not_before:%H:%M:%S}" if message.not_before else "",
    ]
    return ", ".join(filter(None, words))
