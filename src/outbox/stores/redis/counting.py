"""How many messages there are: all of them, some thousand at a time; or at a glance, a bounded number however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import attrs

from outbox.lifecycle import State
from outbox.protocols import Glance, QueueCount
from outbox.stores.instants import moment

from .caller import Caller
from .scripts import COUNT, GLANCE

__all__ = ["count", "glance", "queues"]

_COUNTED: Final = 4000
_SETTLED: Final = tuple(state for state in State if state not in (State.QUEUED, State.CLAIMED))
_QUEUE: Final = b"queue:"

_Key: TypeAlias = tuple[str, State]


def count(caller: Caller) -> list[QueueCount]:
    """See :meth:`outbox.protocols.SupportsBrowse.count`; several thousand at a time, so exact while nothing moves."""
    groups: dict[_Key, _Group] = {}
    after: str | None = ""
    while after is not None:
        _, last, told = caller.run(COUNT, {"after": after, "many": _COUNTED})
        for key, group in _groups(told):
            groups[key] = group.joined(groups.get(key))
        after = last.decode() or None
    return [groups[key].told(*key) for key in sorted(groups)]


def glance(caller: Caller, most: int) -> Glance:
    """See :meth:`outbox.protocols.SupportsGlance.glance`; what is ready is counted in any case."""
    groups: dict[_Key, _Group] = {}
    for queue in queues(caller):
        _, (ready, *others) = caller.run(GLANCE, {"most": most, "states": []}, queues=[queue])
        for place, told in enumerate((ready, *others)):
            for key, group in _seen(told, most, all_queued=place == 0):
                groups[key] = group.joined(groups.get(key))
    for state in _SETTLED:
        _, (told,) = caller.run(GLANCE, {"most": most, "states": [state.value]})
        for key, group in _seen(told, most, all_queued=False):
            groups[key] = group.joined(groups.get(key))
    number = caller.ask("ZCARD", caller.key("ids"))
    return Glance(counts=[groups[key].told(*key) for key in sorted(groups)], at_most=number)


def queues(caller: Caller) -> list[str]:
    """Those that something was put in, ever."""
    names = caller.ask("HKEYS", caller.key("meta"))
    return sorted(name.removeprefix(_QUEUE).decode() for name in names if name.startswith(_QUEUE))


def _groups(told: Sequence[Any]) -> Iterator[tuple[_Key, _Group]]:
    for name, *counted in told:
        queue, _, state = name.decode().partition("\t")
        yield (queue, State(state)), _Group.of(*counted)


def _seen(told: Sequence[Any], most: int, *, all_queued: bool) -> Iterator[tuple[_Key, _Group]]:
    """What was seen of one place, the first *most* of *number*."""
    number, first_due, groups = told
    more = number > most
    for (queue, state), group in _groups(groups):
        found = attrs.evolve(group, more=more)
        if more and all_queued and state is State.QUEUED:
            found = attrs.evolve(found, number=number, due=number if group.due else 0)
        if first_due and group.due:
            found = attrs.evolve(found, first_due=int(first_due))
        yield (queue, state), found


@attrs.frozen
class _Group:
    """The messages of a queue in a state."""

    number: int
    due: int
    first: int
    first_due: int | None
    more: bool = False

    @classmethod
    def of(cls, number: int, due: int, first: bytes, first_due: bytes) -> _Group:
        return cls(number, due, int(first), int(first_due) if first_due else None)

    def joined(self, other: _Group | None) -> _Group:
        if other is None:
            return self
        dues = [at for at in (self.first_due, other.first_due) if at is not None]
        return _Group(
            self.number + other.number,
            self.due + other.due,
            min(self.first, other.first),
            min(dues, default=None),
            self.more or other.more,
        )

    def told(self, queue: str, state: State) -> QueueCount:
        return QueueCount(
            queue=queue,
            state=state,
            number=self.number,
            due=self.due,
            oldest_at=None if self.more else moment(self.first),
            oldest_due_at=None if self.first_due is None else moment(self.first_due),
            more=self.more,
        )
