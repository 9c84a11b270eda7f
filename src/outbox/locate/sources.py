"""Every setting in force, and where it came from: an option, the environment, a line of the file, or nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import attrs

from outbox.values import printable

from .config import PASSWORD, Config, Said
from .keys import KEYS
from .spelling import leaves
from .toml_file import Place, named

__all__ = ["Origin", "Setting", "settings_of"]

_SHORT_FORMS: Final = {"schedule", "file"}
_HIDDEN: Final = "***"


@attrs.frozen(kw_only=True)
class Origin:
    """Who says so: *name* is an option's, a variable's or the file's."""

    source: Literal["option", "environment", "file", "system", "default"]
    name: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        match self.source:
            case "environment":
                return f"${self.name}"
            case "file":
                return printable(str(self.name), 200) + (f":{self.line}" if self.line else "")
        return self.name or self.source


@attrs.frozen(kw_only=True)
class Setting:
    """One value in force, as the file would say it; *overruled* are what others say, in vain."""

    key: str
    value: Any
    origin: Origin
    overruled: tuple[tuple[Any, Origin], ...] = ()


_DEFAULT: Final = Origin(source="default")


def settings_of(said: Said, options: Mapping[str, Any]) -> Iterator[Setting]:
    """All of them, in their order.  What cannot be read is as though it were not said.

    Args:
        said: What the environment and the file say.
        options: What the command line says, by key.
    """
    lines = {} if said.file is None else said.file.lines()
    for name in KEYS:
        yield from _of(name, said, options, lines)
        if name == "transport" and "password" in said.environment:
            yield Setting(key="password", value=_HIDDEN, origin=Origin(source="environment", name=PASSWORD))


def _of(name: str, said: Said, options: Mapping[str, Any], lines: Mapping[Place, int]) -> Iterator[Setting]:
    layers = list(_layers(name, said, options))
    effective = attrs.evolve(said.config(), **{key: value for key, value in options.items() if key in KEYS})
    for place, value in leaves(effective, name):
        found = [(_value(layer, name, place), _origin(origin, place, lines)) for layer, origin in layers]
        winner = next((origin for _, origin in found if origin is not None), _DEFAULT)
        rest = [(other, origin) for other, origin in found if origin not in (None, winner)]
        yield Setting(
            key=named(place),
            value=value,
            origin=winner,
            overruled=tuple((other, origin) for other, origin in rest if origin is not None),
        )


def _layers(name: str, said: Said, options: Mapping[str, Any]) -> Iterator[tuple[Config, Origin]]:
    """Who says something of it, the first that counts first; each alone, as settings."""
    key = KEYS[name]
    if name in options:
        yield attrs.evolve(Config(), **{name: options[name]}), Origin(source="option", name=key.options[0])
    if name in said.environment:
        alone = Said({name: said.environment[name]}, None).config()
        yield alone, Origin(source="environment", name=key.variable)
    if said.file is not None and name in said.file.values:
        if name not in said.in_file and name not in said.environment:
            yield Config(), Origin(source="environment", name=said.secret_from)
        yield Said({}, said.file).config(), Origin(source="file", name=str(said.file.path))


def _value(layer: Config, name: str, place: Place) -> Any:
    return next((value for found, value in leaves(layer, name) if found == place), None)


def _origin(origin: Origin, place: Place, lines: Mapping[Place, int]) -> Origin | None:
    """The same with its line; None where this layer says nothing of that piece."""
    if origin.source != "file":
        return origin if len(place) == 1 else None
    line = lines.get(place)
    if line is None and place[-1] in _SHORT_FORMS:
        line = lines.get(place[:-1])
    return None if line is None else attrs.evolve(origin, line=line)
