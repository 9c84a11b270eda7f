"""What is logged: which loggers, which fields, and nothing that could forge a line."""

from __future__ import annotations

import datetime as dt
import json
import logging
import logging.config
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from outbox import FunctionTransport, MemoryStore, Outbox
from outbox.errors import RelayMisconfigured, RelayUnavailable, StoreUnavailable
from outbox.events import LeaseLost, RelayPaused, RelayResumed, Settled, StoreFailed, Submitted
from outbox.formats import JSONFormatter, LogfmtFormatter, brief, logfmt
from outbox.lifecycle import Claim, Dead, Delivered, Fate, Released, Retry
from outbox.logs import log_notice
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed

CONTENT = b"Subject: x\r\nMessage-ID:\r\n <abc@example.org>\r\n\r\nc4narybody\r\nMessage-ID: <body@x>\r\n"
OUTCOME = Outcome(results={"ann@x": Accepted("250 ok"), "bob@x": TempFailed("450 later")}, relay="mx:25")
FATES = {"ann@x": Fate.ACCEPTED, "bob@x": Fate.WAITING}


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, name: str) -> list[dict[str, Any]]:
        return [fields(record) for record in self.records if record.name == name]


def fields(record: logging.LogRecord) -> dict[str, Any]:
    usual = {*vars(logging.makeLogRecord({})), "message"}
    return {name: value for name, value in vars(record).items() if name not in usual}


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler, log = Heard(), logging.getLogger("outbox")
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    yield handler
    log.removeHandler(handler)
    log.setLevel(level)
    log.propagate = propagate


def message(**fields: Any) -> Message:
    return Message(
        **({"recipients": ("ann@x", "bob@x"), "content": CONTENT, "sender": "me@x", "id": "m1"} | fields)
    )


def claim(message: Message, age: dt.timedelta = dt.timedelta(0)) -> Claim:
    fates = dict.fromkeys(message.recipients, Fate.WAITING)
    return Claim(message=message, fates=fates, attempt=1, lost=0, age=age, token="t")


def retried() -> Settled:
    verdict = Retry(delay=dt.timedelta(minutes=2), fates=FATES, reason="450 later", outcome=OUTCOME)
    return Settled(claim(message(), age=dt.timedelta(hours=2, minutes=5)), verdict, dt.timedelta(seconds=0.5))


def test_each_recipient_of_an_attempt_is_a_line_of_outbox_delivery_and_each_message_one_of_outbox_queue(
    heard: Heard,
) -> None:
    log_notice(retried())
    ann, bob = heard.of("outbox.delivery")
    assert ann == {
        "status": "sent",
        "to": "ann@x",
        "msgid": "abc@example.org",
        "from": "me@x",
        "id": "m1",
        "queue": "mail",
        "fate": "accepted",
        "state": "queued",
        "attempts": 1,
        "relay": "mx:25",
        "delay": dt.timedelta(hours=2, minutes=5, seconds=0.5),
        "took": dt.timedelta(seconds=0.5),
        "reply": "250 ok",
    }
    assert (bob["status"], bob["fate"], bob["due_in"]) == ("deferred", "waiting", dt.timedelta(minutes=2))
    (whole,) = heard.of("outbox.queue")
    assert (whole["status"], whole["id"], whole["recipients"], whole["error"]) == (
        "deferred",
        "m1",
        2,
        "450 later",
    )


def test_the_text_of_a_line_is_its_fields(heard: Heard) -> None:
    log_notice(retried())
    text = heard.records[0].getMessage()
    assert text == (
        "status=sent to=ann@x msgid=abc@example.org from=me@x id=m1 queue=mail fate=accepted state=queued attempts=1 "
        'relay=mx:25 delay=2h05m took=0.500 reply="250 ok"'
    )


def test_a_message_is_followed_from_its_submit_to_its_end(heard: Heard) -> None:
    outbox = Outbox(MemoryStore(), FunctionTransport(lambda _message, _recipient: None))
    outbox.submit(message())
    outbox.submit(message())
    outbox.drain()
    assert [(f["status"], f["id"]) for f in heard.of("outbox.queue")] == [
        ("queued", "m1"),
        ("known", "m1"),
        ("delivered", "m1"),
    ]
    outbox.close()


