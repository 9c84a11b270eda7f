"""Between a store and its server: lets a connection be cut before the server has heard, or before it is answered."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

SOCKET: Final = ".s.PGSQL.5432"
_READY: Final = b"Z\x00\x00\x00\x05I"
_FIELDS: Final = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
_FATAL: Final = b"E" + (len(_FIELDS) + 4).to_bytes(4, "big") + _FIELDS
Moment = Literal["unheard", "unanswered", "ended"]


class Cutter:
    """Passes bytes on, until it is told to cut at the next message that holds *word*.

    ``unheard``: the message never comes to the server.  ``unanswered``: the
    server has done what it says, and its answer never comes back.  ``ended``:
    the answer comes, COMMIT and all, and where the server would be ready again
    it says that it ends the connection, as one does that is shut down.

    Attributes:
        cuts: How often it has cut.
        turns: How often a client has spoken that had been answered before: round trips.
    """

    def __init__(self, server: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cut-"))
        self.cuts = self.turns = 0
        self._server = server
        self._moment: Moment | None = None
        self._word = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.fspath(self.folder / SOCKET))
        self._listener.listen(50)
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def cut_at(self, word: bytes, moment: Moment) -> None:
        self._word, self._moment = word, moment

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(f"{self._server}/{SOCKET}")
                thread = threading.Thread(target=self._pass, args=(client, server), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        answered, swallowing, swallowed = True, "", b""
        with client, server, contextlib.suppress(OSError):
            while True:
                ready, _, _ = select.select([client, server], [], [])
                if client in ready:
                    data = client.recv(1 << 20)
                    self.turns += answered
                    answered = False
                    moment = self._due(data)
                    if not data or moment == "unheard":
                        return
                    server.sendall(data)
                    swallowing = moment or swallowing
                if server in ready:
                    data = server.recv(1 << 20)
                    if not data:
                        return
                    answered = True
                    if not swallowing:
                        client.sendall(data)
                        continue
                    swallowed += data
                    if swallowed.endswith(_READY):
                        # The server has committed what it was told, and waits for what comes next.
                        if swallowing == "ended":
                            client.sendall(swallowed.removesuffix(_READY) + _FATAL)
                        return

    def _due(self, data: bytes) -> Moment | None:
        if self._moment is None or self._word not in data:
            return None
        moment, self._moment = self._moment, None
        self.cuts += 1
        return moment

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(30)
        for thread in self._threads:
            thread.join(30)
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def cutting(server: str) -> Iterator[Cutter]:
    cutter = Cutter(server)
    try:
        yield cutter
    finally:
        cutter.close()
