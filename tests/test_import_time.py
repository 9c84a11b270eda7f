"""What an import brings along, measured in fresh interpreters."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import Any

import pytest
from source import Source, sources

from outbox import Message, SQLiteStore

MODULES = [source.module for source in sources() if not source.module.endswith("__main__")]

# Databases, networks, and the packages that are slow to load.
HEAVY = {
    "asyncio",
    "concurrent.futures",
    "ctypes",
    "email",
    "http",
    "multiprocessing",
    "select",
    "smtplib",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "tempfile",
    "urllib.request",
    "xml",
}
# What delivers, what stores, and what of the standard library neither a list nor a count has a use for.
NOT_FOR_LOOKING = {
    "difflib",
    "importlib.metadata",
    "tomllib",
    "typing_extensions",
    "outbox.cli.delivering",
    "outbox.cli.originating",
    "outbox.actions",
    "outbox.delivery",
    "outbox.events",
    "outbox.judge",
    "outbox.locate.plugins",
    "outbox.logs",
    "outbox.outbox",
    "outbox.performer",
    "outbox.relay.relays",
    "outbox.runner",
    "outbox.screening",
    "outbox.stores.filesystem",
    "outbox.stores.memory",
    "outbox.submitter",
    "outbox.suppression",
}
ANSWERING = {
    "outbox",
    "outbox.cli",
    "outbox.cli.exits",
    "outbox.cli.parser",
    "outbox.cli.streams",
    "outbox.errors",
    "outbox.lazily",
    "outbox.values",
}
ALLOWED_OUTSIDE_THE_STANDARD_LIBRARY = {"outbox", "attr", "attrs", "typing_extensions"}

NOT_ON_WINDOWS = ("fcntl", "grp", "posix", "pwd", "resource", "syslog", "termios", "tty")
NOT_IN_OS = ("fork", "geteuid", "getuid", "register_at_fork", "O_DIRECTORY", "O_NOFOLLOW", "fchmod")


def python(program: str, *arguments: str) -> Any:
    """What *program* prints, as JSON."""
    run = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def loaded_by(statement: str) -> set[str]:
    return set(
        python(
            "import json, sys; before = set(sys.modules)\n"
            f"{statement}\n"
            "print(json.dumps(sorted(set(sys.modules) - before)))"
        )
    )


def loaded_by_command(*argv: str) -> set[str]:
    """By one command line, from the first import to its end."""
    return loaded_by(
        "import contextlib, io\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        f"    from outbox.cli import main; assert main({list(argv)!r}) == 0"
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A store's URL, and the id of the message in it."""
    path = tmp_path_factory.mktemp("store") / "outbox.db"
    message = Message(
        sender="app@example.org", recipients=["ann@example.net"], content=b"Subject: one\r\n\r\n"
    )
    with contextlib.closing(SQLiteStore(path)) as store:
        store.put([message])
    return f"sqlite:///{path}", message.id


def test_import_outbox_loads_no_file_of_ours_that_is_not_asked_for() -> None:
    loaded = {name for name in loaded_by("import outbox") if name.startswith("outbox")}

    assert loaded == {"outbox", "outbox.lazily"}


def test_the_public_names_load_no_network_no_database_and_nothing_slow() -> None:
    loaded = loaded_by("from outbox import Message, Outbox, Runner")

    assert "outbox.lifecycle" in loaded
    assert not loaded & HEAVY


def test_who_submits_has_all_that_the_first_message_needs_before_it_comes() -> None:
    """It may have given up the right to read files by then (chroot, setuid)."""
    assert {"hashlib", "secrets"} <= loaded_by("from outbox import Outbox")


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_what_is_answered_without_a_store_loads_the_command_line_alone(option: str) -> None:
    loaded = loaded_by_command(option)

    assert {name for name in loaded if name.startswith("outbox")} == ANSWERING
    assert not loaded & (HEAVY | NOT_FOR_LOOKING | {"attr", "json", "logging", "traceback"})


