"""Who we are, and how a server is told: AUTH (RFC 4954), apart from its I/O."""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
from collections.abc import Callable, Sequence
from typing import ClassVar, Final, TypeAlias

import attrs

from outbox.errors import ConfigurationError, RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.values import printable, quoted

from .dial import ends_program
from .reply import Kind, Reply
from .scrub import Scrub, base64_of
from .steps import Dialogue, Step, ask

__all__ = ["Bearer", "Credentials", "Identity", "Password", "Token", "TokenSource", "credentials", "exchange"]

TokenSource: TypeAlias = Callable[[], str]
"""Called for each connection, in the thread that opens it; returns an access token that is valid now."""

_LONGEST_LINE: Final = 512
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_TOKEN: Final = re.compile(r"[!-~]+")
_REMEMBERED: Final = 8


@attrs.frozen(kw_only=True)
class Mechanism:
    """What is said by one mechanism; every response is base64 already.

    Attributes:
        responses: In the order in which they are asked for.
        initial: May the first go with the command itself?
        acknowledgement: What a challenge that comes after all responses is
            answered with, where it is known to hold the reason of a refusal.
    """

    name: str
    responses: tuple[bytes, ...] = attrs.field(repr=False)
    initial: bool = True
    acknowledgement: bytes | None = None


@attrs.frozen
class Password:
    """A user with a password.  The password is in no repr and no error."""

    username: str
    password: str = attrs.field(repr=False)
    scrub: Scrub = attrs.field(init=False, repr=False, eq=False)
    """Makes text of the server fit to be shown, also where it repeats what it was told."""

    advice: ClassVar[str] = "check the user name and the password"

    @property
    def mechanisms(self) -> Sequence[Mechanism]:
        """In the order we prefer them: PLAIN (RFC 4616) has one round trip, LOGIN three."""
        plain = base64_of(f"\0{self.username}\0{self.password}")
        each = (base64_of(self.username), base64_of(self.password))
        return (
            Mechanism(name="PLAIN", responses=(plain,)),
            Mechanism(name="LOGIN", responses=each, initial=False),
        )

    @scrub.default
    def _make_scrub(self) -> Scrub:
        return _scrub_of(self.password, self.mechanisms)


@attrs.frozen
class Token:
    """A user with an access token (RFC 6750), for one connection.  The token is in no repr and no error."""

    username: str
    token: str = attrs.field(repr=False)
    host: str = ""
    port: int = 0
    scrub: Scrub = attrs.field(init=False, repr=False, eq=False)
    """Makes text of the server fit to be shown, also where it repeats what it was told."""

    advice: ClassVar[str] = "is the token of this user, for sending mail there, and still valid?"

    @property
    def mechanisms(self) -> Sequence[Mechanism]:
        """The standard one first (RFC 7628), then its forerunner."""
        # A name holds neither a comma nor an equals sign there (RFC 5801 section 4).
        name = self.username.replace("=", "=3D").replace(",", "=2C")
        where = f"host={self.host}\1port={self.port}\1" if self.port else ""
        bearer = f"auth=Bearer {self.token}\1\1"
        return (
            Mechanism(
                name="OAUTHBEARER",
                responses=(base64_of(f"n,a={name},\1{where}{bearer}"),),
                acknowledgement=base64_of("\1"),
            ),
            Mechanism(
                name="XOAUTH2", responses=(base64_of(f"user={self.username}\1{bearer}"),), acknowledgement=b""
            ),
        )

    @scrub.default
    def _make_scrub(self) -> Scrub:
        return _scrub_of(self.token, self.mechanisms)


class _Given:
    """The latest tokens, each once; safe from many threads."""

    def __init__(self) -> None:
        self.latest: tuple[Token, ...] = ()
        self._lock = threading.Lock()

    def add(self, token: Token) -> None:
        with self._lock:
            others = [each for each in self.latest if each != token]
            self.latest = (*others[1 - _REMEMBERED :], token)


