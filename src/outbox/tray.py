"""What came of the claims of one process, from the moment that it is noted until the store has it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from .slips import Noted

__all__ = ["Tray"]

_UNWRITTEN: Final = 256


class Tray:
    """Workers lay on it what they noted, and the clerk takes all of it and writes it, while they note more.

    What the store did not take lies on it again, before the rest; until it is
    written the tray is *faltering*.
    """

    def __init__(self) -> None:
        self.faltering = False
        self._noted: list[Noted] = []
        self._writing: list[Noted] = []
        self._last_try = False

    def __len__(self) -> int:
        return len(self._noted) + len(self._writing)

    def __iter__(self) -> Iterator[Noted]:
        return iter([*self._noted, *self._writing])

    @property
    def waiting(self) -> int:
        """How many nobody writes yet."""
        return len(self._noted)

    @property
    def behindhand(self) -> bool:
        """Whether no more is begun before what there is to write is written: at a kill it would all go out again."""
        return self.faltering or len(self) >= _UNWRITTEN

    def add(self, noted: Iterable[Noted]) -> None:
        """Lay these behind the others."""
        self._noted += noted

    def take(self) -> Sequence[Noted]:
        """All that waits: the clerk writes it, and says what came of that."""
        self._writing, self._noted = self._noted, []
        return self._writing

    def written(self) -> Sequence[Noted]:
        """The store has what was taken: that is it."""
        written, self._writing = self._writing, []
        self.faltering = self._last_try = False
        return written

    def falter(self) -> None:
        """The store did not take it: it is taken again."""
        self.faltering = self.faltering or bool(self._writing)
        self._noted, self._writing = self._writing + self._noted, []

    def fall(self) -> Sequence[Noted]:
        """The clerk fell: what he was writing is the next one's; what takes him too is given up, and returned."""
        if self._last_try and self._writing:
            return self.written()
        self._last_try = self._last_try or bool(self._writing)
        self.falter()
        return ()

    def clear(self) -> Sequence[Noted]:
        """All that waits, taken away: nobody will write it."""
        noted, self._noted = self._noted, []
        return noted
