"""What the texts say is so: links lead somewhere, examples compile, commands are the ones there are."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest
from architecture import FLOORS

ROOT: Final = Path(__file__).parents[1]
TEXTS: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("changelog.d/*.md")])
TESTS_COMMAND: Final = "python3 -m venv .venv && .venv/bin/pip install nox && .venv/bin/nox -s tests"

_LINK: Final = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_REFERENCE: Final = re.compile(r"^\[[^\]]+\]:\s*<?(\S+?)>?\s*$", re.MULTILINE)
_CODE_SPAN: Final = re.compile(r"(`+).+?\1", re.DOTALL)
_FENCE: Final = re.compile(
    r"^ {0,3}(?P<mark>```+|~~~+) *(?P<language>[\w+-]*)[^\n]*\n(?P<code>.*?)^ {0,3}(?P=mark)",
    re.MULTILINE | re.DOTALL,
)
_HEADING: Final = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


@attrs.frozen
class Block:
    """A fenced block of a text; *line* is where its code begins."""

    path: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def program(self) -> str:
        """The code without the prompts and answers of an interactive session."""
        if not self.code.lstrip().startswith(">>>"):
            return self.code
        return "".join(example.source for example in doctest.DocTestParser().get_examples(self.code))


def blocks(path: Path, text: str) -> Iterator[Block]:
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        yield Block(path, line, match["language"].lower(), match["code"])


def links(text: str) -> set[str]:
    prose = _CODE_SPAN.sub("", _FENCE.sub("", text))
    return {*_LINK.findall(prose), *_REFERENCE.findall(prose)}


def anchors(text: str) -> set[str]:
    """The anchors of its headings, as the usual renderers make them."""
    headings = (
        re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", h) for h in _HEADING.findall(_FENCE.sub("", text))
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(link: str, text: str, folder: Path) -> str:
    """Why a relative link leads nowhere; ``""`` where it leads somewhere, or away from here."""
    if re.match(r"[a-z][a-z0-9+.-]*:", link):
        return ""
    target, _, anchor = link.partition("#")
    if target and not (folder / target).exists():
        return f"{link}: there is no such file"
    if target:
        text = (folder / target).read_text(encoding="utf-8") if target.endswith(".md") else ""
    known = not anchor or not (target.endswith(".md") or not target) or anchor in anchors(text)
    return "" if known else f"{link}: there is no such heading"


ALL_BLOCKS: Final = [block for path in TEXTS for block in blocks(path, path.read_text(encoding="utf-8"))]
PYTHON_BLOCKS: Final = [block for block in ALL_BLOCKS if block.language in {"python", "py", "pycon"}]


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", TEXTS, ids=by_name)
def test_relative_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert not [reason for link in sorted(links(text)) if (reason := broken(link, text, path.parent))]


@pytest.mark.parametrize("path", TEXTS, ids=by_name)
def test_every_fence_is_closed(path: Path) -> None:
    left = _FENCE.sub("", path.read_text(encoding="utf-8"))

    assert not re.search(r"^ {0,3}(```|~~~)", left, re.MULTILINE)


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=str)
def test_a_python_example_compiles(block: Block) -> None:
    compile(block.program, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=str)
def test_a_python_example_imports_names_that_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.program)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "outbox":
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert alias.name == "*" or hasattr(module, alias.name), f"{node.module} has no {alias.name}"


def readme_commands() -> list[str]:
    lines = [line for b in ALL_BLOCKS if b.path == ROOT / "README.md" for line in b.code.splitlines()]
    return [line.removeprefix("$ ").rstrip() for line in lines]


def test_the_readme_runs_the_tests_in_one_command() -> None:
    """.ci/run takes it from there and runs it as it stands."""
    assert [line for line in readme_commands() if "nox -s tests" in line] == [TESTS_COMMAND]


def test_the_readme_shows_the_demonstration_in_one_command() -> None:
    assert [line for line in readme_commands() if re.search(r"\boutbox demo$", line)]


def test_the_readme_and_the_guides_show_python() -> None:
    assert {"README.md"} <= {by_name(block.path) for block in PYTHON_BLOCKS}


def test_contributing_names_the_sessions_that_there_are() -> None:
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    sessions = {
        re.sub(r".*name='([^']+)'.*", r"\1", said) if "name=" in said else node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        for said in map(ast.unparse, node.decorator_list)
        if said.startswith("nox.session")
    }
    named = re.findall(r"nox -s ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))

    assert set(named) == sessions


def test_architecture_names_every_room_of_the_house() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = [
        path.stem for path in (ROOT / "src" / "outbox").iterdir() if path.suffix == ".py" or path.is_dir()
    ]
    drawn = [room for room in rooms if room != "__pycache__"]

    assert not [room for room in drawn if not re.search(rf"\b{room}(\.py|/)", text)]
    assert set(drawn) <= set().union(*FLOORS)


# --- the checks themselves ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "link",
    ["nowhere.md", "README.md#no-such-heading", "#no-such-heading", "docs/nowhere/", "../outside.md"],
)
def test_a_broken_link_is_found(link: str) -> None:
    assert broken(link, "# A heading\n", ROOT)


@pytest.mark.parametrize(
    "link",
    [
        "README.md",
        "#a-heading",
        "tests/test_docs.py",
        "docs",
        "https://example.org/x",
        "mailto:a@example.org",
    ],
)
def test_a_sound_link_is_not_blamed(link: str) -> None:
    assert not broken(link, "# A `heading`\n", ROOT)


def test_links_in_code_are_not_links() -> None:
    text = "[a](one.md) `[b](two.md)`\n\n```python\nf[c](three.md)\n```\n\n[d]: four.md\n"

    assert links(text) == {"one.md", "four.md"}


def test_blocks_are_found_with_their_language_and_line() -> None:
    text = "x\n\n```python\na = 1\n```\n\n~~~\n```\n~~~\n\n```pycon\n>>> b = 2\n>>> b\n2\n```\n"
    found = list(blocks(ROOT / "x.md", text))

    assert [(b.language, b.line, b.program) for b in found] == [
        ("python", 4, "a = 1\n"),
        ("", 8, "```\n"),
        ("pycon", 12, "b = 2\nb\n"),
    ]
