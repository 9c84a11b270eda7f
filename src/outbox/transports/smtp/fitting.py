"""What a connection can carry: content and addresses as they are, or in a form that loses nothing, or not at all.

Nothing is sent that was not declared, and nothing declared that was not offered.
"""

from __future__ import annotations

from collections.abc import Collection

import attrs

from outbox.address import parse_mailbox
from outbox.errors import InvalidMessage
from outbox.mail.downgrade import downgraded
from outbox.mail.heads import foreign_heads, is_utf8
from outbox.mail.wire import LINE_OCTETS
from outbox.outcome import PermFailed, Result, TempFailed

from .content import Content
from .envelope import Mail
from .extensions import Extensions

__all__ = ["fit", "fit_mail", "fit_path", "not_offered"]


def fit(content: Content, extensions: Extensions) -> Content | str:
    """*content* itself where the server can take it as it is; else another form of it, or the reason why there is none.

    The same content comes out of it for the same offers, each time, and is
    made once.  What fits is neither read nor copied for it.
    """
    if too_large := _too_large(content, extensions):
        return too_large
    if not (content.eightbit or content.overlong):
        return content
    offers = ("8BITMIME" in extensions, "SMTPUTF8" in extensions)
    form = content.forms.get(offers)
    if form is None:
        lack = _lack(content, *offers)
        if not lack:
            return content
        form = content.forms[offers] = _form(content, lack, *offers)
    if isinstance(form, str):
        return form
    return _too_large(form, extensions) or form


def _form(content: Content, lack: str, eightbit: bool, utf8: bool) -> Content | str:
    """What can be sent in place of *content*, which *lack* keeps from being sent; or why nothing can."""
    made = downgraded(content.whole, eightbit=eightbit, utf8=utf8)
    if isinstance(made, str):
        return f"{lack}, and it cannot be said otherwise without a loss: {made}"
    form = Content.of(made)
    return _lack(form, eightbit, utf8) or form


def _too_large(content: Content, extensions: Extensions) -> str:
    if extensions.size is not None and content.size > extensions.size:
        return f"it has {content.size} bytes and the server takes {extensions.size} at most"
    return ""


def _lack(content: Content, eightbit: bool, utf8: bool) -> str:
    """What keeps it from being sent as it is where that much is offered, or ``""``."""
    if content.overlong:
        return f"it has a line of more than {LINE_OCTETS} octets, which no server need take"
    if content.utf8 and not (eightbit and utf8):
        return f"its header, or that of a part, is not ASCII and the server {_missing(eightbit, utf8)}"
    if content.eightbit and not eightbit:
        return "its content is 8-bit and the server does not offer 8BITMIME"
    if content.utf8 and not all(map(is_utf8, foreign_heads(content.whole))):
        return "its header, or that of a part, is neither ASCII nor UTF-8"
    return ""


def _missing(eightbit: bool, utf8: bool) -> str:
    if eightbit or utf8:
        return f"does not offer {'SMTPUTF8' if eightbit else '8BITMIME'}"
    return "offers neither SMTPUTF8 nor 8BITMIME"


def fit_path(path: bytes, extensions: Extensions) -> bytes | None:
    """*path* itself, or with its domain in ASCII, or None where only SMTPUTF8 could carry it."""
    if path.isascii() or "SMTPUTF8" in extensions:
        return path
    try:
        known = parse_mailbox(path.decode())
    except InvalidMessage:
        return None
    return known.encode() if known.isascii() else None


def fit_mail(mail: Mail, recipients: Collection[str], extensions: Extensions) -> tuple[Mail, dict[str, str]]:
    """*mail* for those of *recipients* whom it can be sent to, and for each other one the reason why not."""
    content = fit(mail.content, extensions)
    if isinstance(content, str):
        return mail, dict.fromkeys(recipients, content)
    if content is not mail.content:
        mail = attrs.evolve(mail, content=content)
    foreign = [recipient for recipient in recipients if not mail.paths[recipient].isascii()]
    if mail.sender.isascii() and not foreign:
        return mail, {}
    return _fit_paths(mail, recipients, extensions)


def _fit_paths(
    mail: Mail, recipients: Collection[str], extensions: Extensions
) -> tuple[Mail, dict[str, str]]:
    sender = fit_path(mail.sender, extensions)
    if sender is None:
        reason = "its sender is not ASCII and the server does not offer SMTPUTF8"
        return mail, dict.fromkeys(recipients, reason)
    paths = {recipient: fit_path(mail.paths[recipient], extensions) for recipient in recipients}
    reason = "the address is not ASCII and the server does not offer SMTPUTF8"
    known = {recipient: path for recipient, path in paths.items() if path is not None}
    refused = {recipient: reason for recipient in paths if recipient not in known}
    return attrs.evolve(mail, sender=sender, paths=known), refused


def not_offered(reason: str, extensions: Extensions) -> Result:
    """What it comes to for whom this connection cannot carry it, by *reason*."""
    if extensions.told:
        return PermFailed(f"not sent: {reason}", by_us=True)
    return TempFailed(f"not sent: {reason} (it refused EHLO)")
