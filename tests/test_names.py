"""Names that a message, or a file, can have: the stores take them for possible, and no others."""

from __future__ import annotations

import os
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, strategies as st

from outbox.errors import ConfigurationError, InvalidMessage
from outbox.message import Message
from outbox.protocols import Change, Store
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.names import answered, beginning, is_id, require_queue
from outbox.stores.sqlite import SQLiteStore
from outbox.stores.standing import unknown

ODD: Final = st.text(st.sampled_from(string.ascii_letters + string.digits + "-_. /\n\0é\ud800٣"), max_size=66)
LONG: Final = st.integers(60, 68).map("a".__mul__)


def possible(**name: str) -> bool:
    try:
        Message(recipients=("nobody",), content=b"", **name)  # type: ignore[arg-type]  # an id or a queue
    except InvalidMessage:
        return False
    return True


@given(ODD | LONG)
@example("a\n")
def test_an_id_is_possible_where_a_message_can_have_it(name: str) -> None:
    assert is_id(name) == possible(id=name)


@given(ODD | LONG)
@example("mail\n")
def test_a_queue_is_possible_where_a_message_can_have_it(name: str) -> None:
    try:
        assert require_queue(name) == name
    except ConfigurationError:
        assert not possible(queue=name)
    else:
        assert possible(queue=name)


@given(ODD, st.text(st.sampled_from("abz09-_"), min_size=1, max_size=5))
def test_the_beginning_of_a_page_is_ascii_and_parts_the_ids_as_the_text_does(after: str, id: str) -> None:
    assert beginning(after).isascii()
    assert (id > beginning(after)) == (id > after)


def test_a_command_is_given_only_the_ids_that_can_be() -> None:
    given: list[str] = []

    def command(ids: Sequence[str]) -> list[Change]:
        given.extend(ids)
        return [unknown(id) for id in ids]

    changes = answered(["b", "\ud800", "a", "b"], command)

    assert given == ["b", "a", "b"]
    assert [change.id for change in changes] == ["b", "\ud800", "a", "b"]


STORES: Final = [
    SQLiteStore,
    pytest.param(
        FilesystemStore,
        marks=pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems"),
    ),
]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("name", ["a\0b", b"a\0b", "a\ud800", "\0"])
def test_a_path_that_no_file_can_have_is_refused(
    store: Callable[[str | bytes], Store], tmp_path: Path, name: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="path"):
        store(name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("store", STORES)
def test_a_path_may_be_bytes(
    store: Callable[[bytes], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opened = store(b"here")
    opened.put([Message(id="a", recipients=("nobody",), content=b"")])
    opened.close()

    assert (tmp_path / "here").exists()
