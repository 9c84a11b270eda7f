"""Whatever the product says in the whole run of the tests is searched for secrets and control characters.

What it logs (at every level, in both of our formats and with its traceback),
what commands print in this process and in others, the text of its errors and of what caused them,
its warnings, its metrics and its spans.  A test in which something is found fails when it
ends, and is told what, and where.  A test that has something shown on purpose
says so, and why::

    @pytest.mark.shows("a body", because="--content is asked for")

Such a mark that nothing comes of fails the test, too.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

import attrs
import pytest
from canaries import leaks

from outbox import errors
from outbox.formats import JSONFormatter, LogfmtFormatter

__all__ = ["SCAN", "Scan", "said"]

ENOUGH: Final = 50
"""So many records of a test are heard whatever their level; then the level is the test's own."""
ALIKE: Final = 2
"""So many records of a test that say the same of several are looked at: a run of a thousand mails has a thousand."""


@attrs.frozen
class Finding:
    """Something that is not to be seen."""

    kind: str
    where: str
    around: str
    test: str

    def __str__(self) -> str:
        return f"{self.kind} in {self.where}, at the time of {self.test}: …{self.around}…"

    def is_excused_by(self, mark: pytest.Mark) -> bool:
        assert mark.kwargs.keys() == {"because"}, f"{mark}: because of what?"
        return self.kind.startswith(mark.args)


class Scan(logging.Handler):
    """A plugin of pytest, and the handler that hears what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._found: dict[tuple[str, str], Finding] = {}
        self._formats = (JSONFormatter(), LogfmtFormatter())
        self._whole = logging.Formatter("%(message)s")
        self._log = logging.getLogger("outbox")
        self._heard = 0
        self._alike = Counter[tuple[object, ...]]()
        self._test = "no test"
        self._passed = False
        self._runs_tests = True

    # -- what is said

    def look(self, text: str | bytes, where: str, *, lines: bool = True) -> None:
        """Search *text* for what nobody may see."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "surrogateescape")
        for kind, around in leaks(text, lines=lines):
            self._found.setdefault((kind, where), Finding(kind, where, around, self._test))

    def emit(self, record: logging.LogRecord) -> None:
        self._heard += 1
        if self._heard == ENOUGH:
            self._log.setLevel(logging.NOTSET)
        alike = (record.name, record.lineno, record.levelno, getattr(record, "status", ""))
        self._alike[alike] += 1
        if self._alike[alike] > ALIKE:
            return
        where = f"a log record of {record.name}"
        try:
            self._look_at(record, where)
        except Exception:  # noqa: BLE001 - as in logging's own handlers: who logs must not fail by it
            self.look(repr(record.__dict__), where)

    def _look_at(self, record: logging.LogRecord, where: str) -> None:
        for form in self._formats:
            self.look(form.format(record), where, lines=False)
        # Somebody else's formatter takes it as it is.
        self.look(record.getMessage(), where, lines=False)
        if record.exc_info:
            self.look(self._whole.format(record), f"the traceback of {where}")

    def see(self, error: BaseException) -> None:
        """Search an error, and all that it came of: a traceback shows them."""
        for each in _and_its_causes(error):
            where = f"a {type(each).__name__}"
            # What is a stranger's may have no words.
            with contextlib.suppress(Exception):
                self.look(str(each), where)
                self.look(repr(each), f"the repr of {where}")

    # -- what pytest asks

    def pytest_configure(self, config: pytest.Config) -> None:
        config.addinivalue_line(
            "markers", "shows(*kinds, because): what of these kinds is shown here is meant to be"
        )
        # With xdist the first process only hears what the others did.
        self._runs_tests = hasattr(config, "workerinput") or not config.getoption("numprocesses", None)
        self._log.addHandler(self)
        _listen_to_errors(self)
        _listen_to_output(self)

    def pytest_collection_finish(self) -> None:
        _listen_to_consumers(self)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        level = self._log.level
        self._alike.clear()
        self._heard, self._test, self._passed = 0, item.nodeid, False
        # Who listens himself listens to what he is told at his own level.
        if "caplog" not in getattr(item, "fixturenames", ()):
            self._log.setLevel(logging.DEBUG)
        try:
            return (yield)
        finally:
            self._log.setLevel(level)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self._passed |= report.when == "call" and report.passed
        for title, text in report.sections if report.passed else ():
            self.look(text, title)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None]:
        yield
        found, marks = self._taken(), list(item.iter_markers("shows"))
        missed = [each for each in found if not any(map(each.is_excused_by, marks))]
        if missed:
            pytest.fail("this was shown:\n" + "\n".join(map(str, missed)), pytrace=False)
        for mark in item.own_markers if self._passed else ():
            if mark.name == "shows" and not any(each.is_excused_by(mark) for each in found):
                pytest.fail(f"shows({', '.join(mark.args)}) excuses nothing", pytrace=False)

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage, nodeid: str) -> None:
        # It is told when the test is over: the next one fails by it.
        if self._runs_tests:
            self._test = nodeid
            self.look(str(warning_message.message), "a warning")

    def pytest_sessionfinish(self) -> None:
        found = self._taken()
        assert not found, "this was shown after the last test: " + "\n".join(map(str, found))

    def _taken(self) -> list[Finding]:
        found, self._found = self._found, {}
        return list(found.values())


