"""What a transport was told in confidence stays with it."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

from outbox.errors import RelayFault
from outbox.outcome import Outcome

from .scene import Behaviour, Clauses, Lead, Rig, told

__all__ = ["HideClauses"]


class HideClauses(Clauses):
    """No secret is in an outcome or its dialogue, in a fault, in what it was raised from, in a repr, or in the log."""

    def test_no_secret_is_told_though_the_server_repeats_it(self, lead: Lead) -> None:
        self._tells_none(lead(Behaviour.ECHOES))

    def test_no_secret_is_told_though_a_server_that_let_us_in_repeats_it(self, lead: Lead) -> None:
        self._tells_none(lead(Behaviour.ECHOES_LATER))

    def test_no_secret_is_told_of_a_delivery(self, lead: Lead) -> None:
        self._tells_none(lead(Behaviour.TAKES))

    def test_no_secret_is_told_of_a_fault(self, lead: Lead) -> None:
        self._tells_none(lead(Behaviour.FORBIDS))

    def _tells_none(self, rig: Rig) -> None:
        self.require_secrets(rig)
        with _logging() as log:
            report = told(rig, self.message("a"))
        shown = [repr(rig.transport), repr(report), log.getvalue()]
        if isinstance(report, Outcome):
            shown.append(report.dialogue)
        shown += [text for error in _errors(report) for text in (str(error), repr(error), repr(vars(error)))]
        assert not [secret for secret in rig.secrets for text in shown if secret in text]


@contextlib.contextmanager
def _logging() -> Iterator[io.StringIO]:
    """Write down all that is logged, whatever the level."""
    root, log = logging.getLogger(), io.StringIO()
    handler, level = logging.StreamHandler(log), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield log
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def _errors(report: Outcome | RelayFault) -> Iterator[BaseException]:
    error: BaseException | None = report.fault if isinstance(report, Outcome) else report
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
