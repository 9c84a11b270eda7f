"""Content too large for a queue, set aside: a seam, and two that fit it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path
from typing import Any, Final, Protocol

from outbox.errors import ConfigurationError, CorruptRecord, StoreUnavailable

__all__ = ["Blobs", "DirectoryBlobs", "S3Blobs"]

_KEY: Final = re.compile(r"[a-z0-9_-]{1,128}", re.ASCII)


class Blobs(Protocol):
    """Bytes by key, for every process that uses the queue.  Safe to use from many threads.

    A key is 1 to 128 of ``a-z``, ``0-9``, ``_`` and ``-``, and stands for the
    same bytes always.  What was put a month ago nobody needs any more.
    """

    def put(self, key: str, data: bytes, /) -> None:
        """Keep *data*, durable when it returns; put again, the same is kept from now on.

        Raises:
            StoreUnavailable: it cannot be kept now.
        """
        ...

    def get(self, key: str, /) -> bytes:
        """What was put.

        Raises:
            CorruptRecord: there is no such key: its message is held.
            StoreUnavailable: it cannot be read now: its message waits.
        """
        ...

    def delete(self, key: str, /) -> None:
        """Forget it; harmless where there is none."""
        ...


class DirectoryBlobs:
    """Each in a file of one directory, which all processes that use the queue have to see.

    Raises:
        ConfigurationError: the directory cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"blobs: {self._path}: {error.strerror}: name a directory") from error

    def __repr__(self) -> str:
        return f"<DirectoryBlobs {os.fspath(self._path)!r}>"

    def put(self, key: str, data: bytes, /) -> None:
        path = self._of(key)
        part = path.with_name(f".{key}.{secrets.token_hex(8)}")
        try:
            _write(part, data)
            part.replace(path)
            _sync(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise _unavailable(error, path) from error

    def get(self, key: str, /) -> bytes:
        path = self._of(key)
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise CorruptRecord(f"its content is missing: there is no {path}") from error
        except OSError as error:
            raise _unavailable(error, path) from error

    def delete(self, key: str, /) -> None:
        path = self._of(key)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _unavailable(error, path) from error

    def _of(self, key: str) -> Path:
        return self._path / _sound(key)


class S3Blobs:
    """Each an object of one bucket.

    Args:
        prefix: What the keys of the objects begin with, such as ``outbox/``.
        region, endpoint, profile, session: As :class:`~.store.SQSStore` takes them.

    Raises:
        ConfigurationError: a client cannot be made of these settings.
    """

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        region: str | None = None,
        endpoint: str | None = None,
        profile: str | None = None,
        session: Any = None,
    ) -> None:
        from .boto3 import Client  # noqa: PLC0415 - a directory needs no boto3

        self._bucket = bucket
        self._prefix = prefix
        self._client = Client("s3", region=region, endpoint=endpoint, profile=profile, session=session)

    def __repr__(self) -> str:
        return f"<S3Blobs {self._bucket!r} {self._prefix!r}>"

    def put(self, key: str, data: bytes, /) -> None:
        self._client.call("put_object", self._told(key), Body=data, **self._named(key))

    def get(self, key: str, /) -> bytes:
        from .boto3 import Refused, read  # noqa: PLC0415 - as above

        try:
            answer = self._client.call("get_object", self._told(key), **self._named(key))
        except Refused as error:
            if error.code in ("NoSuchKey", "404"):
                raise CorruptRecord(f"its content is missing: {error}") from error
            raise
        return read(answer["Body"], self._told(key))

    def delete(self, key: str, /) -> None:
        self._client.call("delete_object", self._told(key), **self._named(key))

    def _told(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def _named(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + _sound(key)}


def _sound(key: str) -> str:
    """The key; CorruptRecord where it is none of ours, for it may have come from a stranger's record."""
    if not _KEY.fullmatch(key):
        raise CorruptRecord(f"{key!r:.80} is no key of content that was set aside")
    return key


def _write(path: Path, data: bytes) -> None:
    with open(path, "xb", opener=lambda name, how: os.open(name, how, 0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    if os.name == "nt":
        return
    number = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _unavailable(error: OSError, path: Path) -> StoreUnavailable:
    return StoreUnavailable(f"{path}: {error.strerror or error}: content too large for SQS is kept there")
