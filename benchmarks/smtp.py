"""The SMTP transport beside ``smtplib`` and Postfix's ``smtp-source``, all against Postfix's ``smtp-sink``.

    nox -s bench-smtp -- [options]    unpacks Postfix, and runs this
    python benchmarks/smtp.py --postfix FOLDER [options]

``rate``
    One message of 2 KB to one recipient, again and again, over connections
    that stay open: ``smtplib.SMTP.sendmail`` over one, ``smtp-source -d``
    over ten, the transport over one and, on as many threads, over four.  In
    each round each has its turn.  CPU is the sender's own.
``memory``
    What one message of 50 MB adds to the memory of a process that holds it
    and sends it, at the peak, each time in a new process.

Without Postfix (``--receiver ours``) the receiver is ``SMTPSink`` in a process
of its own; it is slower than any sender, and the figures say nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import platform
import resource
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import report
from laps import Spread, lap, ratios, spread
from ours import CONTENT, mail
from process import child
from receivers import add_receiver, chosen, environment, named, program, receiver

from outbox import Accepted, Delivery, Outcome, SupportsBatch
from outbox.transports.smtp import SMTPTransport

ROOT: Final = Path(__file__).parents[1]
TITLE: Final = "What the SMTP transport can do"
SENDER, RECIPIENT = "billing@example.com", "ann@example.org"
_BY: Final = 100
_SESSIONS: Final = 10
_MIB: Final = 2**20
_SIZE: Final = 50_000_000
_PATIENCE: Final = dt.timedelta(seconds=20)


class Turn(NamedTuple):
    """One sender's turn: messages a second, and the seconds of CPU that 1,000 of them took."""

    rate: float
    cpu: float


class Sender(NamedTuple):
    """*run* sends so many messages to a port."""

    name: str
    run: Callable[[int, int], Turn]
    to_smtplib: str = ""
    to_source: str = ""


def _timed(work: Callable[[], tuple[int, float]], sent: int) -> Turn:
    """*work* says how many messages it timed, and how long they took; of CPU all *sent* are counted."""
    before = time.process_time()
    messages, seconds = work()
    return Turn(messages / seconds, (time.process_time() - before) * 1000 / sent)


def by_smtplib(port: int, number: int) -> Turn:
    with contextlib.closing(smtplib.SMTP("127.0.0.1", port)) as client:

        def send(_: int) -> None:
            if client.sendmail(SENDER, [RECIPIENT], CONTENT):
                raise RuntimeError("smtp-sink refused a recipient")

        def work() -> tuple[int, float]:
            done = lap(send, range(number))
            return done.messages, done.seconds

        return _timed(work, number)


