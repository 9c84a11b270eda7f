"""docs/configuration.md names every setting as the code has it, and its example is a file that can be used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from outbox.cli.parser import COMMANDS, parse
from outbox.cli.settings import overruling
from outbox.locate import KEYS, Config, Key, leaves, toml

TEXT: Final = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text("utf-8")


def row(key: Key) -> str:
    """One of the reference."""
    also = [f"`{option}`" for option in key.options] + ([f"`${key.variable}`"] if key.variable else [])
    defaults = [toml(value) for place, value in leaves(Config(), key.name) if place == (key.name,)]
    default = "" if not defaults or defaults[0] in (None, "[]") else f"`{defaults[0]}`"
    words = key.help.partition(" (default")[0]
    if key.within:
        words += f". Holds {', '.join(f'`{name}`' for name in key.within)}"
    if key.at_start:
        words += " †"
    cells = (f"`{key.name}`", ", ".join(also), key.takes, default, words)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def rows() -> Iterator[str]:
    yield from map(row, KEYS.values())


def test_the_reference_has_a_row_for_every_key_as_the_code_has_it() -> None:
    assert [line for line in TEXT.splitlines() if line.startswith("| `")] == list(rows())


def test_every_option_that_the_reference_names_is_one_of_outbox_config_and_is_read_as_its_key() -> None:
    texts = {"queues": "mail", "workers": "2", "processes": "2", "domain": "a.example", "metrics": "h:1"}
    for name, key in KEYS.items():
        for option in key.options:
            text = texts.get(name) or (key.choices[0] if key.choices else "5s")
            said = [option] if key.const is not None else [option, text]
            assert getattr(parse(["config", *said]).options, name) is not None


ASKED_FOR_MORE: Final = {"demo", "show", "explain", "send-test", "pause", "resume"}


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - ASKED_FOR_MORE))
def test_an_option_that_nobody_says_overrules_no_setting(command: str) -> None:
    options = parse([command]).options
    assert not overruling(options, Config())


def test_the_example_can_be_used_and_says_every_key(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```toml\n(# /etc/outbox.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    (tmp_path / "outbox.toml").write_text(example, "utf-8")
    config = Config.load(tmp_path / "outbox.toml", environ={})
    unsaid = {name for name in KEYS if getattr(config, name) == getattr(Config(), name)}
    assert unsaid <= {"token_file"}
