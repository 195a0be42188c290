"""The minimum-norm solution of LoRA in closed form.

Source: S2FT, Lemma F.9, (9), (10), and (15) for the population. Symbols as in `theory.s2ft.empirical`: the pair
(U, V) (m x r, k x r) of least |U|_F^2 + |V|_F^2 among the minimisers of R_n(U V') satisfies
U V' = H^+ SVD_r(M) A^+, M = H H^+ D_hat Sig_hat L' A^+, and its excess risks are tr (Bo - W - SVD_r(M) A^+ L) Sig_o (...)'.

Proved for every size, number of samples and rank, in five steps: R_n(U V') is |H U V' A - M|_F^2 plus a constant;
no change of rank r does better than the formula (Eckart-Young); (P1 U, P2 V) has the risk of (U, V); it is
shorter unless it is (U, V); and for a minimiser its product is the formula. The printed proof drops the
arbitrary parts of (10) "by minimum norm" of U V', while the norm is that of (U, V): the conclusion is right.
It fails in one point: where sigma_r(M) = sigma_{r+1}(M) there are several SVD_r(M), the risks of all are
equal, but only some are of minimum norm. So the formula holds for the SVD_r that a minimiser picks (for every
one if the r-th singular value has a gap), not for any SVD_r.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Reading, Repair, Setting
from theory.evidence import Counterexample, WordProof
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import empirical, setting

PICKED = "(U1, V1) minimises, H U1 V1' A = SVD_r(M)"


def formula(k: Kit, x: Instance, s: Any) -> tuple[Mat, Mat]:
    """(SVD_r(M), H^+ SVD_r(M) A^+)."""
    best = k.svd_r(s.M, x.r, "SVD_r(M)")
    return best, s.H_pinv @ best @ s.A_pinv


def projected(k: Kit, x: Instance, s: Any) -> tuple[Mat, Mat]:
    """(P1 U, P2 V)."""
    return s.P1 @ x.U1, s.P2 @ x.V1


def minimal(k: Kit, x: Instance) -> None:
    """For all (U, V): (9), the risk and the length of the projected pair; for K of rank r: Eckart-Young."""
    s = empirical.quantities(k, x)
    empirical.hypotheses(k, x, s)
    U, V = projected(k, x, s)
    R = empirical.risk(k, x, x.U1 @ x.V1.T)
    _, dW = formula(k, x, s)
    rest = k.fro2(x.D @ x.X + s.E) - k.fro2(s.N)
    k.claim("(9)", k.eq(R, k.fro2(x.H @ x.U1 @ x.V1.T @ s.A - s.N) + rest))
    k.claim("the projected pair has the same risk", k.eq(empirical.risk(k, x, U @ V.T), R))
    lost = k.fro2(x.U1 - U) + k.fro2(x.V1 - V)
    k.claim("it is shorter", k.eq(k.fro2(x.U1) + k.fro2(x.V1), k.fro2(U) + k.fro2(V) + lost))
    other = empirical.risk(k, x, k.svd_r(x.K, x.r, "any change of rank r"))
    k.claim("no change of rank r does better", k.le(empirical.risk(k, x, dW), other))


def minimal_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Eckart-Young for M against H K_r A."""
    s = empirical.quantities(k, x)
    return {"no change of rank r does better": [k.eckart_young(s.M, x.r, x.H, x.K, s.A)]}


def picked(k: Kit, x: Instance) -> None:
    """For a minimiser, which picks its SVD_r(M) at a tie: its projected product is the formula; the risks."""
    s = empirical.quantities(k, x)
    empirical.hypotheses(k, x, s)
    k.given("So psd", k.psd(x.So))
    best, dW = formula(k, x, s)
    k.given(PICKED, k.eq(x.H @ x.U1 @ x.V1.T @ s.A, best))
    U, V = projected(k, x, s)
    k.claim("U V' = H^+ SVD_r(M) A^+", k.eq(U @ V.T, dW))
    fit = x.H @ U @ V.T @ x.L
    k.claim(
        "excess risk",
        k.eq(k.fro2((x.Bo - x.W - fit) @ x.So), empirical.excess_out(k, x, best @ s.A_pinv @ x.L)),
    )


