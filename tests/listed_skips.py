"""A store skips no clause of the suite but those on its list, and none is on the list that it holds."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

import pytest

from outbox.testing import StoreSuite

STORED: Final = Path(__file__).parent / "stored"


class ListedSkips:
    """For a StoreSuite; *skipped* is the file in ``tests/stored`` that has the list."""

    skipped: ClassVar[str]

    @pytest.fixture(autouse=True)
    def skips_what_is_listed_and_nothing_else(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[None]:
        name = request.function.__name__
        reasons: list[str] = []
        skip = pytest.skip

        def listed(reason: str) -> None:
            if name not in listed_in(self.skipped):
                pytest.fail(f"{name} is skipped, and is not in tests/stored/{self.skipped}: {reason}")
            reasons.append(reason)
            skip(reason)

        with monkeypatch.context() as patched:
            patched.setattr(pytest, "skip", listed)
            yield
        if name in listed_in(self.skipped) and not reasons:
            pytest.fail(f"{name} is held, and is in tests/stored/{self.skipped}: take it from there")


def listed_in(file: str) -> frozenset[str]:
    return frozenset((STORED / file).read_text().split())


def clauses() -> frozenset[str]:
    return frozenset(name for name, _ in inspect.getmembers(StoreSuite, inspect.isfunction))
