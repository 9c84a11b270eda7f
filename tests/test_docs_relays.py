"""What docs/relays.md shows is so: its examples run in order, each in the names of those before it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from test_docs import ROOT, blocks

from outbox import FunctionTransport, MemoryStore, Message, Outbox, TempFailed
from outbox.errors import RelayUnavailable
from outbox.lifecycle import Fate, Released
from outbox.locate.config import Config
from outbox.testing.recording import RecordingTransport

PAGE: Final = ROOT / "docs" / "relays.md"
SECTIONS: Final = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
EXAMPLES: Final = {
    text.partition("\n")[0]: [block for block in blocks(PAGE, text) if block.language == "python"]
    for text in SECTIONS[1:]
}
CHAIN: Final = "A second relay when the first fails"
ROUTE: Final = "Different relays for different mail"
TREATED: Final = "How a relay is treated"
SEND: Final = "A mail that goes now"
NOT_SENT: Final = "What is not sent, or not now"

Names: TypeAlias = dict[str, Any]


@pytest.fixture
def bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """The names that the examples bind; what they opened is closed."""
    monkeypatch.chdir(tmp_path)
    names: Names = {}
    yield names
    if "outbox" in names:
        names["outbox"].close()


def play(section: str, names: Names) -> Iterator[Names]:
    """Run the examples of a section in order; what is bound after each."""
    for example in EXAMPLES[section]:
        exec(compile(example.code, str(example), "exec", dont_inherit=True), names)
        yield names


def test_every_example_of_the_page_is_played() -> None:
    assert {heading: len(examples) for heading, examples in EXAMPLES.items()} == {
        CHAIN: 1,
        ROUTE: 2,
        TREATED: 3,
        NOT_SENT: 3,
        SEND: 1,
    }


def test_the_chain_begins_with_the_provider(bound: Names) -> None:
    for names in play(CHAIN, bound):
        assert re.fullmatch(
            r"ChainTransport\(SMTPTransport\('smtp.provider.example'.*SMTPTransport\('relay.other.example'.*",
            repr(names["outbox"].transport),
        )


def test_the_routes_lead_where_the_page_says(bound: Names) -> None:

    domains, queues = [names["transport"] for names in play(ROUTE, bound)]
    message = Message(recipients=("a@corp.example",), content=b"", queue="mail.bulk")

    assert [
        domains.relay(message, f"a@{host}") for host in ("corp.example", "x.corp.example", "example.org")
    ] == ["corp.example", "corp.example", "otherwise"]
    assert queues.relay(message, "a@corp.example") == "mail.bulk"


def test_the_limits_are_those_that_the_configuration_file_says(bound: Names, tmp_path: Path) -> None:
    for names in play(TREATED, bound):
        names["outbox"].close()
    (said,) = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    file = tmp_path / "outbox.toml"
    file.write_text(said, encoding="utf-8")
    message = Message(recipients=("a@corp.example",), content=b"")

    assert Config.load(file, environ={}).limits == bound["limits"]
    assert set(bound["limits"]) == {"*", bound["transport"].relay(message, "a@corp.example")}


def test_who_is_suppressed_suspended_and_held_is_not_written_to(bound: Names) -> None:
    relay = RecordingTransport()
    playing = play(NOT_SENT, bound)
    for _ in range(2):
        next(playing)
    store = bound["store"]
    (suspension,) = store.suspensions()
    outbox = Outbox(store, relay, suppress=bound["suppress"])
    outbox.submit(Message(recipients=("ann@example.com", "bob@example.com", "eve@example.net"), content=b"x"))
    outbox.drain()
    (record,) = store.browse()
    assert record.fates == {
        "ann@example.com": Fate.FAILED,
        "bob@example.com": Fate.ACCEPTED,
        "eve@example.net": Fate.WAITING,
    }
    assert suspension.reason == "their move"
    bound["outbox"].close()


def test_a_hook_holds_what_a_person_has_to_look_at(bound: Names) -> None:
    for _ in play(NOT_SENT, bound):
        """The last one has the hook."""
    bound["store"].close()
    relay = FunctionTransport(lambda *_: TempFailed("452 over quota"))
    outbox = Outbox(MemoryStore(), relay, hook=bound["hook"])
    outbox.submit(Message(recipients=("bob@example.com",), content=b"x"))
    assert outbox.drain().held == 1


def test_a_code_goes_now_and_waits_where_its_relay_is_down(bound: Names) -> None:
    relay = RecordingTransport()
    for names in play(SEND, bound):
        names["outbox"].transport.close()
        names["outbox"] = Outbox(names["outbox"].store, relay)

    assert bound["sign_in"]("ann@example.com", 1234) == "look at your mail"
    relay.fault = RelayUnavailable("mx:25", "connection refused")
    assert bound["sign_in"]("ann@example.com", 5678) == "it may take a few minutes"
    (record,) = bound["outbox"].store.browse()
    assert "connection refused" in record.reason
    assert re.search(rf"`{Released.__name__}`", PAGE.read_text(encoding="utf-8"))