@pytest.mark.parametrize(
    ("notice", "logger", "level", "expected"),
    [
        (
            Submitted(message(sender="")),
            "queue",
            "INFO",
            {"status": "queued", "from": "<>", "size": len(CONTENT)},
        ),
        (LeaseLost(claim(message())), "queue", "WARNING", {"status": "lease lost", "id": "m1"}),
        (
            RelayPaused("mx:25", RelayUnavailable("mx:25", "refused"), dt.timedelta(seconds=5)),
            "delivery",
            "WARNING",
            {"status": "relay paused", "relay": "mx:25", "error": "mx:25: refused"},
        ),
        (
            RelayPaused("mx:25", RelayMisconfigured("mx:25", "password"), dt.timedelta(seconds=5)),
            "delivery",
            "ERROR",
            {"status": "relay paused"},
        ),
        (RelayResumed(""), "delivery", "INFO", {"status": "relay resumed", "relay": "(default)"}),
        (
            StoreFailed(StoreUnavailable("disk"), dt.timedelta(seconds=1), [claim(message())]),
            "queue",
            "ERROR",
            {"status": "store failed", "unwritten": "m1", "error": "disk"},
        ),
        (
            Settled(claim(message()), Released(delay=dt.timedelta(0), fates=FATES, reason="paused")),
            "delivery",
            "DEBUG",
            {"status": "released", "error": "paused"},
        ),
        (
            Settled(claim(message()), Dead(fates=dict.fromkeys(FATES, Fate.FAILED), reason="too old")),
            "queue",
            "WARNING",
            {"status": "dead", "error": "too old"},
        ),
    ],
)
def test_what_happens_is_told_by_its_logger_as_grave_as_it_is(
    heard: Heard, notice: Any, logger: str, level: str, expected: Mapping[str, Any]
) -> None:
    log_notice(notice)
    lines = [(r.levelname, fields(r)) for r in heard.records if r.name == f"outbox.{logger}"]
    assert lines[0][0] == level
    assert expected.items() <= lines[0][1].items()


@pytest.mark.parametrize(
    "formatter", [LogfmtFormatter(), JSONFormatter(), logging.Formatter("%(message)s %(reply)s %(relay)s")]
)
def test_neither_a_body_nor_a_control_character_is_ever_logged(
    heard: Heard, formatter: logging.Formatter
) -> None:
    evil = "550 \x1b[2Jno\r\nstatus=sent to=\u202eforged\x00" + "x" * 5000
    result: Result = PermFailed(evil)
    outcome = Outcome(results={"ann@x": result}, relay="mx\n:25")
    verdict = Dead(fates={"ann@x": Fate.FAILED}, reason=evil, outcome=outcome)
    log_notice(Settled(claim(message(recipients=("ann@x",))), verdict))
    line = formatter.format(heard.records[0])
    assert "\n" not in line
    assert all(char.isprintable() for char in line), line
    assert "BODY" not in line
    assert "body@x" not in line
    assert len(line) < 4000


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"Message-Id: <a@b>\r\n\r\n", "a@b"),
        (b"Subject: x\r\n\r\nMessage-ID: <a@b>\r\n", None),
        (b'{"task": 1}\nMessage-ID: <a@b>\r\n', None),
        (b"Subject: x\r\nMessage-ID: <a@b> <c@d>\r\n\r\n", None),
        (b"", None),
    ],
)
def test_the_message_id_is_that_of_the_header(heard: Heard, content: bytes, found: str | None) -> None:
    log_notice(Submitted(message(content=content)))
    assert heard.of("outbox.queue")[0].get("msgid") == found


def test_what_is_delivered_costs_nothing_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox.logs.about", None)
    monkeypatch.setattr("outbox.logs.logfmt", None)
    logging.getLogger("outbox").setLevel(logging.WARNING)
    try:
        log_notice(
            Settled(claim(message()), Delivered(fates=dict.fromkeys(FATES, Fate.ACCEPTED), outcome=OUTCOME))
        )
        log_notice(Submitted(message()))
    finally:
        logging.getLogger("outbox").setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (7.9, "7s"), (60, "1m"), (3599, "59m"), (7500, "2h05m"), (86400 * 3 + 3600 * 4, "3d04h")],
)
def test_a_delay_is_brief(seconds: float, text: str) -> None:
    assert brief(dt.timedelta(seconds=seconds)) == text


