"""A sink that behaves as the transport suite asks, and the rig of an SMTP transport that is led to it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import attrs
from faithful import SECRET

from outbox.testing import Behaviour, Rig, SMTPSink
from outbox.transports.smtp import SMTPTransport, Timeouts

__all__ = ["ECHOES", "WAITS", "patient", "rig_of", "stage"]

MOMENT: Final = dt.timedelta(milliseconds=200)
SOME: Final = dt.timedelta(milliseconds=20)

RULES: Final[dict[Behaviour, list[tuple[Any, dict[str, Any]]]]] = {
    Behaviour.TAKES: [],
    Behaviour.UNREACHABLE: [("connect", {"close": True})],
    Behaviour.TURNS_AWAY: [("connect", {"reply": "421 4.3.2 not now", "close": True})],
    Behaviour.FORBIDS: [("connect", {"reply": "554 5.7.1 not you", "close": True})],
    Behaviour.LEAVES: [("data", {"close": "reset"})],
    Behaviour.STALLS: [("data", {})],
    Behaviour.DRIPS: [("data", {"reply": "354 " + "o" * 10_000, "drip": SOME})],
    Behaviour.LOSES: [("dot", {"close": True})],
    Behaviour.STALLS_AT_THE_END: [("dot", {})],
    Behaviour.MUMBLES: [("dot", {"reply": b"hello\r\n"})],
    Behaviour.CUTS: [("dot", {"reply": "250 2.0.0 taken", "cut": -2, "close": True})],
    Behaviour.BREAKS: [
        ("dot", {"reply": "250 taken", "close": True, "times": 1}),
        ("connect", {"close": True, "skip": 1}),
    ],
    Behaviour.ECHOES: [("auth", {"reply": f"535 5.7.8 {SECRET} is wrong"})],
    Behaviour.ECHOES_LATER: [("rcpt", {"reply": f"550 5.7.1 {SECRET} may not"})],
}
"""What a sink is told, by how it is to behave."""

WAITS: Final = {Behaviour.STALLS, Behaviour.DRIPS, Behaviour.STALLS_AT_THE_END}
ECHOES: Final = {Behaviour.ECHOES, Behaviour.ECHOES_LATER}
"""What only a server can do that was told a secret."""


def stage(sink: SMTPSink, behaviour: Behaviour, only: Sequence[str]) -> None:
    for step, rule in RULES.get(behaviour, []):
        sink.on(step, **rule)
    refusals = {Behaviour.REFUSES: "550 5.1.1 no such user", Behaviour.DEFERS: "450 4.7.1 come back"}
    if behaviour in refusals:
        sink.on("rcpt", lambda address: not only or address in only, reply=refusals[behaviour])


def patient(behaviour: Behaviour) -> Timeouts:
    """There is little time for the one answer that never comes: any other may take its time."""
    if behaviour is Behaviour.STALLS_AT_THE_END:
        return Timeouts(dot=MOMENT)
    return Timeouts(data=MOMENT) if behaviour in WAITS else Timeouts()


def rig_of(sink: SMTPSink, transport: SMTPTransport, *secrets: str) -> Rig:
    def recover() -> None:
        # Only where something is to run out of time there is little of it.
        transport._server = attrs.evolve(transport._server, timeouts=Timeouts())
        sink.behave()

    return Rig(transport=transport, taken=lambda: sink.messages, recover=recover, secrets=secrets)
