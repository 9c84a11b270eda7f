"""Plug-ins for the tests: modules in a folder of their own, and the metadata of a distribution that was installed there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

STORE: Final = """
class Store:
    def __init__(self, *told, **terms): self.told, self.terms, self.closed = told, terms, False
    def put(self, messages, /): return []
    def claim(self, **order): return []
    def extend(self, claims, /, *, lease): return []
    def settle(self, settlements, /): return []
    def close(self): self.closed = True

class Transport:
    def __init__(self, *told, **terms): self.told, self.terms = told, terms
    def deliver(self, message, recipients, /): raise NotImplementedError
    def close(self): pass
"""


def install(folder: Path, name: str, *entry_points: str, kind: str = "stores", version: str = "1.0") -> None:
    """Leave in *folder* what an installer leaves of the distribution *name* with these entry points."""
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8")
    lines = "\n".join(entry_points)
    (metadata / "entry_points.txt").write_text(f"[outbox.{kind}]\n{lines}\n", "utf-8")
