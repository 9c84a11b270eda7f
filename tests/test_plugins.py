"""Stores and transports of others: found, called as was said, and told apart from what is broken."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from plug_ins import STORE, install

from outbox.errors import ConfigurationError, StoreUnavailable
from outbox.locate import Url, holds_secret, masked, store_from_url, transport_from_url
from outbox.protocols import Store, Transport
from outbox.testing import ManualClock

STRANGER = (
    STORE
    + """
import outbox

def refuse(url, /, **_): raise url.wrong("the moon is wrong")
def refuse_namelessly(*_, **__): raise outbox.ConfigurationError("the moon is wrong")
def unavailable(*_, **__): raise outbox.StoreUnavailable("the sea is out")
def broken(*_, **__): return 1 // 0
def leaves(*_, **__): raise SystemExit(3)
def nothing(*_, **__): return None
def the_class(*_, **__): return Store
def half(*_, **__): return Transport()
def other(*_, **__): return Store()
async def later(*_, **__): return Store()

class Raising(Store):
    @property
    def settle(self): raise RuntimeError("not today")

class Boasting(Store):
    lacks = {"gravity"}

class Modest(Store):
    lacks = frozenset({outbox.Guarantee.ORDER, outbox.Guarantee.DELAYS})

class Careless(Store):
    lacks = 3

class Shy(Store):
    @property
    def lacks(self): raise RuntimeError("not today")

class Wordless(Exception):
    def __str__(self): raise RuntimeError("not today")
def speechless(*_, **__): raise Wordless

opened = []
class Kept(Transport):
    def __init__(self, *_, **__): opened.append(self)
    def close(self): self.closed = True

def tell_all(url, /, **_):
    raise RuntimeError(f"cannot log in at {url.text} as {url.user} with {url.password!r}")
def tell_cause(url, /, **_):
    try:
        raise OSError(f"login {url.password}")
    except OSError as error:
        raise RuntimeError("no connection") from error
def tell_unavailable(url, /, **_): raise outbox.StoreUnavailable(f"{url.text} is down")
def tell_given(url, /, *, password): raise RuntimeError(f"{password} was refused")
def tell_options(**options): raise RuntimeError(f"cannot use {options}, of 100 ways")

NUMBER = 3
"""
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """On ``sys.path``, with the module ``stranger``; what was imported from it is forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "stranger.py").write_text(STRANGER, "utf-8")
    before = set(sys.modules)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"stranger", "failing", "parted"}:
            del sys.modules[name]


def refused(url: str, open_it: Callable[..., Store | Transport] = store_from_url, **terms: Any) -> str:
    """The one error, and all that its traceback would show besides: one line."""
    with pytest.raises(ConfigurationError) as caught:
        open_it(url, **terms)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def shown(error: BaseException) -> str:
    """What a log of it holds, without the lines of source in it."""
    told: traceback.TracebackException | None = traceback.TracebackException.from_exception(error)
    lines = []
    while told is not None:
        lines += list(told.format_exception_only())
        told = told.__cause__ or (None if told.__suppress_context__ else told.__context__)
    return "".join(lines)


# -- entry points


def test_an_entry_point_is_given_the_url_taken_apart(folder: Path) -> None:
    install(folder, "acme-outbox", "acme = stranger:Store")
    clock = ManualClock()

    store: Any = store_from_url("acme://ann:p%2Fw@host:25/a%20b?size=3", create=False, clock=clock)

    (url,) = store.told
    assert (url.scheme, url.user, url.password, url.host, url.port) == ("acme", "ann", "p/w", "host", 25)
    assert (url.path, dict(url.options), url.what) == ("/a b", {"size": "3"}, "store")
    assert url.text == "acme://ann:p%2Fw@host:25/a%20b?size=3"
    assert store.terms == {"create": False, "clock": clock}


def test_an_entry_point_of_a_transport_is_given_the_password(folder: Path) -> None:
    install(folder, "acme-outbox", "acme = stranger:Transport", kind="transports")

    transport: Any = transport_from_url("acme://ann@host", password="c4narypassword")

    assert [url.user for url in transport.told] == ["ann"]
    assert transport.terms == {"password": "c4narypassword"}


def test_the_url_that_a_plug_in_is_given_shows_no_password(folder: Path) -> None:
    install(folder, "acme-outbox", "acme = stranger:Store")
    store: Any = store_from_url("acme://ann:c4narypassword@host?key=t0ken")
    (url,) = store.told

    assert isinstance(url, Url)
    assert repr(url) == "<Url acme://ann:***@host?key=***>"
    assert str(url.wrong("no")) == "store acme://ann:***@host?key=***: no"


def test_a_scheme_of_ours_cannot_be_replaced(folder: Path) -> None:
    install(folder, "bold-outbox", "memory = stranger:broken")

    store_from_url("memory:").close()


def test_a_scheme_that_we_do_not_have_yet_may_be_anothers(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="not in this release"):
        transport_from_url("https://host/hook")
    install(folder, "https-outbox", "https = stranger:Transport", kind="transports")

    transport_from_url("https://host/hook").close()


