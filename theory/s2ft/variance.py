r"""What n samples cost: the variance terms of LoRA and S2FT, printed bounds and exact Gaussian means.

Source: S2FT, Theorems F.10 and F.13. Symbols as in `theory.s2ft.setting`; Sig_eff (q x q) is the covariance of the
noise plus what layer l cannot see of the residual, a = rank(A), T^2 the squared distance (in distribution) of the
fit on n samples from the population fit.

For Gaussian inputs and noise, S2FT's fit is a least-squares fit of the outputs PS on a inputs, so
E T^2 = tr(PS Sig_eff) a / (n - a - 1) exactly (mean of an inverse Wishart matrix, quoted; sampled here). This is at
most |Sig_eff| tr(PS) kap(A)^2 re(A^2) / (n - a - 1), proved for every size: S2FT's printed bound without its log^2 and
with kap^2 in place of kap^8. LoRA's mean is r (m + k - r) / n to leading order in the simplest case (H = L = I,
Sig = I, unit noise, residual of rank r), S2FT's at parity s k / n = r (m + k) / n: S2FT has the larger variance, by
r^2 / n. The printed bounds have unnamed constants and hold with high probability: sampled only. F.10 prints a
constant C that is the C_g of Assumption F.3, and F.3 writes s for LoRA's r.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import log, sqrt
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Setting
from theory.evidence import Custom, WordProof
from theory.kits.spectral import norm
from theory.protocol import Instance, Kit
from theory.s2ft import setting
from theory.s2ft.setting import plane_instance, scalar_instance

COUNT, DRAWS, Z_LIMIT, RANK = 4000, 2000, 4.5, 1
SIZES = (4, 4)  # m = q outputs and k = p inputs of the tuned layer, H = L = I
SPREADS = (1.0, 3.0)  # condition number of A
CONSTANT = 2.0


# -- the exact mean stays below the printed bound -------------------------------------------------------------
def mean_bounded(k: Kit, x: Instance) -> None:
    """low^2 tr(PS Sig_eff) k <= |R|^2 tr(PS) tr(A^2), Sig_eff = R R, A of full rank k with A^2 >= low^2."""
    A2 = x.L @ x.Si @ x.Si @ x.L.T
    PS = k.name("P_S", k.proj(x.H @ k.cols(k.eye(x.H.shape[1]), x.S)))
    k.given("R symmetric", k.sym(x.R))
    k.given("Si symmetric", k.sym(x.Si))
    k.given("A^2 >= low^2", k.psd(A2 - x.low * x.low * k.eye(x.L.shape[0])))
    left = x.low * x.low * k.fro2(x.R @ PS) * k.tr(k.eye(x.L.shape[0]))
    k.claim("mean of the variance", k.le(left, k.sq(k.op(x.R)) * k.fro2(PS) * k.tr(A2)))


def mean_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """|R PS|_F <= |R| |PS|_F, and tr(A^2 - low^2) >= 0."""
    PS = k.proj(x.H @ k.cols(k.eye(x.H.shape[1]), x.S))
    eye = k.eye(x.L.shape[0])
    small = k.square(x.low * eye)  # low^2 k
    return {
        "mean of the variance": [
            small * k.submultiplicative(x.R, PS),
            norm(k, x.R) * norm(k, x.R) * k.square(PS) * k.against_psd("A^2 >= low^2", eye),
        ]
    }


def mean_far(k: Kit, x: Instance) -> None:
    """A weaker statement: with twice the right side."""
    A2 = x.L @ x.Si @ x.Si @ x.L.T
    PS = k.name("P_S", k.proj(x.H @ k.cols(k.eye(x.H.shape[1]), x.S)))
    k.given("R symmetric", k.sym(x.R))
    k.given("Si symmetric", k.sym(x.Si))
    k.given("A^2 >= low^2", k.psd(A2 - x.low * x.low * k.eye(x.L.shape[0])))
    left = x.low * x.low * k.fro2(x.R @ PS) * k.tr(k.eye(x.L.shape[0]))
    k.claim("mean of the variance", k.le(left, 2 * (k.sq(k.op(x.R)) * k.fro2(PS) * k.tr(A2))))


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """The common setting's parameters and a root of Sig_eff."""
    return {**setting.free(d), "R": (d["q"], d["q"])}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """The common setting with low = 0 raised to what the smallest entry allows: L Si = A O has A >= 0 only."""
    x = setting.build(k, t, d)
    return Instance({**x, "R": t.R + t.R.T, "low": k.num(0)})


