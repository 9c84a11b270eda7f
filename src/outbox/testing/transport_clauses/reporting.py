"""One result for each recipient: what was taken, what was refused, and nobody else's."""

from __future__ import annotations

import email
from collections import Counter
from typing import Any, Final

import attrs

from outbox.outcome import Accepted, PermFailed, TempFailed

from .scene import Behaviour, Clauses, Lead, accepted, deliver, handed_over, kinds

__all__ = ["ReportClauses"]

_CONTENTS: Final = (
    b"",
    b"Subject: none\r\n\r\n",
    b".\r\n",
    b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n\r\n.\r\n",
    b"Subject: long\r\n\r\n" + (b"x" * 900 + b"\r\n") * 200,
)
_LETTERS: Final = (
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
    b"Content-Transfer-Encoding: 8bit\r\nSubject: letters\r\n\r\n" + bytes(range(0xA0, 0x100)) + b"\r\n"
)


class ReportClauses(Clauses):
    """An outcome says of each recipient what the server did."""

    def test_everybody_asked_for_has_a_result_and_nobody_else_has(self, lead: Lead) -> None:
        message = self.message("a", "b", "c")
        outcome = deliver(lead(Behaviour.TAKES), message)

        assert set(outcome.results) == set(message.recipients)

    def test_only_those_asked_for_are_handed_over(self, lead: Lead) -> None:
        rig, b = lead(Behaviour.TAKES), self.recipient("b")
        outcome = deliver(rig, self.message("a", "b", "c"), b)

        assert set(outcome.results) == {b}
        assert handed_over(rig) == Counter([b])

    def test_who_is_accepted_was_taken_and_once(self, lead: Lead) -> None:
        rig, message = lead(Behaviour.TAKES), self.message("a", "b", "c")
        outcome = deliver(rig, message)

        assert kinds(outcome) == {Accepted}
        assert handed_over(rig) == Counter(message.recipients)
        assert outcome.fault is None

    def test_sender_and_content_arrive_as_they_were_submitted(self, lead: Lead) -> None:
        rig = lead(Behaviour.TAKES)
        for content in _CONTENTS:
            message = self.message("a", content=content)
            deliver(rig, message)

            assert (rig.taken()[-1].sender, rig.taken()[-1].content) == (message.sender, content)

    def test_a_message_without_a_sender_arrives_without_one(self, lead: Lead) -> None:
        rig = lead(Behaviour.TAKES)
        deliver(rig, attrs.evolve(self.message("a"), sender=""))

        assert [each.sender for each in rig.taken()] == [""]

    def test_letters_of_eight_bits_arrive_as_they_were_submitted(self, lead: Lead) -> None:
        rig = lead(Behaviour.TAKES)
        outcome = deliver(rig, self.message("a", content=_LETTERS))

        # Where no bytes of eight bits are taken it may go in another form, or be refused.
        assert handed_over(rig) == Counter(accepted(outcome))
        assert [_body(each.content) for each in rig.taken()] in ([], [_body(_LETTERS)])

    def test_who_is_refused_for_good_failed_for_good_and_the_others_were_taken(self, lead: Lead) -> None:
        a, b, c = map(self.recipient, "abc")
        rig = lead(Behaviour.REFUSES, b)
        outcome = deliver(rig, self.message("a", "b", "c"))

        assert isinstance(outcome.results[b], PermFailed)
        assert accepted(outcome) == {a, c}
        assert handed_over(rig) == Counter([a, c])

    def test_who_is_refused_for_now_failed_for_now_and_the_others_were_taken(self, lead: Lead) -> None:
        a, b, c = map(self.recipient, "abc")
        rig = lead(Behaviour.DEFERS, b)
        outcome = deliver(rig, self.message("a", "b", "c"))

        assert isinstance(outcome.results[b], TempFailed)
        assert accepted(outcome) == {a, c}
        assert handed_over(rig) == Counter([a, c])

    def test_where_everybody_is_refused_for_good_everybody_failed_for_good(self, lead: Lead) -> None:
        rig = lead(Behaviour.REFUSES)

        assert kinds(deliver(rig, self.message("a", "b"))) == {PermFailed}
        assert not rig.taken()

    def test_where_everybody_is_refused_for_now_everybody_failed_for_now(self, lead: Lead) -> None:
        rig = lead(Behaviour.DEFERS)

        assert kinds(deliver(rig, self.message("a", "b"))) == {TempFailed}
        assert not rig.taken()

    def test_many_recipients_have_each_a_result_and_are_each_taken_once(self, lead: Lead) -> None:
        rig, message = lead(Behaviour.TAKES), self.message(*(f"r{n}" for n in range(self.many)))
        outcome = deliver(rig, message)

        assert accepted(outcome) == set(message.recipients)
        assert handed_over(rig) == Counter(message.recipients)

    def test_a_later_delivery_of_a_message_tells_of_itself_alone(self, lead: Lead) -> None:
        rig, message = lead(Behaviour.TAKES), self.message("a", "b")
        a, b = message.recipients
        deliver(rig, message, a)

        assert set(deliver(rig, message, b).results) == {b}
        assert handed_over(rig) == Counter([a, b])

    def test_the_recipients_come_in_any_sequence_which_stays_as_it_is(self, lead: Lead) -> None:
        message = self.message("a", "b", "c")
        asked = [*reversed(message.recipients)]
        outcome = lead(Behaviour.TAKES).transport.deliver(message, asked)

        assert accepted(outcome) == set(asked)
        assert asked == [*reversed(message.recipients)]

    def test_the_relay_is_named_in_a_word_fit_for_a_log(self, lead: Lead) -> None:
        outcome = deliver(lead(Behaviour.TAKES), self.message("a"))

        assert outcome.relay.isprintable()


def _body(content: bytes) -> Any:
    return email.message_from_bytes(content).get_payload(decode=True)