def test_an_unknown_scheme_is_refused_with_those_that_are_installed(folder: Path) -> None:
    install(folder, "acme-outbox", "acme = stranger:Store", "Not-A.Scheme! = stranger:Store")

    said = refused("acne:x")

    assert "did you mean 'acme'?" in said
    assert ", sqs:, python:, acme:)" in said


def test_the_scheme_of_a_transport_names_no_store(folder: Path) -> None:
    install(folder, "acme-outbox", "acme = stranger:Transport", kind="transports")

    assert "acme: names a transport, not a store" in refused("acme://host")


def test_two_plug_ins_of_one_scheme_are_both_named_and_neither_is_used(folder: Path) -> None:
    install(folder, "acme-outbox", "acme = stranger:Store")
    install(folder, "other-outbox", "acme = stranger:Modest", version="2.1")

    said = refused("acme:")

    assert "stranger:Store of acme-outbox 1.0" in said
    assert "stranger:Modest of other-outbox 2.1" in said
    assert "uninstall one" in said


def test_metadata_that_cannot_be_read_are_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(**_: Any) -> Any:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)

    assert "outbox.stores" in refused("acme:")


@pytest.mark.parametrize("url", ["memory:", "sqlite:///x.db", "sqlite://x"])
def test_what_is_installed_is_looked_up_only_where_a_scheme_is_none_of_ours(url: str, tmp_path: Path) -> None:
    program = f"""
        import sys
        from outbox.locate import store_from_url
        try: store_from_url({url!r}).close()
        except ValueError: pass
        print(sorted(name for name in sys.modules if name in ("importlib.metadata", "outbox.locate.urls")))
    """
    run = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert run.stdout == "['outbox.locate.urls']\n"


# -- python: URLs


def test_a_python_url_calls_what_it_names_with_its_options_as_strings(folder: Path) -> None:
    store: Any = store_from_url("python:stranger:Store?path=a%20b&size=3")

    assert (store.told, store.terms) == ((), {"path": "a b", "size": "3"})


def test_a_python_url_names_a_transport_too(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "outbox"):
        transport: Any = transport_from_url("python:stranger:Transport?host=h", password="c4narypassword")

    assert transport.terms == {"host": "h"}
    assert "a password is set and not used" in caplog.text
    assert "c4narypassword" not in caplog.text


def test_what_is_named_may_stand_within_a_package_and_a_class(folder: Path) -> None:
    (folder / "parted").mkdir()
    (folder / "parted" / "inner.py").write_text(STORE + "class Outer:\n    Inner = Store\n", "utf-8")

    store_from_url("python:parted.inner:Outer.Inner").close()


@pytest.mark.parametrize(
    "url",
    [
        "python:",
        "python:stranger",
        "python:stranger.Store",
        "python:stranger:",
        "python::Store",
        "python:stranger:Store:x",
        "python:stranger:Store()",
        "python:stranger/x:Store",
        "python:.stranger:Store",
        "python:1:Store",
        "python://stranger:Store",
        "python:/stranger:Store",
        "python:stranger:St%C3%B6re",
    ],
)
def test_what_is_no_dotted_name_is_refused_with_what_to_write(folder: Path, url: str) -> None:
    said = refused(url)

    assert "python:package.module:factory" in said or "not a URL" in said
    assert "stranger" not in sys.modules


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (
            "python:no_such_module:f",
            "no_such_module:f cannot be loaded: ModuleNotFoundError: No module named",
        ),
        ("python:stranger:no_such_name", "stranger:no_such_name cannot be loaded: AttributeError: "),
        ("python:failing:f", "failing:f cannot be loaded: ImportError: no lib of mine"),
        ("python:stranger:NUMBER", "stranger:NUMBER is an object of int, which cannot be called"),
        ("python:stranger:tell_options", "stranger:tell_options failed: RuntimeError"),
        ("python:stranger:later", "an object of coroutine, which is no store: it has no put"),
        ("python:stranger:refuse", "stranger:refuse failed: TypeError"),
    ],
)
def test_a_python_url_that_leads_nowhere_is_refused_by_its_name(folder: Path, url: str, says: str) -> None:
    (folder / "failing.py").write_text("raise ImportError('no lib of mine')", "utf-8")

    said = refused(url)

    assert said.startswith(f"store {url}: ")
    assert says in said


# -- what a plug-in may do wrong


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("no_such_name", "cannot be loaded: AttributeError"),
        ("refuse_namelessly", "failed: ConfigurationError: the moon is wrong"),
        ("broken", "failed: ZeroDivisionError"),
        ("leaves", "failed: SystemExit: 3"),
        ("nothing", "returned None, which is no store: it has no put, claim, extend, settle, close"),
        ("the_class", "returned the class Store, and no object of it"),
        ("half", "an object of Transport, which is no store: it has no put, claim, extend, settle"),
        ("Raising", "an object of Raising, which is no store: it has no settle"),
        ("Boasting", "`lacks` is no set of outbox.Guarantee (order, deduplication"),
        ("Careless", "`lacks` is no set of outbox.Guarantee"),
        ("Shy", "`lacks` is no set of outbox.Guarantee"),
        ("speechless", "failed: Wordless: (no words)"),
        ("NUMBER", "is an object of int, which cannot be called"),
    ],
)
def test_a_plug_in_that_misbehaves_is_one_error_that_names_it(folder: Path, factory: str, says: str) -> None:
    install(folder, "acme-outbox", f"acme = stranger:{factory}")

    said = refused("acme:")

    assert said.startswith(f"store acme:: the plug-in stranger:{factory} of acme-outbox 1.0 ")
    assert says in said