def letters(k: Any) -> Instance:
    """Letters of the common setting, R and low."""
    return Instance(
        {**setting.letters(k), "R": k.letter("R", "q", "q", symmetric=True), "low": k.number("low")}
    )


ONE = scalar_instance(R=[["1"]], low="1")
EYE = [["1", "0"], ["0", "1"]]
PLANE = plane_instance(R=EYE, low="1", S=[0])
STEEP = scalar_instance(R=[["1"]], low="2")
SETTING = Setting(dims=setting.DIMS, free=free, build=build, letters=letters, boundary=[ONE, PLANE])


# -- samples ----------------------------------------------------------------------------------------------------
@cache
def samples() -> Json:
    """Means of T^2 over samples beside the exact or leading value, and T^2 over the printed bound.

    With H = I, L = A (k x k), Sig = I, unit noise and a residual of rank r: E X' given X X' is Gaussian, so only X X'
    (Wishart) and one Gaussian matrix are drawn.
    """
    import numpy as np

    rng = np.random.default_rng(5)
    m, k = SIZES
    tuned = RANK * (m + k) // k
    out: Json = {"means": [], "ratios": {"S2FT": 0.0, "LoRA": 0.0}}
    for spread in SPREADS:
        A = np.diag(np.geomspace(1.0, 1.0 / spread, k))
        D = np.zeros((m, k))
        D[0, 0], D[1, 0] = 3.0, 2.0  # rank one
        sums: dict[str, list[float]] = {"S2FT": [], "LoRA": []}
        for _ in range(DRAWS):
            G = np.tril(rng.standard_normal((k, k)), -1) + np.diag(
                np.sqrt(rng.chisquare(COUNT - np.arange(k)))
            )
            root = G / np.sqrt(COUNT)  # Bartlett: X X'/n = root root'
            error = rng.standard_normal((m, k)) @ np.linalg.inv(root) / np.sqrt(COUNT)  # E X'(X X')^-1
            sums["S2FT"].append(float((error[:tuned] ** 2).sum()))
            w, v = np.linalg.eigh(A @ root @ root.T @ A)
            Ah, back = (v * np.sqrt(w)) @ v.T, (v / np.sqrt(w)) @ v.T
            u, sv, wt = np.linalg.svd((D + error) @ np.linalg.inv(A) @ Ah, full_matrices=False)
            fit = (u[:, :RANK] * sv[:RANK]) @ wt[:RANK] @ back @ A
            sums["LoRA"].append(float(((fit - D) ** 2).sum()))
        unit = log(COUNT + m + k) ** 2 / COUNT
        kap2, re, signal = spread**2, float((A**2).sum()), float((D**2).sum())
        noise_re = {"S2FT": tuned, "LoRA": m}
        for name, rows, power in (("S2FT", tuned, 8), ("LoRA", RANK, 6)):
            printed = (
                kap2 * rows * (noise_re[name] + re) * unit
                + signal * rows * (kap2 + spread**power * re) * unit
            )
            out["ratios"][name] = round(max(out["ratios"][name], max(sums[name]) / printed), 4)
        expected = {"S2FT": tuned * k / (COUNT - k - 1), "LoRA": RANK * (m + k - RANK) / (COUNT - k - 1)}
        for name, values in sums.items():
            mean, error_of_mean = float(np.mean(values)), float(np.std(values, ddof=1) / sqrt(DRAWS))
            out["means"].append(
                {
                    "method": name,
                    "condition": spread,
                    "n_mean": round(COUNT * mean, 3),
                    "n_expected": round(COUNT * expected[name], 3),
                    "n_stderr": round(COUNT * error_of_mean, 4),
                }
            )
    return out


