"""From a host's name to a connected socket within a deadline, and from a failure on the way to words."""

from __future__ import annotations

import ipaddress
import socket
import ssl

from outbox.clock import Clock
from outbox.values import printable

__all__ = ["Deadline", "dial", "is_loopback", "literal", "words"]


class Deadline:
    """A moment of the monotonic clock that every wait on the way to it is measured by."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.seconds = seconds
        self._clock = clock
        self._end = clock.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then.

        Raises:
            TimeoutError: it has passed.
        """
        left = self._end - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def dial(host: str, port: int, source: str | None, deadline: Deadline) -> socket.socket:
    """Connect to the first address of *host* that answers; each gets its share of the time that is left.

    Looking the name up is the system's affair and not bounded by *deadline*.

    Raises:
        OSError: none could be reached; the last address' error.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, address) in enumerate(addresses, start=1):
        share = deadline.left() / (len(addresses) - number + 1)
        try:
            return _connect(socket.socket(family, kind, protocol), address, source, share)
        except OSError:
            if number == len(addresses):
                raise
    raise OSError("the host name has no address")


def _connect(made: socket.socket, address: object, source: str | None, seconds: float) -> socket.socket:
    try:
        # Commands are small and each waits for its answer: nothing is gained by holding one back.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.settimeout(seconds)
        if source is not None:
            made.bind((source, 0))
        made.connect(address)  # type: ignore[arg-type]  # getaddrinfo's own answer, whatever the family's form
    except BaseException:
        made.close()
        raise
    return made


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(text.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found


def is_loopback(connected: socket.socket) -> bool:
    """Is the other end on this machine?"""
    return _address(connected.getpeername()[0]).is_loopback


def literal(connected: socket.socket) -> str:
    """Our own address as EHLO takes it where we have no name (RFC 5321 section 4.1.3)."""
    address = _address(connected.getsockname()[0])
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"  # noqa: PLR2004 - IPv4


def words(error: OSError) -> str:
    """What happened, without the number."""
    if isinstance(error, socket.gaierror):
        return f"its host name cannot be looked up ({error.strerror}): is it spelled right?"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return printable(reason or str(error) or type(error).__name__)