def test_a_store_is_no_transport(folder: Path) -> None:
    said = refused("python:stranger:other", transport_from_url)

    assert "an object of Store, which is no transport: it has no deliver" in said


def test_what_a_plug_in_says_in_our_words_stands_as_it_said_it(folder: Path) -> None:
    install(folder, "acme-outbox", "acme = stranger:refuse", "tide = stranger:unavailable")

    assert refused("acme:x") == "store acme:***: the moon is wrong"
    with pytest.raises(StoreUnavailable, match=r"^the sea is out$"):
        store_from_url("tide:")


def test_what_is_refused_is_closed(folder: Path) -> None:
    refused("python:stranger:Kept")

    (kept,) = sys.modules["stranger"].opened
    assert kept.closed


def test_the_cause_is_there_for_who_mends_the_plug_in(folder: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        store_from_url("python:stranger:broken")

    assert isinstance(caught.value.__cause__, ZeroDivisionError)


# -- secrets


@pytest.mark.parametrize(
    ("factory", "url"),
    [
        ("tell_all", "acme://ann:s3cr%2Fet@host"),
        ("tell_all", "acme://ann:s3cr@et@host"),
        ("tell_all", "acme:ann:s3cr%2Fet@host"),
        ("tell_all", "acme://host?password=s3cr%2Fet&size=3"),
        ("tell_all", "acme://host?path=x&first=1&second=s3cr/et"),
        ("tell_cause", "acme://ann:s3cr%2Fet@host"),
        ("tell_unavailable", "acme://ann:s3cr%2Fet@host"),
        ("tell_options", "python:stranger:tell_options?key=s3cr%2Fet&size=3"),
        ("tell_options", "python:stranger:tell_options?path=/var/x&key=s3cr%2Fet"),
        ("tell_options", "python:stranger:tell_options?key=s3cr/et&more=a+b"),
    ],
)
def test_no_error_of_a_plug_in_tells_what_the_url_hides(folder: Path, factory: str, url: str) -> None:
    install(folder, "acme-outbox", f"acme = stranger:{factory}")

    with pytest.raises(ConfigurationError) as caught:
        store_from_url(url)

    assert "s3cr" not in shown(caught.value)
    assert "stranger:tell_" in str(caught.value)


def test_no_error_of_a_transport_tells_the_password_that_it_was_given(folder: Path) -> None:
    install(folder, "acme-outbox", "acme = stranger:tell_given", kind="transports")

    with pytest.raises(ConfigurationError) as caught:
        transport_from_url("acme://ann@host", password="c4narypassword")

    assert "*** was refused" in str(caught.value)
    assert "c4narypassword" not in shown(caught.value)


def test_a_value_too_short_to_be_a_secret_spoils_no_other_words(folder: Path) -> None:
    said = refused("python:stranger:tell_options?size=1")

    assert "{'size': '***'}, of 100 ways" in said
    assert "python:stranger:tell_options?size=***" in said


@pytest.mark.parametrize(
    ("url", "as_shown"),
    [
        ("python:a.b:f", "python:a.b:f"),
        ("python:a.b:f?path=/var/x", "python:a.b:f?path=/var/x"),
        ("python:a.b:f?path=/var/x&key=c4narypassword", "python:a.b:f?path=/var/x&key=***"),
        ("python:app:c4narypassword@host", "python:***@host"),
        ("python:app/c4narypassword", "python:***"),
    ],
)
def test_of_a_python_url_the_name_and_the_path_are_shown_and_nothing_else(url: str, as_shown: str) -> None:
    assert masked(url) == as_shown
    assert holds_secret(url) is (url != as_shown)


# -- check


def test_check_says_what_a_store_does_not_promise(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outbox = CommandLine(tmp_path, monkeypatch, capsys)
    outbox.environ(OUTBOX_STORE="python:stranger:Modest")

    ran = outbox("check")

    assert ran.status < 2
    assert "the store does not promise order: " in ran.out
    assert "the store does not promise delays: " in ran.out
    assert ran.out.count("does not promise") == 2


def test_check_says_nothing_of_promises_where_all_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outbox = CommandLine(tmp_path, monkeypatch, capsys)
    outbox.submit("ann@example.org")

    assert "does not promise" not in outbox("check").out


def test_a_command_tells_of_a_plug_in_that_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outbox = CommandLine(tmp_path, monkeypatch, capsys)
    outbox.environ(OUTBOX_STORE="python:no_such_module:f")

    ran = outbox("drain", "--transport", "smtp://localhost")

    assert ran.status == 78
    assert "no_such_module:f cannot be loaded" in ran.complaint
