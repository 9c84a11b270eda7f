"""In sendmail's place: store a mail as programs hand it to /usr/sbin/sendmail.

When this returns 0 the mail is on disk; drain or run delivers it.  It is read
from standard input, up to a line that is a single dot unless -i is given.

  outbox sendmail -t < mail              the recipients are in To, Cc and Bcc
  outbox sendmail -i ann@example.org     the recipients are arguments
  outbox sendmail -f '' root             from nobody, so that no bounce comes

To have every program use it, link the names to this command:
  ln -s "$(command -v outbox)" /usr/sbin/sendmail        and mailq, newaliases

A missing From, Date or Message-ID is added; bare names get the domain, in the
header too, and are looked up in the aliases file.  Who calls it needs to be
able to write to the store.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from email.utils import formataddr
from typing import Any, Final

import attrs

from outbox.errors import InvalidMessage
from outbox.lifecycle import State
from outbox.locate import Config
from outbox.message import Message
from outbox.values import printable, quoted

from . import list_
from .arguments import add_key
from .capable import browsable
from .exits import CommandError, Exit
from .letter import Letter
from .opening import opened_store
from .originating import Origin, aliases_of
from .output import Console
from .settings import config_of
from .submit import put, until_dot
from .words import Grammar, Words

__all__ = ["CONTROL", "arguments", "message_of", "read", "run"]

HELP: Final = ("--help",)
USAGE: Final = "outbox sendmail [OPTIONS] [--] [RECIPIENT ...]"
EPILOG: Final = """\
Accepted, and without effect: -A, -B, -C, -D, -G, -L, -U, -X, -c, -d, -e, -h,
-m, -n, -p, -q (which is sendmail's here: --quiet is ours), -x, -O and -o (but
-oi is -i).  -v prints the id.  Refused: -bd, -bD, -bt, -bv.

Called as mailq it is -bp, as newaliases -bi.

exit status:
  0   it is stored (-bp, -bi, -q: done)
  64  the command line cannot be understood
  65  the mail is refused: the line says by which rule
  67  a bare name has no alias, and there is no domain to complete it
  69  asked for what outbox does not do, such as -bd
  75  the store cannot take it now: try again
  78  configuration: no store, a bad aliases file, a permission
