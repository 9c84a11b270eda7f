"""The aliases file, as sendmail has it: a name, and who is meant by it.

::

    postmaster: root
    root:       ann@example.org, bob
    staff:      :include:/etc/mail/staff
    bob:        bob@example.net

A line that begins with white space goes on with the one before; ``#`` begins a
comment.  What leads to a program or a file is refused when somebody is meant by it: mail goes to
addresses from here, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from outbox.address import parse_address_list
from outbox.errors import ConfigurationError, InvalidMessage
from outbox.values import frozen_mapping, printable, quoted

__all__ = ["Aliases"]

_INCLUDE: Final = ":include:"
_MOST: Final = 10_000
_DEEPEST: Final = 50
_TARGET: Final = re.compile(r'\s*((?:"(?:[^"\\]|\\.)*"|[^",])*)(?:,|\Z)', re.DOTALL)


def _frozen(entries: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    return frozen_mapping(entries)


@attrs.frozen
class Aliases:
    """What each name stands for, as the file at *path* says; names are the same in any case of letters."""

    path: Path | None = None
    entries: Mapping[str, Sequence[str]] = attrs.field(factory=dict, converter=_frozen, hash=False)

    @classmethod
    def read(cls, path: Path) -> Aliases:
        """The file as it is now.

        Raises:
            ConfigurationError: it cannot be read, or a line is no alias; the text names it.
        """
        entries: dict[str, Sequence[str]] = {}
        for number, line in _logical_lines(_text(path)):
            name, colon, value = _name_of(line)
            if not (colon and name) or line[0].isspace():
                raise ConfigurationError(f"{path}:{number}: no alias: write name: ann@example.org, bob")
            if name.lower() in entries:
                raise ConfigurationError(f"{path}:{number}: the alias {quoted(name)} is there twice")
            entries[name.lower()] = list(_targets(value))
        return cls(path, entries)

    def expanded(self, name: str) -> list[str]:
        """Who is meant by a bare local name, each an address or a bare name that is none of these; in order, once.

        Raises:
            ConfigurationError: it leads to a program or a file, back to
                itself, or to more than ten thousand; or what it includes
                cannot be read.
        """
        found: dict[str, None] = {}
        for recipient in self._of(name, (name.lower(),), set()):
            found[recipient] = None
            if len(found) > _MOST:
                raise self._wrong(name, f"it leads to more than {_MOST:,} recipients")
        return list(found)

    def check(self) -> int:
        """Follow every alias; how many there are.

        Raises:
            ConfigurationError: as :meth:`expanded`, of the first that cannot be followed.
        """
        for name in self.entries:
            self.expanded(name)
        return len(self.entries)

    def _of(self, name: str, way: Sequence[str], done: set[str]) -> Iterator[str]:
        """Who is meant by the last of the *way*; nobody again, where it is *done*."""
        targets = self.entries.get(name.lower())
        if targets is None:
            yield name
            return
        if way[-1] in done:
            return
        if len(way) > _DEEPEST:
            raise self._wrong(way[0], "it leads through too many others")
        yield from self._all(targets, way, done)
        done.add(way[-1])

    def _all(self, targets: Iterable[str], way: Sequence[str], done: set[str]) -> Iterator[str]:
        for target in targets:
            yield from self._target(target, way, done)

    def _target(self, target: str, way: Sequence[str], done: set[str]) -> Iterator[str]:
        plain = target.strip('"')
        if plain.startswith("|"):
            raise self._wrong(
                way[-1],
                f"it leads to the program {quoted(plain[1:].strip(), 60)}, and outbox runs none: name an address",
            )
        if plain.startswith("/"):
            raise self._wrong(
                way[-1], f"it leads to the file {quoted(plain, 60)}, and outbox writes none: name an address"
            )
        if target.startswith(_INCLUDE):
            yield from self._included(target[len(_INCLUDE) :].strip().strip('"'), way, done)
        elif "@" in target:
            yield from self._addresses(target, way)
        else:
            yield from self._name(plain, way, done)

    def _name(self, name: str, way: Sequence[str], done: set[str]) -> Iterator[str]:
        if name.startswith("\\"):
            # As sendmail has it: he himself, whatever he is an alias of.
            yield name[1:]
        elif name.lower() == way[-1]:
            # Who is his own alias gets it himself, beside the others.
            yield name
        elif name.lower() in way:
            raise self._wrong(way[0], f"it leads back to itself: {' → '.join([*way, name.lower()])}")
        else:
            yield from self._of(name, (*way, name.lower()), done)

    def _included(self, name: str, way: Sequence[str], done: set[str]) -> Iterator[str]:
        step = f"{_INCLUDE}{name}"
        if not name.startswith("/"):
            raise self._wrong(way[-1], f"it includes {quoted(name, 60)}: write the whole path")
        if step in way:
            raise self._wrong(way[0], f"it leads back to itself: {' → '.join([*way, step])}")
        if step in done:
            return
        for _, line in _logical_lines(_text(Path(name))):
            yield from self._all(_targets(line), (*way, step), done)
        done.add(step)

    def _addresses(self, target: str, way: Sequence[str]) -> Sequence[str]:
        try:
            return parse_address_list(target)
        except InvalidMessage as error:
            raise self._wrong(way[-1], str(error)) from None

    def empty(self, name: str) -> ConfigurationError:
        """What is wrong with an alias that stands for nobody, when nobody else is meant."""
        return self._wrong(name, "it leads to nobody: name an address")

    def _wrong(self, name: str, why: str) -> ConfigurationError:
        return ConfigurationError(f"{self.path}: alias {quoted(name)}: {why}")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read {printable(str(path), 200)}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"{printable(str(path), 200)} is not UTF-8 text") from None


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line with those that go on with it, and the number of the first."""
    begun, said = 0, ""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0] in " \t" and said:
            said += " " + line.strip()
            continue
        if said:
            yield begun, said
        begun, said = number, line.rstrip()
    if said:
        yield begun, said


def _name_of(line: str) -> tuple[str, str, str]:
    if line.startswith('"'):
        name, quote, rest = line[1:].partition('"')
        return name, rest.lstrip()[:1] if quote and rest.lstrip().startswith(":") else "", rest.lstrip()[1:]
    name, colon, rest = line.partition(":")
    return name.strip(), colon, rest


def _targets(value: str) -> Iterator[str]:
    """What stands between the commas, of which those within quotes are none."""
    at = 0
    while at < len(value):
        found = _TARGET.match(value, at)
        if found is None:
            # A quote that is not closed: as it stands, to be refused as what it is.
            yield value[at:].strip()
            return
        if found[1].strip():
            yield found[1].strip()
        at = found.end()
