"""Where the tickets of this store object's own claims are, so that nobody has to look for them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, TypeAlias

import attrs

from outbox.lifecycle import Claim, State

from . import walking
from .folders import Folders
from .names import Path, Ticket

__all__ = ["Key", "Lease", "Leases"]

_REMEMBERED: Final = 100_000

Key: TypeAlias = tuple[str, str]
"""Id and token."""


@attrs.frozen(kw_only=True)
class Lease:
    """A claimed ticket; *head* is how long its file is before the content, None where that was not read."""

    queue: str
    path: Path
    ticket: Ticket
    head: int | None = None


class Leases:
    """See the module.  What it has forgotten, or never knew, is looked for among the claimed tickets."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._lock = threading.Lock()
        self._leases: OrderedDict[Key, Lease] = OrderedDict()

    def keep(self, lease: Lease) -> None:
        with self._lock:
            self._leases[lease.ticket.id, lease.ticket.token] = lease
            if len(self._leases) > _REMEMBERED:
                self._leases.popitem(last=False)

    def drop(self, claim: Claim) -> None:
        with self._lock:
            self._leases.pop(claim.key, None)

    def find(self, claims: Iterable[Claim]) -> dict[Key, Lease]:
        """Where the tickets of these are, as far as is known; they may have been taken since."""
        with self._lock:
            found = {claim.key: self._leases.get(claim.key) for claim in claims}
        known = {each: lease for each, lease in found.items() if lease is not None}
        strangers = [claim for claim in claims if claim.key not in known]
        return {**known, **self.search(strangers)} if strangers else known

    def search(self, claims: Iterable[Claim]) -> dict[Key, Lease]:
        """The same from the disk: a walk through the claimed tickets of their queues."""
        wanted = {claim.key for claim in claims}
        queues = {claim.message.queue for claim in claims}
        found: dict[Key, Lease] = {}
        for entry in walking.walk(self._folders, states=[State.CLAIMED], queues=queues):
            if entry.id not in {id for id, _ in wanted}:
                continue
            ticket = Ticket.parse(entry.name)
            if ticket is not None and (ticket.id, ticket.token) in wanted:
                found[ticket.id, ticket.token] = Lease(queue=entry.queue, path=entry.path, ticket=ticket)
        return found
