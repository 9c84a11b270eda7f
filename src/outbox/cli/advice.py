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
from outbox.outcome import Accepted, PermFailed, Result, Uncertain, Untried
from outbox.transports.smtp.dial import NoSource
from outbox.transports.smtp.steps import Lost, Step
from outbox.transports.smtp.transcript import Heard

__all__ = ["Trouble", "advice", "of_fault", "of_result"]

_REPLY: Final = re.compile(r"([2-5]\d\d)\b(?: ([245]\.\d{1,3}\.\d{1,3})\b)?")
_REFUSAL: Final = re.compile(rf"(?:^|: ){_REPLY.pattern}")
_TURNED_AWAY: Final = re.compile(r"refused the greeting: [45]\d\d\b")
_NO_ROUTE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL})
_SMTP: Final = ":25"

_WANTS_TLS: Final = re.compile(r"starttls|\btls\b|encrypt", re.IGNORECASE)
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

_BEFORE: Final = frozenset({530, 538})
_OUR_WORDS: Final[Mapping[str, str]] = {
    "is the token of this user": "token",
    "without 'Bearer'": "token form",
    "takes a token instead": "wants token",
    "): it takes a password": "wants password",
    "authenticate: the server does": "no login",
    "protocol='lmtp'": "is lmtp",
    "protocol='smtp'": "is smtp",
    "set local_hostname": "our name",
}
"""What we say ourselves of what is missing; the first that is met holds."""
_OF_TLS: Final[Mapping[str, str]] = {
    "is somebody in between": "injected",
    "does not speak TLS there": "plain",
    "has expired": "expired",
    "is not valid yet": "expired",
    "certificate is not for": "other name",
    "authority known here": "stranger",
    "certificate of ours": "our certificate",
}
"""The same of what a handshake came to."""
_OF_CAUSE: Final[Mapping[type[BaseException], str]] = {
    socket.gaierror: "name",
    NoSource: "source",
    FileNotFoundError: "no socket",
    NotADirectoryError: "no socket",
}

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
    "tls mute": "nothing came of the handshake: something on the way that looks into TLS may stop it, or what listens there is "
    "no mail server. Nothing was sent in clear: neither the password nor the mail",
    "no smtp": "what answers there is no mail server: is it the right host and port?",
    "no socket": "no server listens at that path: is it running, is this the path that it is configured to listen at, and a socket (no "
    "file, no folder)? Seen from within a container or a chroot it is another",
    "source": "name an address of this machine in source_address=, of the relay's family (IPv4 or IPv6), or leave it out",
    "plain": "write smtp:// where it is a mail server: it begins in clear there, and a login waits for STARTTLS all the same. Or it is "
    "none: is it the right host and port? Nothing of the mail was sent",
    "expired": "have it renewed by whoever runs the relay, and look at the clocks of both: what it says is above. Until then "
    "nothing was sent in clear: neither the password nor the mail",
    "other name": "write the host into the URL as the certificate names it (above), or have it issued for this name, too; "
    "nothing was sent in clear: neither the password nor the mail",
    "stranger": "if it is the relay that you mean, add ca_file= to the URL: a PEM file with the authority that signed its certificate, "
    "or the certificate itself where that is self-signed; nothing was sent in clear: neither the password nor the mail",
    "our certificate": "add client_cert= (and client_key=) to the URL, with the certificate that it knows you by; nothing was sent in "
    "clear: neither the password nor the mail",
    "unix tls": "leave security= out: a Unix socket leads to this machine, and takes mail in clear",
    "token": "get a new one: it may be over, of another user, or not for sending mail by SMTP. The file that "
    "OUTBOX_SMTP_TOKEN_FILE names is read anew for each connection",
    "token form": "the file that OUTBOX_SMTP_TOKEN_FILE names has to hold the token alone, on one line: no 'Bearer' before it, no quotes, "
    "no blank",
    "injected": "nobody had asked for what came there: somebody on the way may be injecting text before TLS begins. Look at "
    "what is in between, and ask from another network. Nothing was sent in clear: neither the password nor the mail",
    "greeting": "it takes no mail from this machine's address (dynamic, without a name, or on a blocklist): "
    "send through your provider's relay, with a login",
    "tls": "nothing was sent in clear: neither the password nor the mail",
    "no tls": "write smtps:// (port 465) where it wants TLS from the first byte. Where it offered STARTTLS before, somebody on "
    "the way may have taken it out: ask from another network",
    "wants tls": "it takes mail under TLS only: add security=starttls to the URL (smtp://…?security=starttls), or write smtps:// "
    "for port 465",
    "our name": "it does not like what we call ourselves: add local_hostname= to the URL, with a name of this machine that it can "
    "look up",
    "is lmtp": "it does not know how mail servers greet each other: if it is one that puts mail into mailboxes, write lmtp:// (or "
    "lmtp+unix:)",
    "is smtp": "it does not know how mail is put into mailboxes: if it is an ordinary mail server, write smtp:// (or smtp+unix:)",
    "wants token": "write an access token into the file that OUTBOX_SMTP_TOKEN_FILE names, and leave the password out",
    "wants password": "write the password into the file that OUTBOX_SMTP_PASSWORD_FILE names, and leave the token out",
    "no login": "it offers no way to log in that is known here: is it the port for programs with a login (587, or 465 with "
    "smtps://)?",
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
    "full for good": "the mailbox, or the server's disk, is full, and it does not want to be asked again: a queue gives up at once. "
    "Only its owner can make room; afterwards `outbox requeue` sends it again",
    "size": "it takes no message of this size",
    "carry": "it lacks what this message or address needs, and was not asked: send it through another relay, which a chain does "
    "by itself (ChainTransport)",
    "spam": "its filter does not trust this machine, this sender or this text: what it said names the list or the rule, mostly "
    "with a page that says how to be taken off it",
    "grey": "it puts off whom it does not know (greylisting, or too much at once). There is nothing to mend: a queue tries "
    "again by itself, and this command may be given again in a quarter of an hour",
    "later": "it cannot take it now. A queue tries again by itself; if it stays so, ask who runs the relay",
    "uncertain": "it was given the whole message, and did not say whether it took it: look whether it has arrived. "
    "A queue would send it again, under the same Message-ID",
    "left out": "the only relay that could take it cannot be used now, while others can: mend that one, or wait until it is back. A "
    "queue tries again by itself, and other mail goes on meanwhile",
    "login hung up": "some servers end the connection where the password is wrong: check the user name and the password; otherwise a "
    "limit, a restart, or something on the way",
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
    # What is no reply holds no code, whatever numbers are in it.
    said = fault.reason if lost is None else f": {lost.reply or ''}"
    found = _REFUSAL.search(said)
    return Trouble(
        text=str(fault),
        relay=fault.relay,
        step=lost.step if lost else Step.GREETING if _TURNED_AWAY.search(fault.reason) else None,
        code=int(found[1]) if found else None,
        enhanced=(found[2] or "") if found else "",
        causes=causes,
    )


