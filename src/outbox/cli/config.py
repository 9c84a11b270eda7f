"""Which settings are in force, and who says so.

Every setting that the configuration file can hold, grouped by where it came
from: an option of this command line (give it those that you would give to
`outbox run`), the environment, a line of the file, this system, or nobody.
Passwords are hidden.  What is wrong in the file is named, and the rest shown.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from outbox.locate import KEYS, Config, Origin, Said, Setting, did_you_mean, settings_of, toml
from outbox.values import printable, quoted

from . import originating
from .arguments import add_key
from .exits import CommandError, Exit
from .originating import system_domain
from .output import Console
from .settings import overruling

__all__ = ["EPILOG", "arguments", "run"]

EPILOG: Final = """\
examples:
  outbox config                        all of it
  outbox config workers retry          these: what they are for and may be, too
  outbox config --workers 8            with this option, as for `outbox run`
  outbox config --json                 for a program

An option goes before the environment, that before the file, which is the one
of --config, else $OUTBOX_CONFIG, ~/.config/outbox/outbox.toml or
/etc/outbox/outbox.toml.  docs/configuration.md lists every key.

exit status:
  0   all that is said can be used (`outbox check` tries it)
  78  something in the file is wrong: the first lines say what, and where
"""

_EVERYWHERE: Final = frozenset({"store", "transport"})
_WIDE: Final = 80
_LOOKED_FOR: Final = "$OUTBOX_CONFIG, ~/.config/outbox/outbox.toml, /etc/outbox/outbox.toml"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "keys", metavar="KEY", nargs="*", help="only these, such as workers or retry, explained"
    )
    for name, key in KEYS.items():
        if key.options and name not in _EVERYWHERE:
            add_key(parser, name)


def run(options: argparse.Namespace, console: Console) -> int:
    said = Said.read(options.config)
    said.warn()
    overruled = overruling(options, said.config())
    config = attrs.evolve(said.config(), **overruled)
    console.hide(config.secrets())
    settings = [_completed(setting, config) for setting in settings_of(said, overruled)]
    chosen = list(_chosen(settings, options.keys))
    said_wrong = [*map(str, said.wrong), *filter(None, [config.at_odds()])]
    wrong = [console.discreet(printable(each, 1000)) for each in said_wrong]
    if console.as_json:
        console.data(_data(said, wrong, chosen))
    else:
        lines = _explained(chosen, console.width) if options.keys else _grouped(said, chosen, console.width)
        for line in [*_told(wrong), *lines]:
            console.line(console.discreet(printable(line, 10_000)))
    return Exit.CONFIGURATION if wrong else Exit.OK


def _completed(setting: Setting, config: Config) -> Setting:
    """What nobody says and this system does."""
    if setting.value is not None:
        return setting
    domain = config.domain or system_domain()
    by_system: dict[str, Any] = {"domain": domain}
    if setting.key == "aliases":
        by_system["aliases"] = _system_aliases(config)
    if domain is not None:
        by_system["bounce.author"] = f"MAILER-DAEMON@{domain}"
    if by_system.get(setting.key) is None:
        return setting
    return attrs.evolve(
        setting, value=by_system[setting.key], origin=Origin(source="system", name="this system")
    )


def _system_aliases(config: Config) -> str | None:
    path = originating.SYSTEM_ALIASES if originating.SYSTEM_ALIASES.exists() else None
    return None if config.aliases is not None or path is None else str(path)


def _chosen(settings: Sequence[Setting], names: Sequence[str]) -> Iterator[Setting]:
    known = dict.fromkeys([*KEYS, *(setting.key for setting in settings)])
    for name in names:
        if name not in known:
            raise CommandError(
                Exit.USAGE,
                f"there is no key {quoted(name, 40)}{did_you_mean(name, known)} (see outbox config)",
            )
    for setting in settings:
        if not names or any(
            setting.key == name or setting.key.startswith((f"{name}.", f"{name}[")) for name in names
        ):
            yield setting


# -- for a person


def _told(wrong: Sequence[str]) -> Iterator[str]:
    for each in wrong:
        yield f"WRONG: {each}"
    if wrong:
        yield "Nothing begins before that is mended; what is wrong is left out of what follows."
        yield ""


def _grouped(said: Said, settings: Sequence[Setting], width: int | None) -> Iterator[str]:
    if said.file is None:
        yield f"There is no configuration file (looked for: {_LOOKED_FOR})."
        yield ""
    for source, head in _heads(said).items():
        those = [setting for setting in settings if setting.origin.source == source]
        if those:
            yield head
            yield from _rows(those, width)
            yield ""
    unsaid = [setting for setting in settings if setting.origin.source == "default"]
    yield "By default:"
    yield from _rows([setting for setting in unsaid if setting.value is not None], width)
    names = ", ".join(setting.key for setting in unsaid if setting.value is None)
    if names:
        yield from textwrap.wrap(
            f"Not set: {names}",
            (width or _WIDE) - 1,
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
        )


def _heads(said: Said) -> Mapping[str, str]:
    return {
        "option": "From the options:",
        "environment": "From the environment:",
        "file": f"From {'' if said.file is None else said.file.path}:",
        "system": "From this system:",
    }


def _rows(settings: Sequence[Setting], width: int | None) -> Iterator[str]:
    by = [_by(setting.origin) for setting in settings]
    room = max(map(len, by), default=0)
    for setting, who in zip(settings, by, strict=True):
        line = f"  {who:<{room}}{'  ' if room else ''}{setting.key} = {toml(setting.value)}"
        rest = [f"instead of {toml(value)} ({origin})" for value, origin in setting.overruled]
        if rest and width is not None and len(f"{line}  {'; '.join(rest)}") >= width:
            yield line
            yield from (f"  {'':<{room}}    {each}" for each in rest)
        else:
            yield "  ".join([line, *(["; ".join(rest)] if rest else [])])


def _by(origin: Origin) -> str:
    match origin.source:
        case "file":
            return f"line {origin.line}" if origin.line else ""
        case "option" | "environment":
            return origin.name or ""
    return ""


def _explained(settings: Sequence[Setting], width: int | None) -> Iterator[str]:
    told = ""
    for setting in settings:
        name = setting.key.partition(".")[0].partition("[")[0]
        if told and told != name:
            yield ""
        yield (
            f"{setting.key} = {toml(setting.value)}"
            if setting.value is not None
            else f"{setting.key} is not set"
        )
        yield f"  from    {setting.origin}"
        for value, origin in setting.overruled:
            yield f"  not     {toml(value)}, {origin}"
        if name != told and name in KEYS:
            yield from _meaning(name, width)
        told = name


def _meaning(name: str, width: int | None) -> Iterator[str]:
    key = KEYS[name]
    also = ", ".join([*key.options, *([f"${key.variable}"] if key.variable else [])])
    facts = {
        "is for": key.help.partition(" (default")[0],
        "takes": key.takes.replace("`", ""),
        "holds": ", ".join(key.within),
        "also": also,
        "heeded": "when `outbox run` begins, and not at a reload" if key.at_start else "",
    }
    for label, text in facts.items():
        if text:
            yield from textwrap.wrap(
                f"{label:<8}{text}",
                (width or 10_000) - 1,
                initial_indent="  ",
                subsequent_indent=" " * 10,
                break_long_words=False,
                drop_whitespace=True,
            )


# -- for a program


def _data(said: Said, wrong: Sequence[str], settings: Iterable[Setting]) -> dict[str, Any]:
    return {
        "file": None if said.file is None else str(said.file.path),
        "wrong": list(wrong),
        "settings": [
            {"key": each.key, "value": each.value}
            | _origin(each.origin)
            | {"overruled": [{"value": value} | _origin(origin) for value, origin in each.overruled]}
            for each in settings
        ],
    }


def _origin(origin: Origin) -> dict[str, Any]:
    return {"source": origin.source, "name": origin.name, "line": origin.line}
