"""The command and URLs with queues of SQS: what is there, what lacks, and no credential anywhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from canaries import BODY, PASSWORD
from command_line import CommandLine
from sqs_server import endpoint, prefix_of

from outbox.cli import installed
from outbox.errors import ConfigurationError
from outbox.locate import masked, store_from_url
from outbox.protocols import Guarantee
from outbox.stores.sqs import SQSStore
from outbox.testing import SMTPSink

MAIL = f"From: a@example.org\r\nTo: ann@example.org\r\nSubject: x\r\n\r\n{BODY}\r\n".encode()


@pytest.fixture
def url(tmp_path: Path, outbox: CommandLine, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of its own; the command finds credentials where all of AWS's tools do."""
    monkeypatch.setattr(installed, "_others", lambda _home: set())
    outbox.environ(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY=PASSWORD, AWS_SESSION_TOKEN=PASSWORD)
    return (
        f"sqs://eu-central-1/{prefix_of(tmp_path)}?endpoint={endpoint()}&blobs={tmp_path / 'large'}&poll=0s"
    )


def test_what_is_missing_is_found_made_and_then_well(outbox: CommandLine, url: str) -> None:
    outbox.environ(OUTBOX_STORE=url)
    before = outbox("check", "--json").data["findings"]
    missing = [each for each in before if each["level"] == "error" and "is not there" in each["text"]]
    assert len(missing) == 3
    assert all("outbox migrate" in each["advice"] for each in missing)

    assert len(outbox("migrate").out.splitlines()) == 3
    after = outbox("check", "--json").data["findings"]
    assert [each for each in after if each["level"] == "error"] == []
    lacking = [each["text"] for each in after if "does not promise" in each["text"]]
    assert len(lacking) == len(SQSStore.lacks)
    for guarantee in Guarantee:
        assert any(f"promise {guarantee}:" in text for text in lacking) == (guarantee in SQSStore.lacks)


def test_what_the_error_of_a_missing_queue_names_makes_it(
    outbox: CommandLine, url: str, sink: SMTPSink
) -> None:
    outbox.environ(OUTBOX_STORE=url)
    assert outbox("migrate").status == 0
    submit = ("submit", "--queue", "bulk", "ann@example.org")

    refused = outbox(*submit, stdin=MAIL)
    assert refused.status == 75
    command = re.search(r"`outbox ([^`]+)` makes it", refused.complaint)
    assert command is not None
    assert len(outbox(*command[1].split()).out.splitlines()) == 3

    assert outbox(*submit, stdin=MAIL).status == 0
    assert outbox("drain", "--queue", "bulk").status == 0
    assert [message.recipients for message in sink.messages] == [("ann@example.org",)]


@pytest.mark.parametrize("said", ["queues", "url", "both"])
def test_migrate_makes_and_check_finds_each_queue_that_the_settings_name(
    outbox: CommandLine, url: str, said: str
) -> None:
    served = '["mail", "bulk"]' if said == "queues" else '["mail"]'
    (outbox.home / "outbox.toml").write_text(f"queues = {served}\n" if said != "url" else "", "utf-8")
    named = "" if said == "queues" else "&queues=bulk" if said == "both" else "&queues=mail,bulk"
    outbox.environ(OUTBOX_STORE=url + named, OUTBOX_CONFIG=str(outbox.home / "outbox.toml"))

    missing = [
        each["text"] for each in outbox("check", "--json").data["findings"] if each["level"] == "error"
    ]
    assert len(missing) == 6
    assert len(outbox("migrate").out.splitlines()) == 6
    assert outbox("migrate").out.startswith("there was nothing to do")
    texts = [each["text"] for each in outbox("check", "--json").data["findings"]]
    for queue in ("mail", "bulk"):
        assert any(text.startswith(f"queue {queue}: ") for text in texts)


def test_a_mail_is_submitted_and_drained(outbox: CommandLine, url: str, sink: SMTPSink) -> None:
    outbox.environ(OUTBOX_STORE=url + "&create=yes")

    assert outbox("submit", "ann@example.org", stdin=MAIL).status == 0
    assert outbox("drain").status == 0

    assert [message.recipients for message in sink.messages] == [("ann@example.org",)]


def test_what_it_cannot_do_is_said(outbox: CommandLine, url: str) -> None:
    outbox.environ(OUTBOX_STORE=url + "&create=yes")

    for command in (("list",), ("status",), ("wait",), ("explain", "a"), ("show", "a")):
        assert "`outbox check`" in outbox(*command).complaint
    for command in (("list",), ("cancel", "a"), ("show", "a")):
        ran = outbox(*command)
        assert ran.status != 0
        assert "SQSStore" in ran.complaint or "store" in ran.complaint


