"""The bounds that simulators evaluate are the bounds that the claims state: same slack on random networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from theory import instances
from theory.kits.floats import Floats
from theory.protocol import Instance, Statement
from theory.s2ft import (
    lemma_f14_right,
    lemma_f17,
    risks,
    setting,
    shift,
    thm_f10_bias,
    thm_f11,
    thm_f13_bias,
    thm_f15,
)

BATCH = 5
SIZES = {"q": 3, "p": 4, "m": 4, "k": 3, "rho": 2, "r": 1, "S": (0, 2)}
RANK = 3  # of D Si, which is 3 x 4 and generic
ETA = 0.5

# (claim, form of the bound, statement, conclusion, what the statement multiplies it with)
CASES: list[tuple[str, str, Statement, str, float]] = [
    ("thm_f10_bias", "printed (11)", thm_f10_bias.statement, "(11)", RANK),
    ("thm_f10_bias", "repaired", thm_f10_bias.sharpened, "without kap", SIZES["rho"]),  # type: ignore[list-item]
    ("thm_f13_bias", "printed (24)", thm_f13_bias.statement, "(21)", 1),
    ("thm_f13_bias", "repaired", thm_f13_bias.sharpened, "sharpened", 1),
    ("cor_f18", "printed (27)", lemma_f17.corollary, "(27)", 1),
    ("cor_f18", "repaired", lemma_f17.corollary_squared, "(27), squared", 1),
    ("lemma_f14_right", "repaired", lemma_f14_right.before_kappa, "before kap", 1),
    ("thm_f11_upper", "norm squared, constant 4", thm_f11.upper_weaker, "upper bound", RANK),
    ("thm_f11_lower", "printed, eta = 1/2", thm_f11.lower_as_printed, "lower bound", RANK * ETA),
    ("thm_f15", "printed, |H Wl|", thm_f15.with_product, "F.15", 1),
    ("thm_f15", "printed, |Wl|", thm_f15.layer_alone, "F.15", 1),
]


def network(k: Floats, so: str) -> Instance:
    """Random instances of the shifted setting; `so` is "Si" for no covariate shift."""
    rng, shapes = np.random.default_rng(3), shift.free(SIZES)
    parameters = Instance({n: k.wrap(rng.standard_normal((BATCH, *s))) for n, s in shapes.items()})
    assert instances.count(shapes) > 0
    x = shift.build(k, parameters, {**SIZES, "So": so})
    return Instance({**x, "eta": ETA})


def slack(k: Floats, statement: Statement, x: Instance, conclusion: str) -> Any:
    """Right minus left of a conclusion."""
    _, claims = k.collect(statement, x)
    left, right = dict(claims)[conclusion].args
    return right - left


@pytest.mark.parametrize(("claim", "form", "statement", "conclusion", "factor"), CASES)
def test_simulators_and_claims_state_the_same_bound(
    claim: str, form: str, statement: Statement, conclusion: str, factor: float
) -> None:
    k = Floats()
    x = network(k, "shifted")
    s = setting.quantities(k, x)
    made = risks.bounds(k, x, s, rank_D=RANK, rank_M=SIZES["rho"], covariate_shift=True, realisable=False)  # type: ignore[arg-type]
    bound = next(b for b in made if (b.claim, b.form) == (claim, form))
    there = (bound.limit - bound.value) * (1 if bound.upper else -1)
    assert np.allclose(slack(k, statement, x, conclusion), factor * there, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("form", "statement", "conclusion"),
    [("printed", thm_f15.remark, "F.16"), ("exact identity", thm_f15.identity, "identity")],
)
def test_the_same_without_covariate_shift(form: str, statement: Statement, conclusion: str) -> None:
    k = Floats()
    x = network(k, "Si")
    s = setting.quantities(k, x)
    made = risks.bounds(k, x, s, rank_D=RANK, rank_M=SIZES["rho"], covariate_shift=False, realisable=False)  # type: ignore[arg-type]
    bound = next(b for b in made if (b.claim, b.form) == ("remark_f16", form))
    assert np.allclose(slack(k, statement, x, conclusion), bound.limit - bound.value, rtol=1e-6, atol=1e-8)
