"""From a host's name to a connected socket within a deadline, and from a failure on the way to words."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Callable
from typing import TypeAlias

from outbox.clock import Clock
from outbox.errors import ConfigurationError
from outbox.values import printable

__all__ = [
    "Connect",
    "Deadline",
    "NoSource",
    "dial",
    "dial_by",
    "dial_path",
    "ends_program",
    "is_loopback",
    "our_name",
    "without_zone",
    "words",
    "words_of_another",
]

Connect: TypeAlias = Callable[[tuple[str, int], float], socket.socket]
"""As :func:`socket.create_connection`: given ``(host, port)`` and seconds, it returns a connected socket."""


class NoSource(Exception):
    """The address to connect from cannot be had, towards any address of the host."""


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
        NoSource: none could be tried from *source*.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError | NoSource = OSError("the host name has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        share = deadline.left() / (len(addresses) - number)
        try:
            return _connect(socket.socket(family, kind, protocol), address, source, share)
        except NoSource as error:
            # An address of one family cannot be bound for the other: that says nothing where another was tried.
            failure = error if number == 0 else failure
        except OSError as error:
            failure = error
    raise failure


def dial_path(path: str, deadline: Deadline) -> socket.socket:
    """Connect to the Unix socket at *path*.

    Raises:
        OSError: nobody listens there.
    """
    return _connect(socket.socket(socket.AF_UNIX), path, None, deadline.left())


def dial_by(connect: Connect, host: str, port: int, deadline: Deadline) -> socket.socket:
    """What *connect* returns, made ready; how long that takes is its own affair, which is told the time there is.

    Raises:
        ConfigurationError: it returned no socket.
        Exception: whatever it raises.
    """
    connected = connect((host, port), deadline.left())
    if not isinstance(connected, socket.socket):
        raise ConfigurationError(f"connect returned {type(connected).__name__} and no socket")
    try:
        _hasten(connected)
    except BaseException:
        connected.close()
        raise
    return connected


def _hasten(made: socket.socket) -> None:
    # Commands are small and each waits for its answer: nothing is gained by holding one back.
    if made.family in (socket.AF_INET, socket.AF_INET6):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _connect(made: socket.socket, address: object, source: str | None, seconds: float) -> socket.socket:
    try:
        _hasten(made)
        made.settimeout(seconds)
        if source is not None:
            _bind(made, source)
        made.connect(address)  # type: ignore[arg-type]  # getaddrinfo's own answer, whatever the family's form
    except BaseException:
        made.close()
        raise
    return made


def _bind(made: socket.socket, source: str) -> None:
    try:
        made.bind((source, 0))
    except OSError as error:
        raise NoSource(error.strerror or type(error).__name__) from error


def without_zone(host: str) -> str:
    """``fe80::1%eth0`` as everybody but this machine knows it."""
    return host.partition("%")[0] if ":" in host else host


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(without_zone(text))
    return getattr(found, "ipv4_mapped", None) or found


def is_loopback(connected: socket.socket) -> bool:
    """Is the other end on this machine?"""
    return _address(connected.getpeername()[0]).is_loopback


def our_name(connected: socket.socket) -> str:
    """Our own address as EHLO takes it where we have no name (RFC 5321 section 4.1.3)."""
    name = connected.getsockname()
    if not isinstance(name, tuple):
        # A Unix socket has a path, if anything, and leads to this machine.
        return "localhost"
    address = _address(name[0])
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"  # noqa: PLR2004 - IPv4


def words(error: OSError) -> str:
    """What happened, without the number."""
    if isinstance(error, socket.gaierror):
        return f"its host name cannot be looked up ({error.strerror}): is it spelled right?"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return printable(reason or str(error) or type(error).__name__)


def words_of_another(error: BaseException) -> str:
    """The same of what a caller's own function raised, whose own text may quote a password."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    said = f"connect raised {type(error).__name__}"
    if isinstance(error, socket.gaierror):
        return f"{said}: a host name cannot be looked up"
    number = getattr(error, "errno", None) or 0
    # The numbers of OpenSSL are others.
    if isinstance(error, ssl.SSLError) or number not in errno.errorcode:
        return said
    system = os.strerror(number)
    return system if type(error).__module__ == "builtins" else f"{said}: {system}"


def ends_program(error: BaseException) -> bool:
    """Is this the main thread's own end, as a signal may ask for it there, and no failure of what was called?"""
    return isinstance(error, SystemExit) and threading.current_thread() is threading.main_thread()
