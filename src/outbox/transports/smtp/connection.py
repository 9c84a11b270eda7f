"""A connection to one server: performs what dialogues ask for."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from outbox.clock import Clock
from outbox.errors import ConfigurationError, RelayMisconfigured, RelayUnavailable
from outbox.values import printable

from .dial import Deadline
from .extensions import Extensions
from .reply import Reply
from .server import Server
from .steps import Action, Dialogue, HangUp, Hear, Lost, Pour, Read, Secure, Step, Timeouts, Write
from .tls import may_pass, tls_words
from .transcript import Recorder
from .wire import Wire

__all__ = ["CHUNK", "Connection", "drop", "part"]

T = TypeVar("T")

CHUNK: Final = 100
"""Recipients in one transaction: what every server takes (RFC 5321 section 4.5.3.1.8)."""


class Connection:
    """One connection, used by one thread at a time.

    Attributes:
        extensions: What the server offers over it.
        usable: False once it must carry nothing more: lost, or told 421.
        messages: How many transactions it was used for.
        welcome: The server has answered a MAIL over it with yes.
        room: How many recipients the server takes in one of them.
        opened_at, rested_at: Seconds of the monotonic clock.
        recorder: Hears all that is said.
        scrub: Makes text of the server fit to be shown, without what it was told in confidence.
    """

    def __init__(self, connected: socket.socket, server: Server, clock: Clock) -> None:
        self.extensions = Extensions()
        self.usable = True
        self.messages = 0
        self.welcome = False
        self.room = CHUNK
        self.opened_at = self.rested_at = clock.monotonic()
        self.recorder = Recorder()
        # By what is known of all tokens: a server may repeat that of another connection.
        scrub = server.credentials.scrub if server.credentials else None
        self.scrub: Callable[[str], str] = scrub or printable
        self._ahead = b""
        self._server = server
        self._wire = Wire(connected, server.timeouts, clock, scrub)

    @property
    def worn(self) -> bool:
        """It has carried as many transactions as the server takes over one connection (MAILMAX of RFC 9422)."""
        return self.messages >= self.extensions.limits.get("MAILMAX", self.messages + 1)

    def record(self, recorder: Recorder) -> None:
        """Let *recorder* hear what is said from now on, and what was said ahead for it."""
        recorder.hide(self.scrub)
        self.recorder = recorder
        if self._ahead:
            recorder.noted("with the content of the mail before went:")
            recorder.said(Step.MAIL, self._ahead)
            self._ahead = b""

    def at_hand(self, replies: int) -> bool:
        """Have so many come already, of a line each?"""
        return self._wire.at_hand(replies)

    def run(self, dialogue: Dialogue[T]) -> T:
        """Perform *dialogue* to its end and return its result.

        Whatever is raised meanwhile, by the dialogue or on its way, closes
        the connection: nobody could tell any more which reply belongs to what.
        """
        try:
            action = next(dialogue)
            while True:
                try:
                    answer = self._perform(action)
                except Lost as lost:
                    self.recorder.lost(lost)
                    self.usable = False
                    action = dialogue.throw(lost)
                else:
                    action = dialogue.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except BaseException:
            self.close()
            raise

    def quit(self) -> None:
        """Say that we leave, and wait for nothing; :meth:`leave` hears the answer."""
        self._wire.farewell(b"QUIT\r\n")

    def leave(self, deadline: Deadline) -> None:
        """Close, once the server has heard us leave or *deadline* is there."""
        try:
            if self.usable:
                self._wire.read(Step.QUIT, deadline)
        except Lost:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Close without a word."""
        self.usable = False
        self._wire.close()

    def _perform(self, action: Action) -> Reply | Sequence[Reply] | None:
        match action:
            case Read():
                return self._read(action.step)
            case Hear():
                return self._hear(action.steps)
            case Write():
                self._write(action)
            case Pour():
                self._pour(action)
            case Secure():
                self._secure(action.behind)
            case HangUp():
                self.close()
        return None

    def _write(self, action: Write) -> None:
        try:
            self._wire.write(action.step, action.data, replies=action.replies)
        except Lost as lost:
            if lost.sent:
                self.recorder.said(action.step, action.data)
            raise
        self.recorder.said(action.step, action.data)

    def _pour(self, action: Pour) -> None:
        try:
            taken = self._wire.pour(action.content, action.behind, replies=action.replies)
        except Lost as lost:
            if lost.sent:
                self.recorder.poured(action.content)
            raise
        self.recorder.poured(action.content)
        self._ahead = action.behind[:taken]

    def _read(self, step: Step) -> Reply:
        reply = self._wire.read(step)
        self.recorder.heard(step, reply)
        if reply.closing:
            self.usable = False
        return reply

    def _hear(self, steps: Sequence[Step]) -> Sequence[Reply]:
        replies = [self._read(steps[0])]
        if len(steps) > 1 and self.usable:
            known = self._wire.known(steps[1:])
            self.recorder.heard_more(steps[1:], known)
            replies += known
        return replies

    def _secure(self, behind: Step) -> None:
        host = self._server.tls_name
        try:
            self._wire.secure(self._server.trust.context(), host)
        except ConfigurationError as error:
            raise RelayMisconfigured(self._server.relay, str(error)) from error
        except ssl.SSLError as error:
            reason = tls_words(error, host, behind)
            self.recorder.noted(reason)
            kind = RelayUnavailable if may_pass(error) else RelayMisconfigured
            raise kind(self._server.relay, reason) from error
        self.recorder.secured(self._wire.secured)


def part(connections: Sequence[Connection], timeouts: Timeouts, clock: Clock) -> None:
    """Leave all of *connections* politely, within one time for all of them together."""
    for connection in connections:
        connection.quit()
    deadline = Deadline(clock, timeouts.seconds(Step.QUIT))
    for connection in connections:
        connection.leave(deadline)


def drop(connection: Connection) -> None:
    """Leave *connection* without waiting: its server is told where that takes no time."""
    if connection.usable:
        connection.quit()
    connection.close()
