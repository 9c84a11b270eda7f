"""The envelope of a mail: as given, or as its header says, and never a guess."""

from __future__ import annotations

import pytest

from outbox.errors import InvalidMessage
from outbox.mail import from_email


def envelope(header: str, **options: object) -> tuple[str, tuple[str, ...]]:
    message = from_email(header.encode() + b"\n\nHello\n", **options)  # type: ignore[arg-type]  # options of the test
    return message.sender, message.recipients


def refusal(header: str, **options: object) -> str:
    with pytest.raises(InvalidMessage) as refused:
        envelope(header, **options)
    return str(refused.value)


# --- from the header -----------------------------------------------------------------------------


def test_from_is_the_sender_and_to_cc_bcc_are_the_recipients_in_this_order() -> None:
    header = "Bcc: d@example.org\nCc: c@example.org\nFrom: Ann <a@example.org>\nTo: b@example.org, B2 <b2@example.org>"
    assert envelope(header) == (
        "a@example.org",
        ("b@example.org", "b2@example.org", "c@example.org", "d@example.org"),
    )


def test_sender_goes_before_from() -> None:
    header = "From: a@example.org, b@example.org\nSender: list@example.org\nTo: c@example.org"
    assert envelope(header)[0] == "list@example.org"


def test_several_authors_without_a_sender_are_refused() -> None:
    text = refusal("To: c@example.org\nFrom: a@example.org, b@example.org")
    assert text.startswith("line 2: the field 'From' names 2 mailboxes")
    assert "RFC 5322 section 3.6.2" in text
    assert "add a Sender field" in text
    assert "names 2 mailboxes" in refusal("From: a@example.org\nFrom: b@example.org\nTo: c@example.org")
    assert "names 2 mailboxes" in refusal("Sender: a@example.org, b@example.org\nTo: c@example.org")


def test_fields_that_stand_there_several_times_are_read_together() -> None:
    header = "From: a@example.org\nTo: b@example.org\nCC: c@example.org\nto: d@example.org\nTO:"
    assert envelope(header)[1] == ("b@example.org", "d@example.org", "c@example.org")


def test_recipients_are_unique_and_the_case_of_a_domain_makes_no_difference() -> None:
    header = "From: a@example.org\nTo: b@Example.org, B@example.org\nCc: b@example.ORG, c@example.org"
    assert envelope(header)[1] == ("b@Example.org", "B@example.org", "c@example.org")
    given = ["b@Example.org", "b@example.org", "c@example.org"]
    assert envelope(header, recipients=given)[1] == ("b@Example.org", "c@example.org")


def test_a_missing_sender_or_recipient_is_named() -> None:
    assert "names no sender" in refusal("To: a@example.org")
    assert "names no sender" in refusal("To: a@example.org\nFrom:\nSender: ")
    assert "names no recipient" in refusal("From: a@example.org")
    assert "names no recipient" in refusal("From: a@example.org\nTo: undisclosed-recipients:;")
    assert "names no recipient" in refusal(
        "From: a@example.org\nX-To: b@example.org\nReply-To: c@example.org"
    )


def test_an_address_field_that_cannot_be_read_is_named_with_its_line() -> None:
    text = refusal("From: a@example.org\nSubject: x\nTo: Doe, Ann <b@example.org>")
    assert text.startswith("line 3: the field 'To': address list: 'Doe'")
    assert refusal("To: b@example.org\nFrom: MAILER-DAEMON <>").startswith("line 2: the field 'From'")


def test_a_foreign_header_gives_foreign_addresses() -> None:
    assert envelope("From: jörg@example.org\nTo: Zoë <z@bücher.example>") == (
        "jörg@example.org",
        ("z@xn--bcher-kva.example",),
    )


# --- as given ------------------------------------------------------------------------------------


def test_what_is_given_replaces_the_header_wholly_and_is_not_even_read_there() -> None:
    header = "From: no, address <\nTo: b@example.org\nCc: broken <"
    assert envelope(header, sender="s@example.org", recipients=["r@example.org"]) == (
        "s@example.org",
        ("r@example.org",),
    )
    assert envelope("From: a@example.org\nTo: broken <", recipients=["r@example.org"])[0] == "a@example.org"
    assert envelope("From: broken <\nTo: b@example.org", sender="s@example.org")[1] == ("b@example.org",)


