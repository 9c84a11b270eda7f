"""Every setting, once: its key in the configuration file, its option, its variable, and what it may be.

What the commands take as options, what the file may hold, what ``outbox
config`` prints and what docs/configuration.md lists all come from :data:`KEYS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from outbox.values import frozen_mapping

from . import conduct, entries, tables
from .conduct import BounceSettings, SuppressSettings
from .tables import Readers

__all__ = ["KEYS", "MAX_WORKERS", "Key"]

MAX_WORKERS: Final = 1000
_MOST_PROCESSES: Final = 256


def _frozen(readers: Readers) -> Readers:
    return frozen_mapping(readers)


@attrs.frozen(kw_only=True)
class Key:
    """One setting.

    Attributes:
        name: In the file, and of the :class:`~outbox.locate.Config`.
        read: Makes its value of the file's entry, or raises ConfigurationError.
        takes: What it may be, in words.
        help: What it is for.
        within: The keys of its table, where it may be one.
        options: The same on the command line.
        parse: Makes its value of an option's text; *read* does where nothing is said.
        const: Its value where the option takes no text.
        many: Whether the option may be repeated, for a value each.
        variable: The same in the environment.
        at_start: Whether it is read when `outbox run` begins, and not anew at a reload.
    """

    name: str
    read: Callable[[Any], Any]
    takes: str
    help: str
    within: Readers = attrs.field(factory=dict, converter=_frozen, hash=False)
    options: tuple[str, ...] = ()
    metavar: str = "TIME"
    parse: Callable[[str], Any] | None = None
    const: Any = None
    many: bool = False
    choices: tuple[str, ...] = ()
    variable: str = ""
    at_start: bool = False


_TIME: Final = 'a duration: `"30s"`, `"1h30m"`, or seconds'
_FILE: Final = "a file; a relative one starts from the configuration file's directory"
_OBJECT: Final = '`"package.module:name"`'
_FORMS: Final = ("logfmt", "json", "text")
_LEVELS: Final = ("debug", "info", "warning", "error")


def _workers(entry: Any) -> int:
    return entries.whole(entry, MAX_WORKERS)


def _processes(entry: Any) -> int:
    return entries.whole(entry, _MOST_PROCESSES)


_LIST: Final = (
    Key(
        name="store",
        read=entries.text,
        takes="a URL",
        help="where messages are stored: sqlite:///outbox.db, sqlite:////var/lib/outbox.db",
        options=("--store",),
        metavar="URL",
        variable="OUTBOX_STORE",
    ),
    Key(
        name="transport",
        read=entries.text,
        takes="a URL",
        help="what delivers them: smtp://host:port, smtps://user@host",
        options=("--transport",),
        metavar="URL",
        variable="OUTBOX_TRANSPORT",
    ),
    Key(
        name="password_file",
        read=entries.path,
        takes=_FILE,
        help="holds the password for the transport's user, alone on one line",
        variable="OUTBOX_SMTP_PASSWORD_FILE",
    ),
    Key(
        name="token_file",
        read=entries.path,
        takes=_FILE,
        help="instead: holds an OAuth access token, and is read anew for each connection",
        variable="OUTBOX_SMTP_TOKEN_FILE",
    ),
    Key(
        name="queues",
        read=entries.queues,
        takes="a list of names; mail goes to the first",
        help="serve this queue, and no other that is not named (may be repeated)",
        options=("--queue",),
        metavar="NAME",
        parse=entries.queue,
        many=True,
    ),
    Key(
        name="workers",
        read=_workers,
        takes=f"a whole number from 1 to {MAX_WORKERS:,}",
        help="deliver so many at once, each on a thread of its own",
        options=("--workers", "--threads"),
        metavar="N",
        parse=functools.partial(entries.numeral, most=MAX_WORKERS),
    ),
    Key(
        name="processes",
        read=_processes,
        takes=f"a whole number from 1 to {_MOST_PROCESSES}",
        help="so many processes, each with its own threads; one that dies is replaced",
        options=("--processes",),
        metavar="N",
        parse=functools.partial(entries.numeral, most=_MOST_PROCESSES),
        at_start=True,
    ),
    Key(
        name="lease",
        read=entries.lease,
        takes=f"{_TIME}; more than nothing, a day at most",
        help="after a crash a message is taken up again when this has passed",
        options=("--lease",),
    ),
    Key(
        name="grace",
        read=entries.grace,
        takes=f"{_TIME}; a day at most",
        help="how long a stop waits for what is under way",
        options=("--grace",),
    ),
    Key(
        name="domain",
        read=entries.domain,
        takes="a domain",
        help="what completes a bare name such as root",
        options=("--domain",),
        metavar="DOMAIN",
    ),
    Key(
        name="aliases",
        read=entries.path,
        takes=_FILE,
        help="this aliases file of `outbox sendmail` and `outbox mail`",
        options=("--aliases",),
        metavar="FILE",
    ),
    Key(
        name="retry",
        read=tables.retry,
        takes='a schedule: `"1m, 5m*2, 1h*3"`, or a table; `[retry.queues]` holds the same for queues that have their own',
        help="when a message is tried again, and when it is given up",
        within=tables.POLICY,
    ),
    Key(
        name="limits",
        read=tables.limits,
        takes="a table; `[limits.relays]` holds the same for relays by name",
        help="what each relay is asked to take at most, by itself",
        within=tables.LIMITS,
    ),
    Key(
        name="soft_bounce",
        read=entries.flag,
        takes="true or false",
        help="while going live: try again what is refused for good, until it is too old",
        options=("--soft-bounce",),
        const=True,
    ),
    Key(
        name="warn_after",
        read=entries.positive,
        takes=f"{_TIME}; more than nothing",
        help="say which messages have waited so long: 4h",
        options=("--warn-after",),
    ),
    Key(
        name="bounce",
        read=conduct.bounce,
        takes="true or false, or a table",
        help="tell the sender of what failed, by a mail (default: nobody is told)",
        within=conduct.BOUNCE,
        options=("--bounce",),
        const=BounceSettings(),
    ),
    Key(
        name="suppress",
        read=conduct.suppress,
        takes=f"a file; or a table with a database, its table and column; or with python = {_OBJECT}",
        help="never write to those in this file: an address a line, or @domain",
        within=conduct.SUPPRESS,
        options=("--suppress",),
        metavar="FILE",
        parse=lambda text: SuppressSettings(file=Path(text)),
    ),
    Key(
        name="reply_rules",
        read=conduct.reply_rules,
        takes="tables, each under `[[reply_rules]]`",
        help="leave a relay that says so alone for a while or, with per_second, speak to it slowly",
        within=conduct.RULE,
    ),
    Key(
        name="hook",
        read=entries.importable,
        takes=_OBJECT,
        help="a function of yours that may discard, hold or put off otherwise what was judged",
    ),
    Key(
        name="listeners",
        read=entries.importables,
        takes=f"a list of {_OBJECT}",
        help="functions of yours that are told what happens",
    ),
    Key(
        name="log_format",
        read=entries.one_of(*_FORMS),
        takes=", ".join(_FORMS),
        help="how lines look: key=value pairs, a JSON object each, or words for a person "
        "(default: words on a terminal, else logfmt)",
        options=("--log-format",),
        choices=_FORMS,
        at_start=True,
    ),
    Key(
        name="log_level",
        read=entries.one_of(*_LEVELS),
        takes=", ".join(_LEVELS),
        help="log what is at least so grave; -v, -q and -qq are debug, warning and error",
        options=("--log-level",),
        choices=_LEVELS,
        at_start=True,
    ),
    Key(
        name="log_file",
        read=entries.path,
        takes=_FILE,
        help="append all lines to this file instead of standard error; SIGHUP opens it anew (logrotate)",
        options=("--log-file",),
        metavar="FILE",
        at_start=True,
    ),
    Key(
        name="log_config",
        read=entries.path,
        takes=_FILE,
        help="a TOML or JSON file for Python's logging.config.dictConfig: it says what is logged where",
        options=("--log-config",),
        metavar="FILE",
        at_start=True,
    ),
    Key(
        name="pid_file",
        read=entries.path,
        takes=_FILE,
        help="hold this file, with the process's number, as long as it runs",
        options=("--pid-file",),
        metavar="FILE",
        at_start=True,
    ),
    Key(
        name="metrics",
        read=entries.address,
        takes='a host and a port: `"127.0.0.1:9464"`',
        help="answer Prometheus at http://HOST:PORT/metrics, for all processes together, such as 127.0.0.1:9464 "
        "(nobody is asked who he is: keep it on this machine or behind a wall; needs durable-outbox[prometheus])",
        options=("--metrics",),
        metavar="HOST:PORT",
        at_start=True,
    ),
    Key(
        name="due_warning",
        read=entries.positive,
        takes=f"{_TIME}; more than nothing",
        help="`outbox check` warns of mail that has been due for so long and does not go out",
        options=("--due-warning",),
    ),
    Key(
        name="due_error",
        read=entries.positive,
        takes=f"{_TIME}; more than nothing",
        help="the same, and `outbox check` calls it an error",
        options=("--due-error",),
    ),
)
KEYS: Final[Mapping[str, Key]] = frozen_mapping({key.name: key for key in _LIST})
"""By name, in the order in which they are shown."""
