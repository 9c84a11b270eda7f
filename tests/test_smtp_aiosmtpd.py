"""SMTPTransport against a server by other hands: aiosmtpd."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword
from certificates import Authority

from outbox.errors import RelayMisconfigured
from outbox.message import Message
from outbox.outcome import Accepted, PermFailed, TempFailed
from outbox.transports.smtp import SMTPTransport

T = TypeVar("T")

A, B = "a@example.org", "b@example.org"
CONTENT = b"Subject: a\r\n\r\n.b\r\n"


class Mailbox:
    """A handler: refuses whoever's name begins so, and keeps what it takes."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.sessions = 0

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name for it
        self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]
    ) -> list[str]:
        self.sessions += 1
        session.host_name = hostname
        return responses

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name for it
        self, server: Any, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("refused"):
            return "550 5.1.1 no such user"
        if address.startswith("grey"):
            return "450 4.7.1 come back"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802 - the same
        self.taken.append(envelope)
        return f"250 2.0.0 taken as {len(self.taken)}"


class Server:
    """aiosmtpd in a thread, on a port that the system picks."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, **settings: Any) -> None:
        self.mailbox = Mailbox()
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._wait(self._listen(tls))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        self._wait(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _listen(self, tls: ssl.SSLContext | None) -> asyncio.Server:
        return await self._loop.create_server(self._session, "127.0.0.1", 0, ssl=tls)

    def _session(self) -> Any:
        return SMTP(self.mailbox, hostname="mx.example", loop=self._loop, **self._settings)

    async def _stop(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def authenticate(
    server: Any, session: Any, envelope: Any, mechanism: str, login: LoginPassword
) -> AuthResult:
    right = (login.login, login.password) == ("jürgen".encode(), b"c4narypassword")
    return AuthResult(success=right, handled=False)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[Server] = []

    def start(**settings: Any) -> Server:
        running.append(Server(**settings))
        return running[-1]

    yield start
    for server in running:
        server.close()


def deliver(transport: SMTPTransport, *recipients: str, content: bytes = CONTENT) -> Any:
    sent = Message(recipients=recipients or (A,), content=content, sender="s@example.org")
    try:
        return dict(transport.deliver(sent, sent.recipients).results)
    finally:
        transport.close()


def test_a_message_arrives_as_it_was_submitted(serve: Serve) -> None:
    server = serve()
    results = deliver(SMTPTransport("127.0.0.1", server.port), A, B)

    assert results == dict.fromkeys([A, B], Accepted("250 2.0.0 taken as 1"))
    [envelope] = server.mailbox.taken
    assert (envelope.mail_from, envelope.rcpt_tos) == ("s@example.org", [A, B])
    assert envelope.original_content == CONTENT


def test_each_recipient_has_its_own_fate(serve: Serve) -> None:
    server = serve()
    results = deliver(SMTPTransport("127.0.0.1", server.port), "refused@example.org", A, "grey@example.org")

    assert results == {
        "refused@example.org": PermFailed("550 5.1.1 no such user"),
        A: Accepted("250 2.0.0 taken as 1"),
        "grey@example.org": TempFailed("450 4.7.1 come back"),
    }
    assert server.mailbox.taken[0].rcpt_tos == [A]


def test_one_connection_serves_after_a_refusal_too(serve: Serve) -> None:
    server = serve()
    transport = SMTPTransport("127.0.0.1", server.port)
    refused = Message(recipients=("refused@example.org",), content=CONTENT)
    for _ in range(3):
        transport.deliver(refused, refused.recipients)
    deliver(transport, A)

    assert len(server.mailbox.taken) == 1
    assert server.mailbox.sessions == 1


@pytest.mark.parametrize(
    "content",
    [b".", b"..\r\n.\r\n", "Subject: é\r\n\r\nü\r\n".encode(), b"x\r\n" * 100_000],
    ids=["dot", "dots", "utf-8", "large"],
)
def test_every_content_survives_the_way(serve: Serve, content: bytes) -> None:
    server = serve(enable_SMTPUTF8=True)
    deliver(SMTPTransport("127.0.0.1", server.port), A, content=content)

    assert (server.mailbox.taken[0].original_content or b"").rstrip(b"\r\n") == content.rstrip(b"\r\n")


def test_what_needs_an_extension_is_said_otherwise_without_it_or_not_sent(serve: Serve) -> None:
    server = serve(enable_SMTPUTF8=False)
    transport = SMTPTransport("127.0.0.1", server.port)
    [taken] = deliver(transport, A, content="Subject: é\r\n\r\né\r\n".encode()).values()
    [refused] = deliver(transport, A, content="Message-ID: <é@x>\r\n\r\n".encode()).values()

    assert isinstance(taken, Accepted)
    assert isinstance(refused, PermFailed)
    assert "SMTPUTF8" in refused.reply
    [envelope] = server.mailbox.taken
    # aiosmtpd offers 8BITMIME: the body may stay as it is.
    assert envelope.original_content == "Subject: =?utf-8?b?w6k=?=\r\n\r\né\r\n".encode()


def test_what_is_too_large_is_not_sent(serve: Serve) -> None:
    server = serve(data_size_limit=100)
    [result] = deliver(SMTPTransport("127.0.0.1", server.port), A, content=b"x" * 100).values()

    assert result == PermFailed("not sent: it has 102 bytes and the server takes 100 at most")
    assert not server.mailbox.taken


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_mail_goes_under_tls(serve: Serve, authority: Authority, security: Any) -> None:
    context = authority.server()
    server = serve(tls=context) if security == "tls" else serve(tls_context=context, require_starttls=True)
    transport = SMTPTransport("127.0.0.1", server.port, security=security, ssl_context=authority.client())

    assert isinstance(deliver(transport)[A], Accepted)


@pytest.mark.parametrize("security", ["tls", "starttls"])
@pytest.mark.parametrize("bad", ["stranger", "name", "expired"])
def test_a_certificate_that_does_not_hold_stops_it(
    serve: Serve, authority: Authority, security: Any, bad: str
) -> None:
    signer = Authority() if bad == "stranger" else authority
    names = ["mx.example.org"] if bad == "name" else []
    context = signer.server(*names, expired=bad == "expired")
    server = serve(tls=context) if security == "tls" else serve(tls_context=context)
    transport = SMTPTransport("127.0.0.1", server.port, security=security, ssl_context=authority.client())

    word = {"stranger": "authority known here", "name": "not for 127.0.0.1", "expired": "has expired"}[bad]
    with pytest.raises(RelayMisconfigured, match=word):
        deliver(transport)
    assert not server.mailbox.taken


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("password", ["c4narypassword", "wr0ng-c4narypassword"])
def test_we_authenticate_under_tls(serve: Serve, authority: Authority, mechanism: str, password: str) -> None:
    server = serve(
        tls_context=authority.server(),
        authenticator=authenticate,
        auth_required=True,
        auth_exclude_mechanism=[{"PLAIN": "LOGIN", "LOGIN": "PLAIN"}[mechanism]],
    )
    transport = SMTPTransport(
        "127.0.0.1",
        server.port,
        security="starttls",
        username="jürgen",
        password=password,
        ssl_context=authority.client(),
    )
    if password == "c4narypassword":
        assert isinstance(deliver(transport)[A], Accepted)
    else:
        with pytest.raises(
            RelayMisconfigured, match=f"user 'jürgen' was refused by {mechanism}: 535"
        ) as caught:
            deliver(transport)
        assert password not in str(caught.value)


# aiosmtpd warns of what this test is about: a login without TLS.
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")
def test_a_server_that_wants_a_login_kills_no_message(serve: Serve) -> None:
    server = serve(authenticator=authenticate, auth_required=True, auth_require_tls=False)
    with pytest.raises(RelayMisconfigured, match="530"):
        deliver(SMTPTransport("127.0.0.1", server.port))


def test_a_server_that_offers_no_login_is_said(serve: Serve, authority: Authority) -> None:
    server = serve(tls=authority.server())
    transport = SMTPTransport(
        "127.0.0.1", server.port, security="tls", username="u", password="p", ssl_context=authority.client()
    )
    with pytest.raises(RelayMisconfigured, match="offers: none"):
        deliver(transport)
