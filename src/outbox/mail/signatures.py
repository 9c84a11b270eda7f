"""Signed mail: a change that would break a signature is refused, not made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from .wire import Field, broken

__all__ = ["SIGNATURES", "check_signatures"]

SIGNATURES: Final = ("dkim-signature", "arc-message-signature", "domainkey-signature")
"""Those that cover fields of the header, and name them in their tag ``h``."""

_RULE: Final = "RFC 6376 section 5.4"


def check_signatures(
    content: bytes, header: Sequence[Field], *, missing: Iterable[str], dropped: Iterable[Field]
) -> None:
    """Refuse to add what is *missing*, or to take out what is to be *dropped*, where it is signed.

    A signature that names a field more often than the mail has it says that
    there is no further one (section 5.4.2 of the RFC).
    """
    changes = {name.lower(): (name, "missing, and would be added", "add it") for name in missing}
    for field in dropped:
        changes.setdefault(field.key, (field.name, "not sent", "take it out"))
    for signature in (field for field in header if field.key in SIGNATURES) if changes else ():
        for key in _covered(signature.value(content)):
            if key in changes:
                name, fate, remedy = changes[key]
                raise broken(
                    signature.line,
                    f"the field {signature.name!r} signs {name}, which is {fate}",
                    _RULE,
                    f"{remedy} before it is signed, or take the signature away",
                )


def _covered(signature: bytes) -> Iterable[str]:
    """The names of the tag ``h`` (RFC 6376 section 3.2)."""
    for tag in signature.split(b";"):
        name, _, value = tag.partition(b"=")
        if name.strip(b" \t") == b"h":
            for covered in value.split(b":"):
                yield covered.strip(b" \t").decode("utf-8", "replace").lower()
