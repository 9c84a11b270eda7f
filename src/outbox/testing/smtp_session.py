"""What an SMTP sink says and hears over one connection."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Final

import attrs

from .smtp_ledger import Answer, Heard, Ledger, Received, Step

__all__ = ["Session", "Setup"]

_LONGEST_COMMAND: Final = 12 << 10
_LONGEST_LINE: Final = 998
_RECEIVE: Final = 64 << 10
_STEPS: Final[Mapping[str, Step]] = {
    "EHLO": "ehlo",
    "HELO": "helo",
    "STARTTLS": "starttls",
    "AUTH": "auth",
    "MAIL": "mail",
    "RCPT": "rcpt",
    "DATA": "data",
    "RSET": "rset",
    "NOOP": "noop",
    "QUIT": "quit",
}
_PATH: Final = re.compile(r'<((?:"(?:[^"\\]|\\.)*"|[^">])*)>')
"""Up to the first closing bracket that is not quoted: parameters may hold brackets, too."""
_MAY_BE_FOLLOWED: Final = frozenset({"MAIL", "RCPT", "RSET"})
"""Behind these a client may speak on without waiting, where PIPELINING is offered (RFC 2920 section 3.1)."""


@attrs.frozen(kw_only=True)
class Setup:
    """What a sink offers: see :class:`~outbox.testing.SMTPSink`."""

    offers: tuple[str, ...]
    tls: ssl.SSLContext | None
    starttls: ssl.SSLContext | None
    users: Mapping[str, str] | None = attrs.field(repr=False)
    max_size: int
    max_recipients: int


class _HangUp(Exception):
    """This conversation is over."""


class Session:
    """One conversation, from the greeting on, in the thread that calls :meth:`run`."""

    def __init__(self, ledger: Ledger, setup: Setup, connected: socket.socket, number: int) -> None:
        self._ledger = ledger
        self._setup = setup
        self._socket = connected
        self._number = number
        self._buffer = bytearray()
        self._greeting = ""
        self._tls = False
        self._user: str | None = None
        self._forget()

    def run(self, greeting: str) -> None:
        """Converse until either side ends it, or :meth:`interrupt` does."""
        with contextlib.closing(self), contextlib.suppress(_HangUp, OSError):
            if self._setup.tls:
                self._secure(self._setup.tls)
            if self._say("connect", "", greeting):
                while True:
                    self._obey(self._command())

    def close(self) -> None:
        self._socket.close()

    def interrupt(self) -> None:
        """End it from another thread."""
        with contextlib.suppress(OSError):
            # Not SSLSocket's own, which would take the state away that the other thread is using.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _forget(self) -> None:
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._options: tuple[str, ...] = ()

    def _secure(self, context: ssl.SSLContext) -> None:
        self._socket = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        self._socket.do_handshake()
        self._tls = True
        self._greeting = ""
        self._forget()

    def _blame(self, text: str) -> None:
        self._ledger.violations.append(f"connection {self._number}: {text}")

    # --- hearing ---

    def _fill(self) -> None:
        data = self._socket.recv(_RECEIVE)
        if not data:
            raise _HangUp
        self._buffer += data

    def _cut(self, length: int) -> bytes:
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data

    def _line(self) -> str:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _LONGEST_COMMAND:
                self._blame("a command without an end")
                raise _HangUp
            self._fill()
        line = self._cut(end + 1)
        if not line.endswith(b"\r\n"):
            self._blame("a command that ends in a bare LF")
        return line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")

    def _command(self) -> str:
        line = self._line()
        verb = line.partition(" ")[0].upper()
        # What follows the mechanism is a secret.
        self._ledger.commands.append(" ".join(line.split()[:2]) if verb == "AUTH" else line)
        if self._buffer and not ("PIPELINING" in self._setup.offers and verb in _MAY_BE_FOLLOWED):
            self._blame(f"spoke on behind {verb} without waiting for the answer")
        return line

    # --- answering ---

    def _heard(self, step: Step, line: str = "", address: str | None = None) -> Heard:
        return Heard(
            step=step,
            line=line,
            address=(self._sender or "") if address is None else address,
            recipients=tuple(self._recipients),
            connection=self._number,
            tls=self._tls,
            user=self._user,
        )

    def _say(self, step: Step, line: str, usual: str, address: str | None = None) -> bool:
        """Answer one step; was it a yes?"""
        answer = self._ledger.answer(self._heard(step, line, address)) or Answer(usual)
        self._utter(answer)
        return not answer.refuses

    def _utter(self, answer: Answer) -> None:
        if answer.after and self._ledger.pause(answer.after):
            raise _HangUp
        if answer.reply is None and not answer.close:
            self._ledger.pause(None)
            raise _HangUp
        self._send(answer)
        if answer.close:
            raise _HangUp

    def _send(self, answer: Answer) -> None:
        if not answer.drip:
            self._socket.sendall(answer.wire)
            return
        for byte in answer.wire:
            self._socket.sendall(bytes([byte]))
            if self._ledger.pause(answer.drip):
                raise _HangUp

    # --- commands ---

    def _obey(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        step = _STEPS.get(verb.upper())
        match step:
            case "ehlo" | "helo":
                self._hello(step, line, rest.strip())
            case "starttls":
                self._starttls(line)
            case "auth":
                self._auth(rest)
            case "mail" | "rcpt":
                self._path(step, line, rest)
            case "data":
                self._data(line)
            case None:
                self._blame(f"{verb[:40]!r} is no command")
                self._utter(Answer("500 5.5.2 no such command"))
            case _:
                self._simple(step, line)

    def _simple(self, step: Step, line: str) -> None:
        if step == "quit":
            self._say(step, line, "221 2.0.0 goodbye")
            raise _HangUp
        if step == "rset":
            self._forget()
        self._say(step, line, "250 2.0.0 done")

    def _hello(self, step: Step, line: str, name: str) -> None:
        said = ["the sink greets you", *(self._offers() if step == "ehlo" else [])]
        lines = [f"250-{text}" for text in said[:-1]] + [f"250 {said[-1]}"]
        if self._say(step, line, "\n".join(lines)):
            self._greeting = name
            self._forget()

    def _offers(self) -> list[str]:
        offers = [*self._setup.offers, f"SIZE {self._setup.max_size}"]
        if self._setup.starttls and not self._tls:
            offers.append("STARTTLS")
        if self._may_authenticate():
            offers.append("AUTH PLAIN LOGIN")
        return offers

    def _starttls(self, line: str) -> None:
        context = self._setup.starttls
        if context is None or self._tls:
            self._utter(Answer("502 5.5.1 not here"))
        elif self._say("starttls", line, "220 2.0.0 go ahead"):
            self._secure(context)

    def _path(self, step: Step, line: str, rest: str) -> None:
        keyword, _, said = rest.partition(":")
        path = _PATH.match(said)
        if keyword.upper() != ("FROM" if step == "mail" else "TO") or path is None:
            self._blame(f"{line[:80]!r} is no such command")
            self._utter(Answer("501 5.5.4 syntax"))
        elif step == "mail":
            self._mail(line, path[1], tuple(said[path.end() :].split()))
        else:
            self._rcpt(line, path[1])

    def _mail(self, line: str, address: str, options: tuple[str, ...]) -> None:
        size = next((option[5:] for option in options if option.upper().startswith("SIZE=")), "0")
        if not self._greeting or self._sender is not None:
            self._blame("MAIL out of turn")
            self._utter(Answer("503 5.5.1 out of turn"))
        elif self._setup.users is not None and self._user is None:
            self._utter(Answer("530 5.7.0 authentication required"))
        elif size.isdecimal() and int(size) > self._setup.max_size:
            self._utter(Answer("552 5.3.4 too big"))
        elif self._say("mail", line, "250 2.1.0 sender ok", address):
            self._sender, self._options = address, options
            self._check_utf8(address)

    def _rcpt(self, line: str, address: str) -> None:
        if self._sender is None:
            self._blame("RCPT out of turn")
            self._utter(Answer("503 5.5.1 out of turn"))
        elif len(self._recipients) >= self._setup.max_recipients:
            self._utter(Answer("452 4.5.3 too many recipients"))
        elif self._say("rcpt", line, "250 2.1.5 recipient ok", address):
            self._recipients.append(address)
            self._check_utf8(address)

    def _declared(self, option: str) -> bool:
        return option in map(str.upper, self._options)

    def _check_utf8(self, address: str) -> None:
        if not address.isascii() and not self._declared("SMTPUTF8"):
            self._blame("an address that is not ASCII, without SMTPUTF8")

    # --- content ---

    def _data(self, line: str) -> None:
        if not self._recipients:
            self._utter(Answer("503 5.5.1 nobody to send it to"))
        elif self._say("data", line, "354 go on, and end with a dot"):
            self._content()
            self._forget()

    def _content(self) -> None:
        if not self._buffer:
            self._fill()
        early = self._ledger.answer(self._heard("content"))
        if early:
            self._utter(early)
        content = self._read_content()
        self._check_content(content)
        if not early:
            self._take(content)

    def _read_content(self) -> bytes:
        # As though the line end of the DATA command stood before it: then its end has one form only.
        self._buffer[:0] = b"\r\n"
        searched = 0
        while (end := self._buffer.find(b"\r\n.\r\n", searched)) < 0:
            searched = max(0, len(self._buffer) - 4)
            self._fill()
        content = self._cut(end + 2).replace(b"\r\n..", b"\r\n.")
        self._cut(3)
        return content[2:]

    def _check_content(self, content: bytes) -> None:
        pairs = content.count(b"\r\n")
        if content.count(b"\n") != pairs or content.count(b"\r") != pairs:
            self._blame("content with a bare CR or LF")
        if b"\0" in content:
            self._blame("content with a NUL")
        if max(map(len, content.split(b"\r\n"))) > _LONGEST_LINE:
            self._blame("content with a line of more than 998 bytes")
        if not content.isascii() and not self._declared("BODY=8BITMIME"):
            self._blame("8-bit content without BODY=8BITMIME")
        if not content.partition(b"\r\n\r\n")[0].isascii() and not self._declared("SMTPUTF8"):
            self._blame("a header that is not ASCII, without SMTPUTF8")

    def _take(self, content: bytes) -> None:
        usual = "250 2.0.0 taken" if len(content) <= self._setup.max_size else "552 5.3.4 too big"
        answer = self._ledger.answer(self._heard("dot")) or Answer(usual)
        # What is not refused counts as taken before it is answered: the answer may be what gets lost.
        if not answer.refuses:
            self._ledger.take(self._received(content))
        self._utter(answer)

    def _received(self, content: bytes) -> Received:
        return Received(
            sender=self._sender or "",
            recipients=tuple(self._recipients),
            content=content,
            at=self._ledger.now(),
            tls=self._tls,
            user=self._user,
            connection=self._number,
            greeting=self._greeting,
            options=self._options,
        )

    # --- authentication ---

    def _may_authenticate(self) -> bool:
        return self._setup.users is not None and (self._tls or not self._setup.starttls)

    def _auth(self, rest: str) -> None:
        mechanism, _, initial = rest.strip().partition(" ")
        if not self._may_authenticate() or self._user is not None:
            self._utter(Answer("503 5.5.1 out of turn"))
        elif mechanism.upper() == "PLAIN":
            self._judge(mechanism, *self._plain(initial))
        elif mechanism.upper() == "LOGIN":
            self._judge(mechanism, *self._login(initial))
        else:
            self._utter(Answer("504 5.5.4 no such mechanism"))

    def _judge(self, mechanism: str, user: str, password: str) -> None:
        right = (self._setup.users or {}).get(user) == password
        usual = "235 2.7.0 welcome" if right else "535 5.7.8 wrong"
        if self._say("auth", f"AUTH {mechanism}", usual, user) and right:
            self._user = user

    def _plain(self, initial: str) -> tuple[str, str]:
        _, _, both = _decoded(initial or self._challenge("")).partition("\0")
        user, _, password = both.partition("\0")
        return user, password

    def _login(self, initial: str) -> tuple[str, str]:
        user = _decoded(initial or self._challenge("Username:"))
        return user, _decoded(self._challenge("Password:"))

    def _challenge(self, text: str) -> str:
        self._utter(Answer(f"334 {base64.b64encode(text.encode()).decode()}"))
        return self._line()


def _decoded(response: str) -> str:
    try:
        return base64.b64decode(response, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
