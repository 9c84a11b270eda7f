"""What a handshake came to: the protocol, the cipher, and whose certificate it was."""

from __future__ import annotations

import datetime as dt
import hashlib
import ssl
from collections.abc import Iterable
from typing import Any, Final, Self

import attrs

__all__ = ["Secured"]

_NAMED: Final = ("DNS", "IP Address")
_SHOWN: Final = 8


@attrs.frozen(kw_only=True)
class Secured:
    """A connection under TLS.

    Attributes:
        version, cipher: As OpenSSL calls them.
        verified: The certificate was asked for and holds, for the host's name
            too; what it says is known only then.
        names: Whom it is for.
        subject: Whom it calls its owner.
        issuer: Who signed it.
        since, until: When it begins to hold, and when it expires.
        fingerprint: SHA-256 of the certificate.
        der: The certificate itself.
    """

    version: str
    cipher: str
    verified: bool = False
    names: tuple[str, ...] = ()
    subject: str = ""
    issuer: str = ""
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    fingerprint: str = ""
    der: bytes = attrs.field(default=b"", repr=False)

    @classmethod
    def of(cls, secured: ssl.SSLSocket) -> Self:
        said: dict[str, Any] = dict(secured.getpeercert() or {})
        whole = secured.getpeercert(binary_form=True)
        cipher = secured.cipher()
        return cls(
            version=secured.version() or "",
            cipher=cipher[0] if cipher else "",
            verified=bool(said) and secured.context.check_hostname,
            names=_names(said),
            subject=_person(said.get("subject", ())),
            issuer=_person(said.get("issuer", ())),
            since=_instant(said["notBefore"]) if "notBefore" in said else None,
            until=_instant(said["notAfter"]) if "notAfter" in said else None,
            fingerprint=hashlib.sha256(whole).hexdigest() if whole else "",
            der=whole or b"",
        )

    @property
    def certificate(self) -> str:
        """It in words."""
        if not self.names and self.until is None:
            return f"certificate not verified, SHA-256 {self.fingerprint}"
        more = f" and {len(self.names) - _SHOWN} more" if len(self.names) > _SHOWN else ""
        until = f" until {self.until:%Y-%m-%d}" if self.until else ""
        doubt = "" if self.verified else ", its name not compared"
        return f"certificate of {', '.join(self.names[:_SHOWN])}{more}, from {self.issuer}{until}{doubt}"

    def __str__(self) -> str:
        return f"{self.version.replace('TLSv', 'TLS ')}, {self.cipher}, {self.certificate}"


def _names(said: dict[str, Any]) -> tuple[str, ...]:
    alternative = tuple(name for kind, name in said.get("subjectAltName", ()) if kind in _NAMED)
    return alternative or tuple(_all("commonName", said.get("subject", ())))


def _person(parts: Iterable[Any]) -> str:
    parts = tuple(parts)
    return ", ".join([*_all("commonName", parts), *_all("organizationName", parts)]) or "nobody named"


def _all(kind: str, parts: Iterable[Any]) -> list[str]:
    return [value for part in parts for name, value in part if name == kind]


def _instant(text: str) -> dt.datetime:
    return dt.datetime.fromtimestamp(ssl.cert_time_to_seconds(text), dt.UTC)
