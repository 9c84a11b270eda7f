"""Real processes, killed, stopped past their leases and told to end: nothing is lost, and each second copy has a cause.

Half a minute for each of the two stores; ``OUTBOX_CHAOS=long`` (``nox -s chaos``) is ten minutes and 100,000 messages
a store, ``OUTBOX_CHAOS_SEED`` another run.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from chaos_run import Chaos

LONG = os.environ.get("OUTBOX_CHAOS") == "long"
SEED = int(os.environ.get("OUTBOX_CHAOS_SEED", "1"))
NUMBER, SECONDS, STRIKES = (100_000, 600.0, 500) if LONG else (6_000, 30.0, 24)
PAUSES = (0.3, 1.0) if LONG else (0.05, 0.3)

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system has no such signals")


@pytest.mark.parametrize(
    "store", ["sqlite:///{}/outbox.db?keep_delivered=1d", "file://{}/spool?keep_delivered=1d"]
)
def test_eight_runners_that_are_killed_and_stopped_lose_nothing_and_double_nothing_without_a_cause(
    store: str, tmp_path: Path
) -> None:
    url = store.format(tmp_path)
    chaos = Chaos(
        seed=SEED,
        number=NUMBER,
        seconds=SECONDS,
        least=STRIKES,
        pauses=PAUSES,
        url=url,
        folder=tmp_path,
        whole=LONG,
    )

    chaos.run()

    print(f"{chaos.number} messages, {len(chaos.everybody)} processes: {dict(chaos.done)}")
    print(f"second copies: {dict(chaos.causes)}")
    # A run in which nobody was in the midst of something has shown nothing.
    assert {"kill", "stop", "end"} <= chaos.done.keys()
    assert chaos.causes, f"no message was sent twice; {chaos.words}"
