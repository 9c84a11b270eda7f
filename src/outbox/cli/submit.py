"""Store a mail.  When this returns 0 it is on disk; drain or run delivers it.

The mail (RFC 5322, as in an .eml file) comes from --file, else from standard
input; its lines may end in LF.  The recipients are the arguments; with -t they
are taken from To, Cc and Bcc, and those among the arguments are added, as
Postfix does it.  A Bcc line is never sent.  The id is printed.

  outbox submit -t < mail.eml
  outbox submit -f app@example.org ann@example.org bob@example.org < mail.eml
  outbox submit --file mail.eml ann@example.org

In sendmail's place there is `outbox sendmail`, which understands more.  Like
sendmail it ends standard input at a line that is a single dot, unless -i
is given.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from outbox.address import parse_mailbox
from outbox.clock import SystemClock
from outbox.errors import AmbiguousPut, InvalidMessage
from outbox.lifecycle import PutResult
from outbox.locate import Config
from outbox.mail import from_email
from outbox.message import Message
from outbox.values import printable, quoted

from .arguments import add_duration, add_key
from .exits import CommandError, Exit
from .opening import opened_store
from .output import Console
from .settings import config_of

__all__ = ["arguments", "put", "read", "run", "until_dot"]

HELP: Final = ("--help",)  # sendmail's -h is something else
USAGE: Final = "outbox submit [OPTIONS] [RECIPIENT ...]"
EPILOG: Final = """\
Taken for sendmail's sake, and without effect: -bm, -B, -e, -F, -G, -h, -m, -N,
-n, -O, -o (but -oi is -i), -R, -U, -V.
Submitting the same --id again, with the same envelope, stores nothing new, also
after it was delivered.

