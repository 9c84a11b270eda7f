"""Mail in: an ``email`` message or its bytes become a :class:`~outbox.Message`, wire bytes fixed once.

Lines and fields (:mod:`.wire`) and what a value must not hold
(:mod:`.hidden`) are judged on bytes, without the ``email`` package; an
object of that package is first written out (:mod:`.writing`) and then goes
the way of all bytes (:mod:`.reading`).  What a connection cannot carry of them
is said otherwise where that loses nothing (:mod:`.downgrade`).
"""

from .reading import from_email, is_8bit, needs_smtputf8

__all__ = ["from_email", "is_8bit", "needs_smtputf8"]
