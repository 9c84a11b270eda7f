"""The commands of SMTP and LMTP as a sink knows them: their steps, their syntax, and how long they may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from .smtp_script import Answer, Step

__all__ = [
    "LONGEST_LINE",
    "LONGEST_PATH",
    "MAY_BE_FOLLOWED",
    "PARAMETERS",
    "PATH",
    "ROOM_FOR_PARAMETERS",
    "STEPS",
    "USUAL",
    "keywords",
]

LONGEST_LINE: Final = 512
ROOM_FOR_PARAMETERS: Final = 1200
"""What SIZE, BODY, SMTPUTF8 and DSN add to the length of MAIL and RCPT at most."""
LONGEST_PATH: Final = 256
STEPS: Final[Mapping[str, Step]] = {
    "EHLO": "ehlo",
    "HELO": "helo",
    "LHLO": "lhlo",
    "STARTTLS": "starttls",
    "AUTH": "auth",
    "MAIL": "mail",
    "RCPT": "rcpt",
    "DATA": "data",
    "RSET": "rset",
    "NOOP": "noop",
    "VRFY": "vrfy",
    "HELP": "help",
    "QUIT": "quit",
}
USUAL: Final[Mapping[Step, str]] = {
    "rset": "250 2.0.0 done",
    "noop": "250 2.0.0 done",
    "vrfy": "252 2.1.5 send some mail, I will see",
    "help": "214 2.0.0 RFC 5321 helps",
    "quit": "221 2.0.0 goodbye",
}
PATH: Final = re.compile(r'<((?:"(?:[^"\\]|\\.)*"|[^">])*)>')
"""Up to the first closing bracket that is not quoted: parameters may hold brackets, too."""
MAY_BE_FOLLOWED: Final = frozenset({"MAIL", "RCPT", "RSET"})
"""Behind these a client may speak on without waiting, where PIPELINING is offered (RFC 2920 section 3.1)."""
PARAMETERS: Final[Mapping[str, Mapping[str, str]]] = {
    "mail": {
        "SIZE": "SIZE",
        "BODY": "8BITMIME",
        "SMTPUTF8": "SMTPUTF8",
        "RET": "DSN",
        "ENVID": "DSN",
        "AUTH": "",
    },
    "rcpt": {"NOTIFY": "DSN", "ORCPT": "DSN"},
}
"""The keyword that each parameter has to be offered by; ``""`` is none."""


def keywords(answer: Answer) -> frozenset[str]:
    """What a reply to EHLO offers, whoever wrote it."""
    lines = answer.wire.decode("utf-8", "replace").splitlines()[1:]
    return frozenset(line[4:].partition(" ")[0].upper() for line in lines)
