"""The setting of the S2FT paper with an out-of-distribution task, once.

Source: S2FT, Appendix F.2. To the symbols of `theory.s2ft.setting` come So (p x p), the root of the covariance
out of distribution, Wl (m x k), the tuned layer, with W = H Wl L, and numbers that single statements need:
eta in (0, 1), eps and delta > 0. X = (Bo - Bi) So is the shift of the labels, G = (L Si)^+ L So (p x p) that of
the inputs as layer l sees it, `moved` = So - Si G what of it layer l cannot follow.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from theory.claim import Json, Setting
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import setting
from theory.s2ft.setting import DIMS, plane_instance, scalar_instance


def quantities(k: Kit, x: Instance, s: Any, So: Mat | None = None) -> Any:
    """Bi, X, G, moved and the pretrained risk E_o(pre); So = Si where the statement has no covariate shift."""
    So = x.Si if So is None else So
    o = SimpleNamespace(So=So, Bi=x.W + x.D, change=x.Bo - x.W)
    o.X = k.name("X", (x.Bo - o.Bi) @ So)
    o.G = k.name("G", k.pinv(x.L @ x.Si) @ x.L @ So)
    o.moved = So - x.Si @ o.G
    o.pre = k.name(r"\mathcal{E}_o(f_{pre})", k.fro2(o.change @ So))
    o.I = k.eye(x.H.shape[0])
    return o


def risk(k: Kit, o: Any, fit: Mat) -> Any:
    """E_o of a fit (q x p change of the network's map): |(Bo - W - fit) So|_F^2. Source: (17)."""
    return k.fro2((o.change - fit) @ o.So)


def hypotheses(k: Kit, x: Instance, s: Any) -> None:
    """The standing assumptions, that So is a root, and that the network is W = H Wl L."""
    setting.hypotheses(k, x, s)
    k.given("So psd", k.psd(x.So))
    k.given("W = H Wl L", k.eq(x.W, x.H @ x.Wl @ x.L))


def realisable(k: Kit, x: Instance) -> None:
    """Bi = H Bt L for some Bt, written for C = Bt - Wl: D = H C L."""
    k.given("realisable", k.eq(x.D, x.H @ x.C @ x.L))


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """The parameters of the common setting, and those of So, Wl and the numbers."""
    q, p, m, kk = d["q"], d["p"], d["m"], d["k"]
    return {**setting.free(d), "Co": (p, p), "Wl": (m, kk), "X": (q, p), "g": (1, 1)}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """An instance of the common setting with W = H Wl L, any psd So, and eta = (1 + g^2)/(2 + g^2).

    With d["realisable"] the part of D that layer l cannot reach is left out, and C with D = H C L is given.
    With d["So"] = "Si" there is no covariate shift.
    """
    kk = d["k"]
    if d.get("realisable"):
        t = Instance({**t, "Y": 0 * t.Y, "Z": 0 * t.Z})
    x = setting.build(k, t, d)
    W = x.H @ t.Wl @ x.L
    g2 = k.sq(k.e(t.g, 0, 0))
    out = Instance({**x, "W": W, "Bo": W + x.D + t.X, "Wl": t.Wl, "eta": (1 + g2) / (2 + g2)})
    out["So"] = x.Si if d.get("So") == "Si" else t.Co @ t.Co.T
    if d.get("realisable"):  # D = M O Si^-1 = M A^+ L and M = H H^+ M
        root = k.diagm(t.Ad, kk, kk)
        Qa, Qo = k.skew_orth(t.Za), k.skew_orth(t.Zo)
        A_pinv = k.pinv(Qa @ root @ root @ Qa.T)
        M = x.D @ x.Si @ k.cols(Qo, range(kk))
        out["C"] = k.pinv(x.H) @ M @ A_pinv
    return out


def letters(k: Any) -> Instance:
    """Every matrix a letter, every number a name."""
    return Instance(
        {
            **setting.letters(k),
            "So": k.letter("So", "p", "p", symmetric=True),
            "Wl": k.letter("Wl", "m", "k"),
            "C": k.letter("C", "m", "k"),
            **{n: k.number(n) for n in ("r", "eta", "eps", "delta")},
        }
    )


def letters_unshifted(k: Any) -> Instance:
    """The same without So, for statements without covariate shift."""
    return Instance({name: value for name, value in letters(k).items() if name != "So"})


def scalar(**changes: Any) -> Json:
    """Every size one, every matrix [1], W = Wl = 0, with changes."""
    one, zero = [["1"]], [["0"]]
    return scalar_instance(
        **{"So": one, "Wl": zero, "C": one, "eta": "1/2", "eps": "1", "delta": "1", **changes}
    )


def plane(**changes: Any) -> Json:
    """Every size two, identities for H, L, Si, So, D = C, all channels tuned, W = Wl = 0, with changes."""
    eye, zero = [["1", "0"], ["0", "1"]], [["0", "0"], ["0", "0"]]
    plain = {"So": eye, "Wl": zero, "C": changes.get("D", eye), "eta": "1/2", "eps": "1", "delta": "1"}
    return plane_instance(**{**plain, **changes})


BOUNDARY: list[Json] = [
    scalar(),
    scalar(D=[["-2"]], C=[["-2"]], Bo=[["0"]]),
    scalar(So=[["3"]]),
    plane(S=[0], r=2),
    plane(D=[["2", "0"], ["0", "1"]], S=[1]),
    plane(D=[["2", "0"], ["0", "1"]], So=[["2", "1"], ["1", "1"]]),
    plane(H=[["1", "0"], ["0", "0"]], D=[["0", "1"], ["0", "0"]], S=[1]),
]


def sizes(**more: Any) -> list[dict[str, Any]]:
    """The common sizes, each with more settings of `build`."""
    return [{**d, **more} for d in DIMS]


SHIFTED = Setting(dims=sizes(), free=free, build=build, letters=letters, boundary=BOUNDARY)
UNSHIFTED = Setting(dims=sizes(So="Si"), free=free, build=build, letters=letters_unshifted, boundary=BOUNDARY)
REALISABLE = Setting(
    dims=sizes(So="Si", realisable=True),
    free=free,
    build=build,
    letters=letters_unshifted,
    boundary=BOUNDARY[:6],
)
