"""Instances of the S2FT setting whose inputs span only a part of the input space: Sig_i is singular.

Source: S2FT, Appendix F.2, which asks no more of Sig_i than to be a covariance; the common `setting.build` makes
it definite. Symbols as in `theory.s2ft.shift`. With an orthogonal V and 0/1 diagonals, Si = V diag(c^2) V' has
the rank of c, and L = A V_k' Si^+ + Z (I - Si Si^+) sees A on the inputs that occur and anything on the others;
A = diag(a^2) on the first k directions, zero where Si is, so that (L Sig_i L')^(1/2) = A is rational.
"""

from __future__ import annotations

from typing import Any

from theory.claim import Setting
from theory.protocol import Instance, Kit
from theory.s2ft import shift


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Everything that the text names, and the factors of Si and L."""
    q, p, m, k = d["q"], d["p"], d["m"], d["k"]
    return {
        "V": (p, p), "c": (1, p), "a": (1, k), "Z": (k, p), "H": (q, m), "Wl": (m, k), "D": (q, p), "Bo": (q, p),
        "Co": (p, p), "g": (1, 1),
    }  # fmt: skip


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """An instance with W = H Wl L and any D, Bo, So; eta = (1 + g^2)/(2 + g^2)."""
    p, kk = d["p"], d["k"]
    V, root = k.skew_orth(t.V), k.diagm(t.c, p, p)
    Si = V @ root @ root @ V.T
    seen = Si @ k.pinv(Si)
    first = k.cols(V, range(kk))
    kept = first.T @ seen @ first  # diagonal of zeros and ones: which of the first k directions occur
    scale = k.diagm(t.a, kk, kk)
    A = kept @ scale @ scale @ kept
    L = A @ first.T @ k.pinv(Si) + t.Z @ (k.eye(p) - seen)
    k.hint("A", A)
    g2 = k.sq(k.e(t.g, 0, 0))
    return Instance(
        H=t.H, L=L, D=t.D, Si=Si, W=t.H @ t.Wl @ L, Bo=t.Bo, S=d["S"], r=d["r"],
        Wl=t.Wl, So=t.Co @ t.Co.T, eta=(1 + g2) / (2 + g2),
    )  # fmt: skip


UNSEEN = Setting(
    dims=[
        {"q": 1, "p": 2, "m": 1, "k": 2, "r": 1, "S": (0,)},
        {"q": 2, "p": 2, "m": 2, "k": 2, "r": 1, "S": (0,)},
        {"q": 2, "p": 3, "m": 3, "k": 2, "r": 1, "S": (0, 2)},
    ],
    free=free,
    build=build,
    letters=shift.letters,
    boundary=shift.BOUNDARY,
)
