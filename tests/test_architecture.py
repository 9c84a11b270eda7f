"""The house stands as ARCHITECTURE.md draws it, and every rule is seen to catch what breaks it."""

from __future__ import annotations

import statistics

import pytest
from architecture import EXCUSES
from house_rules import RULES, breaches
from source import Source, bodies, sources

HOUSE = sources()

BROKEN = [
    ("every file is on a floor", "attic.py", ""),
    ("every file is on a floor", "attic/__init__.py", ""),
    ("imports go down", "values.py", "from .errors import OutboxError"),
    ("imports go down", "values.py", "from . import errors"),
    ("imports go down", "message.py", "from .lifecycle import Claim"),
    ("imports go down", "message.py", "import outbox.lifecycle"),
    ("imports go down", "message.py", "from outbox.lifecycle import Claim"),
    ("imports go down", "message.py", "from outbox import Claim"),
    ("imports go down", "message.py", "import outbox"),
    ("imports go down", "message.py", "def late():\n    from .judge import judge"),
    (
        "imports go down",
        "message.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import judge",
    ),
    ("imports go down", "stores/sqlite/rows.py", "from ...delivery import Claim"),
    ("imports go down", "stores/sqlite.py", "from .. import events"),
    ("imports go down", "stores/__init__.py", "from ..runner import Runner"),
    ("imports go down", "testing/__init__.py", "from outbox.cli import main"),
    ("imports are written out", "codec.py", "import importlib\nimportlib.import_module('outbox.' + name)"),
    (
        "imports are written out",
        "codec.py",
        "from importlib import import_module\nimport_module('outbox.cli')",
    ),
    ("imports are written out", "codec.py", "__import__('outbox.cli')"),
    ("stores and transports keep apart", "stores/sqlite.py", "from ..retry import RetryPolicy"),
    ("stores and transports keep apart", "stores/sqlite.py", "from .. import judge"),
    ("stores and transports keep apart", "stores/sqlite.py", "from outbox.relay import Relays"),
    ("stores and transports keep apart", "stores/memory.py", "from ..transports import smtp"),
    ("stores and transports keep apart", "transports/chain.py", "from ..stores.memory import MemoryStore"),
    ("the deciding files are pure", "judge.py", "import os"),
    ("the deciding files are pure", "judge.py", "import time"),
    ("the deciding files are pure", "relay.py", "import threading"),
    ("the deciding files are pure", "outcome.py", "from socket import gaierror"),
    ("the deciding files are pure", "lifecycle.py", "from secrets import token_hex"),
    ("the deciding files are pure", "retry.py", "import random\nwait = random.random()"),
    ("the deciding files are pure", "retry.py", "import random\nrng = random.Random(4)"),
    ("the deciding files are pure", "retry.py", "from random import uniform"),
    ("the deciding files are pure", "retry.py", "from random import Random\nrng = Random()"),
    ("the deciding files are pure", "delivery.py", "from .clock import SystemClock"),
    ("the deciding files are pure", "delivery.py", "def log(line):\n    print(line)"),
    ("the deciding files are pure", "delivery.py", "def body(path):\n    return open(path)"),
    ("time is read in the clock", "runner.py", "import time"),
    ("time is read in the clock", "runner.py", "from time import monotonic"),
    ("time is read in the clock", "message.py", "import datetime as dt\nnow = dt.datetime.now(dt.UTC)"),
    ("time is read in the clock", "message.py", "from datetime import date\nday = date.today()"),
    ("time is read in the clock", "message.py", "from datetime import datetime\nclock = datetime.now"),
    ("time is read in the clock", "mail.py", "from email.utils import make_msgid"),
    ("time is read in the clock", "mail.py", "import email.utils\ndate = email.utils.formatdate()"),
    ("optional libraries stay in their file", "codec.py", "import msgpack"),
    ("optional libraries stay in their file", "testing/sink.py", "import pytest"),
    ("optional libraries stay in their file", "testing/store_suite.py", "import pytest"),
    ("optional libraries stay in their file", "stores/memory.py", "from hypothesis import given"),
    (
        "threads start in few places",
        "stores/sqlite.py",
        "import threading\nthreading.Thread(target=print).start()",
    ),
    ("threads start in few places", "stores/sqlite.py", "from threading import Timer"),
    (
        "threads start in few places",
        "transports/smtp/pool.py",
        "from concurrent.futures import ThreadPoolExecutor",
    ),
    ("threads start in few places", "outbox.py", "import concurrent.futures"),
    ("threads start in few places", "outbox.py", "import asyncio"),
    ("guests use public names", "cli/list.py", "from ..relay import Relays"),
    ("guests use public names", "cli/list.py", "from outbox.performer import Orders"),
    ("guests use public names", "cli/list.py", "from outbox.stores.sqlite import _connect"),
    ("guests use public names", "contrib/django/backend.py", "import outbox.delivery"),
    ("guests use public names", "testing/doubles.py", "from .. import relay"),
    ("guests use public names", "web/__init__.py", "from outbox.stores._files import Spool"),
    ("modules hold no state", "codec.py", "registry = {}"),
    ("modules hold no state", "codec.py", "registry: dict[str, int] = {}"),
    ("modules hold no state", "codec.py", "REGISTRY = []"),
    ("modules hold no state", "codec.py", "try:\n    KNOWN = [1]\nfinally:\n    pass"),
    ("modules hold no state", "codec.py", "from typing import Final\nSEEN: Final = set()"),
    ("modules hold no state", "codec.py", "from typing import Final\nlimits: Final = 3"),
    (
        "modules hold no state",
        "codec.py",
        "import threading\nfrom typing import Final\nLOCK: Final = threading.Lock()",
    ),
    ("modules hold no state", "outbox.py", "default = Outbox(store)"),
    ("modules hold no state", "outbox.py", "from typing import Final\nDEFAULT: Final = Outbox(store)"),
    (
        "modules hold no state",
        "codec.py",
        "from typing import Final\nA: Final = {1: 2}\ndef f():\n    A[3] = 4",
    ),
    (
        "modules hold no state",
        "codec.py",
        "from typing import Final\nA: Final = [1]\ndef f():\n    A.append(4)",
    ),
    ("modules hold no state", "codec.py", "def f():\n    global count\n    count = 1"),
    ("modules hold no state", "codec.py", "def f():\n    globals()['count'] = 1"),
    ("modules hold no state", "codec.py", "import functools\n@functools.lru_cache(maxsize=8)\ndef f(): ..."),
    (
        "modules hold no state",
        "codec.py",
        "from functools import cache\nclass A:\n    @cache\n    def f(self): ...",
    ),
    ("modules hold no state", "codec.py", "class A:\n    known = {}"),
    ("modules hold no state", "codec.py", "class A:\n    known: list[str] = []"),
    ("words are ours", "codec.py", "class LeaseManager: ..."),
    ("words are ours", "codec.py", "def send_job(x): ..."),
    ("words are ours", "codec.py", "def send(jobs): ..."),
    ("words are ours", "codec.py", "import json as json_utils"),
    ("words are ours", "codec.py", "class A:\n    def __init__(self):\n        self.helper = 1"),
    ("words are ours", "stores/utils.py", ""),
]

