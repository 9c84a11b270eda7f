"""One drain of one peer, in a process and an environment of its own; prints it as one line of JSON.

    python drain_peers.py NAME FOLDER PORT NUMBER

Each is used as its documentation says, filled beforehand, and timed until
the last message has left.  They are the fastest of those that need no server of
their own: of Redis' and PostgreSQL's queues none drains more than 2,600 a second on this class of machine.
"""

from __future__ import annotations

import json
import smtplib
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from peer_loops import content, django_with

_SENDER, _RECIPIENT = "billing@example.com", "ann@example.org"
_WORKERS: Final = 4


def post_office(folder: Path, port: int, number: int, *, batches: bool = False) -> Callable[[], None]:
    """As it comes, or in batches of 5,000 on four threads with a WAL: the best of its settings."""
    settings: dict[str, Any] = {"BATCH_SIZE": 5_000, "THREADS_PER_PROCESS": _WORKERS} if batches else {}
    django_with(
        folder,
        "post_office",
        wal=batches,
        EMAIL_BACKEND="post_office.EmailBackend",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=port,
        POST_OFFICE=settings,
    )
    from post_office import mail
    from post_office.models import STATUS, Email

    said = {
        "recipients": _RECIPIENT,
        "sender": _SENDER,
        "subject": "Your invoice",
        "message": content().decode(),
    }
    for start in range(0, number, 1000):
        mail.send_many([said] * min(1000, number - start))

    def drain() -> None:
        # What its command send_queued_mail does, once a batch.
        while mail.send_queued(processes=1)[0]:
            pass
        if Email.objects.filter(status=STATUS.sent).count() != number:
            raise RuntimeError("not all was sent")

    return drain


def post_office_batches(folder: Path, port: int, number: int) -> Callable[[], None]:
    return post_office(folder, port, number, batches=True)


def huey(folder: Path, port: int, number: int) -> Callable[[], None]:
    """Four threads, each with a connection that stays open; it forgets a task when it hands it out."""
    from huey import SqliteHuey

    queue = SqliteHuey(filename=str(folder / "huey.db"), fsync=True, results=False)
    own, done, over = threading.local(), [0], threading.Event()

    def send(mail: bytes) -> None:
        if not hasattr(own, "connection"):
            own.connection = smtplib.SMTP("127.0.0.1", port)
        own.connection.sendmail(_SENDER, [_RECIPIENT], mail)
        with lock:
            done[0] += 1
            if done[0] == number:
                over.set()

    lock = threading.Lock()
    task = queue.task()(send)
    for _ in range(number):
        task(content())

    def drain() -> None:
        consumer = queue.create_consumer(workers=_WORKERS, periodic=False, initial_delay=0.001)
        consumer.start()
        if not over.wait(600):
            raise RuntimeError("not all was sent")
        consumer.stop(graceful=False)

    return drain


PEERS: Final[dict[str, Callable[[Path, int, int], Callable[[], None]]]] = {
    "django-post_office": post_office,
    "django-post_office batches": post_office_batches,
    "huey": huey,
}


def run(name: str, folder: Path, port: int, number: int) -> dict[str, Any]:
    drain = PEERS[name](folder, port, number)
    start, cpu = time.perf_counter(), time.process_time()
    drain()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    found = version(name.partition(" ")[0])
    return {"messages": number, "seconds": seconds, "cpu": cpu, "peak": 0, "version": found}


if __name__ == "__main__":
    _, name, folder, port, number = sys.argv
    print(json.dumps(run(name, Path(folder), int(port), int(number))), flush=True)
