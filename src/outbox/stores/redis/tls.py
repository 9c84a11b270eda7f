"""TLS on the way to a server: its certificate is verified, always; files are read when the store is opened."""

from __future__ import annotations

import ssl
from typing import Final

from outbox.errors import ConfigurationError
from outbox.values import printable, quoted

from .place import Place

__all__ = ["context_of", "speaks_no_tls"]

_NO_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
)
"""What OpenSSL says of what does not begin as TLS does, by its versions."""


def context_of(place: Place) -> ssl.SSLContext:
    """What verifies the server, and shows it our certificate.

    Raises:
        ConfigurationError: a file cannot be used; the text names it.
    """
    if place.client_key is not None and place.client_cert is None:
        raise ConfigurationError("there is a client_key and no client_cert: name the certificate, too")
    try:
        context = ssl.create_default_context(cafile=place.ca_file)
    except (OSError, ValueError) as error:
        reason = "holds no certificate in PEM form" if isinstance(error, ssl.SSLError) else _words(error)
        raise ConfigurationError(f"ca_file {quoted(str(place.ca_file), 200)}: {reason}") from error
    if place.client_cert is not None:
        _show(context, place.client_cert, place.client_key)
    return context


def speaks_no_tls(error: OSError) -> bool:
    """Whether a handshake failed with *error* as it does with who has never heard of TLS: silence, an end, or other words."""
    return (
        not isinstance(error, ssl.SSLError) or error.reason in _NO_TLS or isinstance(error, ssl.SSLEOFError)
    )


def _show(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    files = f"client_cert {quoted(certificate, 200)}" + (f" and client_key {quoted(key, 200)}" if key else "")
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except _Encrypted:
        raise ConfigurationError(f"{files}: the key has a passphrase, which is not taken here") from None
    except (OSError, ValueError) as error:
        reason = (
            "they are no certificate and its key in PEM form"
            if isinstance(error, ssl.SSLError)
            else _words(error)
        )
        raise ConfigurationError(f"{files}: {reason}") from error


class _Encrypted(Exception):
    """A key wants a passphrase, which OpenSSL would ask of the terminal."""


def _no_passphrase() -> str:
    raise _Encrypted


def _words(error: Exception) -> str:
    return printable(getattr(error, "strerror", None) or str(error))
