"""In mail's place: write a mail on the command line, or in a script.

The text comes from standard input.  When this returns 0 the mail is on disk;
drain or run delivers it, unless --wait is said.

  df -h | outbox mail -s 'Disks' ann@example.org
  outbox mail -s 'Log' -A app.log -c bob@example.org ann@example.org < note.txt
  outbox mail -E -s 'Cron says' root < output     no output: nothing is sent
  outbox mail --wait -s 'Now' ann@example.org < note.txt

It only sends: whoever wants to read mail wants another program.  There are no
commands in the text (no ~.), at a terminal either; the end of it is Ctrl-D.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import email
import email.policy
import mimetypes
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Final

from outbox import Sent
from outbox.address import parse_address_list
from outbox.errors import InvalidMessage
from outbox.lifecycle import Delivered, Held, Released, Retry
from outbox.locate import Config
from outbox.message import Message
from outbox.values import printable, quoted

from .arguments import add_key
from .delivering import opened_outbox
from .exits import CommandError, Exit
from .letter import Letter, holds_addresses
from .originating import Origin
from .output import Console
from .sendmail import CONTROL, message_of
from .settings import config_of
from .submit import put
from .words import Grammar, Words

__all__ = ["arguments", "read", "run"]

HELP: Final = ("--help",)
USAGE: Final = "outbox mail [OPTIONS] RECIPIENT ... [-- -f SENDER]"
EPILOG: Final = """\
Accepted, and without effect: -B, -d, -I, -i, -n and -~.  -v prints the id.  -S
takes what mailx is configured with: from=ADDRESS, replyto=ADDRESS and sendwait
are understood, and you are warned of others.  Refused, for they read mail: -e,
-f, -H, -L, -N, -p, -u.

exit status:
  0   it is stored; with --wait: everybody was accepted
  64  the command line cannot be understood
  65  the mail is refused: the line says by which rule
  66  a file to be attached cannot be read
  67  a bare name has no alias, and there is no domain to complete it
  69  with --wait: refused for good, by the relay or by its age
  75  the store cannot take it now; with --wait: it is stored, and tried again
  78  configuration: no store, a bad aliases file, a permission
"""

_GRAMMAR: Final = Grammar(
    valued=frozenset("AabcrsRSufL"),
    flags=frozenset("BdEeHIinNptv~"),
    long=frozenset({"--store", "--transport", "--config", "--domain", "--queue", "--aliases"}),
)
_READING: Final = "eHNpufL"
_HEADER: Final = re.compile(r"([!-9;-~]+):[ \t]*(.*)", re.DOTALL)
_UNDECODED: Final = re.compile("[\ud800-\udfff]")
_BETWEEN: Final = re.compile(r",[ \t]+(?=\S)")
_FOLDED: Final = ",\n "
_JOINED: Final = frozenset({"to", "cc", "bcc"})
_SINGLE: Final = frozenset(
    {"from", "subject", "date", "reply-to", "content-type", "content-transfer-encoding", "mime-version"}
)


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-s", metavar="SUBJECT", help="the subject")
    add("-c", metavar="LIST", help="who gets a copy, with commas between (may be repeated)")
    add("-b", metavar="LIST", help="who gets a copy that nobody sees")
    add("-r", metavar="SENDER", help="who it is from, in the header and on the envelope")
    add("-R", metavar="ADDRESS", help="where answers go")
    add("-a", metavar="HEADER", help="a further field, 'X-Tag: nightly'; or, as -A, a file that there is")
    add("-A", metavar="FILE", help="attach this file (may be repeated)")
    add("-S", metavar="NAME=VALUE", help="a variable of mailx")
    add("-E", action="store_true", help="send nothing where there is no text")
    add("-t", action="store_true", help="the text begins with a header, and To, Cc and Bcc say who gets it")
    add("--wait", action="store_true", help="deliver it now, and say by the exit status what came of it")
    add_key(parser, "aliases", "this aliases file (default: /etc/aliases, if there is one)")
    add_key(parser, "domain", "what completes a bare name (default: configured, or the system's)")
    add("--queue", metavar="NAME", help="who serves it (default: the first of the configuration, or mail)")


def read(
    parser: argparse.ArgumentParser, argv: Sequence[str], options: argparse.Namespace
) -> argparse.Namespace:
    """Options and recipients in any order; behind ``--`` recipients, or options for sendmail."""
    words = _GRAMMAR.read(argv, parser)
    options = parser.parse_args(words.long, options)
    options.verbose += words.flags.count("v")
    options.words = words
    options.recipients = words.operands + list(_behind(words, parser))
    return options


def _behind(words: Words, parser: argparse.ArgumentParser) -> Iterator[str]:
    """What stands behind ``--`` are recipients, or as Debian's mailx has it, options for sendmail."""
    if not any(word.startswith("-") for word in words.behind):
        yield from words.behind
        return
    for_sendmail = _SENDMAILS.read(words.behind, parser)
    for value in (*for_sendmail.all("f"), *for_sendmail.all("r")):
        words.values.setdefault("r", []).append(value)
    words.values["F"] = [*for_sendmail.all("F")]
    yield from for_sendmail.operands


