"""A run of many messages against a server that fails at every step, and the two ledgers held against each other.

What goes wrong is drawn by seed, step, address and how often that address
came to the step, so that threads change little of it, and with one worker a
run is the same each time.  Hours pass between two drains by a clock that is
turned by hand; only the server's silences take real time.
"""

from __future__ import annotations

import datetime as dt
import itertools
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import attrs

from outbox.errors import RelayFault
from outbox.events import Notice, Settled
from outbox.judge import judge
from outbox.lifecycle import Claim, Settlement, Verdict
from outbox.message import Message
from outbox.outbox import Outbox
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.protocols import Delivery, Store, SupportsBatch, Transport
from outbox.retry import RetryPolicy
from outbox.testing.clock import ManualClock
from outbox.testing.smtp_script import Answer, Heard, Step
from outbox.testing.smtp_sink import SMTPSink
from outbox.transports.smtp import SMTPTransport

__all__ = ["Faults", "Run"]

MOMENT = dt.timedelta(milliseconds=20)
SILENT_FOR = dt.timedelta(milliseconds=150)
HOURS = dt.timedelta(hours=3)
ROUNDS = 1000

Drawn = Callable[[str, random.Random], Answer]


def _said(*replies: str) -> Drawn:
    return lambda usual, rng: Answer(rng.choice(replies))


def _bytes(*replies: bytes) -> Drawn:
    return lambda usual, rng: Answer(rng.choice(replies), close=rng.random() < 0.5)


def _cut(usual: str, rng: random.Random) -> Answer:
    reply = rng.choice([usual, "451 4.3.0 later", "550 5.7.1 never"])
    return Answer(reply, cut=rng.randrange(len(reply) + 1), close=rng.choice([True, "half", "reset"]))


def _fine(usual: str) -> str:
    """A success with another code; not where none can be meant: within the content, before it is whole."""
    return "299 fine" if usual.startswith("2") else "399 what"


FAULTS: Mapping[str, tuple[int, Drawn]] = {
    "later": (8, _said("450 4.2.1 later", "451 4.3.0 later", "452 4.2.2 full", "452 no room", "471 later")),
    "never": (
        5,
        _said("550 5.1.1 never", "552 5.2.2 full", "554 5.7.1 never", "571 never", "553-no\n553 no"),
    ),
    "leaving": (3, lambda usual, rng: Answer("421 4.3.2 leaving", close=rng.choice([True, False, "reset"]))),
    "closed": (4, lambda usual, rng: Answer(close=rng.choice([True, "half", "reset"]))),
    "cut": (3, _cut),
    "silent": (1, lambda usual, rng: Answer()),
    "slow": (3, lambda usual, rng: Answer(usual, after=MOMENT * rng.random())),
    "dripping": (1, lambda usual, rng: Answer(usual, drip=MOMENT * rng.random())),
    "endless": (1, lambda usual, rng: Answer(itertools.repeat(b"250-and more\r\n", 100_000), close=True)),
    "malformed": (
        3,
        _bytes(
            b"hello\r\n",
            b"25\r\n",
            b"999 no\r\n",
            b"250-a\r\n251 b\r\n",
            b"\r\n",
            b"\xff\0 250\r\n",
            b"250_\r\n",
        ),
    ),
    "too long": (1, _bytes(b"250 " + b"x" * 10_000 + b"\r\n")),
    "no answer to it": (1, lambda usual, rng: Answer(rng.choice(["354 go on", "334 more", _fine(usual)]))),
    "more than was asked": (
        1,
        lambda usual, rng: Answer(f"{usual}\r\n{rng.choice([250, 550])} 2.0.0 and more\r\n".encode()),
    ),
}
"""How often, and what."""

USUAL: Mapping[Step, str] = {
    "connect": "220 ready",
    "ehlo": "250 hello",
    "mail": "250 2.1.0 ok",
    "rcpt": "250 2.1.5 ok",
    "data": "354 go on",
    "content": "451 4.3.0 stop it",
    "dot": "250 2.0.0 taken",
    "rset": "250 2.0.0 ok",
}
CHANCES: Mapping[Step, float] = {
    "connect": 0.03,
    "ehlo": 0.02,
    "mail": 0.05,
    "rcpt": 0.08,
    "data": 0.05,
    "content": 0.02,
    "dot": 0.15,
    "rset": 0.10,
}


