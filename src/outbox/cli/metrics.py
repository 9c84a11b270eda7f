"""The setting `metrics` of `outbox run`: one address where Prometheus asks, however many processes deliver."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import attrs

from outbox.contrib.census import Census, Seen, look_at
from outbox.errors import ConfigurationError
from outbox.events import Listener
from outbox.locate import Config

from .opening import opened_store

__all__ = ["Metrics", "counted_in", "exposed", "library"]


@attrs.define
class Metrics:
    """Where this run's numbers are.

    *config*: the settings of now, whose store is counted.  *listeners* count
    what this process does; *arguments* have another process counted, too.
    *begins* are told of queues, whose numbers begin with zeros.
    """

    config: Config
    listeners: Sequence[Listener] = ()
    arguments: Sequence[str] = ()
    address: str = ""
    begins: Sequence[Callable[[Sequence[str]], object]] = ()

    def adopt(self, config: Config) -> None:
        """Show these settings from now on: their store, and zeros of their queues."""
        self.config = config
        for begin in self.begins:
            begin(config.queues)

    def look(self) -> Seen:
        """Look at the store of now."""
        # Opened each time: a reload may name another, and nobody has to close this one.
        with opened_store(self.config) as store:
            return look_at(store)


@contextlib.contextmanager
def exposed(config: Config, *, several: bool) -> Iterator[Metrics]:
    """Within the block the numbers can be asked for, if the settings say where.

    Raises:
        ConfigurationError: the address cannot be had, or what it takes is not installed.
    """
    metrics = Metrics(config)
    if config.metrics is None:
        yield metrics
        return
    prometheus, (host, port) = library(), config.metrics
    # Twice as many lines, of which no panel needs one.
    prometheus.prometheus_client.disable_created_metrics()
    begins: list[Callable[[Sequence[str]], object]] = []
    with contextlib.ExitStack() as stack:
        if several:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outbox-metrics-")))
            registry = prometheus.joined(folder)
            metrics.arguments = ("--metrics-in", str(folder))
        else:
            registry = prometheus.CollectorRegistry()
            listener = prometheus.PrometheusListener(registry=registry, queues=config.queues)
            metrics.listeners = [listener]
            begins.append(listener.begin)
        census = Census(metrics.look, queues=config.queues)
        metrics.begins = [*begins, census.begin]
        registry.register(prometheus.StoreCollector(None, census=census))
        bound = stack.enter_context(prometheus.serving(host, port, registry))
        metrics.address = f"http://{f'[{host}]' if ':' in host else host}:{bound}/metrics"
        yield metrics


def counted_in(folder: Path | None, config: Config) -> Sequence[Listener]:
    """What counts in this process for its supervisor, where he asks for it."""
    return [] if folder is None else [library().join(folder, queues=config.queues)]


def library() -> ModuleType:
    """What speaks to Prometheus.

    Raises:
        ConfigurationError: its extra is not installed.
    """
    try:
        from outbox.contrib import prometheus  # noqa: PLC0415 - an extra, for who asks for it
    except ModuleNotFoundError as error:
        raise ConfigurationError(str(error)) from error
    return prometheus
