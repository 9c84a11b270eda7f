"""Traces and metrics for OpenTelemetry, by its API alone: which SDK and exporter they go to is the program's to say.

    from outbox.contrib.opentelemetry import Telemetry

    telemetry = Telemetry()
    telemetry.watch(store)
    outbox = Outbox(store, transport, listeners=[telemetry], annotate=telemetry.annotate)

The context of a submit goes with the message, as the attribute
``traceparent`` (W3C Trace Context), to whoever delivers it, in whatever
process and however many days later.  Each attempt is a span of its own that
is linked to it.  No span holds an address, a content, or a text of a server.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode, TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'Telemetry needs opentelemetry-api: pip install "durable-outbox[otel]"', name=error.name
    ) from error

from outbox.clock import Clock, SystemClock
from outbox.events import Notice, Settled
from outbox.lifecycle import Dead, Delivered, Expired, Released, Verdict
from outbox.message import Message
from outbox.outcome import Accepted
from outbox.protocols import Store

from .census import OF_THE_STORE, Census, look_at
from .measures import OF_EVENTS, Measures, Metric

__all__ = ["Telemetry"]

_NAME: Final = "outbox"
_CONTEXT: Final = ("traceparent", "tracestate")
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)


class Telemetry:
    """A listener that counts and traces, what annotates messages with the context they were submitted in, and a watch.

    Args:
        tracer_provider, meter_provider: The global ones, unless said.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        queues: Sequence[str] = (),
        clock: Clock | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        self._meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
        self._clock = clock or SystemClock()
        self._propagator = TraceContextTextMapPropagator()
        self._measures = Measures(_Meter(self._meter), queues=queues, clock=self._clock)

    def __call__(self, notice: Notice) -> None:
        """Count one notice, and trace it where it is an attempt."""
        self._measures(notice)
        if isinstance(notice, Settled) and not isinstance(notice.verdict, Released):
            self._trace(notice)

    def annotate(self, message: Message) -> Mapping[str, str]:
        """For ``annotate=`` of an Outbox: the context of a span "create", in that of the caller.

        A message that has a ``traceparent`` keeps it, and no span is made.
        """
        if "traceparent" in message.attributes:
            return {}
        span = self._tracer.start_span(
            f"create {message.queue}", kind=SpanKind.PRODUCER, attributes=_about(message, "create")
        )
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span))
        span.end()
        return carrier

    def watch(self, store: Store, *, queues: Sequence[str] = ()) -> None:
        """Have the numbers of *store* asked for at each export; once for each store."""
        census = Census(lambda: look_at(store), queues=queues, clock=self._clock)
        for metric in OF_THE_STORE:
            self._meter.create_observable_gauge(
                _dotted(metric), [_asking(census, metric)], metric.unit, metric.text
            )

    def _trace(self, notice: Settled) -> None:
        claim, verdict = notice.claim, notice.verdict
        # After the fact: the time between the relay's answer and the commit that noted it is not told apart.
        end = self._clock.now()
        span = self._tracer.start_span(
            f"deliver {claim.message.queue}",
            context=trace.set_span_in_context(trace.INVALID_SPAN),
            kind=SpanKind.CONSUMER,
            attributes=_about(claim.message, "process") | _came_of(notice),
            links=self._links(claim.message),
            start_time=_nanoseconds(end - notice.took),
        )
        if not isinstance(verdict, Delivered):
            span.set_status(Status(StatusCode.ERROR, str(verdict.event)))
        span.end(_nanoseconds(end))

    def _links(self, message: Message) -> Sequence[Link]:
        carried = {name: message.attributes[name] for name in _CONTEXT if name in message.attributes}
        context = trace.get_current_span(self._propagator.extract(carried)).get_span_context()
        return [Link(context)] if carried and context.is_valid else []


def _about(message: Message, operation: str) -> dict[str, str | int]:
    return {
        "messaging.system": _NAME,
        "messaging.operation.name": "deliver" if operation == "process" else operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": message.queue,
        "messaging.message.id": message.id,
        "messaging.message.body.size": len(message.content),
        "outbox.recipients": len(message.recipients),
    }


def _came_of(notice: Settled) -> dict[str, str | int]:
    claim, verdict = notice.claim, notice.verdict
    found: dict[str, str | int] = {"outbox.attempt": claim.attempt, "outbox.verdict": str(verdict.event)}
    if verdict.outcome is not None:
        taken = sum(isinstance(result, Accepted) for result in verdict.outcome.results.values())
        found["outbox.accepted"] = taken
        if verdict.outcome.relay:
            found["server.address"] = verdict.outcome.relay
    kind = _error(verdict)
    return found | ({"error.type": kind} if kind else {})


def _error(verdict: Verdict) -> str:
    if isinstance(verdict, Dead | Expired):
        return str(verdict.event)
    results = verdict.outcome.results.values() if verdict.outcome is not None else ()
    return next((type(result).__name__ for result in results if not isinstance(result, Accepted)), "")


def _nanoseconds(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND * 1000


class _Meter:
    """The metrics of events, as instruments."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._instruments = {metric: _made(metric, meter) for metric in OF_EVENTS}

    def add(self, metric: Metric, values: Sequence[str], amount: int = 1) -> None:
        self._instruments[metric].add(amount, _labels(metric, values))

    def observe(self, metric: Metric, values: Sequence[str], amount: float) -> None:
        self._instruments[metric].record(amount, _labels(metric, values))

    def set(self, metric: Metric, values: Sequence[str], amount: float) -> None:
        self._instruments[metric].set(amount, _labels(metric, values))


def _made(metric: Metric, meter: metrics.Meter) -> Any:
    name = _dotted(metric)
    match metric.kind:
        case "counter":
            return meter.create_counter(name, metric.unit, metric.text)
        case "histogram":
            return meter.create_histogram(
                name,
                metric.unit,
                metric.text,
                explicit_bucket_boundaries_advisory=[float(bound) for bound in metric.buckets],
            )
        case "gauge":
            return meter.create_gauge(name, metric.unit, metric.text)


def _dotted(metric: Metric) -> str:
    """``outbox.delivery``: the unit is no part of a name here."""
    return f"{_NAME}.{metric.name.removesuffix('_seconds')}"


def _labels(metric: Metric, values: Sequence[str]) -> dict[str, str]:
    return {name: str(value) for name, value in zip(metric.labels, values, strict=True)}


def _asking(census: Census, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def ask(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(sample.number, _labels(metric, sample.values))
            for sample in census.take()
            if sample.metric is metric
        ]

    return ask
