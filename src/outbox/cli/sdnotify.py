"""Tell systemd that we are ready, reload, stop, live: the datagrams of ``sd_notify(3)``."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final, Protocol

from outbox.clock import Clock, SystemClock

__all__ = ["Superior", "Systemd"]

_AGAIN: Final = 1.0


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
        self._unsaid: tuple[str, ...] = ()
        self._address = _address(environ.pop("NOTIFY_SOCKET", ""))
        interval, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        meant = self._address is not None and pid in {"", str(os.getpid())}
        self.watchdog = int(interval) / 1e6 if meant and interval.isdecimal() and int(interval) else None

    @property
    def beat(self) -> float | None:
        beat = self.watchdog and self.watchdog / 2
        return min(beat or _AGAIN, _AGAIN) if self._unsaid else beat

    def ready(self, words: str) -> None:
        self._insist("READY=1", f"STATUS={words}")

    def reloading(self) -> None:
        # systemd tells this reload from one before by the time.
        self._insist("RELOADING=1", f"MONOTONIC_USEC={int(self._clock.monotonic() * 1e6)}")

    def stopping(self) -> None:
        self._insist("STOPPING=1", "STATUS=Finishing what is under way")

    def alive(self) -> None:
        if self._unsaid:
            self._insist(*self._unsaid)
        if self.watchdog is not None:
            self._tell("WATCHDOG=1")

    def _insist(self, *assignments: str) -> None:
        """What he must hear is said again with the next beat where he had too much to hear."""
        self._unsaid = () if self._tell(*assignments) else assignments

    def _tell(self, *assignments: str) -> bool:
        """False: he has no room for it now."""
        if self._address is None:
            return True
        # Never waited for, and an unheard word changes nothing: mail goes out all the same.
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
                speaker.setblocking(False)
                speaker.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            return not isinstance(error, BlockingIOError)
        return True


def _address(name: str) -> str | None:
    if not hasattr(socket, "AF_UNIX") or name[:1] not in {"@", "/"}:
        return None
    return f"\0{name[1:]}" if name.startswith("@") else name
