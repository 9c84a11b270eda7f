"""What is delivered is what was committed, exactly: over transactions that end in every way, a kill among them.

Some for each library; ``OUTBOX_WITHIN=10000`` (``nox -s within``) is so many for each, ``OUTBOX_WITHIN_SEED`` another run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import shops
from shops import ENGINES, Database, orders
from within_run import ENDS, KINDS, id_of

from outbox import FunctionTransport, Message, Outbox

PROGRAM = Path(__file__).with_name("within_run.py")
SEED = int(os.environ.get("OUTBOX_WITHIN_SEED", "1"))
NUMBER = int(os.environ.get("OUTBOX_WITHIN", "40"))

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture(params=ENGINES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    with shops.database(request.param, tmp_path) as made:
        yield made


def test_the_set_delivered_is_the_set_committed(database: Database) -> None:
    delivered: Counter[str] = Counter()

    def deliver(message: Message, _: str) -> None:
        delivered[message.id] += 1

    with Outbox(database.store(), FunctionTransport(deliver)) as outbox:
        with outbox.running():
            begun = played(database)
            database.wait()
        outbox.drain()

    assert delivered == Counter(map(id_of, orders(database)))
    # A run in which something never happened has shown nothing of it.
    assert begun.keys() == {f"{kind}: {end}" for kind in KINDS for end in ENDS}
    assert begun.total() == NUMBER * len(KINDS)
    print(f"{dict(begun)}: {delivered.total()} messages committed and delivered")


def played(database: Database) -> Counter[str]:
    """How often each end was begun."""
    command = [sys.executable, str(PROGRAM), database.told, str(SEED), str(NUMBER)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return Counter(json.loads(run.stdout))