def test_a_dict_config_takes_the_formatters(capsys: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "json": {"class": "outbox.formats.JSONFormatter", "format": "ignored"},
                "logfmt": {"class": "outbox.formats.LogfmtFormatter"},
            },
            "handlers": {
                "json": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "json"},
                "logfmt": {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stdout",
                    "formatter": "logfmt",
                },
            },
            "loggers": {
                "outbox.delivery": {"level": "INFO", "handlers": ["json", "logfmt"], "propagate": False}
            },
        }
    )
    log = logging.getLogger("outbox.delivery")
    try:
        log_notice(retried())
    finally:
        for handler in log.handlers[:]:
            log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
        log.propagate = True
    as_json, as_logfmt, *_ = capsys.readouterr().out.splitlines()
    told = json.loads(as_json)
    assert (told["status"], told["attempts"], told["delay"], told["logger"]) == (
        "sent",
        1,
        7500.5,
        "outbox.delivery",
    )
    assert re.match(
        r"time=\d{4}-\d\d-\d\dT[\d:.]+Z level=info logger=outbox.delivery status=sent to=ann@x ", as_logfmt
    )


def test_a_record_of_a_stranger_is_one_line_with_its_message_and_its_exception() -> None:
    error = ValueError("line\nbreak")
    record = logging.makeLogRecord(
        {"msg": "failed: %s", "args": ("a b",), "exc_info": (ValueError, error, None)}
    )
    line = LogfmtFormatter().format(record)
    assert line.endswith(r'msg="failed: a b" exception="ValueError: line\\nbreak"')
    assert json.loads(JSONFormatter().format(record))["msg"] == "failed: a b"


def test_what_a_stranger_logs_holds_no_control_character_once_it_is_read_from_json() -> None:
    record = logging.makeLogRecord({"msg": "a\x1b[2J\n", "evil": None} | {"other": "\u202ex"})
    told = json.loads(JSONFormatter().format(record))
    assert all(str(value).isprintable() for value in told.values()), told
    assert told["evil"] is None


def test_a_number_is_a_number_in_json_where_json_has_it() -> None:
    record = logging.makeLogRecord({"half": 1.5, "third": 3, "none": float("nan"), "most": float("-inf")})
    line = JSONFormatter().format(record)
    assert '"half": 1.5, "third": 3, "none": "nan", "most": "-inf"' in line
    assert " half=1.5 third=3 none=nan " in LogfmtFormatter().format(record)


class Wordless(StoreUnavailable):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


@pytest.mark.parametrize("form", [LogfmtFormatter(), JSONFormatter()])
def test_an_error_whose_words_are_an_error_is_logged_without_them(form: logging.Formatter) -> None:
    error = Wordless()
    notes: list[dict[str, object]] = [{"exc_info": (Wordless, error, None)}, {"error": error}]
    for noted in notes:
        assert "(no words)" in form.format(logging.makeLogRecord({"msg": "failed", **noted}))


def test_a_store_whose_error_has_no_words_is_logged_as_failed(heard: Heard) -> None:
    log_notice(StoreFailed(error=Wordless(), wait=dt.timedelta(seconds=1)))
    assert heard.of("outbox.queue")[-1]["error"] == "(no words)"


def test_no_key_can_forge_a_field() -> None:
    assert logfmt({"a b=c\n": 1}) == "a_b_c_=1"


def test_a_listener_that_fails_keeps_no_message_from_being_stored(heard: Heard) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("stranger")

    with Outbox(MemoryStore(), listeners=[fail], annotate=fail) as outbox:  # type: ignore[arg-type]  # as a stranger's
        assert outbox.submit(message()) == "m1"
    assert len([record for record in heard.records if record.name == "outbox.submitter"]) == 2


def test_what_is_annotated_is_stored_and_what_the_message_says_itself_stands() -> None:
    store = MemoryStore()
    with Outbox(store, annotate=lambda _: {"tenant": "wrong", "trace": "1"}) as outbox:
        outbox.submit(message(attributes={"tenant": "right"}))
        record = store.get("m1")
    assert record is not None
    assert dict(record.message.attributes) == {"tenant": "right", "trace": "1"}