SCAN: Final = Scan()


def said(text: str | bytes, where: str) -> None:
    """A helper of the tests has this from the product by a way that the scan does not see."""
    SCAN.look(text, where)


def _and_its_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


# -- where it listens


def _after(owner: Any, name: str, heard: Callable[..., None]) -> None:
    """Have *heard* told the result of each call, and with what it was called."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        heard(result, *args, **kwargs)
        return result

    setattr(owner, name, wrapped)


def _listen_to_errors(scan: Scan) -> None:
    """Faults when they are made, for listeners are told of them; the others, with their causes, where a test has them."""

    def made(_: None, error: errors.RelayFault, *__: Any, **___: Any) -> None:
        scan.see(error)

    def caught(_: None, __: Any, raised: tuple[Any, BaseException, Any]) -> None:
        if isinstance(raised[1], errors.OutboxError):
            scan.see(raised[1])

    _after(errors.RelayFault, "__init__", made)
    _after(pytest.ExceptionInfo, "fill_unfilled", caught)


def _listen_to_output(scan: Scan) -> None:
    """What commands print, here and in processes of their own."""

    def read(result: tuple[Any, Any], *_: Any) -> None:
        for text, where in zip(result, ("standard output", "standard error"), strict=True):
            scan.look(text, where)

    def ended(result: tuple[Any, Any], process: subprocess.Popen[Any], *_: Any, **__: Any) -> None:
        for text, where in zip(result, ("output", "error"), strict=True):
            scan.look(text or "", f"the standard {where} of another process")

    _after(pytest.CaptureFixture, "readouterr", read)
    _after(subprocess.Popen, "communicate", ended)


def _listen_to_consumers(scan: Scan) -> None:
    """What Prometheus and OpenTelemetry are told, where a test has them."""

    def told(result: Any, *_: Any, **__: Any) -> None:
        scan.look(result.to_json() if result else "", "the metrics of OpenTelemetry")

    def ended(_: Any, __: Any, spans: Any) -> None:
        for span in spans:
            scan.look(span.to_json(), "a span")

    if "prometheus_client" in sys.modules:
        _scrape(scan, sys.modules["prometheus_client"].CollectorRegistry)
    if "opentelemetry.sdk.metrics.export" in sys.modules:
        _after(sys.modules["opentelemetry.sdk.metrics.export"].InMemoryMetricReader, "get_metrics_data", told)
    in_memory = "opentelemetry.sdk.trace.export.in_memory_span_exporter"
    if in_memory in sys.modules:
        _after(sys.modules[in_memory].InMemorySpanExporter, "export", ended)


def _scrape(scan: Scan, registry: Any) -> None:
    original = registry.collect

    @functools.wraps(original)
    def collect(self: Any) -> Iterator[Any]:
        for family in original(self):
            for sample in family.samples:
                for text in (sample.name, *sample.labels.values()):
                    scan.look(text, "the metrics of Prometheus", lines=False)
            scan.look(family.documentation, "the metrics of Prometheus")
            yield family

    registry.collect = collect
