"""The command line: the options that every command has, and the one command that is asked for.

Only that command's file is imported, so that ``outbox submit`` starts fast
enough to stand in for sendmail.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from outbox import __version__
from outbox.values import printable, quoted

from .exits import CommandError, Exit

if TYPE_CHECKING:
    from .output import Console

__all__ = ["COMMANDS", "Command", "called_as", "parse"]

COMMANDS: Final[Mapping[str, str]] = {
    "demo": "see what outbox does: six mails, a mail server of its own",
    "submit": "store a mail from a file or standard input, as sendmail does",
    "sendmail": "in sendmail's place: what programs call to send mail",
    "mail": "in mail's place: write a mail on the command line",
    "drain": "deliver what is due now, then end: for cron",
    "run": "deliver for ever: for systemd, a container, a terminal",
    "status": "how many messages stand where, since when, and who is at work",
    "top": "the same, and what changes, as it happens",
    "list": "the messages, one by one",
    "show": "all that is known of one message, and why",
    "explain": "why is this message not out yet, and what helps",
    "requeue": "let dead, held, cancelled messages go on, waiting ones now",
    "cancel": "never hand these messages over any more",
    "hold": "keep these messages back until they are released",
    "release": "let messages go on that a person holds",
    "purge": "remove settled messages for good",
    "pause": "stop a queue, until a time or until it is resumed",
    "resume": "let a paused queue go on",
    "suspend": "keep mail for a relay, a domain or of an attribute from going out",
    "unsuspend": "let what was suspended go out again",
    "wait": "until nothing is left to deliver",
    "migrate": "bring the store to the format of this release",
    "move": "all messages of one store to another, while both are in use",
    "check": "is the house in order? for a person and for a monitor",
    "config": "which settings are in force, and who says so",
    "send-test": "send one message, and watch: the dialogue, the TLS, what is wrong",
}

_EXAMPLES: Final = """\
try it:
  outbox demo

say once where things are (or with options, or a configuration file):
  export OUTBOX_STORE=sqlite:////var/lib/outbox/outbox.db
  export OUTBOX_TRANSPORT=smtps://app@smtp.example.org
  export OUTBOX_SMTP_PASSWORD_FILE=/etc/outbox/smtp-password

then:
  outbox submit -t < mail.eml          the envelope is taken from the headers
  outbox drain                         deliver what is due now
  outbox status                        what waits, what failed
  outbox explain ID                    why is it not out yet
  outbox list --state dead             which messages, and why
  outbox requeue ID                    the cause is mended: try again

`outbox COMMAND --help` says more.

exit status: 0, or one of sysexits.h: 64 usage, 65 message refused, 66 no such
file, 69 not supported, 70 a bug, 74 I/O or a corrupt record, 75 temporary (try
again), 78 configuration; 1: not all could be done; check: 1 a warning, 2 an
error.
"""

_NAMES: Final[Mapping[str, Sequence[str]]] = {
    "sendmail": ["sendmail"],
    "mailq": ["sendmail", "-bp"],
    "newaliases": ["sendmail", "-bi"],
    "mail": ["mail"],
    "mailx": ["mail"],
}

_CONFIGURATION: Final = """\
The store and the transport are named by an option, else by OUTBOX_STORE and
OUTBOX_TRANSPORT, else by the configuration file: $OUTBOX_CONFIG,
~/.config/outbox/outbox.toml or /etc/outbox/outbox.toml.
"""


class Command(NamedTuple):
    """What was asked for: *run* does it and returns the exit status."""

    # No attrs, which --help and --version can do without.

    run: Callable[[argparse.Namespace, Console], int]
    options: argparse.Namespace
    console: Console


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises instead of leaving, and takes no abbreviations."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            message += ", or behind '=' one that begins with '-'"
        raise CommandError(Exit.USAGE, f"{printable(message)} (see {self.prog} --help)")


class _Version(argparse.Action):
    def __call__(self, *_: object) -> NoReturn:
        print(f"outbox {__version__}")
        raise SystemExit(Exit.OK)


def called_as(argv: Sequence[str]) -> Sequence[str]:
    """The arguments, behind the command that this program's own name asks for: a link to it may be called sendmail."""
    name = os.path.basename(argv[0]) if argv else ""  # noqa: PTH119 - any text may stand there
    return [*_NAMES.get(name.removesuffix(".exe"), ()), *argv[1:]]


def parse(argv: Sequence[str]) -> Command:
    """Read a command line.

    Raises:
        CommandError: it cannot be understood.
        SystemExit: it asked for help or the version, which is printed.
    """
    top = _top()
    options, rest = _split(top, argv)
    if not options.command:
        top.print_help()
        raise SystemExit(Exit.OK)
    module: Any = _module(options.command)
    parser = Parser(
        prog=f"outbox {options.command}",
        description=module.__doc__,
        epilog=getattr(module, "EPILOG", None) or _CONFIGURATION,
        usage=getattr(module, "USAGE", None),
        add_help=False,
    )
    module.arguments(parser)
    _common(parser)
    parser.add_argument(*getattr(module, "HELP", ("-h", "--help")), action="help", help="say this, and end")
    reader = getattr(module, "read", argparse.ArgumentParser.parse_args)
    options = reader(parser, rest, options)
    from .output import Console  # noqa: PLC0415 - --help and --version, which end above, do without

    console = Console(as_json=options.json, verbosity=options.verbose - options.quiet, plain=options.plain)
    return Command(run=module.run, options=options, console=console)


def _top() -> Parser:
    commands = "\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())
    top = Parser(
        prog="outbox",
        usage="outbox [OPTIONS] COMMAND ...",
        description="Outgoing messages: stored before submit returns, delivered in the\n"
        "background, never lost.\n\n"
        f"commands:\n{commands}",
        epilog=_EXAMPLES,
    )
    top.add_argument("--version", action=_Version, nargs=0, help="say which version this is, and end")
    _common(top)
    top.set_defaults(store=None, transport=None, config=None, json=False, plain=False, verbose=0, quiet=0)
    top.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return top


def _common(parser: argparse.ArgumentParser) -> None:
    """The options that stand before the command or behind it; what is not said there changes nothing."""
    group = parser.add_argument_group("everywhere")
    add = group.add_argument
    silent = argparse.SUPPRESS
    add("--store", metavar="URL", default=silent, help="sqlite:///outbox.db, sqlite:////var/lib/outbox.db")
    add("--transport", metavar="URL", default=silent, help="smtp://host:port, smtps://user@host")
    add("--config", metavar="FILE", default=silent, help="read this configuration file")
    add("--json", action="store_true", default=silent, help="answer in JSON, for a program")
    add("--plain", action="store_true", default=silent, help="no colours, no bars, also on a terminal")
    add("-v", "--verbose", action="count", default=silent, help="say more; twice: with tracebacks")
    add("-q", "--quiet", action="count", default=silent, help="say only what is wrong")


def _split(top: Parser, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What stands before the command, and what behind it."""
    takes_value = {"--store", "--transport", "--config"}
    position = 0
    while position < len(argv) and argv[position].startswith("-"):
        position += 2 if argv[position] in takes_value else 1
    return top.parse_args(argv[: position + 1]), list(argv[position + 1 :])


def _module(name: str) -> Any:
    if name not in COMMANDS:
        import difflib  # noqa: PLC0415 - of use to who mistypes only

        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise CommandError(Exit.USAGE, f"there is no command {quoted(name, 40)}{hint} (see outbox --help)")
    file = "list_" if name == "list" else name.replace("-", "_")
    return importlib.import_module(f".{file}", __package__)
