"""What a shift of the gradient, of the weights or of the inputs does to PEFT and to full fine-tuning.

Source: Theorem 4 (second-hand). H (d x d) positive definite Hessian at the optimum, P (d x k) a basis of the PEFT
subspace, eps (d x 1) the shift, B = P (P'HP)^+ P', C = H^-1 - B, g (d x 1) the gradient of the full loss at PEFT's
optimum.

- Re-optimised after a gradient shift, the loss L(w) becomes L(w) + eps'w. What tuning again changes of the shifted
  loss is -eps' H^-1 eps / 2 (full) and -eps' B eps / 2 (PEFT). The gap is exact: C = C H C, so
  2 (dL_peft - dL_full) = (C eps)' H (C eps) >= 0. ">" is false (eps = 0, or P square).
- With the shift's own loss eps'w counted too (the shifted loss after tuning again minus the old loss before) the
  difference is [(eps + g)' C (eps + g) - g' C g] / 2: a shift along -g makes it negative, so not even ">=" holds; the
  mean over +-eps is the gap above.
- The gap vanishes iff H^-1 eps lies in the subspace, that is eps in range(H P); not iff eps does. Both directions of
  the printed criterion fail at 2 x 2.
- The comparison of B with H^-1 goes the other way: B <= H^-1. For a semidefinite H with H^+ neither order holds.
- Frozen models under a weight shift: PEFT's change minus full's is g' eps. It changes sign with eps, is zero on average
  over a symmetric set, and never negative in the worst case over +-eps.
- Input noise of variance s^2 adds s^2 |w|^2 to a least-squares loss: from w0 = 0 on isotropic inputs PEFT has the
  smaller weights and loses less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, WordProof
from theory.peft_vs_fft.setting import source
from theory.protocol import Instance, Kit, Mat

SIZES: list[dict[str, Any]] = [{"d": 1, "k": 1}, {"d": 2, "k": 1}, {"d": 3, "k": 1}, {"d": 3, "k": 2}]


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """A root of the Hessian, the subspace, a shift, a gradient and a combination of the basis."""
    n = d["d"]
    return {"R": (n, n), "P": (n, d["k"]), "eps": (n, 1), "g": (n, 1)}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """H = R R' + I, and a gradient g orthogonal to the subspace (PEFT has converged)."""
    n = d["d"]
    g = t.g - k.proj(t.P) @ t.g
    return Instance(H=t.R @ t.R.T + k.eye(n), P=t.P, eps=t.eps, g=g)


def letters(k: Any) -> Instance:
    """Letters for every dimension."""
    return Instance(
        H=k.letter("H", "d", "d", symmetric=True),
        P=k.letter("P", "d", "k"),
        eps=k.letter("eps", "d", 1),
        g=k.letter("g", "d", 1),
    )


ONE: Json = {"H": [["1"]], "P": [["1"]], "eps": [["1"]], "g": [["0"]]}
SKEW: Json = {"H": [["2", "1"], ["1", "1"]], "P": [["1"], ["0"]], "g": [["0"], ["0"]]}
ALONG: Json = {**SKEW, "eps": [["1"], ["0"]]}  # in range(P), not in range(H P)
SEEN: Json = {**SKEW, "eps": [["2"], ["1"]]}  # in range(H P), not in range(P)
SETTING = Setting(
    dims=SIZES, free=free, build=build, letters=letters, boundary=[ONE, {**ONE, "P": [["0"]]}, ALONG, SEEN]
)


def hessian(k: Kit, x: Instance) -> tuple[Mat, Mat]:
    """(H^-1, B) of a positive definite H: psd, and the inverse exists."""
    k.given("H psd", k.psd(x.H))
    B = x.P @ k.pinv(x.P.T @ x.H @ x.P) @ x.P.T
    return k.inv(x.H), B


# -- re-optimised after a gradient shift ---------------------------------------------------------------------------
def reoptimised(k: Kit, x: Instance) -> None:
    """2 (dL_peft - dL_full) = (C eps)' H (C eps), and it is not negative."""
    H_inv, B = hessian(k, x)
    C = H_inv - B
    gap = k.tr(x.eps.T @ C @ x.eps)
    k.claim("gap", k.eq(gap, k.tr((C @ x.eps).T @ x.H @ (C @ x.eps))))
    k.claim("dL_peft >= dL_full", k.le(k.num(0), gap))


