"""The scan of all that the product says finds what is planted, says in which test and where, and excuses nothing unasked."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from canaries import BODY, PASSWORD, TOKEN, leaks

CONFTEST: Final = """
from scan import SCAN

def pytest_configure(config):
    config.pluginmanager.register(SCAN)
"""

PLANTED: Final = """
import logging, subprocess, sys, threading, warnings
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, Counter, generate_latest
from canaries import BODY, PASSWORD, TOKEN
from scan import said
from outbox.errors import ConfigurationError, RelayUnavailable, StoreError

log = logging.getLogger("outbox.delivery")
SECRETS = pytest.mark.parametrize("secret", [PASSWORD, BODY, "\\x1b[2J"])

def test_a_message_of_a_log():
    log.error("%s was refused", TOKEN)

def test_a_message_that_nobody_asked_for():
    log.debug("%s was refused", TOKEN)

def test_a_control_character_that_a_formatter_of_one_s_own_shows():
    log.error("550 \\x1b[2J", extra={"reply": "x"})

def test_a_field_of_a_log():
    log.error("x", extra={"reply": PASSWORD})

def test_a_traceback_of_a_log():
    try:
        try:
            raise KeyError(PASSWORD)
        except KeyError as error:
            raise ValueError("no") from error
    except ValueError:
        log.exception("x")

@SECRETS
def test_a_line_of_a_command(capsys, secret):
    print("  ", secret)
    capsys.readouterr()

def test_a_line_that_nobody_read():
    print(PASSWORD, file=sys.stderr)

@SECRETS
def test_a_line_of_another_process(secret):
    subprocess.run([sys.executable, "-c", "import sys; print(sys.argv[1])", secret], capture_output=True)

def test_a_line_of_another_process_in_bytes_that_are_no_text():
    subprocess.run([sys.executable, "-c", "import os; os.write(2, bytes([255]))"], stderr=subprocess.PIPE)

def test_what_a_helper_has():
    said(b"the " + BODY.encode(), "a page")

def test_an_error():
    with pytest.raises(StoreError):
        raise StoreError(f"cannot log in with {PASSWORD}")

def test_the_cause_of_an_error():
    with pytest.raises(ConfigurationError):
        raise ConfigurationError("bad") from ValueError(f"cannot log in with {PASSWORD}")

def test_a_fault_that_is_raised_by_nobody():
    RelayUnavailable("mx:25", f"535 {PASSWORD} is wrong")

def test_is_well_but_for_a_warning():
    warnings.warn(f"{PASSWORD} is short")

def test_behind_a_warning():
    pass

def test_a_label_of_a_metric():
    registry = CollectorRegistry()
    Counter("c", "d", ["relay"], registry=registry).labels(f"{PASSWORD}@mx").inc()
    generate_latest(registry)

def test_a_metric_of_opentelemetry():
    reader = InMemoryMetricReader()
    meters = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    meters.get_meter("m").create_counter("c").add(1, {"relay": f"{PASSWORD}@mx"})
    reader.get_metrics_data()
    meters.shutdown()

def test_a_span():
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    with tracers.get_tracer("t").start_as_current_span("s", attributes={"reply": PASSWORD}):
        pass

def test_what_a_thread_says():
    thread = threading.Thread(target=log.error, args=(PASSWORD,))
    thread.start()
    thread.join()

@pytest.fixture
def late():
    yield
    log.error(PASSWORD)

def test_what_is_said_when_it_ends(late):
    pass

@pytest.mark.shows("a body", because="it is asked for")
def test_another_kind_than_is_excused(capsys):
    print(BODY, PASSWORD)
    capsys.readouterr()

@pytest.mark.shows("a body", because="it is asked for")
def test_what_is_excused_and_is_not_there():
    pass

@pytest.mark.shows("a body")
def test_an_excuse_without_a_reason(capsys):
    print(BODY)
    capsys.readouterr()

@pytest.mark.shows("a body", because="it is asked for")
def test_is_well_because_it_is_excused(capsys):
    print(BODY)
    capsys.readouterr()

