"""What a store tells of itself at a glance, for `status` and `top`: how many stand where, what is stopped, who is at work.

Every question is bounded, however many messages there are.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import attrs

from outbox.lifecycle import State, Summary
from outbox.locate import Config
from outbox.protocols import Glance, QueueCount, Store, SupportsGlance, Suspension

from . import runners, withheld
from .capable import browsable
from .met import Met, met
from .runners import Runners
from .staged import Staged
from .unserved import unserved

__all__ = ["Sight", "data", "looked"]

_SAMPLE: Final = 100
_PATIENCE: Final = dt.timedelta(minutes=10)


@attrs.frozen(kw_only=True)
class Sight:
    """What the store told.

    Attributes:
        waiting: A sample of what is queued, the oldest.
    """

    counts: Sequence[QueueCount]
    at_most: int | None
    waiting: Sequence[Summary]
    suspensions: Sequence[Suspension]
    runners: Runners
    staged: Staged | None

    @property
    def met(self) -> list[Met]:
        """What the oldest that wait have met, the most frequent first."""
        return met(self.waiting)

    def served(self, config: Config) -> list[str]:
        """The queues that this configuration or any runner alive serves."""
        return sorted({*config.queues, *self.runners.served})

    def unserved(self, config: Config) -> list[QueueCount]:
        """What waits in queues that nobody serves, as far as is known here."""
        return unserved(self.counts, self.served(config))

    def forgotten(self, config: Config, now: dt.datetime) -> list[QueueCount]:
        """Where nobody alive serves and nobody comes by either: a drain of every minute would have."""
        if not self.runners.told:
            return []
        return [count for count in self.counts if count.queue in config.queues and self._late(count, now)]

    def _late(self, count: QueueCount, now: dt.datetime) -> bool:
        since = count.oldest_due_at
        late = count.due > 0 and since is not None and now - since >= _PATIENCE
        return late and not self.runners.serving(count.queue)


def looked(store: Store, *, exact: bool = False) -> Sight:
    """How a store stands now."""
    looked_at = browsable(store)
    if isinstance(store, SupportsGlance) and not exact:
        glance = store.glance()
    else:
        glance = Glance(counts=looked_at.count())
    return Sight(
        counts=glance.counts,
        at_most=glance.at_most,
        waiting=looked_at.browse(states=[State.QUEUED], limit=_SAMPLE),
        suspensions=withheld.in_force(store),
        runners=Runners.of(store),
        staged=Staged.of(store, glance.counts),
    )


def data(sight: Sight, config: Config) -> dict[str, Any]:
    """For a program."""
    alone = sight.unserved(config)
    return {
        "counts": [attrs.asdict(count) for count in sight.counts],
        "at_most": sight.at_most,
        "served": sight.served(config),
        "unserved": {count.queue: count.number for count in alone},
        "unserved_more": [count.queue for count in alone if count.more],
        "staged": None if sight.staged is None else sight.staged.data(),
        "waits": [attrs.asdict(each) for each in sight.met],
        "suspensions": [withheld.data(each) for each in sight.suspensions],
        "runners": runners.data(sight.runners) if sight.runners.told else None,
    }
