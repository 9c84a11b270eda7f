"""Metrics and traces: what real consumers receive is what the store says, after a chaotic run."""

from __future__ import annotations

import base64
import datetime as dt
import itertools
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from running import Heard

from outbox import FunctionTransport, MemoryStore, Outbox, SMTPTransport, SQLiteStore
from outbox.contrib.census import Census, Seen, look_at
from outbox.contrib.measures import OF_EVENTS, Measures, Metric
from outbox.contrib.opentelemetry import Telemetry
from outbox.contrib.prometheus import PrometheusListener, StoreCollector
from outbox.errors import RelayMisconfigured, RelayUnavailable, StoreUnavailable
from outbox.events import LeaseLost, Notice, RelayPaused, RelayResumed, Settled, StoreFailed, Submitted
from outbox.formats import JSONFormatter, LogfmtFormatter
from outbox.lifecycle import Claim, Delivered, Fate, Record, Released, Retry, Settlement, State
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain
from outbox.protocols import Exchanged, QueueCount, Suspension
from outbox.retry import RetryPolicy
from outbox.testing import ManualClock, SMTPSink

ZERO = dt.timedelta(0)
NUMBER = 150
WORDS = {Accepted: "accepted", TempFailed: "tempfailed", PermFailed: "permfailed", Uncertain: "uncertain"}


class Numbers:
    """A scrape, as prometheus_client's own parser reads it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.text = generate_latest(registry).decode()
        self._samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self._samples.get((f"outbox_{name}", tuple(sorted(labels.items()))), 0.0)

    def all(self, name: str, *labels: str) -> Counter[tuple[str, ...]]:
        """By the values of *labels*; those that are 0 left out."""
        found: Counter[tuple[str, ...]] = Counter()
        for (each, values), number in self._samples.items():
            if each == f"outbox_{name}" and number:
                found[tuple(dict(values)[label] for label in labels)] += int(number)
        return found


class Exported:
    """What the OpenTelemetry SDK exports, in memory."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider(metric_readers=[self._reader], shutdown_on_exit=False)
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))

    def points(self, name: str) -> Sequence[Any]:
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == f"outbox.{name}"
            for point in metric.data.data_points
        ]

    def all(self, name: str, *labels: str) -> Counter[tuple[str, ...]]:
        found: Counter[tuple[str, ...]] = Counter()
        for point in self.points(name):
            if point.value:
                found[tuple(str(point.attributes[label]) for label in labels)] += int(point.value)
        return found

    def spans(self, name: str) -> Sequence[Any]:
        return [span for span in self._spans.get_finished_spans() if span.name.startswith(name)]

    def close(self) -> None:
        self.meters.shutdown()
        self.tracers.shutdown()


@pytest.fixture
def exported() -> Iterator[Exported]:
    exported = Exported()
    yield exported
    exported.close()


def chaotic(*, faults: bool = True) -> FunctionTransport:
    """Whatever a relay may do: at random, but of one recipient in the same order however the threads run.

    Without *faults* it is always there: where a runner would pause, a test would wait.
    """
    lock, calls = threading.Lock(), Counter[str]()

    def deliver(_: Message, recipient: str) -> Result | None:
        with lock:
            calls["all"] += 1
            if faults and calls["all"] % 20 == 0:
                raise RelayUnavailable("function", "gone")
            calls[recipient] += 1
            drawn = random.Random(f"{recipient} {calls[recipient]}").random()
        if drawn < 0.05:
            raise ValueError("a bug")
        for share, result in (
            (0.25, TempFailed("450 later")),
            (0.35, PermFailed("550 5.1.1 no")),
            (0.45, Uncertain("nothing was said")),
        ):
            if drawn < share:
                return result
        return Accepted("250 ok")

    return FunctionTransport(deliver)


