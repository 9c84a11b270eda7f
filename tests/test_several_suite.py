"""The contract of a transport holds for what leads to several relays, as long as it holds for each of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from faithful import SECRET, Faithful, FarSide

from outbox.testing import Behaviour, Rig, TransportSuite
from outbox.transports.chain import ChainTransport
from outbox.transports.route import RouteTransport


def closed() -> Faithful:
    """A relay that will not have us."""
    return Faithful(FarSide(Behaviour.FORBIDS, ()))


class TestChainWhoseFirstRelayWillNotHaveUs(TransportSuite):
    @contextlib.contextmanager
    def open(self, behaviour: Behaviour, only: Sequence[str]) -> Iterator[Rig]:
        far = FarSide(behaviour, only)
        transport = ChainTransport(closed(), Faithful(far))
        yield Rig(transport=transport, taken=lambda: far.taken, recover=far.recover, secrets=[SECRET])


class TestRoute(TransportSuite):
    @contextlib.contextmanager
    def open(self, behaviour: Behaviour, only: Sequence[str]) -> Iterator[Rig]:
        far = FarSide(behaviour, only)
        transport = RouteTransport(closed(), domains={"example.org": Faithful(far)})
        yield Rig(transport=transport, taken=lambda: far.taken, recover=far.recover, secrets=[SECRET])
