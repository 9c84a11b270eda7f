"""Transactions whose commit waits for the disk where those of others do not."""

from __future__ import annotations

from typing import Final

from .naming import Sql

__all__ = ["lasting"]

_LASTING: Final = """
    SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'
"""


def lasting(sql: Sql) -> None:
    """The commit of this transaction waits for the disk, whatever the connection says."""
    sql.execute(_LASTING)
