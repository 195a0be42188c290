"""The phase law: which of two fits is better out of distribution changes at shift alignment t = 1/2.

Source: ours; it stands behind the phase diagram of sims/ood_risk.py. Without covariate shift (So = Si), with
Bo = W + t D + Z and a shift Z (q x p) that is independent with mean zero,
E[E_o(S2FT) - E_o(LoRA)] = (1 - 2 t) (gain_S2FT - gain_LoRA), gain_F = E_i(pre) - E_i(F) = |F Si|_F^2.

Proved for every size: for each single shift the difference is (1 - 2 t)(gain_S2FT - gain_LoRA) minus
2 <(F_S2FT - F_LoRA) Si, Z Si>, which is linear in Z, so its mean is zero for every law of Z with mean zero. The
second reading meets the law as a simulator would: sampled, with a skewed shift.
"""

from __future__ import annotations

from typing import Any

from theory.claim import Claim, Control, Json, Reading, Setting
from theory.evidence import Custom, WordProof
from theory.protocol import Instance, Kit
from theory.s2ft import setting
from theory.s2ft.setting import plane_instance

SEEDS = 4000
Z_LIMIT = 4.5  # a standard normal exceeds it in absolute value with probability 7e-6


def fits(k: Kit, x: Instance) -> tuple[Any, Any, Any]:
    """(F_S2FT, F_LoRA, gain_S2FT - gain_LoRA)."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    sparse, low_rank = setting.s2ft(k, x, s), setting.lora(k, x, s)
    return sparse, low_rank, k.fro2(sparse @ x.Si) - k.fro2(low_rank @ x.Si)


def risk_difference(k: Kit, x: Instance, sparse: Any, low_rank: Any, Z: Any) -> Any:
    """E_o(S2FT) - E_o(LoRA) for Bo = W + t D + Z and So = Si."""
    change = x.t * x.D + Z  # Bo - W
    return k.fro2((change - sparse) @ x.Si) - k.fro2((change - low_rank) @ x.Si)


def statement(k: Kit, x: Instance) -> None:
    """The law for each single shift, and for the law that takes Z and -Z with equal probability."""
    sparse, low_rank, gain = fits(k, x)
    plus = risk_difference(k, x, sparse, low_rank, x.Z)
    minus = risk_difference(k, x, sparse, low_rank, -x.Z)
    linear = k.dot((sparse - low_rank) @ x.Si, x.Z @ x.Si)
    k.claim("each shift", k.eq(plus, (1 - 2 * x.t) * gain - 2 * linear))
    k.claim("mean over Z and -Z", k.eq(plus + minus, 2 * (1 - 2 * x.t) * gain))


def orthogonal_shift(k: Kit, x: Instance) -> None:
    """A consequence: a shift that the two fits do not see leaves the sign to t alone."""
    sparse, low_rank, gain = fits(k, x)
    k.given("t = 1/2", k.eq(x.t, k.num("1/2")))
    linear = k.dot((sparse - low_rank) @ x.Si, x.Z @ x.Si)
    plus = risk_difference(k, x, sparse, low_rank, x.Z)
    k.claim("no winner at t = 1/2", k.eq(plus + 2 * linear, 0 * gain))


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """The parameters of the common setting, and t."""
    return {**setting.free(d), "t": (1, 1)}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """An instance of the common setting with a shift Z and an alignment t."""
    x = setting.build(k, t, d)
    return Instance({**x, "Z": t.X, "t": k.e(t.t, 0, 0)})


def letters(k: Any) -> Instance:
    """Letters of the common setting, Z and t."""
    return Instance({**setting.letters(k), "Z": k.letter("Z", "q", "p"), "t": k.number("t")})


PLAIN = plane_instance(D=[["2", "0"], ["0", "1"]], S=[1], Z=[["1", "1"], ["0", "2"]], t="1/3")
SETTING = Setting(dims=setting.DIMS, free=free, build=build, letters=letters, boundary=[PLAIN])


def sampled(claimed_slope: float = -2.0) -> Json:
    """The law against samples of a skewed shift: mean difference, standard error and z at three alignments.

    Args:
        claimed_slope: The slope in t that is tested; the law says -2.
    """
    import numpy as np

    from theory.kits.floats import Floats

    rng, rows = np.random.default_rng(20), []
    k = Floats()
    D, H = rng.standard_normal((1, 5, 6)), rng.standard_normal((1, 5, 7))
    L, root = rng.standard_normal((1, 4, 6)), rng.standard_normal((1, 6, 6)) / 2
    Z = rng.exponential(1.0, (SEEDS, 5, 6)) - 1.0  # skewed, mean zero
    for t in (0.0, 0.4, 1.0):
        x = Instance(
            D=k.mat(D),
            H=k.mat(H),
            L=k.mat(L),
            Si=k.mat(root @ np.swapaxes(root, 1, 2)),
            W=k.zeros(5, 6),
            S=(0, 2, 3),
            r=2,
            t=t,
        )
        sparse, low_rank, gain = fits(k, x)
        observed = risk_difference(k, x, sparse, low_rank, k.mat(Z))
        predicted = float((1 + claimed_slope * t) * gain[0])
        stderr = float(observed.std(ddof=1) / np.sqrt(SEEDS))
        rows.append(
            {
                "t": t,
                "predicted": predicted,
                "mean": float(observed.mean()),
                "stderr": stderr,
                "z": float((observed.mean() - predicted) / stderr),
            }
        )
    return {"shifts": SEEDS, "z_limit": Z_LIMIT, "rows": rows}


def agrees(payload: Json) -> str | None:
    """A complaint if some sampled mean lies too many standard errors away."""
    worst = max(abs(row["z"]) for row in payload["rows"])
    return f"a sampled mean is {worst:.1f} standard errors from the law" if worst > Z_LIMIT else None


CLAIM = Claim(
    id="s2ft/phase_law",
    source=setting.source("ours"),
    sentence=(
        "Without covariate shift and with the out-of-distribution map W + t D + Z, Z independent with mean zero, "
        "the mean difference of the out-of-distribution risks of S2FT and LoRA is (1 - 2 t) times the difference "
        "of their in-distribution gains."
    ),
    headline=(
        "True for every size: below alignment 1/2 the fit that learned more is the worse one out of "
        "distribution, above 1/2 the better one."
    ),
    setting=SETTING,
    uses=("s2ft/gain_equals_movement", "s2ft/lemma_f9", "s2ft/lemma_f12"),
    readings=(
        Reading(
            name="population",
            statement=statement,
            evidence=WordProof(),
            scope="every size, rank, selection, covariance and law of Z with mean zero",
            unused=("L Sig_i L' is not zero", "Sig_f is not zero"),
            controls=(
                Control("each right side larger by 1/1000", instance=PLAIN, tighten="1/1000"),
                Control("no winner at t = 1/2", kind="true", statement=orthogonal_shift),
            ),
        ),
        Reading(
            name="sampled",
            sentence="The same for sample means over independent skewed shifts.",
            evidence=Custom(
                status="supported",
                produce=sampled,
                verify=agrees,
                about="sample means with standard errors",
                reason="statistical: sample means over a skewed law of Z at three alignments",
            ),
            scope=f"one network of sizes 5, 6, 7, 4; {SEEDS} shifts; t = 0, 0.4, 1",
            controls=(
                Control(
                    "the law with slope -1 in t",
                    check=lambda: agrees(sampled(-1.0)) is not None,
                    spares=lambda: agrees(sampled()) is not None,
                ),
                Control(
                    "the law itself at the same samples",
                    kind="true",
                    check=lambda: agrees(sampled()) is not None,
                ),
            ),
        ),
    ),
)