def reoptimised_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """C = C H C, and H is psd."""
    H_inv, B = hessian(k, x)
    return {"dL_peft >= dL_full": [k.against_psd("H psd", (H_inv - B) @ x.eps)]}


def reoptimised_weakly(k: Kit, x: Instance) -> None:
    """With >= only."""
    H_inv, B = hessian(k, x)
    k.claim("dL_peft >= dL_full", k.le(k.num(0), k.tr(x.eps.T @ (H_inv - B) @ x.eps)))


def reoptimised_strictly(k: Kit, x: Instance) -> None:
    """As printed, with a strict inequality."""
    H_inv, B = hessian(k, x)
    k.claim("dL_peft > dL_full", k.lt(k.num(0), k.tr(x.eps.T @ (H_inv - B) @ x.eps)))


def gap_is_bounded(k: Kit, x: Instance) -> None:
    """A weaker statement: the gap is at most eps' H^-1 eps."""
    H_inv, B = hessian(k, x)
    full = k.tr(x.eps.T @ H_inv @ x.eps)
    k.claim("gap <= full change", k.le(full - k.tr(x.eps.T @ B @ x.eps), full))


def converged(k: Kit, x: Instance) -> None:
    """The gradient of the full loss at PEFT's optimum has no part in the subspace."""
    k.given("PEFT has converged", k.eq(x.P.T @ x.g, k.zeros(x.P.shape[1], 1)))


def whole_gap(k: Kit, x: Instance, eps: Mat) -> Any:
    """Twice dL_peft - dL_full, the shifted loss after tuning again minus the old one before.

    PEFT stands at w_full + H^-1 g, so its share of eps'w is larger by eps' H^-1 g.
    """
    H_inv, B = hessian(k, x)
    return 2 * k.tr(eps.T @ H_inv @ x.g) + k.tr(eps.T @ (H_inv - B) @ eps)


def whole_change(k: Kit, x: Instance) -> None:
    """The shift's own loss counted, with >= only."""
    converged(k, x)
    k.claim("dL_peft >= dL_full", k.le(k.num(0), whole_gap(k, x, x.eps)))


def whole_change_repaired(k: Kit, x: Instance) -> None:
    """Twice the difference is (eps + g)' C (eps + g) - g' C g; over +-eps it has the mean (C eps)' H (C eps)."""
    converged(k, x)
    H_inv, B = hessian(k, x)
    C, moved = H_inv - B, x.eps + x.g
    k.claim("difference", k.eq(whole_gap(k, x, x.eps), k.tr(moved.T @ C @ moved) - k.tr(x.g.T @ C @ x.g)))
    both = whole_gap(k, x, x.eps) + whole_gap(k, x, -x.eps)
    k.claim("mean over +-eps", k.eq(both / 2, k.tr((C @ x.eps).T @ x.H @ (C @ x.eps))))
    k.claim("mean dL_peft >= mean dL_full", k.le(k.num(0), both))


def whole_change_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """C g = H^-1 g, since P'g = 0; and C = C H C with H psd."""
    k.use("PEFT has converged")
    H_inv, B = hessian(k, x)
    term = k.against_psd("H psd", (H_inv - B) @ x.eps)
    return {"mean dL_peft >= mean dL_full": [term, term]}


def not_below(k: Kit, x: Instance) -> None:
    """A weaker statement: the difference is at least -g' C g."""
    converged(k, x)
    H_inv, B = hessian(k, x)
    k.claim("bounded", k.le(-k.tr(x.g.T @ (H_inv - B) @ x.g), whole_gap(k, x, x.eps)))


