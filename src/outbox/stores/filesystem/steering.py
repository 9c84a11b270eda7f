"""A person's word: requeue, cancel, purge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs

from outbox.protocols import Change
from outbox.stores import standing as standings
from outbox.stores.standing import Standing, Step

from . import transitions, walking
from .folders import Folders
from .notes import Note
from .transitions import Transition
from .walking import Place

__all__ = ["Command", "purge", "steer"]

Command: TypeAlias = Callable[[str, Standing], Step]


@attrs.frozen
class _Decided:
    """The answer for one id, once its rename is made."""

    number: int
    change: Change
    transition: Transition | None = None
    remembered: bool = False


def steer(folders: Folders, ids: Sequence[str], command: Command, now: int) -> list[Change]:
    """Apply a command of :mod:`outbox.stores.standing` to each, in order; one walk for any number of them."""

    def decide(number: int, place: Place) -> _Decided:
        before, history = transitions.learned_or_feared(folders, place.ticket, place.state)
        step = command(place.ticket.id, before)
        if step.standing is None:
            return _Decided(number, step.change)
        note = Note.of(step.standing, history)
        return _Decided(number, step.change, _planned(folders, place, step.standing, now, note))

    return [decided.change for decided in _rounds(folders, ids, decide)]


def purge(folders: Folders, ids: Sequence[str], *, now: int, remembered_since: int) -> list[Change]:
    """See :meth:`FilesystemStore.purge`: each becomes a tombstone first, so that nobody else can have it."""

    def decide(number: int, place: Place) -> _Decided:
        before, _ = transitions.learned_or_feared(folders, place.ticket, place.state)
        change = standings.purge(place.ticket.id, before, now)
        if change.status != "done":
            return _Decided(number, change)
        remembered = standings.remembered(before) and (before.settled or now) > remembered_since
        transition = _planned(folders, place, before, now, None, remembered=True)
        return _Decided(number, change, transition, remembered)

    decided = _rounds(folders, ids, decide)
    gone = [each for each in decided if each.transition is not None]
    for each in gone:
        _forget(folders, each)
    # Or a loss of power brings back a tombstone of what nobody has received.
    folders.sync(each.transition.to for each in gone if each.transition is not None)
    return [each.change for each in decided]


def _planned(
    folders: Folders,
    place: Place,
    standing: Standing,
    now: int,
    note: Note | None,
    *,
    remembered: bool = False,
) -> Transition:
    return transitions.plan(
        folders, place.queue, place.path, place.ticket, standing, now=now, note=note, remembered=remembered
    )


def _forget(folders: Folders, decided: _Decided) -> None:
    transition = decided.transition
    if transition is not None and decided.remembered:
        transitions.bury(folders, transition.to, transition.new)
    elif transition is not None:
        transitions.forget(folders, transition.to, transition.new)


def _rounds(folders: Folders, ids: Sequence[str], decide: Callable[[int, Place], _Decided]) -> list[_Decided]:
    """Decide each and make it so; again where the ticket was moved meanwhile, and for an id that comes again."""
    answers: dict[int, _Decided] = {}
    while len(answers) < len(ids):
        turn: dict[str, int] = {}
        for number, id in enumerate(ids):
            if number not in answers:
                turn.setdefault(id, number)
        found = walking.find(folders, turn)
        decided = [
            decide(number, found[id]) if id in found else _Decided(number, standings.unknown(id))
            for id, number in turn.items()
        ]
        moves = [each for each in decided if each.transition is not None]
        made = transitions.make(folders, [each.transition for each in moves if each.transition is not None])
        for each in [each for each in decided if each.transition is None] + [moves[n] for n in made]:
            answers[each.number] = each
    return [answers[number] for number in range(len(ids))]
