"""AUTH by password and by token: what is said, under TLS only, once, and never shown."""

from __future__ import annotations

import base64
import functools
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from certificates import Authority
from command_line import CommandLine
from tap import Tap

from outbox.errors import ConfigurationError, RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.locate import Config, transport_from_url
from outbox.message import Message
from outbox.outcome import Accepted
from outbox.testing.smtp_sink import SMTPSink
from outbox.transports.smtp import SMTPTransport
from outbox.transports.smtp.auth import Bearer, Mechanism, Password, Token, exchange
from outbox.transports.smtp.opening import Channel, Opening, opening
from outbox.transports.smtp.reply import Reply
from outbox.transports.smtp.steps import Dialogue, Read, Write

AUTHORITY: Final = Authority()
A: Final = "ann@example.org"
USER, TOKEN = "app@example.org", "ya29.c4narytoken-_~+/=="
BOTH: Final = ("OAUTHBEARER", "XOAUTH2")


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def deliver(transport: SMTPTransport) -> Any:
    sent = Message(recipients=(A,), content=b"Subject: a\r\n\r\n", sender="s@example.org")
    try:
        return transport.deliver(sent, sent.recipients).results[A]
    finally:
        transport.close()


@pytest.fixture
def sink() -> Iterator[SMTPSink]:
    with SMTPSink(tls=AUTHORITY.server(), users={USER: TOKEN}, mechanisms=BOTH) as server:
        yield server
        assert not server.violations


def a_transport(sink: SMTPSink | Tap, **settings: Any) -> SMTPTransport:
    usual: dict[str, Any] = {"username": USER, "token": lambda: TOKEN, "security": "tls"}
    settings = usual | settings
    return SMTPTransport(sink.host, sink.port, ssl_context=AUTHORITY.client(), **settings)


# --- what is said ------------------------------------------------------------------------------


def test_the_standard_s_own_example_is_what_we_say() -> None:
    """RFC 7628 section 4.1, and the documentation of XOAUTH2."""
    token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
    bearer, xoauth2 = Token("user@example.com", token, "server.example.com", 143).mechanisms

    assert bearer.responses == (
        (
            b"bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmd"
            b"DRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
        ),
    )
    assert (
        base64.b64decode(xoauth2.responses[0]) == f"user=user@example.com\1auth=Bearer {token}\1\1".encode()
    )


def test_a_user_name_cannot_end_its_own_field() -> None:
    """RFC 5801 section 4."""
    said = base64.b64decode(Token("a,b=c", "t").mechanisms[0].responses[0])

    assert said == b"n,a=a=2Cb=3Dc,\1auth=Bearer t\1\1"


def converse(mechanism: Mechanism, *replies: str) -> tuple[list[str], Reply, str]:
    """What we say to such replies, the last of them, and the reason."""
    dialogue, said, rest = exchange(mechanism), list[str](), iter(replies)
    action: Any = next(dialogue)
    try:
        while True:
            if isinstance(action, Write):
                said.append(action.data.decode().removesuffix("\r\n"))
                action = dialogue.send(None)
            else:
                assert isinstance(action, Read)
                code, _, text = next(rest).partition(" ")
                action = dialogue.send(Reply(int(code), (text,)))
    except StopIteration as stop:
        reply, reason = stop.value
        assert not list(rest)
        return said, reply, reason


ERROR: Final = b64(json.dumps({"status": "invalid_token", "scope": "mail.send"}))
SHORT: Final = Token("u", "t").mechanisms
LONG: Final = Token("u", "t" * 600).mechanisms
WORDS: Final = [way.responses[0].decode() for way in (*SHORT, *LONG)]


