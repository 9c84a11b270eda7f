"""Messages in PostgreSQL: for many machines, and for the transaction that the application has open anyway."""

from .store import PostgresStore

__all__ = ["PostgresStore"]
