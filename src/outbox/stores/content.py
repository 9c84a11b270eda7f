"""Content at rest: what a store does to it on the way in, and undoes on the way out.

The hot rows stay as they are: ids, queues, recipients and times are what the
queue works by.  Only the content is coded.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from outbox.errors import ConfigurationError, CorruptRecord, FormatError, OutboxError, StoreUnavailable
from outbox.message import Message
from outbox.values import printable, quoted

__all__ = ["Codings", "ContentCoding", "Deflate", "intact"]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


class ContentCoding(Protocol):
    """One way to keep content.  Safe to use from many threads.

    Attributes:
        name: Written beside the content, so that it is found again:
            ``[a-z0-9._-]``, up to 64.  Content of another key has another name.
    """

    @property
    def name(self) -> str: ...

    def encode(self, content: bytes, /, *, id: str) -> bytes:
        """*content* of the message *id* as it is to be kept."""
        ...

    def decode(self, data: bytes, /, *, id: str) -> bytes:
        """The inverse.

        Raises:
            CorruptRecord: *data* is not what :meth:`encode` made for *id*: the
                message is held.  A ValueError is taken for the same.  Whatever
                else comes means that nothing can be read for now (a service
                that keeps the key is down): nothing is held, and it is tried
                again.
        """
        ...


class Deflate:
    """Compressed with zlib (RFC 1950); what does not shrink grows by some bytes.

    Args:
        level: 0 (not at all) to 9 (smallest), or -1, zlib's own choice.

    Raises:
        ConfigurationError: the level is none of these.
    """

    def __init__(self, level: int = 6) -> None:
        if level not in range(-1, 10):
            raise ConfigurationError(f"Deflate level {level!r} is not a number from -1 to 9")
        self._level = level

    @property
    def name(self) -> str:
        return "deflate"

    def encode(self, content: bytes, /, *, id: str) -> bytes:  # noqa: ARG002 - the id is for those that seal
        return zlib.compress(content, self._level)

    def decode(self, data: bytes, /, *, id: str) -> bytes:
        try:
            return zlib.decompress(data)
        except zlib.error as error:
            raise CorruptRecord(f"{id}: the compressed content cannot be read: {error}") from error


def _listed(codings: Iterable[ContentCoding], setting: str) -> tuple[ContentCoding, ...]:
    """Raise ConfigurationError where one of them is no coding."""
    try:
        listed = tuple(codings)
    except TypeError:
        raise ConfigurationError(
            f"{setting} is {codings!r}: pass a sequence of codings, such as [it]"
        ) from None
    for coding in listed:
        if not all(hasattr(coding, name) for name in ("name", "encode", "decode")):
            raise ConfigurationError(f"{setting}: {coding!r} is no coding: it lacks name, encode or decode")
    return listed


class Codings:
    """The codings that a store writes with, in order, and all that it can read.

    Args:
        write: Applied one after the other to what is put.
        read: Further ones that content may have been kept with: an earlier key.

    Raises:
        ConfigurationError: a name is none, or stands for two.
    """

    def __init__(self, write: Iterable[ContentCoding] = (), read: Iterable[ContentCoding] = ()) -> None:
        self._write, known = _listed(write, "coding"), _listed(read, "also_reads")
        self._known: dict[str, ContentCoding] = {}
        for coding in (*self._write, *known):
            if not _NAME.fullmatch(coding.name):
                raise ConfigurationError(
                    f"the coding name {quoted(coding.name)} is not 1 to 64 of a-z, 0-9, '._-'"
                )
            if self._known.setdefault(coding.name, coding) is not coding:
                raise ConfigurationError(f"there are two codings of the name {quoted(coding.name)}")
        self.name = " ".join(coding.name for coding in self._write)

    def encode(self, content: bytes, id: str) -> bytes:
        """The content as it is to be kept; raises StoreUnavailable where a coding cannot make it now."""
        for coding in self._write:
            try:
                content = coding.encode(content, id=id)
            except OutboxError:
                raise
            except Exception as error:
                raise _unavailable(f"{id} cannot be coded", coding, error) from error
            if not isinstance(content, bytes):
                raise ConfigurationError(
                    f"the coding {quoted(coding.name)} made {type(content).__name__} of the content of {id}, and not bytes"
                )
        return content

    def missing(self, names: str) -> list[str]:
        """Those of *names*, as :meth:`decode` takes them, that are not known here."""
        return [name for name in names.split() if name not in self._known]

    def decode(self, data: bytes, names: str, id: str) -> bytes:
        """The content kept under these names.

        Raises:
            ConfigurationError: one of them is not known here.  The message is as
                well as ever; this process was not told how to read it.
            CorruptRecord: it cannot be read.
            StoreUnavailable: it cannot be read now, which says nothing of it.
        """
        for name in reversed(names.split()):
            coding = self._known.get(name)
            if coding is None:
                raise ConfigurationError(
                    f"the content of {id} is kept in the coding {quoted(name)}, and this store was opened "
                    "without it: open it with that coding, or cancel the message"
                )
            data = _decoded(coding, data, id)
        return data


def intact(id: str, read: Callable[[], Message]) -> Message:
    """The message that *read* makes of its record.

    Raises:
        CorruptRecord: it cannot be read, whatever the damage made *read* raise.
        FormatError: a newer release put it.
        ConfigurationError, StoreUnavailable: as :meth:`Codings.decode` raises them.
    """
    try:
        return read()
    except (ConfigurationError, StoreUnavailable):
        raise
    except FormatError as error:
        raise FormatError(f"{id}: {error}") from error
    except Exception as error:  # whatever else a damaged record makes a decoder raise: it stops no other
        raise CorruptRecord(f"{id}: {error}") from error


def _decoded(coding: ContentCoding, data: bytes, id: str) -> bytes:
    try:
        return coding.decode(data, id=id)
    except OutboxError:
        raise
    except ValueError as error:
        raise CorruptRecord(f"{id}: {error}") from error
    except Exception as error:
        raise _unavailable(f"{id} cannot be decoded", coding, error) from error


def _unavailable(what: str, coding: ContentCoding, error: Exception) -> StoreUnavailable:
    reason = printable(str(error)) or type(error).__name__
    return StoreUnavailable(f"{what} by the coding {quoted(coding.name)}: {reason}")