def of_result(result: Result, recipient: str, relay: str, heard: Sequence[Heard]) -> Trouble | None:
    """Why this recipient was not accepted; None where he was, or was not tried and nobody knows why."""
    if isinstance(result, Accepted) or not (result.reply or not isinstance(result, Untried)):
        return None
    by, reply = _speaker(result.reply, relay)
    found = _REPLY.match(reply)
    said = next((each for each in reversed(heard) if found and str(each.reply) == reply), None)
    return Trouble(
        text=f"{recipient}: {result.reply}",
        relay=by,
        step=said.step if said else None,
        code=int(found[1]) if found else None,
        enhanced=(found[2] or "") if found else "",
        result=result,
    )


def _speaker(reply: str, relays: str) -> tuple[str, str]:
    """Which of *relays* said it, and what that one said: where several answered, its name stands in front."""
    for relay in relays.split(", ") if ", " in relays else ():
        if reply.startswith(f"{relay}: "):
            return relay, reply.removeprefix(f"{relay}: ").partition("; before that ")[0]
    return relays, reply


def advice(trouble: Trouble) -> str:
    """What to do about it."""
    return _WORDS[_kind(trouble)]


def _kind(trouble: Trouble) -> str:
    if isinstance(trouble.result, Uncertain | Untried):
        return "uncertain" if isinstance(trouble.result, Uncertain) else "left out"
    if trouble.result is not None:
        return _of_message(trouble) if trouble.code else _not_sent(trouble)
    return _of_network(trouble) or _of_relay(trouble)