exit status: 0 it is stored; 64 usage; 65 refused, the line says by which rule;
66 no such file; 75 the store cannot take it now; 78 configuration
"""

_WITH_VALUE: Final = ("-B", "-F", "-e", "-h", "-N", "-O", "-R", "-V")
_FLAGS: Final = ("-G", "-U", "-m", "-n")


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-t", action="store_true", dest="from_headers", help="take the recipients from To, Cc and Bcc")
    add(
        "-f", "-r", dest="sender", metavar="SENDER", help="the envelope sender; '' or '<>' is the null sender"
    )
    add("-i", action="store_true", dest="dots", help="a line with a single dot does not end the mail")
    add("--file", metavar="FILE", help="read the mail from this file; - is standard input")
    add_key(parser, "domain", "what completes a bare name: root is root@DOMAIN")
    add("--queue", metavar="NAME", help="who serves it (default: the first of the configuration, or mail)")
    add("--id", help="its id, and idempotency key: a-z 0-9 _ - (default: a new one)")
    add("--priority", metavar="N", type=int, default=0, help="-100 to 100, higher goes first (default: 0)")
    add("--attribute", metavar="NAME=VALUE", action="append", default=[], help="a note of yours, never sent")
    add_duration(parser, "--delay", help="not before this has passed: 10m, 2h")
    add_duration(parser, "--expires", help="not after this has passed: 1h, 2d")
    add("--at-most-once", action="store_true", help="rather held for a person than ever sent twice")
    add("-o", dest="sendmail_options", action="append", default=[], help=argparse.SUPPRESS)
    add("-b", dest="mode", choices=["m"], help=argparse.SUPPRESS)
    for name in _WITH_VALUE:
        add(name, dest="ignored_values", action="append", help=argparse.SUPPRESS)
    for name in _FLAGS:
        add(name, dest="ignored_flags", action="store_true", help=argparse.SUPPRESS)


def read(
    parser: argparse.ArgumentParser, argv: Sequence[str], options: argparse.Namespace
) -> argparse.Namespace:
    """Options and recipients in any order, as sendmail takes them; what follows ``--`` is recipients."""
    head, tail = list(argv), []
    if "--" in head:
        at = head.index("--")
        head, tail = head[:at], head[at + 1 :]
    options, rest = parser.parse_known_args(head, options)
    for word in rest:
        if word.startswith("-"):
            parser.error(f"unknown option {word}")
    options.recipients = [*rest, *tail]
    options.dots = options.dots or "i" in options.sendmail_options
    return options


def run(options: argparse.Namespace, console: Console) -> int:
    config = config_of(options, console)
    if not options.recipients and not options.from_headers:
        raise CommandError(Exit.USAGE, "to whom? name recipients, or say -t to take them from the headers")
    settings = _settings(options, config)
    named = [_address(text, config) for text in options.recipients]
    # Only now: who has mistyped an address need not type the mail.
    source = _source(options, console)
    settings["also" if options.from_headers else "recipients"] = named
    message = from_email(source, **settings)
    result = put(message, config, console)
    with console.regardless(f"{result.id} is stored; standard output cannot be written"):
        _answer(result, console)
    return Exit.OK


def put(message: Message, config: Config, console: Console) -> PutResult:
    """Store it.  Nothing that goes wrong later is a failure: whoever is told of one submits it again."""
    stored: list[PutResult] = []
    try:
        with opened_store(config, create=True) as store:
            stored += store.put([message])
    except AmbiguousPut as error:
        raise CommandError(Exit.TEMPORARY, f"{error}: --id {message.id}") from error
    except Exception as error:
        if not stored:
            raise
        console.complain(f"warning: {message.id} is stored; then the store could not be closed: {error}")
    return stored[0]


def _answer(result: PutResult, console: Console) -> None:
    if console.as_json:
        console.data({"id": result.id, "status": result.status})
        return
    console.line(result.id)
    if result.status == "known":
        console.note("outbox: this id is known already: nothing new was stored")


def _settings(options: argparse.Namespace, config: Config) -> dict[str, Any]:
    """All that the command line says of the message, but its recipients."""
    now = SystemClock().now()
    _check_times(options)
    settings: dict[str, Any] = {
        # An empty name is refused as any other that is none, for it was meant to be one.
        "queue": config.queues[0] if options.queue is None else options.queue,
        "priority": options.priority,
        "attributes": dict(_attribute(text) for text in options.attribute),
        "not_before": _later(now, "--delay", options.delay),
        "expires_at": _later(now, "--expires", options.expires),
        "at_most_once": options.at_most_once,
        "sender": _sender(options.sender, config),
        "origin": config.domain,
    }
    if options.id is not None:
        settings["id"] = options.id
    return settings


def _check_times(options: argparse.Namespace) -> None:
    begin = options.delay or dt.timedelta(0)
    if options.expires is not None and options.expires <= begin:
        raise CommandError(Exit.USAGE, "--expires has to be later than --delay: so it could never be sent")


def _later(now: dt.datetime, name: str, delay: dt.timedelta | None) -> dt.datetime | None:
    try:
        return None if delay is None else now + delay
    except OverflowError:
        raise CommandError(Exit.USAGE, f"{name}: that is beyond the year 9999") from None


def _attribute(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CommandError(Exit.USAGE, f"--attribute {quoted(text, 80)}: write NAME=VALUE")
    return name, value


def _sender(text: str | None, config: Config) -> str | None:
    if text is None:
        return None
    return "" if text in ("", "<>") else _address(text, config)


def _address(text: str, config: Config) -> str:
    """An address of the command line; a bare name gets the configured domain."""
    if "@" not in text and not config.domain:
        raise _bare(printable(text, 80))
    return parse_mailbox(text, origin=config.domain)


def _bare(name: str) -> Exception:
    if Path(name).is_file():
        return CommandError(Exit.USAGE, f"{name!r} is no address but a file: say --file {name}")
    return InvalidMessage(
        f"{name!r} has no domain: write {name}@example.org, or say with --domain where bare names belong"
    )


# -- the mail itself


def _source(options: argparse.Namespace, console: Console) -> bytes:
    if options.file not in (None, "-"):
        return _contents(Path(options.file))
    if sys.stdin is None:
        raise CommandError(Exit.NO_INPUT, "there is no standard input: say --file")
    if sys.stdin.isatty():
        console.note("Type or paste the mail, headers first; end it with a line that is a single dot.")
    stream = sys.stdin.buffer
    source = stream.read() if options.dots else b"".join(until_dot(stream))
    if not source.strip():
        raise CommandError(Exit.NO_INPUT, "standard input is empty: no mail was stored")
    return source


def until_dot(stream: BinaryIO) -> Iterator[bytes]:
    """The lines before one that is a single dot."""
    for line in stream:
        if line.rstrip(b"\r\n") == b".":
            return
        yield line


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(
            Exit.NO_INPUT, f"cannot read {printable(str(path), 200)}: {error.strerror}"
        ) from error
