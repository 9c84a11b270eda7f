"""What an SMTP sink has taken down: messages, commands, logins, and what clients did wrong; all of it bounded."""

from __future__ import annotations

import collections
import datetime as dt
import email
import email.policy
import threading
from collections.abc import Iterable, Mapping
from email.message import EmailMessage
from typing import Final, TypeVar

import attrs

from outbox.clock import Clock
from outbox.values import frozen_mapping

from .smtp_script import TLSFacts

__all__ = ["Ledger", "Login", "Received"]

T = TypeVar("T")

_COMMANDS: Final = 100_000
_VIOLATIONS: Final = 1_000
_LOGINS: Final = 10_000
_SHOWN: Final = 2_000


def _frozen_options(options: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    return frozen_mapping(options)


@attrs.frozen(kw_only=True)
class Received:
    """One message that the sink took.

    Attributes:
        sender: The reverse path, without its brackets.
        content: As it was before dots were added, its last line end included.
        at: When its final dot came.
        tls: What the connection was secured by, where it was.
        user: Who had authenticated, if anybody.
        connection: The number of the connection it came over, from 1.
        greeting: What the client had called itself.
        options: The parameters of MAIL, such as ``"BODY=8BITMIME"``.
        recipient_options: Those of RCPT, such as ``"NOTIFY=NEVER"``, by
            recipient, of those that had any.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes = attrs.field(repr=False)
    at: dt.datetime
    tls: TLSFacts | None
    user: str | None
    connection: int
    greeting: str
    options: tuple[str, ...]
    recipient_options: Mapping[str, tuple[str, ...]] = attrs.field(converter=_frozen_options, hash=False)

    def email(self) -> EmailMessage:
        """The content, parsed."""
        return email.message_from_bytes(self.content, policy=email.policy.default)


@attrs.frozen(kw_only=True)
class Login:
    """One AUTH command and what it came to; the secret is not kept.

    *user* is ``""`` where what came could not be read.
    """

    mechanism: str
    user: str
    accepted: bool
    connection: int
    tls: bool


class Ledger:
    """Safe from many threads."""

    def __init__(self, clock: Clock, room: int) -> None:
        self.stopping = threading.Event()
        self._clock = clock
        self._room = room
        self._news = threading.Condition()
        self.clear()

    def clear(self) -> None:
        """Forget all that has come so far."""
        with self._news:
            self._size = 0
            self._messages: list[Received] = []
            self._commands = collections.deque[str](maxlen=_COMMANDS)
            self._violations = collections.deque[str](maxlen=_VIOLATIONS)
            self._logins = collections.deque[Login](maxlen=_LOGINS)

    @property
    def messages(self) -> tuple[Received, ...]:
        return self._copy(self._messages)

    @property
    def commands(self) -> tuple[str, ...]:
        return self._copy(self._commands)

    @property
    def violations(self) -> tuple[str, ...]:
        return self._copy(self._violations)

    @property
    def logins(self) -> tuple[Login, ...]:
        return self._copy(self._logins)

    def note(self, command: str) -> None:
        with self._news:
            self._commands.append(command[:_SHOWN])

    def blame(self, violation: str) -> None:
        with self._news:
            self._violations.append(violation[:_SHOWN])

    def admit(self, login: Login) -> None:
        with self._news:
            self._logins.append(login)

    def has_room(self, size: int) -> bool:
        """Is there room for a content of so many bytes?"""
        return self._size + size <= self._room

    def take(self, received: Received) -> None:
        with self._news:
            self._size += len(received.content)
            self._messages.append(received)
            self._news.notify_all()

    def wait_for(self, number: int, timeout: dt.timedelta) -> tuple[Received, ...]:
        """Wait until so many messages were taken.

        Raises:
            TimeoutError: they were not, in that time.
        """
        with self._news:
            if not self._news.wait_for(lambda: len(self._messages) >= number, timeout.total_seconds()):
                raise TimeoutError(f"{len(self._messages)} of {number} messages came within {timeout}")
            return tuple(self._messages)

    def now(self) -> dt.datetime:
        return self._clock.now()

    def pause(self, delay: dt.timedelta | None) -> bool:
        """Wait so long, or for ever; True where the sink was stopped meanwhile."""
        return self.stopping.wait(None if delay is None else delay.total_seconds())

    def _copy(self, kept: Iterable[T]) -> tuple[T, ...]:
        # A deque that grows while it is read would raise.
        with self._news:
            return tuple(kept)
