"""Waiting for a socket that does not block."""

from __future__ import annotations

import math
import select
import socket

__all__ = ["ready"]


def ready(connected: socket.socket, seconds: float, *, read: bool = False, write: bool = False) -> bool:
    """Wait until it can be read or written, whichever is asked for; False where *seconds* passed before.

    A socket that failed counts as ready: whoever uses it is told why.
    """
    if not hasattr(select, "poll"):
        asked = [connected]
        return any(select.select(asked if read else [], asked if write else [], asked, seconds))
    poll = select.poll()
    poll.register(connected, (select.POLLIN if read else 0) | (select.POLLOUT if write else 0))
    return bool(poll.poll(math.ceil(seconds * 1000)))
