"""What lists show of an envelope, which may be damaged."""

from __future__ import annotations

import json

__all__ = ["envelope_of", "sender_and_recipients"]


def envelope_of(kept: bytes | None) -> bytes:
    """The envelope without the line before it; empty where there is none."""
    return (kept or b"").partition(b"\n")[2]


def sender_and_recipients(envelope: bytes) -> tuple[str, tuple[str, ...]]:
    """Nothing of what cannot be read."""
    try:
        fields = json.loads(envelope)
        return str(fields["sender"]), tuple(map(str, fields["recipients"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", ()
