"""TLS on the way to Redis: what does not hold is not spoken to, and no password goes there."""

from __future__ import annotations

import contextlib
import datetime as dt
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, self_signed
from redis_server import Server, started

from outbox.errors import ConfigurationError, StoreUnavailable
from outbox.locate import store_from_url
from outbox.stores.redis import RedisStore
from outbox.testing.clauses.scene import ids, put, take

AUTHORITY = Authority()


class Terminating:
    """Speaks TLS before a server, as a Redis that was built with it does."""

    def __init__(self, server: Server, context: ssl.SSLContext) -> None:
        self.received = bytearray()
        self._server = server
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                theirs, _ = self._listener.accept()
                thread = threading.Thread(target=self._pass, args=(theirs,))
                self._threads.append(thread)
                thread.start()

    def _pass(self, theirs: socket.socket) -> None:
        with theirs, contextlib.suppress(OSError):
            theirs.settimeout(30)
            with (
                self._context.wrap_socket(theirs, server_side=True) as line,
                socket.create_connection(("127.0.0.1", self._server.port)) as ours,
            ):
                while True:
                    ready, _, _ = select.select([line, ours], [], [])
                    if line in ready:
                        data = line.recv(1 << 16)
                        while line.pending():
                            data += line.recv(1 << 16)
                        if not data:
                            return
                        self.received += data
                        ours.sendall(data)
                    if ours in ready:
                        answer = ours.recv(1 << 16)
                        if not answer:
                            return
                        line.sendall(answer)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with started(tcp=True) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with contextlib.closing(server.client()) as client:
        yield client
        client.flushall()


@pytest.fixture
def terminating(server: Server, client: Any) -> Iterator[Callable[[ssl.SSLContext], Terminating]]:
    with contextlib.ExitStack() as stack:
        yield lambda context: stack.enter_context(contextlib.closing(Terminating(server, context)))


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    AUTHORITY.ca.cert_pem.write_to_path(str(path))
    return str(path)


def url(server: Server, proxy: Terminating, host: str = "127.0.0.1") -> str:
    return f"rediss://:{server.password}@{host}:{proxy.port}/0"


def test_a_store_by_tls_is_the_same_store(
    server: Server, terminating: Callable[[ssl.SSLContext], Terminating], ca_file: str
) -> None:
    proxy = terminating(AUTHORITY.server())
    with (
        contextlib.closing(store_from_url(f"{url(server, proxy)}?ca_file={ca_file}&prefix=shop")) as store,
        contextlib.closing(RedisStore(server.url, prefix="shop")) as other,
    ):
        assert isinstance(store, RedisStore)
        assert take(store) == []
        put(other, "a")
        assert store.wait(dt.timedelta(seconds=60)) is True
        assert ids(take(store)) == ["a"]
        assert server.password not in repr(store)
    assert proxy.received


def test_a_connection_by_tls_is_used_again(
    server: Server, terminating: Callable[[ssl.SSLContext], Terminating], ca_file: str, client: Any
) -> None:
    """Also where the server has sent more than was asked for, as that of TLS 1.3 does at the beginning."""
    proxy = terminating(AUTHORITY.server())

    def connected() -> int:
        return int(client.info("stats")["total_connections_received"])

    with contextlib.closing(RedisStore(url(server, proxy), ca_file=ca_file)) as store:
        before = connected()
        for number in range(5):
            put(store, f"m{number}")
        assert connected() == before


@pytest.mark.parametrize(
    ("context", "says"),
    [
        (lambda: AUTHORITY.server(expired=True), "expired"),
        (lambda: AUTHORITY.server("redis.example.org"), "not valid for '127.0.0.1'"),
        (self_signed, "self.signed"),
        (lambda: Authority().server(), "unable to get local issuer certificate"),
    ],
)
def test_a_certificate_that_does_not_hold_is_refused_before_anything_is_said(
    server: Server,
    terminating: Callable[[ssl.SSLContext], Terminating],
    ca_file: str,
    context: Callable[[], ssl.SSLContext],
    says: str,
) -> None:
    proxy = terminating(context())

    with pytest.raises(StoreUnavailable, match=says) as caught:
        RedisStore(url(server, proxy), ca_file=ca_file)
    assert server.password not in str(caught.value)
    assert not proxy.received


