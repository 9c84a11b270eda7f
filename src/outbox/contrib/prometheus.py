"""Numbers for Prometheus, by the ``prometheus_client`` package: what happens, what the store has, and where to ask.

    from outbox.contrib.prometheus import PrometheusListener, StoreCollector

    outbox = Outbox(store, transport, listeners=[PrometheusListener()])
    prometheus_client.REGISTRY.register(StoreCollector(store))

``outbox run --metrics 127.0.0.1:9464`` does all of this by itself.  What each
number means is in docs/monitoring.md.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

try:
    import prometheus_client
    from prometheus_client import multiprocess, values
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector, CollectorRegistry
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'metrics for Prometheus need prometheus_client: pip install "durable-outbox[prometheus]"',
        name=error.name,
    ) from error

from outbox.clock import Clock
from outbox.errors import ConfigurationError, UnsupportedError
from outbox.events import Notice
from outbox.protocols import Store

from .census import OF_THE_STORE, Census, look_at
from .measures import OF_EVENTS, Measures, Metric

__all__ = ["PrometheusListener", "StoreCollector", "join", "joined", "serving", "take_place"]

_PREFIX: Final = "outbox_"


class PrometheusListener:
    """A listener that counts what it is told, for ``listeners=`` of an Outbox or a Runner.

    Make one for each registry, and give it to as many outboxes as there are.

    Args:
        registry: prometheus_client's own, unless said.
        queues: Those whose counters begin with 0.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry | None = None,
        queues: Sequence[str] = (),
        clock: Clock | None = None,
    ) -> None:
        registry = prometheus_client.REGISTRY if registry is None else registry
        self._measures = Measures(_Meter(registry), queues=queues, clock=clock)

    def __call__(self, notice: Notice) -> None:
        """Count one notice."""
        self._measures(notice)

    def begin(self, queues: Sequence[str]) -> None:
        """Have the counters of these queues, too, begin with 0."""
        self._measures.begin(queues)


class StoreCollector(Collector):
    """What a store has, asked for when it is scraped; of one that cannot be looked at nothing is told.

    It looks at most every five seconds, and spends a twentieth of the time
    on it: see :class:`outbox.contrib.census.Census`.

    Args:
        queues: Those that are shown with zeros where they have nothing.
        census: What looks, instead of *store*.
    """

    def __init__(
        self,
        store: Store | None,
        *,
        queues: Sequence[str] = (),
        clock: Clock | None = None,
        census: Census | None = None,
    ) -> None:
        self._census = census or Census(lambda: look_at(store), queues=queues, clock=clock)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The names, without asking the store."""
        return self._families().values()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The numbers of now."""
        families = self._families()
        for sample in self._census.take():
            families[sample.metric].add_metric(sample.values, sample.number)
        return families.values()

    @staticmethod
    def _families() -> Mapping[Metric, GaugeMetricFamily]:
        return {
            metric: GaugeMetricFamily(_PREFIX + metric.name, metric.text, labels=metric.labels)
            for metric in OF_THE_STORE
        }


class _Meter:
    """The metrics of events, in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._metrics = {metric: _made(metric, registry) for metric in OF_EVENTS}
        self._known: dict[tuple[Metric | str, ...], Any] = {}

    def add(self, metric: Metric, values: Sequence[str], amount: int = 1) -> None:
        self._series(metric, values).inc(amount)

    def observe(self, metric: Metric, values: Sequence[str], amount: float) -> None:
        self._series(metric, values).observe(amount)

    def set(self, metric: Metric, values: Sequence[str], amount: float) -> None:
        self._series(metric, values).set(amount)

    def _series(self, metric: Metric, values: Sequence[str]) -> Any:
        # Remembered: the library looks one up for longer than it takes to count.
        found = self._known.get((metric, *values))
        if found is None:
            found = self._known[metric, *values] = self._metrics[metric].labels(*values)
        return found


def _made(metric: Metric, registry: CollectorRegistry) -> Any:
    name, text, labels = _PREFIX + metric.name, metric.text, metric.labels
    match metric.kind:
        case "counter":
            return prometheus_client.Counter(name, text, labels, registry=registry)
        case "histogram":
            return prometheus_client.Histogram(
                name, text, labels, registry=registry, buckets=(*metric.buckets, float("inf"))
            )
        case "gauge":
            # Of several processes: whether any of them leaves the relay alone.
            return prometheus_client.Gauge(name, text, labels, registry=registry, multiprocess_mode="livemax")


@contextlib.contextmanager
def serving(host: str, port: int, registry: CollectorRegistry) -> Iterator[int]:
    """Within the block *registry* can be scraped at this address; the port is told, for 0 is any that is free.

    Raises:
        ConfigurationError: the address cannot be had.
    """
    try:
        server, thread = prometheus_client.start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigurationError(
            f"cannot serve metrics at {host}:{port}: {error.strerror or error}"
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# -- several processes


def join(folder: Path, *, queues: Sequence[str] = ()) -> PrometheusListener:
    """Make this process one of those whose numbers are added up in *folder*; before any other metric is made.

    The files are prometheus_client's own, mapped into memory: what a process
    has counted stays counted however it dies.  Each process has a place, and
    who comes after it counts on there, so that there are no more files than
    processes at one time.

    Raises:
        UnsupportedError: this system has no locks on files.
    """
    place, _ = take_place(folder)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: place)  # type: ignore[no-untyped-call]  # it has no types
    return PrometheusListener(registry=CollectorRegistry(), queues=queues)


def joined(folder: Path) -> CollectorRegistry:
    """What all processes that have joined in *folder* have counted, those that are gone included."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]  # nor has this
    return registry


def take_place(folder: Path) -> tuple[int, int]:
    """The first place that no living process has, and the descriptor that holds it for as long as it is open."""
    try:
        import fcntl  # noqa: PLC0415 - not on every system
    except ModuleNotFoundError:
        raise UnsupportedError("metrics of several processes are not for this system") from None
    for place in itertools.count():
        # Nobody closes it: it is held until the process ends, whatever ends it.
        held = os.open(folder / f"place-{place}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
        else:
            # How its relays are, who was here before has told; what he counted stays.
            for gauge in folder.glob(f"gauge_*_{place}.db"):
                gauge.unlink()
            return place, held
    raise AssertionError("there is always a next place")