@attrs.frozen
class Bearer:
    """A user whose tokens a function of the caller's gets.

    The latest of them are remembered, to be taken out of what servers say.
    """

    username: str
    source: TokenSource = attrs.field(repr=False)
    _given: _Given = attrs.field(factory=_Given, init=False, repr=False, eq=False)

    def token(self, relay: str, host: str, port: int) -> Token:
        """What authenticates the next connection to *relay*.

        Raises:
            RelayFault: there is no token to be had.
        """
        token = self._called(relay)
        if not isinstance(token, str):
            raise RelayMisconfigured(
                relay,
                f"the token callback returned {type(token).__name__}: it has to return the token as text",
            )
        if not _TOKEN.fullmatch(token):
            raise RelayMisconfigured(
                relay,
                "the token callback returned none that can be sent: it is empty, or holds a blank, "
                "a line end or what is not ASCII (return the bare token, without 'Bearer')",
            )
        given = Token(self.username, token, host, port)
        self._given.add(given)
        return given

    def scrub(self, text: str) -> str:
        """Text of the server fit to be shown, also where it repeats what it was told over whichever connection."""
        for token in self._given.latest:
            text = token.scrub(text)
        return printable(text)

    def _called(self, relay: str) -> object:
        try:
            return self.source()
        except RelayFault:
            raise
        except ConfigurationError as error:
            raise RelayMisconfigured(
                relay, f"no token for {quoted(self.username)}: {printable(str(error))}"
            ) from error
        except (Exception, SystemExit) as error:
            if ends_program(error):
                raise
            failure = type(error).__name__
        # Raised out here, where no context would hold that exception: its text may quote a token.
        raise RelayUnavailable(relay, f"no token for {quoted(self.username)}: the callback raised {failure}")


Credentials: TypeAlias = Password | Bearer
"""What a server is given to authenticate with."""
Identity: TypeAlias = Password | Token
"""What one connection authenticates with."""


def credentials(username: str | None, password: str | None, token: TokenSource | None) -> Credentials | None:
    """A user name with either of the others, or nothing at all.

    Raises:
        ConfigurationError: one is missing or too many, or cannot be said; no secret is shown.
    """
    if username is None and password is None and token is None:
        return None
    if password is not None and token is not None:
        raise ConfigurationError("SMTP credentials are a password or a token: name one of them, not both")
    if not username or not (password or token):
        raise ConfigurationError(
            "SMTP credentials are a username and a password (or a username and a token): one of them is missing"
        )
    _check_text("user name", username)
    if token is None:
        _check_text("password", password or "")
        return Password(username, password or "")
    if not callable(token):
        raise ConfigurationError(
            "the SMTP token is a function that returns one: they expire while mail waits"
        )
    if _CONTROL.search(username):
        raise ConfigurationError(f"the SMTP user name {quoted(username)} holds a control character")
    return Bearer(username, token)


def _check_text(name: str, text: str) -> None:
    if text.startswith("\ufeff"):
        raise ConfigurationError(
            f"the SMTP {name} begins with a byte order mark (U+FEFF), as some editors write it: save its file without one"
        )
    if "\0" not in text and _CONTROL.search(text):
        raise ConfigurationError(
            f"the SMTP {name} holds a line end or another control character: it is one line"
        )
    # Asked so, no exception is made that would hold the password.
    if "\0" in text or _SURROGATE.search(text):
        raise ConfigurationError(
            f"the SMTP {name} holds a NUL or bytes that are no UTF-8: write it as UTF-8 text"
        )


def exchange(mechanism: Mechanism) -> Dialogue[tuple[Reply, str]]:
    """One AUTH command, to its end: the last reply, and the reason that an earlier one gave, if any."""
    responses = mechanism.responses
    line = b"AUTH " + mechanism.name.encode()
    begun = mechanism.initial and len(line) + len(responses[0]) + 3 <= _LONGEST_LINE
    # Longer than a command line may be, it goes out when it is asked for (RFC 4954 section 4).
    reply = yield from ask(Step.AUTH, line + b" " + responses[0] if begun else line)
    for response in responses:
        if reply.kind is not Kind.GO_ON:
            return reply, ""
        if begun and mechanism.acknowledgement is not None and reply.lines[0].strip():
            break
        # An empty challenge asks for what went with the command once more.
        reply = yield from ask(Step.AUTH, response)
    reason = ""
    if reply.kind is Kind.GO_ON and mechanism.acknowledgement is not None:
        # The server waits for the reason to be acknowledged before it refuses (RFC 7628 section 3.2.3).
        reason = _reason(reply.lines[0])
        reply = yield from ask(Step.AUTH, mechanism.acknowledgement)
    if reply.kind is Kind.GO_ON:
        # It asks for more than we have to say (RFC 4954 section 4).
        reply = yield from ask(Step.AUTH, b"*")
    return reply, reason


def _reason(challenge: str) -> str:
    """What the JSON of a refusal says (RFC 7628 section 3.2.2), or the whole of it where it is none."""
    try:
        text = base64.b64decode(challenge.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(said, dict):
        return text
    return ", ".join(f"{key} {said[key]}" for key in ("status", "scope") if isinstance(said.get(key), str))


def _scrub_of(secret: str, mechanisms: Sequence[Mechanism]) -> Scrub:
    return Scrub(secret, (response.decode() for way in mechanisms for response in way.responses))
