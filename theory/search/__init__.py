"""The falsifier: looks for counterexamples, shrinks and certifies them, or says how hard it looked.

Nothing in this package is trusted: what it finds is decided again by the exact kit of the standard library.
"""

from theory.search.beyond import widen
from theory.search.engine import DEFAULT_BUDGET, falsify
from theory.search.exhaust import exhaust
from theory.search.report import SearchReport

__all__ = ["DEFAULT_BUDGET", "SearchReport", "exhaust", "falsify", "widen"]