STILL: Json = {**ONE, "eps": [["0"]]}
UNTUNED: Json = {"H": [["1"]], "P": [["0"]], "eps": [["-1"]], "g": [["1"]]}
REOPTIMISED = Claim(
    id="peft_vs_fft/thm_4_reoptimised",
    source=source("Theorem 4, after re-optimising"),
    sentence="After a shift of the gradient and re-optimising, the loss of PEFT changes by more than that of full tuning.",
    headline=(
        "Of what tuning again changes: true as >=, with an exact gap, and false as >. With the shift's own loss counted: "
        "false even as >=, true on average over opposite shifts."
    ),
    setting=SETTING,
    defect="missing hypothesis",
    readings=(
        Reading(
            name="what tuning again changes, strictly as printed",
            sentence="Tuning again lowers the shifted loss of PEFT by strictly less than that of full tuning.",
            statement=reoptimised_strictly,
            evidence=Counterexample(STILL),
            scope="one parameter; the shifted loss after minus before tuning again, the shift's own loss left out",
            open_instance=ONE,
            repair=Repair(
                sentence="dL_peft - dL_full = (C eps)' H (C eps) / 2 >= 0 with C = H^-1 - P (P'HP)^+ P'",
                statement=reoptimised,
                evidence=WordProof(reoptimised_proof),
                sharp=ONE,
            ),
            controls=(
                Control(
                    "the gap larger by 1/1000",
                    statement=reoptimised,
                    tighten="1/1000",
                    only="gap",
                    instance=ALONG,
                ),
                Control("the gap is at most the full change", kind="true", statement=gap_is_bounded),
            ),
        ),
        Reading(
            name="what tuning again changes, not strictly",
            sentence="Tuning again lowers the shifted loss of PEFT by no more than that of full tuning.",
            statement=reoptimised,
            evidence=WordProof(reoptimised_proof),
            scope="every positive definite Hessian, subspace and shift; with the exact gap",
            controls=(
                Control("the gap larger by 1/1000", tighten="1/1000", only="gap", instance=ALONG),
                Control("the order alone", kind="true", statement=reoptimised_weakly),
            ),
        ),
        Reading(
            name="the shift's own loss counted, not strictly",
            sentence=(
                "The shifted loss after tuning again, less the old loss before, is for PEFT at least what it is for full "
                "tuning."
            ),
            statement=whole_change,
            evidence=Counterexample(UNTUNED),
            scope="one parameter that PEFT does not tune, a shift that moves the optimum towards PEFT",
            open_instance={**UNTUNED, "eps": [["-3/2"]]},
            repair=Repair(
                sentence=(
                    "dL_peft - dL_full = [(eps + g)' C (eps + g) - g' C g] / 2, g the full gradient at PEFT's optimum; its "
                    "mean over +eps and -eps is (C eps)' H (C eps) / 2 >= 0"
                ),
                statement=whole_change_repaired,
                evidence=WordProof(whole_change_proof),
                necessary={"PEFT has converged": {**ONE, "g": [["1"]]}},
            ),
            controls=(
                Control(
                    "the difference larger by 1/1000",
                    statement=whole_change_repaired,
                    tighten="1/1000",
                    only="difference",
                    instance={**UNTUNED, "eps": [["1"]]},
                ),
                Control("at least -g' C g", kind="true", statement=not_below),
            ),
        ),
    ),
)


# -- when is it strict? -----------------------------------------------------------------------------------------------
def strict_if(k: Kit, x: Instance) -> None:
    """A part of eps orthogonal to the subspace makes the inequality strict."""
    outside = x.eps - k.proj(x.P) @ x.eps
    k.given("eps has an orthogonal part", k.lt(k.num(0), k.fro2(outside)))
    reoptimised_strictly(k, x)


def strict_only_if(k: Kit, x: Instance) -> None:
    """Without such a part there is equality."""
    k.given("eps in the subspace", k.eq(k.proj(x.P) @ x.eps, x.eps))
    H_inv, B = hessian(k, x)
    k.claim("equality", k.eq(k.tr(x.eps.T @ (H_inv - B) @ x.eps), k.num(0)))


def strict_repaired(k: Kit, x: Instance) -> None:
    """The gap is (C eps)' H (C eps), 0 for eps = H P c; and where it is 0, C eps = 0, eps = H B eps lies in range(H P)."""
    H_inv, B = hessian(k, x)
    C = H_inv - B
    k.claim("eps less its part in range(H P)", k.eq(x.eps - x.H @ B @ x.eps, x.H @ C @ x.eps))
    k.claim("gap", k.eq(k.tr(x.eps.T @ C @ x.eps), k.tr((C @ x.eps).T @ x.H @ (C @ x.eps))))
    k.claim("P' H C H P = 0", k.eq(x.P.T @ x.H @ C @ x.H @ x.P, k.zeros(x.P.shape[1], x.P.shape[1])))