def test_without_an_authority_of_ones_own_those_of_the_machine_decide(
    server: Server, terminating: Callable[[ssl.SSLContext], Terminating]
) -> None:
    proxy = terminating(AUTHORITY.server())

    with pytest.raises(StoreUnavailable, match="certificate verify failed"):
        RedisStore(url(server, proxy))
    assert not proxy.received


def test_a_server_that_wants_our_certificate_is_shown_it(
    server: Server, terminating: Callable[[ssl.SSLContext], Terminating], ca_file: str, tmp_path: Path
) -> None:
    proxy = terminating(AUTHORITY.demanding("127.0.0.1"))
    issued = AUTHORITY.ca.issue_cert("outbox.example.org")
    cert, key, both = (str(tmp_path / name) for name in ("cert.pem", "key.pem", "both.pem"))
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    issued.private_key_and_cert_chain_pem.write_to_path(both)

    with pytest.raises(StoreUnavailable):
        RedisStore(url(server, proxy), ca_file=ca_file)
    assert not proxy.received
    for shown, its_key in ((cert, key), (both, None)):
        RedisStore(url(server, proxy), ca_file=ca_file, client_cert=shown, client_key=its_key).close()


def answering(answer: bytes | None) -> contextlib.AbstractContextManager[int]:
    """The port of one who takes a connection, hears something, and says *answer* or nothing at all."""

    @contextlib.contextmanager
    def listening() -> Iterator[int]:
        over = threading.Event()

        def serve(listener: socket.socket) -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as theirs:
                theirs.recv(1 << 16)
                if answer is None:
                    over.wait()
                theirs.sendall(answer or b"")

        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
            thread = threading.Thread(target=serve, args=(listener,))
            thread.start()
            try:
                yield listener.getsockname()[1]
            finally:
                over.set()
                thread.join()

    return listening()


@pytest.mark.parametrize(
    "answer", [None, b"", b"-ERR unknown command\r\n"], ids=["silence", "the end", "words"]
)
def test_of_a_port_without_tls_it_is_said_that_it_may_be_one(answer: bytes | None) -> None:
    timeout = dt.timedelta(seconds=30 if answer is not None else 0.2)
    with answering(answer) as port, pytest.raises(StoreUnavailable, match="without TLS it is redis://"):
        RedisStore(f"rediss://127.0.0.1:{port}/0", timeout=timeout)


def test_a_redis_without_tls_is_told_from_one_that_is_not_there(server: Server) -> None:
    with pytest.raises(StoreUnavailable, match="without TLS it is redis://") as caught:
        RedisStore(f"rediss://:{server.password}@127.0.0.1:{server.port}/0", timeout=dt.timedelta(seconds=1))
    assert server.password not in str(caught.value)


def test_a_file_that_cannot_be_used_is_named(ca_file: str, tmp_path: Path) -> None:
    secret = "rediss://:c4narypassword@localhost"
    odd = tmp_path / "odd.pem"
    odd.write_text("no certificate")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"ca_file": str(tmp_path / "none.pem")}, r"ca_file '.*none\.pem': No such file"),
        ({"ca_file": str(odd)}, r"ca_file '.*odd\.pem': holds no certificate"),
        ({"client_cert": str(tmp_path / "none.pem")}, r"client_cert '.*none\.pem': No such file"),
        ({"client_cert": ca_file, "client_key": str(odd)}, r"client_key '.*odd\.pem'"),
        ({"client_key": ca_file}, "no client_cert"),
    ]
    for files, says in cases:
        with pytest.raises(ConfigurationError, match=says) as caught:
            RedisStore(secret, **files)
        assert "c4nary" not in str(caught.value)


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - for this one alone
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    issued = AUTHORITY.ca.issue_cert("outbox.example.org")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    path = tmp_path / "both.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
        + issued.cert_chain_pems[0].bytes()
    )

    with pytest.raises(ConfigurationError, match="passphrase"):
        RedisStore("rediss://localhost", client_cert=str(path))
