"""A pooler in transaction mode, as far as a store can tell: no two transactions of a client are in one session.

It stands between a client and a server, both at Unix sockets.  Each client has
two sessions on the server; what he says when all that he said before is
answered, and no transaction is open, goes to the other one.  As PgBouncer
does, it can have none for him, and takes no ``options``.
"""

from __future__ import annotations

import contextlib
import select
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from typing import Final

import psycopg

SOCKET: Final = ".s.PGSQL.5432"
_ASKING: Final = frozenset(b"SQ")
"""Sync, and a query by itself: each is answered by one word that it is done."""
_READY: Final = ord("Z")


def _fatal(said: bytes) -> bytes:
    """What ends a connection, in PgBouncer's words and of the state that it gives to all of them."""
    fields = b"SFATAL\0VFATAL\0C08P01\0M" + said + b"\0\0"
    return b"E" + struct.pack("!I", 4 + len(fields)) + fields


class _Words:
    """The messages in a stream of bytes."""

    def __init__(self) -> None:
        self._begun = b""

    def heard(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        self._begun += data
        while len(self._begun) > 4:
            end = 1 + struct.unpack_from("!I", self._begun, 1)[0]
            if len(self._begun) < end:
                return
            yield self._begun[0], self._begun[5:end]
            self._begun = self._begun[end:]

    @property
    def whole(self) -> bool:
        return not self._begun


class _Session:
    """One of the server's, and what it still owes."""

    def __init__(self, server: str, hello: bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(server)
        self._said, self._heard = _Words(), _Words()
        self._asked = 1
        self._open = False
        self.socket.sendall(hello)

    def tell(self, data: bytes) -> None:
        for letter, _ in self._said.heard(data):
            self._asked += letter in _ASKING
            self._open = letter not in _ASKING
        self.socket.sendall(data)

    def hear(self) -> bytes:
        data = self.socket.recv(1 << 20)
        for letter, rest in self._heard.heard(data):
            if letter == _READY:
                self._asked -= 1
                self._within = rest != b"I"
        return data

    @property
    def idle(self) -> bool:
        return not (self._asked or self._open or self._within) and self._said.whole

    _within = True


class Pooler:
    """See the module; *folder* has its socket.

    Attributes:
        exhausted: Whether it has no session left for anybody.
    """

    def __init__(self, dsn: str) -> None:
        self.folder = tempfile.mkdtemp(prefix="pool-")
        self.dsn = f"{dsn} host={self.folder}"
        self.exhausted = False
        server = psycopg.conninfo.conninfo_to_dict(dsn)["host"]
        self._server = f"{server}/{SOCKET}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self.folder}/{SOCKET}")
        self._listener.listen(50)
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._pass, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            hello = client.recv(1 << 16)
            if b"\0options\0" in hello:
                client.sendall(_fatal(b"unsupported startup parameter: options"))
                return
            sessions = [_Session(self._server, hello) for _ in range(2)]
            for each in sessions:
                stack.enter_context(each.socket)
            welcome = b""
            for each in sessions:
                welcome = b""
                while not each.idle:
                    welcome += each.hear()
            client.sendall(welcome)
            while self._transaction(client, sessions[0]):
                sessions.reverse()

    def _transaction(self, client: socket.socket, session: _Session) -> bool:
        """Pass on what is said and answered, until nothing is open any more; False where one of the two has left."""
        ends = [client, session.socket]
        while True:
            ready, _, _ = select.select(ends, [], [])
            if client in ready:
                said = client.recv(1 << 20)
                if not said:
                    return False
                if self.exhausted:
                    client.sendall(_fatal(b"query_wait_timeout"))
                    return False
                session.tell(said)
            if session.socket in ready:
                answer = session.hear()
                if not answer:
                    return False
                client.sendall(answer)
                if session.idle:
                    return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in (self._accepting, *self._threads):
            thread.join(30)
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def pooling(dsn: str) -> Iterator[Pooler]:
    """A pooler before the server of *dsn*."""
    pooler = Pooler(dsn)
    try:
        yield pooler
    finally:
        pooler.close()