def means(method: str, factor: float = 1.0) -> Json:
    """The rows of one method; the expected value times a factor, for controls."""
    rows = [dict(row) for row in samples()["means"] if row["method"] == method]
    for row in rows:
        row["n_expected"] = round(row["n_expected"] * factor, 3)
    return {"n": COUNT, "draws": DRAWS, "z_limit": Z_LIMIT, "rows": rows}


def as_expected(data: Json) -> str | None:
    """A complaint if a mean lies too many standard errors from its expected value."""
    for row in data["rows"]:
        z = (row["n_mean"] - row["n_expected"]) / row["n_stderr"]
        if abs(z) > Z_LIMIT:
            return f"{row['method']}, condition {row['condition']}: {z:.1f} standard errors off"
    return None


def bounded(method: str, constant: float = CONSTANT) -> Json:
    """The largest ratio of T^2 to the printed bound without its constant."""
    return {"largest": samples()["ratios"][method], "constant": constant}


def below(data: Json) -> str | None:
    """A complaint if the constant is exceeded."""
    return f"T^2 is {data['largest']} times the bound" if data["largest"] > data["constant"] else None


def order() -> Json:
    """Means of both methods at parity."""
    return {"rows": samples()["means"]}


def s2ft_larger(data: Json, sign: int = 1) -> str | None:
    """A complaint unless S2FT's mean exceeds LoRA's by more than sampling explains, at each condition number."""
    for one in data["rows"]:
        for two in data["rows"]:
            if one["method"] == "S2FT" and two["method"] == "LoRA" and one["condition"] == two["condition"]:
                spread = sqrt(one["n_stderr"] ** 2 + two["n_stderr"] ** 2)
                if sign * (one["n_mean"] - two["n_mean"]) < Z_LIMIT * spread:
                    return f"condition {one['condition']}: {one['n_mean']} against {two['n_mean']}"
    return None


def sampled_mean(method: str, about: str, reason: str) -> Custom:
    """Evidence by means of samples."""
    return Custom(
        status="supported", produce=lambda: means(method), verify=as_expected, about=about, reason=reason
    )


def mean_controls(method: str) -> tuple[Control, ...]:
    """A value ten per cent larger must fail; the value itself must not."""
    return (
        Control(
            "a mean larger by a tenth",
            check=lambda: as_expected(means(method, 1.1)) is not None,
            spares=lambda: as_expected(means(method)) is not None,
        ),
        Control("the value itself", kind="true", check=lambda: as_expected(means(method)) is not None),
    )


def printed(method: str) -> Reading:
    """The printed bound, on samples."""
    return Reading(
        name="as printed, with high probability",
        evidence=Custom(
            status="supported",
            produce=lambda: bounded(method),
            verify=below,
            about="largest T^2 over the printed bound without its constant",
            reason="holds with high probability and unnamed constants: sampled only",
        ),
        scope=f"m = k = 4, r = {RANK}, n = {COUNT}, {DRAWS} Gaussian samples for each of two condition numbers",
        controls=(
            Control(
                "a constant of 1/100000",
                check=lambda: below(bounded(method, 1e-5)) is not None,
                spares=lambda: below(bounded(method)) is not None,
            ),
            Control("the constant 10", kind="true", check=lambda: below(bounded(method, 10.0)) is not None),
        ),
    )


