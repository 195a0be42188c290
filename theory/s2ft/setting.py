"""The setting of the S2FT paper's theory, once: one tuned layer of a deep linear network.

Source: S2FT, Appendix F.1-F.2. Symbols (q = d_L, p = d_0, m = d_l, k = d_{l-1}):
H (q x m) product of the layers above the tuned one, L (k x p) of those below, D = B_i - W (q x p) what the
pretrained network misses, Si (p x p) the root of the input covariance Sig_i, S the tuned channels, r the rank.

`quantities` writes the paper's derived objects; `lora`, `s2ft` and `full` are the population solutions, as
maps from input to change of output (q x p). They run on every kit: exact in checks, batched floats in sims.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from theory.claim import Json, Setting, Source
from theory.protocol import Instance, Kit, Mat

VERSION = "arXiv 2412.06289"


def source(place: str) -> Source:
    """A place of the S2FT paper."""
    return Source(
        "S2FT: Efficient, Scalable and Generalizable LLM Fine-tuning by Structured Sparsity", place, VERSION
    )


def quantities(k: Kit, x: Instance) -> Any:
    """The derived objects of F.1-F.3: Sig, A, U, P, PS, N, M = P N, and the pretrained risk E_pre.

    N = D Sig_i L' A^+ (q x k) is what layer l could still learn, P = H H^+ what the layers above let through,
    PS = (H U)(H U)^+ what the channels S can reach.
    """
    s = SimpleNamespace()
    s.Sig = k.name(r"\Sigma_i", x.Si @ x.Si)
    s.A = k.name("A", k.sqrtm(x.L @ s.Sig @ x.L.T, "A"))
    s.A_pinv = k.pinv(s.A)
    s.U = k.name("U", k.cols(k.eye(x.H.shape[1]), x.S))
    s.P = k.name("P", k.proj(x.H))
    s.PS = k.name("P_S", k.proj(x.H @ s.U))
    s.N = k.name("N", x.D @ s.Sig @ x.L.T @ s.A_pinv)
    s.M = k.name("M", s.P @ s.N)
    s.E_pre = k.name(r"\mathcal{E}_i(f_{pre})", k.fro2(x.D @ x.Si))
    s.E_full = k.name(r"\mathcal{E}_i(f_{full})", s.E_pre - k.fro2(s.M))
    return s


def lora(k: Kit, x: Instance, s: Any) -> Mat:
    """H U V' L of rank-r LoRA on layer l in the population: SVD_r(M) A^+ L. Source: Lemma F.9, (15)."""
    update: Mat = k.svd_r(s.M, x.r, "SVD_r(M)") @ s.A_pinv @ x.L
    return update


def s2ft(k: Kit, x: Instance, s: Any) -> Mat:
    """H U V' L of S2FT with channels S in the population: PS N A^+ L. Source: Lemma F.12, (25)."""
    update: Mat = s.PS @ s.N @ s.A_pinv @ x.L
    return update


def full(k: Kit, x: Instance, s: Any) -> Mat:
    """H dW L of tuning all of layer l in the population: M A^+ L. Source: Lemma F.17."""
    update: Mat = s.M @ s.A_pinv @ x.L
    return update


def hypotheses(k: Kit, x: Instance, s: Any) -> None:
    """The standing assumptions of F.2-F.3: Si psd, L Sig_i L' != 0, Sig_f != 0."""
    k.given("Si psd", k.psd(x.Si))
    k.given("L Sig_i L' is not zero", k.lt(k.num(0), k.tr(x.L @ s.Sig @ x.L.T)))
    k.given("Sig_f is not zero", k.lt(k.num(0), s.E_pre))


