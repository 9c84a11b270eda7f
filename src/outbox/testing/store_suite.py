"""The store's contract as a test class: every clause a sentence.

Whoever writes a store holds it to the same clauses as ours::

    class TestMyStore(StoreSuite):
        def open(self, clock, path, **settings):
            return MyStore(path / "store", clock=clock, **settings)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Final, cast

try:
    import pytest
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'StoreSuite needs pytest: pip install "durable-outbox[testing]"', name=error.name
    ) from error

_PARTS: Final = (
    "announcing",
    "asking",
    "claiming",
    "crowding",
    "damaging",
    "dealing",
    "enduring",
    "exacting",
    "exchanging",
    "extending",
    "fating",
    "fencing",
    "finding",
    "handing",
    "holding",
    "joining",
    "keeping",
    "limiting",
    "looking",
    "moving",
    "ordering",
    "purging",
    "putting",
    "racing",
    "registering",
    "retaining",
    "rooming",
    "scene",
    "settling",
    "sharing",
    "spanning",
    "steering",
    "suspending",
    "timing",
    "trading",
    "waiting",
    "witnessing",
)
pytest.register_assert_rewrite(
    *(name for part in _PARTS if (name := f"outbox.testing.clauses.{part}") not in sys.modules)
)

from outbox.clock import Clock  # noqa: E402 - pytest has to know of the clauses before they are imported
from outbox.protocols import Guarantee, Store  # noqa: E402
from outbox.testing.clauses.announcing import AnnounceClauses  # noqa: E402
from outbox.testing.clauses.asking import AskClauses  # noqa: E402
from outbox.testing.clauses.claiming import ClaimClauses  # noqa: E402
from outbox.testing.clauses.crowding import CrowdClauses  # noqa: E402
from outbox.testing.clauses.damaging import DamageClauses  # noqa: E402
from outbox.testing.clauses.dealing import DealClauses  # noqa: E402
from outbox.testing.clauses.enduring import EndureClauses  # noqa: E402
from outbox.testing.clauses.exacting import ExactClauses  # noqa: E402
from outbox.testing.clauses.exchanging import ExchangeClauses  # noqa: E402
from outbox.testing.clauses.extending import ExtendClauses  # noqa: E402
from outbox.testing.clauses.fating import FateClauses  # noqa: E402
from outbox.testing.clauses.fencing import FenceClauses  # noqa: E402
from outbox.testing.clauses.finding import FindClauses  # noqa: E402
from outbox.testing.clauses.giving import GiveClauses  # noqa: E402
from outbox.testing.clauses.handing import HandOverClauses  # noqa: E402
from outbox.testing.clauses.holding import HoldClauses  # noqa: E402
from outbox.testing.clauses.joining import JoinClauses  # noqa: E402
from outbox.testing.clauses.keeping import KeepClauses  # noqa: E402
from outbox.testing.clauses.limiting import LimitClauses  # noqa: E402
from outbox.testing.clauses.looking import BrowseClauses  # noqa: E402
from outbox.testing.clauses.moving import MoveClauses  # noqa: E402
from outbox.testing.clauses.ordering import OrderClauses  # noqa: E402
from outbox.testing.clauses.purging import PurgeClauses  # noqa: E402
from outbox.testing.clauses.putting import PutClauses  # noqa: E402
from outbox.testing.clauses.racing import RaceClauses  # noqa: E402
from outbox.testing.clauses.registering import RegisterClauses  # noqa: E402
from outbox.testing.clauses.retaining import RetainClauses  # noqa: E402
from outbox.testing.clauses.rooming import RoomClauses  # noqa: E402
from outbox.testing.clauses.scene import Beside, Reopen, Whole, unknown_setting  # noqa: E402
from outbox.testing.clauses.settling import SettleClauses  # noqa: E402
from outbox.testing.clauses.sharing import ShareClauses  # noqa: E402
from outbox.testing.clauses.spanning import SpanClauses  # noqa: E402
from outbox.testing.clauses.steering import ManageClauses  # noqa: E402
from outbox.testing.clauses.suspending import SuspendClauses  # noqa: E402
from outbox.testing.clauses.timing import TimeClauses  # noqa: E402
from outbox.testing.clauses.trading import TradeClauses  # noqa: E402
from outbox.testing.clauses.waiting import WaitClauses  # noqa: E402
from outbox.testing.clauses.witnessing import WitnessClauses  # noqa: E402
from outbox.testing.clock import ManualClock  # noqa: E402

__all__ = ["StoreSuite"]


class StoreSuite(
    PutClauses,
    ClaimClauses,
    OrderClauses,
    DealClauses,
    ExtendClauses,
    SettleClauses,
    FateClauses,
    FenceClauses,
    WitnessClauses,
    ExchangeClauses,
    HandOverClauses,
    JoinClauses,
    TimeClauses,
    SpanClauses,
    ManageClauses,
    PurgeClauses,
    HoldClauses,
    SuspendClauses,
    AnnounceClauses,
    RegisterClauses,
    BrowseClauses,
    FindClauses,
    LimitClauses,
    KeepClauses,
    RetainClauses,
    EndureClauses,
    CrowdClauses,
    DamageClauses,
    RaceClauses,
    WaitClauses,
    ShareClauses,
    AskClauses,
    ExactClauses,
    TradeClauses,
    RoomClauses,
    MoveClauses,
    GiveClauses,
):
    """Subclass it, say how your store is opened, and let pytest collect it.

    A clause that asks for a capability your store has not, or for a
    guarantee that it declares in ``lacks``, is skipped by name.

    Attributes:
        persistent: Whether what is stored outlives the store object, and
            other processes can open it meanwhile.  Some clauses do: the
            suite's class has to be one that they can import.
        many: How many messages there are where many are put at once: more
            than a thousand, but for a store in which each costs a request.
    """

    persistent: ClassVar[bool] = True
    many: ClassVar[int] = 2000

    def open(self, clock: Clock, path: Path, **settings: Any) -> Store:
        """Open the store that lives in the directory *path*: the same one, when it is called again.

        *settings* are those of :class:`outbox.stores.retention.Retention` and
        :class:`outbox.stores.limits.Limits`, by their names.  A clause that
        asks for one which your store does not take as a keyword is skipped.
        """
        raise NotImplementedError("say in `open` how your store is opened")

    def corrupt(self, store: Whole, id: str) -> None:  # noqa: ARG002 - for subclasses
        """Change a byte of the stored content of this message, behind the store's back."""
        pytest.skip("`corrupt` does not say how to damage a record of this store")

    def transaction(self, store: Whole, path: Path) -> AbstractContextManager[Any]:  # noqa: ARG002 - for subclasses
        """A connection to the database of *store*, within a transaction of its own; for ``SupportsTransaction``.

        It commits where the block ends, and undoes what was done where the
        block raises.  *path* is the directory that :meth:`open` was called with.
        """
        pytest.skip("`transaction` does not say how a transaction beside this store is begun")

    def require_persistence(self) -> None:
        if not self.persistent:
            pytest.skip("this store does not outlive its object")

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def reopen(self, request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Iterator[Reopen]:
        opened: list[Store] = []

        def reopen(*, crash: bool = False, **settings: Any) -> Whole:
            if opened and not crash:
                opened[-1].close()
            try:
                store = self.open(clock, tmp_path, **settings)
            except TypeError as error:
                unknown = unknown_setting(settings, error)
                if unknown is None:
                    raise
                pytest.skip(f"this store does not know the setting {unknown}")
            opened.append(store)
            _require(store, getattr(request.function, "needs", ()))
            return cast(Whole, store)

        yield reopen
        for store in opened:
            store.close()

    @pytest.fixture
    def store(self, reopen: Reopen) -> Whole:
        return reopen()

    @pytest.fixture
    def beside(self, clock: ManualClock, tmp_path: Path) -> Iterator[Beside]:
        opened: list[Store] = []
        path = tmp_path / "beside"
        path.mkdir()

        def beside(**settings: Any) -> Whole:
            if not opened:
                opened.append(self.open(clock, path, **settings))
            return cast(Whole, opened[0])

        yield beside
        for store in opened:
            store.close()


def _require(store: Store, needs: tuple[type | Guarantee, ...]) -> None:
    lacks: frozenset[Guarantee] = getattr(store, "lacks", frozenset())
    for need in needs:
        if isinstance(need, Guarantee):
            if need in lacks:
                pytest.skip(f"this store lacks the guarantee of {need}")
        elif not isinstance(store, need):
            pytest.skip(f"this store is not {need.__name__}")
