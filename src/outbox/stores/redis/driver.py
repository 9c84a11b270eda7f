"""redis-py, at one seam: what is sent once is sent once, and what went wrong is said in three words."""

from __future__ import annotations

import os
import re
import select
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import attrs

try:
    import redis
    from redis.connection import Connection, UnixDomainSocketConnection
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'RedisStore needs redis-py: pip install "durable-outbox[redis]"', name=error.name
    ) from error

from .place import Place
from .scripts import Script
from .tls import context_of, speaks_no_tls

__all__ = ["Cut", "Driver", "Packed", "Refused", "Unreachable"]

_CONNECT: Final = 10.0
_NO_TLS: Final = "see whether that is the server's port for TLS (tls-port); without TLS it is redis://"
_WITHIN: Final = re.compile(r"@user_script: ?\d+: -([A-Z]+) ")
_DENIED: Final = re.compile(r"ACL failure in script|The user executing the script can't ")
_BEFORE_A_SCRIPT: Final = frozenset(
    {
        *(
            "OOM",
            "READONLY",
            "NOREPLICAS",
            "MISCONF",
            "LOADING",
            "BUSY",
            "MASTERDOWN",
            "NOSCRIPT",
            "OUTBOXFORMAT",
        ),
        *("CLUSTERDOWN", "MOVED", "ASK", "TRYAGAIN", "CROSSSLOT", "NOAUTH", "WRONGPASS"),
    }
)
"""A script that has begun to write does not meet these."""


class Unreachable(Exception):
    """Nothing was sent: there is no connection, or it broke before the command was whole."""


class Cut(Exception):
    """The command was sent, and no answer came: the server may have done it."""


@attrs.frozen
class Refused(Exception):
    """The server's answer is an error; *code* is its first word, *sent* whether it had the command by then."""

    code: str
    text: str
    sent: bool = True

    @classmethod
    def saying(cls, text: str) -> Refused:
        # Redis before 7 tells what a command within a script met behind where it met it.
        if _DENIED.search(text):
            return cls("NOPERM", text)
        within = _WITHIN.search(text)
        return cls(within[1] if within else text.partition(" ")[0], text)

    @property
    def nothing_done(self) -> bool:
        """Whether it is sure that nothing was written, and not half of it."""
        denied_whole = self.code == "NOPERM" and "script" not in self.text
        return not self.sent or self.code in _BEFORE_A_SCRIPT or denied_whole

    def __str__(self) -> str:
        return self.text


@attrs.frozen
class Packed:
    """Keys, as the server is sent them: they are the same call after call."""

    number: int
    octets: bytes

    @classmethod
    def of(cls, keys: Sequence[str]) -> Packed:
        return cls(len(keys), _packed(keys))


class _TlsConnection(Connection):
    """A connection under a context that is made once: redis-py's own reads all authorities for each."""

    def __init__(self, *, context: ssl.SSLContext, **settings: Any) -> None:
        self._context = context
        super().__init__(**settings)  # type: ignore[no-untyped-call]  # redis-py says nothing of it

    def _connect(self) -> Any:
        line = super()._connect()  # type: ignore[no-untyped-call]  # redis-py says nothing of it
        longest = line.gettimeout()
        try:
            # What speaks no TLS waits for the end of a line, and says nothing.
            line.settimeout(min(_CONNECT, longest))
            secured = self._context.wrap_socket(line, server_hostname=self.host)
            secured.settimeout(longest)
        except OSError as error:
            line.close()
            if speaks_no_tls(error):
                raise redis.ConnectionError(f"no TLS came about ({error}): {_NO_TLS}") from error
            raise
        except BaseException:
            line.close()
            raise
        return secured


