"""Which messages a person means, by what a list shows of them; and how they are found in any store."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol, runtime_checkable

import attrs

from .address import domain
from .errors import ConfigurationError
from .lifecycle import State, Summary
from .protocols import SupportsBrowse
from .values import frozen_mapping, require_aware

__all__ = ["Filter", "SupportsFind", "find"]

_PAGE: Final = 500
_ALPHANUMERIC: Final = r"[^\W_]"


def _states(states: Iterable[State]) -> tuple[State, ...]:
    return tuple(dict.fromkeys(map(State, states)))


def _texts(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _folded(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.lower() for text in texts))


def _values(attributes: Mapping[str, Iterable[str]]) -> Mapping[str, tuple[str, ...]]:
    return frozen_mapping({name: tuple(values) for name, values in attributes.items()})


def _aware(_: object, field: attrs.Attribute[Any], moment: dt.datetime | None) -> None:
    try:
        require_aware(field.name, moment)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


@attrs.frozen(kw_only=True)
class Filter:
    """The messages that are all of this; of several values of one field either will do, and ``()`` is any.

    Attributes:
        submitted_before: Those that are as old as this, or older.
        settled_since: Those that were settled then, or later, and so no longer wait.
        recipients: With one of these among their recipients, in either case.
        domains: With a recipient of exactly one of these domains, in either case.
        senders: With one of these as their sender, in either case; ``""`` is the null sender.
        reasons: Whose reason has all words of one of these texts, in either case and any order.  A word is a whole
            one: ``535`` is not found in ``15350``, nor ``5.7.1`` in ``5.7.13``, nor ``mail`` in ``mailbox``.
        attributes: With one of these values of each of these attributes.
        by_hand: Those that a person holds, or all but those; None is either.
    """

    states: tuple[State, ...] = attrs.field(default=(), converter=_states)
    queues: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    submitted_before: dt.datetime | None = attrs.field(default=None, validator=_aware)
    settled_since: dt.datetime | None = attrs.field(default=None, validator=_aware)
    recipients: tuple[str, ...] = attrs.field(default=(), converter=_folded)
    domains: tuple[str, ...] = attrs.field(default=(), converter=_folded)
    senders: tuple[str, ...] = attrs.field(default=(), converter=_folded)
    reasons: tuple[str, ...] = attrs.field(default=(), converter=_folded)
    attributes: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict, converter=_values, hash=False)
    by_hand: bool | None = None

    def fits(self, summary: Summary) -> bool:
        """Whether a message of which this is shown is among them; one whose attributes are not told has none."""
        return all(
            (
                not self.states or summary.state in self.states,
                not self.queues or summary.queue in self.queues,
                self.submitted_before is None or summary.submitted_at <= self.submitted_before,
                self.settled_since is None or _since(summary.settled_at, self.settled_since),
                self.by_hand is None or summary.by_hand is self.by_hand,
                not self.senders or summary.sender.lower() in self.senders,
                not self.recipients or _any_of(summary.recipients, str.lower, self.recipients),
                not self.domains or _any_of(summary.recipients, _domain, self.domains),
                not self.reasons or _says(summary.reason.lower(), self.reasons),
                not self.attributes or _has(summary.attributes or {}, self.attributes),
            )
        )


def _since(settled: dt.datetime | None, since: dt.datetime) -> bool:
    return settled is not None and settled >= since


def _any_of(recipients: Iterable[str], part: Callable[[str], str], wanted: tuple[str, ...]) -> bool:
    return any(part(recipient) in wanted for recipient in recipients)


def _domain(recipient: str) -> str:
    return domain(recipient).lower() if "@" in recipient else ""


def _says(reason: str, texts: tuple[str, ...]) -> bool:
    return any(all(word in reason and _whole(word).search(reason) for word in text.split()) for text in texts)


def _whole(word: str) -> re.Pattern[str]:
    """Where it stands by itself: next to its own letters and digits are no others; punctuation ends a word, too."""
    before = rf"(?<!{_ALPHANUMERIC})" if word[0].isalnum() else ""
    after = rf"(?!{_ALPHANUMERIC})" if word[-1].isalnum() else ""
    return re.compile(f"{before}{re.escape(word)}{after}")


def _has(attributes: Mapping[str, str], wanted: Mapping[str, tuple[str, ...]]) -> bool:
    return all(attributes.get(name) in values for name, values in wanted.items())


@runtime_checkable
class SupportsFind(Protocol):
    """A store that finds messages without showing all the others."""

    def find(self, sought: Filter, /, *, after: str = "") -> Iterator[Summary]:
        """Those that fit and whose id is greater than *after*, each once, in the order of their ids.

        They are looked for as they are asked for, a bounded number at a time,
        and between two nothing is kept from anybody: what is changed
        meanwhile may be shown as it was, or left out.
        """
        ...


def find(store: SupportsBrowse, sought: Filter, *, after: str = "") -> Iterator[Summary]:
    """As :meth:`SupportsFind.find`, in any store that can be looked at: page by page where it does not find by itself."""
    if isinstance(store, SupportsFind):
        yield from store.find(sought, after=after)
        return
    while page := store.browse(states=sought.states, queues=sought.queues, after=after, limit=_PAGE):
        for summary in page:
            if sought.fits(_told(store, summary, sought)):
                yield summary
        after = page[-1].id


def _told(store: SupportsBrowse, summary: Summary, sought: Filter) -> Summary:
    """With the attributes, where they are asked for and its list does not tell them."""
    bare = attrs.evolve(sought, attributes={})
    if summary.attributes is not None or not sought.attributes or not bare.fits(summary):
        return summary
    record = store.get(summary.id)
    return attrs.evolve(summary, attributes=record.message.attributes) if record else summary
