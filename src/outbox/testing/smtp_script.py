"""What an SMTP sink was told to answer, and at which step: rules, gates, and a hook of the test's own."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self, TypeAlias

import attrs

from outbox.errors import ConfigurationError

from .smtp_answer import SOON, ZERO, Answer, Close, Reply, Step, check_rule

__all__ = [
    "SOON",
    "ZERO",
    "Answer",
    "Close",
    "Failed",
    "Gate",
    "Heard",
    "Hook",
    "Reply",
    "Script",
    "Step",
    "TLSFacts",
    "Whom",
]

Whom: TypeAlias = str | Callable[[str], bool] | None


@attrs.frozen(kw_only=True)
class TLSFacts:
    """What a secured connection came to.

    Attributes:
        version: Such as ``"TLSv1.3"``.
        cipher: Its name.
        certificate: The client's own, as DER; None where it showed none.
    """

    version: str
    cipher: str
    certificate: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class Heard:
    """What a client has just said, for a hook to answer.

    *address* is the path of MAIL and RCPT, the user of AUTH, over LMTP the
    recipient whom ``dot`` is answered for, and the sender of the transaction
    elsewhere; *recipients* are those accepted so far.
    """

    step: Step
    line: str
    address: str
    recipients: tuple[str, ...]
    connection: int
    tls: TLSFacts | None
    user: str | None


Hook: TypeAlias = Callable[[Heard], "Answer | str | None"]


class Gate:
    """Where connections wait until it is opened; as a context manager it is opened at the end of the block."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._came = 0
        self._opened = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open()

    @property
    def came(self) -> int:
        """How many connections have come to it so far."""
        return self._came

    def open(self) -> None:
        """Let through who waits, and whoever comes from now on; opening twice is harmless."""
        with self._news:
            self._opened = True
            self._news.notify_all()

    def wait_for(self, number: int = 1, *, timeout: dt.timedelta = SOON) -> None:
        """Wait until *number* connections have come to it.

        Raises:
            TimeoutError: they have not, in that time.
        """
        with self._news:
            if not self._news.wait_for(lambda: self._came >= number, timeout.total_seconds()):
                raise TimeoutError(f"{self._came} of {number} connections came to the gate within {timeout}")

    def pass_through(self) -> None:
        """Be one who comes; return when it is open."""
        with self._news:
            self._came += 1
            self._news.notify_all()
            self._news.wait_for(lambda: self._opened)


@attrs.define(kw_only=True)
class _Rule:
    step: Step
    whom: Whom
    connection: int | None
    skip: int
    left: int | None
    then: Answer | Gate

    def fits(self, heard: Heard) -> bool:
        if self.step != heard.step or self.connection not in (None, heard.connection) or self.left == 0:
            return False
        if callable(self.whom):
            return self.whom(heard.address)
        return self.whom is None or _comparable(self.whom) == _comparable(heard.address)

    def use(self) -> bool:
        """Note one use; False while it is still to be skipped."""
        if self.skip:
            self.skip -= 1
            return False
        self.left = None if self.left is None else self.left - 1
        return True


def _comparable(address: str) -> str:
    """A domain is the same in either case, and what stands before it need not be (RFC 5321 section 2.4)."""
    local, at, host = address.rpartition("@")
    return f"{local}{at}{host.lower()}" if at else address


class Failed(Exception):
    """What was to say the answer raised instead."""


class Script:
    """Safe from many threads.

    Attributes:
        failure: What the hook, or a function that names addresses, raised first.
    """

    def __init__(self, hook: Hook | None, missing: Mapping[str, str] | None = None) -> None:
        self.failure: BaseException | None = None
        self._hook = hook
        self._missing = missing or {}
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._stopped = False

    def add(
        self,
        then: Answer | Gate,
        step: Step,
        whom: Whom,
        *,
        connection: int | None = None,
        skip: int = 0,
        times: int | None = None,
    ) -> None:
        """A rule for the first *times* that *step* comes after *skip*; earlier rules come first.

        Raises:
            ConfigurationError: it could never come about.
        """
        check_rule(step, whom, connection=connection, skip=skip, times=times, missing=self._missing)
        if isinstance(then, Answer):
            then.check()
        rule = _Rule(step=step, whom=whom, connection=connection, skip=skip, left=times, then=then)
        with self._lock:
            self._rules.append(rule)
            stopped = self._stopped
        if stopped and isinstance(then, Gate):
            then.open()

    def forget(self) -> None:
        """Strike all rules, and open all gates."""
        with self._lock:
            rules, self._rules = self._rules, []
        _open_gates(rules)

    def stop(self) -> None:
        """Nobody waits at a gate from now on."""
        with self._lock:
            self._stopped = True
            rules = list(self._rules)
        _open_gates(rules)

    def answer(self, heard: Heard) -> Answer | None:
        """What a rule or the hook has to say; None is the usual answer.

        Raises:
            Failed: they raised; :attr:`failure` says what.
        """
        with self._noting_failure():
            found = self._find(heard, Answer)
            if isinstance(found, Answer):
                return found
            return _checked(self._hook(heard)) if self._hook else None

    def wait(self, heard: Heard) -> None:
        """Wait at the gate of this step, where there is one."""
        with self._noting_failure():
            gate = self._find(heard, Gate)
        if isinstance(gate, Gate):
            gate.pass_through()

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            # A test that fails within its hook would pass if it were forgotten here.
            self.failure = self.failure or error
            raise Failed from error

    def _find(self, heard: Heard, kind: type[Answer | Gate]) -> Answer | Gate | None:
        with self._lock:
            fitting = (rule for rule in self._rules if isinstance(rule.then, kind) and rule.fits(heard))
            return next((rule.then for rule in fitting if rule.use()), None)


def _checked(said: object) -> Answer | None:
    """What the hook said."""
    if isinstance(said, str):
        return Answer(said).check()
    if isinstance(said, Answer):
        return said.check()
    if said is not None:
        raise ConfigurationError(f"a hook says an Answer, a reply as text, or None, not {said!r}")
    return None


def _open_gates(rules: Iterable[_Rule]) -> None:
    for rule in rules:
        if isinstance(rule.then, Gate):
            rule.then.open()