@pytest.mark.parametrize(
    "command",
    ["status", "status --json", "list", "list --state dead", "list --json", "show ID", "explain ID"],
)
def test_a_command_that_only_looks_loads_nothing_of_what_delivers(
    command: str, stored: tuple[str, str]
) -> None:
    url, id = stored

    loaded = loaded_by_command("--store", url, *command.replace("ID", id).split())

    assert "outbox.stores.sqlite.store" in loaded
    assert not loaded & (HEAVY - {"select", "sqlite3"} | NOT_FOR_LOOKING)
    # To read a content takes its digest.
    assert id in command.replace("ID", id) or not loaded & {"hashlib", "_hashlib", "secrets"}
    assert not [
        name for name in loaded if name.startswith(("outbox.mail", "outbox.transports", "outbox.bounces"))
    ]


def test_import_outbox_loads_no_optional_library() -> None:
    tops = {name.partition(".")[0] for name in loaded_by("from outbox import Message, Outbox, Runner")}

    assert tops - sys.stdlib_module_names <= ALLOWED_OUTSIDE_THE_STANDARD_LIBRARY


def test_the_check_sees_what_is_heavy() -> None:
    assert {"sqlite3", "email"} <= loaded_by("import outbox; outbox.SQLiteStore; outbox.from_email")


def test_asking_for_one_lazy_name_loads_no_other() -> None:
    loaded = loaded_by("from outbox import MemoryStore")

    assert not loaded & HEAVY


def test_every_module_can_be_the_first_to_be_imported() -> None:
    """No order of imports is needed: there is no circle.

    Whatever is imported, the packages that it is in are imported before it: they stay while their files are tried.
    """
    failures = python(
        "import importlib, json, sys, traceback\n"
        "failures, package = {}, None\n"
        "for name in sorted(sys.argv[1:], key=lambda name: name.rpartition('.')):\n"
        "    inside = name.rpartition('.')[0]\n"
        "    if inside != package:\n"
        "        for old in [m for m in sys.modules if m.partition('.')[0] == 'outbox']:\n"
        "            del sys.modules[old]\n"
        "        if inside:\n"
        "            importlib.import_module(inside)\n"
        "        package, there = inside, set(sys.modules)\n"
        "    for new in set(sys.modules) - there:\n"
        "        if new.partition('.')[0] == 'outbox':\n"
        "            del sys.modules[new]\n"
        "            outer, _, inner = new.rpartition('.')\n"
        "            vars(sys.modules.get(outer, sys)).pop(inner, None)\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except BaseException:\n"
        "        failures[name] = traceback.format_exc()\n"
        "print(json.dumps(failures))",
        *MODULES,
    )

    assert failures == {}


def test_every_module_can_be_imported_where_there_is_no_posix() -> None:
    """Windows stands for it: these modules and these names of ``os`` are not there."""
    imported = python(
        "import importlib, json, os, signal, sys\n"
        # The standard library's own modules may use them: they are loaded while it is all there.
        "import email.policy, logging.handlers, pathlib, selectors, shutil, smtplib, socket, sqlite3, ssl\n"
        "import hypothesis, pytest, subprocess, tempfile, threading, urllib.request, uuid\n"
        f"for name in {NOT_ON_WINDOWS!r}: sys.modules[name] = None\n"
        f"for name in {NOT_IN_OS!r}: delattr(os, name)\n"
        "del signal.SIGHUP\n"
        "print(json.dumps([importlib.import_module(name).__name__ for name in sys.argv[1:]]))",
        *MODULES,
    )

    assert imported == MODULES


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("stores/__init__.py", "outbox.stores"),
        ("stores/memory.py", "outbox.stores.memory"),
        ("__init__.py", "outbox"),
    ],
)
def test_a_file_is_known_by_its_module_name(path: str, module: str) -> None:
    assert Source.parse(path, "").module == module
