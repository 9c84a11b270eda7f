"""Why a message is not out yet: what keeps it, the first cause first, in a person's words and with what helps."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from outbox.address import domain
from outbox.bulletin import RelayBulletin
from outbox.lifecycle import Fate, Record, State, Summary
from outbox.locate import spell
from outbox.message import Message
from outbox.moving import ON_ITS_WAY
from outbox.outcome import Accepted
from outbox.protocols import Suspension
from outbox.retry import RetryPolicy
from outbox.values import printable

from . import clocks, withheld
from .copies import copies
from .moments import local
from .output import ago
from .runners import Ailing, Runner, Runners, ailing
from .staged import is_staged

__all__ = ["Reason", "Seen", "reasons"]

_ZERO: Final = dt.timedelta(0)


@attrs.frozen(kw_only=True)
class Reason:
    """One thing that keeps a message, or that is worth knowing of it.

    Attributes:
        rule: Its name for a program: ``suspended``, ``not-due``, ``leased``, … (docs/looking.md lists them).
        blocks: Whether it is not handed over as long as this is so.
        until: When this ends by itself; None is not known, or never.
        help: Commands that change it, or that say more.
    """

    rule: str
    text: str
    blocks: bool = True
    until: dt.datetime | None = None
    help: Sequence[str] = ()


@attrs.frozen(kw_only=True)
class Seen:
    """What is looked at.

    Attributes:
        message: Without which attributes and ``not_before`` are not known: None where it cannot be read.
        relays: The keys of the relays of its open recipients; None where they are not known here.
        served: The queues that this configuration serves.
    """

    summary: Summary
    record: Record | None
    suspensions: Sequence[Suspension]
    runners: Runners
    policy: RetryPolicy
    relays: Mapping[str, str] | None
    served: Sequence[str]
    now: dt.datetime

    @property
    def message(self) -> Message | None:
        return None if self.record is None else self.record.message

    def when(self, moment: dt.datetime) -> str:
        return f"{local(moment)} ({ago(moment, self.now)})"


def reasons(seen: Seen) -> list[Reason]:
    """All that keep it, what has to end first at the top; then what is worth knowing."""
    state = seen.summary.state
    if state is State.CLAIMED:
        return [*_claimed(seen), *_copies(seen), *_tried(seen), *_expires(seen)]
    if is_staged(seen.summary):
        return [_staged(seen)]
    if state is State.QUEUED:
        stopped, unmet = [*_suspended(seen)], [*_unserved(seen), *_at_relays(seen)]
        alone = not any(each.blocks for each in (*stopped, *unmet))
        found = [*_clock(seen, alone), *stopped, *_not_due(seen, alone), *unmet]
        if not any(each.blocks for each in found):
            found.insert(0, _next(seen))
        return [*found, *_lost(seen), *_copies(seen), *_tried(seen), *_expires(seen)]
    return [_over(seen), *_copies(seen)]


# -- over


def _over(seen: Seen) -> Reason:
    summary = seen.summary
    why = f": {printable(summary.reason)}" if summary.reason else ""
    at = f" {seen.when(summary.settled_at)}" if summary.settled_at else ""
    again = f"outbox requeue {summary.id}"
    match summary.state:
        case State.DELIVERED:
            return Reason(
                rule="delivered", text=f"it is out: its relay took it{at}{_answers(seen)}", blocks=False
            )
        case State.HELD if summary.by_hand:
            return Reason(
                rule="held-by-hand", text=f"a person holds it{at}{why}", help=[f"outbox release {summary.id}"]
            )
        case State.HELD:
            return Reason(
                rule="held", text=f"it is held{at}, and waits for a person{why}", help=_held_help(summary)
            )
        case State.DEAD:
            return Reason(
                rule="dead",
                text=f"it is dead: it was given up{at}{why}",
                help=[f"outbox show {summary.id}", f"{again}   (when the cause is mended)"],
            )
        case State.EXPIRED:
            return Reason(
                rule="expired",
                text=f"its expires_at came before it was delivered{at}: nothing is handed over any more, and no requeue changes that",
            )
    return Reason(rule="cancelled", text=f"a person cancelled it{at}", help=[again])


def _answers(seen: Seen) -> str:
    """What the relay said when it took it, by which its people find it in their log."""
    record = seen.record
    said = [
        result.reply
        for attempt in (record.history if record else ())
        for result in attempt.results.values()
        if isinstance(result, Accepted) and result.reply
    ]
    relay = (
        next((attempt.relay for attempt in reversed(record.history) if attempt.relay), "") if record else ""
    )
    by = f" {printable(relay)} said" if relay else ""
    return f";{by} {', '.join(dict.fromkeys(said))}" if said else ""


def _held_help(summary: Summary) -> list[str]:
    doubt = {Fate.UNCERTAIN, Fate.DOUBTFUL} & set(summary.fates.values())
    if doubt:
        return [
            f"outbox show {summary.id}",
            f"outbox requeue --uncertain {summary.id}   (who may have it already may get it twice)",
        ]
    return [f"outbox show {summary.id}", f"outbox requeue {summary.id}"]


# -- with a worker


def _claimed(seen: Seen) -> Iterator[Reason]:
    until = seen.summary.leased_until
    if until is not None and until > seen.now and seen.summary.reason == ON_ITS_WAY:
        yield Reason(rule="leaving", text=f"it is {ON_ITS_WAY}", help=["outbox check"])
        return
    if until is not None and until > seen.now:
        yield Reason(
            rule="leased",
            text=f"a worker has it (attempt {seen.summary.attempts}); its lease runs until {seen.when(until)}, "
            "and is extended for as long as he lives",
            until=until,
        )
        if seen.runners.told and not seen.runners.serving(seen.summary.queue):
            yield Reason(
                rule="no-runner",
                text=f"but no runner alive says that it serves {seen.summary.queue}: if it was killed, the "
                f"message is taken up again when the lease has run out{_silence(seen)}",
                blocks=False,
                help=["outbox status"],
            )
        return
    ended = f" {ago(until, seen.now)}" if until else ""
    yield Reason(
        rule="lease-ended",
        text=f"its lease ran out{ended}: whoever had it was killed, is stopped or hangs; the next runner takes it, alone",
        help=["outbox status"],
    )
    yield from _unserved(seen)


# -- in the queue


def _staged(seen: Seen) -> Reason:
    since = seen.summary.submitted_at
    return Reason(
        rule="staged",
        text=f"it is staged, since {seen.when(since)}: it goes when the program that staged it publishes it, and no runner takes it before",
        help=[f"outbox cancel {seen.summary.id}   (unstages it: it is never sent)"],
    )


def _clock(seen: Seen, alone: bool) -> Iterator[Reason]:
    """Of a message that waits for a moment which a wrong clock has set; *alone* as in :func:`_sooner`."""
    due = seen.summary.due_at
    odd = clocks.in_the_future(seen.summary, seen.record, seen.now)
    if odd and due is not None and due > seen.now:
        yield Reason(
            rule="clock",
            text=f"the clock is wrong, or was: {odd}. It waits until the clock of this machine shows the hour that it was given",
            until=due,
            help=["outbox check", *_sooner(seen, alone, when="when the clock is right: ")],
        )


def _sooner(seen: Seen, alone: bool, when: str = "") -> list[str]:
    """The requeue that ends its wait, and whether that is all; none of what is for later, which stays so.

    Args:
        alone: Whether nothing but that wait keeps it.
    """
    since = seen.summary.since
    if since is not None and since > max(seen.now, seen.summary.submitted_at):
        return []
    then = "lets it go at once" if alone else "ends this wait, and nothing else that keeps it"
    return [f"outbox requeue {seen.summary.id}   ({when}{then})"]


def _suspended(seen: Seen) -> Iterator[Reason]:
    for each in seen.suspensions:
        whom = _kept(seen, each)
        if whom:
            yield Reason(
                rule="suspended",
                text=f"{whom}{withheld.phrase(each, seen.now)}",
                blocks=whom == " ",
                until=each.until,
                help=[withheld.undone_by(each)],
            )


def _kept(seen: Seen, suspension: Suspension) -> str:
    """Nothing where it keeps nobody; a blank where it keeps the whole message; else whom."""
    summary, kind, value = seen.summary, suspension.kind, suspension.value
    if kind == "queue":
        return " " if value == summary.queue else ""
    if kind == "attribute":
        attributes = seen.message.attributes if seen.message else summary.attributes or {}
        return " " if value in {f"{name}={each}" for name, each in attributes.items()} else ""
    open_ones = _open(summary)
    if kind == "domain":
        kept = [r for r in open_ones if "@" in r and domain(r).lower() == value.lower()]
    elif value == withheld.EVERY:
        kept = open_ones
    elif seen.relays is None:
        return _by_reason(summary, suspension)
    else:
        kept = [r for r in open_ones if seen.relays.get(r) == value]
    if len(kept) == len(open_ones):
        return " " if kept else ""
    return f"for {len(kept)} of its {len(open_ones)} recipients: " if kept else ""


def _by_reason(summary: Summary, suspension: Suspension) -> str:
    """The same of a relay where those of the message are not known here: as the runner said that gave it back."""
    before = f"suspended: relay {printable(suspension.value)}"
    said = printable(summary.reason)
    # What may follow the name is its end or its words.
    if said == before or said.startswith((f"{before} until ", f"{before}: ")):
        return " "
    return "it is not known here to which relay it goes; if to this one: "


def _not_due(seen: Seen, alone: bool) -> Iterator[Reason]:
    summary = seen.summary
    due = summary.due_at
    if due is None or due <= seen.now:
        return
    why = printable(summary.reason)
    asked = seen.message.not_before if seen.message else None
    if asked is not None and asked >= due:
        text = f"it was submitted to go out no sooner than {seen.when(due)}"
    elif summary.attempts and not why.startswith("suspended: "):
        text = f"it waits for its next attempt, {seen.when(due)}; {_tries(summary)} so far, the last one ended: {why or 'in nothing'}"
    else:
        text = f"it was given back, and is due {seen.when(due)}" + (f": {why}" if why else "")
    yield Reason(rule="not-due", text=text, until=due, help=_sooner(seen, alone))


def _unserved(seen: Seen) -> Iterator[Reason]:
    queue, runners = seen.summary.queue, seen.runners
    if not runners.told:
        if queue not in seen.served:
            yield Reason(
                rule="unserved",
                text=f"nobody serves its queue {queue} by this configuration (served: {', '.join(seen.served)})",
                help=[f"outbox drain --queue {queue}"],
            )
        return
    if runners.serving(queue):
        return
    if runners.alive:
        text = f"nobody serves its queue {queue}: the runners alive serve {', '.join(sorted(runners.served))}{_silence(seen)}"
        yield Reason(rule="unserved", text=text, help=[f"outbox run --queue {queue}", "outbox status"])
        return
    yield Reason(
        rule="no-runner",
        text=f"no runner is alive{_silence(seen)}; it goes out when outbox run is started, or outbox drain comes by (from cron)",
        help=["outbox run" + ("" if queue in seen.served else f" --queue {queue}"), "outbox status"],
    )


def _silence(seen: Seen) -> str:
    last = next((each for each in seen.runners.silent if seen.summary.queue in each.said.queues), None)
    if last is None:
        return ""
    return f" ({last.who} fell silent: it was last heard of {spell(last.age)} ago; {last.silence})"


def _at_relays(seen: Seen) -> Iterator[Reason]:
    for each in ailing(seen.runners.serving(seen.summary.queue)):
        if _goes_to(seen, each.runner, each.relay):
            yield _relay_reason(seen, each)


def _goes_to(seen: Seen, runner: Runner, relay: RelayBulletin) -> bool:
    """Whether the message does; of several whose keys are not known here it may."""
    if len(runner.said.relays) == 1 and not runner.said.more_relays and not seen.relays:
        return True
    return seen.relays is None or relay.name in seen.relays.values()


def _relay_reason(seen: Seen, found: Ailing) -> Reason:
    runner, relay = found.runner, found.relay
    left = runner.opens_in(relay) or max(_ZERO, dt.timedelta(seconds=relay.limited_for) - runner.age)
    others = [name for name in (seen.relays or {}).values() if name != relay.name]
    limited = relay.state in ("well", "new")
    return Reason(
        rule="limit" if limited else "relay-misconfigured" if relay.misconfigured else "relay-paused",
        text=f"its relay {printable(relay.name) or '(the only one)'} {found.phrase} ({found.says}, {spell(runner.age)} ago)",
        blocks=not others,
        until=seen.now + left if left else None,
        help=[]
        if limited
        else ["outbox send-test --to you@example.org   (shows what it says)", "outbox status"],
    )


def _next(seen: Seen) -> Reason:
    due = seen.summary.due_at
    since = f", for {spell(seen.now - due)}" if due and seen.now - due >= dt.timedelta(seconds=1) else ""
    return Reason(
        rule="due",
        text=f"nothing keeps it: it is due{since}, and goes out when those before it have (higher priority first, "
        "then the longest due)",
        blocks=False,
        help=["outbox status"],
    )


# -- worth knowing


def _lost(seen: Seen) -> Iterator[Reason]:
    lost = seen.summary.lost
    if lost:
        yield Reason(
            rule="suspect",
            text=f"{lost} {'worker' if lost == 1 else 'workers'} in a row took it and never reported back: it is "
            "delivered alone, with nothing else in flight, and held after the fourth",
            blocks=False,
            help=[f"outbox show {seen.summary.id}"],
        )


def _copies(seen: Seen) -> Iterator[Reason]:
    for text in copies(seen.record) if seen.record else ():
        yield Reason(rule="copies", text=text, blocks=False, help=[f"outbox show {seen.summary.id}"])


def _tried(seen: Seen) -> Iterator[Reason]:
    summary, policy = seen.summary, seen.policy
    tried = max(1, summary.attempts)
    since = summary.since or summary.submitted_at
    age = max(_ZERO, seen.now - since)
    wait = policy.next_wait(tried, age=age, rng=_Even())
    then = "it is given up" if wait is None else f"the next one comes about {spell(wait)} later"
    ends = []
    if policy.attempts is not None or policy.schedule is not None:
        most = min(
            policy.attempts or 1 << 31, len(policy.schedule) + 1 if policy.schedule is not None else 1 << 31
        )
        ends.append(f"after {most} attempts")
    if policy.timeout is not None:
        counted = "" if since == summary.submitted_at else f", counted from {local(since)}"
        ends.append(f"when it is {spell(policy.timeout)} old{counted}")
    first = f"{_tries(summary)} so far" if summary.attempts else "not tried yet"
    yield Reason(
        rule="policy",
        text=f"{first}; if {'this one' if summary.state is State.CLAIMED else 'the next'} fails, {then}; "
        f"given up {' or '.join(ends) or 'never'} (the policy of {summary.queue} by this configuration)",
        blocks=False,
    )


class _Even(random.Random):
    """No spread: the wait that the others are spread around."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def _tries(summary: Summary) -> str:
    return "1 attempt" if summary.attempts == 1 else f"{summary.attempts} attempts"


def _expires(seen: Seen) -> Iterator[Reason]:
    at = seen.message.expires_at if seen.message else None
    if at is None:
        return
    if at <= seen.now:
        text = (
            f"its expires_at has passed ({ago(at, seen.now)}): the next runner that takes it lets it expire"
        )
    else:
        text = f"it expires {seen.when(at)}, if it is not out by then"
    yield Reason(rule="expires", text=text, blocks=False, until=at)


def _open(summary: Summary) -> list[str]:
    return [recipient for recipient, fate in summary.fates.items() if fate.open]