_SENDMAILS: Final = Grammar(valued=frozenset("fFroONRVB"), flags=frozenset("itvmnGU"), joined=frozenset("bq"))


# -- what it does


def run(options: argparse.Namespace, console: Console) -> int:
    words: Words = options.words
    _check(options, words)
    config = config_of(options, console)
    origin = Origin.of(config)
    wait = options.wait or "sendwait" in _variables(words, console)
    text = _text(console)
    if "E" in words.flags and not text.strip():
        return Exit.OK
    if not text.strip() and "t" not in words.flags:
        console.note("outbox: the mail has no text")
    letter = _letter(words, text, options.recipients)
    message = message_of(
        letter,
        origin,
        sender=_sender(words),
        name=words.last("F"),
        queue=options.queue or config.queues[0],
    )
    return _sent(message, config, console) if wait else _stored(message, config, console)


def _check(options: argparse.Namespace, words: Words) -> None:
    for letter in _READING:
        if letter in words.flags or words.all(letter):
            raise CommandError(Exit.UNSUPPORTED, f"-{letter}: outbox mail only sends; it reads no mailbox")
    if not options.recipients and "t" not in words.flags and not (words.all("c") or words.all("b")):
        raise CommandError(Exit.USAGE, "to whom? outbox mail only sends: name recipients, or say -t")


def _variables(words: Words, console: Console) -> Mapping[str, str]:
    said = dict(each.partition("=")[::2] for each in words.all("S"))
    for name in said.keys() - {"from", "replyto", "sendwait"}:
        console.complain(f"warning: -S {printable(name, 40)} has no effect here")
    return said


def _text(console: Console) -> bytes:
    if sys.stdin is None:
        return b""
    if sys.stdin.isatty():
        console.note("Type or paste the text; end it with Ctrl-D.")
    return sys.stdin.buffer.read()


def _sender(words: Words) -> str | None:
    said = _from(words)
    if said is None or said in ("", "<>"):
        return said
    try:
        (address,) = parse_address_list(said, origin="localhost")
    except (InvalidMessage, ValueError):
        raise CommandError(Exit.USAGE, f"-r {quoted(said, 80)}: name one sender") from None
    return address.removesuffix("@localhost")


def _from(words: Words) -> str | None:
    said = dict(each.partition("=")[::2] for each in words.all("S"))
    return words.last("r") or said.get("from")


def _letter(words: Words, text: bytes, recipients: Sequence[str]) -> Letter:
    """The mail: what stands on the command line before what a header in the text says."""
    letter = Letter.read(text) if "t" in words.flags else Letter.of_text(text)
    said = dict(_fields(words, recipients))
    for name, value in reversed([*said.items()]):
        _add(letter, name, value)
    for value in words.all("a"):
        if field := _further(value):
            _add(letter, *field)
    _declare(letter)
    attached = list(_attached(words))
    return _with(letter, attached) if attached else letter


def _declare(letter: Letter) -> None:
    """Say what the body is, where nobody said it or not all of it."""
    if letter.of_mime:
        letter.complete()
    elif b"\0" in letter.body:
        letter.add("Content-Disposition", "inline")
        letter.add("Content-Transfer-Encoding", "base64")
        letter.add("Content-Type", "application/octet-stream")
        letter.add("MIME-Version", "1.0")
        letter.body = base64.encodebytes(letter.body)
    letter.declare()


def _fields(words: Words, recipients: Sequence[str]) -> Iterator[tuple[str, str]]:
    variables = dict(each.partition("=")[::2] for each in words.all("S"))
    lists = {"To": recipients, "Cc": words.all("c"), "Bcc": words.all("b")}
    said = _from(words)
    if said and said != "<>":
        yield "From", _titled(said, words.last("F"))
    for name, values in lists.items():
        if values:
            yield name, ", ".join(values)
    if words.all("s"):
        yield "Subject", words.all("s")[-1]
    reply_to = words.last("R") or variables.get("replyto")
    if reply_to:
        yield "Reply-To", reply_to


def _titled(said: str, name: str | None) -> str:
    if not name or "<" in said:
        return said
    escaped = name.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}" <{said}>'


