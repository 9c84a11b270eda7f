"""One strict grammar: what is an address, what a header's list names, and what is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, strategies as st

from outbox.address import domain, needs_smtputf8, parse_address_list, parse_mailbox
from outbox.errors import InvalidMessage

LOCAL_64 = "a" * 64
DOMAIN_189 = ".".join(["b" * 62, "b" * 62, "b" * 63])


def refusal(text: str) -> str:
    with pytest.raises(InvalidMessage) as refused:
        parse_mailbox(text)
    return str(refused.value)


def refused_piece(value: str) -> str:
    with pytest.raises(InvalidMessage) as refused:
        parse_address_list(value)
    return str(refused.value)


# --- mailboxes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "a@b.org",
        "A.b+tag%x!y@Example.ORG",
        "user@localhost",
        "!#$%&'*+-/=?^_`{|}~@b.org",
        '"a b"@b.org',
        '"a@evil.org"@b.org',
        r'"a\"b\\"@b.org',
        '""@b.org',
        "a@[192.0.2.1]",
        "a@[IPv6:2001:db8::1]",
        "a@[ipv6:::ffff:192.0.2.1]",
        "a@xn--bcher-kva.example",
        "a@r3---sn.example.org",
        "a@1.example.org",
        f"{LOCAL_64}@{DOMAIN_189}",
    ],
)
def test_an_address_of_the_grammar_stays_as_it_is(address: str) -> None:
    assert parse_mailbox(address) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("jörg@example.org", "jörg@example.org"),
        ("用户@例え.example", "用户@xn--r8jz45g.example"),
        ("a@Bücher.Example", "a@xn--bcher-kva.Example"),
        ("a@bu\u0308cher.example", "a@xn--bcher-kva.example"),
        ("a@☃.example", "a@xn--n3h.example"),
    ],
)
def test_a_local_part_is_never_touched_and_a_foreign_label_becomes_its_a_label(
    text: str, address: str
) -> None:
    assert parse_mailbox(text) == address


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "no @ and domain"),
        ("root", "no @ and domain"),
        ("@b.org", "nothing before its @"),
        ("a@", "no domain after its @"),
        ("a@b@c.org", "more than one @"),
        ("<a@b.org>", "angle brackets"),
        ("Ann <a@b.org>", "angle brackets"),
        ("<@relay.org:a@b.org>", "angle brackets"),
        ("a b@c.org", "' ' in its local part"),
        ("a@b.org ", "' ' in its domain"),
        ("a@b.org\n", "control character"),
        ("a\r\nRCPT TO:<x@y>@b.org", "control character"),
        ("a\0@b.org", "control character"),
        ("a\u2028@b.org", "control character"),
        ('"a\tb"@c.org', "control character"),
        ("a(comment)@b.org", "'(' in its local part"),
        ("a,b@c.org", "',' in its local part"),
        ("a\\b@c.org", "in its local part"),
        (".a@b.org", "a dot too many"),
        ("a.@b.org", "a dot too many"),
        ("a..b@c.org", "a dot too many"),
        ('"a@b.org', "not closed"),
        ('"a"b@c.org', "between its quoted local part and the @"),
        ('"a\\"@c.org', "not closed"),
        ("a@b.org.", "ends in a dot"),
        ("a@b..org", "empty label"),
        ("a@.org", "empty label"),
        ("a@-b.org", "starts or ends with '-'"),
        ("a@b-.org", "starts or ends with '-'"),
        ("a@b_c.org", "'_' in its domain"),
        ("a@192.0.2.1", "write an address literal as [192.0.2.1]"),
        ("a@[192.0.2]", "no address literal"),
        ("a@[192.0.2.256]", "no address literal"),
        ("a@[2001:db8::1]", "no address literal"),
        ("a@[IPv6:fe80::1%eth0]", "no address literal"),
        ("a@[x]", "no address literal"),
        ("a@[192.0.2.1", "no address literal"),
        ("a" * 65 + "@b.org", "a local part of 65 octets"),
        ("ü" * 33 + "@b.org", "a local part of 66 octets"),
        ("a@" + "b" * 64 + ".org", "more than 63 octets"),
        (f"{LOCAL_64}@x{DOMAIN_189}", "longer than 254 octets"),
        (f"{'ü' * 32}@x{DOMAIN_189}", "a length of 255 octets"),
        ("a@" + "ü.ü.ü" * 40, "a domain of"),
        ("a@" + "b." * 200 + "org", "longer than 254 octets"),
        ("=?utf-8?q?a=40evil.org?=@b.org", "encoded-word"),
        ("a\uff20b.org", "no @ and domain"),
        ("a\uff0eb@c.org", "U+FF0E"),
        ("a\u00a0b@c.org", "U+00A0"),
        ("a\u202eb@c.org", "U+202E"),
        ("a\u200bb@c.org", "U+200B"),
        ("a@b\uff0eorg", "not the ASCII full stop"),
        ("a@b\u3002org", "not the ASCII full stop"),
        ("a@\uff42.org", "map to another one"),
        ("a@℀.org", "map to another one"),
        ("a@\U0001f600.org", "does not know"),
        ("a@ü-.org", "starts or ends with '-'"),
        ("a@" + "ü" * 60 + ".org", "IDNA cannot encode"),
        ("\ud800@b.org", "control character"),
    ],
)
def test_what_is_no_address_is_refused_with_its_cause(text: str, cause: str) -> None:
    assert cause in refusal(text)


@pytest.mark.parametrize(
    "label",
    ["straße", "STRAẞE", "βόλος", "\u0646\u0627\u0645\u0647\u200c\u0627\u06cc", "\u0dc1\u0dca\u200d\u0dbb"],
)
def test_a_domain_that_two_idnas_read_differently_must_be_given_as_an_a_label(label: str) -> None:
    assert "xn--" in refusal(f"a@{label}.example")
    assert "different domains" in refusal(f"a@{label}.example")


def test_a_refused_address_is_shown_short_and_without_its_control_characters() -> None:
    text = refusal("a\x1b[31m@b.org")
    assert "\x1b" not in text
    assert "\\x1b" in text
    assert len(refusal("a" * 100_000)) < 300


def test_a_bare_name_is_completed_where_an_origin_is_given() -> None:
    assert parse_mailbox("root", origin="host.example.org") == "root@host.example.org"
    assert parse_mailbox('"the root"', origin="b.org") == '"the root"@b.org'
    assert parse_mailbox("a@c.org", origin="b.org") == "a@c.org"
    with pytest.raises(InvalidMessage):
        parse_mailbox("", origin="b.org")
    with pytest.raises(InvalidMessage):
        parse_mailbox("root@", origin="b.org")
    with pytest.raises(InvalidMessage):
        parse_mailbox("root", origin="no domain")


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="must be a string, not bytes"):
        parse_mailbox(b"a@b.org")  # type: ignore[arg-type]  # the point of the test


def test_an_address_tells_its_domain_and_whether_it_needs_smtputf8() -> None:
    assert domain('"a@b"@c.org') == "c.org"
    assert domain("a@[IPv6:::1]") == "[IPv6:::1]"
    assert domain("") == ""
    assert needs_smtputf8("jörg@example.org")
    assert not needs_smtputf8(parse_mailbox("joerg@bücher.example"))


# --- lists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("", ()),
        (" ", ()),
        ("a@b.org", ("a@b.org",)),
        ("<a@b.org>", ("a@b.org",)),
        ("a@b.org, c@d.org", ("a@b.org", "c@d.org")),
        (",a@b.org,,c@d.org,", ("a@b.org", "c@d.org")),
        ("Ann <a@b.org>", ("a@b.org",)),
        ('"Doe, Ann" <a@b.org>, Bob <c@d.org>', ("a@b.org", "c@d.org")),
        ("John Q. Public <a@b.org>", ("a@b.org",)),
        ("Jörg Müller <a@b.org>", ("a@b.org",)),
        ("=?utf-8?q?J=C3=B6rg?= =?utf-8?b?TcO8bGxlcg==?= <a@b.org>", ("a@b.org",)),
        ("=?utf-8?q?Ann_(B)?= <a@b.org>", ("a@b.org",)),
        ("a@b.org (Ann (of B) \\) Doe)", ("a@b.org",)),
        ("(first) a (then) @ (last) b.org", ("a@b.org",)),
        ("a@b.org,\r\n\tc@d.org,\n e@f.org", ("a@b.org", "c@d.org", "e@f.org")),
        ("ann . doe @ example . org", ("ann.doe@example.org",)),
        ('"a b"@c.org', ('"a b"@c.org',)),
        ('"Ann" <"a, b"@c.org>', ('"a, b"@c.org',)),
        ("a@[192.0.2.1], <b@[IPv6:2001:db8::1]>", ("a@[192.0.2.1]", "b@[IPv6:2001:db8::1]")),
        ("undisclosed-recipients:;", ()),
        ("Undisclosed recipients: ;", ()),
        ("The team: a@b.org, Bob <c@d.org>;, e@f.org", ("a@b.org", "c@d.org", "e@f.org")),
        ('"A, B": a@b.org;', ("a@b.org",)),
        ("Ann <a@bücher.example>", ("a@xn--bcher-kva.example",)),
    ],
)
def test_a_list_gives_its_addresses_in_order(value: str, addresses: tuple[str, ...]) -> None:
    assert parse_address_list(value) == addresses


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ('"a@evil.org" <b@good.org>', ("b@good.org",)),
        ('"a@evil.org, c@evil.org" <b@good.org>', ("b@good.org",)),
        ('"\\"<a@evil.org>, \\"" <b@good.org>', ("b@good.org",)),
        ("=?utf-8?q?a=40evil=2Eorg=2C?= <b@good.org>", ("b@good.org",)),
        ("b@good.org (<a@evil.org>, )", ("b@good.org",)),
        ("b@good.org(@evil.org)", ("b@good.org",)),
    ],
)
def test_no_display_name_and_no_comment_becomes_an_address(value: str, addresses: tuple[str, ...]) -> None:
    assert parse_address_list(value) == addresses


@pytest.mark.parametrize(
    ("value", "piece"),
    [
        ("root", "'root'"),
        ("Doe, Ann <a@b.org>", "'Doe'"),
        ("a@b.org c@d.org", "'a@b.org c@d.org'"),
        ("a@b.org; c@d.org", "'a@b.org;'"),
        ("a@b.org, c@d.org <e@f.org>", "'c@d.org'"),
        ("<a@b.org> <c@d.org>", "'<a@b.org> <c@d.org>'"),
        ("<a@b.org> Ann", "'<a@b.org> Ann'"),
        ("Ann <a@b.org", "'Ann <a@b.org'"),
        ("Ann <a@b.org Doe", "'Ann <a@b.org Doe'"),
        ("a@b.org>", "'a@b.org>'"),
        ("<a@b.org>>", "'<a@b.org>>'"),
        ("<<a@b.org>>", "'<<a@b.org>>'"),
        ("<@relay.org:a@b.org>", "'<@relay.org:a@b.org>' is a source route"),
        ("<>", "'<>'"),
        ("MAILER-DAEMON <>", "'MAILER-DAEMON <>'"),
        ("a@b@c.org", "'a@b@c.org'"),
        ("ann doe@b.org", "'ann doe@b.org'"),
        ('"Ann" "Doe"@b.org', '\'"Ann" "Doe"@b.org\''),
        ("=?utf-8?q?a=40b=2Eorg?=", "'=?utf-8?q?a=40b=2Eorg?='"),
        ("=?utf-8?q?a@evil.org?= <b@good.org>", "'=?utf-8?q?a@evil.org?='"),
        ("=?utf-8?q?a?=@b.org", "'=?utf-8?q?a?=@b.org'"),
        ('"Ann <a@b.org>', "quoted string without its end"),
        ("(Ann <a@b.org>", "comment without its end"),
        ("a@b.org) c", "which nothing opened"),
        ("a@[192.0.2.1", "without its end"),
        ("[x] <a@b.org>", "'[x]'"),
        ("team: a@b.org", "not closed by ';'"),
        ("a: b: c@d.org;;", "'b'"),
        ("a: b@c.org;;", "';'"),
        ("a: b@c.org; d@e.org", "'d'"),
        (":;", "without the name of a group"),
        ("a@b: c@d.org;", "'a@b'"),
        ("mailto:a@b.org", "not closed by ';'"),
        ("a\\@b.org", "'\\@b.org'"),
        ("a@b.org\nBcc: c@d.org", "control character"),
        ("a@b.org\r", "control character"),
        ("a@b.org\0", "control character"),
    ],
)
def test_what_has_no_single_meaning_is_refused_and_the_piece_is_named(value: str, piece: str) -> None:
    assert piece in refused_piece(value)


def test_bare_names_in_a_list_are_completed_by_the_origin() -> None:
    assert parse_address_list("root, Ann <ann>", origin="b.org") == ("root@b.org", "ann@b.org")


def read(value: str) -> tuple[tuple[str, ...], str]:
    """The addresses, or none and why."""
    try:
        return parse_address_list(value), ""
    except InvalidMessage as error:
        return (), str(error)


@pytest.mark.parametrize(
    "piece", ["(", '"', "<", "[", "\\", "(\\", "a ", "a.", "a@b.org,", "a:;,", ":", "=?", "\r\n ", "<a", "@"]
)
def test_long_lists_are_read_in_one_pass(piece: str) -> None:
    """Were it two nested ones, this would take hours."""
    found, refused = read(piece * 50_000)
    assert set(found) <= {"a@b.org"}
    assert len(refused) < 500


# --- promises over all texts ---------------------------------------------------------------------

odd_text = st.text(
    st.one_of(
        st.sampled_from('abB019.@@@<>()[]:;,"\\ \t\r\n=?-_+ü\u3002\uff20ß\u202e\u200d\ud800xn'),
        st.characters(),
    ),
    max_size=60,
)
likely_address = st.from_regex(
    r"\A([a-z.+]{1,9}|\"[a-z@ \\\"]{0,6}\"|[äßx]{1,3})@([A-Za-zäß0-9-]{1,9}\.){0,2}[a-zß]{1,5}\Z"
)
UNQUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def mailbox(text: str) -> tuple[str, str]:
    """The address, or none and why."""
    try:
        return parse_mailbox(text), ""
    except InvalidMessage as error:
        return "", str(error)


def is_sound(address: str) -> bool:
    bare = UNQUOTED.sub("", address)
    return (
        not any(char.isspace() for char in bare)
        and not re.search(r"[\x00-\x1f\x7f-\x9f]", address)
        and bare.count("@") == 1
        and domain(address).isascii()
        and len(address.encode()) <= 254
    )


@given(odd_text | likely_address)
@example('"\\"@"@b')
def test_a_mailbox_is_sound_and_parses_to_itself_or_is_refused(text: str) -> None:
    address, refused = mailbox(text)
    assert refused.isprintable()
    if address:
        assert is_sound(address)
        assert parse_mailbox(address) == address
        assert parse_address_list(address) == (address,)


@given(st.lists(odd_text | likely_address, max_size=4).map(",".join))
def test_a_list_gives_sound_addresses_or_is_refused(value: str) -> None:
    addresses, refused = read(value)
    assert refused.isprintable()
    assert all(map(is_sound, addresses))
    assert parse_address_list(", ".join(f"<{address}>" for address in addresses)) == addresses


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])), likely_address)
def test_a_quoted_display_name_never_changes_who_receives(name: str, text: str) -> None:
    address, _ = mailbox(text)
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    if address:
        assert parse_address_list(f'"{quoted}" <{address}>') == (address,)
