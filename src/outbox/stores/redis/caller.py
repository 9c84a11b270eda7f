"""One call of one script: its keys, its clock, and its errors in our words."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from outbox.clock import Clock
from outbox.errors import StoreUnavailable
from outbox.stores.instants import micros

from .bell import Bell
from .driver import Cut, Driver, Packed, Refused, Unreachable
from .keys import Keys
from .place import Place
from .scripts import PUT_NEW, RIGHTS, Script
from .tidings import Tidings
from .translation import translated

__all__ = ["Caller", "fresh_nonce"]

_JSON: Final = json.JSONEncoder(separators=(",", ":")).encode
_MANY: Final = 500
"""So many sets of queues are known at once, of which most programs have three."""


class Caller:
    """Scripts of one store.

    Args:
        clock: None is the server's own.
    """

    def __init__(self, driver: Driver, keys: Keys, place: Place, clock: Clock | None) -> None:
        self._driver = driver
        self._keys = keys
        self._clock = clock
        self._closed = False
        self._known: dict[tuple[str, ...], Packed] = {}
        self._of_new: dict[str, Packed] = {}
        self.place = place

    def run(
        self,
        script: Script,
        args: Mapping[str, Any],
        *,
        queues: Iterable[str] = (),
        content: Sequence[bytes] = (),
        put: bool = False,
    ) -> Any:
        """What *script* answers.

        Args:
            queues: All that it may touch.
            put: Whether it stores something, of which it has to be said whether it was.
        """
        keys, sent = self._call(args, queues, content)
        return self._asked(lambda: self._driver.run(script, keys, sent), put=put)

    def run_then(
        self,
        script: Script,
        args: Mapping[str, Any],
        command: Sequence[str | bytes | int],
        *,
        queues: Iterable[str] = (),
        content: Sequence[bytes] = (),
        put: bool = False,
    ) -> tuple[Any, Any]:
        """As :meth:`run`, and what the server answers to *command* behind it, on the same connection."""
        keys, sent = self._call(args, queues, content)
        found: tuple[Any, Any] = self._asked(
            lambda: self._driver.run_then(script, keys, sent, *command), put=put
        )
        return found

    def _call(
        self, args: Mapping[str, Any], queues: Iterable[str], content: Sequence[bytes]
    ) -> tuple[Packed, Sequence[str | bytes]]:
        named = tuple(dict.fromkeys(queues))
        return self._packed(named), [_JSON({"queues": named, **args, "now": self._now()}), *content]

    def run_new(self, queue: str, args: Sequence[str | bytes]) -> Any:
        """What the script answers that puts what is new in one queue; *args* are all that it takes but the time."""
        keys = self._of_new.get(queue)
        if keys is None:
            if len(self._of_new) >= _MANY:
                self._of_new.clear()
            keys = self._of_new[queue] = Packed.of(self._keys.of_new(queue))
        return self._asked(lambda: self._driver.run(PUT_NEW, keys, [self._now(), *args]), put=True)

    def try_out(self, commands: Sequence[Sequence[str]]) -> Any:
        """What the server has against the first of *commands* that it does not run in a script; KEY is a key where nothing is."""
        keys = Packed.of([self.key("nothing")])
        return self._asked(lambda: self._driver.run(RIGHTS, keys, [_JSON(commands)]))

    def require_writes(self) -> None:
        """Raise StoreUnavailable where the server takes no writes: it is a replica, or has too few of them."""
        self.ask("HDEL", self.key("meta"), "")

    def ask_first(self) -> None:
        """From now on have the server look by a plain write, before each script that writes, whether it takes any."""
        self._driver.ask_first("HDEL", self.key("meta"), "")

    def _packed(self, queues: tuple[str, ...]) -> Packed:
        found = self._known.get(queues)
        if found is None:
            if len(self._known) >= _MANY:
                self._known.clear()
            found = self._known[queues] = Packed.of(self._keys.all(queues))
        return found

    def ask(self, *command: str | bytes | int) -> Any:
        """What the server answers to one command."""
        return self._asked(lambda: self._driver.call(*command))

    def told(self, *command: str | bytes | int) -> Any:
        """The same; None where it refuses that."""

        def call() -> Any:
            try:
                return self._driver.call(*command)
            except Refused:
                return None

        return self._asked(call)

    def setting(self, name: str) -> str | None:
        """What the server is set to; None where it does not tell everybody."""
        found = self.told("CONFIG", "GET", name)
        return found[1].decode("utf-8", "replace") if found else None

    @property
    def timeout(self) -> float:
        """Seconds that an answer is waited for."""
        return self._driver.timeout

    def key(self, what: str) -> str:
        return self._keys.name(what)

    def info(self) -> dict[str, str]:
        """What the server says of itself."""
        found: dict[str, str] = self._asked(self._driver.info)
        return found

    def bell(self, tidings: Tidings) -> Bell:
        """What hears of news from this server."""
        return Bell(self._driver, self.key("news"), tidings)

    def close(self) -> None:
        self._closed = True
        self._driver.close()

    def _asked(self, act: Callable[[], Any], *, put: bool = False) -> Any:
        if self._closed:
            raise StoreUnavailable(f"this store of {self.place} was closed: open another one")
        try:
            return act()
        except (Unreachable, Cut, Refused) as error:
            raise translated(error, self.place, put=put) from error.__cause__

    def _now(self) -> str:
        return "" if self._clock is None else str(micros(self._clock.now()))


def fresh_nonce() -> str:
    """Half of a token: no other claim has it, also where the server has lost what it knew of the last ones."""
    return secrets.token_hex(6)