def _add(letter: Letter, name: str, value: str) -> None:
    """A field on top, encoded where it is not ASCII; one of the same name gives way, or its recipients join in."""
    key = name.lower()
    if key in _SINGLE:
        letter.drop(key)
    try:
        if key.startswith("content-"):
            letter.add(name, value)
            return
        lines = _list_field(name, value) if holds_addresses(name) else _field(name, value)
    except (InvalidMessage, ValueError, UnicodeError, IndexError) as error:
        raise CommandError(Exit.DATA, f"{name}: {quoted(value, 80)} cannot be written: {error}") from error
    letter.fields.insert(0, lines)
    if key in _JOINED:
        letter.join(key)


def _field(name: str, value: str) -> bytes:
    """Its lines, in ASCII."""
    mail = EmailMessage()
    mail[name] = value
    if name.lower() == "date" and mail[name].datetime is None:
        raise ValueError("it is no date such as 'Mon, 01 Jan 2024 12:00:00 +0100'")
    return mail.as_bytes().partition(b"\n\n")[0] + b"\n"


def _list_field(name: str, value: str) -> bytes:
    """The same of a list of addresses, or in UTF-8 (RFC 6532): names can be said in ASCII, addresses cannot."""
    if value.isascii():
        return _field(name, value)
    meant = parse_address_list(_UNDECODED.sub("\N{REPLACEMENT CHARACTER}", value), origin="localhost")
    lines = _field(name, value)
    with contextlib.suppress(InvalidMessage):
        said = lines.decode().partition(":")[2].replace("\n", "")
        if parse_address_list(said, origin="localhost") == meant:
            return lines
    return f"{name}: {_BETWEEN.sub(_FOLDED, value.strip())}\n".encode()


def _further(value: str) -> tuple[str, str] | None:
    """What ``-a`` says, where it is a field; None where it is a file, as in other mailxes."""
    found = _HEADER.fullmatch(value)
    if found is not None and not Path(value).is_file():
        return found[1], found[2]
    return None


def _attached(words: Words) -> Iterator[Path]:
    yield from map(Path, words.all("A"))
    for value in words.all("a"):
        if _further(value) is None:
            if not Path(value).is_file():
                raise CommandError(
                    Exit.USAGE,
                    f"-a {quoted(value, 80)} is neither a field such as 'X-Tag: nightly' nor a file",
                )
            yield Path(value)


def _with(letter: Letter, attached: Sequence[Path]) -> Letter:
    """The same, with the files; the fields that are not of MIME stay as they are."""
    letter.complete()
    others, text = letter.apart()
    if b"\r" in text:
        raise InvalidMessage(
            "a carriage return without a line feed, in a mail that files are to be attached to"
        )
    mail = email.message_from_bytes(text, policy=email.policy.default)
    for path in attached:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CommandError(
                Exit.NO_INPUT, f"cannot read {printable(str(path), 200)}: {error.strerror}"
            ) from error
        main, _, sub = _kind(path).partition("/")
        mail.add_attachment(content, main, sub, filename=CONTROL.sub("_", path.name))
    whole = Letter.read(mail.as_bytes())
    whole.fields = [*others, *whole.fields]
    return whole


def _kind(path: Path) -> str:
    """The media type that its name says, where its octets can be that: a mail within a mail must not be encoded."""
    kind, encoding = mimetypes.guess_type(path.name)
    if not kind or encoding or kind.startswith(("message/", "multipart/")):
        return "application/octet-stream"
    return kind


# -- what becomes of it


def _stored(message: Message, config: Config, console: Console) -> int:
    result = put(message, config, console)
    if console.as_json:
        console.data({"id": result.id, "status": result.status})
    elif console.verbosity > 0:
        console.note(f"outbox: {result.id} is stored")
    return Exit.OK


def _sent(message: Message, config: Config, console: Console) -> int:
    with opened_outbox(config, []) as outbox:
        sent = outbox.send(message)
    status, words = _said(sent)
    if console.as_json:
        console.data({"id": sent.id, "verdict": str(sent.verdict.event) if sent.verdict else None})
    elif status is not Exit.OK:
        console.complain(f"{sent.id}: {words}")
    elif console.verbosity > 0:
        console.note(f"outbox: {sent.id} is delivered")
    return status


def _said(sent: Sent) -> tuple[Exit, str]:
    match sent.verdict:
        case Delivered():
            return Exit.OK, ""
        case Retry(reason=reason) | Released(reason=reason):
            return Exit.TEMPORARY, f"it is stored, and tried again: {reason}"
        case None:
            return Exit.TEMPORARY, "it is stored, and waits"
        case Held(reason=reason):
            return Exit.TEMPORARY, f"it is held for a person: {reason}"
        case refused:
            return Exit.UNSUPPORTED, f"it could not be delivered: {refused.reason}"
