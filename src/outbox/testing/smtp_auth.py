"""How clients of an SMTP sink say who they are: each mechanism as a generator of challenges."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

__all__ = ["MECHANISMS", "Exchange"]

Exchange: TypeAlias = Generator[str, str, tuple[str, str]]
"""Yields challenges, is sent the responses as they came, and returns the user and the secret."""

_TOKEN: Final = re.compile(r"auth=bearer ([^\x01]*)\x01", re.IGNORECASE)
_USER: Final = re.compile(r"(?:user|a)=([^\x01,]*)")


def _plain(initial: str) -> Exchange:
    """RFC 4616."""
    _, _, both = _decoded(initial or (yield "")).partition("\0")
    user, _, password = both.partition("\0")
    return user, password


def _login(initial: str) -> Exchange:
    user = _decoded(initial or (yield "Username:"))
    return user, _decoded((yield "Password:"))


def _bearer(initial: str) -> Exchange:
    """OAUTHBEARER (RFC 7628), and XOAUTH2, which differs in what it is wrapped in."""
    said = _decoded(initial or (yield ""))
    user, token = _USER.search(said), _TOKEN.search(said)
    return user[1] if user else "", token[1] if token else ""


MECHANISMS: Final[Mapping[str, Callable[[str], Exchange]]] = MappingProxyType(
    {"PLAIN": _plain, "LOGIN": _login, "OAUTHBEARER": _bearer, "XOAUTH2": _bearer}
)


def _decoded(response: str) -> str:
    try:
        return base64.b64decode("" if response == "=" else response, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""
