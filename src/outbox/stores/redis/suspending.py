"""What is suspended: fields of one hash, that every process sees."""

from __future__ import annotations

from outbox.errors import ConfigurationError
from outbox.protocols import Suspension
from outbox.stores.instants import EARLIEST, FOREVER, micros, moment
from outbox.stores.suspending import in_force

from .caller import Caller
from .scripts import SUSPEND, SUSPENSIONS, UNSUSPEND
from .tidings import Number, number

__all__ = ["suspend", "suspensions", "unsuspend"]


def suspend(caller: Caller, suspension: Suspension) -> None:
    """See :meth:`outbox.protocols.SupportsSuspend.suspend`."""
    until = "" if suspension.until is None else str(micros(suspension.until))
    name = f"{suspension.kind}:{suspension.value}"
    caller.run(SUSPEND, {"name": name, "said": f"{until}\t{suspension.reason}"})


def unsuspend(caller: Caller, kind: str, value: str) -> tuple[bool, Number]:
    """See :meth:`outbox.protocols.SupportsSuspend.unsuspend`."""
    _, news, was = caller.run(UNSUSPEND, {"name": f"{kind}:{value}"})
    return bool(was), number(news)


def suspensions(caller: Caller) -> list[Suspension]:
    """See :meth:`outbox.protocols.SupportsSuspend.suspensions`."""
    now, fields = caller.run(SUSPENSIONS, {})
    found = (_suspension(name, said) for name, said in zip(fields[::2], fields[1::2], strict=True))
    return in_force([each for each in found if each is not None], int(now))


def _suspension(name: bytes, said: bytes) -> Suspension | None:
    """None where it is of no kind, and so suspends nothing."""
    kind, _, value = name.decode("utf-8", "backslashreplace").partition(":")
    until, _, reason = said.decode("utf-8", "backslashreplace").partition("\t")
    try:
        ends = min(max(int(until), EARLIEST), FOREVER) if until else None
        return Suspension(
            kind=kind,  # type: ignore[arg-type]  # it is its own check
            value=value,
            until=None if ends is None else moment(ends),
            reason=reason,
        )
    except (ConfigurationError, ValueError):
        return None
