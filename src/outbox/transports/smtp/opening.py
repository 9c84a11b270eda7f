"""From the greeting to the point where mail may be sent: EHLO, STARTTLS, AUTH, apart from their I/O."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

import attrs

from outbox.errors import RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.values import printable, quoted

from .extensions import Extensions
from .reply import Kind, Reply
from .steps import Dialogue, Lost, Read, Secure, Step, ask

__all__ = ["Channel", "Credentials", "Opening", "opening"]

Channel: TypeAlias = Literal["tls", "starttls", "opportunistic", "none"]
"""How a connection is secured: from its first byte, by STARTTLS or not at all, by STARTTLS where offered, never."""

_LONGEST_LINE: Final = 512
_NOT_KNOWN: Final = frozenset({500, 502, 504})


@attrs.frozen
class Credentials:
    """Who we are.  The password is in no repr and no error."""

    username: str
    password: str = attrs.field(repr=False)

    def plain(self) -> bytes:
        """The one response of PLAIN (RFC 4616)."""
        return _base64(f"\0{self.username}\0{self.password}")

    def scrub(self, text: str) -> str:
        """Text of the server fit to be shown, also where it repeats what it was told."""
        octets = self.password.encode("latin-1", "ignore")
        for secret in (
            self.password,
            octets.decode("utf-8", "backslashreplace"),
            self.plain().decode(),
            _base64(self.password).decode(),
        ):
            text = text.replace(secret, "***") if secret else text
        return printable(text)


@attrs.frozen(kw_only=True)
class Opening:
    """What the opening of a connection is to come to."""

    relay: str
    name: bytes
    channel: Channel
    credentials: Credentials | None = None

    def unavailable(self, reason: str) -> RelayUnavailable:
        return RelayUnavailable(self.relay, reason)

    def misconfigured(self, reason: str) -> RelayMisconfigured:
        return RelayMisconfigured(self.relay, reason)

    def refused(self, step: Step, reply: Reply, advice: str) -> RelayFault:
        """Not now is the relay's own affair; never is one for a person."""
        said = f"refused {step.words}: {printable(str(reply))}"
        if reply.kind is Kind.NOT_NOW:
            return self.unavailable(said)
        return self.misconfigured(f"{said} ({advice})")


def opening(plan: Opening) -> Dialogue[Extensions]:
    """Bring a connection to where mail may be sent; what the server offers there.

    Raises:
        RelayFault: it does not come to that; nothing was sent in clear that was to be secured.
        Lost: the connection went.
    """
    if plan.channel == "tls":
        yield Secure()
    greeting: Reply = yield Read(Step.GREETING)
    if greeting.kind is not Kind.DONE:
        raise plan.refused(Step.GREETING, greeting, "it takes no mail from this machine")
    extensions = yield from _hello(plan)
    if plan.channel in ("starttls", "opportunistic"):
        extensions = yield from _starttls(plan, extensions)
    if plan.credentials:
        yield from _authenticate(plan, plan.credentials, extensions)
    return extensions


def _hello(plan: Opening) -> Dialogue[Extensions]:
    reply = yield from ask(Step.EHLO, b"EHLO " + plan.name)
    if reply.kind is Kind.DONE:
        return Extensions.parse(reply)
    step = Step.EHLO
    if reply.kind is Kind.NEVER:
        step, reply = Step.HELO, (yield from ask(Step.HELO, b"HELO " + plan.name))
    if reply.kind is not Kind.DONE:
        raise plan.refused(step, reply, f"we said we are {plan.name.decode()}: set local_hostname")
    return Extensions(told=False)


def _starttls(plan: Opening, extensions: Extensions) -> Dialogue[Extensions]:
    if "STARTTLS" not in extensions:
        if plan.channel == "opportunistic":
            return extensions
        raise plan.misconfigured(_no_starttls(plan))
    reply = yield from ask(Step.STARTTLS, b"STARTTLS")
    if reply.kind is not Kind.DONE:
        raise plan.refused(Step.STARTTLS, reply, "it offers STARTTLS and does not do it")
    yield Secure()
    # What was offered in clear may have been anybody's word (RFC 3207 section 4.2).
    return (yield from _hello(plan))


def _no_starttls(plan: Opening) -> str:
    advice = "does it expect TLS from the first byte (security='tls', mostly port 465)?"
    if plan.credentials is None:
        advice += " Where the network is trusted, security='none' sends in clear"
    return f"it does not offer STARTTLS, and nothing was sent in clear: {advice}"


def _authenticate(plan: Opening, who: Credentials, extensions: Extensions) -> Dialogue[None]:
    """The first mechanism that both sides know gets one try: a second may lock the account."""
    known = [name for name in _MECHANISMS if name in extensions.mechanisms]
    for name in known:
        try:
            reply = yield from _MECHANISMS[name](who)
        except Lost as lost:
            # What is no reply may repeat the password in a form that nobody thought of.
            lost.unsay()
            raise
        if reply.kind is Kind.DONE:
            return
        if reply.code not in _NOT_KNOWN:
            raise _rejected(plan, who, name, reply)
    offered = ", ".join(sorted(extensions.mechanisms)) or "none"
    raise plan.misconfigured(
        f"user {quoted(who.username, 80)} cannot authenticate: the server does PLAIN and LOGIN not here "
        f"(it offers: {printable(offered, 200)})"
    )


def _rejected(plan: Opening, who: Credentials, name: str, reply: Reply) -> RelayFault:
    user, said = printable(who.username, 80), who.scrub(str(reply))
    if reply.kind is Kind.NOT_NOW:
        return plan.unavailable(f"user {user!r} cannot authenticate by {name} now: {said}")
    return plan.misconfigured(
        f"user {user!r} was refused by {name}: {said} (check the user name and the password)"
    )


def _plain(who: Credentials) -> Dialogue[Reply]:
    response = who.plain()
    line = b"AUTH PLAIN " + response
    # Longer than a command line may be, it goes out when it is asked for (RFC 4954 section 4).
    reply = yield from ask(Step.AUTH, line if len(line) <= _LONGEST_LINE - 2 else b"AUTH PLAIN")
    return (yield from _respond(reply, response))


def _login(who: Credentials) -> Dialogue[Reply]:
    reply = yield from ask(Step.AUTH, b"AUTH LOGIN")
    return (yield from _respond(reply, _base64(who.username), _base64(who.password)))


def _respond(reply: Reply, *responses: bytes) -> Dialogue[Reply]:
    """Answer each 334; where it asks for more than we have to say, give up (RFC 4954 section 4)."""
    for response in responses:
        if reply.kind is not Kind.GO_ON:
            return reply
        reply = yield from ask(Step.AUTH, response)
    if reply.kind is Kind.GO_ON:
        reply = yield from ask(Step.AUTH, b"*")
    return reply


_MECHANISMS: Final[Mapping[str, Callable[[Credentials], Dialogue[Reply]]]] = {
    "PLAIN": _plain,
    "LOGIN": _login,
}
"""In the order we prefer them."""


def _base64(text: str) -> bytes:
    return base64.b64encode(text.encode())
