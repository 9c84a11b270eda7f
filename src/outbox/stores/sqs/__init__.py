"""Messages in Amazon SQS: a queue that somebody else keeps, and that promises less; see docs/sqs.md."""

from .blobs import Blobs, DirectoryBlobs, S3Blobs
from .store import SQSStore

__all__ = ["Blobs", "DirectoryBlobs", "S3Blobs", "SQSStore"]
