"""What a transport of another's making was told in confidence, and says again: nowhere, and it is what it was otherwise."""

from __future__ import annotations

import base64
import datetime as dt
import html
import itertools
import json
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from canaries import TOKEN
from command_line import CommandLine
from started import Started, put_mail

from outbox.errors import ConfigurationError, RelayMisconfigured, RelayUnavailable
from outbox.handover import Handover, hand_over
from outbox.locate import transport_from_url
from outbox.locate.discreet import discreet
from outbox.message import Message
from outbox.naming import NamesRelays
from outbox.outcome import Accepted, Outcome, PermFailed, TempFailed, Uncertain, Untried
from outbox.protocols import Delivery, SupportsBatch, SupportsIdle, SupportsRelays

SECRET = "S3cretTok77"
ANN = "ann@example.org"
MAIL = Message(recipients=[ANN], sender="shop@example.org", content=b"Subject: hello\r\n\r\nThank you.\r\n")
CAPABILITIES = (SupportsBatch, SupportsRelays, NamesRelays, SupportsIdle)


class Leaky:
    """Answers with what it was told."""

    def __init__(self, token: str, answer: Any = None) -> None:
        self.token = token
        self.answer = PermFailed(f"550 token {token} is revoked") if answer is None else answer

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer if isinstance(self.answer, Outcome) else Outcome.same(recipients, self.answer)

    def close(self) -> None:
        if isinstance(self.answer, BaseException):
            raise self.answer


class _Batch:
    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        for delivery in deliveries:
            yield self.deliver(delivery.message, delivery.recipients)  # type: ignore[attr-defined]


class _Relays:
    def relay(self, message: Message, recipient: str, /) -> str:
        return f"mx of {self.token}"  # type: ignore[attr-defined]


class _Names:
    def relay_named(self, name: str, /) -> str:
        return f"mx of {self.token}"  # type: ignore[attr-defined]


class _Idles:
    def expire(self) -> None: ...


def delivered(transport: Any) -> Any:
    return hand_over(transport, MAIL, [ANN])


@pytest.mark.parametrize("kind", [Accepted, TempFailed, PermFailed, Uncertain, Untried])
def test_no_reply_of_a_transport_says_what_its_url_hides(kind: Any) -> None:
    outcome = delivered(discreet(Leaky(SECRET, kind(f"550 5.7.8 token {SECRET} is revoked")), [SECRET]))

    assert type(outcome.results[ANN]) is kind
    assert outcome.results[ANN].reply == "550 5.7.8 token *** is revoked"


def test_nothing_else_of_a_report_says_it_and_all_of_it_stays() -> None:
    wait = dt.timedelta(seconds=7)
    told = Outcome(
        results={ANN: TempFailed(f"450 {SECRET}", wait)},
        relay=f"{SECRET}.example.org:25",
        fault=RelayMisconfigured("mx", f"{SECRET} is revoked", retry_after=wait),
        cut=True,
        dialogue=f"AUTH {SECRET}\n235 ok",
    )

    outcome = delivered(discreet(Leaky(SECRET, told), [SECRET]))

    assert outcome.results[ANN] == TempFailed("450 ***", wait)
    assert (outcome.relay, outcome.dialogue, outcome.cut) == ("***.example.org:25", "AUTH ***\n235 ok", True)
    assert str(outcome.fault) == "mx: *** is revoked"
    assert (type(outcome.fault), outcome.fault.retry_after, outcome.fault.costly) == (
        RelayMisconfigured,
        wait,
        True,
    )


def test_a_report_without_secrets_is_the_one_that_was_made() -> None:
    told = Outcome.same([ANN], PermFailed("550 no such user", by_us=True), relay="mx")

    assert discreet(Leaky(SECRET, told), [SECRET]).deliver(MAIL, [ANN]) is told


def test_a_secret_that_looks_like_the_code_of_a_reply_takes_no_code_away() -> None:
    outcome = delivered(discreet(Leaky("550", PermFailed("550 5.1.1 no 550 such 5")), ["550", "5"]))

    assert outcome.results[ANN].reply == "550 5.1.1 no *** such ***"


def test_a_refusal_that_is_no_whole_result_of_ours_keeps_its_meaning() -> None:
    class Refused(PermFailed):
        def __init__(self, reply: str, number: int) -> None:
            super().__init__(reply)

    outcome = delivered(discreet(Leaky(SECRET, Refused(f"550 {SECRET}", 3)), [SECRET]))

    assert outcome.results[ANN] == PermFailed("550 ***")


