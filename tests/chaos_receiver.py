"""A receiver that fails at random, in a process of its own; it writes down each final dot, and what it said to it.

    python chaos_receiver.py SEED LOG

Its first line is its port.  ``calm`` on standard input ends the faults; the
end of the input ends it, and ``LOG`` then has the Message-IDs too.
"""

from __future__ import annotations

import datetime as dt
import json
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import IO

from outbox.testing.smtp_script import Answer, Heard
from outbox.testing.smtp_sink import SMTPSink

FAULTS = {
    "connect": (0.01, {"421": Answer("421 4.3.2 not now", close=True)}),
    "mail": (0.02, {"4xx": Answer("451 4.3.0 later"), "closed": Answer(close=True)}),
    "rcpt": (0.02, {"4xx": Answer("450 4.2.1 later"), "421": Answer("421 4.3.2 leaving", close=True)}),
    "data": (0.02, {"4xx": Answer("451 4.3.0 later"), "reset": Answer(close="reset")}),
    "content": (0.01, {"closed": Answer(close=True)}),
    "dot": (
        0.10,
        {
            "4xx": Answer("451 4.3.0 later"),
            "421": Answer("421 4.3.2 leaving", close=True),
            "closed": Answer(close=True),
            "cut": Answer("250 2.0.0 taken", cut=6, close=True),
            "late": Answer("250 2.0.0 taken", after=dt.timedelta(seconds=0.2)),
        },
    ),
}


SLOW = Answer("250 2.0.0 taken", after=dt.timedelta(seconds=0.02))
"""Usually: who is killed is then in the midst of something."""


class Faults:
    """The sink's hook: draws by seed, step, address and how often it came, and logs every dot."""

    def __init__(self, seed: str, log: IO[str]) -> None:
        self.calm = False
        self._seed = seed
        self._log = log
        self._lock = threading.Lock()
        self._visits: Counter[tuple[str, str]] = Counter()
        self._greetings: dict[int, str] = {}

    def __call__(self, heard: Heard) -> Answer | None:
        with self._lock:
            kind, answer = self._drawn(heard)
            if heard.step == "ehlo":
                self._greetings[heard.connection] = heard.line.split()[-1]
            elif heard.step == "dot":
                self.write(
                    at=time.time(),
                    id=heard.recipients[0].partition("@")[0],
                    runner=self._greetings[heard.connection].partition(".")[0],
                    said=kind,
                )
        return answer

    def write(self, **fields: object) -> None:
        print(json.dumps(fields), file=self._log, flush=True)

    def _drawn(self, heard: Heard) -> tuple[str, Answer | None]:
        whom = ",".join(heard.recipients) or heard.address or str(heard.connection)
        self._visits[heard.step, whom] += 1
        rng = random.Random(f"{self._seed} {heard.step} {whom} {self._visits[heard.step, whom]}")
        chance, kinds = FAULTS.get(heard.step, (0.0, {}))
        if self.calm or rng.random() >= chance:
            return "250", SLOW if heard.step == "dot" and not self.calm else None
        kind = rng.choice(sorted(kinds))
        return kind, kinds[kind]


def main(seed: str, path: str) -> None:
    with Path(path).open("w", encoding="utf-8") as log:
        faults = Faults(seed, log)
        with SMTPSink(hook=faults) as sink:
            print(sink.port, flush=True)
            for line in sys.stdin:
                faults.calm = line == "calm\n"
            for message in sink.messages:
                faults.write(
                    id=message.recipients[0].partition("@")[0], message_id=message.email()["Message-ID"]
                )
            faults.write(violations=sink.violations)


if __name__ == "__main__":
    main(*sys.argv[1:])