@pytest.mark.parametrize(
    ("mechanism", "replies", "said"),
    [
        (SHORT[0], ["235 ok"], [f"AUTH OAUTHBEARER {WORDS[0]}"]),
        (SHORT[1], ["235 ok"], [f"AUTH XOAUTH2 {WORDS[1]}"]),
        (SHORT[0], ["334 ", "235 ok"], [f"AUTH OAUTHBEARER {WORDS[0]}", WORDS[0]]),
        (SHORT[0], [f"334 {ERROR}", "535 no"], [f"AUTH OAUTHBEARER {WORDS[0]}", "AQ=="]),
        (SHORT[1], [f"334 {ERROR}", "535 no"], [f"AUTH XOAUTH2 {WORDS[1]}", ""]),
        (SHORT[1], [f"334 {ERROR}", "334 x", "501 no"], [f"AUTH XOAUTH2 {WORDS[1]}", "", "*"]),
        (LONG[0], ["334 ", "235 ok"], ["AUTH OAUTHBEARER", WORDS[2]]),
        (LONG[1], ["334 ", f"334 {ERROR}", "535 no"], ["AUTH XOAUTH2", WORDS[3], ""]),
        (LONG[1], ["334 ", "235 ok"], ["AUTH XOAUTH2", WORDS[3]]),
        (LONG[0], ["504 no"], ["AUTH OAUTHBEARER"]),
    ],
)
def test_every_challenge_is_answered_as_the_rfc_asks(
    mechanism: Mechanism, replies: list[str], said: list[str]
) -> None:
    """RFC 7628 section 3.2.3: what says why is acknowledged, and only then the server refuses."""
    heard, last, reason = converse(mechanism, *replies)

    assert heard == said
    assert str(last) == replies[-1]
    assert reason == ("status invalid_token, scope mail.send" if f"334 {ERROR}" in replies else "")


@pytest.mark.parametrize(
    ("challenge", "reason"),
    [
        (b64('{"status":"401","schemes":"bearer"}'), "status 401"),
        (b64("no JSON"), "no JSON"),
        (b64('["a"]'), '["a"]'),
        (b64('{"status":7}'), ""),
        (b64("[" * 50_000), "[" * 50_000),
        ("not base64!", ""),
        (base64.b64encode(b"\xff\xfe").decode(), ""),
    ],
    ids=lambda text: text[:20],
)
def test_a_reason_in_whatever_form_does_no_harm(challenge: str, reason: str) -> None:
    assert converse(SHORT[0], f"334 {challenge}", "535 no")[2] == reason


# --- over the wire -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        (("XOAUTH2", "OAUTHBEARER", "PLAIN"), "OAUTHBEARER"),
        (("PLAIN", "XOAUTH2"), "XOAUTH2"),
    ],
)
@pytest.mark.parametrize("length", [1, 50])
def test_a_token_lets_us_in_by_the_first_mechanism_both_know(
    offered: Sequence[str], taken: str, length: int
) -> None:
    token = TOKEN * length
    with SMTPSink(tls=AUTHORITY.server(), users={USER: token}, mechanisms=offered) as sink:
        assert isinstance(deliver(a_transport(sink, token=lambda: token)), Accepted)

        assert [(login.mechanism, login.user, login.accepted) for login in sink.logins] == [
            (taken, USER, True)
        ]
        assert not sink.violations


def test_a_token_is_got_once_a_connection_in_the_thread_that_connects(sink: SMTPSink) -> None:
    asked = list[threading.Thread]()

    def token() -> str:
        asked.append(threading.current_thread())
        return TOKEN

    transport = a_transport(sink, token=token, max_messages=2)
    sent = Message(recipients=(A,), content=b"")
    for _ in range(4):
        transport.deliver(sent, [A])
    transport.close()

    assert sink.connections == 2
    assert asked == [threading.current_thread()] * 2


def test_a_token_that_was_renewed_is_the_next_connection_s(sink: SMTPSink) -> None:
    tokens = iter(["expired", TOKEN])
    transport = a_transport(sink, token=lambda: next(tokens))
    with pytest.raises(RelayMisconfigured, match=r"refused by OAUTHBEARER: 535 .* \[status invalid_token\]"):
        deliver(transport)

    assert isinstance(deliver(transport), Accepted)
    assert [login.accepted for login in sink.logins] == [False, True]


