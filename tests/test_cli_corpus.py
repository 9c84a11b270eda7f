"""Real mails, through the commands, from their files to a server: each has the fate that the table gives it."""

from __future__ import annotations

import re

import pytest
from command_line import CommandLine
from corpus_table import Entry, entries, wire

from outbox.testing.smtp_sink import SMTPSink

ADDED = re.compile(rb"(Message-ID|Date): [^\r]*")


def submitted(outbox: CommandLine, entry: Entry) -> bytes | None:
    """Submit the mail from its file; what was stored of it, or None where it was refused as the table says."""
    entry.read()
    message_id = re.sub(r"[^a-z0-9_-]", "-", entry.name.lower())
    ran = outbox(
        "submit", "-f", "from@example.org", "--id", message_id, "--file", str(entry.path), "to@example.org"
    )
    if entry.fate == "refused":
        assert ran.status == 65, entry.name
        assert f"line {entry.line}: " in ran.complaint
        assert entry.rule in ran.complaint
        return None
    assert (ran.status, ran.out) == (0, f"{message_id}\n"), ran.err
    assert "Traceback" not in ran.err
    return entry.read()


def expected(source: bytes, content: bytes) -> bytes:
    """What must have arrived, where the lines that were added are taken from what did."""
    added = [line for line in content.split(b"\r\n")[:2] if ADDED.fullmatch(line)]
    return wire(source, added)


def dotted(content: bytes) -> bytes:
    """The end of the content as the wire has it: SMTP ends every line."""
    return content if content.endswith(b"\r\n") else content + b"\r\n"


@pytest.fixture
def outbox(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> CommandLine:
    return CommandLine(tmp_path_factory.mktemp("corpus"), monkeypatch, capsys)


def test_every_mail_of_the_corpus_meets_its_fate_on_the_way_to_a_real_server(outbox: CommandLine) -> None:
    with SMTPSink() as sink:
        outbox.environ(OUTBOX_TRANSPORT=sink.url)
        sources = [source for entry in entries() if (source := submitted(outbox, entry)) is not None]
        assert outbox("drain", "-q").status == 0
        received = [message.content for message in sink.messages]
    assert len(received) == len(sources)
    left = list(received)
    for source in sources:
        fits = next((content for content in left if dotted(expected(source, content)) == content), None)
        assert fits is not None, f"no mail arrived as it was submitted: {source[:200]!r}"
        left.remove(fits)
    assert not sink.violations


def test_at_least_forty_of_cpython_s_mails_are_delivered() -> None:
    fates = [entry.fate for entry in entries() if entry.name.startswith("cpython/")]
    assert len(fates) == 48
    assert fates.count("delivered") >= 40
