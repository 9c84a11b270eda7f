"""An SMTPSink's script says what is wrong with it: a typo, or a hook that raises, leaves no test green."""

from __future__ import annotations

import datetime as dt
import smtplib
from collections.abc import Callable
from typing import Any

import pytest

from outbox.errors import ConfigurationError
from outbox.testing.smtp_sink import Answer, Heard, SMTPSink

NEVER: list[dict[str, Any]] = [
    {"step": "rctp"},
    {"step": "RCPT"},
    {"address": 5},
    {"reply": ""},
    {"reply": "no such user"},
    {"reply": "550-no such user"},
    {"reply": "5500 no such user"},
    {"reply": "550-a\n551 b"},
    {"reply": "550 a\n550 b"},
    {"reply": "999 x"},
    {"reply": "150 x"},
    {"step": "lhlo"},
    {"step": "starttls"},
    {"step": "auth"},
    {"step": "ehlo", "address": "ann@example.org"},
    {"step": "connect", "address": "ann@example.org"},
    {"address": "<ann@example.org>"},
    {"reply": 550},
    {"after": 1},
    {"after": dt.timedelta(seconds=-1)},
    {"drip": 0.1},
    {"cut": "all"},
    {"at": -1},
    {"connection": 0},
    {"skip": -1},
    {"times": 0},
    {"times": -1},
    {"times": 1.5},
]


@pytest.mark.parametrize("rule", NEVER, ids=str)
def test_a_rule_that_could_never_come_about_is_refused(rule: dict[str, Any]) -> None:
    with SMTPSink() as sink, pytest.raises(ConfigurationError):
        sink.on(**{"step": "rcpt", "reply": "550 no", **rule})


def test_the_greetings_of_smtp_never_come_over_lmtp() -> None:
    with SMTPSink(protocol="lmtp") as sink:
        sink.on("lhlo", reply="250 yes")
        for step in ("ehlo", "helo"):
            with pytest.raises(ConfigurationError, match="it speaks LMTP"):
                sink.on(step, reply="250 yes")


@pytest.mark.parametrize("setting", ["tls", "starttls"])
@pytest.mark.parametrize("given", [True, "cert.pem"])
def test_what_is_no_ssl_context_is_refused_at_once(setting: str, given: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"{setting} of an SMTPSink is an ssl\.SSLContext"):
        SMTPSink(**{setting: given})


def test_a_domain_is_the_same_in_either_case_and_a_mailbox_is_not() -> None:
    with SMTPSink() as sink, smtplib.SMTP(sink.host, sink.port) as smtp:
        sink.on("rcpt", "ann@Example.ORG", reply="550 5.1.1 no")
        smtp.ehlo()
        smtp.mail("s@example.org")
        codes = [smtp.rcpt(each)[0] for each in ("ann@EXAMPLE.org", "Ann@example.org")]

    assert codes == [550, 250]


@pytest.mark.parametrize("gate", [{"step": "dto"}, {"step": "dot", "times": 0}], ids=str)
def test_a_gate_that_nobody_could_come_to_is_refused(gate: dict[str, Any]) -> None:
    with SMTPSink() as sink, pytest.raises(ConfigurationError):
        sink.hold(**gate)


@pytest.mark.parametrize(
    "reply", ["550", "550 no", "550-a\n550 b", "550-a\r\n550-\r\n550", b"what?", [], None]
)
def test_a_whole_reply_and_any_bytes_are_taken(reply: Any) -> None:
    with SMTPSink() as sink:
        sink.on("rcpt", reply=reply)


@pytest.mark.parametrize("setting", ["offers", "mechanisms"])
def test_text_for_a_list_is_refused(setting: str) -> None:
    settings: dict[str, Any] = {setting: "PLAIN"}
    with pytest.raises(ConfigurationError, match=setting):
        SMTPSink(**settings)


class Trouble(Exception):
    pass


def raising(_: object) -> Any:
    raise Trouble("in the hook")


def say_noop(sink: SMTPSink) -> None:
    with smtplib.SMTP(sink.host, sink.port) as smtp, pytest.raises(smtplib.SMTPServerDisconnected):
        smtp.noop()


def at_noop(then: Callable[[object], Any]) -> Callable[[Heard], Any]:
    return lambda heard: then(heard) if heard.step == "noop" else None


def test_what_a_hook_raises_is_raised_at_the_end_of_the_block() -> None:
    with pytest.raises(Trouble), SMTPSink(hook=at_noop(raising)) as sink:
        say_noop(sink)


def test_what_a_hook_raises_is_raised_by_close_and_once() -> None:
    sink = SMTPSink(hook=at_noop(raising))
    say_noop(sink)
    with pytest.raises(Trouble):
        sink.close()

    sink.close()


def test_a_test_that_fails_within_its_hook_fails() -> None:
    with pytest.raises(pytest.fail.Exception), SMTPSink(hook=at_noop(lambda _: pytest.fail("no"))) as sink:
        say_noop(sink)


def test_what_a_function_for_addresses_raises_is_raised_too() -> None:
    sink = SMTPSink()
    sink.on("noop", raising, reply="250 yes")
    say_noop(sink)

    with pytest.raises(Trouble):
        sink.close()


@pytest.mark.parametrize("said", ["no such user", 550, Answer("550 no", after=1)], ids=str)  # type: ignore[arg-type]  # wrong on purpose
def test_what_a_hook_cannot_mean_is_refused(said: Any) -> None:
    with pytest.raises(ConfigurationError), SMTPSink(hook=at_noop(lambda _: said)) as sink:
        say_noop(sink)


def fail_outside(sink: SMTPSink) -> None:
    with sink:
        say_noop(sink)
        raise KeyError("outside")


def test_what_fails_outside_comes_first_and_tells_of_the_hook() -> None:
    with pytest.raises(KeyError) as raised:
        fail_outside(SMTPSink(hook=at_noop(raising)))

    assert "in the hook" in raised.value.__notes__[0]
