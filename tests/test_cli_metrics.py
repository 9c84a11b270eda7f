"""`outbox run --metrics`: one address for all that deliver, and --log-format."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest
from command_line import CommandLine
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from started import PATIENCE, Listening, Started, put_mail

from outbox.cli.exits import Exit
from outbox.cli.metrics import Metrics
from outbox.contrib import prometheus
from outbox.locate import Config
from outbox.testing.smtp_sink import SMTPSink

ANY = "127.0.0.1:0"


def scraped(url: str) -> Mapping[str, float]:
    """The samples by name and labels, read by prometheus_client's own parser."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def url_in(line: str) -> str:
    found = re.search(r"http://[^ \"]+/metrics", line)
    assert found, line
    return found[0]


def until(url: str, name: str, number: float) -> Mapping[str, float]:
    """What is scraped once *name* has reached *number*: what a worker has sent is told when it is written."""
    numbers: Mapping[str, float] = {}
    for _ in range(2000):
        numbers = scraped(url)
        if numbers.get(name, 0) >= number:
            return numbers
    raise AssertionError(f"{name} is {numbers.get(name)}: {numbers}")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_numbers_of_all_processes_are_at_one_address(
    outbox: CommandLine, sink: SMTPSink, processes: str
) -> None:
    sink.on("rcpt", reply="550 5.1.1 no such user", times=2)
    put_mail(outbox.path, 12)
    with Started("--processes", processes, "--metrics", ANY) as run:
        url = url_in(run.wait_for("msg=metrics"))
        sink.wait_for(10)
        until(url, "outbox_attempts_total mail", 12)
        # What is scraped in the midst of a note has part of it.
        until(url, "outbox_recipients_total 5xx mail permfailed", 2)
        numbers = until(url, "outbox_delivery_seconds_count mail", 12)
        assert numbers["outbox_verdicts_total mail delivered"] == 10
        assert numbers["outbox_verdicts_total mail dead"] == 2
        assert numbers["outbox_recipients_total 5xx mail permfailed"] == 2
        assert numbers["outbox_delivery_seconds_count mail"] == 12
        assert numbers["outbox_store_up"] == 1
        assert numbers["outbox_messages mail dead"] <= 2
        assert f"outbox_relay_paused unavailable 127.0.0.1:{sink.port}" in numbers
        assert not any("_created" in name for name in numbers)
        run.signal()
        assert run.ended() == 0, run.err


def test_what_a_killed_process_has_counted_stays_counted_and_its_successor_counts_on(
    outbox: CommandLine, sink: SMTPSink
) -> None:
    put_mail(outbox.path, 10)
    with Started("--processes", "2", "--metrics", ANY) as run:
        url = url_in(run.wait_for("msg=metrics"))
        sink.wait_for(10)
        until(url, "outbox_attempts_total mail", 10)
        for pid in run.children():
            os.kill(pid, signal.SIGKILL)
        run.wait_for("was killed by SIGKILL", 2)
        assert scraped(url)["outbox_attempts_total mail"] == 10
        put_mail(outbox.path, 10)
        sink.wait_for(20)
        assert until(url, "outbox_attempts_total mail", 20)["outbox_attempts_total mail"] == 20
        run.signal()
        assert run.ended() == 0, run.err


def test_the_store_of_the_settings_of_now_is_counted(outbox: CommandLine) -> None:
    put_mail(outbox.path, 3)
    metrics = Metrics(Config(store=f"sqlite:///{outbox.path}"))
    assert [(count.queue, count.number) for count in metrics.look().counts] == [("mail", 3)]
    put_mail(outbox.home / "new.db", 2)
    metrics.config = Config(store=f"sqlite:///{outbox.home / 'new.db'}")
    assert [count.number for count in metrics.look().counts] == [2]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP")
@pytest.mark.parametrize("processes", ["1", "2"])
def test_queues_of_new_settings_have_their_zeros(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening, processes: str
) -> None:
    with Started("--processes", processes, "--metrics", ANY) as run:
        url = url_in(run.wait_for("msg=metrics"))
        systemd.wait_for("READY=1")
        (outbox.home / "empty.toml").write_text('queues = ["new", "mail"]\n', "utf-8")
        run.signal(signal.SIGHUP)
        systemd.wait_for("RELOADING=1")
        systemd.wait_for("READY=1")
        numbers = scraped(url)
        run.signal()
        assert run.ended() == 0, run.err
    for name in ("messages new queued", "due new", "verdicts_total new dead", "due mail"):
        assert numbers[f"outbox_{name}"] == 0