@pytest.mark.shows("a body", because="it is asked for")
def test_is_well_because_it_is_skipped():
    pytest.skip("not here")

def test_is_well():
    log.error("550 no", extra={"reply": "550 no\\n\\x1b"})
    print("a\\tb\\nü 漢字 é")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run of the planted tests says, in a process of xdist's."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "conftest.py").write_text(CONFTEST, "utf-8")
    (folder / "test_planted.py").write_text(PLANTED, "utf-8")
    path = os.pathsep.join([os.fspath(Path(__file__).parent), *sys.path])
    with open(folder / "told", "wb+") as told:  # noqa: PTH123 - what it tells is full of what is looked for here
        command = [sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "no:cacheprovider", "--tb=short"]
        subprocess.run(
            [*command, "--rootdir", folder],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            stdout=told,
            check=False,
        )
    return (folder / "told").read_text("utf-8")


@pytest.mark.parametrize("name", re.findall(r"^def (test_\w+)", PLANTED, re.MULTILINE))
def test_what_is_planted_is_found_and_nothing_else(run: str, name: str) -> None:
    ended = re.findall(rf"^ERROR test_planted.py::{name}(?:$|\[| )", run, re.MULTILINE)
    parameters = PLANTED.split(f"def {name}(")[0].endswith("@SECRETS\n")
    assert len(ended) == (0 if "_is_well" in name else 3 if parameters else 1), run


def test_a_warning_is_told_by_the_next_test(run: str) -> None:
    assert "a password in a warning, at the time of test_planted.py::test_is_well_but_for_a_warning:" in run


def test_who_has_shown_something_is_told_the_test_the_place_and_what_stood_around_it(run: str) -> None:
    told = "a token in a log record of outbox.delivery, at the time of test_planted.py::test_a_message_of_a_log: …"
    assert told in run
    assert f"{TOKEN} was refused" in run.split(told)[1].splitlines()[0]


WAYS: Final[Mapping[str, Callable[[str], str]]] = {
    "": str,
    "in capitals": str.upper,
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "base64, with a user": lambda secret: base64.b64encode(f"\0app\0{secret}".encode()).decode(),
    "base64, with another user": lambda secret: base64.b64encode(f"\0apps\0{secret}".encode()).decode(),
    "base64, with a third": lambda secret: base64.b64encode(f"\0ap\0{secret}x".encode()).decode(),
    "hexadecimal": lambda secret: secret.encode().hex(),
    "hexadecimal in capitals": lambda secret: secret.encode().hex().upper(),
    "percent-encoded": lambda secret: "".join(f"%{ord(char):02X}" for char in secret),
    "percent-encoded where it must be": lambda secret: quote(f"/{secret}/", safe=""),
    "UTF-16": lambda secret: secret.encode("utf-16-le").decode("latin-1"),
    "UTF-16, the other way": lambda secret: repr(secret.encode("utf-16-be")),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("secret", [PASSWORD, TOKEN, BODY])
def test_a_secret_is_found_however_it_is_spelled(secret: str, way: str) -> None:
    kinds = {PASSWORD: "a password", TOKEN: "a token", BODY: "a body"}
    found = [kind for kind, _ in leaks(f"535 you said {WAYS[way](secret)} to me")]
    assert kinds[secret] in " ".join(found)
    assert not [kind for kind in found if kind.startswith(tuple(set(kinds.values()) - {kinds[secret]}))]


@pytest.mark.parametrize(
    "char",
    [
        *"\0\x07\x08\r\x0b\x0c\x1b\x7f\x80\x85\x9b",
        *"\u061c\u200e\u200f\u2028\u2029\u202e\u2066\u2069",
        "\udcff",
    ],
)
def test_every_control_character_is_found(char: str) -> None:
    assert [kind for kind, _ in leaks(f"a{char}b")] == ["a control character"]
    assert list(leaks(f"a{char.encode('unicode_escape').decode()}b")) == []


def test_a_line_end_is_one_only_in_a_line() -> None:
    assert list(leaks("a\tb\nc")) == []
    assert [kind for kind, _ in leaks("a\nb", lines=False)] == ["a control character"]
