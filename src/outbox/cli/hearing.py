"""What the library logs is heard by the command alone, for as long as it runs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

__all__ = ["heard_by"]


@contextlib.contextmanager
def heard_by(handler: logging.Handler, log: logging.Logger) -> Iterator[None]:
    """Within the block *handler*, and nobody above *log*, is told what is logged there, from the handler's level on."""
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(handler.level)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate
