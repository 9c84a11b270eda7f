"""What docs/sqs.md shows is so: how a person sends what may have been received, and what `send` does there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from sqs_server import prefix_of
from sqs_wire import SECOND, Raw, fates, ids, mail, opening, settle, take
from test_docs import ROOT, blocks

from outbox import FunctionTransport, Outbox
from outbox.errors import UnsupportedError
from outbox.lifecycle import Fate, Held
from outbox.stores.sqs import DirectoryBlobs, SQSStore
from outbox.testing.clock import ManualClock

PAGE: Final = ROOT / "docs" / "sqs.md"


@pytest.fixture
def open_store(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., SQSStore]]:
    yield from opening(clock, tmp_path)


@pytest.fixture
def recipe() -> dict[str, Any]:
    """The functions that the page shows."""
    known: dict[str, Any] = {}
    for block in blocks(PAGE, PAGE.read_text("utf-8")):
        if block.language == "python" and "def " in block.code:
            exec(compile(block.code, str(block), "exec"), known)
    return known


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_what_may_have_been_received_is_sent_by_a_person_alone_and_to_whom_he_says(
    open_store: Callable[..., SQSStore],
    tmp_path: Path,
    recipe: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    large: bool,
) -> None:
    blobs = DirectoryBlobs(tmp_path / "large")
    store = open_store(blobs=blobs)
    raw = Raw(prefix_of(tmp_path))
    content = b"Subject: x\r\n\r\n" + bytes(400_000 if large else 100)
    store.put([mail("a", recipients=("ann@example.org", "bob@example.org"), content=content)])
    (claim,) = take(store)
    settle(store, claim, Held(fates=fates(claim, Fate.UNCERTAIN), reason="no reply after the dot"))
    raw.send("what a stranger left", "mail-held")
    # By the means of SQS alone it comes back to where it was.
    raw.redrive("mail-held", "mail")
    assert take(store) == []
    assert len(raw.letters("mail-held")) == 2

    asked: list[str] = []

    def answer(words: str) -> str:
        asked.append(words)
        return "bob@example.org"

    recipe["input"] = answer
    recipe["send_again"](raw.client, raw.url("mail-held"), store, blobs)

    said = capsys.readouterr().out
    assert "{'ann@example.org': 'u', 'bob@example.org': 'u'}" in said
    assert "cannot be read" in said
    assert len(asked) == 1
    (again,) = take(store)
    assert again.message.recipients == ("bob@example.org",)
    assert again.message.content == content
    assert again.message.id != "a"
    assert list(again.fates.values()) == [Fate.WAITING]
    assert ids(take(store)) == []


def test_what_is_not_chosen_stays_where_it_is(
    open_store: Callable[..., SQSStore],
    tmp_path: Path,
    recipe: dict[str, Any],
    clock: ManualClock,
) -> None:
    store = open_store()
    store.put([mail("a")])
    (claim,) = take(store)
    settle(store, claim, Held(fates=fates(claim, Fate.UNCERTAIN), reason="no reply"))
    raw = Raw(prefix_of(tmp_path))
    recipe["input"] = lambda _: ""
    recipe["send_again"](raw.client, raw.url("mail-held"), store)

    assert take(store) == []
    assert raw.letters("mail-held") == []
    clock.advance(600 * SECOND)
    assert [body["id"] for body in raw.bodies("mail-held")] == ["a"]


def test_send_is_refused_and_sends_nothing(open_store: Callable[..., SQSStore]) -> None:
    store = open_store()
    sent: list[str] = []
    outbox = Outbox(store, FunctionTransport(lambda message, _: sent.append(message.id)))
    with pytest.raises(UnsupportedError, match="SQSStore"):
        outbox.send(mail("a"))

    assert (sent, take(store)) == ([], [])
    relays = (ROOT / "docs" / "relays.md").read_text("utf-8")
    assert re.search(r"All stores of outbox can do it but \[`SQSStore`\]", relays)