@pytest.mark.parametrize(
    "error",
    [
        RelayUnavailable("mx", f"{SECRET} is revoked"),
        RelayMisconfigured(SECRET, "is revoked"),
        ConfigurationError(f"{SECRET} is revoked"),
        RuntimeError(f"{SECRET} is revoked"),
    ],
)
def test_no_error_of_a_transport_says_it(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    error.add_note(f"of {SECRET}")
    raw, clean = delivered(Leaky(SECRET, error)), delivered(discreet(Leaky(SECRET, error), [SECRET]))

    assert type(clean) is type(raw)
    assert SECRET not in str(clean)
    assert "***" in str(clean)
    assert str(clean) == str(raw).replace(SECRET, "***")
    assert caplog.records[1:] == caplog.records[-1:] if caplog.records else True
    assert SECRET not in "".join(logging.Formatter().format(record) for record in caplog.records[1:])


def test_what_led_to_an_error_does_not_say_it_either() -> None:
    class Connects(Leaky):
        def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
            raise RuntimeError("no connection") from OSError(f"no {self.token}")

    with pytest.raises(Exception, match="no connection") as caught:
        discreet(Connects(SECRET), [SECRET]).deliver(MAIL, [ANN])

    assert type(caught.value).__name__ == "RuntimeError"
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), RuntimeError("no connection")])
def test_an_error_without_secrets_is_the_one_that_was_raised(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        discreet(Leaky(SECRET, error), [SECRET]).deliver(MAIL, [ANN])

    assert caught.value is error


def test_an_end_that_says_it_is_an_end_without_it() -> None:
    with pytest.raises(SystemExit) as caught:
        discreet(Leaky(SECRET, SystemExit(SECRET)), [SECRET]).close()

    assert str(caught.value) == "***"


@pytest.mark.parametrize(
    "parts",
    [parts for n in range(5) for parts in itertools.combinations((_Batch, _Relays, _Names, _Idles), n)],
)
def test_what_is_discreet_can_do_what_it_could_before_and_nothing_else(parts: tuple[type, ...]) -> None:
    plain = type("Courier", (*parts, Leaky), {})(SECRET)

    clean = discreet(plain, [SECRET])

    assert [isinstance(clean, each) for each in CAPABILITIES] == [
        isinstance(plain, each) for each in CAPABILITIES
    ]
    assert (type(clean).__name__, clean.token) == ("Courier", SECRET)
    if isinstance(clean, SupportsRelays):
        assert clean.relay(MAIL, ANN) == "mx of ***"
    if isinstance(clean, NamesRelays):
        assert clean.relay_named("mx") == "mx of ***"


def test_what_was_told_nothing_in_confidence_is_itself() -> None:
    transport = Leaky("")

    assert discreet(transport, []) is transport


class InBatches(_Batch, Leaky):
    closed = False

    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        try:
            yield from super().deliver_many(deliveries)
        finally:
            self.closed = True


def reports(transport: Any, number: int) -> list[Any]:
    handover = Handover(transport, iter([Delivery(MAIL, (ANN,))] * number))
    found = list(iter(handover.next, None))
    handover.close()
    return [report for _, report in found]


def test_every_report_of_a_batch_is_without_it_and_the_batch_is_closed() -> None:
    transport = InBatches(SECRET)

    assert [str(each.results[ANN].reply) for each in reports(discreet(transport, [SECRET]), 3)] == [
        "550 token *** is revoked"
    ] * 3
    assert transport.closed


def test_a_batch_that_is_left_is_closed() -> None:
    transport = InBatches(SECRET)
    handover = Handover(discreet(transport, [SECRET]), iter([Delivery(MAIL, (ANN,))] * 3))
    handover.next()
    handover.close()

    assert transport.closed


def test_a_fault_within_a_batch_is_without_it() -> None:
    (fault,) = reports(discreet(InBatches(SECRET, RelayUnavailable("mx", f"no {SECRET}")), [SECRET]), 2)

    assert str(fault) == "mx: no ***"


@pytest.mark.parametrize("answer", [lambda told: told, iter, lambda told: None, lambda told: told[:1]])
def test_a_batch_that_is_no_generator_is_understood_as_it_was(answer: Any) -> None:
    class Eager(Leaky):
        def deliver_many(self, deliveries: Iterable[Delivery], /) -> Any:
            return answer([self.deliver(each.message, each.recipients) for each in deliveries])

    raw, clean = (reports(each, 3) for each in (Eager("x" * 9), discreet(Eager(SECRET), [SECRET])))

    assert [str(each).replace("x" * 9, "***") for each in raw] == [str(each) for each in clean]


# -- other forms of it


ODD = "S3cr\"t'P\\äss wörd&<7"
WAYS: dict[str, Callable[[str], str]] = {
    "repr": lambda text: repr(RuntimeError(text)),
    "repr beside a quotation mark": lambda text: repr(f'"{text}'),
    "repr beside an apostrophe": lambda text: repr(f"'{text}"),
    "ascii": ascii,
    "octets": lambda text: str(text.encode()),
    "JSON": json.dumps,
    "JSON as it is": lambda text: json.dumps(text, ensure_ascii=False),
    "HTML": html.escape,
    "HTML but quotation marks": lambda text: html.escape(text, quote=False),
    "a URL": quote,
    "a URL's path": lambda text: quote(text, safe=""),
    "a form": quote_plus,
    "a form of small letters": lambda text: quote_plus(text).lower(),
    "capitals": str.upper,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("secret", [SECRET, ODD], ids=["plain", "odd"])
def test_no_reply_says_it_in_another_form(secret: str, way: str) -> None:
    said = WAYS[way](secret)
    outcome = delivered(discreet(Leaky(secret, PermFailed(f"550 {said} is revoked")), [secret]))

    assert re.fullmatch(r"""550 \w*[("'\\]*\*\*\*[)"']* is revoked""", outcome.results[ANN].reply)


def beginning(text: str, secret: str) -> bool:
    return any(secret[:n] in text for n in range(4, len(secret) + 1))


@pytest.mark.parametrize("room", range(len(SECRET) + 2))
@pytest.mark.parametrize(
    "kind", [TempFailed, lambda text: RelayUnavailable("mx", text)], ids=["reply", "fault"]
)
def test_nothing_says_the_beginning_of_it_where_a_text_is_cut(kind: Any, room: int) -> None:
    said = "535 ".ljust(1023 - room - len("mx: "), "x") + SECRET + " is revoked"
    for shift in ("", "x" * 4):
        answer = delivered(discreet(Leaky(SECRET, kind(said.replace("535 ", f"535 {shift}"))), [SECRET]))
        told = str(answer) if isinstance(answer, Exception) else answer.results[ANN].reply

        assert told.startswith(("535 x", "mx: 535 x"))
        assert not beginning(told, SECRET)


@pytest.mark.parametrize("dots", ["...", "…"])
def test_nothing_says_the_beginning_of_it_that_a_transport_has_cut_itself(dots: str) -> None:
    said = PermFailed(f"550 {SECRET[:8]}{dots} is revoked{dots}")

    outcome = delivered(discreet(Leaky(SECRET, said), [SECRET]))

    assert outcome.results[ANN].reply == f"550 ***{dots} is revoked{dots}"


def test_no_line_of_a_dialogue_says_the_beginning_of_it_where_it_is_cut() -> None:
    lines = "\n".join("C: ".ljust(490 - n, "x") + SECRET + "y" * 20 for n in range(-9, 9))
    told = Outcome(results={ANN: Accepted("250 ok")}, dialogue=lines)

    shown = delivered(discreet(Leaky(SECRET, told), [SECRET])).dialogue

    assert len(shown.splitlines()) == 18
    assert not beginning(shown, SECRET)


def test_an_error_that_led_to_another_is_as_quiet_where_it_is_cut() -> None:
    error = RelayUnavailable("mx", "535 ".ljust(1012, "x") + SECRET)

    with pytest.raises(RelayUnavailable) as caught:
        discreet(Leaky(SECRET, error), [SECRET]).deliver(MAIL, [ANN])

    assert not beginning("".join(traceback.format_exception(caught.value)), SECRET)


# -- the commands


def leaky(token: str = "", tier: str = "") -> Leaky:
    return Leaky(token)


@pytest.fixture
def leaking(outbox: CommandLine) -> str:
    outbox.environ(PYTHONPATH=os.pathsep.join(sys.path))
    url = f"python:{__name__}:leaky?token={TOKEN}"
    (outbox.home / "empty.toml").write_text(
        f'transport = "{url}"\nbounce = true\ndomain = "example.org"\n', "utf-8"
    )
    return url


def test_a_transport_that_is_opened_by_a_url_is_discreet() -> None:
    transport = transport_from_url(f"python:{__name__}:leaky?token={TOKEN}")

    assert TOKEN not in str(delivered(transport))


def test_neither_store_nor_screens_nor_the_mail_to_the_sender_have_it(
    outbox: CommandLine, leaking: str
) -> None:
    outbox.submit(ANN)
    drained = outbox("drain", "--log-format", "json")
    told = drained.err + "".join(
        outbox(*argv).out
        for argv in (["list"], ["list", "--json"], ["status"], ["list", "--json", "--state", "dead"])
    )

    assert "550 token *** is revoked" in drained.err
    assert TOKEN not in told
    assert all(TOKEN.encode() not in each.read_bytes() for each in outbox.home.glob("outbox.db*"))
    ran = outbox("send-test", "--to", ANN, "--from", "shop@example.org")
    assert "***" in ran.out + ran.err
    assert TOKEN not in ran.out + ran.err


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP")
@pytest.mark.parametrize("processes", ["1", "2"])
def test_no_process_has_it_in_its_log_before_and_after_a_reload(
    outbox: CommandLine, leaking: str, processes: str
) -> None:
    (outbox.home / "empty.toml").write_text(f'transport = "{leaking}one"\n', "utf-8")
    with Started("--processes", processes) as run:
        put_mail(outbox.path, 1)
        run.wait_for("550 token *** is revoked")
        (outbox.home / "empty.toml").write_text(f'transport = "{leaking}two"\n', "utf-8")
        run.signal(signal.SIGHUP)
        run.wait_for("msg=reloaded")
        put_mail(outbox.path, 1)
        run.wait_for("550 token *** is revoked", 2)
        run.signal()
        run.ended()
    assert TOKEN not in run.err
