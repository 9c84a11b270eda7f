"""When to try again, and when to stop: a value without a clock, a store or a die of its own."""

from __future__ import annotations

import datetime as dt
import math
import random
import re
from collections.abc import Iterable
from typing import Final, Literal

import attrs

from .errors import ConfigurationError

__all__ = ["RetryPolicy"]

_FOUR_DAYS: Final = dt.timedelta(days=4)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STEP: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[smhd])(?:\*(?P<times>\d{1,4}))?", re.ASCII)


def _schedule(steps: Iterable[dt.timedelta] | None) -> tuple[dt.timedelta, ...] | None:
    try:
        return None if steps is None else tuple(steps)
    except TypeError:
        raise ConfigurationError(
            f"RetryPolicy: schedule is {steps!r}: pass a sequence of timedeltas"
        ) from None


def _default_timeout(policy: RetryPolicy) -> dt.timedelta | None:
    return _FOUR_DAYS if policy.schedule is None else None


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often, how soon and for how long a message is tried again.

    Exponential by default: the wait after attempt *n* is
    ``wait_initial * wait_exp_base ** (n - 1)``, at most *wait_max*.  With a
    *schedule* of n steps there are n retries and then the message is dead.
    Every wait is spread by ``± wait_jitter`` (0.2 is 20 %), so that what
    failed together does not come back together.

    It gives up by count (*attempts*, the first one included) and by age
    (*timeout*: four days as RFC 5321 section 4.5.4.1 advises, or none with a
    schedule).  Age counts from the latest of submitted, ``not_before`` and
    requeued.  The last wait is shortened to end at the timeout, so that the
    deadline itself is used for a last attempt.

    *uncertain* says what becomes of a recipient whose message was handed
    over whole and never answered: ``"retry"`` may send it a second time
    (the same bytes and Message-ID), ``"hold"`` waits for a person.

    *soft_bounce* is for going live: a refusal for good counts as one for now,
    so that no message dies of a setting that is wrong; the record still says
    what the relay said.  It is given up by count and age as any other.
    """

    attempts: int | None = None
    wait_initial: dt.timedelta = dt.timedelta(minutes=1)
    wait_max: dt.timedelta = dt.timedelta(hours=2)
    wait_exp_base: float = 2.0
    wait_jitter: float = 0.2
    schedule: tuple[dt.timedelta, ...] | None = attrs.field(default=None, converter=_schedule)
    timeout: dt.timedelta | None = attrs.field(default=attrs.Factory(_default_timeout, takes_self=True))
    uncertain: Literal["retry", "hold"] = "retry"
    soft_bounce: bool = False

    def __attrs_post_init__(self) -> None:
        try:
            self._check()
        except TypeError as error:
            raise ConfigurationError(
                f"RetryPolicy: {error}: waits and the timeout are timedeltas, attempts and the base are numbers"
            ) from error

    def _check(self) -> None:
        checks = {
            "attempts must be at least 1": self.attempts is None or self.attempts >= 1,
            "wait_initial must be positive": self.wait_initial > dt.timedelta(0),
            "wait_max must not be less than wait_initial": self.wait_max >= self.wait_initial,
            "wait_exp_base must be at least 1": self.wait_exp_base >= 1,
            "wait_jitter must be from 0 to less than 1": 0 <= self.wait_jitter < 1,
            "timeout must be positive": self.timeout is None or self.timeout > dt.timedelta(0),
            "a step of schedule must not be negative": all(
                step >= dt.timedelta(0) for step in self.schedule or ()
            ),
            "uncertain must be 'retry' or 'hold'": self.uncertain in ("retry", "hold"),
        }
        for rule, holds in checks.items():
            if not holds:
                raise ConfigurationError(f"RetryPolicy: {rule}")

    @classmethod
    def parse(cls, text: str, *, uncertain: Literal["retry", "hold"] = "retry") -> RetryPolicy:
        """A policy from a schedule such as ``"1m, 5m*2, 1h*3"``; units are s, m, h and d.

        Raises:
            ConfigurationError: a step is not of that form; it is named.
        """
        steps: list[dt.timedelta] = []
        for step in text.split(","):
            match = _STEP.fullmatch(step.strip())
            if match is None:
                raise ConfigurationError(
                    f"retry schedule {text!r}: {step.strip()!r} is not a step; write '1m, 5m*2, 1h*3'"
                )
            seconds = float(match["number"]) * _UNITS[match["unit"]]
            try:
                wait = dt.timedelta(seconds=seconds)
            except OverflowError:
                raise ConfigurationError(f"retry schedule {text!r}: {step.strip()!r} is too long") from None
            steps += [wait] * int(match["times"] or 1)
        return cls(schedule=tuple(steps), uncertain=uncertain)

    def next_wait(self, attempt: int, *, age: dt.timedelta, rng: random.Random) -> dt.timedelta | None:
        """The wait after this *attempt* (from 1), or None to give up."""
        if self.attempts is not None and attempt >= self.attempts:
            return None
        wait = self._wait(attempt)
        if wait is None or (self.timeout is not None and age >= self.timeout):
            return None
        wait *= rng.uniform(1 - self.wait_jitter, 1 + self.wait_jitter)
        return wait if self.timeout is None else min(wait, self.timeout - age)

    def _wait(self, attempt: int) -> dt.timedelta | None:
        if self.schedule is not None:
            return self.schedule[attempt - 1] if attempt <= len(self.schedule) else None
        ceiling = self.wait_max / self.wait_initial
        # Compared as logarithms, for the power itself would overflow after some hundred attempts.
        if (attempt - 1) * math.log(self.wait_exp_base) >= math.log(ceiling):
            return self.wait_max
        return self.wait_initial * self.wait_exp_base ** (attempt - 1)
