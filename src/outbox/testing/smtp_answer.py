"""What an SMTP sink says to one step of a conversation, and which answers and rules could never come about."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, Literal, Self, TypeAlias, get_args

import attrs

from outbox.errors import ConfigurationError

__all__ = ["SOON", "ZERO", "Answer", "Close", "Reply", "Step", "check_rule"]

ZERO: Final = dt.timedelta(0)
SOON: Final = dt.timedelta(seconds=30)

Step: TypeAlias = Literal[
    "connect",
    "ehlo",
    "helo",
    "lhlo",
    "starttls",
    "auth",
    "mail",
    "rcpt",
    "data",
    "content",
    "dot",
    "rset",
    "noop",
    "vrfy",
    "help",
    "quit",
]
"""``content`` is its first bytes, which are not answered unless a rule says so; ``dot`` is its end."""

_OF_NOBODY: Final = frozenset({"connect", "ehlo", "helo", "lhlo", "starttls"})

Close: TypeAlias = bool | Literal["half", "reset"]
Reply: TypeAlias = str | bytes | Iterable[bytes] | None


@attrs.frozen
class Answer:
    """What the sink says to one step.

    Attributes:
        reply: Text is a whole reply, each line with its code; bytes go out
            as they are, well-formed or not; an iterable of bytes goes out
            piece by piece until it ends, which it need not; None is silence
            for as long as the sink lives.
        close: Hang up then; with no reply, at once.  ``"half"`` ends only
            what the sink says and goes on listening; ``"reset"`` lets the
            client meet a reset (over a Unix socket, a plain end).
        after: Wait so long before.
        drip: Send it byte by byte (an iterable's pieces), so far apart.
        cut: Only so many of its bytes go out; a negative number leaves so
            many out at the end.  Not of an iterable.
        at: At ``content``: not before so many of its bytes have come.
    """

    reply: Reply = None
    close: Close = False
    after: dt.timedelta = ZERO
    drip: dt.timedelta = ZERO
    cut: int | None = None
    at: int = 1

    def check(self) -> Self:
        """Itself, where it can be said.

        Raises:
            ConfigurationError: it cannot; the text says what is wrong with it.
        """
        if self.close not in (False, True, "half", "reset"):
            raise ConfigurationError(f"close is True, False, 'half' or 'reset', not {self.close!r}")
        _check_reply(self.reply)
        for name, delay in (("after", self.after), ("drip", self.drip)):
            if not isinstance(delay, dt.timedelta) or delay < ZERO:
                raise ConfigurationError(f"{name} is a timedelta of zero or more, not {delay!r}")
        if self.cut is not None:
            _check_number("cut", self.cut, None)
        _check_number("at", self.at, 0)
        return self

    @property
    def wire(self) -> bytes:
        """The bytes that go out, before any cut; none of an iterable's."""
        if isinstance(self.reply, str):
            return "".join(f"{line}\r\n" for line in self.reply.splitlines()).encode()
        return self.reply if isinstance(self.reply, bytes) else b""

    @property
    def pieces(self) -> Iterator[bytes]:
        """What goes out, in one piece unless it drips or was given in several."""
        if not isinstance(self.reply, str | bytes | None):
            yield from self.reply
            return
        wire = self.wire[: self.cut]
        yield from (wire[n : n + 1] for n in range(len(wire))) if self.drip else (wire,)

    @property
    def silent(self) -> bool:
        return self.reply is None and not self.close

    @property
    def refuses(self) -> bool:
        """Does it tell the client no?"""
        return self.wire[:1] in (b"4", b"5")


def check_rule(
    step: object,
    whom: object,
    *,
    connection: int | None = None,
    skip: int = 0,
    times: int | None = None,
    missing: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """See that the rule can come about; *missing* are the steps that are not here, each with the reason.

    Raises:
        ConfigurationError: it never would.
    """
    if step not in get_args(Step):
        raise ConfigurationError(f"{step!r} is no step: it is one of {', '.join(get_args(Step))}")
    if step in missing:
        raise ConfigurationError(f"nobody comes to {step!r} here: {missing[str(step)]}")
    if isinstance(whom, str) and whom and step in _OF_NOBODY:
        raise ConfigurationError(f"at {step!r} nobody is named yet: leave the address out")
    if isinstance(whom, str) and whom.startswith("<") and whom.endswith(">"):
        raise ConfigurationError(f"an address is written without its brackets: {whom[1:-1]!r}")
    if not (whom is None or isinstance(whom, str) or callable(whom)):
        raise ConfigurationError(f"a rule is for an address, a function of one, or None, not for {whom!r}")
    _check_number("skip", skip, 0)
    for name, number in (("connection", connection), ("times", times)):
        if number is not None:
            _check_number(name, number, 1)


def _check_number(name: str, number: object, least: int | None) -> None:
    if not isinstance(number, int) or (least is not None and number < least):
        raise ConfigurationError(
            f"{name} is a number{'' if least is None else f' from {least}'}, not {number!r}"
        )


def _check_reply(reply: object) -> None:
    if isinstance(reply, str):
        if not _is_whole(reply.splitlines()):
            raise ConfigurationError(
                f"{reply!r} is no reply: each line has the same code, from 200 to 599, such as '550 5.1.1 no such user', "
                "and a hyphen behind it where another follows; give it as bytes to send it as it is"
            )
    elif not (reply is None or isinstance(reply, Iterable)):
        raise ConfigurationError(f"a reply is text, bytes, an iterable of bytes, or None, not {reply!r}")


def _is_whole(lines: list[str]) -> bool:
    """Is that one reply (RFC 5321 section 4.2)?"""
    code = lines[0][:3] if lines else ""
    marks = [line[3:4] for line in lines]
    return (
        code.isascii()
        and code.isdecimal()
        and len(code) == 3
        and code[0] in "2345"
        and all(line.startswith(code) for line in lines)
        and all(mark == "-" for mark in marks[:-1])
        and marks[-1] in ("", " ")
    )
