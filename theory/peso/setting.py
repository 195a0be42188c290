"""The setting of PESO's theory, once: one step inside a subspace of a smooth loss.

Source: PESO, Section 5 and Appendix G, known to us through a summary only. Symbols: W (m x n) the iterate,
G (m x n) the full gradient there, P (m x m) the orthogonal projector on the subspace chosen at the restart,
eta the step, L the smoothness constant, f0 and f1 the loss before and after W - eta P G. delta = |(I - P) G| is
the error that the subspace makes on the full gradient; the summary names delta_k without defining it.
"""

from __future__ import annotations

from typing import Any

from theory import instances
from theory.claim import Json, Setting, Source
from theory.protocol import Instance, Kit

VERSION = "arXiv 2512.02216, second-hand summary"


def source(place: str) -> Source:
    """A place of the PESO paper."""
    return Source("Parameter-Efficient Subspace Optimization for LLM Fine-Tuning", place, VERSION)


def projector(k: Kit, x: Instance) -> None:
    """P is an orthogonal projector."""
    k.given("P symmetric", k.sym(x.P))
    k.given("P idempotent", k.eq(x.P @ x.P, x.P))


def smooth_step(k: Kit, x: Instance) -> None:
    """What L-smoothness says of the step W - eta P G (the descent inequality)."""
    k.given("eta >= 0", k.le(k.num(0), x.eta))
    step = x.eta * (x.P @ x.G)
    bound = x.f0 - k.dot(x.G, step) + x.L / 2 * k.fro2(step)
    k.given("smooth along the step", k.le(x.f1, bound))


def delta2(k: Kit, x: Instance) -> Any:
    """delta^2 = |(I - P) G|_F^2."""
    return k.fro2(x.G - x.P @ x.G)


DIMS: list[dict[str, Any]] = [
    {"m": 1, "n": 1, "r": 1},
    {"m": 2, "n": 1, "r": 1},
    {"m": 2, "n": 2, "r": 1},
    {"m": 3, "n": 2, "r": 2},
]


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """The free parameters: the quadratic's root C and minimiser M, the start, the subspace, step and slack."""
    m, n = d["m"], d["n"]
    return {"C": (m, m), "M": (m, n), "W": (m, n), "B": (m, d["r"]), "slack": (1, 1), "step": (1, 1)}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """A quadratic tr((W - M)' C C' (W - M)) / 2 with L = tr C C' + slack^2 + 1 and a step in [0, 1/L)."""
    H = t.C @ t.C.T
    G = H @ (t.W - t.M)
    L = k.tr(H) + k.sq(k.e(t.slack, 0, 0)) + 1
    eta = instances.unit_interval(k, k.e(t.step, 0, 0)) / L
    P = k.proj(t.B)
    after = t.W - eta * (P @ G)
    f0, f1 = (k.tr((V - t.M).T @ H @ (V - t.M)) / 2 for V in (t.W, after))
    return Instance(G=G, P=P, L=L, eta=eta, f0=f0, f1=f1)


def letters(k: Any) -> Instance:
    """Letters for proofs in every dimension."""
    numbers = {name: k.number(name) for name in ("eta", "L", "f0", "f1")}
    return Instance(G=k.letter("G", "m", "n"), P=k.letter("P", "m", "m", symmetric=True), **numbers)


def scalar_step(**changes: Any) -> Json:
    """One step of w -> w - eta w on w^2 / 2 from w = 1 with P = 1 and eta = 1/2, with changes."""
    plain: Json = {"G": [["1"]], "P": [["1"]], "eta": "1/2", "L": "1", "f0": "1/2", "f1": "1/8"}
    return {**plain, **changes}


BOUNDARY: list[Json] = [scalar_step(), scalar_step(P=[["0"]], f1="1/2"), scalar_step(eta="1", f1="0")]

SETTING = Setting(dims=DIMS, free=free, build=build, letters=letters, boundary=BOUNDARY)
