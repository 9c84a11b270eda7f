"""How many examples hypothesis thinks of: fewer on a Python that is asked what another was asked before."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import settings

__all__ = ["examples"]

FEW: Final = os.environ.get("OUTBOX_EXAMPLES") == "few"


def examples(number: int) -> int:
    """*number*, or a fifth of it."""
    return max(1, number // 5) if FEW else number


settings.register_profile("few", max_examples=examples(100))
if FEW:
    settings.load_profile("few")
