"""A wire that is tapped: what goes between clients and a server is written down, and altered on the way."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Self, TypeAlias

Alter: TypeAlias = Callable[[bytes], Iterable[bytes]]


def _as_it_is(data: bytes) -> Iterable[bytes]:
    return [data]


class Tap:
    """Leads to a port of this machine.

    Args:
        answers: Given what the server says, what the client is told instead,
            piece by piece.
        interject: Given what the client says, what it is told before the
            server has even heard it.

    Attributes:
        heard: Every byte that clients have sent, in clear or not.
    """

    def __init__(
        self, port: int, *, answers: Alter = _as_it_is, interject: Callable[[bytes], bytes] | None = None
    ) -> None:
        self.heard = bytearray()
        self._far = port
        self._answers = answers
        self._interject = interject
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self._start(self._listen)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in [self._listener, *self._sockets]:
            each.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._far))
                for each in (near, far):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [near, far]
                self._start(self._carry, near, far, self._from_client(near))
                self._start(self._carry, far, near, self._answers)

    def _from_client(self, near: socket.socket) -> Alter:
        def told(data: bytes) -> Iterable[bytes]:
            self.heard += data
            if self._interject and (said := self._interject(data)):
                near.sendall(said)
            return [data]

        return told

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket, alter: Alter) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                for piece in alter(data):
                    target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