def test_a_refused_token_costs_one_auth_command_at_each_try(sink: SMTPSink) -> None:
    transport = a_transport(sink, token=lambda: "wrong")
    for tries in (1, 2):
        with pytest.raises(RelayMisconfigured, match="is the token of this user"):
            deliver(transport)
        assert [command for command in sink.commands if "AUTH" in command] == ["AUTH OAUTHBEARER"] * tries


@pytest.mark.parametrize("length", [1, 20])
@pytest.mark.parametrize("mechanism", BOTH)
def test_a_token_that_a_server_repeats_in_whichever_way_is_not_shown(mechanism: str, length: int) -> None:
    token = TOKEN * length
    sent = {way.name: way.responses[0].decode() for way in Token(USER, token, "127.0.0.1", 1).mechanisms}
    echo = sent[mechanism]
    for said in (token, b64(token), echo, echo[:40], echo[40:100], f"x{echo}"):
        with SMTPSink(tls=AUTHORITY.server(), users={USER: "other"}, mechanisms=[mechanism]) as sink:
            sink.on("auth", reply=f"535 5.7.8 what is {said} to me")
            with pytest.raises(RelayMisconfigured) as caught:
                deliver(a_transport(sink, token=lambda: token))
        assert re.search(r"what is x?\*\*\* to me", str(caught.value))


def test_the_reason_of_a_refusal_is_scrubbed_too() -> None:
    who = Token(USER, TOKEN)

    assert who.scrub(f"status bad token {TOKEN}\x1b") == "status bad token ***\\x1b"
    assert TOKEN not in repr(who) + repr(who.mechanisms)


def test_a_token_of_one_connection_is_not_shown_by_another_either() -> None:
    """What a server says later may repeat one that was renewed meanwhile."""
    tokens = iter([f"first-{TOKEN}", f"second-{TOKEN}"])
    who = Bearer(USER, lambda: next(tokens))
    for _ in range(2):
        who.token("relay", "mx", 587)

    assert who.scrub(f"\x1b you said first-{TOKEN} and second-{TOKEN}") == "\\x1b you said *** and ***"
    assert TOKEN not in repr(who)


# --- callbacks that fail -----------------------------------------------------------------------


class VaultSealed(Exception):
    pass


def raising(error: BaseException) -> Callable[[], str]:
    def token() -> str:
        raise error

    return token


def everything_of(error: BaseException | None) -> str:
    shown = ""
    while error is not None:
        shown += repr(error) + str(error) + repr(vars(error))
        error = error.__cause__ or error.__context__
    return shown


@pytest.mark.parametrize(
    ("token", "fault", "says"),
    [
        (raising(VaultSealed(f"sealed, {TOKEN}")), RelayUnavailable, "the callback raised VaultSealed$"),
        (raising(TimeoutError(TOKEN)), RelayUnavailable, "the callback raised TimeoutError$"),
        (raising(ConfigurationError("no token file")), RelayMisconfigured, "no token for .*: no token file"),
        (
            raising(RelayMisconfigured("idp", "consent was revoked")),
            RelayMisconfigured,
            "idp: consent was revoked",
        ),
        (raising(RelayUnavailable("idp", "not now")), RelayUnavailable, "idp: not now"),
        (lambda: None, RelayMisconfigured, "returned NoneType"),
        (TOKEN.encode, RelayMisconfigured, "returned bytes"),
        (lambda: "", RelayMisconfigured, "it is empty"),
        (lambda: f"Bearer {TOKEN}", RelayMisconfigured, "without 'Bearer'"),
        (lambda: f"{TOKEN}\1\1host=evil", RelayMisconfigured, "that can be sent"),
        (lambda: f"{TOKEN}\n", RelayMisconfigured, "a line end"),
    ],
)
def test_where_there_is_no_token_nothing_is_connected_and_it_is_not_shown(
    sink: SMTPSink, token: Any, fault: type[RelayFault], says: str
) -> None:
    with pytest.raises(fault, match=says) as caught:
        deliver(a_transport(sink, token=token))

    assert sink.connections == 0
    assert TOKEN not in everything_of(caught.value)


