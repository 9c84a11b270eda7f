"""The store as one that does what a command is for, or one line that says that it does not."""

from __future__ import annotations

from outbox.errors import UnsupportedError
from outbox.protocols import Store, SupportsBrowse, SupportsHold, SupportsManage, SupportsSuspend

__all__ = ["browsable", "holdable", "manageable", "suspendable"]


def browsable(store: Store) -> SupportsBrowse:
    """The store as one that can be looked at.

    Raises:
        UnsupportedError: it cannot.
    """
    if not isinstance(store, SupportsBrowse):
        raise UnsupportedError(
            "the messages of this store cannot be looked at: it does not do `browse`; `outbox check` says what there is to say"
        )
    return store


def manageable(store: Store) -> SupportsManage:
    """The store as one that a person can steer.

    Raises:
        UnsupportedError: it cannot.
    """
    if not isinstance(store, SupportsManage):
        raise UnsupportedError(
            "the messages of this store cannot be changed by hand: it does not do `requeue`, `cancel` and `purge`"
        )
    return store


def holdable(store: Store) -> SupportsHold:
    """The store as one in which a person can hold messages.

    Raises:
        UnsupportedError: it cannot.
    """
    if not isinstance(store, SupportsHold):
        raise UnsupportedError(
            "the messages of this store cannot be held by hand: it does not do `hold` and `release`"
        )
    return store


def suspendable(store: Store) -> SupportsSuspend:
    """The store as one that keeps what is suspended.

    Raises:
        UnsupportedError: it does not.
    """
    if not isinstance(store, SupportsSuspend):
        raise UnsupportedError(
            "this store cannot keep what is suspended: it does not do `suspend` and `unsuspend`"
        )
    return store
