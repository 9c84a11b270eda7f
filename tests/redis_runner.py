"""A runner process over a Redis store: writes each delivery into a ledger, and is killed and stopped by the tests."""

from __future__ import annotations

import datetime as dt
import os
import signal
import sys
import time

from outbox import FunctionTransport, Message, RetryPolicy, Runner, StoreUnavailable
from outbox.clock import SystemClock
from outbox.stores.redis import RedisStore

__all__ = ["LEASE"]

LEASE = dt.timedelta(seconds=3)


class Wrong(SystemClock):
    """The clock of a machine that nobody has set."""

    __slots__ = ("_ahead",)

    def __init__(self, ahead: float) -> None:
        self._ahead = dt.timedelta(seconds=ahead)

    def now(self) -> dt.datetime:
        return super().now() + self._ahead


def opened(url: str, prefix: str) -> RedisStore:
    """The server may be away just now."""
    while True:
        try:
            return RedisStore(url, prefix=prefix, keep_delivered=dt.timedelta(days=1), keep_content=False)
        except StoreUnavailable as error:
            print(error, file=sys.stderr)
            time.sleep(0.1)


def main(url: str, prefix: str, ledger: str, ahead: float) -> None:
    file = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def deliver(message: Message, _: str) -> None:
        time.sleep(0.001)
        os.write(file, f"{message.id}\n".encode())

    store = opened(url, prefix)
    retry = RetryPolicy(wait_initial=dt.timedelta(milliseconds=100), timeout=dt.timedelta(days=1))
    runner = Runner(
        store, FunctionTransport(deliver), workers=2, lease=LEASE, retry=retry, clock=Wrong(ahead)
    )
    signal.signal(signal.SIGTERM, lambda *_: runner.stop())
    runner.run_forever()
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
