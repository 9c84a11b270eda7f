"""An SMTP dialogue without sockets: who answers its actions is a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from outbox.transports.smtp.steps import Dialogue, Lost

__all__ = ["played"]

T = TypeVar("T")


def played(dialogue: Dialogue[T], perform: Callable[[Any], Any]) -> T:
    """What *dialogue* returns in the end; a Lost that *perform* raises is thrown into it."""
    try:
        action = next(dialogue)
        while True:
            try:
                answer = perform(action)
            except Lost as lost:
                action = dialogue.throw(lost)
            else:
                action = dialogue.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result
