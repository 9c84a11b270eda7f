"""Where the tests of SQS find a server: one for all that this process and those that it starts ask of it."""

from __future__ import annotations

import atexit
import datetime as dt
import functools
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
from moto_server import HEADER

from outbox.clock import Clock
from outbox.stores.instants import micros
from outbox.stores.sqs import DirectoryBlobs, SQSStore

_VARIABLE = "OUTBOX_TEST_SQS_ENDPOINT"
"""Told to the processes that a test starts."""


def endpoint() -> str:
    """The server's URL; it is started when it is first asked for."""
    if _VARIABLE not in os.environ:
        # A test may have taken it from the environment.
        os.environ[_VARIABLE] = _Begun.url or _started()
    return os.environ[_VARIABLE]


class _Begun:
    """The server that this process has started."""

    server: subprocess.Popen[str] | None = None
    url = ""


def _started() -> str:
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("moto_server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    _Begun.server = server
    _Begun.url = f"http://127.0.0.1:{int(server.stdout.readline())}"
    atexit.register(end, os.getpid())
    return _Begun.url


def end(owner: int | None = None) -> None:
    """End the server, where this process has started one, and is not a fork of who did."""
    server = _Begun.server
    if server is None or owner not in (None, os.getpid()):
        return
    _Begun.server, _Begun.url = None, ""
    os.environ.pop(_VARIABLE, None)
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.close()
    server.wait(30)
    server.stdout.close()


class Told:
    """The clock by which the server goes for what this process asks; None is its own."""

    clock: Clock | None = None


@functools.cache
def session() -> Any:
    """One for all tests of this process, for to make one takes long; its requests tell what time it is."""
    made = boto3.Session(
        aws_access_key_id="testing", aws_secret_access_key="testing", region_name="eu-central-1"
    )
    for service in ("sqs", "s3"):
        made.events.register(f"before-sign.{service}.*", _tell)
    return made


def _tell(request: Any, **_: Any) -> None:
    if Told.clock is not None:
        request.headers[HEADER] = str(micros(Told.clock.now()))


def prefix_of(path: Path) -> str:
    """What the queues of the store in this directory are called; another is another store."""
    return f"t{hashlib.sha256(os.fsencode(path)).hexdigest()[:10]}-"


def open_sqs(clock: Clock | None, path: Path, **settings: Any) -> SQSStore:
    """The store that lives in the directory *path*: the same one, when it is called again."""
    Told.clock = clock
    chosen: dict[str, Any] = {
        "session": session(),
        "endpoint": endpoint(),
        "prefix": prefix_of(path),
        "blobs": DirectoryBlobs(path / "blobs"),
        "create": True,
        "clock": clock,
    }
    chosen["poll"] = dt.timedelta(seconds=1 if clock is None else 0)
    return SQSStore(**(chosen | settings))