def test_an_address_that_is_taken_is_one_line_and_a_setting_to_mend(
    outbox: CommandLine, sink: SMTPSink
) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = outbox("run", "--metrics", address)
    assert ran.status == Exit.CONFIGURATION
    assert ran.complaint == f"cannot serve metrics at {address}: Address already in use"


@pytest.mark.parametrize("address", ["9464", "127.0.0.1:", "127.0.0.1:70000", ":9464", "h:-1", ""])
def test_what_is_no_address_is_refused(outbox: CommandLine, address: str) -> None:
    ran = outbox("run", "--metrics", address)
    assert ran.status == Exit.USAGE
    assert "--metrics" in ran.complaint


def test_where_the_extra_is_missing_it_is_named(
    outbox: CommandLine, sink: SMTPSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "outbox.contrib.prometheus")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delattr("outbox.contrib.prometheus")
    ran = outbox("run", "--metrics", ANY)
    assert ran.status == Exit.CONFIGURATION
    assert 'pip install "durable-outbox[prometheus]"' in ran.complaint


def test_a_place_is_taken_by_one_process_at_a_time_and_again_when_that_is_gone(tmp_path: Path) -> None:
    gauge = tmp_path / "gauge_livemax_0.db"
    gauge.touch()
    taken = [prometheus.take_place(tmp_path) for _ in range(3)]
    assert [place for place, _ in taken] == [0, 1, 2]
    assert not gauge.exists(), "how relays are is not left to who comes after"
    os.close(taken[1][1])
    place, held = prometheus.take_place(tmp_path)
    assert place == 1
    for descriptor in (taken[0][1], held, taken[2][1]):
        os.close(descriptor)


def test_an_endpoint_is_gone_with_its_block() -> None:
    with prometheus.serving("127.0.0.1", 0, CollectorRegistry()) as port:
        assert scraped(f"http://127.0.0.1:{port}/metrics") == {}
    with contextlib.closing(socket.socket()) as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


# -- how lines look


def test_a_drain_writes_json_where_that_is_asked_for(outbox: CommandLine, sink: SMTPSink) -> None:
    sink.on("rcpt", "gone@example.org", reply="550 5.1.1 no \x1b[2Jsuch user")
    outbox.submit("ann@example.org", "gone@example.org")
    ran = outbox("drain", "--log-format", "json")
    lines = [json.loads(line) for line in ran.err.splitlines()]
    assert [(line.get("status"), line["level"]) for line in lines] == [
        ("sent", "info"),
        ("failed", "warning"),
        (None, "info"),
    ]
    assert lines[0]["attempts"] == 1
    assert isinstance(lines[0]["took"], float)
    assert lines[2]["msg"] == "drained"
    assert "\x1b" not in ran.err
    assert r"\x1b" in lines[1]["reply"]


def test_what_is_wrong_is_a_line_of_the_same_form(outbox: CommandLine) -> None:
    outbox.environ(OUTBOX_TRANSPORT="smtp://127.0.0.1:1")
    outbox.submit("ann@example.org")
    ran = outbox("drain", "--log-format", "json")
    (line,) = [json.loads(line) for line in ran.err.splitlines() if "relay 127.0.0.1:1" in line]
    assert (line["level"], ran.status) == ("error", Exit.TEMPORARY)
    ran = outbox("drain", "--log-format", "logfmt")
    assert 'level=error msg="relay 127.0.0.1:1: ' in ran.err


def test_words_may_be_asked_for_where_nobody_watches(outbox: CommandLine, sink: SMTPSink) -> None:
    outbox.submit("ann@example.org")
    ran = outbox("drain", "--log-format", "text")
    assert "1 delivered" in ran.err
    assert "level=" not in ran.err


def test_each_process_of_several_writes_in_the_form_that_was_asked_for(
    outbox: CommandLine, sink: SMTPSink
) -> None:
    put_mail(outbox.path, 2)
    with Started("--processes", "2", "--log-format", "json") as run:
        run.wait_for('"status": "sent"', 2)
        run.signal()
        assert run.ended() == 0, run.err
    # What a signal says is said at once, as it is.
    assert [json.loads(line)["level"] for line in run.lines if not line.startswith("outbox: stopping")]