SOUND = [
    (
        "stores/sqlite/__init__.py",
        "from ...protocols import Store\nfrom .rows import Row\nfrom . import rows",
    ),
    ("stores/sqlite/rows.py", "import sqlite3\nimport threading\nLOCAL = threading.local"),
    (
        "judge.py",
        "import random\nfrom .retry import RetryPolicy\ndef f(rng: random.Random): return rng.random()",
    ),
    ("runner.py", "import threading\nthreading.Thread(target=print)"),
    ("runner.py", "def f(clock): return clock.now(), clock.monotonic()"),
    (
        "mail.py",
        "from email.utils import formatdate\ndef f(clock): return formatdate(clock.now().timestamp())",
    ),
    (
        "cli/list.py",
        "from outbox import Outbox\nfrom outbox.errors import StoreError\nfrom ._table import render",
    ),
    (
        "testing/state_machine.py",
        "import hypothesis\nHINT = 'durable-outbox[testing]'\nfrom ..stores.memory import MemoryStore",
    ),
    ("codec.py", "from typing import Final\n_UNITS: Final = {'s': 1}\n__all__ = ['a']\nLIMIT = 1024"),
    (
        "codec.py",
        "import re\nfrom typing import Final, TypeVar\nK = TypeVar('K')\nWORD: Final = re.compile('w')",
    ),
    ("codec.py", "import datetime as dt\nDAY = dt.timedelta(days=1)"),
    ("codec.py", "import logging\nlog = logging.getLogger(__name__)"),
    ("codec.py", "from contextlib import contextmanager\n@contextmanager\ndef f(): yield"),
    ("codec.py", "def f():\n    rows = {}\n    rows['a'] = 1\n    return rows"),
]


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps_its_rules(rule: str) -> None:
    found = [b for b in breaches(rule, HOUSE) if (rule, b.path) not in EXCUSES]

    assert not found, f"{rule}:\n" + "\n".join(map(str, found))


@pytest.mark.parametrize(("rule", "path"), EXCUSES)
def test_an_excuse_is_still_needed(rule: str, path: str) -> None:
    assert any(b.path == path for b in breaches(rule, HOUSE)), "nothing to excuse any more: strike it"


@pytest.mark.parametrize(("rule", "path", "text"), BROKEN)
def test_a_rule_catches_what_breaks_it(rule: str, path: str, text: str) -> None:
    assert breaches(rule, [Source.parse(path, text)])


@pytest.mark.parametrize(("path", "text"), SOUND)
def test_no_rule_blames_what_is_sound(path: str, text: str) -> None:
    assert not [str(b) for rule in RULES for b in breaches(rule, [Source.parse(path, text)])]


def test_every_rule_has_an_example_that_breaks_it() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(RULES)


def test_the_whole_package_is_read() -> None:
    assert {"errors.py", "lifecycle.py", "stores/memory.py", "__init__.py"} <= {file.path for file in HOUSE}


def test_functions_are_short() -> None:
    """The median body has 8 lines at most, and nine in ten are under 20."""
    found = sorted(body for file in HOUSE for body in bodies(file))
    lines = [body.lines for body in found]
    long = "\n".join(f"{body.lines:4} {body.place}" for body in reversed(found) if body.lines >= 20)

    assert statistics.median(lines) <= 8
    assert sum(n < 20 for n in lines) >= 0.9 * len(lines), f"too many long bodies:\n{long}"


def test_a_body_is_measured_without_its_docstring_and_signature() -> None:
    text = 'def f(\n    a: int,\n) -> int:\n    """Says\n\n    much."""\n    b = a\n\n    return b\n\ndef stub() -> int: ...\n'

    assert [body.lines for body in bodies(Source.parse("a.py", text))] == [3]
