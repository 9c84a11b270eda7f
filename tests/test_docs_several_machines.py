"""What docs/several-machines.md shows is so: its program submits to the store that its settings deliver from."""

from __future__ import annotations

import contextlib
import tomllib
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from postgres_places import Places
from psycopg.conninfo import conninfo_to_dict
from test_docs import ROOT, blocks

from outbox import Message
from outbox.locate import store_from_url
from outbox.testing.clauses.scene import ids, take

PAGE: Final = ROOT / "docs" / "several-machines.md"
BLOCKS: Final = list(blocks(PAGE, PAGE.read_text(encoding="utf-8")))
DSN: Final = "postgresql://shop@db.example.com/shop"
SCHEMA: Final = "mail"


def test_its_program_submits_to_the_store_of_its_settings(postgres: Places, place: Path) -> None:
    (settings,) = [tomllib.loads(block.code) for block in BLOCKS if block.language == "ini"]
    (program,) = [block.code for block in BLOCKS if block.language == "python"]
    assert settings["store"] == f"{DSN}?schema={SCHEMA}"
    assert f'"{DSN}", schema="{SCHEMA}"' in program

    schema = postgres.schema(place)
    said = {name: str(value) for name, value in conninfo_to_dict(postgres.dsn).items()}
    here = f"postgresql:///{said.pop('dbname')}?{urlencode(said)}"
    bound: dict[str, Any] = {}
    code = program.replace(DSN, here).replace(f'schema="{SCHEMA}"', f'schema="{schema}"')
    exec(compile(code, PAGE.name, "exec", dont_inherit=True), bound)
    with contextlib.closing(bound["outbox"]) as outbox:
        outbox.submit(Message(id="order-1", recipients=("ann@example.org",), content=b"x"))
    with contextlib.closing(store_from_url(f"{here}&schema={schema}", create=False)) as store:
        assert ids(take(store)) == ["order-1"]
