"""What a monitor reads of `outbox check`: one line, one exit status, and numbers beside it; what is due the longest first."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import attrs

from outbox.lifecycle import State
from outbox.locate import Config, spell
from outbox.protocols import Finding, Glance, QueueCount, Store, SupportsBrowse, SupportsGlance
from outbox.values import printable

from .columns import at_least

__all__ = ["STATUS", "Due", "Level", "data", "headline", "worst"]

Level = Literal["ok", "warning", "error"]
STATUS: Final = {"ok": 0, "warning": 1, "error": 2}
"""As the monitors of Nagios' family have it; their 3 is that nobody knows."""


@attrs.frozen(kw_only=True)
class Due:
    """What could go now and has not gone: *age* is that of what has been due the longest, in *queue*."""

    number: int = 0
    age: dt.timedelta | None = None
    queue: str = ""
    more: bool = False

    @classmethod
    def of(cls, store: Store, now: dt.datetime) -> Due | None:
        """As the store has it; None where it cannot be looked at."""
        counts = _counts(store)
        if counts is None:
            return None
        waiting = [c for c in counts if c.state is State.QUEUED and c.due and c.oldest_due_at]
        first = min(waiting, key=lambda count: count.oldest_due_at or now, default=None)
        if first is None or first.oldest_due_at is None:
            return cls()
        return cls(
            number=sum(count.due for count in waiting),
            age=max(dt.timedelta(0), now - first.oldest_due_at),
            queue=first.queue,
            more=any(count.more for count in waiting),
        )

    def __str__(self) -> str:
        if self.age is None:
            return "nothing is due"
        number = at_least(self.number, self.more)
        return f"the oldest due has been so for {spell(self.age)}, in queue {printable(self.queue)} ({number} due)"

    def finding(self, config: Config, *, served: bool) -> Finding:
        """What is to be thought of that age; *served* is whether somebody alive delivers from that queue."""
        if self.age is None or self.age < min(config.due_warning, config.due_error):
            return Finding("ok", str(self))
        level: Level = "error" if self.age >= config.due_error else "warning"
        if served:
            return Finding(
                level,
                str(self),
                "outbox explain ID   says what keeps one; outbox list --state queued names them",
            )
        return Finding(level, f"{self}; no runner alive serves it", "outbox run   or outbox drain once")


def _counts(store: Store) -> Sequence[QueueCount] | None:
    if isinstance(store, SupportsGlance):
        glance: Glance = store.glance()
        return glance.counts
    return store.count() if isinstance(store, SupportsBrowse) else None


def worst(findings: Iterable[Finding]) -> str:
    """Of their levels."""
    return max((finding.level for finding in findings), key=STATUS.__getitem__, default="ok")


def headline(findings: Sequence[Finding], due: Due | None, config: Config | None) -> str:
    """``OUTBOX WARNING - …``, and behind a bar what a monitor draws."""
    level = worst(findings)
    first = "what is due is not known" if due is None else str(due)
    said = [
        f"{n} {name}{'s' if n > 1 else ''}" for name in ("error", "warning") if (n := _number(findings, name))
    ]
    # A bar separates the words from the numbers, wherever it comes from.
    worst_one = next((f.text for f in findings if f.level == level and level != "ok" and f.text != first), "")
    words = f"{first}{'; ' if said else ''}{', '.join(said)}{': ' if worst_one else ''}{worst_one}".replace(
        "|", "/"
    )
    return f"OUTBOX {level.upper()} - {words}{_numbers(findings, due, config)}"


def _number(findings: Sequence[Finding], level: str) -> int:
    return sum(finding.level == level for finding in findings)


def _numbers(findings: Sequence[Finding], due: Due | None, config: Config | None) -> str:
    if due is None or config is None:
        return ""
    age = 0.0 if due.age is None else due.age.total_seconds()
    warning, error = config.due_warning.total_seconds(), config.due_error.total_seconds()
    return (
        f" | oldest_due={age:.0f}s;{warning:.0f};{error:.0f};0 due={due.number};;;0 "
        f"errors={_number(findings, 'error')};;;0 warnings={_number(findings, 'warning')};;;0"
    )


def data(findings: Sequence[Finding], due: Due | None) -> dict[str, Any]:
    """The same for a program."""
    age = None if due is None or due.age is None else due.age.total_seconds()
    return {
        "level": worst(findings),
        "oldest_due_age": age,
        "oldest_due_queue": due.queue if due is not None and due.age is not None else None,
        "due": None if due is None else due.number,
        "due_more": None if due is None else due.more,
        "findings": [attrs.asdict(finding) for finding in findings],
    }
