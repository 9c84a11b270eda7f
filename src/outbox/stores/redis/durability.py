"""What is on the server's disk before it is answered for: a move forgets in one store what the other has said that it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from outbox.errors import AmbiguousPut, ConfigurationError, StoreUnavailable
from outbox.values import quoted

from . import opening
from .caller import Caller
from .scripts import LASTING, Script

__all__ = ["lasting", "make_lasting", "require_lasting"]

_TELLS: Final = (7, 2)
"""From it on the server tells whether its append-only file is on the disk (WAITAOF)."""
_SHARE: Final = 0.5
"""Of the time that an answer is waited for: the server says up to a tenth of a second late that it is not."""
_DOCS: Final = "the same in redis.conf; it may be set back behind the move: see docs/moving.md"


def require_lasting(caller: Caller, *, first: bool = False) -> bool:
    """See that the server can keep what it answers for through a power failure, as it is set up now.

    Args:
        first: Also that this has been so for a while.

    Returns:
        Whether it has to be asked after each step (WAITAOF); otherwise its answer comes behind the disk's.

    Raises:
        ConfigurationError: it cannot.
        StoreUnavailable: that cannot be told now.
    """
    told = caller.info()
    if told.get("aof_enabled") != "1":
        raise _unfit(caller, "appendonly is off", "CONFIG SET appendonly yes, CONFIG SET appendfsync always")
    often = caller.setting("appendfsync")
    if often != "no" and opening.version(told) >= _TELLS and caller.told("WAITAOF", 0, 0, 1) is not None:
        return True
    if often is None:
        raise _unfit(
            caller,
            "it tells this user neither appendfsync nor whether its file is on the disk",
            "grant +waitaof (Redis 7.2 or newer), or +config|get and CONFIG SET appendfsync always",
        )
    if often != "always":
        raise _unfit(caller, f"appendfsync is {quoted(often)}", "CONFIG SET appendfsync always")
    if caller.setting("no-appendfsync-on-rewrite") != "no":
        raise _unfit(caller, "no-appendfsync-on-rewrite is not no", "CONFIG SET no-appendfsync-on-rewrite no")
    if first and "1" in (told.get("aof_rewrite_in_progress"), told.get("aof_rewrite_scheduled")):
        raise StoreUnavailable(
            f"{caller.place} rewrites its append-only file, and where that is the first since appendonly was set nothing "
            "is kept until it is whole: try again when INFO says aof_rewrite_in_progress:0; nothing was moved"
        )
    return False


def _unfit(caller: Caller, why: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{caller.place} cannot be an end of a move: {why}, so that it may lose what it has answered for, when the other "
        f"store has forgotten it. {what}, and {_DOCS}"
    )


def lasting(
    caller: Caller,
    script: Script,
    args: Mapping[str, Any],
    *,
    queues: Iterable[str] = (),
    content: Sequence[bytes] = (),
    put: bool = False,
) -> Any:
    """What *script* answers, which always writes something: that, and all that was written before, is on the disk by then.

    Raises:
        AmbiguousPut, StoreUnavailable: whether it is cannot be told; see :meth:`Caller.run` for *put*.
    """
    if not require_lasting(caller):
        return caller.run(script, args, queues=queues, content=content, put=put)
    patience = max(1, int(_SHARE * 1000 * caller.timeout))
    answer, (synced, *_) = caller.run_then(
        script, args, ("WAITAOF", 1, 0, patience), queues=queues, content=content, put=put
    )
    if not synced:
        raise (AmbiguousPut if put else StoreUnavailable)(
            f"{caller.place}: what was written is not on its disk after {patience / 1000:g} s: look at its disk, raise "
            "timeout, or CONFIG SET appendfsync always; the same again is safe"
        )
    return answer


def make_lasting(caller: Caller) -> None:
    """Return when all that was written until now is on the disk."""
    lasting(caller, LASTING, {})
