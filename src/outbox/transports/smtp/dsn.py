"""Which delivery status notifications are asked for, and how that is said (RFC 3461)."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

import attrs

from outbox.errors import ConfigurationError

__all__ = ["DSN", "Notify", "original_recipient", "xtext"]

Notify: TypeAlias = Literal["success", "failure", "delay", "never"]

_RET: Final = (None, "full", "hdrs")
_NOTIFY: Final = ("success", "failure", "delay", "never")
_LONGEST_ORCPT: Final = 500
_NOT_XTEXT: Final = re.compile(r"[^!-*,-<>-~]")
_NOT_UTF8_XTEXT: Final = re.compile(r"[^!-*,-<>-\[\]-~]")


def _known_ret(_: object, __: object, ret: object) -> None:
    if ret not in _RET:
        raise ConfigurationError(f"ret of a DSN is 'full', 'hdrs' or None, not {ret!r}")


def _known_notify(_: object, __: object, notify: tuple[str, ...]) -> None:
    if unknown := [word for word in notify if word not in _NOTIFY]:
        raise ConfigurationError(f"notify {unknown[0]!r} of a DSN is none of {', '.join(_NOTIFY)}")
    if "never" in notify and len(set(notify)) > 1:
        raise ConfigurationError("notify of a DSN is 'never' alone, or some of the others")


def _words(notify: str | tuple[str, ...]) -> tuple[str, ...]:
    return (notify,) if isinstance(notify, str) else tuple(dict.fromkeys(notify))


@attrs.frozen(kw_only=True)
class DSN:
    """The notifications to ask a server for that offers DSN; of another nothing is asked.

    Each message is named by its id (ENVID) and each recipient by its address
    (ORCPT), so that whoever reads a notification finds the message again.

    Attributes:
        ret: What of the message a failure brings back: all of it
            (``"full"``), its header (``"hdrs"``), or what the server likes.
        notify: Of what to notify the sender: ``"success"``, ``"failure"``,
            ``"delay"``, or ``"never"`` alone; nothing is what the server
            likes.

    Raises:
        ConfigurationError: a word is none of these.
    """

    ret: Literal["full", "hdrs"] | None = attrs.field(default=None, validator=_known_ret)
    notify: tuple[Notify, ...] = attrs.field(default=(), converter=_words, validator=_known_notify)

    def of_mail(self, envelope_id: str) -> bytes:
        """What it adds to MAIL."""
        ret = f" RET={self.ret.upper()}" if self.ret else ""
        return f"{ret} ENVID={xtext(envelope_id)}".encode() if envelope_id else ret.encode()

    def of_rcpt(self, recipient: str) -> bytes:
        """What it adds to RCPT."""
        notify = f" NOTIFY={','.join(self.notify).upper()}" if self.notify else ""
        original = original_recipient(recipient)
        return f"{notify} ORCPT={original}".encode() if original else notify.encode()


def xtext(text: str) -> str:
    """ASCII text as a parameter holds it (RFC 3461 section 4)."""
    return _NOT_XTEXT.sub(lambda found: f"+{ord(found[0]):02X}", text)


def original_recipient(recipient: str) -> str:
    """*recipient* with its type, as ORCPT takes it; ``""`` where it is too long to be said."""
    if recipient.isascii():
        original = f"rfc822;{xtext(recipient)}"
    else:
        # In seven bits, whatever the server offers (RFC 6533 section 3).
        original = "utf-8;" + _NOT_UTF8_XTEXT.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", recipient)
    return original if len(original) <= _LONGEST_ORCPT else ""
