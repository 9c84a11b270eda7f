"""A person's word: requeue, cancel, purge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import attrs

from outbox.lifecycle import Attempt
from outbox.protocols import Change, Expected
from outbox.stores import standing as standings
from outbox.stores.retention import Retention
from outbox.stores.standing import Standing, Step

from . import transitions, walking
from .folders import Folders
from .notes import Note
from .reading import DiskFailed
from .transitions import Transition
from .walking import Place

__all__ = ["Command", "Places", "purge", "steer"]

_KNOWN: Final = 4096

Command: TypeAlias = Callable[[str, Standing], Step]


@attrs.frozen
class _Decided:
    """The answer for one id, once its rename is made."""

    number: int
    change: Change
    transition: Transition | None = None


History: TypeAlias = tuple[Attempt, ...]
Decide: TypeAlias = Callable[[int, Place, Standing, History], _Decided]


class Places:
    """Where the last messages that were found have their tickets: whoever steers these need not walk to find them.

    A hint: the ticket may have moved since.
    """

    def __init__(self) -> None:
        self._known: dict[str, Place] = {}

    def note(self, place: Place) -> None:
        known = self._known
        while len(known) >= _KNOWN:
            # Another thread may take the same; the oldest goes first.
            known.pop(next(iter(list(known)), ""), None)
        known[place.ticket.id] = place

    def take(self, folders: Folders, id: str) -> Place | None:
        """Where it was, if it is there still."""
        place = self._known.pop(id, None)
        if place is None:
            return None
        try:
            transitions.require_there(folders, place.path, place.ticket)
        except OSError:
            return None
        return place


def steer(folders: Folders, ids: Sequence[str], command: Command, now: int, places: Places) -> list[Change]:
    """Apply a command of :mod:`outbox.stores.standing` to each, in order; one walk for all that *places* does not know."""

    def decide(number: int, place: Place, before: Standing, history: History) -> _Decided:
        step = command(place.ticket.id, before)
        if step.standing is None:
            return _Decided(number, step.change)
        note = Note.of(step.standing, history)
        transition = transitions.plan(
            folders, place.queue, place.path, place.ticket, step.standing, now=now, note=note
        )
        return _Decided(number, step.change, transition)

    return [decided.change for decided in _rounds(folders, ids, decide, places)]


def purge(
    folders: Folders,
    ids: Sequence[str],
    retention: Retention,
    now: int,
    places: Places,
    *,
    expected: Expected | None = None,
) -> list[Change]:
    """See :meth:`FilesystemStore.purge`: each is out of the way first, so that nobody else can have it."""

    def decide(number: int, place: Place, before: Standing, _: History) -> _Decided:
        change = standings.purge(place.ticket.id, before, now, expected=expected)
        if change.status != "done":
            return _Decided(number, change)
        return _Decided(number, change, transitions.removal(place.path, place.ticket, before, retention, now))

    decided = _rounds(folders, ids, decide, places)
    for each in decided:
        if each.transition is not None:
            transitions.cleared(folders, each.transition)
    return [each.change for each in decided]


def _rounds(folders: Folders, ids: Sequence[str], decide: Decide, places: Places) -> list[_Decided]:
    """Decide each and make it so; again where the ticket was moved meanwhile, and for an id that comes again."""
    answers: dict[int, _Decided] = {}
    while len(answers) < len(ids):
        turn: dict[str, int] = {}
        for number, id in enumerate(ids):
            if number not in answers:
                turn.setdefault(id, number)
        found = {id: place for id in turn if (place := places.take(folders, id)) is not None}
        if len(found) < len(turn):
            found |= walking.find(folders, turn.keys() - found.keys())
        moves: list[_Decided] = []
        planned: list[Transition] = []
        with transitions.whole(folders, planned):
            for id, number in turn.items():
                decided = _one(folders, number, id, found.get(id), decide)
                if decided is not None and decided.transition is not None:
                    moves.append(decided)
                    planned.append(decided.transition)
                elif decided is not None:
                    answers[number] = decided
        for made in transitions.make(folders, planned):
            answers[moves[made].number] = moves[made]
    return [answers[number] for number in range(len(ids))]


def _one(folders: Folders, number: int, id: str, place: Place | None, decide: Decide) -> _Decided | None:
    """What is decided of this one; None where its ticket has moved on meanwhile, and is to be found again."""
    if place is None:
        return _Decided(number, standings.unknown(id))
    try:
        before, history = transitions.learned_or_feared(
            folders, place.path, place.ticket, place.state, proven=True
        )
        return decide(number, place, before, history)
    except FileNotFoundError:
        return None
    except DiskFailed as error:
        # The others get their answer all the same.
        return _Decided(number, Change(id=id, status="refused", reason=f"{error}: try again later"))
