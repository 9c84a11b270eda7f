"""Certificates for tests of TLS: good ones, and each kind of bad one."""

from __future__ import annotations

import datetime as dt
import ssl

import attrs
import trustme

LONG_AGO = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)


@attrs.frozen
class Authority:
    """An authority that our clients trust, and what it signs for servers."""

    ca: trustme.CA = attrs.field(factory=trustme.CA)

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context

    def server(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        # The default is what a sink's host is called.
        names = names or ("127.0.0.1", "localhost")
        if expired:
            issued = self.ca.issue_cert(
                *names, not_before=LONG_AGO, not_after=LONG_AGO + dt.timedelta(days=1)
            )
        else:
            issued = self.ca.issue_cert(*names)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        return context
