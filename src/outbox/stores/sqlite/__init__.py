"""Messages in one SQLite file: durable on one machine, for many threads and processes, nothing to install."""

from .store import SQLiteStore

__all__ = ["SQLiteStore"]
