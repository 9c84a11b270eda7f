"""One configuration file as it was read: its values, what is wrong with it, and the line of each entry."""

from __future__ import annotations

import contextlib
import functools
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from outbox.errors import ConfigurationError

from .entries import Within
from .keys import Key
from .tables import unknown

__all__ = ["Place", "TomlFile", "named"]

Place = tuple[str | int, ...]
"""The keys, and the numbers in arrays, that lead to an entry."""

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
# No other than ours can look: what stands there may be a line of a longer text, which may be a password.
_KEY: Final = re.compile(r"\s*([a-z_]{1,30}(?:\.[a-z_]{1,30})*)\s*=")
_TOKEN: Final = re.compile(
    r'''"""(?:\\.|[^\\])*?"""(?:"{0,2})|"(?:\\.|[^"\\\n])*"|'''
    r"""'''.*?'''(?:'{0,2})|'[^'\n]*'|#[^\n]*|[\[\]{}\n]""",
    re.DOTALL,
)
"""Texts and comments, in which nothing begins or ends, or else a bracket or the end of a line."""
_AT_LINE: Final = re.compile(r" \(at line (\d+), column \d+\)")
_AT_END: Final = "(at end of document)"


def named(place: Place) -> str:
    """As TOML has it: ``retry.queues."mail.bulk".timeout``, ``reply_rules[0].pattern``."""
    words = ""
    for key in place:
        if isinstance(key, int):
            words += f"[{key}]"
        else:
            words += "." if words else ""
            words += key if _BARE.fullmatch(key) else '"' + key.replace('"', '\\"') + '"'
    return words


@attrs.frozen
class TomlFile:
    """What the file says; *wrong* are those of its keys that cannot be used."""

    path: Path
    text: str = ""
    table: Mapping[str, Any] = attrs.field(factory=dict)
    values: dict[str, Any] = attrs.field(factory=dict)
    wrong: tuple[ConfigurationError, ...] = ()

    @classmethod
    def read(cls, path: Path, keys: Mapping[str, Key]) -> TomlFile:
        """The file as it is now; never raises for what is in it."""
        data = b""
        try:
            data = path.read_bytes()
            text = data.decode("utf-8-sig")
            table = tomllib.loads(text)
        except OSError as error:
            wrong = ConfigurationError(f"cannot read the configuration {path}: {error.strerror}")
            wrong.__cause__ = error
            return cls(path, wrong=(wrong,))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            return cls(path, wrong=(_no_toml(path, data, error),))
        values: dict[str, Any] = {}
        found = list(_read(path, text, table, keys, values))
        return cls(path, text, table, values, tuple(found))

    def lines(self) -> Mapping[Place, int]:
        """The line where each entry begins, of tables and of what is in them."""
        return {} if not self.text else dict(_lines(self.text))


def _no_toml(path: Path, data: bytes, error: Exception) -> ConfigurationError:
    at, said = _AT_LINE.search(str(error)), _AT_LINE.sub("", str(error))
    lines = data.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").split("\n")
    line = int(at[1]) if at else _unended(lines) if _AT_END in said else 0
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        said = f"this line is not UTF-8 text (byte 0x{error.object[error.start]:02x})"
    key = _KEY.match(lines[line - 1]) if 0 < line <= len(lines) else None
    where = f"{path}:{line}" if line else f"{path}"
    return ConfigurationError(f"{where}: the file is not TOML: {f'{key[1]}: ' if key else ''}{said}")


def _unended(lines: Sequence[str]) -> int:
    """The line of the entry that goes on to the end of the file: all before it is TOML."""
    for number in range(len(lines), 0, -1):
        with contextlib.suppress(tomllib.TOMLDecodeError):
            tomllib.loads("\n".join(lines[: number - 1]))
            return next((n for n in range(number, len(lines) + 1) if lines[n - 1].strip()), number)
    return 1


def _read(
    path: Path, text: str, table: Mapping[str, Any], keys: Mapping[str, Key], values: dict[str, Any]
) -> Iterator[ConfigurationError]:
    """Fills *values*, and yields what cannot be used."""

    lines = functools.cache(lambda: dict(_lines(text)))

    def wrong(place: Place, reason: object) -> ConfigurationError:
        line = lines().get(place)
        return ConfigurationError(f"{path}{f':{line}' if line else ''}: {reason}")

    readers: Mapping[str, Callable[[Any], Any]] = {name: key.read for name, key in keys.items()}
    for name, entry in table.items():
        if name not in readers:
            yield wrong((name,), unknown(name, readers))
            continue
        try:
            values[name] = readers[name](entry)
        except Within as error:
            place: Place = (name, *error.place)
            words = ".".join(key for key in place if isinstance(key, str))
            yield wrong(place, f"{words}: {error}")
        except ConfigurationError as error:
            yield wrong((name,), f"{name}: {error}")


def _lines(text: str) -> Iterator[tuple[Place, int]]:
    """Where each entry of what is TOML begins: each is read by itself, under the header that it stands under."""
    seen = set[Place]()
    arrays: dict[Place, int] = {}
    header: Place = ()
    for line, entry in _entries(text.replace("\r\n", "\n")):
        places = list(_places(tomllib.loads(entry)))
        if entry.startswith("["):
            keys = [key for key in max(places, key=len) if isinstance(key, str)]
            header = _header(keys, arrays, another=entry.startswith("[["))
            places = [header[:n] for n in range(1, len(header) + 1)]
        else:
            places = [(*header, *place) for place in places]
        for place in places:
            if place not in seen:
                seen.add(place)
                yield place, line


def _header(keys: Sequence[str], arrays: dict[Place, int], *, another: bool) -> Place:
    """The place that a header opens: of each array of tables on the way to it the last one so far, or *another*."""
    place: Place = ()
    for number, key in enumerate(keys, start=1):
        place = (*place, key)
        if another and number == len(keys):
            arrays[place] = arrays.get(place, -1) + 1
        if place in arrays:
            place = (*place, arrays[place])
    return place


def _entries(text: str) -> Iterator[tuple[int, str]]:
    """The line and the text of each entry and header: they end with a line, where no bracket is open."""
    begin, depth = 0, 0
    line = 1
    for token in _TOKEN.finditer(text + "\n"):
        if token[0] in ("[", "{"):
            depth += 1
        elif token[0] in ("]", "}"):
            depth -= 1
        elif token[0] == "\n" and not depth:
            entry = text[begin : token.start()]
            if entry.strip() and not entry.lstrip().startswith("#"):
                yield line, entry.lstrip()
            line += entry.count("\n") + 1
            begin = token.end()


def _places(entry: Any, before: Place = ()) -> Iterator[Place]:
    pairs: Sequence[tuple[str | int, Any]] = ()
    if isinstance(entry, dict):
        pairs = list(entry.items())
    elif isinstance(entry, list):
        pairs = list(enumerate(entry))
    for key, value in pairs:
        yield (*before, key)
        yield from _places(value, (*before, key))
