"""Who is at work on a store, by what runners say of themselves in it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

import attrs

from outbox.bulletin import Bulletin, RelayBulletin, read
from outbox.locate import spell
from outbox.protocols import Store, SupportsPresence
from outbox.values import printable

from .columns import Tone, Toned
from .processes import Standing, standing

__all__ = [
    "Ailing",
    "Runner",
    "Runners",
    "ailing",
    "all_rates",
    "data",
    "lines",
    "rate",
    "relay_lines",
    "relay_name",
    "relay_phrase",
]

_SHOWN: Final = 3
_ZERO: Final = dt.timedelta(0)
_DONE: Final = ("delivered", "retried", "released", "dead", "held", "expired", "lost")


_SILENCE: Final = {
    Standing.UNKNOWN: "killed, stopped or hanging",
    Standing.RUNNING: "its process is there and hangs: kill -9 {pid} ends it",
    Standing.STOPPED: "STOPPED by a signal: kill -CONT {pid} lets it go on",
    Standing.HANGING: "it hangs within the kernel, mostly for a disk or a network drive",
    Standing.GONE: "GONE: it was killed or crashed",
}


@attrs.frozen(kw_only=True)
class Runner:
    """What one of them said, how long ago, and whether it still holds.

    *standing* is what the system knows of its process.  One that is stopped or
    gone is not alive, however short ago it spoke.
    """

    name: str
    said: Bulletin
    age: dt.timedelta
    alive: bool
    standing: Standing = Standing.UNKNOWN

    @property
    def who(self) -> str:
        return f"pid {self.said.pid} on {printable(self.said.host)}"

    @property
    def silence(self) -> str:
        """Why it says nothing any more, as far as that is known."""
        return _SILENCE[self.standing].format(pid=self.said.pid)

    def opens_in(self, relay: RelayBulletin) -> dt.timedelta:
        """Until a relay is tried again, from now."""
        return max(_ZERO, dt.timedelta(seconds=relay.opens_in) - self.age)


@attrs.frozen
class Runners:
    """All that are known; *told* is whether the store keeps what they say at all."""

    every: Sequence[Runner] = ()
    told: bool = False

    @classmethod
    def of(cls, store: Store) -> Runners:
        if not isinstance(store, SupportsPresence):
            return cls()
        found = []
        for each in store.announced():
            said = read(each.text)
            if said is not None:
                how = standing(said, each.age)
                alive = each.left > _ZERO and how not in (Standing.STOPPED, Standing.GONE)
                found.append(Runner(name=each.name, said=said, age=each.age, alive=alive, standing=how))
        return cls(sorted(found, key=lambda each: (not each.alive, each.age)), told=True)

    @property
    def alive(self) -> list[Runner]:
        return [each for each in self.every if each.alive]

    @property
    def silent(self) -> list[Runner]:
        """Those that were killed, are stopped or hang: they said no farewell."""
        return [each for each in self.every if not each.alive]

    @property
    def served(self) -> Collection[str]:
        return {queue for each in self.alive for queue in each.said.queues}

    def serving(self, queue: str) -> list[Runner]:
        return [each for each in self.alive if queue in each.said.queues]


def data(runners: Runners) -> list[dict[str, Any]]:
    """For a program."""
    return [_data(each) for each in runners.every]


def _data(runner: Runner) -> dict[str, Any]:
    said = attrs.asdict(runner.said) | {"done": dict(runner.said.done)}
    for relay, each in zip(said["relays"], runner.said.relays, strict=True):
        relay["opens_in"] = runner.opens_in(each).total_seconds()
    return {
        "name": runner.name,
        "alive": runner.alive,
        "heard_ago": runner.age.total_seconds(),
        "process": runner.standing.value,
    } | said


def lines(runners: Runners, most: int = 200) -> Iterator[str]:
    """One each that is alive, with what it does below it; of the silent the latest."""
    for each in runners.alive[:most]:
        said = each.said
        workers = f"{said.workers} {'worker' if said.workers == 1 else 'workers'}"
        up = spell(dt.timedelta(seconds=max(1, int(said.up))) + each.age, units=1)
        yield f"  {each.who}: {', '.join(said.queues)}; {workers}, {said.in_hand:,} in hand; up {up}"
        yield f"    {_rates(said)}"
    if len(runners.alive) > most:
        yield f"  and {len(runners.alive) - most} more"
    for each in runners.silent[:_SHOWN]:
        silent = f"SILENT for {spell(each.age)}; it served {', '.join(each.said.queues)}"
        yield Toned(f"  {each.who}: {silent}", "bad")
        yield f"    {each.silence}"
    if len(runners.silent) > _SHOWN:
        yield f"  and {len(runners.silent) - _SHOWN} more that fell silent within a day"


def _rates(said: Bulletin) -> str:
    if said.window < 1:
        return "just begun"
    done = [f"{rate(said.done[word] / said.window)} {word}" for word in _DONE if said.done.get(word)]
    return f"{', '.join(done) or 'nothing done'} in the last {spell(dt.timedelta(seconds=int(said.window)))}"


def all_rates(runners: Runners) -> str:
    """What those that are alive do together; ``""`` where nothing is done."""
    done: dict[str, float] = {}
    for each in runners.alive:
        for word, number in each.said.done.items():
            done[word] = done.get(word, 0.0) + number / max(1.0, each.said.window)
    return ", ".join(f"{rate(done[word])} {word}" for word in _DONE if done.get(word))


def rate(a_second: float) -> str:
    """So many in the time in which that is a number a person can compare."""
    if a_second >= 1:
        return f"{a_second:,.1f}/s"
    return f"{a_second * 60:.1f}/min" if a_second * 60 >= 1 else f"{a_second * 3600:.0f}/h"


@attrs.frozen
class Ailing:
    """A relay that some runners find not well in one way: *phrase* is of *runner*, which tries it the soonest."""

    relay: RelayBulletin
    runner: Runner
    phrase: str
    number: int = 1

    @property
    def name(self) -> str:
        return relay_name(self.relay)

    @property
    def says(self) -> str:
        return f"says {self.runner.who}" if self.number == 1 else f"say {self.number} runners"


def ailing(every: Iterable[Runner]) -> Iterator[Ailing]:
    """What *every* one of them finds of relays that are not well, or at a limit: once each, however many say it."""
    found: dict[tuple[str, str, str, bool], Ailing] = {}
    for runner in every:
        for relay in runner.said.relays:
            phrase = relay_phrase(runner, relay)
            if not phrase:
                continue
            key = (relay.name, relay.state, relay.fault, relay.misconfigured)
            had, new = found.get(key), Ailing(relay, runner, phrase)
            first = new if had is None or _opens(new) < _opens(had) else had
            found[key] = attrs.evolve(first, number=1 if had is None else had.number + 1)
    yield from found.values()


def _opens(each: Ailing) -> dt.timedelta:
    return each.runner.opens_in(each.relay)


def relay_lines(runners: Runners) -> Iterator[str]:
    """Those that any runner alive finds not well, or has reached a limit of."""
    several = len(runners.alive) > 1
    for each in ailing(runners.alive):
        by = f" ({each.says})" if several else ""
        tone: Tone = "bad" if each.relay.misconfigured else "stopped" if each.relay.state == "paused" else ""
        yield Toned(f"  {each.name} {each.phrase}{by}", tone)


def relay_phrase(runner: Runner, relay: RelayBulletin) -> str:
    """What keeps mail from this relay, to be read behind its name; nothing where it is well."""
    left = runner.opens_in(relay)
    fault = printable(relay.fault).removeprefix(f"{printable(relay.name)}: ")
    why = f": {fault}" if fault else ""
    if relay.state == "paused" and left > _ZERO:
        who = "is MISCONFIGURED, and" if relay.misconfigured else "is paused, and"
        return f"{who} tried again in {spell(left)}{why}"
    if relay.state in ("paused", "probing"):
        return f"is being tried again, one message first{why}"
    limited = dt.timedelta(seconds=relay.limited_for) - runner.age
    if limited > _ZERO:
        whose = "[limits], shared by all who deliver from this store" if relay.shared else "[limits]"
        return f"is at its limit ({whose}): the next message in {spell(limited)}"
    return ""


def relay_name(relay: RelayBulletin) -> str:
    return printable(relay.name) or "the relay"
