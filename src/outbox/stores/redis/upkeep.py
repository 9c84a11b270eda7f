"""Whether all is well with the server, and what it promises as it is set up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from outbox.errors import ConfigurationError
from outbox.protocols import Finding
from outbox.values import printable

from . import opening
from .caller import Caller

__all__ = ["check"]

_DOCS: Final = "see docs/redis.md"
_NEARLY: Final = 0.9


def check(caller: Caller) -> Iterator[Finding]:
    """See :meth:`outbox.protocols.SupportsMaintain.check`."""
    told = caller.info()
    yield Finding(
        "ok", f"{caller.place} is Redis {printable(told.get('redis_version', '?'))}, prefix {caller.key('')}"
    )
    yield _eviction(caller, told)
    yield from _rights(caller)
    yield _memory(told)
    yield from _persistence(caller, told)
    yield _replication(told)
    yield from _refusing(caller, told)
    yield _load(caller)


def _eviction(caller: Caller, told: Mapping[str, str]) -> Finding:
    try:
        opening.refuse_eviction(caller, told)
    except ConfigurationError as error:
        return Finding("error", str(error), "messages may be lost at any moment")
    policy = told.get("maxmemory_policy")
    if policy is None:
        return Finding(
            "warning", "the server does not tell its maxmemory-policy", "see that it is noeviction"
        )
    return Finding("ok", f"maxmemory-policy is {printable(policy)}: no message is evicted")


def _rights(caller: Caller) -> Iterator[Finding]:
    try:
        opening.require_rights(caller)
    except ConfigurationError as error:
        yield Finding("error", str(error), "no message can be put or delivered until then")


def _memory(told: Mapping[str, str]) -> Finding:
    used, most = _number(told, "used_memory"), _number(told, "maxmemory")
    if not most:
        return Finding(
            "warning",
            "maxmemory is not set: a long queue can take all the memory of the machine, and the system then kills Redis",
            "set maxmemory, or max_bytes of the store",
        )
    share = f"{used / (1 << 20):,.0f} MiB of {most / (1 << 20):,.0f} used"
    if used > _NEARLY * most:
        return Finding("warning", f"its memory is nearly full: {share}", "raise maxmemory; outbox purge")
    return Finding("ok", f"its memory has room: {share}")


def _persistence(caller: Caller, told: Mapping[str, str]) -> Iterator[Finding]:
    if told.get("aof_enabled") != "1":
        yield Finding(
            "error",
            "appendonly is off: what was acknowledged since the last snapshot is lost when the server stops",
            f"CONFIG SET appendonly yes, and the same in redis.conf; {_DOCS}",
        )
    else:
        yield _syncs(caller)
        yield from _rewrites(caller)
        if told.get("aof_last_write_status", "ok") != "ok":
            yield Finding("error", "its append-only file cannot be written", "look at its log and its disk")
    if told.get("rdb_last_bgsave_status", "ok") != "ok":
        yield Finding("warning", "its last snapshot failed", "look at its log and its disk")


def _syncs(caller: Caller) -> Finding:
    often = caller.setting("appendfsync")
    if often == "always":
        return Finding("ok", "appendfsync is always: what is acknowledged outlives a power failure")
    if often is None:
        return Finding(
            "warning",
            "appendonly is on, and the server does not tell appendfsync",
            f"see that it is always where a second of mail may not be lost; {_DOCS}",
        )
    lost = "up to two seconds" if often == "everysec" else "up to half a minute, as the system likes,"
    return Finding(
        "warning",
        f"appendfsync is {printable(often)}: a server that is killed loses nothing while its disk keeps up, and a power "
        f"failure {lost} of what was acknowledged; what was delivered meanwhile goes again",
        f"CONFIG SET appendfsync always, and the same in redis.conf; {_DOCS}",
    )


def _rewrites(caller: Caller) -> Iterator[Finding]:
    if caller.setting("no-appendfsync-on-rewrite") == "yes":
        yield Finding(
            "warning",
            "no-appendfsync-on-rewrite is yes: while the append-only file is rewritten nothing is synced, and a power "
            "failure takes what was acknowledged meanwhile",
            f"CONFIG SET no-appendfsync-on-rewrite no, and the same in redis.conf; {_DOCS}",
        )


def _replication(told: Mapping[str, str]) -> Finding:
    if told.get("role") != "master":
        return Finding("error", "it is a replica, which takes no writes", "name the primary")
    replicas = _number(told, "connected_slaves")
    if not replicas:
        return Finding("ok", "it has no replica: there is no failover, and so none that loses messages")
    return Finding(
        "warning",
        f"it has {replicas} replica{'' if replicas == 1 else 's'}, which follow it a moment later: what was acknowledged in that moment is lost "
        "in a failover",
        "set min-replicas-to-write and min-replicas-max-lag, so that a primary which no replica hears does not go on "
        f"acknowledging, or use a store that loses nothing there; {_DOCS}",
    )


def _refusing(caller: Caller, told: Mapping[str, str]) -> Iterator[Finding]:
    if told.get("role") != "master" or "min_slaves_good_slaves" not in told:
        return
    good, asked = _number(told, "min_slaves_good_slaves"), caller.setting("min-replicas-to-write")
    # The server counts them only where it asks for one at least.
    least = int(asked) if asked and asked.isdigit() else 1
    if good < least:
        yield Finding(
            "error",
            f"it takes no writes: {good} replica{'' if good == 1 else 's'} reported within min-replicas-max-lag, and "
            f"min-replicas-to-write asks for {least}{'' if asked else ' at least'}",
            "start the replicas, or look why they are behind (INFO replication); or CONFIG SET min-replicas-to-write 0, and the "
            f"same in redis.conf, where a failover may lose what nobody else has; {_DOCS}",
        )


def _load(caller: Caller) -> Finding:
    found = caller.ask("HMGET", caller.key("meta"), "messages", "bytes")
    try:
        messages, size = (int(each or 0) for each in found)
    except ValueError:
        return Finding(
            "warning",
            f"the fields messages and bytes of {caller.key('meta')} are no numbers",
            "limits count from nothing: HSET both to 0 while the store is empty",
        )
    return Finding("ok", f"{messages:,} messages wait, with {size / (1 << 20):,.1f} MiB of content")


def _number(told: Mapping[str, str], name: str) -> int:
    text = told.get(name, "0")
    return int(text) if text.isdigit() else 0
