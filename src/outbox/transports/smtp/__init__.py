"""Mail out, over SMTP: ``from outbox.transports.smtp import SMTPTransport``.

The dialogue is our own.  What is said and how an answer is judged
(:mod:`.reply`, :mod:`.opening`, :mod:`.transaction`) stands apart from
sockets, deadlines and reuse (:mod:`.connection`, :mod:`.pool`): the former
are generators that yield what to do and are sent what came of it.
:mod:`.batch` takes messages through them, one after the other.
"""

from .dsn import DSN
from .steps import Timeouts
from .transport import SMTPTransport

__all__ = ["DSN", "SMTPTransport", "Timeouts"]