class Failing(SQLiteStore):
    """A store that a few times cannot be written, for one of those who share it."""

    failing = itertools.cycle([False] * 4 + [True])
    left = 4

    def exchange(self, settlements: Sequence[Settlement], /, **settings: Any) -> Exchanged:
        if settlements and self.left and next(self.failing):
            self.left -= 1
            raise StoreUnavailable("exchange failed: disk full")
        return super().exchange(settlements, **settings)


def by_drains(store: SQLiteStore, path: Path, **options: Any) -> None:
    """One runner, again and again, whose relay is gone now and then."""
    outbox = Outbox(store, chaotic(), **options)
    for _ in range(50):
        outbox.drain()
        # What a drain that lasted gave back may wait for a while: it is in no counter but released.
        if not any(count.due for count in store.count()):
            break


def by_several_runners(store: SQLiteStore, path: Path, **options: Any) -> None:
    """Three at once on one database, each with a store of its own that fails now and then."""
    heard, transport = Heard(), chaotic(faults=False)
    opened = [Failing(path, keep_delivered=dt.timedelta(days=1)) for _ in range(3)]
    options["listeners"] = [*options["listeners"], heard]
    runners = [Outbox(each, transport, **options).runner() for each in opened]
    for runner in runners:
        runner.start()
    try:
        heard.wait_until(lambda notices: sum(map(is_the_end, notices)) >= NUMBER)
    finally:
        for runner in runners:
            runner.stop()
        for each in opened:
            each.close()
    assert any(each.left < Failing.left for each in opened)


def is_the_end(notice: Notice) -> bool:
    return isinstance(notice, Settled) and not isinstance(notice.verdict, Retry | Released)


def records(store: SQLiteStore) -> list[Record]:
    found = [store.get(each.id) for each in store.browse(limit=10_000)]
    return [record for record in found if record is not None]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "o.db", keep_delivered=dt.timedelta(days=1))
    yield store
    store.close()


