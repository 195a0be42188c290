"""Proofs by words of one step of a longer argument: they earn `proved_within`, not `proved`.

A theorem on T steps, or a limit, is more than the inequality of one step that carries it; what is left (a sum, a
mean, a product over steps) is said in the reading's scope, and no certificate covers it. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass

from theory.claim import Json
from theory.evidence import Context, WordProof


@dataclass(frozen=True)
class StepProof(WordProof):
    """A proof for every dimension of the step that a reading's scope names."""

    def establish(self, context: Context) -> tuple[str, Json]:
        """Check the proof as `WordProof` does; the status is `proved_within`."""
        _, certificate = super().establish(context)
        return "proved_within", certificate
