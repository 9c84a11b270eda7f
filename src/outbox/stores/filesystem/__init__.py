"""Messages as files in a directory: durable on one machine, readable with ``ls`` and ``cat``, nothing to install."""

from .store import FilesystemStore

__all__ = ["FilesystemStore"]
