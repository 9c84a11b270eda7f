"""Connections at rest: the latest first, none beyond its time, and none of another process."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from certificates import Authority
from started import PATIENCE

from outbox.errors import ConfigurationError
from outbox.testing.clock import ManualClock
from outbox.testing.smtp_sink import SMTPSink
from outbox.transports.smtp.pool import Limits, Pool


@attrs.define(eq=False)
class Line:
    usable: bool = True
    messages: int = 0
    opened_at: float = 0.0
    rested_at: float = 0.0

    def close(self) -> None:
        self.usable = False


def seconds(number: float) -> dt.timedelta:
    return dt.timedelta(seconds=number)


@pytest.fixture
def pool(clock: ManualClock) -> Pool[Line]:
    return Pool(Limits(max_messages=3, max_age=seconds(300), idle=seconds(30)), clock)


def test_the_connection_used_last_is_used_next(pool: Pool[Line]) -> None:
    first, second = Line(), Line()
    assert pool.give(first)
    assert pool.give(second)

    assert [pool.take(), pool.take(), pool.take()] == [second, first, None]


def test_one_that_is_lost_or_has_carried_enough_is_not_kept(pool: Pool[Line]) -> None:
    assert not pool.give(Line(usable=False))
    assert not pool.give(Line(messages=3))
    assert pool.take() is None


def test_one_that_is_too_old_is_not_kept(pool: Pool[Line], clock: ManualClock) -> None:
    line = Line()
    clock.advance(seconds(299))
    assert pool.give(line)
    clock.advance(seconds(1))

    assert pool.take() is None
    assert not pool.give(Line())


def test_one_that_has_idled_too_long_is_left_and_not_used(pool: Pool[Line], clock: ManualClock) -> None:
    old, young = Line(), Line()
    pool.give(old)
    clock.advance(seconds(20))
    pool.give(young)
    clock.advance(seconds(10))

    assert pool.expired() == [old]
    assert pool.expired() == []
    clock.advance(seconds(20))
    assert pool.take() is None
    assert pool.expired() == [young]


def test_one_that_is_too_old_keeps_nobody_from_the_next(pool: Pool[Line], clock: ManualClock) -> None:
    """What was used last need not be what was opened last."""
    clock.advance(seconds(290))
    old, young = Line(rested_at=290), Line(opened_at=290)
    pool.give(young)
    pool.give(old)
    clock.advance(seconds(10))

    assert pool.take() is young
    assert pool.expired() == [old]


def test_one_that_was_used_for_longer_than_it_may_idle_is_kept(pool: Pool[Line], clock: ManualClock) -> None:
    """Idling begins when it is given back."""
    line = Line()
    clock.advance(seconds(200))

    assert pool.give(line)
    clock.advance(seconds(29))
    assert pool.take() is line


def test_a_closed_pool_gives_all_back_and_keeps_none(pool: Pool[Line]) -> None:
    line = Line()
    pool.give(line)

    assert pool.close() == [line]
    assert pool.close() == []
    assert not pool.give(Line())
    assert pool.take() is None


def test_a_child_closes_what_it_inherited_and_uses_none(
    pool: Pool[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    inherited = Line()
    pool.give(inherited)
    monkeypatch.setattr(os, "getpid", lambda: -1)

    assert pool.take() is None
    assert not inherited.usable
    mine = Line()
    assert pool.give(mine)
    assert pool.take() is mine


def test_of_two_threads_that_are_a_child_s_first_neither_closes_what_the_other_keeps(
    pool: Pool[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(dict[int, Any]):
        """Another thread comes in between, when this one has just looked."""

        def get(self, pid: int, default: Any = None) -> Any:
            found = super().get(pid, default)
            if found is None and not others:
                others.append(Line())
                pool.give(others[0])
            return found

    others = list[Line]()
    pool.give(Line())
    monkeypatch.setattr(os, "getpid", lambda: -1)
    monkeypatch.setattr(pool, "_shelves", Late(pool._shelves))

    assert pool.take() is others[0]
    assert others[0].usable


FORK: Final = """
    import os, ssl, sys
    from outbox.message import Message
    from outbox.transports.smtp import SMTPTransport

    def deliver(sender):
        outcome = transport.deliver(Message(recipients=["a@example.org"], content=b"", sender=sender), ["a@example.org"])
        assert "Accepted" in str(outcome.results), outcome

    transport = SMTPTransport(sys.argv[1], int(sys.argv[2]), security=sys.argv[3], ca_file=sys.argv[4])
    deliver("before@example.org")
    child = os.fork()
    if child == 0:
        deliver("child@example.org")
        transport.expire()
        transport.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    deliver("parent@example.org")
    transport.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_a_forked_child_does_not_end_its_parents_tls_either(tmp_path: Path, security: Any) -> None:
    """Not even by the alert that closes a session."""
    authority = Authority()
    authority.ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    settings: dict[str, Any] = {security: authority.server()}
    with SMTPSink(**settings) as sink:
        where = [sink.host, str(sink.port), security, str(tmp_path / "ca.pem")]
        program = [sys.executable, "-W", "error", "-c", textwrap.dedent(FORK), *where]
        subprocess.run(program, check=True, timeout=PATIENCE)

        assert {received.sender: received.connection for received in sink.messages} == {
            "before@example.org": 1,
            "child@example.org": 2,
            "parent@example.org": 1,
        }


@pytest.mark.parametrize(
    "limits",
    [{"max_messages": 0}, {"max_age": seconds(-1)}, {"idle": seconds(-1)}],
    ids=lambda d: next(iter(d)),
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        Limits(**limits)  # type: ignore[arg-type]  # each by its own name
