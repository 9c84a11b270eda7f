"""Our transports keep the contract, and the suite goes red for each that does not."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

import attrs
import pytest
from broken_sharing import BROKEN
from certificates import Authority
from faithful import SECRET, Faithful, FarSide
from staged import ECHOES, WAITS, patient, rig_of, stage
from suite_runs import failures, once, pytest_in

from outbox.errors import RelayMisconfigured, RelayUnavailable
from outbox.message import Message
from outbox.outcome import PermFailed, Result, TempFailed, Uncertain
from outbox.testing import Behaviour, Rig, SMTPSink, TransportSuite, transport_suite as suite
from outbox.transports.function import FunctionTransport
from outbox.transports.smtp import SMTPTransport

pytestmark = pytest.mark.shows(
    "a password", because="transports that are broken on purpose show it, and pytest says what was shown"
)


class TestSMTPTransport(TransportSuite):
    offers: ClassVar[Sequence[str]] = ("8BITMIME", "PIPELINING", "SIZE")

    @contextlib.contextmanager
    def open(self, behaviour: Behaviour, only: Sequence[str]) -> Iterator[Rig]:
        if behaviour in ECHOES:
            self.cannot(behaviour)
        with SMTPSink(offers=self.offers, manners="strict") as sink:
            stage(sink, behaviour, only)
            transport = SMTPTransport(sink.host, sink.port, timeouts=patient(behaviour))
            yield rig_of(sink, transport)
            assert not sink.violations


class TestSMTPTransportInLockStep(TestSMTPTransport):
    """With a server that offers nothing."""

    offers: ClassVar[Sequence[str]] = ()


class TestSMTPTransportOverLMTP(TransportSuite):
    """Each recipient has an answer of its own to the end of a message."""

    @contextlib.contextmanager
    def open(self, behaviour: Behaviour, only: Sequence[str]) -> Iterator[Rig]:
        if behaviour in ECHOES:
            self.cannot(behaviour)
        with SMTPSink(protocol="lmtp", manners="strict") as sink:
            if behaviour is Behaviour.BREAKS:
                last = f"r{self.many - 1}@example.org"
                sink.on("dot", reply="250 taken", times=99)
                sink.on("dot", lambda address: address != last, reply="250 taken", close=True, times=1)
                sink.on("connect", close=True, skip=1)
            else:
                stage(sink, behaviour, only)
            transport = SMTPTransport(sink.host, sink.port, protocol="lmtp", timeouts=patient(behaviour))
            yield rig_of(sink, transport)
            assert not sink.violations


class TestSMTPTransportUnderTLS(TransportSuite):
    authority: ClassVar[Authority] = Authority()

    @contextlib.contextmanager
    def open(self, behaviour: Behaviour, only: Sequence[str]) -> Iterator[Rig]:
        with SMTPSink(tls=self.authority.server(), users={"user": SECRET}) as sink:
            stage(sink, behaviour, only)
            transport = SMTPTransport(
                sink.host,
                sink.port,
                security="tls",
                ssl_context=self.authority.client(),
                username="user",
                password=SECRET,
                timeouts=patient(behaviour),
            )
            yield rig_of(sink, transport, SECRET)
            assert not sink.violations


@attrs.frozen
class Call:
    """A function was called so."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes


class Function:
    """What is called, and how it answers."""

    def __init__(self, behaviour: Behaviour, only: Sequence[str]) -> None:
        self.behaviour = behaviour
        self.taken: list[Call] = []
        self._only = only

    def recover(self) -> None:
        self.behaviour = Behaviour.TAKES

    def __call__(self, message: Message, recipient: str) -> Result | None:
        concerned = not self._only or recipient in self._only
        match self.behaviour:
            case Behaviour.REFUSES if concerned:
                return PermFailed("no")
            case Behaviour.DEFERS if concerned:
                return TempFailed("later")
            case Behaviour.LEAVES:
                raise ConnectionError("gone")
            case Behaviour.UNREACHABLE | Behaviour.TURNS_AWAY:
                raise RelayUnavailable("function", "not now")
            case Behaviour.BREAKS if len(self.taken) == 100:
                raise RelayUnavailable("function", "gone")
            case Behaviour.FORBIDS:
                raise RelayMisconfigured("function", "not you")
        self.taken.append(Call(message.sender, (recipient,), message.content))
        return Uncertain("no answer") if self.behaviour is Behaviour.LOSES else None


