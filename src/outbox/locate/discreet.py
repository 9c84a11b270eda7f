"""A transport of another's making that was told secrets: whatever it reports and raises comes without them.

What a transport says is judged, stored, logged, shown and mailed to senders.
Here is the one place before all of these.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

import attrs

from outbox.errors import ConfigurationError, RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.message import Message
from outbox.naming import NamesRelays
from outbox.outcome import Accepted, Outcome, PermFailed, TempFailed, Uncertain, Untried
from outbox.protocols import Delivery, SupportsBatch, SupportsIdle, SupportsRelays
from outbox.values import printable, words_of

from .masking import Hiding

__all__ = ["discreet"]

P = ParamSpec("P")
T = TypeVar("T")

_CODES: Final = re.compile(r"[245]\d\d(?:[ -](?:[245]\.\d{1,3}\.\d{1,3}(?!\S))?|$)", re.ASCII)
"""How a reply begins; what is decided by, and too short to be a secret."""
_RESULTS: Final = (Accepted, TempFailed, PermFailed, Uncertain, Untried)
_END: Final = object()
_ENDS: Final = (KeyboardInterrupt, SystemExit, GeneratorExit, Exception, BaseException)


def discreet(transport: Any, secrets: Iterable[str]) -> Any:
    """*transport*, as it is, and without *secrets* in what it says; it has the capabilities that it had."""
    told = frozenset(secrets)
    if not told:
        return transport
    bases = tuple(_CAPABLE[kind] for kind in _CAPABLE if isinstance(transport, kind))
    # By its own name: that is who is blamed for what it does.
    made: Any = _called_as(type(transport), (*bases, _Discreet))
    return made(transport, Hiding(told))


class _Discreet:
    """What every transport has."""

    def __init__(self, transport: Any, hiding: Hiding) -> None:
        self._transport = transport
        self._hiding = hiding

    def __getattr__(self, name: str) -> Any:
        if name == "_transport":
            raise AttributeError(name)
        return getattr(self._transport, name)

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Any:
        return self._report(self._asked(self._transport.deliver, message, recipients))

    def close(self) -> None:
        self._asked(self._transport.close)

    def _asked(self, call: Callable[P, T], *given: P.args, **terms: P.kwargs) -> T:
        try:
            return call(*given, **terms)
        except BaseException as error:
            instead = self._instead(error)
            if instead is None:
                raise
        # Not within: the other would be its context.
        raise instead

    def _instead(self, error: BaseException) -> BaseException | None:
        """The same without secrets; None where it holds none."""
        if isinstance(error, RelayFault):
            fault = self._fault(error)
            return None if fault is error else fault
        if self._is_well(error):
            return None
        text = printable(self._said(words_of(error)))
        if isinstance(error, ConfigurationError):
            return ConfigurationError(text)
        base = next(kind for kind in _ENDS if isinstance(error, kind))
        named: BaseException = _called_as(type(error), (base,))(text)
        return named.with_traceback(error.__traceback__)

    def _is_well(self, error: BaseException) -> bool:
        """Whether neither it nor what led to it says a secret; lines of source are the same for all."""
        try:
            told = "".join(traceback.format_exception(error))
        except Exception:  # noqa: BLE001 - what cannot be shown is not known to be well
            return False
        return self._said(told) == told

    def _fault(self, fault: RelayFault) -> RelayFault:
        if self._is_well(fault):
            return fault
        kind = RelayMisconfigured if isinstance(fault, RelayMisconfigured) else RelayUnavailable
        relay, reason = getattr(fault, "relay", ""), getattr(fault, "reason", None)
        clean = kind(
            self._said(relay) if isinstance(relay, str) else "",
            self._reply(reason if isinstance(reason, str) else words_of(fault)),
            retry_after=fault.retry_after,
        )
        clean.costly = fault.costly
        return clean

    def _report(self, answer: Any) -> Any:
        """What is no report, or has odd things in it, is left to who understands reports."""
        if not isinstance(answer, Outcome):
            return answer
        fields = {field.name: getattr(answer, field.name) for field in attrs.fields(Outcome)}
        clean = fields | {
            "results": {recipient: self._result(result) for recipient, result in answer.results.items()},
            "relay": self._text(answer.relay),
            "dialogue": self._text(answer.dialogue),
            "fault": self._fault(answer.fault) if isinstance(answer.fault, RelayFault) else answer.fault,
        }
        same = all(clean[name] is fields[name] or clean[name] == fields[name] for name in fields)
        return answer if same else Outcome(**clean)

    def _result(self, result: Any) -> Any:
        kind = next((kind for kind in _RESULTS if isinstance(result, kind)), None)
        if kind is None or not isinstance(result.reply, str):
            return result
        if (clean := self._reply(result.reply)) == result.reply:
            return result
        fields = {field.name: getattr(result, field.name) for field in attrs.fields(kind)}
        return kind(**fields | {"reply": clean})

    def _reply(self, reply: str) -> str:
        codes = found[0] if (found := _CODES.match(reply)) else ""
        return codes + self._said(reply[len(codes) :])

    def _text(self, text: Any) -> Any:
        return self._said(text) if isinstance(text, str) else text

    def _said(self, text: str) -> str:
        return self._hiding(text)


class _InBatches(_Discreet):
    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Any:
        answer: Any = self._asked(self._transport.deliver_many, deliveries)
        # Who is no generator may have handed over already, and that has to be seen of this, too.
        return self._each(answer) if isinstance(answer, Generator) else _Reports(partial(self._all, answer))

    def _all(self, answer: Any) -> Iterator[Any]:
        return self._each(self._asked(iter, answer))

    def _each(self, answer: Any) -> Generator[Any, None, None]:
        try:
            while (report := self._asked(next, answer, _END)) is not _END:
                yield self._report(report)
        finally:
            if (close := getattr(answer, "close", None)) is not None:
                self._asked(close)


@attrs.frozen
class _Reports:
    """What came back where it is no generator."""

    _iter: Callable[[], Iterator[Any]]

    def __iter__(self) -> Iterator[Any]:
        return self._iter()


class _OfRelays(_Discreet):
    def relay(self, message: Message, recipient: str, /) -> Any:
        return self._text(self._asked(self._transport.relay, message, recipient))


class _OfNames(_Discreet):
    def relay_named(self, name: str, /) -> Any:
        return self._text(self._asked(self._transport.relay_named, name))


class _Idle(_Discreet):
    def expire(self) -> None:
        self._asked(self._transport.expire)


_CAPABLE: Final[Mapping[type, type[_Discreet]]] = {
    SupportsBatch: _InBatches,
    SupportsRelays: _OfRelays,
    NamesRelays: _OfNames,
    SupportsIdle: _Idle,
}


def _called_as(kind: type, bases: tuple[type, ...]) -> Any:
    return type(kind.__name__, bases, {"__module__": kind.__module__, "__qualname__": kind.__qualname__})
