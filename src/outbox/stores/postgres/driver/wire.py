"""Values as they go over the wire: in the binary formats of PostgreSQL, columns as arrays."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import psycopg
from psycopg.adapt import Dumper
from psycopg.types.bool import BoolBinaryLoader
from psycopg.types.numeric import Int4BinaryLoader, Int8BinaryDumper, Int8BinaryLoader
from psycopg.types.string import (
    ByteaBinaryLoader,
    BytesBinaryDumper,
    BytesDumper,
    StrBinaryDumper,
    StrDumper,
    TextBinaryLoader,
)

__all__ = ["adapt", "array"]


class _Array(list[Any]):
    """Values of a column."""


class _Texts(_Array):
    pass


class _Blobs(_Array):
    pass


class _Numbers(_Array):
    pass


_ARRAYS: Final[Mapping[str, type[_Array]]] = {"text": _Texts, "bytea": _Blobs, "int8": _Numbers}


def array(kind: str, values: Sequence[Any]) -> Sequence[Any]:
    """The values, for a parameter that is an array of *kind*: psycopg looks at each of them, and more than once."""
    made = _ARRAYS.get(kind)
    return list(values) if made is None else made(values)


_HEAD: Final = struct.Struct("!IIIII").pack
_LENGTH: Final = struct.Struct("!i").pack
_NUMBER: Final = struct.Struct("!iq").pack
_NULL: Final = _LENGTH(-1)


class _ArrayDumper(Dumper):
    """The wire's format of an array: how many dimensions, whether any is NULL, of what, how many, from 1 on; and each by its length."""

    format = psycopg.pq.Format.BINARY
    of: ClassVar[int]

    def dump(self, obj: Sequence[Any]) -> bytes:
        if not obj:
            return struct.pack("!III", 0, 0, self.of)
        head = _HEAD(1, None in obj, self.of, len(obj), 1)
        return b"".join((head, *map(self.item, obj)))

    def item(self, value: Any) -> bytes:
        return _NULL if value is None else _LENGTH(len(value)) + value


class _BlobsDumper(_ArrayDumper):
    oid, of = 1001, 17


class _TextsDumper(_ArrayDumper):
    oid, of = 1009, 25

    def item(self, value: Any) -> bytes:
        return super().item(None if value is None else value.encode())


class _NumbersDumper(_ArrayDumper):
    oid, of = 1016, 20

    def item(self, value: Any) -> bytes:
        return _NULL if value is None else _NUMBER(8, value)


_LOADERS: Final = {
    "text": TextBinaryLoader,
    "bytea": ByteaBinaryLoader,
    "int4": Int4BinaryLoader,
    "int8": Int8BinaryLoader,
    "bool": BoolBinaryLoader,
}


def adapt(adapters: Any) -> None:
    """Have our values go this way, whatever else is set there."""
    # In both formats, for lists may go by the one that the caller has changed.
    adapters.register_dumper(str, StrDumper)
    adapters.register_dumper(bytes, BytesDumper)
    # A number is int8 however small it is: each of its types would make another prepared statement.
    adapters.register_dumper(int, Int8BinaryDumper)
    adapters.register_dumper(str, StrBinaryDumper)
    adapters.register_dumper(bytes, BytesBinaryDumper)
    adapters.register_dumper(_Blobs, _BlobsDumper)
    adapters.register_dumper(_Texts, _TextsDumper)
    adapters.register_dumper(_Numbers, _NumbersDumper)
    for kind, loader in _LOADERS.items():
        adapters.register_loader(kind, loader)
