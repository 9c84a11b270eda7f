"""What docs/test-your-mail.md shows is so: its examples run, and its suite passes and can fail."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, get_args

import pytest
from suite_runs import failures, pytest_in
from test_docs import ROOT, Block, blocks

from outbox.testing.smtp_script import Step

PAGE: Final = ROOT / "docs" / "test-your-mail.md"
TEXT: Final = PAGE.read_text(encoding="utf-8")
EXAMPLES: Final = [block for block in blocks(PAGE, TEXT) if block.language == "python"]
(SUITE,) = (block for block in EXAMPLES if block.code.startswith("# test_"))


@pytest.mark.parametrize("example", [each for each in EXAMPLES if each is not SUITE], ids=str)
def test_an_example_does_what_it_says(example: Block) -> None:
    bound: dict[str, Any] = {}
    exec(compile(example.code, str(example), "exec", dont_inherit=True), bound)
    for name in ("outbox", "transport"):
        if name in bound:
            bound[name].close()


def test_the_suite_of_the_page_passes(tmp_path: Path) -> None:
    (tmp_path / "test_pigeon.py").write_text(SUITE.code)
    run = pytest_in(tmp_path)

    assert re.search(r"^\d\d passed, \d\d skipped", run, re.MULTILINE), run


def test_broken_as_the_page_says_it_goes_red(tmp_path: Path) -> None:
    broken = SUITE.code.replace("for each in recipients}", "for each in message.recipients}")
    assert broken != SUITE.code
    (tmp_path / "test_pigeon.py").write_text(broken)

    assert "test_only_those_asked_for_are_handed_over" in failures(pytest_in(tmp_path))["PigeonTransport"]


def test_every_step_is_named() -> None:
    named = set(re.findall(r"`(\w+)`", TEXT[TEXT.index("`on` says what") : TEXT.index("`behave()`")]))

    assert named == {"on", *get_args(Step)}
