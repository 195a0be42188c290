"""Concentration of sample cross-covariances, quoted by the paper and used for every high-probability bound.

Source: S2FT, Lemma G.2, quoted from other work. Z, Y mean-zero sub-Gaussian vectors in d1 and d2 dimensions with
covariances Sz, Sy, re(S) = tr S / |S|, n independent copies, t > 0, n >> min(re(Sz), re(Sy)) (t + log(d1 + d2)):
with probability at least 1 - e^-t the sample cross-covariance is within C |Sz|^(1/2) |Sy|^(1/2) times
sqrt((re(Sz) + re(Sy)) (t + log(d1 + d2)) / n) of its mean.

The print lacks a bracket: read literally, only re(Sy) is multiplied by t + log(d1 + d2). Both readings are checked on
samples, and nothing against them was found; C is unnamed, so sampling can support the lemma and never prove it. For
d1 = d2 = 1 and signs as entries both follow from Hoeffding's inequality with C = sqrt(2), checked exactly on the
binomial law for n up to 60.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import comb

from theory.claim import Claim, Control, Json, Reading
from theory.evidence import Custom
from theory.s2ft import setting

LEVELS = (0.5, 1.0, 2.0, 3.0)  # t
SHAPES = ((1, 1), (3, 2), (8, 5))
COUNT, DRAWS, CONSTANT, Z_LIMIT = 400, 800, 2.0, 4.5


@cache
def errors() -> list[tuple[str, list[float], float, float, int]]:
    """(name, errors over |Sz|^(1/2) |Sy|^(1/2), re(Sz), re(Sy), d1 + d2) for each shape and law."""
    import numpy as np

    rng, found = np.random.default_rng(11), []
    for d1, d2 in SHAPES:
        for law in ("gaussian", "signs"):
            mix = [rng.standard_normal((d, d1 + d2)) for d in (d1, d2)]
            mix = [np.diag(np.geomspace(1, 0.1, len(m))) @ m for m in mix]
            Sz, Sy = (m @ m.T for m in mix)
            size = float(np.sqrt(np.linalg.norm(Sz, 2) * np.linalg.norm(Sy, 2)))
            values = []
            for _ in range(DRAWS):
                shape = (d1 + d2, COUNT)
                raw = rng.standard_normal(shape) if law == "gaussian" else rng.choice([-1.0, 1.0], shape)
                second = raw @ raw.T / COUNT - np.eye(d1 + d2)
                values.append(float(np.linalg.norm(mix[0] @ second @ mix[1].T, 2)) / size)
            effective = [float(np.trace(S) / np.linalg.norm(S, 2)) for S in (Sz, Sy)]
            found.append((f"{d1} x {d2}, {law}", values, effective[0], effective[1], d1 + d2))
    return found


def tails(literal: bool, constant: float = CONSTANT) -> Json:
    """How often the bound is exceeded, per shape, law and level t, beside e^-t.

    Args:
        literal: Only re(Sy) is multiplied, as the print without its bracket says.
        constant: The constant C that is tried.
    """
    from math import exp, log, sqrt

    rows = []
    for name, values, first, second, dims in errors():
        for t in LEVELS:
            spread = t + log(dims)
            width = first + second * spread if literal else (first + second) * spread
            share = sum(v > constant * sqrt(width / COUNT) for v in values) / DRAWS
            allowed = exp(-t)
            z = (share - allowed) / sqrt(allowed * (1 - allowed) / DRAWS)
            rows.append(
                {
                    "case": name,
                    "t": t,
                    "exceeded": round(share, 4),
                    "allowed": round(allowed, 4),
                    "z": round(z, 2),
                }
            )
    return {"n": COUNT, "draws": DRAWS, "constant": constant, "z_limit": Z_LIMIT, "rows": rows}


def within(data: Json) -> str | None:
    """A complaint if some tail is heavier than allowed by more than sampling explains."""
    worst = max(data["rows"], key=lambda row: row["z"])
    return (
        f"{worst['case']} at t = {worst['t']}: exceeded {worst['exceeded']}" if worst["z"] > Z_LIMIT else None
    )


def binomial(factor: int = 4) -> Json:
    """Sizes n for the scalar case, and C^2 (t + log 2)(1 + 1) = factor (t + log 2)."""
    return {"sizes": list(range(1, 61)), "factor": factor}


def hoeffding(data: Json) -> str | None:
    """Signs, d1 = d2 = 1: P(|S_n| >= a) <= 2 exp(-a^2 / (2 n)) at every a, the sharpest form of the bound at that a.

    At |S_n| = a the level is t = a^2 / (factor n) - log 2, and the lemma allows e^-t = 2 exp(-a^2 / (factor n)). The
    exponential is bounded below by (1 - y/j)^j, y = a^2 / (factor n), with j large enough for 0 <= 1 - y/j.
    """
    for n in data["sizes"]:
        tail = 0
        for heads in range(n, -1, -1):
            a = 2 * heads - n
            if a <= 0:
                break
            tail += 2 * comb(n, heads)
            y = Fraction(a * a, data["factor"] * n)
            allowed = 2 * (1 - y / 64) ** 64 if y < 64 else Fraction(0)
            if Fraction(tail, 2**n) > allowed:
                return f"n = {n}: P(|S_n| >= {a}) is {float(Fraction(tail, 2**n)):.4g}"
    return None


def sampled(literal: bool) -> Custom:
    """Evidence by samples."""
    return Custom(
        status="supported",
        produce=lambda: tails(literal),
        verify=within,
        about="share of samples beyond the bound with C = 2, beside e^-t",
        reason="statistical, for all sub-Gaussian laws, with an unnamed constant, and quoted without proof",
    )


def controls(literal: bool) -> tuple[Control, ...]:
    """A constant twenty times smaller must fail on the same samples."""
    return (
        Control(
            "C = 1/10",
            check=lambda: within(tails(literal, 0.1)) is not None,
            spares=lambda: within(tails(literal)) is not None,
        ),
        Control("C = 4", kind="true", check=lambda: within(tails(literal, 4.0)) is not None),
    )


SCOPE = f"n = {COUNT}, {DRAWS} draws, shapes {SHAPES}, Gaussian and sign laws"

CLAIM = Claim(
    id="s2ft/lemma_g2",
    source=setting.source("Lemma G.2, quoted"),
    sentence=(
        "With probability at least 1 - e^-t a sample cross-covariance of sub-Gaussian vectors is within a constant "
        "times |Sz|^(1/2) |Sy|^(1/2) sqrt((re(Sz) + re(Sy)) (t + log(d1 + d2)) / n) of its mean."
    ),
    headline="Supported on samples with the constant 2, for both readings of a missing bracket; exact in one dimension.",
    defect="text uncertain",
    readings=(
        Reading(
            name="both effective ranks times t + log",
            evidence=sampled(False),
            scope=SCOPE,
            controls=controls(False),
        ),
        Reading(
            name="literal bracket",
            sentence="The same with only re(Sy) multiplied by t + log(d1 + d2).",
            evidence=sampled(True),
            scope=SCOPE,
            controls=controls(True),
        ),
        Reading(
            name="one dimension, signs",
            sentence="For products of independent signs the bound holds with C^2 = 2, for every n and t.",
            evidence=Custom(
                status="proved_within",
                produce=binomial,
                verify=hoeffding,
                about="the binomial law, all n up to 60 and every level; all n by Hoeffding's inequality",
            ),
            scope="d1 = d2 = 1, n up to 60",
            controls=(
                Control(
                    "C^2 = 1/2",
                    check=lambda: hoeffding(binomial(1)) is not None,
                    spares=lambda: hoeffding(binomial()) is not None,
                ),
                Control("C^2 = 4", kind="true", check=lambda: hoeffding(binomial(8)) is not None),
            ),
        ),
    ),
)
