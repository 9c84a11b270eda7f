"""A message as the dialogue needs it: checked, so that nothing in it can be taken for a command."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from outbox.message import Message
from outbox.outcome import PermFailed
from outbox.values import frozen_mapping, printable

from .content import Content, defect

__all__ = ["Mail", "Refusals", "path", "prepare"]

Refusals = dict[str, PermFailed]

LONGEST_PATH: Final = 254
"""Octets; 256 with the angle brackets (RFC 5321 section 4.5.3.1.3).

What no server need take is not sent: its line might be cut in two there.
"""

# One address and nothing else: no source route, comment, list or second @, of which a server makes another address.
_PATH: Final = re.compile(
    r"""(?! .*=\?.*\?= )                                       # an encoded-word: some servers decode it
        (?: "(?: [^"\\\x00-\x1f\x7f-\x9f\u2028\u2029] | \\[\x20-\x7e] )*" # quoted: anything but controls
        |   [^\s"\\<>()\[\],;:@\x00-\x1f\x7f-\x9f]+ )            # bare: nothing that has a meaning of its own
        (?: @(?: \[[A-Za-z0-9.:-]+\] | [^\s"\\<>()\[\],;:@\x00-\x1f\x7f-\x9f]+ ))?""",
    re.VERBOSE,
)


def path(address: str) -> bytes | None:
    """The address as it stands between angle brackets, or None where it could mean more than itself there."""
    if len(address) > LONGEST_PATH or not _PATH.fullmatch(address):
        return None
    written = address.encode()
    return written if len(written) <= LONGEST_PATH else None


def _frozen_paths(paths: Mapping[str, bytes]) -> Mapping[str, bytes]:
    return frozen_mapping(paths)


@attrs.frozen(kw_only=True)
class Mail:
    """What one delivery says: the sender's path, those of the recipients by their name, the content.

    *id* is what notifications call it by.
    """

    sender: bytes
    paths: Mapping[str, bytes] = attrs.field(converter=_frozen_paths, hash=False)
    content: Content
    id: str = ""


def prepare(message: Message, recipients: Sequence[str]) -> tuple[Mail, Refusals]:
    """The mail for those *recipients* that can be named in a dialogue, and why the others cannot."""
    sender = b"" if not message.sender else path(message.sender)
    reason = defect(message.content)
    if sender is None or reason:
        reason = reason and f"not sent: the content is malformed: {reason}"
        reason = reason or f"not sent: no server can be told of the sender {printable(message.sender, 80)}"
        return _nobody(), dict.fromkeys(recipients, PermFailed(reason))
    paths: dict[str, bytes] = {}
    refused: Refusals = {}
    for recipient in recipients:
        if encoded := path(recipient):
            paths[recipient] = encoded
        else:
            refused[recipient] = PermFailed("not sent: no server can be told of this address")
    mail = Mail(sender=sender, paths=paths, content=Content.of(message.content), id=message.id)
    return mail, refused


def _nobody() -> Mail:
    return Mail(sender=b"", paths={}, content=Content.of(b""))