def test_a_callback_that_wants_to_end_its_thread_ends_no_message(sink: SMTPSink) -> None:
    """In the main thread it is the program's own end, and goes through."""
    faults = list[BaseException]()

    def work() -> None:
        try:
            deliver(a_transport(sink, token=raising(SystemExit(TOKEN))))
        except BaseException as error:  # noqa: BLE001 - whatever comes out of it
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    with pytest.raises(SystemExit):
        deliver(a_transport(sink, token=raising(SystemExit(TOKEN))))

    assert list(map(type, faults)) == [RelayUnavailable]
    assert str(faults[0]).endswith("the callback raised SystemExit")
    assert TOKEN not in everything_of(faults[0])


def test_an_interrupt_within_the_callback_goes_through(sink: SMTPSink) -> None:
    with pytest.raises(KeyboardInterrupt):
        deliver(a_transport(sink, token=raising(KeyboardInterrupt())))


# --- under TLS only ----------------------------------------------------------------------------


@pytest.mark.parametrize("who", [{"password": "pw"}, {"token": lambda: TOKEN}], ids=["password", "token"])
@pytest.mark.parametrize("security", ["none", "opportunistic"])
def test_credentials_and_a_channel_in_clear_exclude_each_other(who: dict[str, Any], security: Any) -> None:
    with pytest.raises(ConfigurationError, match="in clear"):
        SMTPTransport(username=USER, security=security, **who)


@pytest.mark.parametrize("channel", ["none", "opportunistic"])
def test_not_even_a_plan_that_says_so_sends_credentials_in_clear(channel: Channel) -> None:
    plan = Opening(relay="r", name=b"me", channel=channel, identity=Password("u", "p"))
    said = list[bytes]()
    with pytest.raises(RelayMisconfigured, match="under TLS only"):
        play(opening(plan), [Reply(220, ("hi",)), Reply(250, ("mx", "AUTH PLAIN"))], said)

    assert said == [b"EHLO me\r\n"]


def play(dialogue: Dialogue[Any], replies: Sequence[Reply], said: list[bytes]) -> None:
    rest, answer = iter(replies), None
    while True:
        action = dialogue.send(answer)
        answer = next(rest) if isinstance(action, Read) else None
        if isinstance(action, Write):
            said.append(action.data)


def test_on_this_machine_too_credentials_wait_for_tls(sink: SMTPSink) -> None:
    with SMTPSink(users={USER: TOKEN}, mechanisms=BOTH) as bare, Tap(bare.port) as tap:
        with pytest.raises(RelayMisconfigured, match="does not offer STARTTLS"):
            deliver(a_transport(tap, security="auto"))

        assert bytes(tap.heard) == b"EHLO [127.0.0.1]\r\n"


@pytest.mark.parametrize(
    ("who", "offered", "advice"),
    [
        ({}, ("PLAIN", "LOGIN"), r"does OAUTHBEARER and XOAUTH2 not here .*: it takes a password"),
        ({"token": None, "password": "p"}, BOTH, r"does PLAIN and LOGIN not here .*: it takes a token"),
    ],
)
def test_where_no_mechanism_is_shared_it_is_said_which_would_be(
    who: dict[str, Any], offered: Sequence[str], advice: str
) -> None:
    with SMTPSink(tls=AUTHORITY.server(), users={USER: TOKEN}, mechanisms=offered) as sink:
        with pytest.raises(RelayMisconfigured, match=advice):
            deliver(a_transport(sink, **who))

        assert sink.logins == ()