class Faults:
    """The sink's hook: decides what goes wrong, and writes down every final refusal that it said.

    Attributes:
        refused: How often whom was refused for good, by address: a
            recipient's at RCPT, a sender's for the message as a whole.
        drawn: How often what went wrong at which step.
    """

    def __init__(self, seed: int, chances: Mapping[Step, float] = CHANCES) -> None:
        self.refused: Counter[str] = Counter()
        self.drawn: Counter[tuple[Step, str]] = Counter()
        self._seed = seed
        self._chances = chances
        self._visits: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def __str__(self) -> str:
        """How many of which kind, by step."""
        steps = {
            step: {kind: n for (s, kind), n in sorted(self.drawn.items()) if s == step} for step in CHANCES
        }
        return "\n".join(f"{step}: {kinds}" for step, kinds in steps.items())

    def __call__(self, heard: Heard) -> Answer | None:
        address = heard.address or str(heard.connection)
        with self._lock:
            self._visits[heard.step, address] += 1
            rng = random.Random(f"{self._seed} {heard.step} {address} {self._visits[heard.step, address]}")
            if rng.random() >= self._chances.get(heard.step, 0):
                return None
            kinds = list(FAULTS)
            (kind,) = rng.choices(kinds, [FAULTS[each][0] for each in kinds])
            answer = FAULTS[kind][1](USUAL[heard.step], rng)
            self.drawn[heard.step, kind] += 1
            # A refusal that nobody asked for is nobody's; but behind 354 it is that of the content.
            meant = kind != "more than was asked" or heard.step in ("data", "content")
            if meant and b"\n5" in b"\n" + answer.wire[: answer.cut]:
                self.refused[address] += 1
        return attrs.evolve(answer, at=rng.randrange(1, 3000)) if heard.step == "content" else answer


class Watched:
    """Notes who is handed to a transport."""

    def __init__(self, transport: Transport, diary: Diary) -> None:
        self._transport = transport
        self._diary = diary

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        self._diary.note_handed_over(message, recipients)
        return self._transport.deliver(message, recipients)

    def close(self) -> None:
        self._transport.close()


class Diary:
    """What the sender did and was told, message by message, in order."""

    def __init__(self) -> None:
        self.results: dict[tuple[str, str], list[Result]] = defaultdict(list)
        self.again: list[tuple[str, str, Result]] = []
        self._lock = threading.Lock()

    def __str__(self) -> str:
        kinds: Sequence[type[Result]] = (Accepted, PermFailed, TempFailed, Uncertain, Untried)
        return ", ".join(f"{kind.__name__} {self.count(kind).total()}" for kind in kinds)

    def note_handed_over(self, message: Message, recipients: Sequence[str]) -> None:
        """Nobody whose end is known may be handed over once more."""
        with self._lock:
            for recipient in recipients:
                for result in self.results[message.id, recipient]:
                    if isinstance(result, Accepted | PermFailed):
                        self.again.append((message.id, recipient, result))

    def __call__(self, notice: Notice) -> None:
        if isinstance(notice, Settled) and notice.verdict.outcome is not None:
            with self._lock:
                for recipient, result in notice.verdict.outcome.results.items():
                    self.results[notice.claim.message.id, recipient].append(result)

    @property
    def ended(self) -> int:
        """Recipients who have been accepted or refused for good."""
        with self._lock:
            return sum(any(isinstance(r, Accepted | PermFailed) for r in rs) for rs in self.results.values())

    def count(self, kind: type[Result]) -> Counter[tuple[str, str]]:
        return Counter(
            {
                key: sum(isinstance(result, kind) for result in results)
                for key, results in self.results.items()
            }
        )


def copies(sink: SMTPSink) -> Counter[tuple[str, str]]:
    """How many copies of which message each recipient got."""
    found: Counter[tuple[str, str]] = Counter()
    for received in sink.messages:
        id = received.sender.partition("@")[0]
        found.update((id, recipient) for recipient in received.recipients)
    return found


def a_mail(number: int, rng: random.Random) -> Message:
    """The sender's address names the message, and a recipient's too: so the server knows what it is asked for."""
    id = f"m{number}"
    recipients = tuple(f"r{n}.{id}@example.org" for n in range(rng.choice([1, 1, 1, 2, 3, 8])))
    line = b".%d and so on\r\n" % number
    content = b"Message-ID: <%s@example.org>\r\nFrom: s@example.org\r\n\r\n" % id.encode()
    return Message(
        id=id,
        sender=f"{id}@sender.example",
        recipients=recipients,
        content=content + line * rng.randrange(1, 200),
    )


class Drains:
    """An Outbox whose workers deliver message by message."""

    def __init__(
        self, store: Store, transport: Transport, clock: ManualClock, diary: Diary, workers: int
    ) -> None:
        self._outbox = Outbox(
            store,
            Watched(transport, diary),
            workers=workers,
            clock=clock,
            retry=RetryPolicy(timeout=None),
            listeners=[diary],
        )

    def drain(self) -> None:
        self._outbox.drain()

    def close(self) -> None:
        self._outbox.close()


