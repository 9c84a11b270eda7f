"""What processes keep together: fields of the hash that tells of the store, each with when it was written before its text."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping

from outbox.protocols import Register, Swap
from outbox.stores.instants import moment

from .caller import Caller
from .scripts import REGISTERS

__all__ = ["registers", "swap"]


def registers(caller: Caller, names: Collection[str]) -> Mapping[str, Register]:
    """See :meth:`outbox.protocols.SupportsRegister.registers`."""
    now, texts = caller.run(REGISTERS, {"names": list(names)})
    at = moment(int(now))
    return {name: _register(text, at) for name, text in zip(names, texts, strict=True)}


def swap(caller: Caller, swaps: Mapping[str, Swap]) -> Mapping[str, Register]:
    """See :meth:`outbox.protocols.SupportsRegister.swap`."""
    said = [{"new": each.new} | ({} if each.old is None else {"old": each.old}) for each in swaps.values()]
    now, texts, written = caller.run(REGISTERS, {"names": list(swaps), "swaps": said})
    at = moment(int(now))
    return {
        name: _register(text, at) for name, text, done in zip(swaps, texts, written, strict=True) if not done
    }


def _register(text: bytes | None, at: dt.datetime) -> Register:
    return Register(None if text is None else text.decode("utf-8", "backslashreplace"), at)
