"""What a transport cannot be made with is said when it is made; what turns out wrong later costs no message an attempt."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from certificates import Authority

from outbox import MemoryStore, Message, Outbox, Outcome, RetryPolicy, State
from outbox.errors import ConfigurationError, RelayMisconfigured
from outbox.handover import hand_over
from outbox.testing import SMTPSink
from outbox.transports.smtp import SMTPTransport, Timeouts

AUTHORITY: Final = Authority()
MAIL: Final = Message(recipients=("ann@example.org",), content=b"Subject: x\r\n\r\nhi\r\n")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"host": b"c4narypassword"}, "host must be text, and is of type bytes"),
        ({"port": "25"}, "port must be a whole number, and is of type str"),
        ({"port": True}, "port must be a whole number, and is of type bool"),
        ({"path": 5}, "path must be the name of a Unix socket, and is of type int"),
        ({"source_address": 5}, "source_address must be text"),
        ({"local_hostname": b"a"}, "local_hostname must be text"),
        ({"username": b"app", "password": "c4narypassword"}, "username must be text"),
        ({"username": "app", "password": b"c4narypassword"}, "password must be text"),
        ({"ca_file": 5}, "ca_file must be the name of a file"),
        ({"ssl_context": True}, "ssl_context must be an ssl.SSLContext, and is of type bool"),
        ({"timeout": 30}, "timeout must be a datetime.timedelta, and is of type int"),
        ({"timeouts": 30}, "timeouts must be a Timeouts"),
        ({"dsn": "FAILURE"}, "dsn must be a DSN, and is of type str"),
        ({"max_messages": 1.5}, "max_messages must be a whole number"),
        ({"max_age": 300}, "max_age must be a datetime.timedelta"),
        ({"idle": None}, "idle must be a datetime.timedelta, and is of type NoneType"),
        ({"pipelining": "no"}, "pipelining must be True or False"),
        ({"source_address": "a\0b"}, r"source_address 'a\\x00b' is no address"),
        ({"source_address": ""}, "source_address '' is no address"),
    ],
    ids=str,
)
def test_a_setting_of_the_wrong_type_is_named_when_the_transport_is_made(
    settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        SMTPTransport(**settings)

    assert "c4narypassword" not in str(caught.value)


def test_a_time_that_is_a_number_is_named() -> None:
    seconds: Any = 30
    with pytest.raises(
        ConfigurationError, match=r"timeout 'connect' must be a datetime\.timedelta, and is of type int"
    ):
        Timeouts(connect=seconds)


def test_what_is_left_out_may_be_said_to_be_none() -> None:
    left_out = dict.fromkeys(("host", "port", "source_address", "ssl_context", "timeout", "timeouts", "dsn"))
    SMTPTransport(**left_out, max_age=dt.timedelta(0), path=None).close()  # type: ignore[arg-type]  # all are None


# --- a context of one's own --------------------------------------------------------------------


def lax(context: ssl.SSLContext) -> ssl.SSLContext:
    context.check_hostname = False
    return context


def blind(context: ssl.SSLContext) -> ssl.SSLContext:
    lax(context).verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("spoil", [lax, blind])
@pytest.mark.parametrize(
    "who", [{"password": "c4narypassword"}, {"token": lambda: "c4narypassword"}], ids=["password", "token"]
)
def test_credentials_go_by_no_context_that_takes_just_any_certificate(
    spoil: Callable[[ssl.SSLContext], ssl.SSLContext], who: dict[str, Any]
) -> None:
    context = spoil(AUTHORITY.client())
    with pytest.raises(ConfigurationError, match="could show the credentials to anybody"):
        SMTPTransport("mail.example.org", username="app", ssl_context=context, **who)

    SMTPTransport("mail.example.org", ssl_context=context).close()


# --- later -------------------------------------------------------------------------------------


def test_a_key_log_that_cannot_be_written_kills_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    AUTHORITY.ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with SMTPSink(starttls=AUTHORITY.server()) as sink:
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path))
        transport = SMTPTransport(sink.host, sink.port, security="starttls")
        with pytest.raises(
            RelayMisconfigured, match="where SSLKEYLOGFILE has TLS log its keys, cannot be written"
        ):
            transport.deliver(MAIL, MAIL.recipients)
        with pytest.raises(ConfigurationError, match="SSLKEYLOGFILE"):
            SMTPTransport(sink.host, sink.port, ca_file=tmp_path / "ca.pem")


class Unset:
    """A transport that finds out late what it lacks."""

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        raise ConfigurationError("the key file /run/key\x1b is missing")

    def close(self) -> None:
        pass


def test_a_transport_that_lacks_a_setting_charges_no_message_for_it() -> None:
    fault = hand_over(Unset(), MAIL, MAIL.recipients)
    store = MemoryStore()
    with Outbox(store, Unset(), retry=RetryPolicy(attempts=1)) as outbox:
        number = outbox.submit(MAIL)
        outbox.drain()
        record = store.get(number)

    assert isinstance(fault, RelayMisconfigured)
    assert str(fault) == r"Unset: the key file /run/key\x1b is missing"
    assert record is not None
    assert (record.summary.state, len(record.history)) == (State.QUEUED, 0)