class TestFunctionTransport(TransportSuite):
    @contextlib.contextmanager
    def open(self, behaviour: Behaviour, only: Sequence[str]) -> Iterator[Rig]:
        on_a_wire = {Behaviour.MUMBLES, Behaviour.CUTS}
        if behaviour in WAITS | ECHOES | on_a_wire:
            self.cannot(behaviour)
        function = Function(behaviour, only)
        yield Rig(
            transport=FunctionTransport(function),
            taken=lambda: function.taken,
            recover=function.recover,
        )


class TestFaithful(TransportSuite):
    """Nothing is skipped of one that has every capability."""

    @contextlib.contextmanager
    def open(self, behaviour: Behaviour, only: Sequence[str]) -> Iterator[Rig]:
        far = FarSide(behaviour, only)
        yield Rig(transport=Faithful(far), taken=lambda: far.taken, recover=far.recover, secrets=[SECRET])


# --- the suite itself --------------------------------------------------------------------------

OPENED = """
import contextlib, datetime as dt
from broken_sharing import BROKEN
from faithful import SECRET, FarSide
from outbox.testing import Rig, TransportSuite
from suite_runs import only


class Suite(TransportSuite):
    patience = dt.timedelta(seconds=3)

    @contextlib.contextmanager
    def open(self, behaviour, only):
        if self.broken.__name__ == "Endless":
            type(self).patience = dt.timedelta(seconds=0.1)
        far = FarSide(behaviour, only)
        yield Rig(transport=self.broken(far), taken=lambda: far.taken, recover=far.recover, secrets=[SECRET])


for name, (broken, clauses) in BROKEN.items():
    told = {} if name in WHOLE else only(TransportSuite, clauses)
    globals()["Test" + name] = type("Test" + name, (Suite,), dict(broken=broken, **told))
del Suite, TransportSuite
"""
WHOLE: Final = ["Optimist", "Impatient", "Dramatic", "Parrot", "Insistent", "Belated"]
"""These are held to the whole suite: one that fails whole says nothing of where to look."""

CAUGHT: Final = [(name, clause) for name, (_, clauses) in BROKEN.items() for clause in clauses]


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The clauses that failed, by the name of the transport."""

    def said_in(folder: Path) -> str:
        tests = folder / "test_transports.py"
        tests.write_text(f"WHOLE = {WHOLE}\n{OPENED}")
        return pytest_in(folder)

    return failures(once(tmp_path_factory, "transports", said_in))


@pytest.mark.parametrize(("transport", "clause"), CAUGHT)
def test_a_transport_that_is_broken_in_one_way_fails_the_clause_for_it(
    failed: dict[str, set[str]], transport: str, clause: str
) -> None:
    assert clause in failed[transport]


def test_a_broken_transport_does_not_fail_everything(failed: dict[str, set[str]]) -> None:
    assert {name for name in WHOLE if 0 < len(failed[name]) < 8} == set(WHOLE)


def test_each_clause_has_a_transport_that_breaks_it() -> None:
    clauses = {name for name in dir(TransportSuite) if name.startswith("test_")}

    assert clauses == {clause for _, clause in CAUGHT}


SKIPPED = """
import contextlib
from faithful import Faithful, FarSide
from outbox.testing import Behaviour, Rig, TransportSuite

class Narrow:
    def __init__(self, inner):
        self.deliver, self.close = inner.deliver, inner.close

class TestNarrow(TransportSuite):
    @contextlib.contextmanager
    def open(self, behaviour, only):
        if behaviour is not Behaviour.TAKES:
            self.cannot(behaviour)
        far = FarSide(behaviour, only)
        yield Rig(transport=Narrow(Faithful(far)), taken=lambda: far.taken, recover=far.recover)
"""


def test_what_a_transport_has_not_is_skipped_by_name(tmp_path: Path) -> None:
    (tmp_path / "test_narrow.py").write_text(SKIPPED)
    run = pytest_in(tmp_path, "-rs", str(tmp_path))

    assert "failed" not in run
    for reason in (
        "this transport is not SupportsBatch",
        "this transport is led to no server that leaves in the middle of a message",
        "this rig's transport was told no secrets",
    ):
        assert reason in run


def test_every_behaviour_ends_a_sentence() -> None:
    assert all(behaviour.value[0].islower() and behaviour.value[-1] != "." for behaviour in Behaviour)
    assert suite.Behaviour is Behaviour


def test_without_pytest_it_says_what_to_install() -> None:
    script = "import sys; sys.modules['pytest'] = None; import outbox.testing; outbox.testing.TransportSuite"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert 'pip install "durable-outbox[testing]"' in run.stderr