def by_source(postfix: Path) -> Callable[[int, int], Turn]:
    source = program(postfix, "smtp-source")

    def run(port: int, number: int) -> Turn:
        options = ["-d", "-s", str(_SESSIONS), "-m", str(number), "-l", str(len(CONTENT))]
        command = [source, *options, "-f", SENDER, "-t", RECIPIENT, f"127.0.0.1:{port}"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run(command, check=True, env=environment(postfix))
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Turn(number / seconds, cpu * 1000 / number)

    return run


def _accepted(outcome: Outcome) -> None:
    if not all(isinstance(result, Accepted) for result in outcome.results.values()):
        raise RuntimeError(f"not accepted: {outcome}")


def one_by_one(connections: int) -> Callable[[int, int], Turn]:
    """``deliver``, by so many threads."""

    def run(port: int, number: int) -> Turn:
        messages = [mail() for _ in range(number)]
        with contextlib.closing(SMTPTransport("127.0.0.1", port)) as transport:

            def work() -> tuple[int, float]:
                done = lap(
                    lambda message: _accepted(transport.deliver(message, message.recipients)),
                    messages,
                    threads=connections,
                )
                return done.messages, done.seconds

            return _timed(work, number)

    return run


def in_batches(connections: int) -> Callable[[int, int], Turn]:
    """``deliver_many`` of a hundred each, by so many threads."""

    def run(port: int, number: int) -> Turn:
        messages = [mail() for _ in range(number)]
        deliveries = [Delivery(message, message.recipients) for message in messages]
        batches = [deliveries[start : start + _BY] for start in range(0, number, _BY)]
        with contextlib.closing(SMTPTransport("127.0.0.1", port)) as transport:
            many: Any = transport

            def send(batch: Sequence[Delivery]) -> None:
                outcomes = list(many.deliver_many(batch))
                if len(outcomes) != len(batch):
                    raise RuntimeError(f"{len(outcomes)} outcomes of {len(batch)} deliveries")
                for outcome in outcomes:
                    _accepted(outcome)

            def work() -> tuple[int, float]:
                done = lap(send, batches, threads=connections, size=_BY)
                return done.messages, done.seconds

            return _timed(work, number)

    return run


def senders(postfix: Path | None) -> list[Sender]:
    batches = issubclass(SMTPTransport, SupportsBatch)
    one, four = ("", "") if batches else ("≥ 2", "≥ 0.8")
    found = [
        Sender("smtplib, kept open, 1 connection", by_smtplib),
        Sender("deliver, 1 connection", one_by_one(1), to_smtplib=one),
        Sender("deliver, 4 connections", one_by_one(4), to_source=four),
    ]
    if postfix:
        found.insert(1, Sender(f"smtp-source -d, {_SESSIONS} connections", by_source(postfix)))
    if batches:
        found += [
            Sender(f"deliver_many by {_BY}, 1 connection", in_batches(1), to_smtplib="≥ 2"),
            Sender(f"deliver_many by {_BY}, 4 connections", in_batches(4), to_source="≥ 0.8"),
        ]
    return found


def rates(postfix: Path | None, port: int, *, rounds: int, number: int) -> str:
    taking_part = senders(postfix)
    turns: dict[str, list[Turn]] = {sender.name: [] for sender in taking_part}
    for each in range(rounds):
        for sender in taking_part:
            _say(f"round {each + 1} of {rounds}: {sender.name}")
            turns[sender.name].append(sender.run(port, number))
    heads = ("sender", "msg/s", "to smtplib", "wanted", "to smtp-source", "wanted", "CPU, s per 1,000")
    return report.table(heads, (_row(sender, turns) for sender in taking_part))


def _row(sender: Sender, turns: dict[str, list[Turn]]) -> Sequence[str]:
    mine = [turn.rate for turn in turns[sender.name]]
    (smtplib_name, *_), source_name = turns, next((name for name in turns if "source" in name), "")
    return (
        sender.name,
        report.rate(spread(mine)),
        _ratio(sender.name, mine, smtplib_name, turns),
        sender.to_smtplib,
        _ratio(sender.name, mine, source_name, turns),
        sender.to_source,
        report.factor(spread([turn.cpu for turn in turns[sender.name]])),
    )


def _ratio(name: str, mine: Sequence[float], other: str, turns: dict[str, list[Turn]]) -> str:
    if name == other or other not in turns:
        return ""
    return report.factor(ratios(mine, [turn.rate for turn in turns[other]]))


def memory(port: int, *, rounds: int, size: int) -> str:
    rows = []
    for way, wanted in (("deliver", f"≤ {(size + 2 * _MIB) / _MIB:.1f}"), ("smtplib", "")):
        _say(f"memory: {way}")
        added = [child("smtp_memory.py", way, port, size) / _MIB for _ in range(rounds)]
        rows.append((way, f"{size / _MIB:.1f}", _figure(spread(added)), wanted))
    return report.table(("sender", "the message, MiB", "added to memory, MiB", "wanted"), rows)


def _figure(figure: Spread) -> str:
    return f"{figure.median:.1f} ({figure.low:.1f} to {figure.high:.1f})"


# --- the program ---


def _say(what: str) -> None:
    print(f"… {what}", file=sys.stderr, flush=True)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measures the SMTP transport.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny numbers, to see that it works; the figures say nothing"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=5_000, help="in each turn")
    add_receiver(parser, use="smtp-sink and smtp-source")
    report.add_record(parser)
    return parser.parse_args(arguments)


def _preamble(options: argparse.Namespace, rounds: int, number: int) -> str:
    today = dt.datetime.now(dt.UTC).date().isoformat()
    machine = f"{os.cpu_count()} cores, {platform.system()}; Python {platform.python_version()}"
    command = "nox -s bench-smtp" + (" -- --quick" if options.quick else "")
    return (
        f"# {TITLE}\n\n{today}. {machine}. {options.note}".rstrip() + f"\n\n`{command}`\n\n"
        f"Messages of 2 KB to one recipient, {number:,} in each turn, on loopback to {named(chosen(options))}; medians of {rounds} "
        "rounds, with the range in brackets. In each round each sender has its turn, one after the other; a ratio is "
        "that of the same round. What is compared with what is said in [`smtp.py`](smtp.py)."
    )


def main(arguments: Sequence[str]) -> None:
    options = _parsed(arguments)
    postfix = chosen(options)
    rounds, number, size = (1, 500, 1_000_000) if options.quick else (options.rounds, options.messages, _SIZE)
    parts = [_preamble(options, rounds, number)]
    with receiver(postfix) as port:
        parts.append(report.section("Rate", rates(postfix, port, rounds=rounds, number=number)))
        parts.append(report.section("Memory", memory(port, rounds=rounds, size=size)))
    print("\n\n".join(parts))
    report.keep(options, parts)


if __name__ == "__main__":
    main(sys.argv[1:])
