"""What every exception of the tree promises about its own words."""

import pickle

import pytest

from outbox.errors import RelayFault, RelayMisconfigured, RelayUnavailable


@pytest.mark.parametrize("kind", [RelayUnavailable, RelayMisconfigured])
def test_a_server_s_words_in_a_relay_fault_cannot_forge_a_log_line(kind: type[RelayFault]) -> None:
    fault = kind("mx:25", "554 go\r\nERROR root: \x1b[2Jall is well \u202e" + "x" * 5000)

    assert str(fault).isprintable()
    assert len(str(fault)) <= 1024
    assert str(fault).startswith(r"mx:25: 554 go\r\nERROR")


def test_a_relay_fault_survives_the_way_between_processes() -> None:
    fault = pickle.loads(pickle.dumps(RelayUnavailable("mx:25", "refused")))

    assert (fault.relay, fault.reason, str(fault)) == ("mx:25", "refused", "mx:25: refused")
