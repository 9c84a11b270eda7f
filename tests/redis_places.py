"""Stores in the Redis server that the tests share: one a path, as the tests of the stores with files have them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from redis_server import shared_url

from outbox.stores.redis import RedisStore

__all__ = ["open_redis"]


def open_redis(path: Path | str, **settings: Any) -> RedisStore:
    """The store of this path: a prefix of its own."""
    prefix = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return RedisStore(shared_url(), prefix=prefix, **settings)