def test_those_who_get_it_also_are_added_once_to_those_of_the_header() -> None:
    header = "From: a@example.org\nTo: b@Example.org, c@example.org"
    assert envelope(header, also=["d@example.org", "b@example.ORG", "root"], origin="x.org")[1] == (
        "b@Example.org",
        "c@example.org",
        "d@example.org",
        "root@x.org",
    )
    assert envelope(header, recipients=["e@example.org"], also=["d@example.org"])[1] == (
        "e@example.org",
        "d@example.org",
    )
    assert "must be a string" in refusal(header, also=[None])
    assert "also is one string" in refusal(header, also="d@example.org")


@pytest.mark.parametrize("to", ["", "To: undisclosed-recipients:;"])
def test_where_somebody_gets_it_also_the_header_need_name_nobody(to: str) -> None:
    assert envelope(f"From: a@example.org\n{to}".strip(), also=["d@example.org"])[1] == ("d@example.org",)
    assert "names no recipient" in refusal(f"From: a@example.org\n{to}".strip(), also=[])


def test_the_empty_sender_is_the_null_path() -> None:
    assert envelope("From: a@example.org\nTo: b@example.org", sender="")[0] == ""


def test_any_iterable_of_recipients_will_do() -> None:
    assert envelope("From: a@example.org", recipients=(r for r in ["b@example.org"]))[1] == ("b@example.org",)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"recipients": []}, "recipients is empty"),
        ({"recipients": "b@example.org"}, "recipients is one string"),
        ({"recipients": b"b@example.org"}, "recipients is one string"),
        ({"recipients": ["root"]}, "'root' has no @"),
        ({"recipients": ["Ann <b@example.org>"]}, "angle brackets"),
        ({"recipients": [""]}, "no @"),
        ({"recipients": [None]}, "must be a string"),
        ({"recipients": ["b@example.org\r\nRCPT TO:<c@example.org>"]}, "control character"),
        ({"sender": "<a@example.org>"}, "angle brackets"),
        ({"sender": " "}, "no @"),
        ({"sender": "a@example.org b"}, "in its domain"),
    ],
)
def test_given_addresses_are_held_to_the_grammar(options: dict[str, object], cause: str) -> None:
    assert cause in refusal("From: a@example.org\nTo: b@example.org", **options)


def test_bare_names_are_completed_by_the_origin_and_refused_without() -> None:
    header = "From: root (Cron Daemon)\nTo: ann, b@example.org"
    assert "'root' has no @" in refusal(header)
    assert envelope(header, origin="host.example.org") == (
        "root@host.example.org",
        ("ann@host.example.org", "b@example.org"),
    )
    assert envelope(header, sender="x", recipients=["y"], origin="h.org") == ("x@h.org", ("y@h.org",))


# --- resent mail ---------------------------------------------------------------------------------

ORIGINAL = "From: a@example.org\nSender: s@example.org\nTo: b@example.org\nCc: c@example.org"
NEW = "Resent-From: ann@example.net\nResent-To: ben@example.net\nResent-Date: today"
OLD = "Resent-From: old@example.com\nResent-To: older@example.com\nResent-Date: yesterday"
TRACE = "Received: from x by y; today"


def test_resent_mail_goes_from_who_resent_it_to_whom_it_was_resent() -> None:
    header = f"{NEW}\nResent-Cc: cy@example.net\nResent-Bcc: di@example.net\n{ORIGINAL}"
    assert envelope(header) == ("ann@example.net", ("ben@example.net", "cy@example.net", "di@example.net"))


def test_resent_sender_goes_before_resent_from() -> None:
    assert envelope(f"{NEW}\nResent-Sender: secretary@example.net\n{ORIGINAL}")[0] == "secretary@example.net"


@pytest.mark.parametrize("between", [f"\n{TRACE}\n", "\n", f"\nReturn-Path: <x@y>\n{TRACE}\n"])
def test_of_several_resent_blocks_the_topmost_counts(between: str) -> None:
    assert envelope(f"{NEW}{between}{OLD}\n{ORIGINAL}") == ("ann@example.net", ("ben@example.net",))


def test_a_trace_field_ends_a_block_though_no_field_was_repeated() -> None:
    header = f"{NEW}\n{TRACE}\nResent-Cc: stray@example.com\n{OLD}\n{ORIGINAL}"
    assert envelope(header)[1] == ("ben@example.net",)


