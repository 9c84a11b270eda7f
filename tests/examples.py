"""How many examples hypothesis thinks of: fewer on a Python that is asked what another was asked before.

And none fails by the time that it took: a machine that does something else is no fault of ours.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

__all__ = ["examples"]

FEW: Final = os.environ.get("OUTBOX_EXAMPLES") == "few"


def examples(number: int) -> int:
    """*number*, or a fifth of it."""
    return max(1, number // 5) if FEW else number


settings.register_profile(
    "patient",
    max_examples=examples(100),
    deadline=None,
    suppress_health_check={*settings().suppress_health_check, HealthCheck.too_slow},
)
settings.load_profile("patient")
