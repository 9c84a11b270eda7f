"""The house in tables: which file stands on which floor, what each may use, and who is excused.

This is the only place to change when a file is added, moved or excused.  The
rules that read these tables are in ``house_rules.py``.  An excuse carries its
reason, and one that is no longer needed fails the test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FLOORS: Final[Sequence[frozenset[str]]] = tuple(
    words(names)
    for names in (
        "lazily values",
        "errors",
        "address clock retry",
        "message outcome",
        "codec lifecycle mail relay replies report waiting",
        "protocols",
        "ages breakers bulletin filters handover moving naming",
        "events formats judge mover screening stores suppression transports",
        "bounces delays drawing herald joining leases logs screener staging stock submitter",
        "slips",
        "actions aside roster suspects tray",
        "demand",
        "desk",
        "delivery",
        "errands",
        "performer",
        "sender shift",
        "crew",
        "runner",
        "outbox",
        "__init__ locate",
        "contrib tasks testing web",
        "cli",
        "__main__",
    )
)
"""From the ground up.  A name is a file, or a package whose files may import each other."""

NEVER: Final[Mapping[str, frozenset[str]]] = {
    "stores": frozenset({"retry", "judge", "relay", "transports", "delivery", "runner"}),
    "transports": frozenset({"stores"}),
}
"""What a room may not import although it is on a lower floor, or beside it."""

PURE: Final = frozenset(
    {
        "aside",
        "judge",
        "retry",
        "lifecycle",
        "relay",
        "replies",
        "report",
        "roster",
        "outcome",
        "actions",
        "delivery",
        "demand",
        "desk",
        "filters",
        "leases",
        "screening",
        "slips",
        "stock",
        "suspects",
        "tray",
    }
)
"""No I/O, no clock, and no die that is not handed in."""

PURE_IMPORTS: Final = words(
    "__future__ abc attrs bisect collections contextlib copy datetime enum fnmatch functools hashlib heapq itertools math "
    "operator random re string types typing typing_extensions"
)

CORE_LIBRARIES: Final = frozenset({"attr", "attrs", "typing_extensions"})

OPTIONAL_LIBRARIES: Final[Mapping[str, frozenset[str]]] = {
    "boto3": frozenset({"stores/sqs/boto3.py"}),
    "botocore": frozenset({"stores/sqs/boto3.py"}),
    "django": frozenset({"joining/django.py"}),
    "sqlalchemy": frozenset({"joining/sqlalchemy.py"}),
    "cryptography": frozenset({"contrib/cryptography.py"}),
    "opentelemetry": frozenset({"contrib/opentelemetry.py"}),
    "prometheus_client": frozenset({"contrib/prometheus.py"}),
    "redis": frozenset({"stores/redis/driver.py"}),
    "psycopg": frozenset(
        f"stores/postgres/driver/{name}.py" for name in ("__init__", "connecting", "origins", "wire")
    ),
    "rich": frozenset({"cli/rich.py"}),
    "hypothesis": frozenset({"testing/drawing.py", "testing/state_machine.py"}),
    "pytest": frozenset({"testing/store_suite.py", "testing/transport_suite.py"}),
}
"""An optional library is imported only in the file, or the package, named after it (or after what it is for)."""

PUBLIC_MODULES: Final = words(
    "address ages bulletin clock codec contrib errors events filters formats judge lifecycle locate logs mail message mover moving outcome protocols "
    "retry stores testing transports values"
)
"""Beside ``outbox`` itself, what a user may import from; the rest may change without notice."""

GUESTS: Final = frozenset({"cli", "contrib", "tasks", "testing", "web"})
"""They use what any user could use."""

UNWANTED_WORDS: Final = frozenset({"manager", "helper", "util", "utility", "utilitie", "job"})

EXCUSES: Final[Mapping[tuple[str, str], str]] = {
    (
        "imports are written out",
        "lazily.py",
    ): "loads what its callers name: their tables are read against their imports",
    ("imports are written out", "cli/parser.py"): "loads the file of the one command that was asked for",
    ("guests use public names", "testing/simulation/processing.py"): "steps the scripts of delivery.py",
    (
        "guests use public names",
        "testing/simulation/shifting.py",
    ): "performs their actions in the place of threads",
    (
        "guests use public names",
        "testing/simulation/breaking.py",
    ): "watches the breakers that production uses",
    ("guests use public names", "cli/send_test.py"): "hands one message over as every worker does",
    ("threads start in few places", "sender.py"): "keeps the leases of what its callers' threads deliver",
    (
        "threads start in few places",
        "cli/serving.py",
    ): "its main thread hears signals, and tells systemd that it lives",
    ("threads start in few places", "crew.py"): "the threads of one run: the lower half of runner.py",
}
"""By rule and file, the reason why it may."""


def floor(room: str) -> int | None:
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)