"""

_GRAMMAR: Final = Grammar(
    valued=frozenset("ABCDFLNORVXfehoprb"),
    flags=frozenset("GIUcimntvx"),
    joined=frozenset("qd"),
    long=frozenset({"--store", "--transport", "--config", "--domain", "--queue", "--aliases"}),
)
_WHEN: Final = "(?:success|failure|delay)"
_REPORTS: Final = {
    "N": (
        "dsn-notify",
        re.compile(rf"never|{_WHEN}(?:,{_WHEN})*", re.IGNORECASE),
        "say never, or some of success,failure,delay",
    ),
    "R": ("dsn-ret", re.compile("full|hdrs", re.IGNORECASE), "say full or hdrs"),
    "V": ("dsn-envid", re.compile("[!-~]{1,100}"), "an id is 1 to 100 printable characters without spaces"),
}
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MANY: Final = 1000


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-t", action="store_true", help="take the recipients from To, Cc and Bcc; arguments are added")
    add("-f", "-r", metavar="SENDER", help="the envelope sender; '' or '<>' is the null sender")
    add("-F", metavar="NAME", help="the name in From, where that is missing")
    add("-i", action="store_true", help="a line with a single dot does not end the mail (also -oi)")
    add("-N", metavar="WHEN", help="what to tell the sender of: never, or failure,delay,success")
    add("-R", metavar="WHAT", help="what a bounce returns: full or hdrs")
    add("-V", metavar="ID", help="the envelope's id, named in a bounce")
    add("-bm", action="store_true", help="store a mail (unless another -b is given)")
    add("-bp", action="store_true", help="show the queue, as mailq does")
    add("-bi", "-I", action="store_true", help="check the aliases file, as newaliases does; nothing is built")
    add("-bs", action="store_true", help="speak SMTP on standard input and output")
    add_key(parser, "aliases", "this aliases file (default: /etc/aliases, if there is one)")
    add_key(parser, "domain", "what completes a bare name (default: configured, or the system's)")
    add("--queue", metavar="NAME", help="who serves it (default: the first of the configuration, or mail)")


def read(
    parser: argparse.ArgumentParser, argv: Sequence[str], options: argparse.Namespace
) -> argparse.Namespace:
    """As sendmail has it, with our long options beside; see :class:`.words.Grammar`."""
    words = _GRAMMAR.read(argv, parser)
    options = parser.parse_args(words.long, options)
    options.verbose += words.flags.count("v")
    options.words = words
    options.recipients = [*words.operands, *words.behind]
    return options


# -- what it does


def run(options: argparse.Namespace, console: Console) -> int:
    words: Words = options.words
    mode = "i" if "I" in words.flags else words.last("b") or "m"
    if mode not in _MODES:
        raise _unsupported(mode)
    if mode == "m" and words.all("q") and not (options.recipients or "t" in words.flags):
        return Exit.OK
    config = config_of(options, console)
    return _MODES[mode](options, config, console)


def _unsupported(mode: str) -> CommandError:
    reasons = {
        "d": "outbox takes no mail from the network; `outbox run` delivers in the background",
        "D": "outbox takes no mail from the network; `outbox run` delivers in the foreground",
        "v": "outbox cannot tell which addresses exist",
        "t": "outbox has no address test mode",
    }
    shown = printable(mode, 20)
    return CommandError(Exit.UNSUPPORTED, f"-b{shown}: {reasons.get(mode, 'there is no such mode here')}")


def _store(options: argparse.Namespace, config: Config, console: Console) -> int:
    words: Words = options.words
    if not options.recipients and "t" not in words.flags:
        raise CommandError(Exit.USAGE, "to whom? name recipients, or say -t to take them from the headers")
    attributes = _attributes(words)
    origin = Origin.of(config)
    named = origin.named(options.recipients)
    result = put(
        message_of(
            Letter.read(_input(words, console)),
            origin,
            sender=words.last("f", "r"),
            name=words.last("F"),
            recipients=None if "t" in words.flags else named.addresses,
            also=named.addresses if "t" in words.flags else (),
            himself=named.himself,
            queue=options.queue or config.queues[0],
            attributes=attributes,
        ),
        config,
        console,
    )
    if console.verbosity > 0:
        console.note(f"outbox: {result.id} is stored")
    return Exit.OK


def message_of(
    letter: Letter,
    origin: Origin,
    *,
    sender: str | None,
    name: str | None,
    himself: Container[str] = (),
    **settings: Any,
) -> Message:
    """The message that a letter is: what is missing added, its recipients looked up in the aliases, but *himself*.

    The sender is who is named (``""`` or ``"<>"``: nobody), else the one
    mailbox of Sender or From, else who runs this.

    Raises:
        InvalidMessage, CommandError: it cannot be one.
    """
    if name is not None and (control := CONTROL.search(name)):
        raise InvalidMessage(
            f"the name of the sender: {quoted(name)} holds the control character {printable(control[0])}"
        )
    named = None if sender is None else "" if sender in ("", "<>") else origin.address(sender, "the sender")
    letter.qualify(origin.name)
    if not letter.said("from"):
        letter.fields = [field for field in letter.fields if not field.lower().startswith(b"from:")]
        author = named or origin.user
        letter.add("From", _titled(name, author))
    if named is None:
        named = letter.author(origin.name) or origin.user
    origin.check(named, "the sender")
    message = letter.message(sender=named, origin=origin.name, **settings)
    return attrs.evolve(message, recipients=origin.meant(message.recipients, himself))


def _titled(name: str | None, address: str) -> str:
    # The address apart, for formataddr has none beyond ASCII.
    return f"{formataddr((name, '')).removesuffix('<>')}<{address}>" if name else address


def _input(words: Words, console: Console) -> bytes:
    if sys.stdin is None:
        raise CommandError(Exit.NO_INPUT, "there is no standard input")
    if sys.stdin.isatty():
        console.note("Type or paste the mail, headers first; end it with a line that is a single dot.")
    stream = sys.stdin.buffer
    return stream.read() if _ignores_dots(words) else b"".join(until_dot(stream))


def _ignores_dots(words: Words) -> bool:
    said = {value.lower().replace(" ", "") for value in words.all("O")}
    return "i" in words.flags or "i" in words.all("o") or bool(said & {"ignoredots", "ignoredots=true"})


def _attributes(words: Words) -> dict[str, str]:
    """What was said of delivery reports (RFC 3461), for whoever bounces."""
    found: dict[str, str] = {}
    for letter, (name, pattern, form) in _REPORTS.items():
        value = words.last(letter)
        if value is None:
            continue
        if not pattern.fullmatch(value):
            raise CommandError(Exit.USAGE, f"-{letter} {quoted(value, 40)}: {form}")
        found[name] = value if letter == "V" else value.lower()
    return found


def _show_queue(options: argparse.Namespace, config: Config, console: Console) -> int:
    states = [State.QUEUED, State.CLAIMED, State.HELD]
    with opened_store(config) as store:
        empty = not browsable(store).browse(states=states, limit=1)
    if empty and not console.as_json:
        console.line("Mail queue is empty")
        return Exit.OK
    lister = argparse.ArgumentParser()
    list_.arguments(lister)
    said = {name: getattr(options, name) for name in ("store", "transport", "config")}
    asked = ["--state", ",".join(states), "--limit", str(_MANY)]
    return list_.run(lister.parse_args(asked, argparse.Namespace(**said)), console)


def _check_aliases(_: argparse.Namespace, config: Config, console: Console) -> int:
    aliases = aliases_of(config)
    where = printable(str(aliases.path), 200) if aliases.path else "no aliases file"
    console.line(f"{where}: {aliases.check()} aliases; they are read at each mail, nothing is built")
    return Exit.OK


def _speak_smtp(options: argparse.Namespace, config: Config, console: Console) -> int:
    from .smtp_session import Session  # noqa: PLC0415 - for the few programs that speak it

    if sys.stdin is None:
        raise CommandError(Exit.NO_INPUT, "there is no standard input")
    origin = Origin.of(config)

    def store(content: bytes, sender: str, recipients: Sequence[str]) -> str:
        letter = Letter.read(content)
        message = message_of(
            letter,
            origin,
            sender=sender,
            name=None,
            recipients=[origin.address(each) for each in recipients],
            queue=options.queue or config.queues[0],
        )
        return put(message, config, console).id

    Session(sys.stdin.buffer, sys.stdout.buffer, origin.shown, store).serve()
    return Exit.OK


_MODES: Final[Mapping[str, Callable[[argparse.Namespace, Config, Console], int]]] = {
    "m": _store,
    "p": _show_queue,
    "i": _check_aliases,
    "s": _speak_smtp,
}
