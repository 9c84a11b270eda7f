"""Bounces: who sent a mail is told that it failed, or that it waits (RFC 3461, RFC 3464).

What is said is written in :mod:`.reports`, without a store; :mod:`.listener` says it, at most once for each failure.
"""

from .listener import Bounces

__all__ = ["Bounces"]
