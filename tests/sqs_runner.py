"""A runner process over a store in SQS: writes what it delivers and what is settled into a ledger; tests kill and stop it."""

from __future__ import annotations

import datetime as dt
import os
import signal
import sys
import time
from pathlib import Path

from sqs_server import open_sqs

from outbox import FunctionTransport, Message, RetryPolicy, Runner
from outbox.events import Notice, Settled

__all__ = ["LEASE"]

LEASE = dt.timedelta(seconds=6)


def main(path: str, ledger: str) -> None:
    file = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(what: str, id: str) -> None:
        os.write(file, f"{what} {id} {os.getpid()}\n".encode())

    def deliver(message: Message, _: str) -> None:
        time.sleep(0.002)
        note("delivered", message.id)

    def listen(notice: Notice) -> None:
        if isinstance(notice, Settled):
            note("settled", notice.claim.message.id)

    store = open_sqs(None, Path(path))
    retry = RetryPolicy(wait_initial=dt.timedelta(seconds=1), timeout=dt.timedelta(days=1))
    runner = Runner(
        store, FunctionTransport(deliver), workers=2, lease=LEASE, retry=retry, listeners=[listen]
    )
    signal.signal(signal.SIGTERM, lambda *_: runner.stop())
    runner.run_forever()
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
