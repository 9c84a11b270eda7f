"""How a store is broken on purpose, and noted with the clause of the suite that has to go red for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import attrs

from outbox.stores.memory import MemoryStore
from outbox.stores.shelf import Shelf

BROKEN: Final[dict[str, tuple[type[Any], str]]] = {}
"""By name: the store, and the clause that finds it."""

DAY: Final = 86400 * 10**6
C = TypeVar("C", bound=type)


class OnAShelf(MemoryStore):
    """A memory store whose shelf is broken."""

    Shelf: type[Shelf] = Shelf

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._shelf.__class__ = self.Shelf


def caught_by(clause: str) -> Callable[[C], C]:
    """Note a broken store, or a store on a broken shelf, by its name."""

    def note(broken: C) -> C:
        store = type(broken.__name__, (OnAShelf,), {"Shelf": broken}) if issubclass(broken, Shelf) else broken
        BROKEN[broken.__name__] = store, clause
        return broken

    return note


def changed(row: Any, **changes: Any) -> None:
    row.standing = attrs.evolve(row.standing, **changes)
