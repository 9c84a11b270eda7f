"""A program whose transactions end in every way there is, and that is killed in some of them.

``python within_run.py DATABASE SEED NUMBER``: so many transactions by each library, each of which takes an order and
submits its mail.  What became of them nobody is told but the database: the orders that are there were committed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Final, NoReturn

from shops import SHOPS, Database, Deal, Shop, found

from outbox import Message, Outbox

__all__ = ["ENDS", "KINDS", "id_of"]

KINDS: Final = ("driver", "session", "connection", "django")
"""The libraries, in turn."""

ENDS: Final = {
    "commit": 48,
    "rollback": 16,
    "commit fails": 12,
    "savepoint undone": 10,
    "savepoint kept": 10,
    "killed before the commit": 2,
    "killed about the commit": 2,
}
"""How a transaction ends, and how often of a hundred."""

PART: Final = 10_000_000
"""What is added to the number of an order for what was done within a savepoint of its transaction."""
_ABOUT_A_COMMIT: Final = 0.004


class Regret(Exception):
    """The program's own."""


def id_of(number: int) -> str:
    """The id of the mail of an order."""
    return f"order-{number}"


def mail(number: int) -> Message:
    return Message(id=id_of(number), recipients=("ann@example.com",), content=b"It is on its way.\r\n")


def end_of(seed: int, number: int) -> str:
    """Each once by each library, and then whatever comes."""
    turn = number // len(KINDS)
    if turn < len(ENDS):
        return list(ENDS)[turn]
    return random.Random(f"{seed} {number}").choices(list(ENDS), list(ENDS.values()))[0]


def play(shop: Shop, outbox: Outbox, number: int, end: str) -> None:
    """One transaction; returns where it was neither killed nor about to be."""
    try:
        with shop.transaction() as deal:
            take(deal, outbox, number, "nothing we sell" if end == "commit fails" else "teapot")
            go_on(deal, outbox, number, end)
    except Regret:
        pass
    except Exception as error:
        # Every library has its own; each tells what the database said.
        if end != "commit fails" or "foreign key" not in str(error).lower():
            raise
    if end == "killed about the commit":
        while True:
            signal.pause()


def take(deal: Deal, outbox: Outbox, number: int, item: str = "teapot") -> None:
    deal.order(number, item)
    outbox.within(deal.connection).submit(mail(number))


def go_on(deal: Deal, outbox: Outbox, number: int, end: str) -> None:
    if end == "rollback":
        raise Regret
    if end.startswith("savepoint"):
        part(deal, outbox, number, kept=end == "savepoint kept")
    if end == "killed before the commit":
        kill()
    if end == "killed about the commit":
        threading.Timer(random.uniform(0, _ABOUT_A_COMMIT), kill).start()


def part(deal: Deal, outbox: Outbox, number: int, *, kept: bool) -> None:
    with contextlib.suppress(Regret), deal.savepoint():
        take(deal, outbox, PART + number)
        if not kept:
            raise Regret


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# -- its lives


def live(database: Database, seed: int, numbers: range, told: int) -> None:
    """Play these, and tell each before it is begun."""
    shops: dict[str, Shop] = {}
    with Outbox(database.store()) as outbox:
        for number in numbers:
            kind, end = KINDS[number % len(KINDS)], end_of(seed, number)
            os.write(told, f"{kind}: {end}\n".encode())
            shop = shops[kind] = shops.get(kind) or SHOPS[kind](database)
            play(shop, outbox, number, end)
        for shop in shops.values():
            shop.close()


def lives(database: Database, seed: int, number: int) -> Counter[str]:
    """Begin anew behind each kill, with the next transaction; how often each end was begun by each library."""
    done: Counter[str] = Counter()
    while (begun := done.total()) < number:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _live_and_go(functools.partial(live, database, seed, range(begun, number), writing))
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as told:
            ends = told.read().splitlines()
        _, status = os.waitpid(child, 0)
        done.update(ends)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not (killed and ends and ": killed" in ends[-1]) and status != 0:
            raise SystemExit(f"it ended with {status}, and nobody had killed it: the last was {ends[-1:]}")
    return done


def _live_and_go(life: Callable[[], None]) -> NoReturn:
    """In a fork: whatever happens, nothing of the parent's is done twice."""
    try:
        life()
    except BaseException:  # noqa: BLE001 - it is told, and nothing may pass this frame
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(where: str, seed: str, number: str) -> None:
    print(json.dumps(lives(found(where), int(seed), int(number) * len(KINDS))))


if __name__ == "__main__":
    main(*sys.argv[1:])