def test_a_command_without_credentials_ends_with_what_a_person_has_to_mend(
    outbox: CommandLine, url: str, tmp_path: Path, sink: SMTPSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    nowhere = str(tmp_path / "there-is-none")
    outbox.environ(AWS_CONFIG_FILE=nowhere, AWS_SHARED_CREDENTIALS_FILE=nowhere, BOTO_CONFIG=nowhere)
    outbox.environ(AWS_EC2_METADATA_DISABLED="true", OUTBOX_STORE=url)
    commands = [("submit", "ann@example.org"), ("drain", "--transport", sink.url), ("migrate",)]
    for command in commands:
        ran = outbox(*command, stdin=MAIL)
        assert (command, ran.status) == (command, 78)
        assert "AWS_ACCESS_KEY_ID" in ran.complaint
    errors = [each for each in outbox("check", "--json").data["findings"] if each["level"] == "error"]
    assert any("AWS_ACCESS_KEY_ID" in each["text"] for each in errors)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"sqs://AKIA:{PASSWORD}@eu-central-1/", "without a key"),
        ("sqs://AKIA@eu-central-1/", "without a key"),
        (f"sqs://eu-central-1/?endpoint=http://AKIA:{PASSWORD}@localhost:1", "no key belongs in it"),
        (f"sqs://eu-central-1/?endpoint=http://AKIA:{PASSWORD}/ET@localhost:1", "no key belongs in it"),
        (f"sqs://eu-central-1/?endpoint=http://{PASSWORD}:77/ET@localhost:1", "no key belongs in it"),
        ("sqs://eu-central-1/?endpoint=http://localhost:port", "http://host:port"),
        ("sqs://eu-central-1/?endpoint=http://[localhost", "http://host:port"),
        ("sqs://eu-central-1/?blobs=s3://[bucket", "s3://bucket/prefix"),
        (f"sqs://eu-central-1/?secret={PASSWORD}", "unknown option 'secret'"),
        ("sqs://eu-central-1/a/b", "begin with"),
        ("sqs://eu-central-1/a?endpoint=ftp://host", "http://host:port"),
        ("sqs://eu-central-1/a?blobs=relative", "s3://bucket/prefix"),
        ("sqs://eu-central-1/a?max_message=3MiB", "max_message"),
        ("sqs://eu-central-1/a?poll=30s", "poll"),
        ("sqs://eu-central-1/a?queues=Mail", "queue"),
        ("sqs://eu-central-1/a?profile=nobody-has-this", "profile"),
    ],
)
def test_a_url_that_cannot_be_is_refused_and_says_no_secret(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        store_from_url(text)

    said = str(caught.value) + masked(text)
    assert words in said
    assert PASSWORD not in said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"sqs://AKIACANARY:{PASSWORD}@eu-central-1/outbox-", "sqs://***@eu-central-1/outbox-"),
        (f"sqs://{PASSWORD}:AKIACANARY@eu-central-1/outbox-", "sqs://***@eu-central-1/outbox-"),
        (f"sqs://{PASSWORD}/+:AKIACANARY@eu-central-1/outbox-", "sqs://***@eu-central-1/outbox-"),
        ("sqs://AKIACANARY@eu-central-1/outbox-?poll=5s", "sqs://***@eu-central-1/outbox-?poll=5s"),
        (f"SQS:AKIACANARY:{PASSWORD}@eu-central-1", "SQS:***@eu-central-1"),
        (f"sqs://AKIACANARY:{PASSWORD}?@eu-central-1", "sqs://***@eu-central-1"),
        (f"sqs://AKIACANARY:{PASSWORD}/outbox-", "sqs://***"),
        ("sqs://eu-central-1/a?queues=x,y", "sqs://eu-central-1/a?queues=x,y"),
        (
            f"sqs://eu-central-1/?endpoint=http://AKIA:{PASSWORD}@h:1",
            "sqs://eu-central-1/?endpoint=http:***@h:1",
        ),
    ],
)
def test_of_a_key_in_a_url_nothing_is_shown_nor_of_its_id(text: str, shown: str) -> None:
    assert masked(text) == shown
    if "CANARY" in text:
        with pytest.raises(ConfigurationError) as caught:
            store_from_url(text)
        assert "CANARY" not in str(caught.value) + repr(caught.value)


def test_a_command_shows_neither_a_key_in_its_url_nor_its_id(outbox: CommandLine) -> None:
    ran = outbox("check", "--store", f"sqs://AKIACANARY:{PASSWORD}@eu-central-1/outbox-")
    assert ran.status == 2
    assert "without a key" in ran.out + ran.complaint
    assert "AKIACANARY" not in ran.out + ran.complaint
    assert PASSWORD not in ran.out + ran.complaint


@pytest.mark.parametrize(
    ("place", "prefix"),
    [("bucket", ""), ("bucket/", ""), ("bucket/x", "x/"), ("bucket/x/", "x/"), ("bucket/x/y", "x/y/")],
)
def test_content_set_aside_is_in_a_folder_of_its_bucket(place: str, prefix: str) -> None:
    store = store_from_url(f"sqs://eu-west-1/shop-?endpoint={endpoint()}&blobs=s3://{place}")
    assert isinstance(store, SQSStore)
    assert repr(store._packing._blobs) == f"<S3Blobs 'bucket' {prefix!r}>"
    store.close()


def test_a_url_says_all_that_there_is_to_say(tmp_path: Path) -> None:
    store = store_from_url(
        f"sqs://eu-west-1/shop-?endpoint={endpoint()}&blobs=s3://bucket/x&max_message=1MiB&poll=5s&queues=mail,tasks"
    )

    assert isinstance(store, SQSStore)
    assert store._client._client().meta.region_name == "eu-west-1"
    assert repr(store._packing._blobs) == "<S3Blobs 'bucket' 'x/'>"
    assert store._queues == ["mail", "tasks"]
    store.close()
