"""What docs/smtp.md shows is so: each example delivers a mail, to a receiver that stands in for the server it names."""

from __future__ import annotations

import inspect
import re
import socket
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from certificates import Authority
from test_docs import ROOT, Block, blocks

from outbox import Message, SMTPTransport
from outbox.locate import Config, transport_from_url
from outbox.outcome import Accepted
from outbox.testing import SMTPSink

PAGE: Final = ROOT / "docs" / "smtp.md"
TEXT: Final = PAGE.read_text(encoding="utf-8")
EXAMPLES: Final = {
    heading: [block for block in blocks(PAGE, text) if block.language == "python"]
    for heading, _, text in (part.partition("\n") for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:])
}
SECRET: Final = "c4narypassword"
AUTHORITY: Final = Authority()


def module(name: str, **names: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(names)
    return made


class Msal:
    def __init__(self, client: str, *, authority: str, client_credential: str) -> None:
        assert client_credential == SECRET

    def acquire_token_for_client(self, scopes: list[str]) -> dict[str, str]:
        return {"access_token": SECRET}


class Google:
    valid = False
    token = ""

    @classmethod
    def from_service_account_file(cls, file: str, *, scopes: list[str], subject: str) -> Google:
        return cls()

    def refresh(self, request: object) -> None:
        self.valid, self.token = True, SECRET


@pytest.fixture
def led_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[SMTPSink], None]:
    """Every name leads to this sink, and its authority is the system's."""
    AUTHORITY.ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    def lead(sink: SMTPSink) -> None:
        def answer(host: str, port: int, *_: object, **__: object) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (sink.host, sink.port))]

        def through(address: tuple[str, int], timeout: float, **proxy: object) -> socket.socket:
            assert proxy["proxy_addr"] == "127.0.0.1"
            return socket.create_connection((sink.host, sink.port), timeout)

        requests = module("google.auth.transport.requests", Request=object)
        for name, made in {
            "msal": module("msal", ConfidentialClientApplication=Msal),
            "socks": module("socks", create_connection=through, SOCKS5=2),
            "google": module("google"),
            "google.auth": module("google.auth"),
            "google.auth.transport": module("google.auth.transport"),
            "google.auth.transport.requests": requests,
            "google.oauth2": module("google.oauth2", service_account=module("s", Credentials=Google)),
        }.items():
            monkeypatch.setitem(sys.modules, name, made)
        monkeypatch.setattr(socket, "getaddrinfo", answer)

    return lead


def taken(transport: Any, sink: SMTPSink) -> bool:
    sent = Message(recipients=("ann@example.org",), content=b"Subject: a\r\n\r\n", sender="shop@example.org")
    try:
        return isinstance(transport.deliver(sent, sent.recipients).results["ann@example.org"], Accepted)
    finally:
        transport.close()
        assert not sink.violations


HEADINGS: Final[dict[str, list[dict[str, Any]]]] = {
    "The mail server of this machine": [{}],
    "A provider, with a password": [{"tls": "smtp.provider.example", "users": {"shop": SECRET}}],
    "Microsoft or Google, with a token": [
        {
            "starttls": "smtp.office365.com",
            "users": {"shop@example.org": SECRET},
            "mechanisms": ["LOGIN", "XOAUTH2"],
        },
        {
            "tls": "smtp.gmail.com",
            "users": {"shop@example.org": SECRET},
            "mechanisms": ["PLAIN", "XOAUTH2", "OAUTHBEARER"],
        },
    ],
    "Through a proxy": [{"tls": "smtp.provider.example", "users": {"shop": SECRET}}],
}
"""What each example meets: under which name its TLS is, and whom it knows."""
ELSEWHERE: Final = {
    "Mailboxes of this machine, over LMTP": 1,
    "With a certificate of your own": 1,
    "When it does not work": 0,
    "How long things may take": 1,
}


def test_every_example_is_run() -> None:
    numbers = {heading: len(examples) for heading, examples in EXAMPLES.items()}

    assert numbers == {heading: len(met) for heading, met in HEADINGS.items()} | ELSEWHERE


