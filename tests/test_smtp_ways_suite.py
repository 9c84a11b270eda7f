"""The contract of a transport holds by whichever way the server is reached: a token, a Unix socket, a proxy."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from certificates import Authority
from faithful import SECRET
from staged import ECHOES, patient, rig_of, stage

from outbox.testing import Behaviour, Rig, SMTPSink, TransportSuite
from outbox.transports.smtp import SMTPTransport


class TestWithATokenUnderSTARTTLS(TransportSuite):
    authority: ClassVar[Authority] = Authority()

    @contextlib.contextmanager
    def open(self, behaviour: Behaviour, only: Sequence[str]) -> Iterator[Rig]:
        users = {"user": "other" if behaviour is Behaviour.ECHOES else SECRET}
        with SMTPSink(starttls=self.authority.server(), users=users, mechanisms=["XOAUTH2"]) as sink:
            stage(sink, behaviour, only)
            transport = SMTPTransport(
                sink.host,
                sink.port,
                security="starttls",
                ssl_context=self.authority.client(),
                username="user",
                token=lambda: SECRET,
                timeouts=patient(behaviour),
            )
            yield rig_of(sink, transport, SECRET)
            assert not sink.violations


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")
class TestOverAUnixSocket(TransportSuite):
    @contextlib.contextmanager
    def open(self, behaviour: Behaviour, only: Sequence[str]) -> Iterator[Rig]:
        if behaviour in ECHOES:
            self.cannot(behaviour)
        with tempfile.TemporaryDirectory() as home, SMTPSink(path=Path(home) / "s") as sink:
            stage(sink, behaviour, only)
            transport = SMTPTransport(path=Path(home) / "s", timeouts=patient(behaviour))
            yield rig_of(sink, transport)
            assert not sink.violations


class TestThroughASocketOfOnesOwn(TransportSuite):
    @contextlib.contextmanager
    def open(self, behaviour: Behaviour, only: Sequence[str]) -> Iterator[Rig]:
        if behaviour in ECHOES:
            self.cannot(behaviour)
        with SMTPSink() as sink:
            stage(sink, behaviour, only)
            transport = SMTPTransport(
                "mail.example.org",
                security="none",
                connect=lambda _, seconds: socket.create_connection((sink.host, sink.port), seconds),
                timeouts=patient(behaviour),
            )
            yield rig_of(sink, transport)
            assert not sink.violations
