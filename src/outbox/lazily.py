"""A package's public names, each loaded where it is first asked for.

Who only looks (``outbox list``) loads nothing of what delivers, and who only
stores nothing of what sends; ``from outbox import Outbox`` is the same as ever.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["names_of"]


def names_of(package: str, where: Mapping[str, str]) -> Callable[[str], object]:
    """A module's ``__getattr__`` (PEP 562) for *package*.

    Args:
        where: The file of each public name, as an import within the package
            spells it.  The files themselves are names, too.
    """
    files = frozenset(where.values())

    def found(name: str) -> object:
        if f".{name}" in files:
            return import_module(f".{name}", package)
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        thing = getattr(import_module(where[name], package), name)
        # Kept, so that the next use costs what any other attribute does.
        setattr(sys.modules[package], name, thing)
        return thing

    return found
