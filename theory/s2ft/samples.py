"""Sampled checks of the high-probability bounds of Appendix G: untrusted numbers behind `supported` readings.

A network with k tuned inputs of p, q outputs, Gaussian or sign inputs with covariance Sig, noise Se. For growing n
each bound's left side is divided by its printed right side without the unnamed constant; what is reported is the
largest ratio met. Nothing here proves anything.
"""

from __future__ import annotations

from functools import cache
from math import log
from typing import Any

from theory.claim import Json

WIDTHS = (4, 3, 3)  # p, k, q
COUNTS = (200, 800, 3200)
DRAWS = 60
CONSTANT = 4.0  # no ratio may exceed it
SPREADS = (1.0, 4.0, 16.0)  # condition numbers of the input covariance


@cache
def ratios() -> dict[str, dict[int, float]]:
    """Bound -> number of samples -> largest left/right over draws, condition numbers and laws."""
    import numpy as np

    rng = np.random.default_rng(7)
    p, k, q = WIDTHS
    worst: dict[str, dict[int, float]] = {}
    for spread in SPREADS:
        L, D, Phi = rng.standard_normal((k, p)), rng.standard_normal((q, p)), np.eye(q)[:, :2]
        Sig, Se = np.diag(np.geomspace(1.0, 1.0 / spread, p)), np.diag(np.geomspace(0.5, 0.1, q))
        for n in COUNTS:
            for draw in range(DRAWS):
                raw = rng.standard_normal((p, n)) if draw % 2 else rng.choice([-1.0, 1.0], (p, n))
                X, E = np.sqrt(Sig) @ raw, np.sqrt(Se) @ rng.standard_normal((q, n))
                for name, value in _one(np, L, D, Phi, Sig, Se, X, E).items():
                    row = worst.setdefault(name, {})
                    row[n] = max(row.get(n, 0.0), value)
    return worst


def _one(np: Any, L: Any, D: Any, Phi: Any, Sig: Any, Se: Any, X: Any, E: Any) -> dict[str, float]:
    """Left/right of each bound on one sample."""
    (p, n), q = X.shape, E.shape[0]

    def op(M: Any) -> float:
        return float(np.linalg.norm(M, 2))

    def root(S: Any) -> Any:
        w, v = np.linalg.eigh(S)
        return (v * np.sqrt(w)) @ v.T

    Sh, Dh = X @ X.T / n, D + E @ np.linalg.pinv(X)
    A2, Ah2 = L @ Sig @ L.T, L @ Sh @ L.T
    A, Ah, inv = root(A2), root(Ah2), np.linalg.inv
    low, kap, re = 1 / op(inv(A)), op(A) * op(inv(A)), np.trace(A2) / op(A2)
    DD, unit = D @ Sig @ D.T, log(n + p + q) / np.sqrt(n)

    def effective(S: Any) -> float:
        return float(np.trace(S) / op(S))

    noise = op(Se) ** 0.5 * op(A) * np.sqrt(effective(Phi.T @ Se @ Phi) + re)
    signal = op(DD) ** 0.5 * op(A) * np.sqrt(effective(Phi.T @ DD @ Phi) + re)
    relative = op(inv(A) @ Ah2 @ inv(A) - np.eye(len(A)))
    return {
        "29": op(Phi.T @ Dh @ Sh @ L.T) / (op(D @ root(Sig)) * op(A)),
        "29 inverse": op(inv(Ah)) / op(inv(A)),
        "30": op(inv(Ah2) - inv(A2)) / (kap**2 / low**2 * np.sqrt(re) * unit),
        "31": op(Ah - A) / (kap * op(A) * np.sqrt(re) * unit),
        "32": op(inv(Ah) - inv(A)) / (kap / low * np.sqrt(re) * unit),
        "33": op(Phi.T @ (Dh @ Sh - D @ Sig) @ L.T) / ((noise + signal) * unit),
        "relative": relative / (np.sqrt(len(A)) * unit),
    }


def report(*names: str) -> Json:
    """The largest ratios met for these bounds."""
    return {
        "draws": DRAWS,
        "condition_numbers": list(SPREADS),
        "constant": CONSTANT,
        "largest": {name: {str(n): round(v, 3) for n, v in ratios()[name].items()} for name in names},
    }


def complaint(data: Json, power: float = 0.0) -> str | None:
    """A complaint if a ratio times (n / 200)^power exceeds the constant or grows by more than a half.

    Args:
        data: What `report` returned.
        power: A bound smaller by this power of n is claimed; 0 for the printed one.
    """
    for name, row in data["largest"].items():
        values = [v * (int(n) / COUNTS[0]) ** power for n, v in row.items()]
        if max(values) > CONSTANT:
            return f"bound {name}: left is {max(values):.2f} times right"
        if values[-1] > 1.5 * max(values[0], 1e-12):
            return f"bound {name}: left over right grows from {values[0]:.3f} to {values[-1]:.3f}"
    return None
