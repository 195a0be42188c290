"""The setting of the S2FT paper with n samples, once; the population is the case X = Si, T = D Si.

Source: S2FT, Appendix F.2. X (p x n) are the inputs of n samples and T (q x n) the targets less what the
pretrained network says, both divided by sqrt(n), so that Sig_hat = X X'. With D = Bi - W (q x p), the noise
E = T - D X (q x n), H (q x m), L (k x p): R_n(dW) = |(D - H dW L) X + E|_F^2 = |T - H dW L X|_F^2 is the
empirical risk of adding dW (m x k) to the tuned layer, D_hat = D + E X^+ the residual that the samples show,
A = (L Sig_hat L')^(1/2), P1 = H^+ H and P2 = A A^+ the projectors on what layer l's outputs and inputs can
matter, N = D_hat Sig_hat L' A^+ (q x k) and M = P N.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from theory.claim import Json
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import setting


def quantities(k: Kit, x: Instance) -> Any:
    """The derived objects above; U = I[:, S]."""
    s = SimpleNamespace()
    s.Sig = k.name(r"\hat\Sigma", x.X @ x.X.T)
    s.A = k.name(r"\hat A", k.sqrtm(x.L @ s.Sig @ x.L.T, "A"))
    s.A_pinv, s.H_pinv = k.pinv(s.A), k.pinv(x.H)
    s.P, s.P1, s.P2 = k.proj(x.H), s.H_pinv @ x.H, s.A @ s.A_pinv
    s.U = k.cols(k.eye(x.H.shape[1]), x.S)
    s.E = k.name("E", x.T - x.D @ x.X)
    s.D = k.name(r"\hat D", x.D + s.E @ k.pinv(x.X))
    s.N = s.D @ s.Sig @ x.L.T @ s.A_pinv
    s.M = k.name(r"\hat M", s.P @ s.N)
    return s


def hypotheses(k: Kit, x: Instance, s: Any) -> None:
    """The standing assumption that the tuned layer sees something."""
    k.given("L Sig_hat L' is not zero", k.lt(k.num(0), k.tr(x.L @ s.Sig @ x.L.T)))


def risk(k: Kit, x: Instance, dW: Mat) -> Any:
    """R_n of adding dW to the tuned layer."""
    return k.fro2(x.T - x.H @ dW @ x.L @ x.X)


def descent(x: Instance, dW: Mat) -> Mat:
    """Half the negative gradient of R_n at dW (m x k)."""
    toward: Mat = x.H.T @ (x.T - x.H @ dW @ x.L @ x.X) @ x.X.T @ x.L.T
    return toward


def excess_out(k: Kit, x: Instance, fit: Mat) -> Any:
    """E_o of a fit as the trace of F.2: tr (Bo - W - fit) Sig_o (Bo - W - fit)'."""
    error = x.Bo - x.W - fit
    return k.tr(error @ x.So @ x.So @ error.T)


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """The parameters of the common setting, the noise, changes of the layer and So."""
    q, p, m, kk = d["q"], d["p"], d["m"], d["k"]
    return {**setting.free(d), "E": (q, p), "U1": (m, d["r"]), "V1": (kk, d["r"]), "K": (m, kk),
            "Vs": (kk, len(d["S"])), "Co": (p, p)}  # fmt: skip


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """As many samples as inputs, X = Si R with R orthogonal, so that Sig_hat and A have rational roots; any noise.

    The residual is D_hat = D + E X^-1 with the rational SVD that the common setting gives to its D.
    """
    x = setting.build(k, t, d)
    X = x.Si @ k.skew_orth(t.Zo)
    D = x.D - t.E @ k.inv(X)
    return Instance(
        H=x.H, L=x.L, D=D, X=X, T=D @ X + t.E, W=t.W, Bo=t.W + D + t.X, So=t.Co @ t.Co.T,
        U1=t.U1, V1=t.V1, K=t.K, Vs=t.Vs, S=d["S"], r=d["r"],
    )  # fmt: skip


def letters(k: Any) -> Instance:
    """Every matrix a letter: U1 (m x r), V1 (k x r), K (m x k) and Vs (k x s) are arbitrary competitors."""
    shapes = {
        "H": ("q", "m"), "L": ("k", "p"), "D": ("q", "p"), "X": ("p", "n"), "T": ("q", "n"), "W": ("q", "p"),
        "Bo": ("q", "p"), "U1": ("m", "r"), "V1": ("k", "r"), "K": ("m", "k"), "Vs": ("k", "|S|"),
    }  # fmt: skip
    made = {name: k.letter(name, *shape) for name, shape in shapes.items()}
    return Instance({**made, "So": k.letter("So", "p", "p", symmetric=True), "S": "S", "r": "r"})


def in_distribution(made: Instance) -> Instance:
    """An instance without the out-of-distribution task."""
    return Instance({n: v for n, v in made.items() if n not in ("W", "Bo", "So")})


def _identity(n: int) -> list[list[str]]:
    return [[str(int(i == j)) for j in range(n)] for i in range(n)]


def instance(size: int = 2, r: int = 1, s: int = 1, **changes: Any) -> Json:
    """Every size `size`, identities for H, L, D, X, T, So, W = 0, with changes; competitors zero."""
    eye, zero = _identity(size), [["0"] * size for _ in range(size)]
    thin, sparse = [["0"] * r for _ in range(size)], [["0"] * s for _ in range(size)]
    plain: Json = {"H": eye, "L": eye, "D": eye, "X": eye, "T": eye, "W": zero, "Bo": eye, "So": eye,
                   "U1": thin, "V1": thin, "K": zero, "Vs": sparse, "S": list(range(s)), "r": r}  # fmt: skip
    return {**plain, **changes}


BOUNDARY: list[Json] = [
    instance(1),
    instance(1, T=[["-1"]], D=[["-2"]]),
    instance(2, H=[["1", "0"], ["0", "0"]]),
    instance(2, X=[["1", "0"], ["0", "0"]], T=[["2", "1"], ["0", "0"]], D=[["2", "0"], ["0", "1"]]),
    instance(2, s=2, D=[["2", "0"], ["0", "1"]], T=[["2", "0"], ["0", "1"]], L=[["1", "0"], ["0", "0"]]),
]