def run(heading: str, number: int = 0, replaced: tuple[str, str] = ("", "")) -> SMTPTransport:
    example = EXAMPLES[heading][number]
    code = example.code.replace(*replaced)
    bound: dict[str, Any] = {"read_secret": lambda: SECRET}
    exec(compile(code, str(example), "exec", dont_inherit=True), bound)
    transport = bound["transport"]
    assert isinstance(transport, SMTPTransport)
    return transport


@pytest.mark.parametrize(
    ("heading", "number"), [(heading, n) for heading, met in HEADINGS.items() for n in range(len(met))]
)
def test_an_example_delivers(
    led_to: Callable[[SMTPSink], None],
    monkeypatch: pytest.MonkeyPatch,
    heading: str,
    number: int,
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: f"{SECRET}\n")
    met: dict[str, Any] = dict(HEADINGS[heading][number])
    for security in {"tls", "starttls"} & met.keys():
        met[security] = AUTHORITY.server(met[security])
    with SMTPSink(**met) as sink:
        led_to(sink)
        assert taken(run(heading, number), sink)


def test_mailboxes_are_reached_by_their_socket(tmp_path: Path) -> None:
    heading = "Mailboxes of this machine, over LMTP"
    with SMTPSink(path=tmp_path / "lmtp", protocol="lmtp") as sink:
        assert taken(run(heading, replaced=("/run/dovecot/lmtp", str(tmp_path / "lmtp"))), sink)


def test_a_certificate_of_ours_is_shown(led_to: Callable[[SMTPSink], None], tmp_path: Path) -> None:
    ours = AUTHORITY.ca.issue_cert("shop.example.org")
    ours.cert_chain_pems[0].write_to_path(str(tmp_path / "shop.pem"))
    ours.private_key_pem.write_to_path(str(tmp_path / "shop.key"))
    AUTHORITY.ca.cert_pem.write_to_path(str(tmp_path / "corp-ca.pem"))
    with SMTPSink(starttls=AUTHORITY.demanding("relay.corp.example")) as sink:
        led_to(sink)
        assert taken(run("With a certificate of your own", replaced=("/etc/outbox", str(tmp_path))), sink)


def test_the_shorter_of_two_times_holds() -> None:
    timeouts = run("How long things may take")._server.timeouts

    assert (timeouts.connect.seconds, timeouts.dot.seconds, timeouts.greeting.seconds) == (10, 120, 60)


@pytest.mark.parametrize(
    "block", [each for each in blocks(PAGE, TEXT) if each.language == "console"], ids=str
)
def test_the_settings_for_the_command_line_are_settings(tmp_path: Path, block: Block) -> None:
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    said = dict(re.findall(r"^export (\w+)=(\S+)$", block.code, re.MULTILINE))
    config = Config.load(
        environ={name: str(tmp_path / "secret") if name.endswith("_FILE") else v for name, v in said.items()}
    )
    transport = transport_from_url(
        config.transport or "", password=config.smtp_password(), token=config.smtp_token()
    )
    transport.close()

    assert "username='shop" in repr(transport)


@pytest.mark.parametrize("url", re.findall(r"`(?:--transport )?((?:smtp|lmtp)(?:\+unix)?://[^`…]+)`", TEXT))
def test_a_url_of_the_page_is_one(url: str) -> None:
    transport_from_url(url).close()


def test_what_can_be_read_is_what_is_written() -> None:
    """Each text of the table is in the sources, apart from what the server says and what joins two of them."""
    code = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "src/outbox/transports/smtp").glob("*.py")
    )
    joined = re.sub(r'"\s*\n\s*f?"', "", code)
    rows = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")]
    said = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    pieces = [piece.strip() for text in said for piece in re.split(r"…|[A-Z]+: |535|\[status|\]|: ", text)]

    assert len(said) > 10
    assert [piece for piece in pieces if piece not in joined] == []


def test_the_reference_has_every_setting() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    table = reference[reference.index("| `SMTPTransport` setting") :].partition("\n\n")[0]
    settings = inspect.signature(SMTPTransport).parameters.keys() - {"clock"}

    assert {name for name in settings if f"`{name}`" not in table} == set()
