"""A deterministic simulation: whole worlds in one thread, drawn from a seed, in which everything fails that can."""

from __future__ import annotations

from .scenario import FAULTS, Scenario, drawn
from .seeds import Tally, failure, first_broken, run_seeds, traced
from .witness import Violation
from .world import Line, Result, simulate

__all__ = [
    "FAULTS",
    "Line",
    "Result",
    "Scenario",
    "Tally",
    "Violation",
    "drawn",
    "failure",
    "first_broken",
    "run_seeds",
    "simulate",
    "traced",
]
