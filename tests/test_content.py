"""Content at rest: compressed or sealed on the disk, and as it was everywhere else."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings, strategies as st

from outbox import FunctionTransport, Runner
from outbox.contrib.cryptography import Sealed, new_key
from outbox.errors import ConfigurationError, CorruptRecord, StoreUnavailable
from outbox.lifecycle import State
from outbox.stores.content import Codings, ContentCoding, Deflate
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clauses.scene import known, mail, put, states, take

SECRET = b"Subject: your new password\r\n\r\nIt is c4narybody horse battery staple.\r\n" * 20
KEY = new_key()


Open: TypeAlias = Callable[..., Any]


@pytest.fixture(
    params=[
        SQLiteStore,
        pytest.param(
            FilesystemStore,
            marks=pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems"),
        ),
    ]
)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same store each time."""
    return functools.partial(request.param, tmp_path / "outbox")


def codings() -> list[ContentCoding]:
    return [Deflate(), Sealed(KEY)]


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_what_is_coded_comes_back_as_it_was(content: bytes) -> None:
    both = Codings(codings())
    assert both.decode(both.encode(content, "a"), both.name, "a") == content


def test_the_codings_are_applied_in_order_and_named_so() -> None:
    both = Codings(codings())

    assert both.name == f"deflate {Sealed(KEY).name}"
    assert len(both.encode(SECRET, "a")) < len(SECRET) / 2


def test_no_two_contents_are_sealed_with_the_same_nonce() -> None:
    """Under one key and one nonce AES-GCM gives away both contents and lets a stranger forge others."""
    sealed = Sealed(KEY)
    made = [sealed.encode(SECRET, id="a") for _ in range(200)]

    assert len({each[:12] for each in made}) == 200
    assert len({each[12:] for each in made}) == 200
    assert [sealed.decode(each, id="a") for each in made] == [SECRET] * 200


