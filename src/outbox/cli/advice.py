"""From what went wrong on the way to a relay to what a person can do about it."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from outbox.errors import RelayFault
from outbox.outcome import PermFailed, Result, TempFailed, Uncertain
from outbox.transports.smtp.steps import Lost, Step
from outbox.transports.smtp.transcript import Heard

__all__ = ["Trouble", "advice", "of_fault", "of_result"]

_REPLY: Final = re.compile(r"([2-5]\d\d)\b(?: ([245]\.\d{1,3}\.\d{1,3})\b)?")
_TURNED_AWAY: Final = re.compile(r"refused the greeting: [45]\d\d\b")
_NO_ROUTE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL})
_SMTP: Final = ":25"

_GREY: Final = re.compile(r"gr[ae]y|come back|try (again|later)|again later|temporar|defer", re.IGNORECASE)
_LOGIN: Final = re.compile(
    r"authenticat\w* (is )?(required|first|needed)|(must|please|need to) (be )?(authenticat|log ?in)",
    re.IGNORECASE,
)
_RELAYING: Final = re.compile(r"relay(ing)?\b|not local|authenticat", re.IGNORECASE)
_SENDER: Final = re.compile(
    r"\bsender\b|\bspf\b|\bdmarc\b|\bfrom\b address|not owned|envelope from", re.IGNORECASE
)
_SPAM: Final = re.compile(r"spam|block(ed|list)|black ?list|reputation|policy|dnsbl|rbl\b", re.IGNORECASE)
_UNKNOWN: Final = re.compile(
    r"unknown|no such|does not exist|not exist|invalid (recipient|mailbox)", re.IGNORECASE
)

_WORDS: Final[Mapping[str, str]] = {
    "name": "the name has no address here: is it spelled right, and can this machine look names up (a resolver, a network)?",
    "refused": "nothing listens there: is it the right host and port (587 with a login, 465 for TLS from the first byte, 25 "
    "between servers), and is the server running?",
    "blocked": "port 25 is most likely blocked on the way out, as it is at many providers and in most homes: send through "
    "your provider's relay on port 587 (smtp://user@host) or 465 (smtps://user@host)",
    "silent": "a firewall drops what is sent there, or the port is wrong: is it 587 or 465, and may this machine connect to it?",
    "route": "this machine has no way there: is it on the network, and does it have IPv6 if that is all the relay has?",
    "mute": "something accepts the connection and does not speak SMTP: on port 465 it waits for TLS (write smtps://), "
    "elsewhere a firewall may stand between",
    "greeting": "it takes no mail from this machine's address (dynamic, without a name, or on a blocklist): "
    "send through your provider's relay, with a login",
    "tls": "nothing was sent in clear: neither the password nor the mail",
    "no tls": "write smtps:// (port 465) where it wants TLS from the first byte. Where it offered STARTTLS before, somebody on "
    "the way may have taken it out: ask from another network",
    "login": "is the user name the whole address? Some providers want a password made for programs (an app password), "
    "or have to be told that SMTP may be used at all",
    "wants login": "it wants a login: write the user into the URL (smtp://user@host:587), and the password into the file that "
    "OUTBOX_SMTP_PASSWORD_FILE names",
    "relaying": "it does not pass mail on to that domain for you: it wants a login (smtp://user@host:587), has to be told "
    "of this machine's address, or is the wrong relay",
    "sender": "it does not take this sender: say --from with an address that belongs to your login, or whose domain lists "
    "this relay (SPF, DKIM, DMARC)",
    "recipient": "it knows no such mailbox: is the address right?",
    "full": "the mailbox, or the server's disk, is full: a queue tries again by itself; only its owner can make room",
    "size": "it takes no message of this size",
    "spam": "its filter does not trust this machine, this sender or this text: what it said names the list or the rule, mostly "
    "with a page that says how to be taken off it",
    "grey": "it puts off whom it does not know (greylisting, or too much at once). There is nothing to mend: a queue tries "
    "again by itself, and this command may be given again in a quarter of an hour",
    "later": "it cannot take it now. A queue tries again by itself; if it stays so, ask who runs the relay",
    "uncertain": "it was given the whole message, and did not say whether it took it: look whether it has arrived. "
    "A queue would send it again, under the same Message-ID",
    "hung up": "the server, or something on the way, ended the connection: a firewall that looks into SMTP, a limit, a restart",
    "never": "what it said is all there is to know: look its words up, or ask who runs the relay",
}


@attrs.frozen(kw_only=True)
class Trouble:
    """What went wrong: in the words of who met it, and as far as can be told where and by what."""

    text: str
    relay: str = ""
    step: Step | None = None
    code: int | None = None
    enhanced: str = ""
    causes: Sequence[BaseException] = ()
    result: Result | None = None


def of_fault(fault: RelayFault) -> Trouble:
    """A fault of the relay."""
    causes = tuple(_causes(fault))
    lost = next((cause for cause in causes if isinstance(cause, Lost)), None)
    found = _REPLY.search(fault.reason)
    return Trouble(
        text=str(fault),
        relay=fault.relay,
        step=lost.step if lost else Step.GREETING if _TURNED_AWAY.search(fault.reason) else None,
        code=int(found[1]) if found else None,
        enhanced=(found[2] or "") if found else "",
        causes=causes,
    )


def of_result(result: Result, recipient: str, relay: str, heard: Sequence[Heard]) -> Trouble | None:
    """Why this recipient was not accepted; None where he was, or was not tried."""
    if not isinstance(result, TempFailed | PermFailed | Uncertain):
        return None
    found = _REPLY.match(result.reply)
    said = next((each for each in reversed(heard) if found and str(each.reply) == result.reply), None)
    return Trouble(
        text=f"{recipient}: {result.reply}",
        relay=relay,
        step=said.step if said else None,
        code=int(found[1]) if found else None,
        enhanced=(found[2] or "") if found else "",
        result=result,
    )


def advice(trouble: Trouble) -> str:
    """What to do about it."""
    return _WORDS[_kind(trouble)]


def _kind(trouble: Trouble) -> str:
    if isinstance(trouble.result, Uncertain):
        return "uncertain"
    if trouble.result is not None:
        return _of_message(trouble) if trouble.code else _not_sent(trouble)
    return _of_network(trouble) or _of_relay(trouble)


def _of_network(trouble: Trouble) -> str:
    for cause in trouble.causes:
        match cause:
            case socket.gaierror():
                return "name"
            case ssl.SSLError():
                return "tls"
            case ConnectionRefusedError():
                return "refused"
            case TimeoutError() if trouble.step is not None:
                return "mute"
            case TimeoutError():
                return "blocked" if trouble.relay.endswith(_SMTP) else "silent"
            case OSError() if cause.errno in _NO_ROUTE:
                return "route"
    return ""


def _of_relay(trouble: Trouble) -> str:
    text = trouble.text
    if trouble.step is Step.GREETING and trouble.code:
        return "later" if trouble.code < 500 else "greeting"  # noqa: PLR2004 - 5xx
    if trouble.step is not None:
        return "hung up"
    if "offer STARTTLS" in text:
        return "no tls"
    if "TLS" in text or "certificate" in text:
        return "tls"
    if trouble.code in (530, 538):
        return "wants login"
    if "authenticate" in text or "was refused by" in text or trouble.code in (534, 535):
        return "login"
    return "later" if trouble.code and trouble.code < 500 else "never"  # noqa: PLR2004 - 5xx


def _of_message(trouble: Trouble) -> str:
    text, step, detail = trouble.text, trouble.step, trouble.enhanced[2:]
    # A refusal to relay is for good by its number, and one for now to us.
    final = (trouble.code or 0) >= 500  # noqa: PLR2004 - 5xx
    if trouble.code in (530, 538) or _LOGIN.search(text):
        return "wants login"
    if detail == "2.2" or (trouble.code == 452 and detail in ("", "3.1")):  # noqa: PLR2004
        return "full"
    if detail in ("3.4", "2.3") or (trouble.code == 552 and not detail):  # noqa: PLR2004
        return "size"
    if not final:
        return _of_now(trouble)
    if step is Step.MAIL or detail in ("1.7", "1.8", "7.23", "7.26") or _SENDER.search(text):
        return "sender"
    if step is Step.RCPT and detail != "1.1" and _RELAYING.search(text):
        return "relaying"
    if detail in ("1.1", "1.2", "1.10", "2.1") or (step is Step.RCPT and _UNKNOWN.search(text)):
        return "recipient"
    return "spam" if _SPAM.search(text) or detail.startswith("7.") else "never"


def _of_now(trouble: Trouble) -> str:
    grey = trouble.step in (Step.RCPT, Step.DATA, Step.DOT, Step.MAIL) and _GREY.search(trouble.text)
    return "grey" if grey or trouble.enhanced == "4.7.1" else "later"


def _not_sent(trouble: Trouble) -> str:
    if " bytes and the server takes " in trouble.text:
        return "size"
    return "hung up" if "connection lost" in trouble.text else "never"


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__
