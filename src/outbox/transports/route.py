"""A transport that leads to several relays, by queue or by the recipient's domain."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from outbox.address import domain, parse_mailbox
from outbox.clock import Clock, SystemClock
from outbox.errors import ConfigurationError, InvalidMessage, RelayFault, RelayMisconfigured
from outbox.handover import hand_over
from outbox.message import Message
from outbox.naming import NamesRelays
from outbox.outcome import Outcome, Untried
from outbox.protocols import SupportsRelays, Transport
from outbox.report import merged
from outbox.values import quoted

from .several import close_all, distinct, expire_all, expired

__all__ = ["RouteTransport"]

_OTHERWISE: Final = "otherwise"
_NOWHERE: Final = "(no route)"


@attrs.frozen
class _Leg:
    """One of the transports, under the name of the first route that leads to it."""

    name: str
    transport: Transport | None


class RouteTransport:
    """Delivers each message, or each recipient's share of one, through the transport that its route names.

    The relays have nothing to do with each other.  Each is handed its own
    recipients and reports their results; one that fails is left alone by
    itself, and mail for the others goes on.  Where several answered for one
    message, the outcome names them all, and each reply begins with its own.

    A route that is missing is a mistake in the settings and kills no
    message: who has none waits, and the fault says what to add.

    Args:
        otherwise: For whatever no route names.
        domains: By the recipient's domain, in any case: ``"example.org"`` is
            that domain alone, ``".example.org"`` whatever is below it.  The
            longest name that fits counts.
        queues: By the message's queue.  The Outbox or Runner has to serve
            them too (``queues=[…]``).

    Say *domains* or *queues*.  For both put one into the other, for that
    says which comes first: ``queues={"mail.bulk": RouteTransport(…, domains=…)}``.

    It closes what it leads to when it is closed.

    Raises:
        ConfigurationError: a route cannot be used; the text names it.
    """

    def __init__(
        self,
        otherwise: Transport | None = None,
        *,
        domains: Mapping[str, Transport] | None = None,
        queues: Mapping[str, Transport] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if bool(domains) == bool(queues):
            raise ConfigurationError(
                "a route goes by domains={…} or by queues={…}: say one of them, and for both put one "
                "RouteTransport into another"
            )
        named = _by_domain(domains) if domains else _by_queue(queues or {})
        self._by_domain = bool(domains)
        self._clock = clock or SystemClock()
        every = [*named.items(), *([] if otherwise is None else [(_OTHERWISE, otherwise)])]
        self._transports = distinct(transport for _, transport in every)
        names = {id(transport): name for name, transport in reversed(every)}
        self._legs = {name: _Leg(names[id(transport)], transport) for name, transport in every}
        self._otherwise = self._legs.pop(_OTHERWISE, _Leg(_NOWHERE, None))

    def __repr__(self) -> str:
        kind = "domains" if self._by_domain else "queues"
        routes = ", ".join(f"{name!r}: {leg.transport!r}" for name, leg in self._legs.items())
        return f"RouteTransport({self._otherwise.transport!r}, {kind}={{{routes}}})"

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        """Hand *message* to each relay for its own recipients, one relay after another.

        Raises:
            RelayFault: none of its relays can be used, and nothing was handed over for anybody.
        """
        groups: dict[_Leg, list[str]] = {}
        for recipient in recipients:
            groups.setdefault(self._leg(message, recipient), []).append(recipient)
        reports: list[tuple[Sequence[str], Outcome | RelayFault]] = []
        for leg, share in groups.items():
            late = reports and expired(message, self._clock)
            reports.append(
                (share, Outcome.same(share, Untried()) if late else self._ask(leg, message, share))
            )
        report = merged(reports)
        if isinstance(report, RelayFault):
            raise report
        return report

    def relay(self, message: Message, recipient: str, /) -> str:
        """The name of the route, and behind a ``/`` what its transport says, where that leads to several too."""
        leg = self._leg(message, recipient)
        inner = leg.transport.relay(message, recipient) if isinstance(leg.transport, SupportsRelays) else ""
        return f"{leg.name}/{inner}" if inner else leg.name

    def relay_named(self, name: str, /) -> str | None:
        """The key that :meth:`relay` gives to what this route leads to; None where there is no such relay.

        It may be named by any of its routes, and a domain in any case.
        """
        own, _, further = name.partition("/")
        leg = self._otherwise if own == _OTHERWISE else self._legs.get(_comparable(own) or own)
        if leg is None or leg.transport is None:
            return None
        if isinstance(leg.transport, NamesRelays):
            inner = leg.transport.relay_named(further)
            return None if inner is None else f"{leg.name}/{inner}"
        if further and not isinstance(leg.transport, SupportsRelays):
            return None
        return f"{leg.name}/{further}" if further else leg.name

    def expire(self) -> None:
        """Let each of the transports close what has been idle for too long."""
        expire_all(self._transports)

    def close(self) -> None:
        """Close each of the transports."""
        close_all(self._transports)

    def _ask(self, leg: _Leg, message: Message, share: Sequence[str]) -> Outcome | RelayFault:
        if leg.transport is not None:
            return hand_over(leg.transport, message, share)
        if not self._by_domain:
            return RelayMisconfigured(
                _NOWHERE,
                f"no relay is said for queue {quoted(message.queue)}: add it to "
                "queues={…}, or say what is to be used otherwise",
            )
        missing = ", ".join(sorted({quoted(_host(recipient)) for recipient in share}))
        return RelayMisconfigured(
            _NOWHERE,
            f"no relay is said for {missing}: add to domains={{…}}, or say what is to be used otherwise",
        )

    def _leg(self, message: Message, recipient: str) -> _Leg:
        names = _fitting(_host(recipient)) if self._by_domain else (message.queue,)
        return next((self._legs[name] for name in names if name in self._legs), self._otherwise)


def _host(recipient: str) -> str:
    """The domain of a mailbox, comparable: a message that was not read from a mail may name it otherwise."""
    host = domain(recipient)
    if not host.isascii():
        # Where it is none, its transport refuses it; as a name it fits no route.
        with contextlib.suppress(InvalidMessage):
            host = domain(parse_mailbox(f"any@{host}"))
    return host.lower()


def _fitting(host: str) -> Iterator[str]:
    """The names that fit, the longest first."""
    yield host
    _, _, above = host.partition(".")
    while above:
        yield f".{above}"
        _, _, above = above.partition(".")


def _known_domain(name: str) -> str:
    """A domain, or what is below one, as it is compared."""
    dot, host = ("." if name.startswith(".") else ""), name.removeprefix(".")
    return dot + domain(parse_mailbox(f"any@{host}")).lower()


def _comparable(name: str) -> str | None:
    with contextlib.suppress(InvalidMessage):
        return _known_domain(name)
    return None


def _by_domain(routes: Mapping[str, Transport]) -> dict[str, Transport]:
    found: dict[str, Transport] = {}
    for name, transport in routes.items():
        try:
            known = _known_domain(name)
        except InvalidMessage as error:
            raise ConfigurationError(f"domains names {quoted(name)}, which is no domain: {error}") from error
        if known in found:
            raise ConfigurationError(f"domains names {quoted(known)} twice")
        found[known] = transport
    return found


def _by_queue(routes: Mapping[str, Transport]) -> dict[str, Transport]:
    for name in routes:
        try:
            Message(recipients=("any",), content=b"", queue=name)
        except InvalidMessage as error:
            raise ConfigurationError(f"queues names what is no queue: {error}") from error
    return dict(routes)