# -- instances: q, p, m, k, the rank of H (rho), the rank r of LoRA and the channels S ------------------------
DIMS: list[dict[str, Any]] = [
    {"q": 1, "p": 1, "m": 1, "k": 1, "rho": 1, "r": 1, "S": (0,)},
    {"q": 2, "p": 2, "m": 2, "k": 2, "rho": 2, "r": 1, "S": (0, 1)},
    {"q": 2, "p": 2, "m": 2, "k": 2, "rho": 2, "r": 1, "S": (1,)},
    {"q": 2, "p": 3, "m": 3, "k": 2, "rho": 1, "r": 1, "S": (0, 2)},
    {"q": 3, "p": 3, "m": 4, "k": 2, "rho": 2, "r": 1, "S": (0, 3)},
    {"q": 3, "p": 4, "m": 4, "k": 3, "rho": 2, "r": 2, "S": (0, 1, 2)},
]


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """The free rational parameters of `build` at sizes d, with their shapes."""
    q, p, m, k, rho = d["q"], d["p"], d["m"], d["k"], d["rho"]
    return {
        "Z1": (q, q),
        "G": (rho, m),
        "sv": (1, min(rho, k)),
        "Z2": (k, k),
        "Ad": (1, k),
        "Za": (k, k),
        "Zo": (p, p),
        "C": (p, p),
        "Y": (q, k),
        "Z": (q, p),
        "W": (q, p),
        "X": (q, p),
    }


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """An instance with rational A = (L Sig_i L')^(1/2) and a rational SVD of M, from free parameters.

    A = Qa diag(Ad)^2 Qa', L = A O Si^-1 with orthonormal rows O (so L Sig_i L' = A^2), M = F diag(sv) Q2' in
    the column space of H = F G, and D chosen so that D Sig_i L' A^+ = N with P N = M. Every (H, L, D, Si) with
    Si > 0, k <= p, rational roots and a rational SVD arises so, up to the choice of parameters.
    """
    _q, p, kk, rho = d["q"], d["p"], d["k"], d["rho"]
    Q1, Q2, Qa, Qo = (k.skew_orth(z) for z in (t.Z1, t.Z2, t.Za, t.Zo))
    F = k.cols(Q1, range(rho))
    H = F @ t.G
    root = k.diagm(t.Ad, kk, kk)
    A = Qa @ root @ root @ Qa.T
    O = k.cols(Qo, range(kk)).T  # noqa: E741  (orthonormal rows)
    Si = t.C @ t.C.T + k.eye(p)
    Si_inv = k.inv(Si)
    L = A @ O @ Si_inv
    M = F @ k.diagm(t.sv, rho, kk) @ Q2.T
    N = M + t.Y - k.proj(H) @ t.Y
    D = (N @ O + t.Z @ (k.eye(p) - O.T @ O)) @ Si_inv
    k.hint("A", A)
    return Instance(H=H, L=L, D=D, Si=Si, W=t.W, Bo=t.W + D + t.X, S=d["S"], r=d["r"])


def letters(k: Any) -> Instance:
    """The instance of the word kit: every matrix a letter, sizes left open."""
    return Instance(
        H=k.letter("H", "q", "m"),
        L=k.letter("L", "k", "p"),
        D=k.letter("D", "q", "p"),
        Si=k.letter("Si", "p", "p", symmetric=True),
        W=k.letter("W", "q", "p"),
        Bo=k.letter("Bo", "q", "p"),
        S="S",
        r="r",
    )


def scalar_instance(**changes: Any) -> Json:
    """The instance with every size one and every matrix [1] (W = 0), with changes."""
    one = [["1"]]
    plain: Json = {"H": one, "L": one, "D": one, "Si": one, "W": [["0"]], "Bo": one, "S": [0], "r": 1}
    return {**plain, **changes}


def plane_instance(**changes: Any) -> Json:
    """The instance with every size two, identities for H, L, Si, and all channels tuned, with changes."""
    eye = [["1", "0"], ["0", "1"]]
    zero = [["0", "0"], ["0", "0"]]
    plain: Json = {"H": eye, "L": eye, "D": eye, "Si": eye, "W": zero, "Bo": eye, "S": [0, 1], "r": 1}
    return {**plain, **changes}


BOUNDARY: list[Json] = [
    scalar_instance(),
    scalar_instance(D=[["-2"]]),
    plane_instance(S=[0], r=2),
    plane_instance(D=[["1", "0"], ["0", "0"]]),
    plane_instance(H=[["1", "0"], ["0", "0"]], S=[1]),
    plane_instance(D=[["2", "0"], ["0", "1"]], S=[1]),
    plane_instance(L=[["1", "0"], ["0", "0"]], D=[["2", "0"], ["0", "1"]], S=[0]),
]

SETTING = Setting(dims=DIMS, free=free, build=build, letters=letters, boundary=BOUNDARY)
