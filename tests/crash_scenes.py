"""What the scenes of the crash tests are made of, and those that every store plays."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, Final

from crashing import Bench, Scene, Step

from outbox.errors import StoreUnavailable
from outbox.lifecycle import Claim, Settlement, Verdict
from outbox.protocols import Change, Suspension
from outbox.testing.clauses.scene import (
    LEASE,
    VERDICTS,
    dead,
    delivered,
    expired,
    held,
    mail,
    put,
    released,
    retry,
    take,
)

__all__ = [
    "CAPABLE",
    "DAY",
    "HAND_OVER",
    "LARGE",
    "PRUNE",
    "SCENES",
    "SETTLED",
    "SIX",
    "claiming",
    "exchanging",
    "in_turn",
    "putting",
    "settling",
]

DAY: Final = dt.timedelta(days=1)
LARGE: Final = b"Subject: large\r\n\r\n" + b"x" * 76 * 400 + b"\r\n"


def putting(*names: str, **fields: Any) -> Step:
    return lambda bench: put(bench.store, *(mail(name, **fields) for name in names))


def later(bench: Bench) -> None:
    """A message that is due when the child looks."""
    put(bench.store, mail("d", not_before=bench.clock.now() + dt.timedelta(seconds=30)))


def claiming(limit: int) -> Step:
    def claim(bench: Bench) -> None:
        bench.claims += take(bench.store, limit)

    return claim


def settling(verdict: Callable[[Claim], Verdict], *places: int) -> Step:
    return lambda bench: bench.store.settle(
        [Settlement(bench.claims[p], verdict(bench.claims[p])) for p in places]
    )


def exchanging(bench: Bench) -> None:
    settlements = [Settlement(claim, delivered(claim)) for claim in bench.claims]
    bench.store.exchange(settlements, limit=2, lease=LEASE, queues=["mail"])


def in_turn(*steps: Step) -> Step:
    def all_of_them(bench: Bench) -> None:
        for step in steps:
            step(bench)

    return all_of_them


def commanding(command: Callable[[Bench], Sequence[Change]]) -> Step:
    """A person's word; where an answer says that the disk failed it is one that raises."""

    def act(bench: Bench) -> None:
        for change in command(bench):
            if change.status == "refused" and "cannot be read" in change.reason:
                raise StoreUnavailable(change.reason)

    return act


SIX: Final = in_turn(putting("a", "b", "c", "d", "e", "f"), claiming(6))
_FIVE: Final[Sequence[Callable[[Claim], Verdict]]] = (dead, held, expired, delivered, retry)
SETTLED: Final = in_turn(SIX, *(settling(verdict, place) for place, verdict in enumerate(_FIVE)))

SCENES: Final = (
    Scene(name="put one", steps=[putting("a")], strict=True),
    Scene(name="put three", steps=[putting("a", "b", "c")], strict=True),
    Scene(name="put something large", steps=[putting("a", content=LARGE)], strict=True),
    Scene(name="put known and new", prepare=putting("a"), steps=[putting("a", "b")], strict=True),
    Scene(
        name="claim",
        prepare=in_turn(putting("a", "b", "c"), later),
        steps=[claiming(2), claiming(5)],
        # What was scheduled and cannot be moved on is passed by, until another claim.
        instead=[claiming(2), claiming(1)],
    ),
    Scene(
        name="claim what a dead one had",
        prepare=in_turn(putting("a", "b"), claiming(2)),
        later=2 * LEASE,
        steps=[claiming(2), claiming(2)],
    ),
    Scene(name="claim at most once", prepare=putting("a", "b", at_most_once=True), steps=[claiming(2)]),
    Scene(
        name="settle each verdict",
        prepare=SIX,
        steps=[settling(v, n) for n, v in enumerate((*VERDICTS.values(), retry, released))],
    ),
    Scene(name="settle several", prepare=SIX, steps=[settling(delivered, 0, 1, 2), settling(dead, 3, 4, 5)]),
    Scene(
        name="extend",
        prepare=SIX,
        steps=[lambda bench: bench.store.extend(bench.claims, lease=DAY)],
    ),
    Scene(
        name="steer",
        prepare=SETTLED,
        steps=[
            commanding(lambda bench: bench.store.requeue(["a", "b"], uncertain=True)),
            commanding(lambda bench: bench.store.cancel(["a", "e"])),
        ],
    ),
    Scene(name="open a new one", warm=False, steps=[lambda bench: bench.store]),
    Scene(
        name="open what a crash has left",
        prepare=in_turn(putting("a", "b"), claiming(1)),
        crashed=True,
        warm=False,
        steps=[lambda bench: bench.store, putting("c")],
    ),
)
"""What every kind of store plays."""

HAND_OVER: Final = Scene(
    name="put under a lease",
    steps=[lambda bench: bench.store.put_claimed([mail("a"), mail("b")], lease=LEASE)],
    strict=True,
)
PRUNE: Final = Scene(
    name="prune",
    prepare=SETTLED,
    later=30 * DAY,
    settings={"remember": DAY, "discard_after": DAY},
    steps=[lambda bench: bench.store.prune(limit=2), lambda bench: bench.store.prune()],
)
CAPABLE: Final = (
    Scene(
        name="purge", prepare=SETTLED, steps=[commanding(lambda bench: bench.store.purge(["a", "b", "c"]))]
    ),
    Scene(
        name="settle and keep without content",
        prepare=SIX,
        settings={"keep_delivered": DAY, "keep_content": False},
        steps=[settling(delivered, 0, 1)],
    ),
    Scene(
        name="suspend",
        prepare=putting("a"),
        steps=[
            lambda bench: bench.store.suspend(Suspension(kind="queue", value="mail", reason="a test")),
            lambda bench: bench.store.unsuspend("queue", "mail"),
        ],
    ),
    Scene(
        name="hold",
        prepare=putting("a", "b"),
        steps=[
            commanding(lambda bench: bench.store.hold(["a", "b"], reason="a test")),
            commanding(lambda bench: bench.store.release(["a"])),
        ],
    ),
    Scene(name="close", prepare=putting("a"), steps=[putting("b"), Bench.close]),
)
"""What only a store with more than the verbs plays."""
