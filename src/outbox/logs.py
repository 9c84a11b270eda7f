"""What happens, as lines of the standard library's logging: logger ``outbox.delivery``."""

from __future__ import annotations

import logging
from typing import Final

from .errors import RelayMisconfigured
from .events import LeaseLost, Notice, RelayPaused, RelayResumed, Settled, StoreFailed
from .lifecycle import Delivered, Released, Retry, Verdict

__all__ = ["log_notice"]

_LOG: Final = logging.getLogger("outbox.delivery")


def log_notice(notice: Notice) -> None:
    """Log one notice: deliveries at INFO, what waits or failed at WARNING, what a person must mend at ERROR."""
    match notice:
        case Settled(claim=claim, verdict=verdict):
            level = logging.INFO if isinstance(verdict, Delivered | Released) else logging.WARNING
            if _LOG.isEnabledFor(level):
                words = _why(verdict)
                _LOG.log(level, "%s %s attempt %d%s", claim.message.id, verdict.event, claim.attempt, words)
        case LeaseLost(claim=claim):
            _LOG.warning(
                "%s lease lost at attempt %d: another worker has it", claim.message.id, claim.attempt
            )
        case RelayPaused(fault=fault, wait=wait):
            level = logging.ERROR if isinstance(fault, RelayMisconfigured) else logging.WARNING
            _LOG.log(level, "relay %s; left alone for %.0f s", fault, wait.total_seconds())
        case RelayResumed(relay=relay):
            _LOG.info("relay %s answers again", relay or "(default)")
        case StoreFailed(error=error, wait=wait, claims=claims):
            unwritten = ", ".join(claim.message.id for claim in claims)
            noted = f"; not noted yet: {unwritten}" if claims else ""
            _LOG.error("store: %s; again in %.1f s%s", error, wait.total_seconds(), noted)


def _why(verdict: Verdict) -> str:
    if isinstance(verdict, Retry | Released):
        return f" again in {verdict.delay.total_seconds():.0f} s: {verdict.reason}"
    return "" if isinstance(verdict, Delivered) else f": {verdict.reason}"