LORA = Claim(
    id="s2ft/thm_f10_variance",
    source=setting.source("Theorem F.10, variance"),
    sentence=(
        "With high probability LoRA's variance term is at most a constant times r (effective ranks) log^2(n + p + q) / n, "
        "with powers of condition numbers."
    ),
    headline="Supported on samples; in the simplest Gaussian case the mean is r (m + k - r) / n to leading order.",
    defect="misprint",
    uses=("s2ft/lemma_g1", "s2ft/lemma_g2", "s2ft/lemma_g3_29", "s2ft/lemma_g3_32", "s2ft/lemma_g3_33"),
    readings=(
        printed("LoRA"),
        Reading(
            name="Gaussian mean, leading order",
            sentence="For Gaussian data, unit noise and a residual of rank r, n E T^2 tends to r (m + k - r).",
            evidence=sampled_mean(
                "LoRA",
                "mean of T^2 beside r (m + k - r) / (n - k - 1)",
                "statistical: a leading order, compared with samples",
            ),
            scope=f"m = k = 4, r = {RANK}, n = {COUNT}, two condition numbers of A",
            controls=mean_controls("LoRA"),
        ),
    ),
)

S2FT = Claim(
    id="s2ft/thm_f13_variance",
    source=setting.source("Theorem F.13, variance"),
    sentence=(
        "With high probability S2FT's variance term is at most a constant times s (effective ranks) log^2(n + p + q) / n, "
        "with powers of condition numbers up to the eighth."
    ),
    headline=(
        "Supported on samples; the exact Gaussian mean tr(PS Sig_eff) rank(A) / (n - rank(A) - 1) needs neither the "
        "logarithms nor kap^8, and at parity it exceeds LoRA's."
    ),
    setting=SETTING,
    uses=("s2ft/lemma_g2", "s2ft/lemma_g3_29", "s2ft/lemma_g3_30", "s2ft/lemma_g3_33"),
    readings=(
        printed("S2FT"),
        Reading(
            name="Gaussian mean",
            sentence="For Gaussian data E T^2 = tr(PS Sig_eff) rank(A) / (n - rank(A) - 1).",
            evidence=sampled_mean(
                "S2FT",
                "mean of T^2 beside the exact value",
                "statistical: rests on the mean of an inverse Wishart matrix, quoted and sampled",
            ),
            scope=f"m = k = 4, s = 2, n = {COUNT}, two condition numbers of A",
            controls=mean_controls("S2FT"),
        ),
        Reading(
            name="the Gaussian mean is below the bound, without kap^8",
            sentence="tr(PS Sig_eff) rank(A) <= |Sig_eff| tr(PS) kap(A)^2 re(A^2) for A of full rank.",
            statement=mean_bounded,
            evidence=WordProof(mean_proof),
            scope="every size; tr(PS) <= s, kap(A)^2 re(A^2) = tr(A^2) / low^2; a rank-deficient A is taken on its range",
            sharp=ONE,
            controls=(
                Control("the right side smaller by 1/50", instance=ONE, tighten="1/50"),
                Control("low above the smallest singular value", drop=("A^2 >= low^2",), instance=STEEP),
                Control("twice the right side", kind="true", statement=mean_far),
            ),
        ),
        Reading(
            name="larger than LoRA's at parity",
            sentence="At s = r (m + k) / k S2FT's mean variance exceeds LoRA's when the residual has rank r.",
            evidence=Custom(
                status="supported",
                produce=order,
                verify=s2ft_larger,
                about="means of samples, compared",
                reason="statistical: two means with standard errors; the leading orders differ by r^2 / n",
            ),
            scope=f"m = k = 4, r = {RANK}, s = 2, n = {COUNT}",
            controls=(
                Control(
                    "LoRA's is the larger",
                    check=lambda: s2ft_larger(order(), -1) is not None,
                    spares=lambda: s2ft_larger(order()) is not None,
                ),
                Control("S2FT's is the larger", kind="true", check=lambda: s2ft_larger(order()) is not None),
            ),
        ),
    ),
)

CLAIMS = (LORA, S2FT)
