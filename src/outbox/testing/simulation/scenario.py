"""What happens in one simulated world, drawn from a seed before it begins: so that it can be drawn again with less in it."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import attrs

from outbox import RelayLimits
from outbox.message import Message
from outbox.retry import RetryPolicy
from outbox.values import frozen_mapping

__all__ = ["FAULTS", "Doing", "Host", "Nature", "Outage", "Plan", "Scenario", "drawn"]

Nature: TypeAlias = Literal["plain", "poison", "fatal-once", "assassin"]
"""What a message does to who delivers it: a *poison* kills each process, *fatal-once* the first, and at an
*assassin* the relay itself fails, each time and for no other message."""

_QUEUES: Final = ("mail", "bulk")
_DOMAINS: Final = ("a.example", "b.example", "c.example")
_CAMPAIGNS: Final = ("spring", "autumn")
_NEW_YEAR: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def _frozen_rates(rates: Mapping[str, float]) -> Mapping[str, float]:
    return frozen_mapping(rates)


@attrs.frozen(kw_only=True)
class Plan:
    """One message: when it is submitted (or sent directly, by a process), how often again, and what it is like."""

    message: Message
    at: float
    again: tuple[float, ...] = ()
    nature: Nature = "plain"
    sent: bool = False


@attrs.frozen(kw_only=True)
class Host:
    """One process and what it runs on; where two have the same clock, they are on one machine."""

    name: str
    workers: int
    skew: float = 0.0
    drift: float = 0.0
    hears: bool = True
    drains: bool = False
    limit: int | None = None


@attrs.frozen(kw_only=True)
class Doing:
    """What is done to a process, to a message or to a queue at a moment: *what* to *whom*, for *seconds*."""

    at: float
    what: Literal["kill", "freeze", "stop", "cancel", "requeue", "requeue-uncertain", "purge", "suspend"]
    whom: str
    seconds: float = 0.0


@attrs.frozen(kw_only=True)
class Outage:
    """For a while something fails: the store for a process (``full``, ``down``), or a relay (``down``, ``wrong``)."""

    begin: float
    end: float
    what: Literal["full", "down", "wrong"]
    whom: str


@attrs.frozen(kw_only=True)
class Scenario:
    """All of it.

    *rates*: how often a step goes wrong, by the fault's name; *calm_at*: when
    faults end; *suppressed*: from when on somebody is not to be written to.
    """

    seed: int
    hosts: tuple[Host, ...]
    plans: tuple[Plan, ...]
    doings: tuple[Doing, ...]
    outages: tuple[Outage, ...]
    rates: Mapping[str, float] = attrs.field(converter=_frozen_rates)
    lease: float
    policies: Mapping[str, RetryPolicy]
    limits: Mapping[str, RelayLimits] | None
    suppressed: Mapping[str, float]
    hooked: bool
    relays: int
    batches: bool
    exchanges: bool
    calm_at: float


_DELIVERY_FAULTS: Final = (
    *("refused", "misconfigured", "unset", "all-later", "all-never", "some-later", "some-never"),
    *("cut-before", "cut-after-taken", "cut-after-lost", "closing", "half-fault", "silent-on-some"),
    *(
        "slow-before",
        "slow-after",
        "freezes-before",
        "freezes-after",
        "hangs",
        "raises",
        "odd-answer",
        "dies-before",
        "dies-after-dot",
        "dies-after-reply",
    ),
)
_STORE_FAULTS: Final = (
    *("fails-before", "fails-after", "stalls-before", "stalls-after", "breaks"),
    *("dies-before-commit", "dies-after-commit", "put-fails-before", "put-fails-after"),
    *("cannot-read", "tells-no-due"),
)
_STRANGERS_FAULTS: Final = (
    *("hook-discards", "hook-holds", "hook-delays", "hook-lies", "hook-raises"),
    *("suppress-raises", "suppress-lies", "listener-raises"),
)
_IN_PART: Final = "writes-in-part"
FAULTS: Final = (*_DELIVERY_FAULTS, *_STORE_FAULTS, _IN_PART, *_STRANGERS_FAULTS)
"""Whatever can go wrong at a step."""

_RARE: Final = frozenset(
    {"hangs", "freezes-before", "freezes-after", "breaks", "misconfigured", "unset", "cannot-read"}
)


def drawn(seed: int) -> Scenario:
    """The world of this seed."""
    rng = random.Random(f"{seed}/scenario")  # noqa: S311 - a seeded die is the point
    calm_at = rng.uniform(20.0, 150.0)
    hosts = _hosts(rng)
    plans = tuple(_plan(rng, number, calm_at) for number in range(1, _many(rng) + 1))
    relays = rng.choice((1, 1, 2, 3))
    return Scenario(
        seed=seed,
        hosts=hosts,
        plans=plans,
        doings=_doings(rng, hosts, plans, calm_at),
        outages=_outages(rng, hosts, calm_at),
        rates={**_rates(rng), **_in_part(seed)},
        lease=rng.choice((6.0, 15.0, 30.0)),
        policies={queue: _policy(rng) for queue in _QUEUES},
        limits=_limits(rng, relays) if rng.random() < 0.3 else None,
        suppressed=_suppressed(rng, plans, calm_at) if rng.random() < 0.2 else {},
        hooked=rng.random() < 0.25,
        relays=relays,
        batches=rng.random() < 0.7,
        exchanges=rng.random() < 0.7,
        calm_at=calm_at,
    )


def _many(rng: random.Random) -> int:
    """How many messages: mostly a few, for each costs steps; now and then more than a batch takes."""
    kind = rng.random()
    return (
        rng.randint(3, 16) if kind < 0.75 else rng.randint(30, 50) if kind < 0.98 else rng.randint(100, 250)
    )


def _hosts(rng: random.Random) -> tuple[Host, ...]:
    number = rng.randint(1, 3)
    workers = [1] * number
    for _ in range(max(0, rng.randint(3, 8) - number)):
        workers[rng.randrange(number)] += 1
    clocks = [(rng.uniform(-3600, 3600), rng.uniform(-0.0005, 0.0005)) for _ in range(number)]
    if number > 1 and rng.random() < 0.3:
        clocks[1] = clocks[0]
    drains = [position > 0 and rng.random() < 0.2 for position in range(number)]
    return tuple(
        Host(
            name=f"h{position}",
            workers=workers[position - 1],
            skew=clocks[position - 1][0],
            drift=clocks[position - 1][1],
            hears=rng.random() < 0.5,
            drains=drains[position - 1],
            limit=rng.choice((1, 3, 10)) if drains[position - 1] and rng.random() < 0.3 else None,
        )
        for position in range(1, number + 1)
    )


def _plan(rng: random.Random, number: int, calm_at: float) -> Plan:
    at = 0.0 if rng.random() < 0.5 else rng.uniform(0.0, calm_at)
    recipients = [f"r{n}@{rng.choice(_DOMAINS)}" for n in range(rng.choice((1, 1, 1, 2, 3)))]
    now = _NEW_YEAR + dt.timedelta(seconds=at)
    rare: tuple[Nature, ...] = ("poison", "fatal-once", "assassin")
    message = Message(
        id=f"m{number}",
        recipients=recipients,
        content=f"content of m{number}\r\n".encode(),
        sender=f"s{number}@example.org",
        queue=rng.choice(_QUEUES),
        priority=rng.choice((0, 0, 0, 5, -5)),
        not_before=now + dt.timedelta(seconds=rng.uniform(0, 60)) if rng.random() < 0.15 else None,
        expires_at=now + dt.timedelta(seconds=rng.uniform(5, 120)) if rng.random() < 0.15 else None,
        at_most_once=rng.random() < 0.15,
        attributes={"campaign": rng.choice(_CAMPAIGNS)} if rng.random() < 0.3 else {},
    )
    again = tuple(rng.uniform(at, calm_at) for _ in range(rng.choice((0, 0, 0, 1, 2))))
    return Plan(
        message=message,
        at=at,
        again=again,
        nature=rng.choice(rare) if rng.random() < 0.1 else "plain",
        sent=rng.random() < 0.1,
    )


def _doings(
    rng: random.Random, hosts: tuple[Host, ...], plans: tuple[Plan, ...], calm_at: float
) -> tuple[Doing, ...]:
    found: list[Doing] = []

    def moment() -> float:
        """Any, or one at which there is something to do."""
        return rng.choice(plans).at + rng.uniform(0, 0.5) if rng.random() < 0.5 else rng.uniform(0, calm_at)

    for _ in range(rng.randint(0, 6)):
        what = rng.choice(("kill", "freeze", "freeze", "stop"))
        found.append(
            Doing(
                at=moment(),
                what=what,  # type: ignore[arg-type]  # a choice of strings is a string to mypy
                whom=rng.choice(hosts).name,
                seconds=rng.choice((0.0, 0.5, 5.0, 60.0)) * rng.random(),
            )
        )
    for _ in range(rng.randint(0, 6)):
        what = rng.choice(("cancel", "cancel", "requeue", "requeue", "requeue-uncertain", "purge", "suspend"))
        whom = _suspended(rng) if what == "suspend" else rng.choice(plans).message.id
        found.append(
            Doing(at=moment(), what=what, whom=whom, seconds=rng.uniform(1, 30))  # type: ignore[arg-type]  # as above
        )
    return tuple(sorted(found, key=lambda doing: doing.at))


def _outages(rng: random.Random, hosts: tuple[Host, ...], calm_at: float) -> tuple[Outage, ...]:
    found = []
    for _ in range(rng.choice((0, 0, 1, 2))):
        begin = rng.choice((0.0, rng.uniform(0, calm_at)))
        found.append(
            Outage(
                begin=begin + rng.uniform(0, 1),
                end=begin + rng.uniform(1, 40),
                what=rng.choice(("full", "down")),
                whom=rng.choice(("*", *(host.name for host in hosts))),
            )
        )
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        begin = rng.uniform(0, calm_at)
        found.append(
            Outage(
                begin=begin,
                end=begin + rng.uniform(1, 60),
                what=rng.choice(("down", "down", "wrong")),
                whom=f"relay{rng.randint(1, 3)}",
            )
        )
    return tuple(found)


def _rates(rng: random.Random) -> dict[str, float]:
    """Some kinds of faults, and not all at once: what follows from one would be hidden by the others."""
    level = rng.choice((0.0, 0.1, 0.2, 0.4))
    chosen = [name for name in FAULTS if name != _IN_PART and rng.random() < 0.4]
    total = len(chosen) or 1
    often = {**dict.fromkeys(_RARE, 0.5), **dict.fromkeys(_STRANGERS_FAULTS, 3.0)}
    return {name: min(0.5, level * often.get(name, 1.0) * 4 / (total + 3)) for name in chosen}


def _in_part(seed: int) -> dict[str, float]:
    # It came later, and has a die of its own: the worlds in which it is not are what they were.
    rng = random.Random(f"{seed}/{_IN_PART}")  # noqa: S311 - a seeded die is the point
    return {_IN_PART: rng.choice((0.1, 0.5))} if rng.random() < 0.3 else {}


def _suspended(rng: random.Random) -> str:
    """What is suspended: its kind and its value."""
    values = {
        "queue": _QUEUES,
        "domain": _DOMAINS,
        "attribute": tuple(f"campaign={name}" for name in _CAMPAIGNS),
        "relay": ("relay1", "relay2", "relay3"),
    }
    kind = rng.choice(("queue", *values))
    return f"{kind} {rng.choice(values[kind])}"


def _suppressed(rng: random.Random, plans: tuple[Plan, ...], calm_at: float) -> dict[str, float]:
    everybody = sorted({recipient for plan in plans for recipient in plan.message.recipients})
    return {name: rng.choice((-1.0, rng.uniform(0, calm_at))) for name in everybody if rng.random() < 0.3}


def _limits(rng: random.Random, relays: int) -> dict[str, RelayLimits]:
    """The same for all relays, or others for one of them."""
    limits = {"*": _limit(rng)}
    if relays > 1 and rng.random() < 0.5:
        limits[f"relay{rng.randint(1, relays)}"] = _limit(rng)
    return limits


def _limit(rng: random.Random) -> RelayLimits:
    return RelayLimits(
        connections=rng.choice((None, 1, 2)),
        per_second=rng.choice((None, 0.5, 5.0)),
        per_hour=rng.choice((None, None, 400.0)),
        new_connections_per_minute=rng.choice((None, 10.0, 60.0)),
    )


def _policy(rng: random.Random) -> RetryPolicy:
    uncertain: Literal["retry", "hold"] = rng.choice(("retry", "hold"))
    if rng.random() < 0.2:
        steps = [dt.timedelta(seconds=rng.choice((1, 5, 20))) for _ in range(rng.randint(1, 4))]
        # What no relay takes would go on for ever.
        return RetryPolicy(schedule=tuple(steps), timeout=dt.timedelta(minutes=6), uncertain=uncertain)
    return RetryPolicy(
        attempts=rng.choice((None, 3, 8)),
        wait_initial=dt.timedelta(seconds=rng.choice((1, 5))),
        wait_max=dt.timedelta(seconds=60),
        timeout=dt.timedelta(minutes=rng.choice((2, 6))),
        uncertain=uncertain,
    )
