"""The line of each entry of a configuration: of the file as it is written, at the cost of reading it once or twice."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outbox.errors import ConfigurationError
from outbox.locate import Config
from outbox.locate.toml_file import TomlFile, _lines, _places

ODD = (
    r'''# a comment = [ " '

workers = 3 # ] """
"a key = [" = 1
'and # another'.x = "a # [ \" b"
words = """ [ # "" \""" \\
 = 3
# no comment
""""
more = """a"""""
raw = '''
    "'''"
    r""" [ \
x = 1"""
    "''''"
    r"""
list = [ # a note ]
  1,

  [ 2, "]", ']' ],
  { y = "[" },
]
inline = { a = { b = [ 1, 2 ] }, c = "" }
dotted.one.x = 1
dotted.two = 2
empty = ''

[ retry . queues ]
# nothing
"mail.[bulk]" = { attempts = 3 }

[[rules]]
pattern = "4"
[rules.of]
relay = "*"
[[rules.parts]]
x = 1
[[rules.parts]]
x = [
 2]
[[rules]]

[rules.of]
relay = "?"
[[rules.parts]]
[rules.parts.deep]
z = 1
[dates]
at = 1979-05-27T07:32:00Z"""
)


def by_reading_ever_more(text: str) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """An entry begins behind the last part of the file that is TOML without it."""
    lines, seen, begin = text.split("\n"), set[Any](), 1
    for number in range(1, len(lines) + 1):
        if begin == number and not lines[number - 1].partition("#")[0].strip():
            begin = number + 1
            continue
        try:
            table = tomllib.loads("\n".join(lines[:number]))
        except tomllib.TOMLDecodeError:
            continue
        for place in _places(table):
            if place not in seen:
                seen.add(place)
                yield place, begin
        begin = number + 1


@pytest.mark.parametrize("end", ["", "\n", "\n\n# the end"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_every_entry_has_the_line_where_it_begins(ends: str, end: str) -> None:
    text = (ODD + end).replace("\n", ends)

    lines = dict(TomlFile(Path("c.toml"), text).lines())

    assert lines == dict(by_reading_ever_more(ODD + end))
    assert {"rules", "dates", "inline"} < {place[0] for place in lines}
    assert lines["rules", 1, "parts", 0, "deep", "z"] == text.split(ends).index("z = 1") + 1


def test_no_part_of_a_long_file_is_read_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "".join(f"key{n} = [\n{n},\n]\n" for n in range(500)) + "[table]\n" + "x = [\n" + "1,\n" * 500 + "]"
    )
    loads, read = tomllib.loads, 0

    def counted(part: str) -> Any:
        nonlocal read
        read += len(part)
        return loads(part)

    monkeypatch.setattr(tomllib, "loads", counted)

    assert dict(_lines(text))["table", "x"] == 1502
    assert read <= 2 * len(text)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_each_wrong_key_has_its_own_line_whatever_ends_the_lines(tmp_path: Path, ends: str) -> None:
    text = '\n# ours\nworkers = 3\nqueues = [\n  "mail"]\nwrokers = 3\n\n\nstroe = "memory:"\n'
    (tmp_path / "c.toml").write_bytes(text.replace("\n", ends).encode())

    with pytest.raises(ConfigurationError) as caught:
        Config.load(tmp_path / "c.toml", environ={})
    wrong = TomlFile.read(tmp_path / "c.toml", {}).wrong

    assert "c.toml:6: unknown key 'wrokers'" in str(caught.value)
    assert [str(each).split(":")[1] for each in wrong] == ["3", "4", "6", "9"]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["bare", "marked"])
def test_an_entry_without_an_end_has_the_line_where_it_begins(tmp_path: Path, ends: str, mark: bytes) -> None:
    text = 'workers = 3\n\nqueues = [\n  "mail",\n'.replace("\n", ends)
    (tmp_path / "c.toml").write_bytes(mark + text.encode())

    with pytest.raises(ConfigurationError, match=r"c\.toml:3: the file is not TOML: queues: "):
        Config.load(tmp_path / "c.toml", environ={})
