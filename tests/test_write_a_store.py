"""The store of docs/write-a-store.md is what the page says: proven by the suite, used by the commands, found by its scheme."""

from __future__ import annotations

import ast
import datetime as dt
import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from pages import files_of, imported, saved
from plug_ins import install
from test_docs import ROOT, blocks

from outbox import AmbiguousPut, CorruptRecord, Message, StoreUnavailable
from outbox.testing.smtp_sink import SMTPSink

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the page's store is for POSIX systems")

PAGE: Final = ROOT / "docs" / "write-a-store.md"
REFERENCE: Final = ROOT / "docs" / "reference.md"
BLOCKS: Final = list(blocks(PAGE, PAGE.read_text(encoding="utf-8")))
FILES: Final = files_of(BLOCKS)
STORE: Final = "journal_store.py"
LEASE: Final = dt.timedelta(minutes=5)
MAY_BE_SKIPPED: Final = re.compile(
    r"this store (is not Supports\w+|lacks the guarantee of order|does not know the setting \w+)"
)


def only(language: str) -> str:
    (block,) = (block for block in BLOCKS if block.language == language)
    return block.code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the page, as a reader has saved them."""
    return saved(FILES, tmp_path / "page")


@pytest.fixture
def journal_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with imported("journal_store", folder, monkeypatch) as module:
        yield module


def environment(**variables: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
    return {**clean, **variables}


def pytest_in(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *options]
    return subprocess.run(
        [*command, "--rootdir", str(folder), "test_journal_store.py"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def shell(script: str, folder: Path, **variables: str) -> str:
    """What *script* prints, where ``outbox`` is the command; nothing of this machine's configuration is seen."""
    (folder / "empty.toml").touch()
    command = f'outbox() {{ {shlex.quote(sys.executable)} -m outbox "$@"; }}\n{script}'
    ran = subprocess.run(
        ["sh", "-euc", command],
        cwd=folder,
        env=environment(OUTBOX_CONFIG=str(folder / "empty.toml"), **variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


# -- proven


def test_the_store_of_the_page_keeps_every_clause_that_it_does_not_excuse_itself_from(folder: Path) -> None:
    run = pytest_in(folder, "-rs")

    assert run.returncode == 0, run.stdout
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed, run.stdout
    assert int(passed[1]) >= 90
    skipped = re.findall(r"^SKIPPED .*?: (this store .*|.*)$", run.stdout, re.MULTILINE)
    assert skipped
    assert not [reason for reason in skipped if not MAY_BE_SKIPPED.fullmatch(reason)]


@pytest.mark.parametrize(
    ("sound", "broken", "clause"),
    [
        (" and row.token == claim.token", "", "test_every_verb_that_takes_a_claim_refuses_a_stale_one"),
        # What is seen only where two meet is made to last, so that they meet every time.
        (
            "fcntl.LOCK_EX)\n                self._read()\n",
            "fcntl.LOCK_SH)\n                self._read()\n                threading.Event().wait(0.02)\n",
            "test_processes_claim_disjointly_and_each_message_is_settled_once",
        ),
        ("self._turns.sort(", "list(", "test_one_at_a_time_the_queues_take_turns"),
        ("if m.id in self._rows", "if m.id in self._lines.get(m.queue, ())", "test_an_id_is_known_however"),
        # A count of the object's own, and a turn that is let go between the choice and the lease.
        ("secrets.token_hex(8)", "str(self._turns._taken)", "test_a_token_of_one_object_fits_no_claim_of"),
        (
            "            self._write(rows)\n            return [standings.claim",
            (
                "        threading.Event().wait(0.02)\n        with self._turn() as now:\n"
                "            self._write(rows)\n            return [standings.claim"
            ),
            "test_threads_that_claim_at_once_are_given_different_messages",
        ),
    ],
)
def test_the_suite_on_the_page_goes_red_where_the_store_is_broken(
    folder: Path, sound: str, broken: str, clause: str
) -> None:
    code = FILES[STORE]
    assert code.count(sound) == 1
    (folder / STORE).write_text(code.replace(sound, broken), "utf-8")

    run = pytest_in(folder, "--tb=no", "-k", clause)

    assert f"::{clause}" in run.stdout
    assert "1 failed" in run.stdout


def test_the_machine_of_the_page_finds_nothing_in_its_store(
    journal_store: Any,
) -> None:
    machine = importlib.import_module("test_journal_machine").JournalMachine
    del sys.modules["test_journal_machine"]

    run_state_machine_as_test(
        machine, settings=settings(max_examples=25, stateful_step_count=30, deadline=None, database=None)
    )


def test_the_page_is_an_afternoon() -> None:
    """150 lines beside its imports, and six to prove it."""
    tree = ast.parse(FILES[STORE])
    imported = sum(
        (node.end_lineno or 0) - node.lineno + 1
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
    )

    assert sum(bool(line.strip()) for line in FILES[STORE].splitlines()) - imported <= 150
    assert sum(bool(line.strip()) for line in FILES["test_journal_store.py"].splitlines()[1:]) <= 6


# -- durable


def mail(id: str) -> Message:
    return Message(id=id, recipients=("ann@example.org",), content=b"Hello.\r\n" * 9)


def claimed(journal_store: Any, path: Path) -> list[str]:
    store = journal_store.JournalStore(path)
    try:
        claims = store.claim(limit=10, lease=LEASE, queues=["mail"])
        return [claim.message.id for claim in claims]
    finally:
        store.close()


def test_wherever_a_crash_cuts_the_last_line_what_was_told_before_is_there_and_nothing_else(
    journal_store: Any, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    store = journal_store.JournalStore(path)
    store.put([mail("a")])
    whole = path.stat().st_size
    store.put([mail("b"), mail("c")])
    store.close()
    data = path.read_bytes()
    for cut in range(whole, len(data)):
        path.write_bytes(data[:cut])
        assert claimed(journal_store, path) == ["a"], cut
        # And the line that the claim wrote does not stick to what was cut off.
        assert claimed(journal_store, path) == [], cut


def test_damage_in_the_journal_is_an_error_and_drops_nothing(journal_store: Any, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    store = journal_store.JournalStore(path)
    store.put([mail("a")])
    store.put([mail("b")])
    store.close()
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)

    with pytest.raises(CorruptRecord, match="byte 0"):
        claimed(journal_store, path)
    assert path.read_bytes() == data


def test_what_cannot_be_synced_is_ambiguous_and_the_same_put_again_stores_it_once(
    journal_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = journal_store.JournalStore(tmp_path / "journal")
    store.put([mail("a")])

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(AmbiguousPut, match="Input/output error"):
            store.put([mail("b")])
    assert [result.status for result in store.put([mail("b")])] == ["stored"]
    store.close()
    assert claimed(journal_store, tmp_path / "journal") == ["a", "b"]


def test_what_another_wrote_and_did_not_sync_is_synced_before_it_is_known(
    journal_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, other = (journal_store.JournalStore(tmp_path / "journal") for _ in range(2))
    other.put([mail("a")])
    synced: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", synced.append)
        assert [result.status for result in ours.put([mail("a")])] == ["known"]
    assert synced
    ours.close()
    other.close()


def test_a_journal_that_was_removed_takes_no_more(journal_store: Any, tmp_path: Path) -> None:
    store = journal_store.JournalStore(tmp_path / "journal")
    (tmp_path / "journal").unlink()

    with pytest.raises(StoreUnavailable, match="removed"):
        store.put([mail("a")])
    store.close()


def test_nobody_else_may_read_the_journal(journal_store: Any, tmp_path: Path) -> None:
    journal_store.JournalStore(tmp_path / "journal").close()

    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


# -- used


def test_the_commands_of_the_page_send_a_mail(folder: Path) -> None:
    with SMTPSink() as sink:
        script = only("sh").replace("smtp://localhost:2525", sink.url)
        assert sink.url in script
        said = shell(script, folder)
        (received,) = sink.messages

    assert "the store does not promise order" in said
    assert received.recipients == ("ann@example.org",)
    assert b"Subject: hello" in received.content
    assert (folder / "mail.journal").exists()


def entry_points() -> Mapping[str, str]:
    (points,) = (group for _, group in tomllib.loads(only("toml"))["project"]["entry-points"].items())
    return {str(name): str(value) for name, value in points.items()}


def test_the_entry_point_of_the_page_gives_the_commands_its_scheme(folder: Path, tmp_path: Path) -> None:
    install(folder, "journal-outbox", *(f"{name} = {value}" for name, value in entry_points().items()))
    mail_file = "From: shop@example.org\\nTo: ann@example.org\\n\\nHi.\\n"
    with SMTPSink() as sink:
        shell(
            f"printf '{mail_file}' | outbox submit -t; outbox drain",
            folder,
            PYTHONPATH=str(folder),
            OUTBOX_STORE=f"journal://{tmp_path}/a%20journal",
            OUTBOX_TRANSPORT=sink.url,
        )
        (received,) = sink.messages

    assert received.recipients == ("ann@example.org",)
    assert (tmp_path / "a journal").exists()


def test_the_project_of_the_page_can_be_built_and_brings_its_scheme(folder: Path, tmp_path: Path) -> None:
    """By setuptools itself, as a wheel is built: it finds both modules, and the entry point."""
    pytest.importorskip("setuptools", "61", reason="the project of the page is built by setuptools")
    (folder / "pyproject.toml").write_text(only("toml"), "utf-8")
    site = tmp_path / "site"
    site.mkdir()
    build = "import setuptools; setuptools.setup()"
    command = [sys.executable, "-W", "ignore", "-c", build, "-q", "build_py", "--build-lib", str(site)]
    subprocess.run(
        [*command, "egg_info", "--egg-base", str(site)], cwd=folder, check=True, capture_output=True
    )

    assert {path.name for path in site.glob("*.py")} == {"journal_store.py", "journal_plugin.py"}
    said = shell(
        "outbox check || true",
        tmp_path,
        PYTHONPATH=str(site),
        OUTBOX_STORE=f"journal://{tmp_path}/none",
        OUTBOX_TRANSPORT="smtp://localhost",
    )
    assert "there is no journal" in said


def test_a_command_that_only_looks_makes_no_journal_by_its_scheme(folder: Path, tmp_path: Path) -> None:
    install(folder, "journal-outbox", *(f"{name} = {value}" for name, value in entry_points().items()))

    said = shell(
        "outbox check || true",
        folder,
        PYTHONPATH=str(folder),
        OUTBOX_STORE=f"journal://{tmp_path}/none",
    )

    assert "there is no journal" in said
    assert not (tmp_path / "none").exists()


# -- public


def documented() -> dict[str, set[str]]:
    """The names for whoever writes a store, by module, as the reference lists them."""
    _, _, rest = REFERENCE.read_text(encoding="utf-8").partition("## For whoever writes a store\n")
    section = rest[: rest.index("\n## ")]
    rows = re.findall(r"^\| `(outbox\.[\w.]+)` \| (.+) \|$", section, re.MULTILINE)
    return {module: set(re.findall(r"`(\w+)`", names)) for module, names in rows}


def test_what_the_reference_gives_to_whoever_writes_a_store_is_there() -> None:
    found = documented()

    assert {"outbox.stores.standing", "outbox.stores.selection", "outbox.stores.intake"} <= set(found)
    for module, names in found.items():
        exported = set(importlib.import_module(module).__all__)
        assert names <= exported, module
        # Of these modules all is public; the others have more than a store needs.
        assert not module.startswith("outbox.stores.") or names == exported, module


def test_the_page_uses_public_names_only() -> None:
    public = documented()
    for name, code in FILES.items():
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("outbox."):
                module = importlib.import_module(node.module or "")
                names = {alias.name for alias in node.names}
                inside = module.__name__.startswith("outbox.stores.")
                allowed = public.get(
                    module.__name__, set() if inside else set(getattr(module, "__all__", ()))
                )
                allowed |= {each.rpartition(".")[2] for each in public if module.__name__ == "outbox.stores"}
                assert names <= allowed | {"MAX_BYTES"}, f"{name}: {module.__name__}"
