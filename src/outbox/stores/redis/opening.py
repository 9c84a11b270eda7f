"""Whether a server can be trusted with messages, and whose the keys of the prefix are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from outbox.errors import ConfigurationError, FormatError, UnsupportedError

from . import rights
from .caller import Caller

__all__ = ["EVICTS", "FORMAT", "NoStore", "open_store", "refuse_eviction", "require_rights", "version"]

FORMAT: Final = b"1"
_LEAST: Final = (6, 2)
_MINDS_REPLICAS: Final = (7, 0)
"""Before it a script may write where min-replicas-to-write lets no plain command."""
EVICTS: Final = re.compile("allkeys-")
"""Policies that throw away any key; ``volatile-`` ones throw away what has a time to live, and nothing of ours has."""


class NoStore(ConfigurationError):
    """Nothing of this prefix is there, and nothing else is wrong."""


def open_store(caller: Caller, *, create: bool) -> None:
    """See that the server can be used, and that there is a store, or make one.

    Raises:
        NoStore: there is none, and *create* is false.
        ConfigurationError: it evicts keys, or the user may not run what the scripts need.
        UnsupportedError: it is too old.
        FormatError: another release wrote the store.
    """
    told = caller.info()
    if version(told) < _LEAST:
        raise UnsupportedError(
            f"{caller.place} is Redis {told.get('redis_version', '?')}, and 6.2 is the least that RedisStore works with"
        )
    if version(told) < _MINDS_REPLICAS:
        caller.ask_first()
    refuse_eviction(caller, told)
    require_rights(caller)
    meta = caller.key("meta")
    found = caller.ask("HGET", meta, "format")
    if found is None and not create:
        raise NoStore(
            f"there is no store {meta} in {caller.place}; `outbox migrate` makes one, as the first submit and the first "
            "run do: look at the database and the prefix where there ought to be one"
        )
    if found is None:
        caller.ask("HSETNX", meta, "format", FORMAT)
    elif found != FORMAT:
        raise FormatError(
            f"{caller.place}: the store is of format {found.decode('ascii', 'backslashreplace')!r}, and this release "
            "knows 1: upgrade outbox"
        )


def require_rights(caller: Caller) -> None:
    """Raise ConfigurationError where a script would be stopped in its midst."""
    lacking = rights.missing(caller)
    if lacking is not None:
        raise ConfigurationError(
            f"{caller.place}: this user may not run {lacking}: grant it, or undo its rename-command "
            "(docs/redis.md lists what is needed)"
        )


def version(told: Mapping[str, str]) -> tuple[int, ...]:
    """That of Redis; of what is compatible with it, the one it says it is compatible with."""
    return tuple(int(part) for part in told.get("redis_version", "0").split(".")[:2] if part.isdigit())


def refuse_eviction(caller: Caller, told: Mapping[str, str]) -> None:
    """Raise ConfigurationError where the server may throw away what it has acknowledged."""
    policy = told.get("maxmemory_policy", "")
    if EVICTS.match(policy):
        raise ConfigurationError(
            f"{caller.place} has maxmemory-policy {policy}: when its memory is full it throws away any key, and so "
            "messages; set maxmemory-policy noeviction (CONFIG SET, and in redis.conf), or use another server"
        )