def test_trace_fields_above_the_first_block_end_nothing() -> None:
    assert envelope(f"{TRACE}\n{NEW}\n{TRACE}\n{OLD}\n{ORIGINAL}")[1] == ("ben@example.net",)


def test_other_fields_within_a_block_end_nothing() -> None:
    header = f"Resent-From: ann@example.net\nX-Loop: 1\nResent-To: ben@example.net\n{ORIGINAL}"
    assert envelope(header) == ("ann@example.net", ("ben@example.net",))


def test_a_block_that_names_nobody_is_refused_and_the_original_fields_are_not_asked() -> None:
    assert "names no recipient" in refusal(f"Resent-From: ann@example.net\n{ORIGINAL}")
    assert "names no recipient" in refusal(f"Resent-From: ann@example.net\n{TRACE}\n{OLD}\n{ORIGINAL}")
    assert "names no sender" in refusal(f"Resent-To: ben@example.net\n{ORIGINAL}")


def test_a_second_resent_to_in_one_block_is_refused_rather_than_lost() -> None:
    text = refusal(f"{NEW}\nResent-To: carl@example.net\n{ORIGINAL}")
    assert text.startswith("line 4: the field 'Resent-To' stands there twice")
    assert "RFC 5322 section 3.6.6" in text


@pytest.mark.parametrize("stray", ["Resent-To", "Resent-Cc", "Resent-Bcc"])
def test_a_recipient_who_may_be_of_an_older_block_is_not_sent_the_mail(stray: str) -> None:
    new, old = "Resent-From: me@n.example", "Resent-From: old@o.example\nResent-Date: once"
    others = {"Resent-To": "Resent-Cc", "Resent-Cc": "Resent-To", "Resent-Bcc": "Resent-To"}[stray]
    header = (
        f"{new}\n{others}: w@n.example\n{stray}: stranger@o.example\n{old}\n{others}: o@o.example\n{ORIGINAL}"
    )

    text = refusal(header)
    assert text.startswith(f"line 3: the field '{stray}' may belong to")
    assert "RFC 5322 section 3.6.6" in text
    assert text.endswith("give the recipients yourself (recipients=, or as arguments without -t)")
    assert envelope(header, recipients=["x@example.org"]) == ("me@n.example", ("x@example.org",))


def test_a_sender_who_may_be_of_an_older_block_is_not_taken_for_the_sender() -> None:
    header = (
        "Resent-From: me@n.example\nResent-To: w@n.example\nResent-Sender: stranger@o.example\n"
        f"Resent-From: old@o.example\nResent-To: older@o.example\n{ORIGINAL}"
    )
    assert refusal(header).startswith("line 3: the field 'Resent-Sender' may belong to")
    assert refusal(header).endswith("give the sender yourself (sender=, or -f)")
    assert envelope(header, sender="s@example.org") == ("s@example.org", ("w@n.example",))


def test_blocks_that_can_be_cut_in_one_way_only_are_told_apart_without_a_trace_field() -> None:
    assert envelope(f"{NEW}\n{OLD}\n{OLD}\n{ORIGINAL}") == ("ann@example.net", ("ben@example.net",))
    # Whose the date is nobody can tell, and nobody asks.
    harmless = f"{NEW}\nResent-From: old@example.com\nResent-To: older@example.com\n{ORIGINAL}"
    assert envelope(harmless) == ("ann@example.net", ("ben@example.net",))


def test_a_field_of_a_block_that_no_standard_knows_ends_nothing() -> None:
    assert envelope(f"{NEW}\nResent-X: 1\nResent-X: 2\nResent-Cc: cy@example.net\n{ORIGINAL}")[1] == (
        "ben@example.net",
        "cy@example.net",
    )


def test_the_original_fields_are_not_asked_where_any_resent_field_stands() -> None:
    assert "names no recipient" in refusal(f"Resent-X: 1\n{ORIGINAL}", sender="s@example.org")


def test_given_recipients_of_resent_mail_leave_its_sender_to_the_block() -> None:
    header = f"{NEW}\n{ORIGINAL}"
    assert envelope(header, recipients=["x@example.org"]) == ("ann@example.net", ("x@example.org",))
