"""A runner in a process of its own: each hand-over is a line in its file, written before it is reported.

Its clock may be wrong: by so many seconds as its last argument says.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import sys
from collections.abc import Sequence

from outbox import Runner, clock
from outbox.message import Message
from outbox.outcome import Accepted, Outcome
from outbox.stores.postgres import PostgresStore


class Ledger:
    """A transport that takes everything, and writes down what."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        os.write(self._file, f"{message.id}\n".encode())
        return Outcome.same(recipients, Accepted("250 taken"))

    def close(self) -> None:
        os.close(self._file)


def main(dsn: str, schema: str, path: str, lease: str, wrong_by: str) -> None:
    right = clock.SystemClock.now
    off = dt.timedelta(seconds=float(wrong_by))
    clock.SystemClock.now = lambda self: right(self) + off  # type: ignore[method-assign]  # a host whose clock is wrong
    store = PostgresStore(dsn, schema=schema, keep_delivered=dt.timedelta(days=1))
    runner = Runner(store, Ledger(path), lease=dt.timedelta(seconds=float(lease)))
    signal.signal(signal.SIGTERM, lambda *_: runner.stop())
    print("ready", flush=True)
    runner.run_forever()
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
