"""Messages in one Redis server: for many machines, as durable as that server is set up to be."""

from .store import RedisStore

__all__ = ["RedisStore"]
