"""One process that delivers until it is told to end, and takes new settings meanwhile.

The main thread sleeps by a bell, so that it can hear signals, tell systemd
that it is alive, and see a supervisor go; the runner has threads of its own.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from outbox import Outbox
from outbox.clock import SystemClock
from outbox.events import Listener
from outbox.lifecycle import State
from outbox.locate import Config, masked, spell
from outbox.protocols import Store

from .bell import Bell
from .capable import browsable
from .delivering import opened_outbox
from .exits import Exit
from .journal import Entry, Journal
from .sdnotify import Superior
from .settings import Settings
from .signals import Asked

__all__ = ["Post", "serve", "stopped"]

_LAST_STEPS: Final = 0.5
_MANY: Final = 10_000
_AGAIN: Final = 0.05


@attrs.frozen(kw_only=True)
class Post:
    """What whoever delivers, or has others deliver, has around him.

    Args:
        reread: Brings the settings of now, checked, and puts none of them in force.
        adopt: Has lines go where these settings say.  Raises, and leaves all as it was, where it cannot.
        words: What is done with these settings, for a person.
        discreet: A text without secrets.
        look: Looks the store over, before it begins.
        line: A pipe whose end asks for the end, and whatever comes by it for *reopen*; who has one
            leaves most words to his supervisor.
        reopen: Opens the log file anew; never raises.
        listeners: Who else is told of what is delivered.
    """

    journal: Journal
    superior: Superior
    asked: Asked
    bell: Bell
    reread: Callable[[], Settings]
    words: Callable[[Config], str]
    discreet: Callable[[str], str]
    look: Callable[[Store, Config], object] = lambda _store, _config: None
    adopt: Callable[[Settings], object] = lambda _settings: None
    line: int | None = None
    reopen: Callable[[], object] = lambda: None
    listeners: Sequence[Listener] = ()

    def say(self, msg: str, words: str, config: Config) -> None:
        """Say what has become of the whole, unless a supervisor says it for all."""
        if self.line is None:
            queues, transport = ",".join(config.queues), masked(config.transport or "")
            self.journal.say(words, {"msg": msg, "queues": queues, "transport": transport})

    def begin(self, config: Config) -> None:
        """Say that it begins."""
        self.say("running", f"{self.words(config)}.", config)

    def refuse(self, error: Exception) -> None:
        """Say that the new settings are not taken."""
        reason = self.discreet(str(error) or type(error).__name__)
        words = f"The new settings are refused, and the old ones stay in force: {reason}"
        self.journal.write(Entry(logging.ERROR, {"msg": "reload refused", "reason": reason}, words))

    def changed(self, config: Config) -> None:
        """Say that the new settings are in force."""
        self.say("reloaded", f"New settings: {self.words(config)}.", config)


def serve(post: Post, config: Config) -> int:
    """Deliver until the end is asked for; the exit status.

    Raises:
        OutboxError: it could not begin, or its workers ended by a bug.
        Signalled: the end was asked for before it began.
    """
    with contextlib.closing(_Server(config, post)) as server:
        post.look(server.outbox.store, config)
        post.begin(config)
        post.asked.raising = False  # from here on we look ourselves
        server.start()
        service = _Service(post, server)
        service.go_on(config)
        return service.stop()


class _Server:
    """An Outbox, and the runner that serves it on a thread."""

    def __init__(self, config: Config, post: Post) -> None:
        with contextlib.ExitStack() as opened:
            self.outbox: Outbox = opened.enter_context(opened_outbox(config, [post.journal, *post.listeners]))
            self._runner = self.outbox.runner()
            self._opened = opened.pop_all()
        self._bell = post.bell
        self._thread = threading.Thread(target=self._serve, name="outbox-server", daemon=True)
        self.over = False
        self.all_ended = True
        self.error: Exception | None = None

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def close(self) -> None:
        """Close the store and the transport."""
        self._opened.close()

    def _serve(self) -> None:
        try:
            self.all_ended = self._runner.run_forever()
        except Exception as error:  # noqa: BLE001 - it is raised again where it is waited for
            self.error = error
        finally:
            self.over = True
            self._bell.ring()

    def ask(self, then: Callable[[], object] = lambda: None) -> None:
        """Ask for the end, without waiting for it; *then* is done behind it."""
        threading.Thread(target=self._stop, args=(then,), name="outbox-stopper", daemon=True).start()

    def _stop(self, then: Callable[[], object]) -> None:
        # One that has not begun yet cannot be stopped yet.
        while not self.over:
            self._runner.stop()
            self._thread.join(_AGAIN)
        then()


class _Service:
    """The server of now, and those before it that have not ended yet."""

    def __init__(self, post: Post, server: _Server) -> None:
        self._post = post
        self._first = self._server = server
        self._retiring: set[_Server] = set()
        self._line_ended = False

    def go_on(self, config: Config) -> None:
        """Until the end is asked for, or the server has ended by itself."""
        post = self._post
        post.superior.ready(post.words(config))
        while post.asked.stop is None and not self._line_ended and not self._server.over:
            # Two at a time and no more, however often it is asked for.
            if post.asked.reload and not self._retiring:
                post.asked.reload = False
                config = self._reload(config)
            self._sleep()

    def _sleep(self) -> None:
        post = self._post
        if post.line in post.bell.wait(post.superior.beat) and post.line is not None:
            self._hear(post.line)
        post.superior.alive()

    def _hear(self, line: int) -> None:
        if os.read(line, _MANY):
            self._post.reopen()
        else:
            self._post.bell.forget(line)
            self._line_ended = True

    def _reload(self, config: Config) -> Config:
        """The newcomer begins before the old one ends: nothing waits for what that has under way."""
        post = self._post
        post.superior.reloading()
        try:
            new = post.reread()
            newcomer = self._newcomer(new)
        except Exception as error:  # noqa: BLE001 - whatever it is, what runs goes on
            post.refuse(error)
        else:
            config = new.config
            newcomer.start()
            self._retire(self._server)
            self._server = newcomer
            post.changed(config)
        post.superior.ready(post.words(config))
        return config

    def _newcomer(self, settings: Settings) -> _Server:
        """Last of all what can be wrong comes the log: what is refused is said where the old one goes."""
        server = _Server(settings.config, self._post)
        try:
            self._post.adopt(settings)
        except BaseException:
            server.close()
            raise
        return server

    def _retire(self, server: _Server) -> None:
        self._retiring.add(server)

        def gone() -> None:
            try:
                server.close()
            finally:
                self._retiring.discard(server)
                self._post.bell.ring()

        server.ask(gone)

    def stop(self) -> int:
        """End in good order; the exit status.

        Raises:
            OutboxError: it had ended by itself.
        """
        post, server = self._post, self._server
        post.superior.stopping()
        server.ask()
        while not server.over or self._retiring:
            self._sleep()
        if server.error is not None:
            raise server.error
        hanging = 0 if server.all_ended else _hanging()
        status: int = Exit.OK
        if hanging:
            status = _left_behind(hanging, server.outbox, post.journal)
        elif post.line is None:
            stopped(post.journal)
        if server is not self._first:
            server.close()
        return status


def stopped(journal: Journal) -> int:
    """Say that it ended in good order; the exit status."""
    journal.say("Stopped.", {"msg": "stopped"})
    return Exit.OK


def _hanging() -> int:
    """How many workers are still with a transaction now that the grace time has ended."""
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("outbox-worker")]
    for worker in workers:
        worker.join(_LAST_STEPS)
    return sum(worker.is_alive() for worker in workers)


def _left_behind(hanging: int, outbox: Outbox, journal: Journal) -> int:
    ends = [
        summary.leased_until
        for summary in browsable(outbox.store).browse(states=[State.CLAIMED], limit=_MANY)
        if summary.leased_until
    ]
    wait = max(ends) - SystemClock().now() if ends else dt.timedelta(0)
    words = (
        f"Stopped with {hanging} under way that did not end within the grace time; {len(ends)} claimed in the store, "
        f"to be taken up again when their leases end, the last in {spell(wait)}."
    )
    fields = {"msg": "stopped", "hanging": hanging, "claimed": len(ends), "lease_ends_in": wait}
    journal.write(Entry(logging.WARNING, fields, words))
    return Exit.TEMPORARY
