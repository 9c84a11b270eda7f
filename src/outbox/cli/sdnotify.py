"""Tell systemd that we are ready, reload, stop, live: the datagrams of ``sd_notify(3)``."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping
from typing import Protocol

from outbox.clock import Clock, SystemClock

__all__ = ["Superior", "Systemd"]


class Superior(Protocol):
    """Who wants to know how we are: systemd, or the supervisor of a process."""

    @property
    def beat(self) -> float | None:
        """How often he wants to hear :meth:`alive`, in seconds; None is never."""
        ...

    def ready(self, words: str) -> None: ...
    def reloading(self) -> None: ...
    def stopping(self) -> None: ...
    def alive(self) -> None: ...


class Systemd:
    """The one who started us, if it is systemd and asked to be told; otherwise all of this does nothing.

    His variables are taken out of *environ*, so that no process of ours tells
    him anything in our name.
    """

    def __init__(
        self, environ: MutableMapping[str, str] | None = None, *, clock: Clock | None = None
    ) -> None:
        environ = os.environ if environ is None else environ
        self._clock = clock or SystemClock()
        self._address = _address(environ.pop("NOTIFY_SOCKET", ""))
        interval, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        meant = self._address is not None and pid in {"", str(os.getpid())}
        self.watchdog = int(interval) / 1e6 if meant and interval.isdecimal() and int(interval) else None

    @property
    def beat(self) -> float | None:
        return self.watchdog and self.watchdog / 2

    def ready(self, words: str) -> None:
        self._tell("READY=1", f"STATUS={words}")

    def reloading(self) -> None:
        # systemd tells this reload from one before by the time.
        self._tell("RELOADING=1", f"MONOTONIC_USEC={int(self._clock.monotonic() * 1e6)}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=Finishing what is under way")

    def alive(self) -> None:
        if self.beat is not None:
            self._tell("WATCHDOG=1")

    def _tell(self, *assignments: str) -> None:
        if self._address is None:
            return
        # Never waited for, and an unheard word changes nothing: mail goes out all the same.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.setblocking(False)
            speaker.sendto("\n".join(assignments).encode(), self._address)


def _address(name: str) -> str | None:
    if not hasattr(socket, "AF_UNIX") or name[:1] not in {"@", "/"}:
        return None
    return f"\0{name[1:]}" if name.startswith("@") else name