class Named:
    """A coding that does nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def encode(self, content: bytes, /, *, id: str) -> bytes:
        return content

    def decode(self, data: bytes, /, *, id: str) -> bytes:
        return data


class Rotten(Named):
    """The same, which finds what it wrote damaged."""

    def decode(self, data: bytes, /, *, id: str) -> bytes:
        if data == SECRET:
            raise CorruptRecord(f"{id}: it is rotten")
        return data


def test_the_disk_has_nothing_of_it_and_the_transport_all(open_store: Open, tmp_path: Path) -> None:
    store = open_store(coding=codings())
    put(store, mail("a", content=SECRET))

    on_disk = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    (claim,) = take(store)

    assert b"horse" not in on_disk
    assert claim.message.content == SECRET
    assert known(store, "a").message.content == SECRET
    assert store.browse()[0].size == len(SECRET)
    store.close()


def test_earlier_keys_go_on_reading_what_they_sealed(open_store: Open) -> None:
    old, new = Sealed(KEY), Sealed(new_key())
    for id, coding in (("plain", []), ("old", [old]), ("new", [new])):
        store = open_store(coding=coding)
        put(store, mail(id, content=SECRET))
        store.close()

    store = open_store(coding=[new], also_reads=[old])
    assert {claim.message.id: claim.message.content for claim in take(store)} == dict.fromkeys(
        ("plain", "old", "new"), SECRET
    )
    store.close()


@pytest.mark.parametrize("keys", [[], [Sealed(new_key())]], ids=["no key", "another key"])
def test_a_process_without_the_key_holds_nothing_and_says_what_it_lacks(
    open_store: Open, keys: list[ContentCoding]
) -> None:
    sealing = open_store(coding=[Sealed(KEY)])
    put(sealing, mail("a", content=SECRET))
    ignorant = open_store(coding=keys)

    with pytest.raises(
        ConfigurationError, match=f"'{Sealed(KEY).name}', and this store was opened without it"
    ):
        take(ignorant)

    assert states(sealing) == {"a": State.QUEUED}
    assert [claim.attempt for claim in take(sealing)] == [1]
    sealing.close()
    ignorant.close()


def test_check_names_what_this_process_was_not_told_how_to_read(open_store: Open) -> None:
    sealing = open_store(coding=[Sealed(KEY)])
    put(sealing, mail("a", content=SECRET))
    ignorant = open_store()

    found = [str(finding) for finding in ignorant.check() if finding.level != "ok"]
    assert any("opened without" in text for text in found), found
    assert {finding.level for finding in sealing.check()} <= {"ok", "warning"}
    sealing.close()
    ignorant.close()


def test_a_drain_without_the_key_ends_with_what_is_missing_and_touches_nothing(open_store: Open) -> None:
    sealing = open_store(coding=[Sealed(KEY)])
    put(sealing, mail("a", content=SECRET))
    ignorant = open_store()

    with pytest.raises(ConfigurationError, match="this store was opened without it"):
        Runner(ignorant, FunctionTransport(lambda message, recipient: None)).drain()
    assert states(sealing) == {"a": State.QUEUED}
    sealing.close()
    ignorant.close()


def test_what_cannot_be_decoded_is_held_with_the_reason(open_store: Open) -> None:
    store = open_store(coding=[Named("rot")])
    put(store, mail("a", content=SECRET), mail("b", content=b"well"))
    store.close()

    store = open_store(coding=[Rotten("rot")])
    assert [claim.message.id for claim in take(store)] == ["b"]
    (held, _) = store.browse()
    assert (held.state, "rotten" in held.reason) == (State.HELD, True)
    store.close()


class Remote(Named):
    """A coding that asks a service for its key."""

    fault: Exception | None = None

    def encode(self, content: bytes, /, *, id: str) -> bytes:
        return self.decode(content, id=id)

    def decode(self, data: bytes, /, *, id: str) -> bytes:
        if self.fault is not None:
            raise self.fault
        return data


@pytest.mark.parametrize(
    "fault", [ConnectionError("refused"), TimeoutError(), RuntimeError("502 of the service")]
)
def test_a_key_service_that_is_down_holds_nothing_and_is_asked_again(
    open_store: Open, fault: Exception
) -> None:
    coding = Remote("remote")
    store = open_store(coding=[coding])
    put(store, *(mail(id, content=SECRET) for id in "abc"))

    coding.fault = fault
    for read in (lambda: take(store), lambda: store.get("a")):
        with pytest.raises(StoreUnavailable, match="'remote'") as caught:
            read()
        assert caught.value.__cause__ is fault
    assert states(store) == dict.fromkeys("abc", State.QUEUED)
    assert not [finding for finding in store.check() if finding.level == "error" and "damage" in finding.text]

    coding.fault = None
    assert [(claim.message.id, claim.attempt) for claim in take(store)] == [("a", 1), ("b", 1), ("c", 1)]
    store.close()


def test_a_key_service_that_is_down_lets_nothing_in(open_store: Open) -> None:
    coding = Remote("remote")
    store = open_store(coding=[coding])

    coding.fault = ConnectionError("refused")
    with pytest.raises(StoreUnavailable, match=r"a cannot be coded .*'remote': refused"):
        put(store, mail("a", content=SECRET))
    assert states(store) == {}

    coding.fault = None
    put(store, mail("a", content=SECRET))
    assert states(store) == {"a": State.QUEUED}
    store.close()


def test_what_a_coding_calls_a_wrong_value_is_damage(open_store: Open) -> None:
    coding = Remote("remote")
    store = open_store(coding=[coding])
    put(store, mail("a", content=SECRET))

    coding.fault = ValueError("no block of ours")
    assert take(store) == []
    (held,) = store.browse()
    assert (held.state, "no block of ours" in held.reason) == (State.HELD, True)
    store.close()


def test_sealed_content_cannot_be_moved_under_another_id() -> None:
    sealed = Sealed(KEY)
    with pytest.raises(CorruptRecord):
        sealed.decode(sealed.encode(SECRET, id="a"), id="b")


@settings(deadline=None)
@given(st.data())
@pytest.mark.parametrize("coding", [Deflate(), Sealed(KEY)], ids=lambda coding: type(coding).__name__)
def test_a_changed_byte_is_noticed(coding: ContentCoding, data: st.DataObject) -> None:
    kept = bytearray(coding.encode(SECRET, id="a"))
    at = data.draw(st.integers(2, len(kept) - 1))
    kept[at] ^= data.draw(st.integers(1, 255))

    try:
        assert coding.decode(bytes(kept), id="a") == SECRET
    except CorruptRecord:
        return


def test_no_key_is_ever_shown() -> None:
    assert re.fullmatch(r"Sealed\('aes256gcm\.[0-9a-f]{16}'\)", repr(Sealed(KEY)))
    with pytest.raises(ConfigurationError) as caught:
        Sealed(b"short secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Codings([Named("two words")]),
        lambda: Codings([Named("")]),
        lambda: Deflate(99),
        lambda: Codings([Deflate()], [Deflate()]),
        lambda: Codings(Deflate()),  # type: ignore[arg-type]  # that is the point
        lambda: Codings([object()]),  # type: ignore[list-item]  # that is the point
        lambda: Sealed(b"x" * 31),
    ],
)
def test_a_name_or_key_that_is_none_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigurationError):
        make()
