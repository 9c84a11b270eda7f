"""What is larger than PostgreSQL takes at once is refused, and no word is said of trying again."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from postgres_places import Places

from outbox.errors import InvalidMessage, UnsupportedError
from outbox.stores.postgres import putting
from outbox.testing.clauses.scene import ids, mail, statuses, take


def test_a_put_of_more_than_the_server_takes_at_once_is_refused_and_nothing_of_it_stored(
    place: Path, postgres: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(putting, "_MOST_AT_ONCE", 3_200)
    messages = [mail(id, content=b"x" * 800) for id in "abc"]
    with contextlib.closing(postgres.open(place, notify=False)) as store:
        with pytest.raises(
            UnsupportedError,
            match=r"^3 messages with [\d,]+ bytes .* takes 3,200 at once; put them in several",
        ):
            store.put(messages)
        assert statuses(store.put(messages[:1])) == ["stored"]
        assert statuses(store.put(messages[1:])) == ["stored", "stored"]
        with pytest.raises(
            InvalidMessage, match=r"^d has [\d,]+ bytes as it is kept, .* takes 3,200 at most$"
        ):
            store.put([mail("d", content=b"x" * 3_200)])
        assert sorted(ids(take(store, 9))) == ["a", "b", "c"]
