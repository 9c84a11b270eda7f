"""Whom we trust and what we show, and in words why a handshake failed."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

from outbox.errors import ConfigurationError
from outbox.values import quoted

from .dial import words
from .steps import Step

__all__ = ["File", "Trust", "may_pass", "tls_words", "wants_certificate"]

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

_PASSING: Final = frozenset(
    {
        "TLSV1_ALERT_INTERNAL_ERROR",
        "TLSV1_ALERT_USER_CANCELLED",
        "SSLV3_ALERT_BAD_RECORD_MAC",
        "TLSV1_ALERT_DECRYPTION_FAILED",
        "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
    }
)
"""A server in trouble, or octets that were changed on their way: the next handshake may do.

Of what is in neither table, such as ``handshake_failure`` and
``protocol_version``, nothing comes but the same until a person mends it.
"""

_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"})


File: TypeAlias = str | os.PathLike[str]


class Trust:
    """The context of every handshake; the default one is read from disk when it is first needed.

    Attributes:
        shows_certificate: Was a certificate of ours named, which is of use under TLS only?
    """

    def __init__(
        self, context: ssl.SSLContext | None = None, *, verify: bool = True, shows_certificate: bool = False
    ) -> None:
        self._context = context
        self._verify = verify
        self.shows_certificate = shows_certificate

    @property
    def demands_certificate(self) -> bool:
        """Does no handshake succeed without one that is valid for the name we wrote?"""
        if self._context is None:
            return self._verify
        return self._context.check_hostname and self._context.verify_mode is ssl.CERT_REQUIRED

    @classmethod
    def of(
        cls,
        context: ssl.SSLContext | None,
        *,
        ca_file: File | None = None,
        client_cert: File | None = None,
        client_key: File | None = None,
        verify: bool = True,
    ) -> Self:
        """As it was told; files are read at once, so that what is wrong with one is known at once.

        Raises:
            ConfigurationError: a file cannot be used, or they contradict *context*.
        """
        files = (ca_file, client_cert, client_key)
        if context is not None and any(file is not None for file in files):
            raise ConfigurationError(
                "ca_file, client_cert and client_key make an SSL context: load them into yours "
                "(load_verify_locations, load_cert_chain) where you hand in ssl_context"
            )
        if any(file is not None and not os.fspath(file) for file in files):
            raise ConfigurationError("ca_file, client_cert or client_key is an empty name")
        if client_key is not None and client_cert is None:
            raise ConfigurationError("there is a client_key and no client_cert: name the certificate, too")
        if ca_file is None and client_cert is None:
            return cls(context, verify=verify)
        made = _context(ca_file, verify=verify)
        if client_cert is not None:
            _show(made, os.fspath(client_cert), None if client_key is None else os.fspath(client_key))
        return cls(made, shows_certificate=client_cert is not None)

    def context(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = _context(None, verify=self._verify)
        return self._context


def _context(ca_file: File | None, *, verify: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        if error.filename is not None:
            # That of ca_file is not named there; this is the other file which the ssl module opens unasked.
            raise ConfigurationError(
                f"the file {quoted(str(error.filename), 200)}, where SSLKEYLOGFILE has TLS log its keys, "
                f"cannot be written: {words(error)}"
            ) from error
        reason = "holds no certificate in PEM form" if isinstance(error, ssl.SSLError) else words(error)
        raise ConfigurationError(f"ca_file {quoted(str(ca_file), 200)}: {reason}") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _show(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    """Load what we show to servers that ask.

    OpenSSL does not say which file it could not use, so each is looked into.
    """
    _look_into("client_cert", certificate, b"CERTIFICATE-----")
    _look_into("client_cert" if key is None else "client_key", key or certificate, b"PRIVATE KEY-----")
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except _Encrypted:
        raise ConfigurationError(
            f"the key in {quoted(key or certificate, 200)} has a passphrase, which is not taken here: hand in an "
            "ssl_context with load_cert_chain(..., password=...)"
        ) from None
    except (OSError, ValueError) as error:
        reason = "cannot be used together"
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            reason = "do not belong together: the key is another certificate's"
        both = quoted(certificate, 200) + (
            f" and client_key {quoted(key, 200)}" if key else " and the key in it"
        )
        raise ConfigurationError(f"client_cert {both} {reason}") from error


def _look_into(name: str, path: str, mark: bytes) -> None:
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = words(error) if isinstance(error, OSError) else "is no file name"
        raise ConfigurationError(f"{name} {quoted(path, 200)} cannot be read: {reason}") from error
    if mark not in content:
        what = "private key" if b"KEY" in mark else "certificate"
        hint = ": name it by client_key" if what == "private key" and name == "client_cert" else ""
        raise ConfigurationError(f"{name} {quoted(path, 200)} holds no {what} in PEM form{hint}")


class _Encrypted(Exception):
    """A key wants a passphrase."""


def _no_passphrase() -> Any:
    # Without this OpenSSL would ask for it on the terminal, and wait.
    raise _Encrypted


def wants_certificate(error: ssl.SSLError) -> bool:
    """Did the server hang up over the certificate that we showed, or showed not?"""
    return (error.reason or "") in _OUR_CERTIFICATE


def may_pass(error: ssl.SSLError) -> bool:
    """May the next handshake do, without anybody mending anything?"""
    return (error.reason or "") in _PASSING


def tls_words(error: ssl.SSLError, host: str, behind: Step = Step.CONNECT) -> str:
    """Why the handshake *behind* that step failed, and what a person can do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_words(error, host)
    if error.reason in _NOT_TLS and behind is Step.STARTTLS:
        return "what came behind its answer to STARTTLS is no TLS: is somebody in between?"
    if error.reason in _NOT_TLS:
        return "it does not speak TLS there: does the port expect STARTTLS (security='starttls', mostly 587)?"
    if wants_certificate(error):
        return f"it wants another certificate of ours, or one at all ({words(error)}): see client_cert"
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
            "trust the authority that signed it (ca_file)"
        )
    return f"its certificate is not trusted: {error.verify_message}"
