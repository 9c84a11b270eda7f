"""What the incidents of docs/runbook.md begin with: mail, waiting for other processes, and scenes that take their time."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import trustme
from certificates import Authority
from command_line import MAIL
from runbook import System
from started import PATIENCE

from outbox import Message, SQLiteStore
from outbox.cli.runners import Runners
from outbox.lifecycle import State
from outbox.testing import SMTPSink

CONTENT: Final = MAIL.replace(b"\n", b"\r\n")
LOCAL: Final = "127.0.0.1"
POISON: Final = "01a20062-8da9-7a66-9f1d-000000000bad"


def put(system: System, *recipients: str, **said: Any) -> None:
    """One message to each."""
    with closing(SQLiteStore(system.home / "outbox.db")) as store:
        store.put(
            [
                Message(recipients=(to,), sender="shop@example.org", content=CONTENT, **said)
                for to in recipients
            ]
        )


def until(system: System, enough: Callable[[SQLiteStore], bool]) -> None:
    """Wait until another process has written so: what it says of itself wakes nobody, for nobody waits for it."""
    pause = threading.Event()
    with closing(SQLiteStore(system.home / "outbox.db")) as store:
        for _ in range(int(PATIENCE / 0.05)):
            if enough(store):
                return
            pause.wait(0.05)
    raise AssertionError("it has not come about")


def a_relay_is_closed(store: SQLiteStore) -> bool:
    return any(relay.fault for each in Runners.of(store).alive for relay in each.said.relays)


def no_relay_is_closed(store: SQLiteStore) -> bool:
    return bool(Runners.of(store).alive) and not a_relay_is_closed(store)


def is_held(store: SQLiteStore) -> bool:
    return bool(store.browse(states=[State.HELD]))


class Scene(NamedTuple):
    """One of those that take their time to come about: all begin at once."""

    system: System
    authority: Authority
    sink: SMTPSink | None
    place: socket.socket


def begun(stack: ExitStack, home: Path) -> Mapping[str, Scene]:
    """Three relays that runners have to find out about, and a message that has to kill four times."""
    authority = Authority(trustme.CA())
    authority.ca.cert_pem.write_to_path(str(home / "ca.pem"))
    asked = f"ca_file={home / 'ca.pem'}"
    # Bound and not listened at: whoever connects is refused, and nobody else gets the port.
    place = stack.enter_context(closing(socket.socket()))
    place.bind((LOCAL, 0))
    port = place.getsockname()[1]
    guarded = stack.enter_context(SMTPSink(tls=authority.server(), users={"shop": "the new one"}))
    expired = stack.enter_context(SMTPSink(tls=authority.server(expired=True)))
    (home / "password").write_text("the old one", "utf-8")
    found = {
        "relay": (System(home / "relay", transport=f"smtp://{LOCAL}:{port}"), None),
        "password": (
            System(
                home / "password-expired",
                transport=f"smtps://shop@{LOCAL}:{guarded.port}?{asked}",
                password_file=str(home / "password"),
            ),
            guarded,
        ),
        "certificate": (
            System(home / "certificate", transport=f"smtps://{LOCAL}:{expired.port}?{asked}"),
            expired,
        ),
        "poison": (
            System(
                home / "poison",
                transport=f"python:poisonous:transport?path={home / 'met'}&of={POISON}",
                lease="2s",
            ),
            None,
        ),
    }
    for name, (system, _) in found.items():
        stack.enter_context(system)
        put(system, "ann@example.net", "bob@example.org")
        if name == "poison":
            put(system, "eve@example.org", id=POISON)
        folder = Path(__file__).parent
        system.start(
            *(("--processes", "2") if name == "poison" else ()),
            env={"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])},
        )
    return {name: Scene(system, authority, sink, place) for name, (system, sink) in found.items()}
