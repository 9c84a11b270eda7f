"""The contests: which work of ours runs beside which reference loop and which peers, and what is wanted of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import attrs
import ours
import peers
import raw
from laps import Entrant, Lap, Spread, percentile, race, ratios, spread
from places import Places
from report import factor, rate, table

__all__ = ["Contest", "Result", "claims", "compared", "loops", "peer_table", "run", "submits"]

Work: TypeAlias = Callable[[Path], Lap]

OURS: Final = "ours"
REFERENCE: Final = "reference"
APPENDS: Final = "appends"
_HUNDRED: Final = 100
_DURABILITY: Final = {"sqlite": "WAL, synchronous=FULL", "filesystem": "files and directories synced"}
_WANTED: Final = {
    "sqlite": {"1 thread": 0.8, "32 threads": 3.0, "by 100": 0.6},
    "filesystem": {"1 thread": 0.8, "16 threads": 3.0},
    "memory": {},
}
_COLUMNS: Final = ("1 thread", "4 threads", "by 100")


@attrs.frozen
class Reference:
    """A raw loop; *before* is its name in :data:`raw.BEFORE`, where it has one."""

    title: str
    work: Work
    before: str = ""


@attrs.frozen(kw_only=True)
class Contest:
    """Work that is done in a fresh folder each time.

    Attributes:
        number: Of messages a lap.
        wanted: The least ratio to the reference that would do; 0 where nothing was said.
        column: The peers' column, where they take part.
    """

    title: str
    number: int
    work: Work
    reference: Reference | None = None
    wanted: float = 0.0
    column: str = ""
    threads: int = 1
    by: int = 1


@attrs.frozen(kw_only=True)
class Result:
    """Rates in messages a second, waits in seconds.

    Attributes:
        pace: The reference's messages for each append with fsync that the disk allowed in the same round.
        fsync: What one such append took.
    """

    contest: Contest
    ours: Spread
    reference: Spread | None
    ratio: Spread | None
    median_wait: float
    slow_wait: float
    pace: Spread | None
    fsync: float
    peers: dict[str, Spread]


def submits(kind: str, number: int) -> Iterator[Contest]:
    """Submit on 1, 4, 16 and 32 threads, and by hundreds."""
    wanted = _WANTED[kind]
    for threads in (1, 4, 16, 32):
        column = f"{threads} thread{'s' if threads > 1 else ''}"
        yield Contest(
            title=f"submit, {column}",
            number=number,
            work=partial(ours.submitted, kind, number=number, threads=threads),
            reference=_loop(kind, number, 1),
            wanted=wanted.get(column, 0.0),
            column=column,
            threads=threads,
        )
    many = max(2, number * (1 if kind == "filesystem" else 5) // _HUNDRED) * _HUNDRED
    yield Contest(
        title="submit_many by 100",
        number=many,
        work=partial(ours.submitted, kind, number=many, by=_HUNDRED),
        reference=_loop(kind, many, _HUNDRED),
        wanted=wanted.get("by 100", 0.0),
        column="by 100",
        by=_HUNDRED,
    )


def _loop(kind: str, number: int, by: int) -> Reference | None:
    if kind == "sqlite":
        work = partial(raw.rows, content=ours.CONTENT, number=number, by=by)
        return Reference(
            f"1 thread, WAL/FULL, {by} row{'s' if by > 1 else ''} a commit", work, f"rows by {by}"
        )
    if kind == "filesystem":
        work = partial(raw.files, content=ours.CONTENT, number=number, threads=1)
        return Reference("1 thread, create + fsync + rename + fsync(dir)", work, "files")
    return None


def claims(kind: str, number: int) -> Iterator[Contest]:
    """Claim and settle by 1, 10 and 100: in two calls, and in one where the store has it."""
    for by in (1, 10, _HUNDRED):
        # Whole batches, and two of them at least.
        many = max(2, number * {1: 1, 10: 4, _HUNDRED: 8}[by] // by) * by
        yield _claim(kind, many, by)
        if ours.exchanges(kind):
            yield _exchange(kind, many, by)


def _claim(kind: str, number: int, by: int) -> Contest:
    work = partial(ours.claimed, kind, number=number, by=by)
    contest = Contest(title=f"claim + settle by {by}", number=number, work=work, by=by)
    if kind != "sqlite":
        return contest
    loop = partial(raw.taken, content=ours.CONTENT, number=number, by=by)
    reference = Reference(f"1 thread, claim NORMAL, ack FULL, by {by}", loop, f"claim, ack by {by}")
    return attrs.evolve(contest, reference=reference, wanted=0.7)


def _exchange(kind: str, number: int, by: int) -> Contest:
    work = partial(ours.exchanged, kind, number=number, by=by)
    contest = Contest(title=f"exchange by {by}", number=number, work=work, by=by)
    if kind != "sqlite":
        return contest
    loop = partial(raw.exchanged, content=ours.CONTENT, number=number, by=by)
    title = f"1 thread, ack and claim in one FULL commit, by {by}"
    return attrs.evolve(contest, reference=Reference(title, loop, f"ack and claim by {by}"), wanted=0.7)


def loops(number: int) -> Iterator[Contest]:
    """The reference loops for which nothing of ours is the counterpart, for comparison."""
    for threads in (4, 16):
        work = partial(raw.files, content=ours.CONTENT, number=number, threads=threads)
        yield Contest(
            title=f"raw: create + fsync + rename + fsync(dir), {threads} threads", number=number, work=work
        )


def run(
    contest: Contest, places: Places, taking_part: Sequence[peers.Peer], *, rounds: int, appends: int
) -> Result:
    entrants = [_entrant(OURS, contest.work, places)]
    if contest.reference is not None:
        append = partial(raw.appended, content=ours.CONTENT, number=appends)
        entrants += [_entrant(REFERENCE, contest.reference.work, places), _entrant(APPENDS, append, places)]
    if contest.column in _COLUMNS:
        entrants += peers.entrants(
            taking_part,
            contest.column,
            places,
            threads=contest.threads,
            by=contest.by,
            number=contest.number,
        )
    laps = race(entrants, rounds)
    failed = {peer.name for peer in taking_part if contest.column in peer.failed}
    return _result(contest, {name: each for name, each in laps.items() if name not in failed})


def _entrant(name: str, work: Callable[[Path], Lap], places: Places) -> Entrant:
    return Entrant(name, lambda: work(places.new()))


def _result(contest: Contest, laps: dict[str, list[Lap]]) -> Result:
    rates = {name: [lap.rate for lap in each] for name, each in laps.items()}
    mine = rates.pop(OURS)
    loop = rates.pop(REFERENCE, None)
    appends = rates.pop(APPENDS, None)
    return Result(
        contest=contest,
        ours=spread(mine),
        reference=None if loop is None else spread(loop),
        ratio=None if loop is None else ratios(mine, loop),
        median_wait=_typical(laps[OURS], 0.5),
        slow_wait=_typical(laps[OURS], 0.99),
        pace=None if loop is None or appends is None else ratios(loop, appends),
        fsync=_typical(laps[APPENDS], 0.5) if appends else 0.0,
        peers={name: spread(each) for name, each in rates.items()},
    )


def _typical(laps: Sequence[Lap], part: float) -> float:
    return statistics.median(percentile(lap.waits, part) for lap in laps)


def compared(results: Sequence[Result]) -> str:
    """A table of ours beside the reference."""
    heads = (
        "what",
        "msg/s",
        "reference",
        "its msg/s",
        "ratio",
        "wanted",
        "p50 / p99 of a call, ms",
        "one fsync is",
    )
    return table(heads, map(_row, results))


def _row(result: Result) -> Sequence[str]:
    contest = result.contest
    return (
        contest.title,
        rate(result.ours),
        contest.reference.title if contest.reference else "",
        rate(result.reference) if result.reference else "",
        factor(result.ratio) if result.ratio else "",
        f"≥ {contest.wanted:.1f}" if contest.wanted else "",
        f"{result.median_wait * 1000:.2f} / {result.slow_wait * 1000:.2f}",
        f"{100 * result.fsync / result.median_wait:.0f} % of the p50" if result.fsync else "",
    )


def judged(results: Sequence[Result]) -> str:
    """Whether the reference loops are worth their name: theirs of today beside theirs of before."""
    # The first contest that a loop takes part in tells of it.
    found = {each.contest.reference.before: each for each in reversed(results) if each.contest.reference}
    return table(
        ("reference loop", "msg/s", "before", "ratio, each to its appends + fsync", "wanted"),
        (_judgement(each) for name, each in reversed(found.items()) if name in raw.BEFORE),
    )


def _judgement(result: Result) -> Sequence[str]:
    loop, figure, pace = result.contest.reference, result.reference, result.pace
    if loop is None or figure is None or pace is None:
        return ()
    before = raw.BEFORE[loop.before]
    worth = Spread(*(each * raw.BEFORE["append"] / before for each in pace))
    return (loop.title, rate(figure), f"{before:,}", factor(worth), "≥ 0.8")


def peer_table(kind: str, results: Sequence[Result], taking_part: Sequence[peers.Peer]) -> str:
    """Ours and the peers', column by column; who takes no part is named with the reason."""
    by_column = {each.contest.column: each for each in results if each.contest.column in _COLUMNS}
    mine = (
        f"**outbox, {kind}**",
        *(rate(each.ours) for each in by_column.values()),
        "yes",
        _DURABILITY[kind],
    )
    rows = [mine, *(_peer(peer, by_column) for peer in taking_part)]
    return table(("submit, msg/s", *by_column, "outlasts power loss", "as it says itself"), rows)


def _peer(peer: peers.Peer, results: dict[str, Result]) -> tuple[str, ...]:
    name = f"{peer.name} {peer.version}".strip()
    if peer.missing:
        return (name, *[""] * len(_COLUMNS), "?", f"missing: {peer.missing}")
    cells = [
        rate(results[column].peers[peer.name]) if column not in peer.failed else peer.failed[column]
        for column in results
    ]
    return (name, *cells, "yes" if peer.durable else "no", peer.durability)
