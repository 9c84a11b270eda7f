"""A runner process over a store in SQS, which tests kill and stop.

Into a ledger it writes what has come, and when it had asked SQS for that; what
of it is delivered; and what is settled, when it was told so, and of which
asking.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from sqs_server import open_sqs

from outbox import FunctionTransport, Message, RetryPolicy, Runner
from outbox.events import Notice, Settled
from outbox.lifecycle import Delivered
from outbox.stores.sqs.post import Received
from outbox.stores.sqs.tokens import Token

__all__ = ["LEASE"]

LEASE = dt.timedelta(seconds=6)


def main(path: str, ledger: str) -> None:
    file = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    asked: dict[str, int] = {}
    asked_by: dict[str, int] = {}

    def note(what: str, id: str, *at: int) -> None:
        os.write(file, " ".join((what, id, *map(str, at), "\n")).encode())

    def deliver(message: Message, _: str) -> None:
        time.sleep(0.002)
        note("delivered", message.id, asked[message.id])

    def listen(notice: Notice) -> None:
        # What was claimed and not begun is given back: that ends nothing.
        if isinstance(notice, Settled) and isinstance(notice.verdict, Delivered):
            token = Token.read(notice.claim.token)
            assert token is not None
            note("settled", notice.claim.message.id, time.monotonic_ns(), asked_by[token.handle])

    store = open_sqs(None, Path(path))
    receive = store._post.receive

    def receiving(*told: Any, **more: Any) -> list[Received]:
        # Before the request: what is settled by then must not come of it.
        at = time.monotonic_ns()
        letters = receive(*told, **more)
        for letter in letters:
            id = json.loads(letter.text)["id"]
            asked[id] = asked_by[letter.handle] = at
            note("come", id, at)
        return letters

    store._post.receive = receiving  # type: ignore[method-assign]  # that is the point
    retry = RetryPolicy(wait_initial=dt.timedelta(seconds=1), timeout=dt.timedelta(days=1))
    runner = Runner(
        store, FunctionTransport(deliver), workers=2, lease=LEASE, retry=retry, listeners=[listen]
    )
    signal.signal(signal.SIGTERM, lambda *_: runner.stop())
    runner.run_forever()
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