class Driver:
    """Connections, one for each call under way; a fork's child makes its own.

    Nothing is sent twice by itself: a claim that was would leave a lease to nobody.
    """

    def __init__(self, place: Place, *, timeout: float) -> None:
        kinds: dict[str, Callable[..., Any]] = {
            "redis": Connection,
            "rediss": _TlsConnection,
            "unix": UnixDomainSocketConnection,
        }
        self.timeout = timeout
        self._closed = False
        self._asks_first = b""
        # Adding and taking the last are one step each, and so need no lock.
        self._idle: list[Any] = []
        self._connect: Callable[[], Any] = partial(
            kinds[place.scheme],
            **_settings(place),
            db=place.db,
            username=place.user or None,
            password=place.password,
            socket_timeout=timeout,
            protocol=2,
        )

    def run(self, script: Script, keys: Packed, args: Sequence[str | bytes]) -> Any:
        """What *script* answers; it is sent whole where the server does not know it."""
        with self._connection() as connection:
            return self._run(connection, script, keys, args)

    def run_then(
        self, script: Script, keys: Packed, args: Sequence[str | bytes], *command: str | bytes | int
    ) -> tuple[Any, Any]:
        """The same, and what the server answers to *command* behind it, on the same connection; Cut where it answers nothing to that."""
        with self._connection() as connection:
            answer = self._run(connection, script, keys, args)
            try:
                return answer, _call(connection, _command(command))
            except Refused as refused:
                raise Cut(refused.text) from refused.__cause__

    def _run(self, connection: Any, script: Script, keys: Packed, args: Sequence[str | bytes]) -> Any:
        if self._asks_first and not script.reads_only:
            with _nothing_done():
                _call(connection, self._asks_first)
        try:
            return _call(connection, _script("EVALSHA", script.digest, keys, args))
        except Refused as refused:
            if refused.code != "NOSCRIPT":
                raise
        return _call(connection, _script("EVAL", script.text, keys, args))

    def ask_first(self, *command: str | bytes) -> None:
        """From now on have this command done before each script that writes, on its connection."""
        self._asks_first = _command(command)

    def call(self, *command: str | bytes | int) -> Any:
        """What the server answers to one command."""
        with self._connection() as connection:
            return _call(connection, _command(command))

    def apart(self) -> Any:
        """A connection that is nobody else's; whoever has it disconnects it."""
        connection = self._connect()
        _translated(connection.connect)
        return connection

    @staticmethod
    def begin(connection: Any, *command: str | int) -> None:
        """Send a command whose answer is read later."""
        _translated(lambda: connection.send_command(*command, check_health=False))

    @staticmethod
    def answer(connection: Any) -> Any:
        """What the server answers to what was begun."""
        return _answer(connection)

    @staticmethod
    def socket_of(connection: Any) -> socket.socket | None:
        """What becomes readable when the answer comes; None where the connection is gone."""
        found: socket.socket | None = connection._sock  # noqa: SLF001 - redis-py has no other way to wait for two things
        return found

    def info(self) -> dict[str, str]:
        """What the server says of itself."""
        lines = self.call("INFO").decode("utf-8", "replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))

    def close(self) -> None:
        """Calls under way come to their end; each takes its connection with it."""
        self._closed = True
        while self._idle:
            with suppress(IndexError):
                self._idle.pop().disconnect()

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        connection = self._taken()
        try:
            _translated(partial(_make_ready, connection))
            yield connection
        except Refused as refused:
            # The name may lead to another server by now, and this connection never will.
            if refused.code in _ELSEWHERE:
                connection.disconnect()
            raise
        except BaseException:
            # It may owe an answer, which the next call would take for its own.
            connection.disconnect()
            raise
        finally:
            self._idle.append(connection)
            if self._closed:
                self.close()

    def _taken(self) -> Any:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if connection.pid == os.getpid():
                    return connection
        return self._connect()


def _make_ready(connection: Any) -> None:
    """Connected, and with nothing to read: what there is to read is the end, or the rest of another's answer."""
    line = connection._sock  # noqa: SLF001 - redis-py's own look reads, and costs ten times as much
    if line is not None and _readable(line):
        connection.disconnect()
    connection.connect()


def _readable(line: socket.socket) -> bool:
    if not hasattr(select, "poll"):
        return bool(select.select([line], [], [], 0)[0])
    poll = select.poll()
    poll.register(line, select.POLLIN)
    return bool(poll.poll(0))


def _packed(args: Sequence[str | bytes | int]) -> bytes:
    """As the protocol has them: redis-py packs each anew, key by key."""
    parts = []
    for arg in args:
        octets = arg if isinstance(arg, bytes) else str(arg).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(octets), octets))
    return b"".join(parts)


def _command(words: Sequence[str | bytes | int]) -> bytes:
    return b"*%d\r\n%b" % (len(words), _packed(words))


def _script(how: str, what: str, keys: Packed, args: Sequence[str | bytes]) -> bytes:
    head = _packed((how, what, keys.number))
    return b"*%d\r\n%b%b%b" % (3 + keys.number + len(args), head, keys.octets, _packed(args))


def _call(connection: Any, command: bytes) -> Any:
    _translated(lambda: connection.send_packed_command([command], check_health=False))
    return _answer(connection)


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        raise Refused.saying(_said(error)) from error
    except redis.exceptions.BusyLoadingError as error:
        raise Refused("LOADING", str(error)) from error
    except (redis.RedisError, OSError) as error:
        raise Cut(str(error)) from error


@contextmanager
def _nothing_done() -> Iterator[None]:
    """What goes wrong here goes wrong before the command that counts."""
    try:
        yield
    except Refused as refused:
        raise attrs.evolve(refused, sent=False) from refused.__cause__
    except Cut as cut:
        raise Unreachable(str(cut)) from cut.__cause__


def _translated(act: Callable[[], Any]) -> Any:
    """What *act* returns that sends no whole command, or nothing at all."""
    try:
        return act()
    except redis.exceptions.BusyLoadingError as error:
        raise Refused("LOADING", str(error), sent=False) from error
    except redis.AuthenticationError as error:
        raise Refused("NOAUTH", str(error), sent=False) from error
    except redis.ResponseError as error:
        raise attrs.evolve(Refused.saying(_said(error)), sent=False) from error
    except (redis.RedisError, OSError) as error:
        raise Unreachable(str(error)) from error


_ELSEWHERE: Final = frozenset({"READONLY", "MASTERDOWN", "CLUSTERDOWN", "MOVED", "ASK"})
_CODES: Final = {
    redis.exceptions.NoScriptError: "NOSCRIPT",
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.ExecAbortError: "EXECABORT",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.AskError: "ASK",
    redis.exceptions.MovedError: "MOVED",
    redis.exceptions.TryAgainError: "TRYAGAIN",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.MasterDownError: "MASTERDOWN",
}
"""redis-py takes these words from what the server said."""


def _said(error: redis.ResponseError) -> str:
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
    text = str(error)
    return text if code is None or text.startswith(code) else f"{code} {text}"


def _settings(place: Place) -> dict[str, Any]:
    if place.scheme == "unix":
        return {"path": place.path}
    where: dict[str, Any] = {
        "host": place.host,
        "port": place.port,
        "socket_connect_timeout": _CONNECT,
        "socket_keepalive": True,
    }
    if place.scheme == "rediss":
        where["context"] = context_of(place)
    return where