def nothing(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The definitions suffice."""
    return {}


def _strict(name: str, statement: Any, instance: Json) -> Reading:
    return Reading(
        name=name,
        statement=statement,
        evidence=Counterexample(instance),
        scope="two parameters, a subspace of dimension 1",
        repair=Repair(
            sentence=(
                "The inequality is strict iff eps lies outside range(H P): the gap is (C eps)' H (C eps) / 2 and "
                "P' H C H P = 0"
            ),
            statement=strict_repaired,
            evidence=WordProof(nothing),
        ),
        controls=(
            Control(
                "the gap larger by 1/1000",
                statement=strict_repaired,
                tighten="1/1000",
                only="gap",
                instance=ALONG,
            ),
            Control("the repair", kind="true", statement=strict_repaired),
        ),
    )


STRICT = Claim(
    id="peft_vs_fft/thm_4_strict",
    source=source("Theorem 4, strictness"),
    sentence="The inequality is strict if and only if the shift has a part orthogonal to the PEFT subspace.",
    headline=(
        "False in both directions at two parameters: what matters is whether H^-1 eps, not eps, lies in the subspace."
    ),
    setting=SETTING,
    defect="false statement",
    uses=("peft_vs_fft/thm_4_reoptimised",),
    readings=(
        _strict("if", strict_if, SEEN),
        _strict("only if", strict_only_if, ALONG),
    ),
)


# -- the comparison of the two quadratic forms -----------------------------------------------------------------------
def larger_form(k: Kit, x: Instance) -> None:
    """As printed: eps' P (P'HP)^+ P' eps is the larger one."""
    H_inv, B = hessian(k, x)
    k.claim("eps' B eps > eps' H^-1 eps", k.lt(k.tr(x.eps.T @ H_inv @ x.eps), k.tr(x.eps.T @ B @ x.eps)))


def loewner(k: Kit, x: Instance) -> None:
    """In the order of matrices: B >= H^-1."""
    H_inv, B = hessian(k, x)
    k.claim("B >= H^-1", k.psd(B - H_inv))


def smaller_form(k: Kit, x: Instance) -> None:
    """The order that holds, for every eps."""
    H_inv, B = hessian(k, x)
    k.claim("eps' B eps <= eps' H^-1 eps", k.le(k.tr(x.eps.T @ B @ x.eps), k.tr(x.eps.T @ H_inv @ x.eps)))


def smaller_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The difference is (C eps)' H (C eps)."""
    H_inv, B = hessian(k, x)
    return {"eps' B eps <= eps' H^-1 eps": [k.against_psd("H psd", (H_inv - B) @ x.eps)]}


def semidefinite(k: Kit, x: Instance) -> None:
    """For H psd, with H^+: the order that holds for H positive definite."""
    k.given("H psd", k.psd(x.H))
    B = x.P @ k.pinv(x.P.T @ x.H @ x.P) @ x.P.T
    k.claim(
        "eps' B eps <= eps' H^+ eps", k.le(k.tr(x.eps.T @ B @ x.eps), k.tr(x.eps.T @ k.pinv(x.H) @ x.eps))
    )


def semidefinite_repaired(k: Kit, x: Instance) -> None:
    """For eps = H u, a shift that H can answer: u' H B H u <= u' H u = eps' H^+ eps."""
    k.given("H psd", k.psd(x.H))
    k.given("eps = H u", k.eq(x.eps, x.H @ x.g))
    B = x.P @ k.pinv(x.P.T @ x.H @ x.P) @ x.P.T
    k.claim(
        "eps' B eps <= eps' H^+ eps", k.le(k.tr(x.eps.T @ B @ x.eps), k.tr(x.eps.T @ k.pinv(x.H) @ x.eps))
    )


def semidefinite_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """(u - B H u)' H (u - B H u) >= 0."""
    k.use("eps = H u")
    B = x.P @ k.pinv(x.P.T @ x.H @ x.P) @ x.P.T
    return {"eps' B eps <= eps' H^+ eps": [k.against_psd("H psd", x.g - B @ x.H @ x.g)]}


