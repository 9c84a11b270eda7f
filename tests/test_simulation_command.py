"""The command that simulates: what it is asked, what it tells, and how a long run is gone on with."""

import json
from pathlib import Path

import pytest
from mutants import drop_the_token_check

from outbox.testing import simulation
from outbox.testing.simulation.__main__ import main


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seeds", "abc"],
        ["--seeds", "-3"],
        ["--seeds", "1,2"],
        ["--seeds", "5-2"],
        ["--seeds", "0--2"],
        ["--processes", "0"],
        ["--trace"],
        ["--least"],
        ["--seed", "1", "--seeds", "1-2"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_refused_in_words(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_a_run_is_gone_on_with_where_it_was_ended_and_adds_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.jsonl"
    main(["--seeds", "0-2", "--results", str(results), "--processes", "1"])
    # As a kill leaves it, in the middle of a line.
    results.write_text(results.read_text(encoding="utf-8") + '\n{"first": 50, "la', encoding="utf-8")
    capsys.readouterr()
    main(["--seeds", "0-2", "--results", str(results), "--processes", "1", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert simulation.Tally.of_json(json.dumps(told)) == simulation.run_seeds(range(3))
    assert (told["first"], told["last"], told["seeds"]) == (0, 2, 3)
    assert results.read_text(encoding="utf-8").count('"first": 0') == 1


def test_tallies_add_up_to_that_of_all() -> None:
    assert simulation.run_seeds([3]) + simulation.run_seeds([4]) == simulation.run_seeds([3, 4])


def test_the_least_world_can_be_seen_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drop_the_token_check(monkeypatch)
    seed = simulation.first_broken(range(300))
    assert main(["--seed", str(seed), "--least", "--trace"]) == 1
    told = capsys.readouterr().out
    assert told.index("BROKEN: 6: ") < told.index("the least world")
    assert "lease " in told
