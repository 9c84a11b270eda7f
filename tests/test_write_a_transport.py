"""The transport of docs/write-a-transport.md is what the page says: held to the suite, with the gaps it names."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pages import files_of, imported, saved
from suite_runs import failures, pytest_in
from test_docs import ROOT, blocks

from outbox import Accepted, Message, Outbox, RelayUnavailable, TempFailed
from outbox.stores.memory import MemoryStore
from outbox.testing import SMTPSink

PAGE: Final = ROOT / "docs" / "write-a-transport.md"
TEXT: Final = PAGE.read_text(encoding="utf-8")
FILES: Final = files_of(blocks(PAGE, TEXT))
TRANSPORT, SUITE = "plain_smtp.py", "test_plain_smtp.py"
CLAUSES: Final = {
    "LEAVES": "test_a_server_that_leaves_before_the_last_byte_took_nothing",
    "STALLS": "test_a_server_that_says_nothing_before_the_last_byte_is_given_up_in_time",
    "CUTS": "test_an_acceptance_that_was_cut_is_none",
    "BREAKS": "test_a_fault_in_the_middle_is_returned_with_what_is_known",
}
"""By gap, the clause that is not kept.  Whoever drips would be waited for without end."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(FILES, tmp_path / "page")


@pytest.fixture
def plain(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with imported("plain_smtp", folder, monkeypatch) as module:
        yield module


def message(*recipients: str) -> Message:
    return Message(
        sender="shop@example.org", recipients=recipients, content=b"Subject: Hello\r\n\r\nHello.\r\n"
    )


def test_the_page_is_made_of_two_files() -> None:
    assert set(FILES) == {TRANSPORT, SUITE}


def test_deliver_and_what_it_calls_are_thirty_lines() -> None:
    tree = ast.parse(FILES[TRANSPORT])
    defined = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    lines = [ast.unparse(node).splitlines() for node in defined]

    assert sum(map(len, lines)) <= 36
    assert len(FILES[TRANSPORT][FILES[TRANSPORT].index("class") :].splitlines()) > 25


def test_the_suite_passes_with_the_gaps_that_the_page_names(folder: Path) -> None:
    run = pytest_in(folder, "-rs", str(folder))

    assert re.search(r"^\d\d passed, \d\d skipped, 1 xfailed", run, re.MULTILINE), run
    assert "leaves in the middle of a message" in run


def test_each_gap_is_one(folder: Path) -> None:
    (folder / SUITE).write_text(
        re.sub(r"^GAPS = .*$", "GAPS = {Behaviour.DRIPS}", FILES[SUITE], flags=re.MULTILINE)
    )
    tests = [f"{folder / SUITE}::TestPlainTransport::{clause}" for clause in CLAUSES.values()]

    assert failures(pytest_in(folder, *tests))["PlainTransport"] == set(CLAUSES.values())


def test_it_carries_mail(plain: Any) -> None:
    with SMTPSink(manners="strict") as sink:
        sink.on("rcpt", "grey@example.org", reply="450 4.7.1 later", times=1)
        with contextlib.closing(Outbox(MemoryStore(), plain.PlainTransport(sink.host, sink.port))) as outbox:
            outbox.submit(message("ann@example.org", "grey@example.org"))
            outbox.drain()
        assert [each.recipients for each in sink.messages] == [("ann@example.org",)]


def test_whom_a_421_names_not_is_put_off_and_not_accepted(plain: Any) -> None:
    with SMTPSink() as sink:
        sink.on("rcpt", "bob@example.org", reply="421 4.3.2 closing", close=True)
        transport = plain.PlainTransport(sink.host, sink.port)
        outcome = transport.deliver(
            message("ann@example.org", "bob@example.org"), ["ann@example.org", "bob@example.org"]
        )

    assert {type(result) for result in outcome.results.values()} == {TempFailed}
    assert sink.messages == ()


def test_content_with_8_bit_letters_is_declared(plain: Any) -> None:
    with SMTPSink(manners="strict") as sink:
        mail = Message(recipients=["ann@example.org"], content="Subject: Hello\r\n\r\nGrüße\r\n".encode())
        outcome = plain.PlainTransport(sink.host, sink.port).deliver(mail, mail.recipients)

    assert {type(result) for result in outcome.results.values()} == {Accepted}


def test_nobody_there_is_a_fault_of_the_relay(plain: Any) -> None:
    with SMTPSink() as sink:
        port = sink.port
    with pytest.raises(RelayUnavailable):
        plain.PlainTransport("127.0.0.1", port).deliver(message("ann@example.org"), ["ann@example.org"])
