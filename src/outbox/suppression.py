"""Lists of who is not to be written to, kept elsewhere: a text file, or a column of an SQLite database of yours.

Each is a :data:`~outbox.Suppress`: what cannot be read puts its recipients
off, for a mail that comes late is better than one that should never have come.

One person's address can be written in several ways: in letters of either
case, with the letters of a foreign domain or as "xn--…", and with a local
part in quotes.  Both sides are brought to the same form.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from encodings import idna
from pathlib import Path
from typing import Final
from urllib.parse import quote

from .address import domain, parse_mailbox
from .errors import ConfigurationError, InvalidMessage
from .message import Message
from .values import quoted

__all__ = ["SuppressionFile", "SuppressionTable"]

_MOST_BYTES: Final = 256 << 20
_BUSY: Final = 5.0
_DOT: Final = re.compile("[.\u3002\uff0e\uff61]")
_LONGEST_LABEL: Final = 63
_FIRST: Final = re.compile(r'(?:"(?:\\.|[^"\\])*"(?=@))?\S*')
"""A word; the blanks of a local part in quotes are its own."""
_AFTER_BLANKS: Final = "!"
"""The first character behind all that is white."""
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


class SuppressionFile:
    """A text file: on each line an address, or a domain as ``@example.org``, in any case of letters.

    However it is written, it is the same address: a foreign domain as it is or
    as "xn--…", a local part in quotes or without.
    What follows an address after white space is a note; empty lines, and
    those that begin with ``#``, say nothing: who is called ``#1`` stands there
    in quotes, as ``"#1"@example.org``.  ``@example.org`` is not for its
    subdomains.  The file is read anew whenever it has changed; write a new one
    beside it and rename it, so that no half of it is ever read.

    Raises:
        ConfigurationError: it cannot be read, or a line is neither; the text
            names it.  While mail is delivered that puts the recipients off.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._names: frozenset[str] = frozenset()
        self._current()

    def __repr__(self) -> str:
        return f"SuppressionFile({str(self._path)!r})"

    def __call__(self, message: Message, recipients: Sequence[str], /) -> frozenset[str]:  # noqa: ARG002 - as a Suppress is called
        """Those of *recipients* who are in the file as it is now."""
        names = self._current()
        return frozenset(r for r in recipients if any(name in names for name in _names_of(r)))

    def _current(self) -> frozenset[str]:
        with self._lock, _readable(self._path):
            stat = self._path.stat()
            seen = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if seen != self._seen:
                self._names, self._seen = _read(self._path), seen
            return self._names


class SuppressionTable:
    """A column of a table of an SQLite database: of addresses, and of domains as ``@example.org``.

    The database is opened to be read only, for each question anew, and asked
    with ``SELECT``; addresses are compared as those of a
    :class:`SuppressionFile`, and what follows one after white space is a note
    here, too; none stands before it.  An index on ``lower(column)`` keeps it
    quick, but for who has letters beyond ASCII or a foreign domain: for him
    all rows that have such letters are looked at.  Who has none is not looked
    for in those rows: ``straße@example.org`` is not for ``strasse@example.org``.

    Raises:
        ConfigurationError: there is no such database, table or column.
    """

    def __init__(self, path: str | os.PathLike[str], table: str, column: str = "address") -> None:
        self._path = Path(path)
        self._table, self._column = table, column
        # With the table's name before it: SQLite takes an unknown column in quotes for a text, which nobody is.
        self._from = f"FROM {_name(table)} AS t WHERE"
        self._of = f"t.{_name(column)}"
        self._listed(["nobody@example.invalid"])

    def __repr__(self) -> str:
        return f"SuppressionTable({str(self._path)!r}, {self._table!r}, {self._column!r})"

    def __call__(self, message: Message, recipients: Sequence[str], /) -> frozenset[str]:  # noqa: ARG002 - as a Suppress is called
        """Those of *recipients* who are in the table as it is now."""
        return self._listed(recipients)

    def _has(self, database: sqlite3.Connection, names: Sequence[str]) -> bool:
        ends = [end for name in names for end in (name, f"{name}{_AFTER_BLANKS}")]
        return database.execute(self._asks(len(names)), ends).fetchone() is not None

    def _asks(self, many: int) -> str:
        """Whether one of so *many* is there, a note behind it or none: a range, for which an index will do."""
        row = f"lower({self._of})"
        return f"SELECT 1 {self._from} {' OR '.join([f'({row} >= ? AND {row} < ?)'] * many)} LIMIT 1"

    def _foreign_rows(self, database: sqlite3.Connection) -> frozenset[str]:
        """The rows that hold letters beyond ASCII, each in its form."""
        # More octets than letters; GLOB would find them as well, in four times the time.
        text = f"CAST({self._of} AS TEXT)"
        rows = database.execute(f"SELECT {text} {self._from} length({text}) <> length(CAST({text} AS BLOB))")
        return frozenset(form for (text,) in rows for form in _forms(_without_note(text)))

    def _listed(self, recipients: Sequence[str]) -> frozenset[str]:
        uri = f"file:{quote(str(self._path.absolute()))}?mode=ro"
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_BUSY)) as database:
                database.text_factory = _leniently
                found = {r for r in recipients if self._has(database, _spellings(_names_of(r)))}
                foreign = {
                    r: names for r in recipients if r not in found and _foreign(r, names := _names_of(r))
                }
                rows = self._foreign_rows(database) if foreign else frozenset()
                return frozenset(found | {r for r, names in foreign.items() if not names.isdisjoint(rows)})
        except sqlite3.Error as error:
            raise ConfigurationError(
                f"cannot ask {self._path} who is suppressed (table {quoted(self._table)}, column "
                f"{quoted(self._column)}): {error}"
            ) from error