@pytest.mark.parametrize("code", ["500", "502"])
def test_where_auth_itself_is_unknown_no_second_is_sent(code: str) -> None:
    """Nobody can tell whether the first was counted."""
    with SMTPSink(tls=AUTHORITY.server(), users={USER: "p"}, mechanisms=["PLAIN", "LOGIN"]) as sink:
        sink.on("auth", reply=f"{code} what?")
        with pytest.raises(RelayMisconfigured, match=code):
            deliver(a_transport(sink, token=None, password="p"))

        assert [command for command in sink.commands if "AUTH" in command] == ["AUTH PLAIN"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"token": lambda: "t"}, "one of them is missing"),
        ({"username": "", "token": lambda: "t"}, "one of them is missing"),
        ({"username": "u"}, "one of them is missing"),
        ({"username": "u", "password": "c4narypassword", "token": lambda: "t"}, "not both"),
        ({"username": "u", "token": "c4narypassword"}, "is a function"),
        ({"username": "u", "password": "c4narypassword\nmore"}, "a line end or another control"),
        ({"username": "u\r", "password": "c4narypassword"}, "a line end or another control"),
        ({"username": "u", "password": "\ufeffc4narypassword"}, "byte order mark"),
        ({"username": "u\1auth=x", "token": lambda: "t"}, "control character"),
    ],
)
def test_credentials_that_cannot_be_meant_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        SMTPTransport(**settings)

    assert "c4narypassword" not in everything_of(caught.value)


def test_a_callback_is_not_shown() -> None:
    """A partial object shows what is bound to it."""
    bound: Any = functools.partial(str, "c4narypassword")
    transport = SMTPTransport(username="u", token=bound, connect=bound)

    assert "c4narypassword" in repr(bound)
    assert "c4narypassword" not in repr(transport) + repr(vars(transport)) + repr(Bearer("u", bound))


# --- the command line --------------------------------------------------------------------------


def test_a_token_file_is_read_anew_for_each_connection(
    outbox: CommandLine, sink: SMTPSink, tmp_path: Path
) -> None:
    AUTHORITY.ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    file = tmp_path / "token"
    file.write_text("old\n")
    file.chmod(0o600)
    config = Config.load(environ={"OUTBOX_SMTP_TOKEN_FILE": str(file)})
    transport = transport_from_url(
        f"smtps://{USER}@127.0.0.1:{sink.port}?ca_file={tmp_path}/ca.pem", token=config.smtp_token()
    )
    assert isinstance(transport, SMTPTransport)
    with pytest.raises(RelayMisconfigured, match="535"):
        deliver(transport)
    file.write_text(f"{TOKEN}\n")
    assert isinstance(deliver(transport), Accepted)
    file.unlink()
    with pytest.raises(RelayMisconfigured, match="cannot read the token file"):
        deliver(transport)


def test_a_command_authenticates_by_a_token_file(outbox: CommandLine, sink: SMTPSink, tmp_path: Path) -> None:
    AUTHORITY.ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    outbox.submit(A)
    outbox.environ(
        OUTBOX_TRANSPORT=f"smtps://{USER.replace('@', '%40')}@127.0.0.1:{sink.port}?ca_file={tmp_path}/ca.pem",
        OUTBOX_SMTP_TOKEN_FILE=str(tmp_path / "token"),
    )
    ran = outbox("drain")
    assert (ran.status, "cannot read the token file" in ran.err) == (78, True)
    (tmp_path / "token").write_text("c4narytoken\n")
    ran = outbox("drain")
    assert (ran.status, "535" in ran.err, "c4narytoken" in ran.err) == (78, True, False)
    assert "invalid_token" in outbox("status").out
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert outbox("drain").status == 0
    assert [received.user for received in sink.messages] == [USER]


def test_what_authenticates_is_one_thing(tmp_path: Path) -> None:
    """The environment goes before the file, whichever of them each names."""
    for name in ("pw", "tk"):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o600)
    file = tmp_path / "outbox.toml"
    file.write_text('token_file = "tk"\n')
    token = Config.load(file, environ={}).smtp_token()
    assert token is not None
    assert token() == "tk"
    assert Config.load(file, environ={}).secrets() == {"tk"}
    overruled = Config.load(file, environ={"OUTBOX_SMTP_PASSWORD": "pw"})
    assert (overruled.smtp_token(), overruled.smtp_password()) == (None, "pw")
    file.write_text('password_file = "pw"\ntoken_file = "tk"\n')
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        Config.load(file, environ={}).smtp_token()
