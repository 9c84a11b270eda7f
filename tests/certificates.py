"""Certificates for tests of TLS: good ones, and each kind of bad one."""

from __future__ import annotations

import datetime as dt
import ssl

import attrs
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

LONG_AGO = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
FAR_AWAY = dt.datetime(2199, 1, 1, tzinfo=dt.UTC)


@attrs.frozen
class Authority:
    """An authority that our clients trust, and what it signs for servers."""

    ca: trustme.CA = attrs.field(factory=trustme.CA)

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context

    def server(self, *names: str, expired: bool = False, early: bool = False) -> ssl.SSLContext:
        # The default is what a sink's host is called.
        names = names or ("127.0.0.1", "localhost")
        begin = LONG_AGO if expired else FAR_AWAY if early else None
        if begin is None:
            return _presenting(self.ca.issue_cert(*names))
        return _presenting(
            self.ca.issue_cert(*names, not_before=begin, not_after=begin + dt.timedelta(days=1))
        )

    def demanding(self, *names: str) -> ssl.SSLContext:
        """A server's that talks to nobody without a certificate of this authority."""
        context = self.server(*names)
        context.verify_mode = ssl.CERT_REQUIRED
        self.ca.configure_trust(context)
        return context


def self_signed(name: str = "localhost") -> ssl.SSLContext:
    """A server's that vouches for itself, as those made by hand do."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(LONG_AGO)
        .not_valid_after(FAR_AWAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _presenting(
        trustme.LeafCert(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            certificate.public_bytes(Encoding.PEM),
            [],
        )
    )


def _presenting(issued: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    return context