def _names_of(recipient: str) -> frozenset[str]:
    """What he may be listed as."""
    return _forms(recipient) | _forms(f"@{domain(recipient)}")


def _forms(address: str) -> frozenset[str]:
    """The one form of an address, or of a domain behind its ``@``; two where its domain may be either of two."""
    local, at, host = address.rpartition("@")
    return frozenset(f"{_local_form(local)}{at}{form}" for form in _host_forms(host))


def _local_form(local: str) -> str:
    if local.startswith('"') and local.endswith('"'):
        # One that is empty stays in quotes, for nothing before the @ means the whole domain.
        local = _ESCAPED.sub(r"\1", local[1:-1]) or local
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).casefold())


def _host_forms(host: str) -> frozenset[str]:
    """As A-labels, by the old IDNA and by the new: whoever delivers it may use either."""
    if host.isascii():
        return frozenset({host.lower()})
    labels = _DOT.split(host)
    return frozenset(
        ".".join(_label(label, way) for label in labels).lower() for way in (_a_label_2003, _a_label_2008)
    )


def _label(label: str, way: Callable[[str], str]) -> str:
    try:
        return label if label.isascii() or len(label) > _LONGEST_LABEL else way(label)
    except UnicodeError:
        return unicodedata.normalize("NFC", label.casefold())


def _a_label_2003(label: str) -> str:
    return idna.ToASCII(label).decode("ascii")


def _a_label_2008(label: str) -> str:
    plain = unicodedata.normalize("NFC", label).lower()
    return "xn--" + plain.encode("punycode").decode("ascii")


def _foreign(recipient: str, names: frozenset[str]) -> bool:
    """Whether a row may have him in letters that SQLite does not fold, or that are no A-labels."""
    # As he is written, too: of some letters beyond ASCII folding makes letters of ASCII.
    return not recipient.isascii() or any(not name.isascii() or "xn--" in name for name in names)


def _spellings(names: frozenset[str]) -> list[str]:
    """The names, and those with their local part in quotes, as rows of ASCII may have them."""
    found = list(names)
    for name in names:
        local, _, host = name.rpartition("@")
        if local:
            escaped = local.replace("\\", r"\\").replace('"', r"\"")
            found.append(f'"{escaped}"@{host}')
    return found


def _leniently(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _name(text: str) -> str:
    if not text or "\0" in text:
        raise ConfigurationError("a table and a column have names")
    return '"' + text.replace('"', '""') + '"'


def _read(path: Path) -> frozenset[str]:
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(f"{path} is too long to be kept in memory: keep it in a table")
    return frozenset(_entries(path, content.decode("utf-8-sig")))


def _entries(path: Path, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        entry = _without_note(line)
        if not entry or entry.startswith("#"):
            continue
        try:
            yield from _forms(_entry(entry))
        except InvalidMessage as error:
            raise ConfigurationError(
                f"{path}:{number}: {error}; write ann@example.org, or @example.org for all of a domain"
            ) from None


def _without_note(text: str) -> str:
    found = _FIRST.match(text.strip())
    return found[0] if found else ""


def _entry(text: str) -> str:
    """The address, or the domain behind its ``@``, which is checked as any address in it."""
    if text.startswith("@"):
        return f"@{domain(parse_mailbox(f'x{text}'))}"
    if text.startswith("*@"):
        raise InvalidMessage(f"{quoted(text)} is nobody's address, and no pattern either")
    return parse_mailbox(text)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"cannot read the suppression list {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"the suppression list {path} is not UTF-8 text") from None