def picked_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Uses what it means to be a minimiser."""
    k.use(PICKED)
    return {}


def any_part(k: Kit, x: Instance) -> None:
    """For any SVD_r(M): the formula has a pair of factors no longer than those of any pair with no larger risk.

    The shortest pair of factors of a matrix has squared length twice its nuclear norm.
    """
    s = empirical.quantities(k, x)
    empirical.hypotheses(k, x, s)
    _, dW = formula(k, x, s)
    k.given("(U1, V1) does as well", k.le(empirical.risk(k, x, x.U1 @ x.V1.T), empirical.risk(k, x, dW)))
    k.claim("no shorter pair", k.le(2 * k.nuc(dW), k.fro2(x.U1) + k.fro2(x.V1)))


def loss_bounded(k: Kit, x: Instance) -> None:
    """A consequence: the formula never does worse than no change."""
    s = empirical.quantities(k, x)
    empirical.hypotheses(k, x, s)
    _, dW = formula(k, x, s)
    k.claim("R_n(formula) <= R_n(0)", k.le(empirical.risk(k, x, dW), empirical.risk(k, x, 0 * dW)))


# -- instances ------------------------------------------------------------------------------------------------
def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """An instance with samples whose (U1, V1) is a minimiser: factors of the formula and parts nobody sees.

    The setting makes M = F diag(sv) Q2' from orthogonal matrices; here sv is made to descend, so that the
    first r columns are the top ones.
    """
    size = t.sv.shape[1]
    squares = [k.sq(k.e(t.sv, 0, i)) for i in range(size)]
    t = Instance({**t, "sv": k.mat([[k.sum(squares[i:]) for i in range(size)]])})
    x = empirical.build(k, t, d)
    s = empirical.quantities(k, x)
    F, Q2 = (k.cols(k.skew_orth(z), range(d["r"])) for z in (t.Z1, t.Z2))
    values = k.diagm(t.sv, d["r"], d["r"])
    U = s.H_pinv @ F + x.U1 - s.P1 @ x.U1
    V = s.A_pinv @ Q2 @ values + x.V1 - s.P2 @ x.V1
    return Instance({**x, "U1": U, "V1": V})


def letters_minimal(k: Any) -> Instance:
    """The letters without an out-of-distribution task."""
    return empirical.in_distribution(empirical.letters(k))


SETTING = Setting(
    dims=setting.DIMS,
    free=empirical.free,
    build=build,
    letters=empirical.letters,
    boundary=empirical.BOUNDARY,
)
ANY_PAIR = Setting(
    dims=setting.DIMS,
    free=empirical.free,
    build=empirical.build,
    letters=letters_minimal,
    boundary=empirical.BOUNDARY,
)
# H = diag(1, 2) and M = I: learning the first output takes a change of norm 1, the second one of norm 1/2
TIE = empirical.instance(2, H=[["1", "0"], ["0", "2"]], U1=[["0"], ["1"]], V1=[["0"], ["1/2"]])
GAP = empirical.instance(2, T=[["2", "0"], ["0", "1"]], U1=[["2"], ["0"]], V1=[["1"], ["0"]])
NOISY = empirical.instance(2, T=[["2", "0"], ["0", "1"]], U1=[["1"], ["1"]], V1=[["1"], ["0"]])
UNUSED = ("L Sig_hat L' is not zero",)
TRUE = Control("R_n(formula) <= R_n(0)", kind="true", statement=loss_bounded)

CLAIM = Claim(
    id="s2ft/lemma_f9",
    source=setting.source("Lemma F.9, (9), (10), (15)"),
    sentence=(
        "The minimum-norm LoRA solution is U V' = H^+ SVD_r(M) A^+ with M = H H^+ D_hat Sig_hat L' A^+, and its "
        "excess risks follow by inserting it."
    ),
    headline=(
        "True for every size, number of samples and rank, with the SVD_r that the minimum norm picks; for any "
        "SVD_r it is false where the r-th and the next singular value of M are equal."
    ),
    setting=SETTING,
    defect="missing hypothesis",
    readings=(
        Reading(
            name="the SVD_r that the solution picks",
            statement=picked,
            evidence=WordProof(picked_proof),
            scope="every size, number of samples and rank; the projected pair is the one of least norm",
            unused=UNUSED,
            controls=(
                Control("right sides larger by 1/1000", instance=GAP, tighten="1/1000"),
                Control("(U1, V1) no minimiser", instance={**GAP, "U1": [["1"], ["0"]]}, drop=(PICKED,)),
                TRUE,
            ),
        ),
        Reading(
            name="why it is the solution",
            sentence=(
                "R_n(U V') = |H U V' A - N|^2 + a constant; no change of rank r does better than the formula; "
                "(P1 U, P2 V) has the risk of (U, V) and is shorter by |U - P1 U|^2 + |V - P2 V|^2."
            ),
            statement=minimal,
            setting=ANY_PAIR,
            evidence=WordProof(minimal_proof),
            scope="every size, number of samples and rank",
            unused=UNUSED,
            controls=(
                Control("right sides larger or smaller by 1/1000", instance=NOISY, tighten="1/1000"),
                Control("(9) larger by 1/1000", instance=NOISY, tighten="1/1000", only="(9)"),
                TRUE,
            ),
        ),
        Reading(
            name="any SVD_r",
            sentence="The formula with any best rank-r part of M has least norm among the minimisers.",
            statement=any_part,
            evidence=Counterexample(TIE),
            scope="every size two, r = 1; needs sigma_r(M) = sigma_{r+1}(M)",
            repair=Repair(
                sentence=(
                    "U V' = H^+ SVD_r(M) A^+ for the SVD_r(M) that the minimiser fits, H U V' A; with a gap after "
                    "the r-th singular value there is only one"
                ),
                statement=picked,
                evidence=WordProof(picked_proof),
                necessary={PICKED: {**GAP, "U1": [["1"], ["0"]]}},
            ),
            controls=(
                Control(
                    "the repaired sides larger by 1/1000", statement=picked, tighten="1/1000", instance=GAP
                ),
                Control("the repair", kind="true", statement=picked),
            ),
        ),
    ),
)
