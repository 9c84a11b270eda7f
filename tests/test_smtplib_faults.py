"""The table of decision 001 is so: what smtplib reports, what outbox reports, and what the receiver has."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

import pytest
from test_docs import ROOT

PAGE: Final = ROOT / "docs" / "decisions" / "001-why-not-plain-smtplib.md"
SCRIPT: Final = ROOT / "benchmarks" / "smtplib_faults.py"
_LINE: Final = re.compile(
    r"^\| (?!what happens|---)(.+?) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE
)


def load() -> Any:
    spec = importlib.util.spec_from_file_location("smtplib_faults", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["smtplib_faults"] = module
    spec.loader.exec_module(module)
    return module


FAULTS: Final = load()
TABLE: Final = {row[0]: row[1:] for row in _LINE.findall(PAGE.read_text(encoding="utf-8"))}

OTHERWISE: Final[Mapping[str, set[tuple[str, str]]]] = {}
"""By fault: what smtplib reports, and the receiver has, with some other version of Python."""


@pytest.mark.parametrize("fault", FAULTS.FAULTS, ids=lambda fault: fault.name)
def test_a_line_of_the_table_is_so(fault: Any) -> None:
    row = fault.row()
    plain, there, ours, there_too = TABLE[fault.name]

    assert (row.outbox, row.there_too) == (ours, there_too)
    assert (row.smtplib, row.there) in {(plain, there), *OTHERWISE.get(fault.name, ())}


def test_the_table_has_every_fault_in_its_order_and_no_other() -> None:
    assert list(TABLE) == [fault.name for fault in FAULTS.FAULTS]
    assert len(TABLE) >= 20


def test_wherever_smtplib_is_wrong_outbox_is_not() -> None:
    """Whom outbox calls accepted the receiver has; whom it calls anything but uncertain otherwise it has not."""
    for name, (_, _, ours, there) in TABLE.items():
        for words in re.findall(r"([\w ]+?) (Accepted|TempFailed|PermFailed)", ours):
            for who in words[0].split(" and "):
                assert (f"for {who.strip()}" in there or f"and {who.strip()}" in there) == (
                    words[1] == "Accepted"
                ), name
