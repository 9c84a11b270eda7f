"""Whatever a server answers, in whichever order, to a whole dialogue: what is reported has a form, and an end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import pytest
from hypothesis import example, given, settings, strategies as st
from scripted_server import END, RESET, Event, Peer, Room, Server, staged

from outbox.errors import RelayFault
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, TempFailed, Uncertain, Untried
from outbox.protocols import Delivery
from outbox.testing.clock import ManualClock

USUAL: Final = b"<usual>"
Lies: TypeAlias = Mapping[int, Sequence[bytes]]
"""What is said instead, by the number of the reply; USUAL stands for the reply itself."""

SAYINGS: Final = [
    USUAL,
    b"250 ok\r\n",
    b"250-more\r\n",
    b"250-PIPELINING\r\n250 DSN\r\n",
    b"354 go on\r\n",
    b"452 full\r\n",
    b"452 4.5.3 too many\r\n",
    b"550 5.1.1 no\r\n",
    b"530 5.7.0 who are you\r\n",
    b"421 4.3.2 going down\r\n",
    b"220 ",
    b"25",
    b"\r\n",
    b"hello\r\n",
    END,
    RESET,
]
sayings = st.sampled_from(SAYINGS) | st.binary(min_size=1, max_size=12)
lies = st.dictionaries(st.integers(0, 24), st.lists(sayings, max_size=3), max_size=4)


class Liar(Server):
    """Says what it likes and does what it should."""

    def __init__(self, room: Room, told: Lies, *, pipelining: bool) -> None:
        self._told, self._said = told, 0
        super().__init__(room, "none", None, pipelining=pipelining)

    def say(self, pieces: Iterable[bytes], pause: float = 0) -> None:
        for usual in pieces:
            instead = self._told.get(self._said, [USUAL])
            self._said += 1
            super().say([usual if piece == USUAL else piece for piece in instead], pause)


MESSAGES: Final = [
    Message(recipients=recipients, content=b"Subject: a\r\n\r\n.\r\nb", sender=f"{name}@example.org")
    for name, recipients in {
        "one": ["a@example.org", "no-b@example.org", "c@example.org"],
        "two": ["d@example.org"],
        "three": ["no-e@example.org", "no-f@example.org"],
        "four": [f"r{n}@example.org" for n in range(120)],
    }.items()
]


@pytest.mark.parametrize("pipelining", [False, True])
@settings(max_examples=150, deadline=None)
@given(told=lies, then=lies)
@example(told={5: [USUAL, b"250 taken twice\r\n"]}, then={})
@example(told={4: [b"354 go on\r\n"]}, then={1: [END]})
def test_whatever_a_server_says_the_report_has_a_form_and_an_end(
    pipelining: bool, told: Lies, then: Lies
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        room = Room(ManualClock())
        began = room.clock.monotonic()
        transport = staged(patch, room, _peers(room, told, then, pipelining=pipelining))
        outcomes, whole = _all_told(transport.deliver_many(Delivery(m, m.recipients) for m in MESSAGES))
        transport.close()

    assert whole or len(outcomes) < len(MESSAGES)
    assert len(outcomes) <= len(MESSAGES)
    assert room.clock.monotonic() - began < 3600
    for outcome, sent in zip(outcomes, MESSAGES, strict=False):
        assert tuple(outcome.results) == sent.recipients
        assert {type(r) for r in outcome.results.values()} <= {
            Accepted,
            TempFailed,
            PermFailed,
            Uncertain,
            Untried,
        }
    _nothing_hidden(room, outcomes)


@pytest.mark.parametrize("pipelining", [False, True])
@settings(max_examples=100, deadline=None)
@given(
    at=st.integers(1, 24),
    extra=st.lists(st.sampled_from([b"250 ok\r\n", b"451 4.3.0 not now\r\n"]), min_size=1, max_size=2),
)
def test_a_reply_too_many_fails_nobody_for_good_who_is_taken_and_accepts_nobody_who_is_not(
    pipelining: bool, at: int, extra: list[bytes]
) -> None:
    """From there on each reply answers another command than it seems to."""
    with pytest.MonkeyPatch.context() as patch:
        room = Room(ManualClock())
        transport = staged(patch, room, _peers(room, {at: [USUAL, *extra]}, pipelining=pipelining))
        outcomes, _ = _all_told(transport.deliver_many(Delivery(m, m.recipients) for m in MESSAGES))
        transport.close()

    results = [each for outcome in outcomes for each in outcome.results.items()]
    assert not [r for r, result in results if r.startswith("no") and isinstance(result, Accepted)]
    assert not [r for r, result in results if not r.startswith("no") and isinstance(result, PermFailed)]


def _nothing_hidden(room: Room, outcomes: Sequence[Outcome]) -> None:
    """Whoever was handed over has been told of, and not as untried."""
    results = {sent.sender: told.results for sent, told in zip(MESSAGES, outcomes, strict=False)}
    for sender, recipients, _ in room.messages:
        if sender in {sent.sender for sent in MESSAGES}:
            assert not [r for r in recipients if isinstance(results[sender][r], Untried)]


def _all_told(told: Iterator[Outcome]) -> tuple[list[Outcome], bool]:
    outcomes: list[Outcome] = []
    try:
        outcomes.extend(told)
    except RelayFault:
        return outcomes, False
    return outcomes, True


def _peers(room: Room, *told: Lies, pipelining: bool) -> Iterator[Peer]:
    for each in told:
        yield Liar(room, each, pipelining=pipelining)
    while True:
        yield Server(room, "none", Event(), pipelining=pipelining)
