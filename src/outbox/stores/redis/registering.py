"""What processes keep together: fields of the hash that tells of the store, each with when it was written before its text."""

from __future__ import annotations

from outbox.protocols import Register
from outbox.stores.instants import moment

from .caller import Caller
from .scripts import REGISTER

__all__ = ["register", "swap"]


def register(caller: Caller, name: str) -> Register:
    """See :meth:`outbox.protocols.SupportsRegister.register`."""
    now, text = caller.run(REGISTER, {"name": name})
    return _register(now, text)


def swap(caller: Caller, name: str, old: str | None, new: str) -> Register | None:
    """See :meth:`outbox.protocols.SupportsRegister.swap`."""
    said = {"name": name, "new": new} | ({} if old is None else {"old": old})
    now, text, done = caller.run(REGISTER, said)
    return None if done else _register(now, text)


def _register(now: bytes, text: bytes | None) -> Register:
    return Register(None if text is None else text.decode("utf-8", "backslashreplace"), moment(int(now)))
