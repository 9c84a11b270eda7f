"""Which relays a user's limits are for: what he named, by the keys that the transport names its relays by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from .errors import ConfigurationError
from .protocols import SupportsRelays, Transport
from .relay import EVERY_OTHER, RelayLimits, limits_by_key
from .values import quoted

__all__ = ["NamesRelays", "fitted"]


@runtime_checkable
class NamesRelays(Protocol):
    """A transport that knows the keys of all its relays."""

    def relay_named(self, name: str, /) -> str | None:
        """The key of the relay that a person calls so; None where there is none."""
        ...


def fitted(
    limits: RelayLimits | Mapping[str, RelayLimits] | None, transport: Transport
) -> tuple[Mapping[str, RelayLimits], Sequence[str]]:
    """*limits* by the keys of *transport*; and those names that no relay of it has.

    Raises:
        ConfigurationError: a relay is named where there is only one, or one is named twice.
    """
    found: dict[str, RelayLimits] = {}
    strange: list[str] = []
    for name, each in limits_by_key(limits).items():
        key = name if name == EVERY_OTHER else _key(transport, name)
        if key is None:
            strange.append(name)
        elif key in found:
            raise ConfigurationError(f"limits names the relay {quoted(key)} twice: as {quoted(name)} too")
        else:
            found[key] = each
    return found, strange


def _key(transport: Transport, name: str) -> str | None:
    if isinstance(transport, NamesRelays):
        return transport.relay_named(name)
    if name and not isinstance(transport, SupportsRelays):
        raise ConfigurationError(
            f"limits names {quoted(name)}, and {type(transport).__name__} leads to one relay, which has no name: "
            f"say its limits as RelayLimits(…), or under {EVERY_OTHER!r} ([limits] itself in the configuration file)"
        )
    return name
