"""One mail transaction, from MAIL to the reply to the dot (RFC 5321 section 3.3), apart from its I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from outbox.errors import RelayMisconfigured
from outbox.outcome import Accepted, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.values import frozen_mapping, printable

from .envelope import Mail
from .extensions import Extensions
from .fitting import fit_mail
from .reply import Kind, Reply
from .steps import Dialogue, Lost, Pour, Read, Step, Write, ask

__all__ = ["Report", "transaction"]

_ABOUT_US: Final = frozenset({530, 534, 535, 538})
"""Authentication or encryption is wanted: that is no fault of the message."""
_REFUSED: Final = frozenset({Kind.NOT_NOW, Kind.NEVER})
_LIMITS: Final = frozenset({452, 552})
_TOO_MANY: Final = (5, 3)
_SURELY_A_LIMIT: Final = 2
"""So many that may be one, with nobody accepted between: asking on would be asking each of a hundred."""


def _frozen_results(results: Mapping[str, Result]) -> Mapping[str, Result]:
    return frozen_mapping(results)


@attrs.frozen(kw_only=True)
class Report:
    """What one transaction came to.

    Attributes:
        results: Of those recipients that have one.
        again: Those the server had no room for in this transaction: to be
            sent in a further one at once.
        room: How many recipients the server said it takes in one, where it did.
        unopened: MAIL was met by a lost connection, a 421 or a refusal for
            good: on a connection that was used before, that may say nothing
            of this message but be late news of the one before.
        fault: What concerns the relay and not the message; those it befell
            are among the results as Untried.
    """

    results: Mapping[str, Result] = attrs.field(converter=_frozen_results, hash=False)
    again: tuple[str, ...] = ()
    room: int | None = None
    unopened: bool = False
    fault: RelayMisconfigured | None = attrs.field(default=None, eq=str)


def transaction(
    mail: Mail, recipients: Sequence[str], extensions: Extensions, *, relay: str
) -> Dialogue[Report]:
    """Hand *mail* over for *recipients*, all of whom ``mail.paths`` names.

    A connection that is lost once MAIL was sent is part of the report: before
    the final dot was handed to the kernel those without a result failed for
    now, after it they are uncertain.  Where it was lost for being out of step
    nobody has failed for good.

    Raises:
        Lost: nothing of this transaction was sent.
    """
    mail, reasons = fit_mail(mail, recipients, extensions)
    refused = {recipient: _not_offered(reason, extensions) for recipient, reason in reasons.items()}
    rest = [recipient for recipient in recipients if recipient not in refused]
    if not rest:
        return Report(results=refused)
    report = yield from _Transaction(mail, rest, extensions, relay).run()
    return attrs.evolve(report, results={**refused, **report.results})


def _not_offered(reason: str, extensions: Extensions) -> Result:
    if extensions.told:
        return PermFailed(f"not sent: {reason}")
    return TempFailed(f"not sent: {reason} (it refused EHLO)")


def _mail_command(mail: Mail, recipients: Sequence[str], extensions: Extensions) -> bytes:
    """Only what this connection offers is declared, and all that the message needs (RFC 5321 section 3.3)."""
    words = [b"MAIL FROM:<" + mail.sender + b">"]
    if "SIZE" in extensions:
        words.append(b"SIZE=%d" % mail.content.size)
    if mail.content.eightbit:
        words.append(b"BODY=8BITMIME")
    if mail.content.utf8 or not mail.sender.isascii() or not all(mail.paths[r].isascii() for r in recipients):
        words.append(b"SMTPUTF8")
    return b" ".join(words)


class _Transaction:
    """The state of one transaction: who was refused, who was accepted, how far it came."""

    def __init__(self, mail: Mail, recipients: Sequence[str], extensions: Extensions, relay: str) -> None:
        self._mail = mail
        self._recipients = recipients
        self._extensions = extensions
        self._relay = relay
        self._results: dict[str, Result] = {}
        self._taken: list[str] = []
        self._again: list[str] = []
        self._room: int | None = None
        self._begun = False
        self._opened = False
        self._dotted = False
        self._fault: RelayMisconfigured | None = None

    def run(self) -> Dialogue[Report]:
        try:
            if (yield from self._open()):
                yield from self._name_recipients()
                yield from self._hand_over()
        except Lost as lost:
            if not self._begun:
                raise
            if lost.astray:
                self._take_back_refusals(lost)
            self._settle_lost(lost)
        return Report(
            results=self._results,
            again=tuple(r for r in self._again if r not in self._results),
            room=self._room,
            unopened=not self._opened,
            fault=self._fault,
        )

    def _open(self) -> Dialogue[bool]:
        yield Write(Step.MAIL, _mail_command(self._mail, self._recipients, self._extensions) + b"\r\n")
        self._begun = True
        reply: Reply = yield Read(Step.MAIL)
        self._opened = not (reply.closing or reply.kind is Kind.NEVER)
        if reply.code in _ABOUT_US:
            self._settle_fault(reply)
        elif reply.kind is not Kind.DONE:
            self._settle(self._recipients, reply)
        return reply.kind is Kind.DONE

    def _name_recipients(self) -> Dialogue[None]:
        in_a_row = 0
        for number, recipient in enumerate(self._recipients):
            if in_a_row == _SURELY_A_LIMIT:
                self._again += self._recipients[number:]
                return
            reply = yield from ask(Step.RCPT, b"RCPT TO:<" + self._mail.paths[recipient] + b">")
            if reply.kind is Kind.DONE:
                self._taken.append(recipient)
                in_a_row = 0
            elif self._taken and reply.enhanced == _TOO_MANY:
                self._room = len(self._taken)
                self._again += self._recipients[number:]
                return
            elif self._taken and reply.code in _LIMITS and reply.enhanced is None:
                # A limit, or this one's mailbox: as the first of a transaction it cannot be a limit.
                self._again.append(recipient)
                in_a_row += 1
            else:
                self._settle([recipient], reply)
            if reply.closing:
                raise Lost(Step.RCPT, "the server is closing", reply=reply)

    def _hand_over(self) -> Dialogue[None]:
        if self._taken:
            reply = yield from ask(Step.DATA, b"DATA")
            if reply.kind is Kind.GO_ON:
                yield from self._pour()
                return
            self._settle(self._taken, reply)
            if reply.closing:
                return
        yield from ask(Step.RSET, b"RSET")

    def _pour(self) -> Dialogue[None]:
        try:
            yield Pour(self._mail.content)
        except Lost as lost:
            self._dotted = lost.sent > self._mail.content.dot
            # A server may refuse in the middle of the content and close; only a refusal can be meant so early.
            if lost.reply is None or lost.reply.kind not in _REFUSED:
                raise
            self._settle(self._taken, lost.reply)
            return
        self._dotted = True
        reply: Reply = yield Read(Step.DOT)
        self._settle(self._taken, reply)

    def _settle(self, recipients: Sequence[str], reply: Reply) -> None:
        self._results |= dict.fromkeys(recipients, self._judged(reply))

    @staticmethod
    def _judged(reply: Reply) -> Result:
        if reply.kind is Kind.DONE:
            return Accepted(str(reply))
        final = reply.kind is Kind.NEVER and reply.code not in _ABOUT_US
        return PermFailed(str(reply)) if final else TempFailed(str(reply))

    def _settle_fault(self, reply: Reply) -> None:
        # From RCPT on it may be about this message alone: others need no login to be taken.
        self._fault = RelayMisconfigured(
            self._relay, f"it takes no mail from us as we are: {printable(str(reply))}"
        )
        self._results |= dict.fromkeys(self._recipients, Untried())

    def _take_back_refusals(self, lost: Lost) -> None:
        """Nobody can tell whose a reply was: what was refused for good is tried once more."""
        for recipient, result in self._results.items():
            if isinstance(result, PermFailed):
                self._results[recipient] = TempFailed(str(lost))

    def _settle_lost(self, lost: Lost) -> None:
        for recipient in self._recipients:
            doubtful = self._dotted and recipient in self._taken
            self._results.setdefault(recipient, Uncertain(str(lost)) if doubtful else TempFailed(str(lost)))
