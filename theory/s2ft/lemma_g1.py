"""The best rank-s part moves by at most 2 s_s / (s_s - s_{s+1}) times the perturbation, without condition numbers.

Source: S2FT, Lemma G.1. A, B (d1 x d2), E = B - A, s_i the singular values of A with s_s > s_{s+1}; the lemma
bounds |SVD_s(B) - SVD_s(A)|_F by an unnamed constant times kap(A)^2 s_s / (s_s - s_{s+1}) times
min(sqrt(s) |E|, |E|_F), for |E| <= |A|.

Proved for every size with the constants 2 (Frobenius) and 2 sqrt(2) (spectral), without kap(A)^2 and without
|E| <= |A|. Write X = SVD_s(A), N = A - X, Y = SVD_s(B). Eckart-Young for B gives |Y - X|^2 <= 2 <Y, N> +
2 <Y - X, E>; Eckart-Young for the matrix X + c N with c = s_s / s_{s+1}, whose best part is still X, gives
2 c <Y, N> <= |Y - X|^2; both together (1 - 1/c) |Y - X|^2 <= 2 <Y - X, E>. The constant 2 is the limit of a
family of 2 x 2 matrices with a small gap. Since kap(A) >= 1, the printed bound follows. The paper's proof loses
kap(A)^2 in a sine theorem for A'A.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Setting
from theory.evidence import WordProof
from theory.kits.perturbation import rank_square, singular_value, stretched_tail
from theory.protocol import Instance, Kit
from theory.s2ft import setting


class Index(str):
    """The rank s as a letter: s + 1 is a letter too."""

    __slots__ = ()

    def __add__(self, other: Any) -> str:
        return f"({self} + {other})"


def parts(k: Kit, x: Instance) -> tuple[Any, Any, Any, Any, Any]:
    """(SVD_s(A), SVD_s(B), E, s_s, s_s - s_{s+1}), and the hypothesis that there is a gap."""
    X, Y = k.svd_r(x.A, x.s, "SVD_s(A)"), k.svd_r(x.B, x.s, "SVD_s(B)")
    last, after = k.sv(x.A, x.s), k.sv(x.A, x.s + 1)
    k.given("gap", k.lt(after, last))
    return X, Y, x.B - x.A, last, last - after


def count(k: Any, s: Any) -> Any:
    """The rank s as a number of the kit."""
    return k.number(str(s)) if isinstance(s, str) else k.num(s)


def statement(k: Kit, x: Instance) -> None:
    """Both bounds, squared, with their constants and without condition numbers."""
    X, Y, E, last, gap = parts(k, x)
    moved = k.sq(gap) * k.fro2(Y - X)
    k.claim("Frobenius", k.le(moved, 4 * (k.sq(last) * k.fro2(E))))
    k.claim("spectral", k.le(moved, 8 * (count(k, x.s) * (k.sq(last) * k.sq(k.op(E))))))


def proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """2 gap times (two Eckart-Young inequalities) plus a square."""
    X, Y, E, last, gap = parts(k, x)
    p, q = x.A.shape
    spread = k.hypothesis("gap")  # s_s - s_{s+1} >= 0
    best = k.eckart_young(x.B, x.s, k.eye(p), x.A, k.eye(q))
    slope = singular_value(k, x.A, x.s) * best + stretched_tail(k, x.A, x.s, Y, x.B)
    twice = spread * (slope + slope)
    return {
        "Frobenius": [twice, k.square(2 * last * E - gap * (Y - X))],
        "spectral": [twice, rank_square(k, gap, 2 * last, x.s, x.A, x.B, E)],
    }


def printed_form(k: Kit, x: Instance) -> None:
    """With kap(A)^2, in the hypotheses of the lemma; the weaker statement."""
    X, Y, E, last, gap = parts(k, x)
    k.given("|B - A| <= |A|", k.le(k.op(E), k.op(x.A)))
    k.claim(
        "Frobenius", k.le(k.sq(gap) * k.fro2(Y - X), 4 * (k.sq(k.sq(k.kap(x.A))) * k.sq(last) * k.fro2(E)))
    )


def near_tie(rho: str, bump: str) -> Json:
    """A = diag(1, rho) and B = (1 + rho)/2 diag(1, 1 + bump): SVD_1 jumps from one axis to the other."""
    from fractions import Fraction

    r, b = Fraction(rho), Fraction(bump)
    middle = (1 + r) / 2
    return {
        "A": [["1", "0"], ["0", str(r)]],
        "B": [[str(middle), "0"], ["0", str(middle * (1 + b))]],
        "s": 1,
    }


SHARP = near_tie("99/100", "1/1000000")

SIZES: list[dict[str, Any]] = [
    {"m": 1, "n": 1, "s": 1},
    {"m": 2, "n": 2, "s": 1},
    {"m": 2, "n": 3, "s": 1},
    {"m": 3, "n": 3, "s": 2},
]


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """A and E = B - A."""
    return {"A": (d["m"], d["n"]), "E": (d["m"], d["n"])}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """A matrix and a perturbation; the gap is a hypothesis that most matrices meet."""
    return Instance(A=t.A, B=t.A + t.E, s=d["s"])


def letters(k: Any) -> Instance:
    """A and B are letters of any shape, s any rank."""
    return Instance(A=k.letter("A", "m", "n"), B=k.letter("B", "m", "n"), s=Index("s"))


def raw(d: dict[str, Any]) -> Json:
    """A and B are free."""
    return {"A": (d["m"], d["n"], False), "B": (d["m"], d["n"], False), "s": d["s"]}


def ties(rng: Any, d: dict[str, Any], total: int) -> Any:
    """Near-ties: A close to a multiple of the identity and E of the size of its gap."""
    import numpy as np

    m, n = d["m"], d["n"]
    gap = 10.0 ** rng.uniform(-3, 0, (total, 1, 1))
    A = np.eye(m, n)[None] - gap * np.arange(m)[None, :, None] * np.eye(m, n)[None]
    E = gap * rng.standard_normal((total, m, n)) * rng.choice([0.3, 0.5, 1.0], (total, 1, 1))
    return np.concatenate([A.reshape(total, -1), E.reshape(total, -1)], axis=1)


SETTING = Setting(
    dims=SIZES,
    free=free,
    build=build,
    letters=letters,
    raw=raw,
    families=ties,
    boundary=[
        {"A": [["1"]], "B": [["1"]], "s": 1},
        {"A": [["1"]], "B": [["0"]], "s": 1},
        {"A": [["1", "0"], ["0", "0"]], "B": [["0", "0"], ["0", "1"]], "s": 1},
        {"A": [["2", "0"], ["0", "1"]], "B": [["1", "0"], ["0", "2"]], "s": 1},
        {"A": [["1", "0"], ["0", "1"]], "B": [["1", "1"], ["0", "1"]], "s": 2},
        SHARP,
    ],
)

CLAIM = Claim(
    id="s2ft/lemma_g1",
    source=setting.source("Lemma G.1"),
    sentence=(
        "The best rank-s part of a matrix with a gap after the s-th singular value moves, in Frobenius norm, by at "
        "most a constant times the squared condition number times s_s / (s_s - s_{s+1}) times the smaller of "
        "sqrt(s) times the spectral and the Frobenius norm of the perturbation."
    ),
    headline=(
        "True for every size, with the constants 2 (Frobenius, sharp) and 2 sqrt(2) (spectral), without the squared "
        "condition number and without a bound on the perturbation."
    ),
    setting=SETTING,
    readings=(
        Reading(
            name="with constants, no condition number",
            statement=statement,
            evidence=WordProof(proof),
            scope="every size and every rank with a gap; the printed bound follows because kap(A) >= 1",
            sharp=SHARP,
            unused=("|B - A| <= |A|", "kap(A)^2"),
            controls=(
                Control(
                    "Frobenius constant 4 (squared) smaller by 1/50",
                    instance=SHARP,
                    tighten="1/50",
                    only="Frobenius",
                ),
                Control(
                    "spectral constant 8 (squared) smaller by 1/50",
                    instance=SHARP,
                    tighten="1/50",
                    only="spectral",
                ),
                Control("with kap(A)^2, as printed", kind="true", statement=printed_form),
            ),
        ),
    ),
)
