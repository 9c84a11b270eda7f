"""``sqs://region/prefix``: queues of Amazon SQS, or of whoever answers as it does at ``?endpoint=``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from outbox.clock import Clock
from outbox.errors import ConfigurationError
from outbox.protocols import Store

from .durations import parse_duration
from .grammar import Url
from .readers import parse_size, parse_yes_or_no

__all__ = ["open_sqs", "serving"]


def open_sqs(url: Url, create: bool, clock: Clock | None) -> Store:
    """The store; its queues are asked for when they are first used."""
    if url.user or url.password is not None or url.port is not None:
        raise url.wrong(
            "write sqs://eu-central-1/outbox- without a key: credentials are found as all of AWS's own tools find "
            "them (environment, ~/.aws, the role of the machine), and ?profile= names one of several"
        )
    prefix = url.path.removeprefix("/")
    if "/" in prefix:
        raise url.wrong(
            "write sqs://eu-central-1/outbox-, where outbox- is what the names of the queues begin with"
        )
    settings = url.settings(_READERS)
    settings["create"] = create and settings.get("create", False)
    if prefix:
        settings["prefix"] = prefix
    try:
        from outbox.stores.sqs import SQSStore  # noqa: PLC0415 - only the store that is asked for is imported

        if "blobs" in settings:
            settings["blobs"] = _blobs(settings["blobs"], url, settings)
        return SQSStore(region=url.host or None, clock=clock, **settings)
    except ModuleNotFoundError as error:
        raise url.wrong(str(error)) from error
    except ConfigurationError as error:
        raise url.wrong(str(error)) from None


def _endpoint(text: str) -> str:
    # Where a key has a slash in it, what follows is no longer the host.
    if "@" in text:
        raise ConfigurationError("no key belongs in it: AWS's own tools say where credentials are kept")
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and parts.hostname and not parts.query and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ConfigurationError("write http://host:port or https://host")
    return text


def _blobs_of(text: str) -> str:
    try:
        sound = text.startswith("/") or (text.startswith("s3://") and urlsplit(text).netloc)
    except ValueError:
        sound = False
    if not sound:
        raise ConfigurationError("write s3://bucket/prefix/ or /an/absolute/directory")
    return text


def _queues(text: str) -> list[str]:
    return text.split(",")


def serving(url: Url, queues: Sequence[str]) -> Url:
    """The same, and the *queues* that are served here beside those that it names."""
    if not queues:
        return url
    named = _queues(url.options["queues"]) if "queues" in url.options else []
    return attrs.evolve(url, options={**url.options, "queues": ",".join(dict.fromkeys([*named, *queues]))})


def _blobs(text: str, url: Url, settings: Mapping[str, Any]) -> Any:
    from outbox.stores.sqs import DirectoryBlobs, S3Blobs  # noqa: PLC0415 - as the store itself

    if text.startswith("/"):
        return DirectoryBlobs(text)
    parts = urlsplit(text)
    folder = parts.path.strip("/")
    return S3Blobs(
        parts.netloc,
        prefix=f"{folder}/" if folder else "",
        region=url.host or None,
        endpoint=settings.get("endpoint"),
        profile=settings.get("profile"),
    )


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "profile": str,
    "endpoint": _endpoint,
    "blobs": _blobs_of,
    "max_message": parse_size,
    "poll": parse_duration,
    "queues": _queues,
    "create": parse_yes_or_no,
}
"""How each option is read."""
