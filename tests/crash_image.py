"""All that can be learned of a store, and all that can still be done with it, as a value to be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from outbox.errors import ConflictError
from outbox.lifecycle import Record, State
from outbox.protocols import SupportsSuspend
from outbox.testing.clauses.scene import Whole, delivered, mail, settle, statuses, take

__all__ = ["Image", "autopsy", "different", "without_unreadable"]

NAMES: Final = ("a", "b", "c", "d", "e", "f", "warm", "gone")
"""The ids of the messages that there may be in a scene."""

Image: TypeAlias = Mapping[str, Sequence[Any]]
"""What is known of each message; under ``""`` what is known of the store."""


def autopsy(store: Whole) -> Image:
    """Look at all there is, then claim, deliver and put again all that can be: nothing may be stuck."""
    _require_sound(store)
    image = _looked_at(store)
    _deliver(store, image)
    _put_again(store, image)
    _require_sound(store)
    return image


def _require_sound(store: Whole) -> None:
    assert [finding.text for finding in store.check() if finding.level == "error"] == []


def _looked_at(store: Whole) -> dict[str, list[Any]]:
    image: dict[str, list[Any]] = {"": [], **{name: [] for name in NAMES}}
    summaries = store.browse(limit=1000)
    assert len({summary.id for summary in summaries}) == len(summaries)
    assert sum(count.number for count in store.count()) == len(summaries)
    for summary in summaries:
        record = store.get(summary.id)
        assert record is not None
        assert record.summary == summary
        image.setdefault(summary.id, []).append(record)
    if isinstance(store, SupportsSuspend):
        for suspension in store.suspensions():
            image[""].append(suspension)
            store.unsuspend(suspension.kind, suspension.value)
    return image


def _deliver(store: Whole, image: Mapping[str, list[Any]]) -> None:
    """Every message that waits can be claimed, once, and settled."""
    waiting = {s.id for s in store.browse(states=[State.QUEUED, State.CLAIMED], limit=1000)}
    while claims := take(store, 100, "mail", "other"):
        for claim in claims:
            waiting.remove(claim.message.id)
            image[claim.message.id].append(attrs.evolve(claim, token=""))
            settle(store, claim, delivered(claim))
    assert not waiting, f"nobody can claim {waiting}"


def _put_again(store: Whole, image: Mapping[str, list[Any]]) -> None:
    """What comes of another put of each id; where it is no repetition, the message is there to be claimed."""
    found = {name: _put_one(store, name) for name in NAMES}
    claimed = {claim.message.id: claim for claim in take(store, 100, "mail", "other")}
    for name, status in found.items():
        assert name in claimed or status != "stored", f"{name} was stored, and nobody can claim it"
        # Of a put that was killed half-way the rest may be known, and is then finished.
        image[name].append("stored" if name in claimed else status)
    for claim in claimed.values():
        settle(store, claim, delivered(claim))


def _put_one(store: Whole, name: str) -> str:
    try:
        return statuses(store.put([mail(name)]))[0]
    except ConflictError:
        return "another"


def different(found: Image, *allowed: Image, atomic: bool) -> str:
    """What is in *found* as in none of *allowed*; ``""`` is nothing."""
    if atomic:
        return "" if found in allowed else "\n".join(_difference(found, each) for each in allowed)
    return "\n".join(
        f"{id}: {found[id]} is none of {[each.get(id) for each in allowed]}"
        for id in sorted(found)
        if all(found[id] != each.get(id) for each in allowed)
    )


def _difference(found: Image, other: Image) -> str:
    ids = sorted(id for id in {*found, *other} if found.get(id) != other.get(id))
    return "\n".join(f"{id}: {found.get(id)} is not {other.get(id)}" for id in ids)


def without_unreadable(found: Image) -> Image:
    """Without those messages that are held because their file could not be read."""
    return {id: facts for id, facts in found.items() if not any(map(_unreadable, facts))}


def _unreadable(fact: object) -> bool:
    return (
        isinstance(fact, Record)
        and fact.summary.state is State.HELD
        and "cannot be read" in fact.summary.reason
    )