def _of_network(trouble: Trouble) -> str:
    for cause in trouble.causes:
        match cause:
            case socket.gaierror() | NoSource() | FileNotFoundError() | NotADirectoryError():
                return next(kind for error, kind in _OF_CAUSE.items() if isinstance(cause, error))
            case ssl.SSLError():
                return next((kind for said, kind in _OF_TLS.items() if said in trouble.text), "tls")
            case Lost() if cause.astray:
                return _of_stray(cause)
            case ConnectionRefusedError():
                return "no socket" if _by_path(trouble) else "refused"
            case TimeoutError():
                return _of_silence(trouble)
            case OSError() if cause.errno in _NO_ROUTE:
                return "route"
    return ""


def _of_relay(trouble: Trouble) -> str:
    text = trouble.text
    if trouble.step is Step.GREETING and trouble.code:
        return "later" if trouble.code < 500 else "greeting"  # noqa: PLR2004 - 5xx
    if trouble.step is not None:
        return "hung up" if trouble.step is not Step.AUTH else "login hung up"
    if "offer STARTTLS" in text:
        return "unix tls" if _by_path(trouble) else "no tls"
    if "refused STARTTLS" in text or (not trouble.code and ("TLS" in text or "certificate" in text)):
        return "tls"
    if trouble.code in _BEFORE:
        return _before(trouble)
    if named := next((kind for words, kind in _OUR_WORDS.items() if words in text), ""):
        return named
    if "authenticate" in text or "was refused by" in text or trouble.code in (534, 535):
        return "login"
    return "later" if trouble.code and trouble.code < 500 else "never"  # noqa: PLR2004 - 5xx


def _by_path(trouble: Trouble) -> bool:
    """Whether the relay is a Unix socket."""
    return "/" in trouble.relay


def _of_silence(trouble: Trouble) -> str:
    if trouble.step is not None:
        return "tls mute" if trouble.step is Step.TLS else "mute"
    return "blocked" if trouble.relay.endswith(_SMTP) else "silent"


def _of_stray(lost: Lost) -> str:
    """The server said what is no answer, or what nobody had asked for."""
    if lost.step in (Step.STARTTLS, Step.TLS):
        return "injected"
    return "no smtp" if lost.step is Step.GREETING else "hung up"


def _before(trouble: Trouble) -> str:
    """Something has to come before mail is taken (RFC 4954 section 6, RFC 3207 section 4)."""
    wants_tls = _WANTS_TLS.search(trouble.text) and not _LOGIN.search(trouble.text)
    return "wants tls" if wants_tls else "wants login"


def _of_message(trouble: Trouble) -> str:
    text, step, detail = trouble.text, trouble.step, trouble.enhanced[2:]
    # A refusal to relay is for good by its number, and one for now to us.
    final = (trouble.code or 0) >= 500  # noqa: PLR2004 - 5xx
    if trouble.code in _BEFORE or _LOGIN.search(text):
        return _before(trouble)
    if detail == "2.2" or (trouble.code == 452 and detail in ("", "3.1")):  # noqa: PLR2004
        return "full for good" if final else "full"
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
    if isinstance(trouble.result, PermFailed) and trouble.result.by_us:
        return "carry"
    return "hung up" if "connection lost" in trouble.text else "never"


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__
