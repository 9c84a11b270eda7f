"""What an SMTP or LMTP sink says and hears over one connection."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
from collections.abc import Mapping
from typing import Literal

import attrs

from .smtp_auth import MECHANISMS
from .smtp_commands import (
    LONGEST_LINE,
    LONGEST_PATH,
    MAY_BE_FOLLOWED,
    PARAMETERS,
    PATH,
    ROOM_FOR_PARAMETERS,
    STEPS,
    USUAL,
    keywords,
)
from .smtp_content import ContentReader, Manners, faults
from .smtp_ledger import Ledger, Login, Received
from .smtp_line import HangUp, Line
from .smtp_script import Answer, Failed, Heard, Script, Step

__all__ = ["Session", "Setup"]


@attrs.frozen(kw_only=True)
class Setup:
    """What a sink offers: see :class:`~outbox.testing.SMTPSink`."""

    protocol: Literal["smtp", "lmtp"]
    offers: tuple[str, ...]
    tls: ssl.SSLContext | None
    starttls: ssl.SSLContext | None
    users: Mapping[str, str] | None = attrs.field(repr=False)
    mechanisms: tuple[str, ...]
    max_size: int
    max_recipients: int
    manners: Manners

    @property
    def hello(self) -> frozenset[Step]:
        """How a conversation of this protocol begins."""
        return frozenset({"lhlo"}) if self.protocol == "lmtp" else frozenset({"ehlo", "helo"})


class _Objection(Exception):
    """A strict sink does not let that pass; the text is its reply."""


class Session:
    """One conversation, from the greeting on, in the thread that calls :meth:`run`."""

    def __init__(
        self, ledger: Ledger, script: Script, setup: Setup, connected: socket.socket, number: int
    ) -> None:
        self._ledger = ledger
        self._script = script
        self._setup = setup
        self._line = Line(ledger, connected)
        self._number = number
        self._greeting = ""
        self._offered: frozenset[str] = frozenset()
        self._user: str | None = None
        self._forget()

    def run(self, greeting: str) -> None:
        """Converse until either side ends it, or :meth:`interrupt` does."""
        with contextlib.closing(self._line), contextlib.suppress(HangUp, OSError, Failed):
            if self._setup.tls:
                self._secure(self._setup.tls)
            if not self._say("connect", "", greeting).refuses:
                while True:
                    self._turn()

    def interrupt(self) -> None:
        """End it from another thread."""
        self._line.interrupt()

    def _turn(self) -> None:
        try:
            self._obey(self._command())
        except _Objection as objection:
            self._line.utter(Answer(str(objection)))

    def _forget(self) -> None:
        self._sender: str | None = None
        self._turned_down = False
        self._recipients: list[str] = []
        self._options: tuple[str, ...] = ()
        self._recipient_options: dict[str, tuple[str, ...]] = {}

    def _secure(self, context: ssl.SSLContext) -> None:
        self._line.secure(context)
        # Both sides know nothing of each other again (RFC 3207 section 4.2).
        self._greeting, self._offered = "", frozenset()
        self._forget()

    def _blame(self, text: str) -> None:
        self._ledger.blame(f"connection {self._number}: {text}")

    def _object(self, text: str, reply: str) -> None:
        """Note a breach of the rules that the usual server lets pass; a strict one does not."""
        self._blame(text)
        if self._setup.manners == "strict":
            raise _Objection(f"{reply} {text}")

    # --- hearing ---

    def _heard_line(self) -> str:
        try:
            line = self._line.hear()
        except HangUp as end:
            if end.args:
                self._blame(str(end))
            raise
        if not line.endswith(b"\r\n"):
            self._object("a command that ends in a bare LF", "500 5.5.2")
        return line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")

    def _command(self) -> str:
        line = self._heard_line()
        verb = line.partition(" ")[0].upper()
        # What follows the mechanism is a secret.
        self._ledger.note(" ".join(line.split()[:2]) if verb == "AUTH" else line)
        if self._line.buffer and not ("PIPELINING" in self._offered and verb in MAY_BE_FOLLOWED):
            self._object(f"spoke on behind {verb} without waiting for the answer", "503 5.5.0")
        more = ROOM_FOR_PARAMETERS if verb in ("MAIL", "RCPT") else 0
        if verb != "AUTH" and len(line.encode()) + 2 > LONGEST_LINE + more:
            self._object("a command line that is too long", "500 5.5.2")
        return line

    # --- answering ---

    def _heard(self, step: Step, line: str = "", address: str | None = None) -> Heard:
        return Heard(
            step=step,
            line=line,
            address=(self._sender or "") if address is None else address,
            recipients=tuple(self._recipients),
            connection=self._number,
            tls=self._line.tls,
            user=self._user,
        )

    def _say(self, step: Step, line: str, usual: str, address: str | None = None) -> Answer:
        heard = self._heard(step, line, address)
        answer = self._script.answer(heard) or Answer(usual)
        self._script.wait(heard)
        self._line.utter(answer)
        return answer

    def _reply(self, reply: str) -> None:
        self._line.utter(Answer(reply))

    # --- commands ---

    def _obey(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        step = STEPS.get(verb.upper())
        match step:
            case "ehlo" | "helo" | "lhlo" if step in self._setup.hello:
                self._hello(step, line, rest.strip())
            case "starttls":
                self._starttls(line)
            case "auth":
                self._auth(rest)
            case "mail" | "rcpt":
                self._path(step, line, rest)
            case "data":
                self._data(line)
            case "rset" | "noop" | "vrfy" | "help" | "quit":
                self._simple(step, line)
            case _:
                self._blame(f"{verb[:40]!r} is no command")
                self._reply("500 5.5.2 no such command")

    def _simple(self, step: Step, line: str) -> None:
        if step == "rset":
            self._forget()
        self._say(step, line, USUAL[step])
        if step == "quit":
            raise HangUp

    def _hello(self, step: Step, line: str, name: str) -> None:
        if not name:
            self._object(f"{step.upper()} without a name", "501 5.5.4")
        said = ["the sink greets you", *(self._offers() if step != "helo" else [])]
        lines = [f"250-{text}" for text in said[:-1]] + [f"250 {said[-1]}"]
        answer = self._say(step, line, "\n".join(lines))
        if not answer.refuses:
            self._greeting = name or "?"
            self._offered = keywords(answer)
            self._forget()

    def _offers(self) -> list[str]:
        size = f"SIZE {self._setup.max_size}"
        offers = [size if keyword == "SIZE" else keyword for keyword in self._setup.offers]
        if self._setup.starttls and not self._line.tls:
            offers.append("STARTTLS")
        if self._may_authenticate():
            offers.append(" ".join(["AUTH", *self._setup.mechanisms]))
        return offers

    def _starttls(self, line: str) -> None:
        context = self._setup.starttls
        if context is None or self._line.tls:
            self._reply("502 5.5.1 not here")
        elif not self._say("starttls", line, "220 2.0.0 go ahead").refuses:
            self._secure(context)

    def _path(self, step: Literal["mail", "rcpt"], line: str, rest: str) -> None:
        keyword, _, said = rest.partition(":")
        path = PATH.match(said)
        if keyword.upper() != ("FROM" if step == "mail" else "TO") or path is None:
            self._blame(f"{line[:80]!r} is no such command")
            self._reply("501 5.5.4 syntax")
            return
        options = tuple(said[path.end() :].split())
        if len(path[0].encode()) > LONGEST_PATH:
            self._object("a path of more than 256 bytes", "501 5.1.0")
        self._check_options(step, options)
        if step == "mail":
            self._mail(line, path[1], options)
        else:
            self._rcpt(line, path[1], options)

    def _check_options(self, step: Literal["mail", "rcpt"], options: tuple[str, ...]) -> None:
        for option in options:
            name = option.partition("=")[0].upper()
            needed = PARAMETERS[step].get(name)
            if needed is None or (needed and needed not in self._offered):
                self._object(
                    f"the parameter {name[:40]} of {step.upper()}, which was not offered", "555 5.5.4"
                )

    def _mail(self, line: str, address: str, options: tuple[str, ...]) -> None:
        stated = [option[5:] for option in options if option.upper().startswith("SIZE=")]
        size = int(stated[0]) if stated and stated[0].isdecimal() else 0
        self._turned_down = True
        if not self._greeting or self._sender is not None:
            self._blame("MAIL out of turn")
            self._reply("503 5.5.1 out of turn")
        elif self._setup.users is not None and self._user is None:
            self._reply("530 5.7.0 authentication required")
        elif size > self._setup.max_size:
            self._reply("552 5.3.4 too big")
        else:
            self._check_utf8(address, options)
            if not self._say("mail", line, "250 2.1.0 sender ok", address).refuses:
                self._sender, self._options, self._turned_down = address, options, False

    def _rcpt(self, line: str, address: str, options: tuple[str, ...]) -> None:
        if self._sender is None:
            # Who need not wait may have sent it before MAIL was refused.
            if not (self._turned_down and "PIPELINING" in self._offered):
                self._blame("RCPT out of turn")
            self._reply("503 5.5.1 out of turn")
        elif len(self._recipients) >= self._setup.max_recipients:
            self._reply("452 4.5.3 too many recipients")
        else:
            self._check_utf8(address, self._options)
            if not self._say("rcpt", line, "250 2.1.5 recipient ok", address).refuses:
                self._recipients.append(address)
                if options:
                    self._recipient_options[address] = options

    def _check_utf8(self, address: str, options: tuple[str, ...]) -> None:
        if not address.isascii() and "SMTPUTF8" not in map(str.upper, options):
            self._object("an address that is not ASCII, without SMTPUTF8", "553 5.6.7")

    # --- content ---

    def _data(self, line: str) -> None:
        if not self._recipients:
            self._reply("503 5.5.1 nobody to send it to")
        elif not self._say("data", line, "354 go on, and end with a dot").refuses:
            try:
                self._content()
            finally:
                self._forget()

    def _content(self) -> None:
        reader = ContentReader(
            limit=self._setup.max_size, manners=self._setup.manners, buffer=self._line.buffer
        )
        content, answered = None, False
        heard = self._heard("content")
        early = self._script.answer(heard)
        while content is None:
            if reader.come >= (early.at if early else 1) and not answered:
                answered = True
                self._script.wait(heard)
                if early:
                    self._line.utter(early)
            content = reader.take()
            if content is None:
                self._line.fill()
        if early and not answered:
            self._line.utter(early)
        if not early:
            self._judge_content(content, whole=reader.whole)

    def _judge_content(self, content: bytes, *, whole: bool) -> None:
        declared = [*map(str.upper, self._options)]
        found = [*faults(content, eightbit="BODY=8BITMIME" in declared, utf8="SMTPUTF8" in declared)]
        for fault in found:
            self._blame(fault)
        if not whole or len(content) > self._setup.max_size:
            usual = "552 5.3.4 too big"
        elif found and self._setup.manners == "strict":
            usual = f"554 5.6.0 {found[0]}"
        else:
            usual = "250 2.0.0 taken" if self._ledger.has_room(len(content)) else "452 4.3.1 the sink is full"
        self._end(content, usual)

    def _end(self, content: bytes, usual: str) -> None:
        """Take it, and then answer the dot: once, or over LMTP for each recipient (RFC 2033 section 4.2)."""
        lmtp = self._setup.protocol == "lmtp"
        steps = [self._heard("dot", address=each) for each in (self._recipients if lmtp else [None])]
        answers = [self._script.answer(heard) or Answer(usual) for heard in steps]
        # What is not refused counts as taken before it is answered: the answer may be what gets lost.
        each = answers if lmtp else answers * len(self._recipients)
        taken = [r for r, answer in zip(self._recipients, each, strict=True) if not answer.refuses]
        if taken:
            self._ledger.take(self._received(content, taken))
        for heard, answer in zip(steps, answers, strict=True):
            self._script.wait(heard)
            self._line.utter(answer)

    def _received(self, content: bytes, recipients: list[str]) -> Received:
        return Received(
            sender=self._sender or "",
            recipients=tuple(recipients),
            content=content,
            at=self._ledger.now(),
            tls=self._line.tls,
            user=self._user,
            connection=self._number,
            greeting=self._greeting,
            options=self._options,
            recipient_options=self._recipient_options,
        )

    # --- authentication ---

    def _may_authenticate(self) -> bool:
        return self._setup.users is not None and bool(self._line.tls or not self._setup.starttls)

    def _auth(self, rest: str) -> None:
        name, _, initial = rest.strip().partition(" ")
        mechanism = name.upper()
        if not self._may_authenticate() or self._user is not None:
            self._reply("503 5.5.1 out of turn")
        elif mechanism not in self._setup.mechanisms:
            self._reply("504 5.5.4 no such mechanism")
        else:
            said = self._exchange(mechanism, initial)
            if said is None:
                self._reply("501 5.7.0 as you wish")
            else:
                self._judge_login(mechanism, *said)

    def _exchange(self, mechanism: str, initial: str) -> tuple[str, str] | None:
        """The user and the secret; None where the client gave it up (RFC 4954 section 4)."""
        exchange = MECHANISMS[mechanism](initial)
        try:
            challenge = next(exchange)
            while (response := self._challenge(challenge)) != "*":
                challenge = exchange.send(response)
        except StopIteration as end:
            user, secret = end.value
            return user, secret
        return None

    def _judge_login(self, mechanism: str, user: str, secret: str) -> None:
        right = (self._setup.users or {}).get(user) == secret
        if not right and mechanism in ("OAUTHBEARER", "XOAUTH2"):
            # The client hears why, and has to say that it has (RFC 7628 section 3.2.3).
            self._challenge('{"status":"invalid_token"}')
        usual = "235 2.7.0 welcome" if right else "535 5.7.8 wrong"
        heard = self._heard("auth", f"AUTH {mechanism}", user)
        answer = self._script.answer(heard) or Answer(usual)
        right = right and not answer.refuses
        self._ledger.admit(
            Login(
                mechanism=mechanism,
                user=user,
                accepted=right,
                connection=self._number,
                tls=bool(self._line.tls),
            )
        )
        self._user = user if right else None
        self._script.wait(heard)
        self._line.utter(answer)

    def _challenge(self, text: str) -> str:
        self._reply(f"334 {base64.b64encode(text.encode()).decode()}")
        return self._heard_line()