@pytest.mark.parametrize("run", [by_drains, by_several_runners])
def test_after_a_chaotic_run_all_counters_are_what_the_store_says(
    store: SQLiteStore, exported: Exported, tmp_path: Path, run: Callable[..., None]
) -> None:
    registry = CollectorRegistry()
    registry.register(StoreCollector(store, queues=["mail", "bulk", "empty"]))
    telemetry = Telemetry(tracer_provider=exported.tracers, meter_provider=exported.meters, queues=["mail"])
    telemetry.watch(store)
    options: dict[str, Any] = {
        "queues": ["mail", "bulk"],
        "retry": {
            "mail": RetryPolicy(schedule=(ZERO, ZERO)),
            "bulk": RetryPolicy(schedule=(ZERO, ZERO), uncertain="hold"),
        },
        "listeners": [PrometheusListener(registry=registry, queues=["mail", "bulk"]), telemetry],
    }
    outbox = Outbox(store, annotate=telemetry.annotate, **options)
    for number in range(NUMBER):
        recipients = [f"{name}{number}@example.org" for name in ("ann", "bob")[: 1 + number % 2]]
        outbox.submit(
            Message(
                recipients=recipients,
                content=b"Subject: x\r\n\r\nc4narybody",
                queue=("mail", "bulk")[number % 3 == 0],
                id=f"m{number}",
            )
        )
    outbox.submit(
        Message(
            recipients=["ann0@example.org"], content=b"Subject: x\r\n\r\nc4narybody", queue="bulk", id="m0"
        )
    )
    run(store, tmp_path / "o.db", **options)
    kept, numbers = records(store), Numbers(registry)
    assert len(kept) == NUMBER
    assert {record.summary.state for record in kept} >= {State.DELIVERED, State.DEAD, State.HELD}

    for all_of in (numbers.all, exported.all):
        # Prometheus has a suffix for what counts.
        total = "_total" if all_of == numbers.all else ""
        verdicts = all_of(f"verdicts{total}", "queue", "verdict")
        for state in (State.DELIVERED, State.DEAD, State.HELD):
            for queue in ("mail", "bulk"):
                there = sum(r.summary.state is state and r.summary.queue == queue for r in kept)
                assert verdicts[queue, state] == there, (queue, state)
        assert all_of(f"attempts{total}", "queue") == Counter(
            (r.summary.queue,) for r in kept for _ in range(r.summary.attempts)
        )
        results = [
            (r.summary.queue, WORDS.get(type(result), "untried"), code(result))
            for r in kept
            for attempt in r.history
            for result in attempt.results.values()
        ]
        assert all_of(f"recipients{total}", "queue", "result", "code") == Counter(results)
        uncertain = Counter((queue,) for queue, word, _ in results if word == "uncertain")
        assert all_of(f"uncertain{total}", "queue") == uncertain
        assert all_of(f"submitted{total}", "status") == {("stored",): NUMBER, ("known",): 1}
        messages = all_of("messages", "queue", "state")
        assert messages == Counter((r.summary.queue, str(r.summary.state)) for r in kept)

    handed = sum(attempt.results != {} for record in kept for attempt in record.history)
    assert numbers("delivery_seconds_count", queue="mail") + numbers(
        "delivery_seconds_count", queue="bulk"
    ) == pytest.approx(handed)
    assert sum(point.count for point in exported.points("delivery")) == handed
    assert sum(point.count for point in exported.points("latency")) == sum(
        r.summary.state is State.DELIVERED for r in kept
    )
    if run is by_drains:
        assert numbers("relay_pauses_total", relay="function", kind="unavailable") > 0
    else:
        assert numbers("store_failures_total", error="StoreUnavailable") > 0
    assert ("empty", "dead") not in numbers.all("messages", "queue", "state")
    assert 'outbox_messages{queue="empty",state="dead"} 0.0' in numbers.text
    assert "example.org" not in numbers.text
    assert "c4narybody" not in numbers.text

    spans = exported.spans("deliver")
    assert len(spans) == sum(record.summary.attempts for record in kept)
    created = {span.context.span_id: span for span in exported.spans("create")}
    for span in spans:
        (link,) = span.links
        assert span.parent is None
        assert (
            created[link.context.span_id].attributes["messaging.message.id"]
            == span.attributes["messaging.message.id"]
        )
    told = "".join(span.to_json() for span in (*spans, *created.values()))
    assert "example.org" not in told
    assert "c4narybody" not in told
    outbox.close()


def code(result: Result) -> str:
    return f"{result.reply[0]}xx" if result.reply[:1] in {"2", "4", "5"} else "none"


def test_the_context_of_a_submit_goes_with_the_message_to_another_program(
    store: SQLiteStore, exported: Exported
) -> None:
    here = Telemetry(tracer_provider=exported.tracers, meter_provider=exported.meters)
    tracer = exported.tracers.get_tracer("web")
    with tracer.start_as_current_span("request") as request:
        Outbox(store, annotate=here.annotate).submit(Message(recipients=["a@x"], content=b"", id="m1"))
    record = store.get("m1")
    assert record is not None
    trace_id = f"{request.get_span_context().trace_id:032x}"
    assert record.message.attributes["traceparent"].split("-")[:2] == ["00", trace_id]

    elsewhere = Exported()
    there = Telemetry(tracer_provider=elsewhere.tracers, meter_provider=elsewhere.meters)
    Outbox(store, FunctionTransport(lambda _m, _r: None), listeners=[there]).drain()
    (span,) = elsewhere.spans("deliver")
    (create,) = exported.spans("create")
    assert create.parent.span_id == request.get_span_context().span_id
    assert [link.context.span_id for link in span.links] == [create.context.span_id]
    assert f"{span.links[0].context.trace_id:032x}" == trace_id
    elsewhere.close()


