"""One transport, many threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final

from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Result

from .scene import Behaviour, Clauses, Lead, Rig, accepted, deliver, handed_over, together

__all__ = ["ShareClauses"]

_THREADS: Final = 8
_EACH: Final = 5


class ShareClauses(Clauses):
    """Each delivery is told of itself, whatever else goes on."""

    def test_many_threads_deliver_at_once_and_each_is_told_of_its_own(self, lead: Lead) -> None:
        rig = lead(Behaviour.TAKES)
        shares = [[self._message(thread, number) for number in range(_EACH)] for thread in range(_THREADS)]
        told = together(self.patience, [partial(_deliver_all, rig, share) for share in shares])

        for ended, share in zip(told, shares, strict=True):
            assert [accepted(outcome) for outcome in ended.get()] == [set(each.recipients) for each in share]
        everybody = {r: message.content for share in shares for message in share for r in message.recipients}
        assert handed_over(rig) == Counter(everybody.keys())
        assert {r: each.content for each in rig.taken() for r in each.recipients} == everybody

    def test_what_one_thread_is_refused_no_other_is(self, lead: Lead) -> None:
        refused = self.recipient("refused")
        rig = lead(Behaviour.REFUSES, refused)
        names = ["refused", "taken"] * 4
        works = [partial(deliver, rig, self.message(name)) for name in names]

        for name, ended in zip(names, together(self.patience, works), strict=True):
            expected: type[Result] = PermFailed if name == "refused" else Accepted
            assert isinstance(ended.get().results[self.recipient(name)], expected)

    def _message(self, thread: int, number: int) -> Message:
        name = f"{thread}-{number}"
        return self.message(f"r{name}", f"s{name}", content=f"Subject: {name}\r\n\r\n".encode())


def _deliver_all(rig: Rig, messages: Sequence[Message]) -> list[Outcome]:
    return [deliver(rig, message) for message in messages]
