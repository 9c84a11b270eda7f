"""moto's server of SQS and S3 in a process of its own, on a port of its own, until its standard input ends.

What it does is moto's, but for three things.  Each request is served alone,
for moto has no lock where it needs one.  A request that says what time it is
is served at that time, so that a test need not wait for a lease to run out.
And a moment at which something ends is no longer part of it: moto has it
begin a moment later, and of that SQS says nothing.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import moto.sqs.models as sqs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

HEADER = "X-Outbox-Now"
"""Microseconds since 1970."""

_ONE = threading.Lock()
_HERE = threading.local()


def now() -> float:
    """Seconds since 1970, as the request has it."""
    told: float | None = getattr(_HERE, "told", None)
    return time.time() if told is None else told


def waits(queue: Any, timeout: int) -> None:
    """Let others be served while a long poll waits; its time goes on, whatever it was told."""
    _ONE.release()
    try:
        time.sleep(0.02)
    finally:
        _ONE.acquire()
    if getattr(_HERE, "told", None) is not None:
        _HERE.told = _HERE.began + time.monotonic() - _HERE.at


def begun(told: str | None) -> None:
    _HERE.told = _HERE.began = None if told is None else int(told) / 1e6
    _HERE.at = time.monotonic()


class Alone:
    """One request at a time."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with _ONE:
            begun(environ.get("HTTP_" + HEADER.upper().replace("-", "_")))
            return list(self.app(environ, start_response))


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *args: Any, **more: Any) -> None:
        pass


def main() -> None:
    for owner, name, ours in (
        (sqs, "unix_time", now),
        (sqs, "unix_time_millis", lambda: now() * 1000),
        (sqs.Message, "visible", property(lambda message: now() * 1000 >= message.visible_at)),
        (sqs.Queue, "wait_for_messages", waits),
    ):
        setattr(owner, name, ours)
    app = Alone(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
