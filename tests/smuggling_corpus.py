"""What is tried to bring a second message, recipient or field in: contents, addresses, values of fields."""

from __future__ import annotations

import re
from collections.abc import Iterator

from outbox.transports.smtp.content import BLOCK, DOTTED

SECOND = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nSubject: evil\r\n\r\nevil\r\n.\r\n"
HEAD = b"Subject: a\r\n\r\n"

ENDS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r\n.\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\n",
    b"\n\n.\r\n",
    b"\r\r\n.\r\n",
    b"\r\n.\r\r\n",
    b"\r\n.\n\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\0\r\n.\r\n",
    b"\r\n\r\n.\r\n\r\n",
    b"\r\n..\r\n",
    b"\r\n...\r\n",
    b"\r\n. \r\n",
    b"\r\n.\t\r\n",
    b"\r\n \r\n.\r\n",
    b"\r\n.\x0b\r\n",
    b"\x0c.\r\n",
    b"\x1a\r\n.\r\n",
    b"\x1c.\x1c",
    b"\xc2\x85.\xc2\x85",
    b"\xe2\x80\xa8.\xe2\x80\xa8",
    b"\xe5\x98\x8d\xe5\x98\x8a.\xe5\x98\x8d\xe5\x98\x8a",  # ends in CR LF where a program keeps the low octets
    b"\x8d\x8a.\x8d\x8a",  # the same where one drops the high bits
    b"=0D=0A.=0D=0A",
    b"&#13;&#10;.&#13;&#10;",
    b"\r\n.\r\n\r\n.\r\n",
    b"\r\n.QUIT\r\n",
    b"\r\nQUIT\r\n",
    b"\r\nRSET\r\n.\r\n",
]
"""Each is the end of a content for some server, or looks like it; a second message follows."""

WIDTHS = [72, 76, 510, 512, 996, 997, 998, 999, 1000, 1001, 1022, 1024, 2046, 2048, 4094, 4095, 4096, 8192]
"""Where some server may cut a line in two."""


def contents() -> Iterator[tuple[str, bytes]]:
    """Each with a name."""
    for end in ENDS:
        yield f"end {end!r}", HEAD + b"hello" + end + SECOND
    for end in (b".", b"..", b"\r\n.", b"\r\n..", b"a.", b"", b"\r\n"):
        yield f"last {end!r}", HEAD + b"hello" + end
        yield f"only {end!r}", end
    yield "begins with a dot", b".\r\n" + SECOND
    for width in WIDTHS:
        for before in (b"a", b".", b"-", b" "):
            yield f"cut {before!r} {width}", HEAD + before * width + b".\r\n" + SECOND
        yield f"fold {width}", b"Subject: a" + b" " * width + b".\r\n\r\nhello\r\n" + SECOND
    for shift in range(-6, 7):
        yield f"edge {shift}", _up_to(BLOCK + shift) + b"\r\n.\r\n" + SECOND
        yield f"dotted edge {shift}", _up_to(DOTTED + shift) + b"\r\n.\r\n" + SECOND
        yield f"last dot {shift}", _up_to(BLOCK + shift) + b"\r\n."


def _up_to(size: int) -> bytes:
    """So many bytes of short lines, the last one not ended."""
    line = b"x" * 70 + b"\r\n"
    text = HEAD + line * (size // len(line) - 1)
    return text + b"y" * (size - len(text))


def sound(content: bytes) -> bool:
    """Has it neither a bare CR, a bare LF nor a NUL?"""
    return not re.search(rb"[\r\n\0]", content.replace(b"\r\n", b""))


ADDRESSES = [
    # more than one command
    "a@example.org>\r\nRCPT TO:<victim@example.org",
    "a@example.org\r\nDATA",
    "a@example.org\n",
    "a@example.org\r",
    "\r\na@example.org",
    '"a\r\n"@example.org',
    '"a\\\r\n"@example.org',
    "a\0@example.org",
    "a@example.org\x0bDATA",
    "a@example.org\x1cDATA",
    "a@example.org\x85DATA",
    "a@example.org\u2028DATA",
    "a@example.org\u2029DATA",
    "a\x7f@example.org",
    "a@example.org\u560d\u560aDATA",
    "a@\u560d\u560aDATA.example.org",
    # more than one word
    "a@example.org> NOTIFY=NEVER",
    "a@example.org> SIZE=1",
    "a@example.org> ORCPT=rfc822;victim@example.org",
    "a@example.org>",
    "a>b@example.org",
    "a<b@example.org",
    "<a@example.org>",
    "A <a@example.org>",
    "a b@example.org",
    "a@example.org b",
    " a@example.org",
    "a@example.org ",
    "a\u00a0b@example.org",
    "a\u3000b@example.org",
    "a\t@example.org",
    # more than one address
    "a@example.org,victim@example.org",
    "a@example.org;victim@example.org",
    "a@example.org@victim.example",
    "@relay.example:a@example.org",
    "@relay.example,@other.example:a@example.org",
    "a:b@example.org",
    "a(b)@example.org",
    "a@example.org(b)",
    "a@(b)example.org",
    '"a"b"c"@example.org',
    '"a"@example.org"',
    '"a@example.org',
    'a"@example.org',
    '"a\\"@example.org',
    "a\\@b@example.org",
    "a\\>@example.org",
    "a@[192.0.2.1",
    "a@[192.0.2.1]> SIZE=1",
    "a@[192.0.2.1]@example.org",
    "[a]@example.org",
    "@example.org",
    "a@",
    "@",
    "<>",
    '""',
    # what nobody sees, or sees otherwise
    "a\u202egro.elpmaxe@example.org",
    "a\u200b@example.org",
    "a\ufeff@example.org",
    "a\uff1eb@example.org",
    "a\u00ad@example.org",
    "a@example\u3002org",
    "a@exa\u0301mple.org",
    "=?utf-8?q?a=40victim.example=3e=00?=@example.org",
    # more than any server need take
    "x" * 244 + "@example.org",
    "é" * 122 + "@example.org",
    "x" * 400 + "@example.org",
    "x" * 100_000 + "@example.org",
    "a@" + "b." * 200 + "org",
    # odd, and sound
    '"a b"@example.org',
    '"a>b"@example.org',
    '"<a@b>"@example.org',
    '"a@b"@example.org',
    r'"a\"b"@example.org',
    r'"a\\"@example.org',
    '""@example.org',
    "a%victim.example@example.org",
    "victim.example!a@example.org",
    "a+b=c@example.org",
    "-a@example.org",
    "|a@example.org",
    "/a@example.org",
    "postmaster",
    "a@[192.0.2.1]",
    "a@[IPv6:2001:db8::1]",
    "jörg@example.org",
    "SIZE=1@example.org",
]

VALUES = [
    "a\r\nBcc: victim@example.org",
    "a\nBcc: victim@example.org",
    "a\rBcc: victim@example.org",
    "a\r\n\r\nhello\r\n.\r\n",
    "a\0",
    "a\x0bBcc: victim@example.org",
    "a\x85Bcc: victim@example.org",
    "a\u2028Bcc: victim@example.org",
    "=?utf-8?q?a=0D=0ABcc:_victim=40example.org?=",
    "=?utf-8?b?YQ0KQmNjOiB2aWN0aW1AZXhhbXBsZS5vcmc=?=",
]
"""Of fields, each to become two of them."""
