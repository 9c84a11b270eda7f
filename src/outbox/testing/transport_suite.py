"""The transport's contract as a test class: every clause a sentence.

Whoever writes a transport holds it to the same clauses as ours: see
:class:`TransportSuite`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar, Final, NoReturn

try:
    import pytest
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'TransportSuite needs pytest: pip install "durable-outbox[testing]"', name=error.name
    ) from error

_PARTS: Final = (
    "batching",
    "doubting",
    "ending",
    "faulting",
    "hiding",
    "reporting",
    "routing",
    "scene",
    "sharing",
)
pytest.register_assert_rewrite(
    *(name for part in _PARTS if (name := f"outbox.testing.transport_clauses.{part}") not in sys.modules)
)

from outbox.message import Message  # noqa: E402 - pytest has to know of the clauses before they are imported
from outbox.testing.transport_clauses.batching import BatchClauses  # noqa: E402
from outbox.testing.transport_clauses.doubting import DoubtClauses  # noqa: E402
from outbox.testing.transport_clauses.ending import EndClauses  # noqa: E402
from outbox.testing.transport_clauses.faulting import FaultClauses  # noqa: E402
from outbox.testing.transport_clauses.hiding import HideClauses  # noqa: E402
from outbox.testing.transport_clauses.reporting import ReportClauses  # noqa: E402
from outbox.testing.transport_clauses.routing import RouteClauses  # noqa: E402
from outbox.testing.transport_clauses.scene import CONTENT, Behaviour, Lead, Rig, Taken  # noqa: E402
from outbox.testing.transport_clauses.sharing import ShareClauses  # noqa: E402

__all__ = ["Behaviour", "Rig", "Taken", "TransportSuite"]


class TransportSuite(
    ReportClauses,
    DoubtClauses,
    FaultClauses,
    ShareClauses,
    EndClauses,
    HideClauses,
    BatchClauses,
    RouteClauses,
):
    """Subclass it, say how your transport is led to a server, and let pytest collect it.

    ::

        class TestMyTransport(TransportSuite):
            @contextlib.contextmanager
            def open(self, behaviour, only):
                with MyServer() as server:
                    match behaviour:
                        case Behaviour.TAKES:
                            pass
                        case Behaviour.REFUSES:
                            server.refuse(only)
                        case _:
                            self.cannot(behaviour)
                    yield Rig(
                        transport=MyTransport(server.address),
                        taken=lambda: server.taken,
                        recover=server.behave,
                    )

    A clause for a behaviour that ``open`` cannot bring about, or for a
    capability that your transport has not, is skipped by name.

    Attributes:
        patience: How long a delivery may take before it counts as one that
            never comes back.  Give the transport shorter deadlines than this.
        many: How many recipients a message has, or messages there are of
            one recipient each, where there are many: enough for
            :attr:`Behaviour.BREAKS` to come between them.
    """

    patience: ClassVar[dt.timedelta] = dt.timedelta(seconds=30)
    many: ClassVar[int] = 150

    def open(self, behaviour: Behaviour, only: Sequence[str]) -> AbstractContextManager[Rig]:
        """Make a transport that leads to a server of this *behaviour*, and take both down at the end of the block.

        *only* are the recipients that REFUSES and DEFERS are about; where it
        is empty they are about everybody.  Whoever waits for the server is to
        give up long before :attr:`patience`.  The suite has closed the
        transport by then.
        """
        raise NotImplementedError("say in `open` how your transport is led to a server")

    def cannot(self, behaviour: Behaviour) -> NoReturn:
        """Skip this clause: the transport has no server that behaves so."""
        pytest.skip(f"this transport is led to no server that {behaviour}")

    def recipient(self, name: str) -> str:
        """Somebody of this *name* (letters, digits and hyphens), as this transport writes recipients."""
        return f"{name}@example.org"

    def message(self, *names: str, content: bytes = CONTENT) -> Message:
        """A message to somebody of each of these *names*."""
        return Message(
            recipients=tuple(map(self.recipient, names)), content=content, sender="sender@example.org"
        )

    def require_secrets(self, rig: Rig) -> None:
        if not rig.secrets:
            pytest.skip("this rig's transport was told no secrets")

    @pytest.fixture
    def lead(self, request: pytest.FixtureRequest) -> Iterator[Lead]:
        with contextlib.ExitStack() as opened:

            def lead(behaviour: Behaviour, *only: str) -> Rig:
                rig = opened.enter_context(self.open(behaviour, only))
                opened.callback(rig.transport.close)
                for need in getattr(request.function, "needs", ()):
                    if not isinstance(rig.transport, need):
                        pytest.skip(f"this transport is not {need.__name__}")
                return rig

            yield lead
