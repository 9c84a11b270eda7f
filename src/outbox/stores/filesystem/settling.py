"""Verdicts, written down."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import attrs

from outbox.errors import CorruptRecord
from outbox.lifecycle import Claim, Fate, Settlement, State, Verdict
from outbox.stores import standing as standings
from outbox.stores.retention import Retention
from outbox.stores.standing import Standing

from . import notes, transitions
from .folders import Folders
from .leases import Lease, Leases
from .names import claimed_path
from .notes import Note
from .transitions import Transition

__all__ = ["extend", "settle"]


@attrs.frozen
class _Case:
    """One settlement that is under way."""

    claim: Claim
    lease: Lease
    after: Standing
    transition: Transition


def settle(
    folders: Folders,
    leases: Leases,
    settlements: Sequence[Settlement],
    fates: Sequence[tuple[Fate, ...]],
    *,
    retention: Retention,
    now: int,
) -> list[Claim]:
    """See :meth:`outbox.protocols.Store.settle`; *fates* are the verdicts', in the recipients' order."""
    held = leases.find([settlement.claim for settlement in settlements])
    cases: dict[int, _Case] = {}
    planned: list[Transition] = []
    with transitions.whole(folders, planned):
        for number, (settlement, new) in enumerate(zip(settlements, fates, strict=True)):
            # Taken out: a second settlement of the same claim comes too late.
            lease = held.pop(settlement.claim.key, None)
            if lease is not None:
                cases[number] = _case(folders, lease, settlement, new, retention=retention, now=now)
                planned.append(cases[number].transition)
    numbers = list(cases)
    made = transitions.make(
        folders,
        planned,
        lambda missed: _again(leases, {each: cases[numbers[each]] for each in missed}),
    )
    settled = {numbers[each] for each in made}
    for number in settled:
        leases.drop(cases[number].claim)
        _clear(folders, cases[number], retention)
    return [each.claim for number, each in enumerate(settlements) if number not in settled]


def _case(
    folders: Folders,
    lease: Lease,
    settlement: Settlement,
    fates: tuple[Fate, ...],
    *,
    retention: Retention,
    now: int,
) -> _Case:
    claim, verdict = settlement.claim, settlement.verdict
    after = standings.settled(lease.ticket.standing(State.CLAIMED), fates, verdict, now)
    if after.state is State.DELIVERED and retention.keep_delivered is None:
        transition = transitions.removal(lease.path, lease.ticket, after, retention, now)
    else:
        note = _note(folders, lease, claim, after, verdict, now=now)
        if note is not None and _is_bare(after, retention):
            note = attrs.evolve(note, bare=notes.bare(claim.message))
        transition = transitions.plan(
            folders, lease.queue, lease.path, lease.ticket, after, now=now, note=note
        )
    return _Case(claim, lease, after, transition)


def _is_bare(standing: Standing, retention: Retention) -> bool:
    return standing.state is State.DELIVERED and not retention.keep_content


def _clear(folders: Folders, case: _Case, retention: Retention) -> None:
    if case.after.state is not State.DELIVERED:
        return
    if retention.keep_delivered is None:
        transitions.cleared(folders, case.transition, case.lease.head)
    elif not retention.keep_content:
        transitions.cut(folders, case.transition.to, case.transition.new, case.lease.head)


def _note(
    folders: Folders, lease: Lease, claim: Claim, after: Standing, verdict: Verdict, *, now: int
) -> Note | None:
    """What is known of it now; None where that is no more than when it was put."""
    fresh = standings.fresh(claim.message, lease.ticket.submitted)
    blank = Note(fates=fresh.fates, since=fresh.since)
    old = blank
    if lease.ticket.revision:
        # One that has gone bad since the claim, or was replaced by whoever took the claim: the verdict says the rest.
        with contextlib.suppress(CorruptRecord, FileNotFoundError):
            old = notes.read(folders, claim.message.id, lease.ticket.revision)
    attempt = standings.attempt(lease.ticket.attempts, verdict, now)
    note = Note.of(attrs.evolve(after, since=old.since), standings.recorded(old.history, attempt))
    return None if note == blank and after.state is State.QUEUED else note


def _again(leases: Leases, cases: Mapping[int, _Case]) -> dict[int, Transition]:
    """Those that somebody with the same token has extended meanwhile, from where they are now."""
    found = leases.search([case.claim for case in cases.values()])
    return {
        number: attrs.evolve(case.transition, path=lease.path, ticket=lease.ticket)
        for number, case in cases.items()
        if (lease := found.get(case.claim.key)) is not None
    }


def extend(folders: Folders, leases: Leases, claims: Sequence[Claim], until: int) -> list[Claim]:
    """See :meth:`outbox.protocols.Store.extend`."""
    held = leases.find(claims)
    missed = [claim for claim in claims if not _extended(folders, leases, held.get(claim.key), until)]
    found = leases.search(missed) if missed else {}
    lost = [claim for claim in missed if not _extended(folders, leases, found.get(claim.key), until)]
    for claim in lost:
        leases.drop(claim)
    return lost


def _extended(folders: Folders, leases: Leases, lease: Lease | None, until: int) -> bool:
    if lease is None:
        return False
    to, new = claimed_path(lease.queue, until), attrs.evolve(lease.ticket, at=until)
    if not folders.move(lease.path, lease.ticket.name, to, new.name):
        return False
    leases.keep(attrs.evolve(lease, path=to, ticket=new))
    return True
