"""What an import brings along, measured in fresh interpreters."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from source import Source, sources

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


def test_import_outbox_loads_no_network_no_database_and_nothing_slow() -> None:
    loaded = loaded_by("import outbox")

    assert "outbox.lifecycle" in loaded
    assert not loaded & HEAVY


def test_import_outbox_loads_no_optional_library() -> None:
    tops = {name.partition(".")[0] for name in loaded_by("import outbox")}

    assert tops - sys.stdlib_module_names <= ALLOWED_OUTSIDE_THE_STANDARD_LIBRARY


def test_the_check_sees_what_is_heavy() -> None:
    assert {"sqlite3", "email"} <= loaded_by("import outbox; outbox.SQLiteStore; outbox.from_email")


def test_asking_for_one_lazy_name_loads_no_other() -> None:
    loaded = loaded_by("from outbox import MemoryStore")

    assert not loaded & HEAVY


def test_every_module_can_be_the_first_to_be_imported() -> None:
    """No order of imports is needed: there is no circle."""
    failures = python(
        "import importlib, json, sys, traceback\n"
        "failures = {}\n"
        "for name in sys.argv[1:]:\n"
        "    for old in [m for m in sys.modules if m.partition('.')[0] == 'outbox']:\n"
        "        del sys.modules[old]\n"
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
