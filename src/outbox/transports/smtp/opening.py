"""From the greeting to the point where mail may be sent: EHLO, STARTTLS, AUTH, apart from their I/O."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import attrs

from outbox.errors import RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.values import printable, quoted

from .auth import Identity, Token, exchange
from .extensions import Extensions
from .reply import Kind, Reply
from .steps import Dialogue, Lost, Read, Secure, Step, ask

__all__ = ["Channel", "Opening", "Protocol", "opening"]

Channel: TypeAlias = Literal["tls", "starttls", "opportunistic", "none"]
"""How a connection is secured: from its first byte, by STARTTLS or not at all, by STARTTLS where offered, never."""

Protocol: TypeAlias = Literal["smtp", "lmtp"]

_SECURED: Final = frozenset({"tls", "starttls"})
_NO_SUCH_MECHANISM: Final = 504
_UNKNOWN: Final = frozenset({500, 502})
"""The command is not known, or not done."""


@attrs.frozen(kw_only=True)
class Opening:
    """What the opening of a connection is to come to."""

    relay: str
    name: bytes
    channel: Channel
    protocol: Protocol = "smtp"
    identity: Identity | None = None

    @property
    def hello(self) -> Step:
        """How we greet (RFC 5321 section 4.1.1.1, RFC 2033 section 4.1)."""
        return Step.LHLO if self.protocol == "lmtp" else Step.EHLO

    @property
    def needs_offers(self) -> bool:
        """Must the server say what it offers, for us to go on as we want to?"""
        return self.protocol == "lmtp" or self.identity is not None or self.channel == "starttls"

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
    if plan.identity:
        yield from _authenticate(plan, plan.identity, extensions)
    return extensions


def _hello(plan: Opening) -> Dialogue[Extensions]:
    step = plan.hello
    reply = yield from ask(step, f"{step.words} ".encode() + plan.name)
    if reply.kind is Kind.DONE:
        return Extensions.parse(reply)
    if reply.kind is Kind.NEVER and not plan.needs_offers:
        step, reply = Step.HELO, (yield from ask(Step.HELO, b"HELO " + plan.name))
    if reply.kind is not Kind.DONE:
        raise plan.refused(step, reply, _hello_advice(plan, reply))
    return Extensions(told=False)


def _hello_advice(plan: Opening, reply: Reply) -> str:
    if reply.code in _UNKNOWN:
        if plan.protocol == "lmtp":
            return "does it speak SMTP (protocol='smtp')?"
        return "does it speak LMTP (protocol='lmtp')?"
    return f"we said we are {plan.name.decode()}: set local_hostname"


def _starttls(plan: Opening, extensions: Extensions) -> Dialogue[Extensions]:
    if "STARTTLS" not in extensions:
        if plan.channel == "opportunistic":
            return extensions
        raise plan.misconfigured(_no_starttls(plan))
    reply = yield from ask(Step.STARTTLS, b"STARTTLS")
    if reply.kind is not Kind.DONE:
        raise plan.refused(Step.STARTTLS, reply, "it offers STARTTLS and does not do it")
    yield Secure(behind=Step.STARTTLS)
    # What was offered in clear may have been anybody's word (RFC 3207 section 4.2).
    return (yield from _hello(plan))


def _no_starttls(plan: Opening) -> str:
    advice = "does it expect TLS from the first byte (security='tls', mostly port 465)?"
    if plan.identity is None:
        advice += " Where the network is trusted, security='none' sends in clear"
    return f"it does not offer STARTTLS, and nothing was sent in clear: {advice}"


def _authenticate(plan: Opening, who: Identity, extensions: Extensions) -> Dialogue[None]:
    """The first mechanism that both sides know gets one try: a second may lock the account."""
    if plan.channel not in _SECURED:
        raise plan.misconfigured("credentials are sent under TLS only")
    for mechanism in who.mechanisms:
        if mechanism.name not in extensions.mechanisms:
            continue
        try:
            reply, reason = yield from exchange(mechanism)
        except Lost as lost:
            # What is no reply may repeat the secret in a form that nobody thought of.
            lost.unsay()
            raise
        if reply.kind is Kind.DONE:
            return
        # Offered and yet not known, it was not tried.
        if reply.code != _NO_SUCH_MECHANISM:
            raise _rejected(plan, who, mechanism.name, reply, reason)
    raise plan.misconfigured(_no_mechanism(who, extensions))


def _no_mechanism(who: Identity, extensions: Extensions) -> str:
    ours = " and ".join(mechanism.name for mechanism in who.mechanisms)
    offered = extensions.mechanisms
    advice = ""
    if isinstance(who, Token) and offered & {"PLAIN", "LOGIN"}:
        advice = ": it takes a password"
    elif offered & {"OAUTHBEARER", "XOAUTH2"}:
        advice = ": it takes a token instead of a password"
    said = printable(who.scrub(", ".join(sorted(offered))) or "none", 200)
    return (
        f"user {quoted(who.username, 80)} cannot authenticate: the server does {ours} not here "
        f"(it offers: {said}){advice}"
    )


def _rejected(plan: Opening, who: Identity, name: str, reply: Reply, reason: str) -> RelayFault:
    user = quoted(who.username, 80)
    said = who.scrub(str(reply)) + (f" [{who.scrub(reason)}]" if reason else "")
    if reply.kind is Kind.NOT_NOW:
        fault = plan.unavailable(f"user {user} cannot authenticate by {name} now: {said}")
        # Some say no more than that of a wrong password.
        fault.costly = True
        return fault
    return plan.misconfigured(f"user {user} was refused by {name}: {said} ({who.advice})")
