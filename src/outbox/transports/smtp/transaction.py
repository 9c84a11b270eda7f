"""One mail transaction, from MAIL to the reply to the dot (RFC 5321 section 3.3), apart from its I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from outbox.errors import RelayFault, RelayMisconfigured
from outbox.outcome import Accepted, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.values import printable

from .commands import Command, Terms, commands, group
from .envelope import Mail
from .extensions import Extensions
from .fitting import fit_mail, not_offered
from .reply import Kind, Reply
from .steps import Dialogue, HangUp, Hear, Lost, Pour, Read, Step, Write, ask
from .whose import REFUSED, in_vain, judged, one_too_few, surely_to_the_dot

__all__ = ["Transaction"]

_LIMITS: Final = frozenset({452, 552})
_TOO_MANY: Final = (5, 3)
_SURELY_A_LIMIT: Final = 2
"""So many that may be one, with nobody accepted between: asking on would be asking each of a hundred."""


class Transaction:
    """Hands *mail* over for *recipients*, all of whom ``mail.paths`` names.

    First :meth:`envelope`, which names the recipients; then, where it left
    the server waiting for the content, :meth:`hand_over`.  With PIPELINING
    the first commands may have been sent behind the content of the
    transaction before (:meth:`first`).  What it comes to stands in the
    attributes, and holds after each of the two, whatever became of it.

    A connection that is lost once MAIL was sent is no exception: before the
    final dot was handed to the kernel those without a result have failed for
    now, after it they are uncertain.  Where it was lost for being out of step
    nobody has failed for good; nor where it was lost with PIPELINING, or
    *behind* another, before 354 or the 2xx of RSET had shown whose each reply was.

    Args:
        behind: Another one was had over the connection before, and late news
            of that may come in the place of a reply.

    Attributes:
        recipients: Whom it was to name.
        results: Of those of them that have one.
        doubted: Whose refusal for good does not count for that; it is worth
            asking again, one command at a time.
        room: How many recipients the server said it takes in one, where it did.
        fault: What concerns the relay and not the message; those it befell
            are among the results as Untried.
        stuck: At whom the connection was lost where recipients were named;
            not where the server only kept us waiting.
        spared: Who was to be named with them and has no answer of their own.
        answered_to: How many recipients the server had answered by then.
        cut: Somebody's result is that the connection was lost, or a 421.
        ready: The server waits for the content, and has accepted somebody.
        in_vain: The connection was gone, or out of step, before the first
            byte of the content: where it was used before, that need be no
            news of this message.
    """

    # What mostly stays as it is, is not set anew for each message.
    stuck: str | None = None
    spared: tuple[str, ...] = ()
    answered_to = 0
    cut = False
    _latest: Kind | None = None
    _lost: Lost | None = None
    _to_mail: Reply | None = None
    _held: Reply | None = None

    def __init__(
        self,
        mail: Mail,
        recipients: Sequence[str],
        extensions: Extensions,
        terms: Terms,
        *,
        behind: bool = False,
    ) -> None:
        self.recipients = recipients
        self.results: dict[str, Result] = {}
        self.doubted: tuple[str, ...] = ()
        self.room: int | None = None
        self.fault: RelayFault | None = None
        self.ready = self.in_vain = False
        self._terms = terms
        self._pipelined = terms.pipelined(extensions)
        self._doubtful = self._pipelined or behind
        self._lines = self._plan(mail, extensions)
        self._said = self._heard = 0
        self._begun = False
        self._opened = self._granted = False
        self._taken: list[str] = []
        self._again: list[str] = []
        self._in_a_row = 0
        self._full = self._stray = self._hollow = self._over = False
        self._poured = self._dotted = False

    @property
    def idle(self) -> bool:
        """There is nothing to say: this connection can carry it for none of them, and *results* says why."""
        return not self._lines

    @property
    def unopened(self) -> bool:
        """MAIL was met by a lost connection, a 421 or a refusal for good.

        On a connection that was used before, that may say nothing of this
        message but be late news of the one before.
        """
        return self._begun and not self._opened

    @property
    def turned_away(self) -> bool:
        """MAIL was answered with no, not because the server closes, and nothing behind it was out of step."""
        heard = self._to_mail if self._lost is None else None
        return heard is not None and not (self._granted or heard.closing)

    def put_off(self, fault: RelayFault) -> None:
        """It cannot be asked again, by *fault*: nobody is refused for good."""
        self.fault = self.fault or fault
        for recipient, result in self.results.items():
            if isinstance(result, PermFailed) and not result.by_us:
                self.results[recipient] = TempFailed(result.reply)

    @property
    def granted(self) -> bool:
        """MAIL was answered with yes."""
        return self._granted

    @property
    def again(self) -> tuple[str, ...]:
        """Those the server had no room for: to be sent in a further transaction at once."""
        return tuple(r for r in self._again if r not in self.results) if self._again else ()

    @property
    def answers(self) -> int:
        """How many replies the final dot is to have: over LMTP one for each who was accepted (RFC 2033)."""
        return len(self._taken) if self._terms.lmtp else 1

    # --- the dialogues ---

    def first(self) -> bytes:
        """The first commands, to be sent at once behind the content of the transaction before."""
        self._begun = True
        return self._cut()

    @property
    def due(self) -> int:
        """How many replies to what was said are still to be read."""
        return self._said - self._heard

    def envelope(self) -> Dialogue[None]:
        """Name sender and recipients, and ask for the content to be taken.

        Raises:
            Lost: nothing of this transaction was sent.
        """
        if self._lost is not None:
            return
        try:
            yield from self._converse()
            if not self.ready:
                yield from self._wind_up()
        except Lost as lost:
            if not self._begun:
                raise
            self._lose(lost)

    def answered(self) -> Dialogue[None]:
        """Hear what :meth:`first` is answered by; :meth:`envelope` goes on from there."""
        try:
            yield from self._listen()
        except Lost as lost:
            self._lose(lost)

    def hand_over(self, following: Transaction | None = None) -> Dialogue[None]:
        """Send the content, and behind it the first commands of *following*; read the reply to the content.

        Raises: nothing; of *following* nothing is known when this ends, and
        where the connection was lost it has not begun.  As the reply may answer
        *following*'s MAIL, it is held until :meth:`release`.
        """
        try:
            yield from self._pour(following)
        except Lost as lost:
            self._lose(lost)

    @property
    def sure(self) -> bool:
        """What is held shows of itself whose it is."""
        return self._held is not None and surely_to_the_dot(self._held, self._to_mail)

    def release(self, following: Transaction) -> None:
        """Let what was held count for what it is, if what *following* met since does not speak against it."""
        reply = self._held
        if reply is None:
            return
        if following.due and not self.sure and following.one_too_few(alike=reply == self._to_mail):
            doubt = Uncertain(f"the final dot may have had no answer: {reply} may be that to the next MAIL")
            self.results |= dict.fromkeys(self._taken, doubt)
        else:
            self._settle(self._taken, reply)
        self._held = None

    def one_too_few(self, *, alike: bool) -> bool:
        """May what was read before the replies to :meth:`first` have been the first of them?  *alike*: so it reads."""
        data_answered = self._said == len(self._lines) and self._latest is Kind.DONE
        return one_too_few(self.due, self._lost, data_answered=data_answered, alike=alike)

    # --- before anything is said ---

    def _plan(self, mail: Mail, extensions: Extensions) -> list[Command]:
        """What there is to say; who cannot be served over this connection has a result."""
        fitted, reasons = fit_mail(mail, self.recipients, extensions)
        self._content = fitted.content
        self._named = self.recipients
        if reasons:
            self.results = {r: not_offered(reason, extensions) for r, reason in reasons.items()}
            self._named = [recipient for recipient in self.recipients if recipient not in reasons]
        return commands(fitted, self._named, extensions, self._terms.dsn) if self._named else []

    # --- the envelope ---

    def _converse(self) -> Dialogue[None]:
        """A group of commands at a time, and then the reply to each of them."""
        while not self._over:
            if not self.due:
                self._strike()
                if self._said == len(self._lines):
                    return
                step = self._lines[self._said][0]
                data = self._cut()
                yield Write(step, data, self.due)
                self._begun = True
            yield from self._listen()

    def _listen(self) -> Dialogue[None]:
        """Hear the replies to all that was said, or to all that a server that closes still answers."""
        while self._said > self._heard and not self._over:
            replies: Sequence[Reply] = yield Hear(
                [step for step, _, _ in self._lines[self._heard : self._said]]
            )
            for reply in replies:
                step, recipient, _ = self._lines[self._heard]
                self._heard += 1
                self._hear(step, recipient, reply)
            self._latest = replies[-1].kind

    def _cut(self) -> bytes:
        """The next group of what is to be said; it is taken for said."""
        lines = group(self._lines[self._said :], pipelined=self._pipelined)
        self._said += len(lines)
        return b"".join(lines)

    def _strike(self) -> None:
        """Strike of what has not been said yet what has become of no use."""
        if not self._said:
            return
        data = len(self._lines) - 1
        if self._full and self._said < data:
            self._again += [recipient for _, recipient, _ in self._lines[self._said : data]]
            self._said = self._heard = data
        if not self._granted or (self._said == data and not (self._taken or self._to_be_shown)):
            self._said = self._heard = len(self._lines)

    @property
    def _to_be_shown(self) -> bool:
        """Somebody was refused for good, and DATA, though for nobody, would show whether that was meant for us."""
        return self._doubtful and any(isinstance(self.results.get(r), PermFailed) for r in self._named)

    def _hear(self, step: Step, recipient: str, reply: Reply) -> None:
        if step is Step.RCPT:
            self._hear_rcpt(recipient, reply)
        elif step is Step.DATA:
            self._hear_data(reply)
        else:
            self._hear_mail(reply)

    def _hear_mail(self, reply: Reply) -> None:
        self._granted = reply.kind is Kind.DONE
        self._to_mail = reply
        self._opened = not (reply.closing or reply.kind is Kind.NEVER)
        self._over = reply.closing
        if reply.login_first:
            self._settle_fault(reply)
        elif not self._granted:
            self._settle(self._named, reply)

    def _hear_rcpt(self, recipient: str, reply: Reply) -> None:
        if not self._granted:
            # Asked before it could be known that MAIL was refused.
            self._stray |= reply.kind is Kind.DONE
        elif reply.kind is Kind.DONE:
            self._taken.append(recipient)
            self._in_a_row = 0
        elif self._taken and reply.enhanced == _TOO_MANY:
            self.room = self.room or len(self._taken)
            self._again.append(recipient)
            self._full = True
        elif self._taken and reply.code in _LIMITS and reply.enhanced is None:
            # A limit, or this one's mailbox: as the first of a transaction it cannot be a limit.
            self._again.append(recipient)
            self._in_a_row += 1
            self._full |= self._in_a_row == _SURELY_A_LIMIT
        else:
            self._settle([recipient], reply)
        if reply.closing:
            self.stuck = recipient
            raise Lost(Step.RCPT, "the server is closing", reply=reply)
        self.answered_to += 1

    def _hear_data(self, reply: Reply) -> None:
        if reply.kind is Kind.GO_ON:
            self.ready = bool(self._taken)
            self._hollow = not self._taken
            return
        self._settle(self._taken, reply)
        if reply.closing:
            raise Lost(Step.DATA, "the server is closing", reply=reply)

    def _wind_up(self) -> Dialogue[None]:
        """Where it comes to no content, leave the server as though there had been none."""
        if self._over or not self._begun:
            return
        if self._hollow:
            yield from self._send_nothing()
        elif self._granted:
            reply = yield from ask(Step.RSET, b"RSET")
            # Among several nothing tells a reply too many from ours: refusals count once RSET has its own.
            if self._doubtful and reply.kind is not Kind.DONE:
                yield HangUp()
                raise Lost(Step.RSET, f"the server answered {reply}")

    def _send_nothing(self) -> Dialogue[None]:
        """The server asks for content that is for nobody: it gets none, and its answer says nothing of anybody.

        Where somebody may be meant after all, or nobody would answer, the
        connection ends instead (RFC 2920 section 3.1, RFC 2033 section 4.2).
        """
        if self._stray or self._terms.lmtp:
            yield HangUp()
        else:
            yield from ask(Step.LONE_DOT, b".")

    # --- the content ---

    def _pour(self, following: Transaction | None) -> Dialogue[None]:
        behind = following.first() if following else b""
        self._poured = True
        try:
            yield Pour(self._content, behind, self.answers + (following.due if following else 0))
        except Lost as lost:
            self._dotted = lost.sent > self._content.dot
            self.in_vain = in_vain(lost)
            # A server may refuse in the middle of the content and close; only a refusal can be meant so early,
            # and nothing that came before the first byte.
            if lost.reply is None or lost.reply.kind not in REFUSED or not lost.sent:
                raise
            self._settle(self._taken[:1] if self._terms.lmtp else self._taken, lost.reply)
            self._settle_lost(self._taken, lost)
            return
        self._dotted = True
        if self.answers > 1:
            for recipient in self._taken:
                self._settle([recipient], (yield Read(Step.DOT)))
        else:
            reply: Reply = yield Read(Step.DOT)
            if following is None or reply.closing:
                self._settle(self._taken, reply)
            else:
                self._held = reply

    # --- results ---

    def doubt(self) -> None:
        """Whoever has no result and may have the content, for we were interrupted on its way, is uncertain."""
        if self._poured:
            for recipient in self._taken:
                self.results.setdefault(recipient, Uncertain("interrupted on its way"))

    def _settle(self, recipients: Iterable[str], reply: Reply) -> None:
        result = judged(reply)
        self.cut |= reply.closing
        for recipient in recipients:
            self.results[recipient] = result

    def _settle_fault(self, reply: Reply) -> None:
        # From RCPT on it may be about this message alone: others need no login to be taken.
        self.fault = RelayMisconfigured(
            self._terms.relay, f"it takes no mail from us as we are: {printable(str(reply))}"
        )
        self.results |= dict.fromkeys(self._named, Untried())

    def _lose(self, lost: Lost) -> None:
        self._lost = lost
        shown = self.ready or self._hollow or not (self._doubtful and self._granted)
        self.ready = False
        if not lost.astray and not shown:
            self.doubted = tuple(r for r in self._named if isinstance(self.results.get(r), PermFailed))
        self.in_vain = in_vain(lost) or not (shown or lost.late)
        if lost.astray or self.doubted:
            self._take_back(lost)
        if lost.step is Step.RCPT and not lost.late:
            self._break_off()
        self._settle_lost(self.recipients, lost)

    def _break_off(self) -> None:
        if self.stuck is None and self._heard < len(self._lines):
            self.stuck = self._lines[self._heard][1] or None
        if self.stuck is not None:
            self.spared = tuple(r for r in self._named if r not in self.results and r != self.stuck)

    def _take_back(self, lost: Lost) -> None:
        """Nobody can tell whose a reply was: what was refused for good is tried once more."""
        for recipient in self._named:
            result = self.results.get(recipient)
            if result is not None and self._dotted and recipient in self._taken:
                # Over LMTP each has a reply of its own: another's refusal may hide that this one was taken.
                self.results[recipient] = result if isinstance(result, Accepted) else Uncertain(str(lost))
            elif isinstance(result, PermFailed):
                self.results[recipient] = TempFailed(str(lost))

    def _settle_lost(self, recipients: Iterable[str], lost: Lost) -> None:
        for recipient in recipients:
            doubtful = self._dotted and recipient in self._taken
            self.cut |= recipient not in self.results
            self.results.setdefault(recipient, Uncertain(str(lost)) if doubtful else TempFailed(str(lost)))