class Batches:
    """Workers that hand what they claimed to the transport as one batch: the contract of ``deliver_many``."""

    def __init__(
        self, store: Store, transport: Transport, clock: ManualClock, diary: Diary, workers: int
    ) -> None:
        assert isinstance(transport, SupportsBatch)
        self._store, self._transport, self._many = store, transport, transport
        self._diary, self._workers = diary, workers
        self._policy = RetryPolicy(timeout=None)

    def drain(self) -> None:
        with ThreadPoolExecutor(self._workers) as pool:
            for done in [pool.submit(self._work, random.Random(number)) for number in range(self._workers)]:
                done.result()

    def close(self) -> None:
        self._transport.close()
        self._store.close()

    def _work(self, rng: random.Random) -> None:
        while claims := self._store.claim(limit=16, lease=HOURS, queues=["mail"]):
            settlements = [Settlement(claim, verdict) for claim, verdict in self._delivered(claims, rng)]
            assert not self._store.settle(settlements)
            for each in settlements:
                self._diary(Settled(each.claim, each.verdict))

    def _delivered(self, claims: Sequence[Claim], rng: random.Random) -> Iterator[tuple[Claim, Verdict]]:
        """What came of each; those behind a fault of the relay were not tried."""
        left = list(claims)
        try:
            for outcome in self._many.deliver_many(self._handed_over(claims)):
                claim = left.pop(0)
                yield claim, judge(claim, outcome, self._policy, rng)
        except RelayFault as fault:
            yield from ((claim, judge(claim, fault, self._policy, rng)) for claim in left)
        else:
            assert not left, "the batch ended, and not all of it was reported"

    def _handed_over(self, claims: Sequence[Claim]) -> Iterator[Delivery]:
        for claim in claims:
            self._diary.note_handed_over(claim.message, claim.recipients)
            yield Delivery(claim.message, claim.recipients)


@attrs.define
class Run:
    """One run, and what must be true of it.

    Attributes:
        pipelining: Whether the server offers it.
        workers: One makes a run the same each time.
    """

    seed: int
    number: int
    pipelining: bool
    store: Callable[[ManualClock], Store]
    workers: int = 4
    batched: bool = False
    diary: Diary = attrs.field(factory=Diary)

    @property
    def words(self) -> str:
        """How to see it once more."""
        offer = "batched" if self.batched else "pipelined" if self.pipelining else "lock-step"
        return (
            f"seed {self.seed}, {self.number} messages, {offer}; replay: OUTBOX_FAULTS_SEED={self.seed} "
            f"OUTBOX_FAULTS={self.number} pytest -n 0 tests/test_smtp_faults.py -k {offer}"
            " (with OUTBOX_FAULTS_WORKERS=1 it goes the same way each time)"
        )

    def run(self) -> Faults:
        """Everything delivered or given up, and the ledgers compared.

        Raises:
            AssertionError: they do not agree; the text says how to replay it.
        """
        rng = random.Random(self.seed)
        messages = [a_mail(number, rng) for number in range(self.number)]
        faults, clock = Faults(self.seed), ManualClock()
        offers = ["8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "SIZE", *["PIPELINING"] * self.pipelining]
        kind = Batches if self.batched else Drains
        with SMTPSink(hook=faults, offers=offers) as sink:
            store = self.store(clock)
            transport = SMTPTransport(sink.host, sink.port, timeout=SILENT_FOR, max_messages=50)
            with closing(kind(store, transport, clock, self.diary, self.workers)) as sender:
                store.put(messages)
                self._drain(sender, clock, sum(len(message.recipients) for message in messages))
                self._compare(messages, sink, faults)
        return faults

    def _drain(self, sender: Drains | Batches, clock: ManualClock, recipients: int) -> None:
        for _ in range(ROUNDS):
            sender.drain()
            if self.diary.ended == recipients:
                return
            clock.advance(HOURS)
        left = recipients - self.diary.ended
        raise AssertionError(f"{left} recipients wait after {ROUNDS} rounds: {self.words}")

    def _compare(self, messages: Sequence[Message], sink: SMTPSink, faults: Faults) -> None:
        taken, accepted, uncertain = copies(sink), self.diary.count(Accepted), self.diary.count(Uncertain)
        everybody = {(message.id, r) for message in messages for r in message.recipients}
        wrong: dict[str, Sequence[object]] = {
            "handed over again": self.diary.again,
            "strangers": [key for key in taken if key not in everybody],
            "accepted and not received": [key for key in everybody if accepted[key] and not taken[key]],
            "more copies than attempts that may have left one": [
                (key, taken[key], self.diary.results[key])
                for key in everybody
                if taken[key] > accepted[key] + uncertain[key]
            ],
            "given up and never refused": [
                (key, self.diary.results[key])
                for key in everybody
                if self._given_up(key)
                and not faults.refused[key[1]] + faults.refused[f"{key[0]}@sender.example"]
            ],
            "altered": self._altered(messages, sink),
            "bad manners": sink.violations,
        }
        found = {what: which[:5] for what, which in wrong.items() if which}
        assert not found, f"{found}: {self.words}"

    def _given_up(self, key: tuple[str, str]) -> bool:
        return any(isinstance(result, PermFailed) for result in self.diary.results[key])

    @staticmethod
    def _altered(messages: Sequence[Message], sink: SMTPSink) -> list[str]:
        contents = {message.sender: message.content for message in messages}
        return [each.sender for each in sink.messages if contents.get(each.sender) != each.content]