@pytest.mark.parametrize("carried", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ff\r\nX: y"])
def test_a_context_that_is_none_makes_no_link(exported: Exported, carried: str) -> None:
    telemetry = Telemetry(tracer_provider=exported.tracers, meter_provider=exported.meters)
    message = Message(recipients=["a@x"], content=b"", attributes={"traceparent": carried})
    assert telemetry.annotate(message) == {}
    telemetry(delivered(message))
    assert [list(span.links) for span in exported.spans("deliver")] == [[]]


def test_a_span_lasts_as_long_as_its_delivery_and_says_what_came_of_it(exported: Exported) -> None:
    clock = ManualClock()
    telemetry = Telemetry(tracer_provider=exported.tracers, meter_provider=exported.meters, clock=clock)
    telemetry(delivered(Message(recipients=["a@x"], content=b"xyz", id="m1")))
    (span,) = exported.spans("deliver mail")
    assert span.end_time - span.start_time == 3 * 10**9
    assert span.end_time == int(clock.now().timestamp()) * 10**9
    assert span.attributes["outbox.verdict"] == "delivered"
    assert span.attributes["server.address"] == "mx:25"
    assert span.status.is_unset


def delivered(message: Message, relay: str = "mx:25") -> Settled:
    claim = Claim(
        message=message,
        fates=dict.fromkeys(message.recipients, Fate.WAITING),
        attempt=1,
        lost=0,
        age=dt.timedelta(minutes=2),
        token="t",
    )
    outcome = Outcome.same(message.recipients, Accepted("250 ok"), relay=relay)
    fates = dict.fromkeys(message.recipients, Fate.ACCEPTED)
    return Settled(claim, Delivered(fates=fates, outcome=outcome), dt.timedelta(seconds=3))


def test_latency_counts_from_when_the_message_could_first_go() -> None:
    registry = CollectorRegistry()
    PrometheusListener(registry=registry)(delivered(Message(recipients=["a@x"], content=b"")))
    numbers = Numbers(registry)
    assert numbers("latency_seconds_sum", queue="mail") == 123
    assert numbers("latency_seconds_bucket", queue="mail", le="120.0") == 0
    assert numbers("latency_seconds_bucket", queue="mail", le="300.0") == 1
    assert numbers("delivery_seconds_sum", queue="mail") == 3


def test_the_condition_of_a_relay_is_told_from_its_first_answer_through_its_pause_to_its_return() -> None:
    registry = CollectorRegistry()
    listener = PrometheusListener(registry=registry)

    def shown() -> tuple[float, float]:
        numbers = Numbers(registry)
        assert "relay_paused" in numbers.text
        return tuple(  # type: ignore[return-value]  # there are two
            numbers("relay_paused", relay="mx:25", kind=kind) for kind in ("unavailable", "misconfigured")
        )

    listener(delivered(Message(recipients=["a@x"], content=b"")))
    assert 'outbox_relay_paused{kind="unavailable",relay="mx:25"} 0.0' in Numbers(registry).text
    listener(RelayPaused("mx:25", RelayUnavailable("mx:25", "gone"), ZERO, "key"))
    assert shown() == (1, 0)
    listener(RelayPaused("mx:25", RelayMisconfigured("mx:25", "password"), ZERO, "key"))
    assert shown() == (0, 1)
    listener(delivered(Message(recipients=["a@x"], content=b"")))
    assert shown() == (0, 1)
    listener(RelayResumed("key"))
    assert shown() == (0, 0)


@pytest.mark.parametrize(("later", "paused"), [(7.9, 1), (8.1, 0)])
def test_a_relay_that_takes_a_message_long_after_its_pause_is_well_though_nobody_says_so(
    later: float, paused: int
) -> None:
    clock, registry = ManualClock(), CollectorRegistry()
    listener = PrometheusListener(registry=registry, clock=clock)
    listener(RelayPaused("mx:25", RelayUnavailable("mx:25", "gone"), ZERO))
    clock.advance(dt.timedelta(seconds=later))
    # It took three seconds, and one is told of within five.
    listener(delivered(Message(recipients=["a@x"], content=b"")))
    assert Numbers(registry)("relay_paused", relay="mx:25", kind="unavailable") == paused


def test_a_relay_that_was_paused_by_a_runner_is_shown_until_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outbox.relay.breaker._UNAVAILABLE", (0.01, 0.01))
    monkeypatch.setattr("outbox.relay.breaker._WHILE_PROBING", 0.01)
    well, registry = threading.Event(), CollectorRegistry()

    def deliver(_: Message, __: str) -> Result | None:
        if not well.is_set():
            raise RelayUnavailable("function", "gone")
        return None

    shown, resumed = threading.Event(), threading.Event()

    def listen(notice: Notice) -> None:
        if isinstance(notice, RelayPaused):
            shown.set()
        elif isinstance(notice, RelayResumed):
            resumed.set()

    listener = PrometheusListener(registry=registry)
    with Outbox(MemoryStore(), FunctionTransport(deliver), listeners=[listener, listen]) as outbox:
        outbox.submit(Message(recipients=["a@x"], content=b""))
        with outbox.running():
            assert shown.wait(30)
            assert Numbers(registry)("relay_paused", relay="function", kind="unavailable") == 1
            well.set()
            assert resumed.wait(30)
    assert Numbers(registry)("relay_paused", relay="function", kind="unavailable") == 0


def test_however_many_relays_there_are_the_series_are_bounded() -> None:
    registry = CollectorRegistry()
    listener = PrometheusListener(registry=registry)
    for number in range(300):
        listener(RelayPaused(f"mx{number}", RelayUnavailable(f"mx{number}", "gone"), ZERO, f"mx{number}"))
        listener(delivered(Message(recipients=["a@x"], content=b""), relay=f"mx{number}"))
    relays = {relay for (relay,) in Numbers(registry).all("relay_pauses_total", "relay")}
    assert len(relays) == 101
    assert "other" in relays
    assert len(Numbers(registry).all("relay_paused", "relay")) == 101


def test_what_should_not_be_is_counted() -> None:
    class Stranger(StoreUnavailable):
        pass

    registry = CollectorRegistry()
    listener = PrometheusListener(registry=registry, queues=["mail"])
    assert 'outbox_store_failures_total{error="StoreFull"} 0.0' in Numbers(registry).text
    listener(LeaseLost(delivered(Message(recipients=["a@x"], content=b"")).claim))
    listener(StoreFailed(Stranger("gone"), ZERO))
    numbers = Numbers(registry)
    assert numbers("leases_lost_total", queue="mail") == 1
    assert numbers("store_failures_total", error="StoreUnavailable") == 1


class Looks:
    """A store that takes its time to be counted."""

    def __init__(self, clock: ManualClock, takes: float) -> None:
        self.number = 0
        self.error: Exception | None = None
        self._clock, self._takes = clock, takes

    def __call__(self) -> Seen:
        self.number += 1
        due = self._clock.now() - dt.timedelta(minutes=10)
        self._clock.advance(dt.timedelta(seconds=self._takes))
        if self.error is not None:
            raise self.error
        count = QueueCount(
            queue="mail", state=State.QUEUED, number=3, due=2, oldest_at=due, oldest_due_at=due
        )
        return Seen([count], [Suspension(kind="domain", value="example.org")])


def numbers_of(census: Census) -> dict[tuple[str, ...], float]:
    return {(sample.metric.name, *sample.values): sample.number for sample in census.take()}


@pytest.mark.parametrize(("takes", "pause"), [(0.001, 5), (2.0, 40)])
def test_a_store_is_counted_for_a_twentieth_of_the_time_at_most_and_ages_are_of_now(
    takes: float, pause: float
) -> None:
    clock = ManualClock()
    looks = Looks(clock, takes)
    census = Census(looks, clock=clock)
    assert numbers_of(census)["oldest_due_age_seconds", "mail"] == pytest.approx(600 + takes)
    clock.advance(dt.timedelta(seconds=pause - 0.1))
    later = numbers_of(census)
    assert looks.number == 1
    assert later["oldest_due_age_seconds", "mail"] == pytest.approx(600 + takes + pause - 0.1)
    assert later["store_count_age_seconds",] == pytest.approx(pause - 0.1)
    assert later["suspensions", "domain"] == 1
    clock.advance(dt.timedelta(seconds=0.2))
    numbers_of(census)
    assert looks.number == 2


def test_of_a_store_that_cannot_be_counted_only_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    looks = Looks(clock, 0.0)
    census = Census(looks, queues=["mail"], clock=clock)
    assert numbers_of(census)["store_up",] == 1
    looks.error = StoreUnavailable("the disk\nis gone")
    for _ in range(2):
        clock.advance(dt.timedelta(seconds=6))
        found = numbers_of(census)
        assert {name for name, *_ in found} == {"store_up", "store_count_seconds", "store_count_age_seconds"}
        assert found["store_up",] == 0
    assert [record.getMessage() for record in caplog.records] == [
        r"the store cannot be counted: the disk\nis gone"
    ]
    looks.error = None
    clock.advance(dt.timedelta(seconds=6))
    assert numbers_of(census)["messages", "mail", "queued"] == 3


def test_a_store_that_nobody_can_look_at_has_no_counts() -> None:
    assert look_at(object()) == Seen((), ())
    assert look_at(MemoryStore()).counts == []


def test_while_one_counts_the_others_are_told_of_the_last_count() -> None:
    clock = ManualClock()
    looks = Looks(clock, 0.0)
    inner: list[dict[tuple[str, ...], float]] = []

    def looked() -> Seen:
        if looks.number:
            # Another scrape comes in the middle of this count.
            other = threading.Thread(target=lambda: inner.append(numbers_of(census)))
            other.start()
            other.join(60)
        return looks()

    census = Census(looked, clock=clock)
    census.take()
    clock.advance(dt.timedelta(seconds=6))
    census.take()
    assert inner
    assert inner[0]["messages", "mail", "queued"] == 3
    assert looks.number == 2


def queued(queue: str) -> QueueCount:
    now = ManualClock().now()
    return QueueCount(queue=queue, state=State.QUEUED, number=1, due=1, oldest_at=now, oldest_due_at=now)


def test_names_of_queues_that_nobody_configured_make_no_more_series_than_a_hundred() -> None:
    names = [f"queue-{number:03}" for number in range(200)]
    census = Census(lambda: Seen([queued(name) for name in names], ()), queues=["mail", "queue-199"])
    found = numbers_of(census)
    shown = {values[1] for values in found if values[0] == "messages"}
    assert shown == {"mail", "queue-199", "other", *names[:100]}
    assert (found["messages", "other", "queued"], found["due", "other"]) == (99, 99)
    assert (found["messages", "queue-199", "queued"], found["messages", "mail", "queued"]) == (1, 0)


def test_counters_of_queues_that_nobody_configured_are_one_beyond_the_hundredth() -> None:
    registry = CollectorRegistry()
    listener = PrometheusListener(registry=registry, queues=["mail"])
    for queue in [*(f"queue-{number:03}" for number in range(150)), "queue-000", "mail", "new"]:
        listener.begin(["new"] if queue == "new" else [])
        listener(Submitted(Message(recipients=["a@x"], content=b"", queue=queue), "stored"))
    found = Numbers(registry).all("submitted_total", "queue")
    assert len(found) == 103
    assert (found["other",], found["queue-000",], found["mail",], found["new",]) == (50, 2, 1, 1)


def test_queues_that_come_later_begin_with_zeros_and_take_nothing_from_the_counts_so_far() -> None:
    registry = CollectorRegistry()
    listener = PrometheusListener(registry=registry, queues=["mail"])
    census = Census(lambda: Seen((), ()), queues=["mail"])
    registry.register(StoreCollector(None, census=census))
    for begin in (listener.begin, census.begin):
        begin(["new", "mail"])
    text = generate_latest(registry).decode()
    for line in (
        'outbox_messages{queue="new",state="queued"} 0.0',
        'outbox_due{queue="new"} 0.0',
        'outbox_verdicts_total{queue="new",verdict="dead"} 0.0',
        'outbox_due{queue="mail"} 0.0',
    ):
        assert line in text


def test_registering_asks_no_store() -> None:
    registry = CollectorRegistry()

    def never() -> Seen:
        raise AssertionError("asked")

    registry.register(StoreCollector(None, census=Census(never)))


def test_no_password_no_body_and_no_control_character_is_in_a_line_a_number_or_a_span(
    exported: Exported, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    password, authority = "c4narypassword", Authority()
    registry = CollectorRegistry()
    telemetry = Telemetry(tracer_provider=exported.tracers, meter_provider=exported.meters)
    with SMTPSink(starttls=authority.server(), users={"app": "another"}) as sink:
        sink.on("auth", reply=f"535 5.7.8 no \x1b[2J{password} is wrong")
        transport = SMTPTransport(
            sink.host, sink.port, username="app", password=password, ssl_context=authority.client()
        )
        with Outbox(
            MemoryStore(), transport, listeners=[PrometheusListener(registry=registry), telemetry]
        ) as outbox:
            caplog.set_level(logging.DEBUG, "outbox")
            outbox.submit(
                Message(recipients=["ann@example.org"], content=b"Subject: x\r\n\r\nc4narybody\r\n")
            )
            assert outbox.drain().faults
    numbers = Numbers(registry)
    assert numbers("relay_paused", relay=f"{sink.host}:{sink.port}", kind="misconfigured") == 1
    formatters = [logging.Formatter("%(message)s"), LogfmtFormatter(), JSONFormatter()]
    lines = [formatter.format(record) for record in caplog.records for formatter in formatters]
    assert any("535" in line for line in lines)
    spans = [span.to_json() for span in exported.spans("")]
    exports = [
        str(point) for metric in OF_EVENTS for point in exported.points(metric.name.removesuffix("_seconds"))
    ]
    for text in (*lines, numbers.text, *spans, *exports):
        for secret in (password, base64.b64encode(f"\0app\0{password}".encode()).decode(), "c4narybody"):
            assert secret not in text
        assert all(char.isprintable() or char == "\n" for char in text)
    assert not any("\n" in line for line in lines)


class Meter:
    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[str, ...]]] = []

    def add(self, metric: Metric, values: Sequence[str], amount: int = 1) -> None:
        assert amount >= 0
        self.note(metric, values)

    def observe(self, metric: Metric, values: Sequence[str], amount: float) -> None:
        self.note(metric, values)

    set = observe

    def note(self, metric: Metric, values: Sequence[str]) -> None:
        assert len(values) == len(metric.labels), metric
        self.seen.append((metric.name, tuple(map(str, values))))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("250 ok", "2xx"),
        ("550-5.1.1 no", "5xx"),
        ("mx.example:25: 451 later", "4xx"),
        ("552", "5xx"),
        ("5503 odd", "none"),
        ("ConnectionError: x", "none"),
        ("", "none"),
    ],
)
def test_the_class_of_a_code_is_read_from_the_reply(reply: str, expected: str) -> None:
    meter = Meter()
    notice = delivered(Message(recipients=["a@x"], content=b""))
    outcome = Outcome.same(["a@x"], Accepted(reply), relay="mx")
    Measures(meter)(Settled(notice.claim, Delivered(fates={"a@x": Fate.ACCEPTED}, outcome=outcome)))
    assert ("recipients", ("mail", "accepted", expected)) in meter.seen


def test_all_names_are_one_of_a_kind() -> None:
    assert len({metric.name for metric in OF_EVENTS}) == len(OF_EVENTS)
