"""Whatever happens to the server, to connections, clocks and runners: nothing is lost, and nothing goes twice without a cause."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_faults import LONG, Scene
from redis_server import Server, started

KILLS = 10 if LONG else 3


@pytest.fixture
def server() -> Iterator[Server]:
    with started("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def scene(server: Server, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(server, tmp_path)
    yield scene
    scene.end()


def test_a_server_that_is_killed_and_started_again_loses_nothing(scene: Scene) -> None:
    """The clocks of two runners are five minutes wrong meanwhile: only the server's counts."""

    def kill(_: int) -> None:
        scene.server.kill()
        scene.server.start()

    with scene.submitting():
        scene.strike(KILLS, kill)

    scene.require_all_delivered_once_or_explained()


def test_connections_that_are_killed_and_scripts_that_are_forgotten_lose_nothing(scene: Scene) -> None:
    def cut(client: Any) -> None:
        scene.cut_some(client)
        client.script_flush()

    with scene.submitting():
        scene.strike(5 * KILLS, lambda _: scene.client(cut))

    scene.require_all_delivered_once_or_explained()


def test_runners_that_are_killed_and_stopped_past_their_leases_lose_nothing(scene: Scene) -> None:
    def strike(number: int) -> None:
        if number % 2:
            scene.stop_past_its_lease(number)
        else:
            scene.replace(number)

    with scene.submitting():
        scene.strike(KILLS + 1, strike)

    scene.require_all_delivered_once_or_explained()