def build_semidefinite(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """H = R R' of any rank, any shift."""
    return Instance(H=t.R @ t.R.T, P=t.P, eps=t.eps, g=t.g)


def build_answered(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """H = R R' of any rank, and the shift eps = H g, which H can answer."""
    x = build_semidefinite(k, t, d)
    return Instance({**x, "eps": x.H @ x.g})


FLAT: Json = {"H": [["1", "0"], ["0", "0"]], "P": [["1"], ["1"]], "eps": [["0"], ["1"]], "g": [["0"], ["0"]]}
SEMIDEFINITE = Setting(dims=SIZES, free=free, build=build_semidefinite, letters=letters, boundary=[ONE, SEEN])
ANSWERED = Setting(
    dims=SIZES, free=free, build=build_answered, letters=letters, boundary=[{**ONE, "g": [["1"]]}]
)
NO_SUBSPACE: Json = {**ONE, "P": [["0"]]}
FORMS = Repair(
    sentence="eps' P (P'HP)^+ P' eps <= eps' H^-1 eps for every eps and every positive definite H",
    statement=smaller_form,
    evidence=WordProof(smaller_proof),
    sharp=ONE,
)
FORM_CONTROLS = (
    Control("the larger side smaller by 1/50", statement=smaller_form, tighten="1/50", instance=ONE),
    Control("the repair", kind="true", statement=smaller_form),
)
PINV = Claim(
    id="peft_vs_fft/thm_4_pinv",
    source=source("Theorem 4, the comparison in its proof"),
    sentence="Comparing eps' P (P'HP)^+ P' eps with eps' H^-1 eps shows that PEFT loses more.",
    headline=(
        "False: the form of PEFT is the smaller one for every shift, which is why its loss falls by less, not why it "
        "is less robust."
    ),
    setting=SETTING,
    defect="false statement",
    uses=("peft_vs_fft/thm_4_reoptimised",),
    readings=(
        Reading(
            name="for every shift",
            statement=larger_form,
            evidence=Counterexample(ONE),
            scope="one parameter",
            open_instance=ALONG,
            repair=FORMS,
            controls=FORM_CONTROLS,
        ),
        Reading(
            name="in the order of matrices",
            statement=loewner,
            evidence=Counterexample(NO_SUBSPACE),
            scope="one parameter, the empty subspace",
            open_instance=ALONG,
            repair=FORMS,
            controls=FORM_CONTROLS,
        ),
        Reading(
            name="semidefinite Hessian, the order that holds for a definite one",
            statement=semidefinite,
            setting=SEMIDEFINITE,
            evidence=Counterexample(FLAT),
            scope="two parameters, H of rank 1",
            open_instance={**FLAT, "eps": [["1"], ["3"]]},
            repair=Repair(
                sentence="For H psd it holds for every eps in range(H)",
                statement=semidefinite_repaired,
                setting=ANSWERED,
                evidence=WordProof(semidefinite_proof),
                necessary={"eps = H u": FLAT},
                sharp={**ONE, "g": [["1"]]},
            ),
            controls=(
                Control(
                    "the repair without eps = H u",
                    statement=semidefinite_repaired,
                    drop=("eps = H u",),
                    instance=FLAT,
                ),
                Control("the repair", kind="true", statement=semidefinite_repaired),
            ),
        ),
    ),
)


# -- frozen models --------------------------------------------------------------------------------------------------
def frozen_changes(k: Kit, x: Instance, eps: Mat) -> tuple[Any, Any]:
    """(PEFT's, full's) loss change under a shift eps of the weights, to second order (exact for quadratics)."""
    curvature = k.tr(eps.T @ x.H @ eps) / 2
    return k.tr(x.g.T @ eps) + curvature, curvature


def frozen(k: Kit, x: Instance) -> None:
    """As printed: PEFT's loss rises more. g is orthogonal to the subspace, since PEFT has converged."""
    k.given("H psd", k.psd(x.H))
    k.given("PEFT has converged", k.eq(x.P.T @ x.g, k.zeros(x.P.shape[1], 1)))
    peft, full = frozen_changes(k, x, x.eps)
    k.claim("dL_peft > dL_full", k.lt(full, peft))


def frozen_repaired(k: Kit, x: Instance) -> None:
    """The difference is g' eps: odd in eps, so zero on average over +-eps; in the worse of the two PEFT loses no less."""
    k.given("H psd", k.psd(x.H))
    (peft, full), (back, full_back) = frozen_changes(k, x, x.eps), frozen_changes(k, x, -x.eps)
    k.claim("difference", k.eq(peft - full, k.tr(x.g.T @ x.eps)))
    k.claim("average over +-eps", k.eq(peft + back, full + full_back))
    k.claim("full loses the same both ways", k.eq(full, full_back))


AGAINST: Json = {"H": [["1"]], "P": [["0"]], "eps": [["-1"]], "g": [["1"]]}
FROZEN = Claim(
    id="peft_vs_fft/thm_4_frozen",
    source=source("Theorem 4, frozen models under a shift of the weights"),
    sentence="With both models frozen, a shift of the weights raises the loss of PEFT more than that of full tuning.",
    headline=(
        "False: the difference is g' eps, which changes sign with the shift; on average over a symmetric set the two "
        "lose the same, and only the worst case is never better for PEFT."
    ),
    setting=SETTING,
    defect="false statement",
    readings=(
        Reading(
            name="for every shift",
            statement=frozen,
            evidence=Counterexample(AGAINST),
            scope="one parameter that PEFT does not tune",
            open_instance={**AGAINST, "eps": [["-2"]]},
            repair=Repair(
                sentence=(
                    "dL_peft - dL_full = g' eps; over +eps and -eps the sums are equal, and full tuning loses the same "
                    "both ways, so in the worse one PEFT loses no less"
                ),
                statement=frozen_repaired,
                evidence=WordProof(nothing),
                sharp=AGAINST,
            ),
            controls=(
                Control(
                    "the difference larger by 1/1000",
                    statement=frozen_repaired,
                    tighten="1/1000",
                    only="difference",
                    instance={**AGAINST, "eps": [["1"]]},
                ),
                Control("the repair", kind="true", statement=frozen_repaired),
            ),
        ),
    ),
)


# -- noise on the inputs -------------------------------------------------------------------------------------------
def input_noise(k: Kit, x: Instance) -> None:
    """Linear regression from w0 = 0 on isotropic inputs: |w_peft|^2 against |w_full|^2, both times s^2."""
    peft = k.proj(x.P) @ x.eps  # the full solution is called eps here: a vector of its own
    k.claim("|w_peft|^2 > |w_full|^2", k.lt(k.fro2(x.eps), k.fro2(peft)))


def input_noise_repaired(k: Kit, x: Instance) -> None:
    """There PEFT's solution is a projection of the full one, hence not longer."""
    peft = k.proj(x.P) @ x.eps
    k.claim("|w_peft|^2 <= |w_full|^2", k.le(k.fro2(peft), k.fro2(x.eps)))


def input_noise_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The difference is the squared length of what the projection removes."""
    peft = k.proj(x.P) @ x.eps
    return {"|w_peft|^2 <= |w_full|^2": [k.square(x.eps - peft)]}


NOISE_SETTING = Setting(
    dims=SIZES,
    free=lambda d: {"P": (d["d"], d["k"]), "eps": (d["d"], 1)},
    build=lambda k, t, d: Instance(P=t.P, eps=t.eps),
    letters=lambda k: Instance(P=k.letter("P", "d", "k"), eps=k.letter("w", "d", 1)),
    boundary=[{"P": [["1"]], "eps": [["1"]]}, {"P": [["0"]], "eps": [["1"]]}],
)
INPUT_NOISE = Claim(
    id="peft_vs_fft/thm_4_input_noise",
    source=source("Theorem 4, noise on the inputs"),
    sentence="Noise on the inputs raises the loss of PEFT more than that of full tuning.",
    headline=(
        "False for linear regression: noise costs s^2 |w|^2, and from zero weights on isotropic inputs PEFT's weights "
        "are a projection of the full ones, never longer."
    ),
    setting=NOISE_SETTING,
    defect="false statement",
    readings=(
        Reading(
            name="linear regression from w0 = 0, isotropic inputs",
            statement=input_noise,
            evidence=Counterexample({"P": [["0"]], "eps": [["1"]]}),
            scope="one weight that PEFT does not tune",
            open_instance={"P": [["1"], ["0"]], "eps": [["1"], ["1"]]},
            repair=Repair(
                sentence=(
                    "There the noise costs PEFT s^2 |P P^+ w|^2 <= s^2 |w|^2; in general the sign is that of "
                    "|w_peft| - |w_full|"
                ),
                statement=input_noise_repaired,
                evidence=WordProof(input_noise_proof),
                sharp={"P": [["1"]], "eps": [["1"]]},
            ),
            controls=(
                Control(
                    "the repair smaller by 1/50",
                    statement=input_noise_repaired,
                    tighten="1/50",
                    instance={"P": [["1"]], "eps": [["1"]]},
                ),
                Control("the repair", kind="true", statement=input_noise_repaired),
            ),
        ),
    ),
)

CLAIMS = (REOPTIMISED, STRICT, PINV, FROZEN, INPUT_NOISE)
