"""Whom we trust, and in words why a handshake failed."""

from __future__ import annotations

import ssl
from typing import Final

from .dial import words

__all__ = ["Trust", "tls_words", "wants_certificate"]

# OpenSSL's X509_V_ERR_* numbers, which the ssl module hands on without names.
_NOT_YET: Final = 9
_EXPIRED: Final = 10
_STRANGERS: Final = frozenset({2, 18, 19, 20, 21})
_OTHER_NAMES: Final = frozenset({62, 64})

_OUR_CERTIFICATE: Final = frozenset(
    {
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV1_ALERT_ACCESS_DENIED",
    }
)

_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"})


class Trust:
    """The context of every handshake; the default one is read from disk when it is first needed."""

    def __init__(self, context: ssl.SSLContext | None = None, *, verify: bool = True) -> None:
        self._context = context
        self._verify = verify

    def context(self) -> ssl.SSLContext:
        if self._context is None:
            context = ssl.create_default_context()
            if not self._verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._context = context
        return self._context


def wants_certificate(error: ssl.SSLError) -> bool:
    """Did the server hang up over the certificate that we showed, or showed not?"""
    return (error.reason or "") in _OUR_CERTIFICATE


def tls_words(error: ssl.SSLError, host: str) -> str:
    """Why the handshake failed, and what a person can do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_words(error, host)
    if error.reason in _NOT_TLS:
        return "it does not speak TLS there: does the port expect STARTTLS (security='starttls', mostly 587)?"
    if wants_certificate(error):
        return (
            f"it wants another certificate of ours, or one at all ({words(error)}): load it into ssl_context"
        )
    return f"the TLS handshake failed: {words(error)}"


def _certificate_words(error: ssl.SSLCertVerificationError, host: str) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return "its certificate has expired: it must be renewed there"
    if code == _NOT_YET:
        return "its certificate is not valid yet: are both clocks right?"
    if code in _OTHER_NAMES:
        return f"its certificate is not for {host}: name the host as the certificate does"
    if code in _STRANGERS:
        return (
            f"its certificate is not signed by an authority known here ({error.verify_message}): "
            "trust the authority that signed it (ca_file in the URL, or ssl_context=ssl.create_default_context(cafile=...))"
        )
    return f"its certificate is not trusted: {error.verify_message}"
