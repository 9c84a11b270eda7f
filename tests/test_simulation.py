"""Two thousand worlds in which everything fails that can, and no promise is broken in any of them."""

from itertools import chain

import pytest
from mutants import MUTANTS, Mutant, drop_the_token_check

from outbox.testing import simulation

BLOCK = 50
ENOUGH = 300
WITH_A_HOOK = (204, 267)


@pytest.mark.parametrize("first", range(0, 2000, BLOCK))
def test_no_promise_is_broken_whatever_fails(first: int) -> None:
    tally = simulation.run_seeds(range(first, first + BLOCK))
    assert tally.seeds == BLOCK
    assert not tally.broken, "\n\n".join(map(simulation.failure, tally.broken))


def test_a_world_is_the_same_each_time() -> None:
    assert simulation.traced(7) == simulation.traced(7)


def test_every_kind_of_fault_is_met_and_every_named_cause_of_a_second_copy() -> None:
    tally = simulation.run_seeds([*range(100), *WITH_A_HOOK])
    assert set(simulation.FAULTS) <= set(tally.faults)
    assert {f"suspend {kind}" for kind in ("queue", "relay", "domain", "attribute")} <= set(tally.faults)
    assert {"killed", "uncertain attempt", "lease lost while held up"} <= set(tally.again)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_rule_that_is_broken_is_seen(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.breaking(monkeypatch)
    # The one that has seen it before comes first: it is found there, unless the worlds have changed.
    seen = simulation.first_broken(chain([mutant.seed], range(ENOUGH)))
    assert seen is not None, f"{mutant.name}: nobody would see it"


def test_a_broken_seed_says_how_to_see_it_again_in_the_least_world(monkeypatch: pytest.MonkeyPatch) -> None:
    drop_the_token_check(monkeypatch)
    seed = simulation.first_broken(range(ENOUGH))
    assert seed is not None
    told = simulation.failure(seed)
    assert f"python -m outbox.testing.simulation --seed {seed} --least --trace" in told
    trace = told.partition("what happened in it:")[2]
    assert "BROKEN: 6: " in trace
    assert len(trace.splitlines()) < len(simulation.traced(seed)) / 3
    assert "BROKEN: 6: " in str(simulation.traced(seed, least=True))
