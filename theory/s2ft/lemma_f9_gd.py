"""Does gradient descent reach the minimum-norm solution that the paper analyses?

Source: S2FT, F.2, around (5) and (6): "implicit regularization" is quoted as the reason to look at minimum-norm
solutions only. Symbols as in `theory.s2ft.empirical`; (U, V) (m x r, k x r) are LoRA's factors, Vs (k x s) that
of S2FT, P1 = H^+ H, P2 = A A^+, eta the step.

From LoRA's usual start, one factor zero, the other not, it does not where A or H has a kernel: no step ever
changes the part of V in the kernel of A or of U in the kernel of H, so the product U V' keeps a foreign part,
and so does the network on inputs that the samples do not show. One step on one weight pair shows it. Where H has
full column rank and A is invertible, every minimiser has the right product. The norm is missed even then, by
steps of finite size from a balanced start (U'U = V'V). Gradient flow conserves U'U - V'V and both foreign parts,
so from a balanced start without foreign parts every minimiser that it converges to is the minimum-norm solution
(true for every size). S2FT from V = 0 has no foreign part: if it converges to a minimiser, it is the solution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Open, WordProof
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import empirical, lemma_f9, lemma_f12, setting
from theory.s2ft.lemma_f9 import PICKED, formula
from theory.s2ft.lemma_f12 import MINIMISER, solution

NO_KERNEL = ("H has full column rank", "A is invertible")


def step(x: Instance, U: Mat, V: Mat) -> tuple[Mat, Mat]:
    """One step of gradient descent on R_n(U V') with step x.eta, for both factors at once."""
    toward = empirical.descent(x, U @ V.T)
    return U + 2 * x.eta * (toward @ V), V + 2 * x.eta * (toward.T @ U)


def descend(k: Kit, x: Instance, s: Any) -> tuple[Mat, Mat]:
    """(U, V) after x.steps steps from (U1, V1), where the gradient must vanish and the risk must be zero."""
    U, V = x.U1, x.V1
    for _ in range(x.steps):
        U, V = step(x, U, V)
    k.given("eta > 0", k.lt(k.num(0), x.eta))
    k.given("it has arrived", k.eq(empirical.risk(k, x, U @ V.T), k.num(0)))
    return U, V


def one_factor_zero(k: Kit, x: Instance) -> None:
    """LoRA's usual start: U1 = 0."""
    k.given("U starts at zero", k.eq(k.fro2(x.U1), k.num(0)))


def usual_start(k: Kit, x: Instance) -> None:
    """From U = 0 gradient descent arrives at the product of the minimum-norm solution."""
    s = empirical.quantities(k, x)
    empirical.hypotheses(k, x, s)
    one_factor_zero(k, x)
    U, V = descend(k, x, s)
    k.claim("U V' = H^+ SVD_r(M) A^+", k.eq(U @ V.T, formula(k, x, s)[1]))


def usual_start_network(k: Kit, x: Instance) -> None:
    """The same for the network: H U V' L, the change on inputs of every kind."""
    s = empirical.quantities(k, x)
    empirical.hypotheses(k, x, s)
    one_factor_zero(k, x)
    U, V = descend(k, x, s)
    k.claim("same network", k.eq(x.H @ U @ V.T @ x.L, x.H @ formula(k, x, s)[1] @ x.L))


def no_kernel(k: Kit, x: Instance) -> None:
    """H of full column rank and A invertible: every minimiser has the product of the minimum-norm solution.

    A minimiser fits H U1 V1' A = SVD_r(M); the hypothesis asks for it between H^+ and A^+ only.
    """
    s = empirical.quantities(k, x)
    empirical.hypotheses(k, x, s)
    _, dW = formula(k, x, s)
    k.given(NO_KERNEL[0], k.eq(s.P1, k.eye(x.H.shape[1])))
    k.given(NO_KERNEL[1], k.eq(s.P2, k.eye(x.L.shape[0])))
    k.given(PICKED, k.eq(s.P1 @ x.U1 @ x.V1.T @ s.P2, dW))
    k.claim("U V' = H^+ SVD_r(M) A^+", k.eq(x.U1 @ x.V1.T, dW))


def no_kernel_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Uses all three hypotheses."""
    for name in (*NO_KERNEL, PICKED):
        k.use(name)
    return {}


def no_kernel_network(k: Kit, x: Instance) -> None:
    """A invertible: every minimiser changes the network as the minimum-norm solution does."""
    s = empirical.quantities(k, x)
    empirical.hypotheses(k, x, s)
    best, _ = formula(k, x, s)
    k.given(NO_KERNEL[1], k.eq(s.P2, k.eye(x.L.shape[0])))
    k.given(PICKED, k.eq(x.H @ x.U1 @ x.V1.T @ s.P2, best @ s.A_pinv))
    k.claim("same network", k.eq(x.H @ x.U1 @ x.V1.T @ x.L, best @ s.A_pinv @ x.L))


def no_kernel_network_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Uses both hypotheses."""
    for name in (NO_KERNEL[1], PICKED):
        k.use(name)
    return {}


def balanced_start(k: Kit, x: Instance) -> None:
    """From a balanced start gradient descent arrives at factors of least norm."""
    s = empirical.quantities(k, x)
    empirical.hypotheses(k, x, s)
    k.given("balanced", k.eq(x.U1.T @ x.U1, x.V1.T @ x.V1))
    U, V = descend(k, x, s)
    shortest = 2 * k.nuc(formula(k, x, s)[1])
    k.claim("least norm", k.le(k.fro2(U) + k.fro2(V), shortest))


# -- gradient flow: U and V move with the velocities G V and G' U, G half the negative gradient -----------------
def flow(k: Kit, x: Instance) -> None:
    """What no flow changes, for every (U, V): U'U - V'V, and the parts in the kernels of H and A."""
    s = empirical.quantities(k, x)
    empirical.hypotheses(k, x, s)
    G = empirical.descent(x, x.U1 @ x.V1.T)
    dU, dV = G @ x.V1, G.T @ x.U1
    k.claim("balance is conserved", k.eq(dU.T @ x.U1 + x.U1.T @ dU, dV.T @ x.V1 + x.V1.T @ dV))
    k.claim("no motion in ker H", k.eq(s.P1 @ dU, dU))
    k.claim("no motion in ker A", k.eq(s.P2 @ dV, dV))


def flow_limit(k: Kit, x: Instance) -> None:
    """A balanced minimiser (P1 U1, P2 V1) without foreign parts is the minimum-norm solution."""
    s = empirical.quantities(k, x)
    empirical.hypotheses(k, x, s)
    U, V = s.P1 @ x.U1, s.P2 @ x.V1
    k.given("Gram psd", k.psd(x.Gram))
    k.given("balanced, U", k.eq(U.T @ U, x.Gram))
    k.given("balanced, V", k.eq(V.T @ V, x.Gram))
    k.given("(U2, V2) fits the same", k.eq(s.P1 @ x.U2 @ x.V2.T @ s.P2, U @ V.T))
    k.claim("least norm", k.le(k.fro2(U) + k.fro2(V), k.fro2(x.U2) + k.fro2(x.V2)))


def flow_limit_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """With C = U Gram^+ V', a partial isometry: 2 tr(Gram) = 2 <C, U V'> and |U2 - C V2|^2 >= 0."""
    for name in ("balanced, U", "balanced, V", "(U2, V2) fits the same"):
        k.use(name)
    s = empirical.quantities(k, x)
    U, V, U2, V2 = s.P1 @ x.U1, s.P2 @ x.V1, s.P1 @ x.U2, s.P2 @ x.V2
    C = U @ k.pinv(x.Gram) @ V.T
    seen = V @ k.pinv(x.Gram) @ V.T
    return {
        "least norm": [
            k.square(U2 - C @ V2),
            k.square(V2 - seen @ V2),
            k.square(x.U2 - U2),
            k.square(x.V2 - V2),
        ]
    }


def s2ft_from_zero(k: Kit, x: Instance) -> None:
    """S2FT: no motion into the kernels, and a minimiser without foreign parts, P2 Vs P, is V*."""
    s = empirical.quantities(k, x)
    empirical.hypotheses(k, x, s)
    best, reach = solution(k, x, s), x.H @ s.U
    k.given(MINIMISER, k.eq(reach @ x.Vs.T @ s.A, reach @ best.T @ s.A))
    rows, velocity = k.pinv(reach) @ reach, empirical.descent(x, s.U @ x.K).T @ s.U
    k.claim("no motion into the kernels", k.eq(rows @ velocity.T @ s.P2, velocity.T))
    k.claim("it is V*", k.eq(rows @ x.Vs.T @ s.P2, best.T))


def s2ft_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Uses what it means to be a minimiser."""
    k.use(MINIMISER)
    return {}


def shorter_than_both(k: Kit, x: Instance) -> None:
    """A consequence of balance: |U|^2 = |V|^2."""
    s = empirical.quantities(k, x)
    U, V = s.P1 @ x.U1, s.P2 @ x.V1
    k.given("balanced, U", k.eq(U.T @ U, x.Gram))
    k.given("balanced, V", k.eq(V.T @ V, x.Gram))
    k.claim("|U| = |V|", k.eq(k.fro2(U), k.fro2(V)))


# -- instances ------------------------------------------------------------------------------------------------
def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Samples without an out-of-distribution task, any factors."""
    return empirical.in_distribution(empirical.build(k, t, d))


def build_minimiser(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """The same with (U1, V1) a minimiser."""
    return empirical.in_distribution(lemma_f9.build(k, t, d))


def build_s2ft(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """The same with Vs a minimiser of S2FT and K (s x k) any point of its descent."""
    x = empirical.in_distribution(lemma_f12.build(k, t, d))
    return Instance({**x, "K": k.rows(x.K, range(len(d["S"])))})


def _one_output(k: Kit, X: Mat, T: Mat, u: Any, v: Mat, eta: Any) -> Instance:
    """One output, L = I, H = 1, start (u, v), one step of size eta."""
    one, eye = k.eye(1), k.eye(v.shape[0])
    return Instance(H=one, L=eye, X=X, D=T @ X.T, T=T, U1=u * one, V1=v, eta=eta, steps=1, r=1, S=(0,))


def build_usual(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Samples of all tuned inputs but the last, T = c v'; from (0, v) one step of size 1/(2 |v|^2) arrives."""
    kk = d["k"]
    v = k.vcat(k.mat([[1 + k.sq(k.e(t.v, 0, 0))]]), k.rows(t.v, range(1, kk)))
    X = k.cols(k.eye(kk), range(kk - 1))
    seen = X.T @ v
    return _one_output(k, X, t.c @ seen.T, k.num(0), v, 1 / (2 * k.fro2(seen)))


def build_balanced(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """From (u, v), |v| = u, one step of size 1/(2 u^2) arrives at (u, v - e/u) if T = u v' - e' and e'v = 0."""
    u = 1 + k.sq(k.e(t.c, 0, 0))
    v = u * k.cols(k.skew_orth(t.Z), [0])
    e = (t.Z - t.Z.T) @ v
    return _one_output(k, k.eye(d["k"]), u * v.T - e.T, u, v, 1 / (2 * u * u))


def build_limit(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """H = L = X = I, balanced factors (Q1 R, Q2 R) with Gram matrix R'R, and (Q1 R C, Q2 R C^-T) beside them."""
    q, r = d["q"], d["r"]
    U, V = (k.cols(k.skew_orth(z), range(r)) @ t.R for z in (t.Z1, t.Z2))
    C = t.C @ t.C.T + k.eye(r)
    eye = k.eye(q)
    more = {"Gram": t.R.T @ t.R, "U2": U @ C, "V2": V @ k.inv(C)}
    return Instance(H=eye, L=eye, X=eye, D=eye, T=eye, U1=U, V1=V, r=r, S=(0,), **more)


def free_limit(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Parameters of `build_limit`."""
    q, r = d["q"], d["r"]
    return {"Z1": (q, q), "Z2": (q, q), "C": (r, r), "R": (r, r)}


def letters(k: Any) -> Instance:
    """The letters without an out-of-distribution task."""
    return empirical.in_distribution(empirical.letters(k))


def letters_limit(k: Any) -> Instance:
    """The same with the Gram matrix of a balanced pair and a second pair."""
    more = {"U2": k.letter("U2", "m", "r"), "V2": k.letter("V2", "k", "r")}
    return Instance({**letters(k), **more, "Gram": k.letter("Gram", "r", "r", symmetric=True)})


def letters_s2ft(k: Any) -> Instance:
    """The same with K (s x k) for a point of S2FT's descent."""
    return Instance({**letters(k), "K": k.letter("Ks", "|S|", "k")})


def _case(**changes: Any) -> Json:
    """One output, two tuned inputs, identity above and below, one step of size 1/2, with changes."""
    eye = [["1", "0"], ["0", "1"]]
    plain: Json = {"H": [["1"]], "L": eye, "X": eye, "D": [["1", "0"]], "T": [["1", "0"]], "U1": [["0"]],
                   "V1": [["1"], ["1"]], "eta": "1/2", "steps": 1, "S": [0], "r": 1, "Vs": [["0"], ["0"]]}  # fmt: skip
    return {**plain, **changes}


def _pair(**changes: Any) -> Json:
    """Every size one: (U1, V1) = (U2, V2) = (1, 1), with changes."""
    one = [["1"]]
    plain: Json = {n: one for n in ("H", "L", "X", "D", "T", "U1", "V1", "U2", "V2", "Gram", "Vs")}
    return {**plain, "S": [0], "r": 1, "eta": "1/2", "steps": 0, **changes}


# the samples show the first tuned input alone; V keeps its second entry
BLIND = _case(L=[["1"], ["0"]], X=[["1"]], D=[["1"]], T=[["1"]])
UNSHOWN = _case(X=[["1"], ["0"]], T=[["1"]])
LOST_UP = _pair(H=[["1", "0"]], U1=[["1"], ["1"]])
LOST_DOWN = {**BLIND, "U1": [["1"]]}
LOST_NETWORK = {**UNSHOWN, "U1": [["1"]]}
# e = (0, 1) is orthogonal to v = (1, 0): one step of size 1/2 goes from (1, v) to (1, v - e)
SIDEWAYS = _case(
    D=[["1", "-1"]],
    T=[["1", "-1"]],
    U1=[["1"]],
    V1=[["1"], ["0"]],
    Gram=[["1"]],
    U2=[["1"]],
    V2=[["1"], ["0"]],
)
STILL = _pair(K=[["2"]])
MOVING = _pair(U1=[["2"]])

SMALL = [{"k": 2}, {"k": 3}]
USUAL = Setting(
    dims=SMALL, free=lambda d: {"v": (d["k"], 1), "c": (1, 1)}, build=build_usual, boundary=[BLIND, UNSHOWN]
)
BALANCED = Setting(
    dims=SMALL, free=lambda d: {"Z": (d["k"], d["k"]), "c": (1, 1)}, build=build_balanced, boundary=[SIDEWAYS]
)
MINIMISERS = Setting(
    dims=setting.DIMS, free=empirical.free, build=build_minimiser, letters=letters, boundary=[STILL]
)
FLOW = Setting(dims=setting.DIMS, free=empirical.free, build=build, letters=letters, boundary=[STILL, MOVING])
LIMIT = Setting(
    dims=[{"q": 1, "r": 1}, {"q": 2, "r": 1}, {"q": 3, "r": 2}],
    free=free_limit,
    build=build_limit,
    letters=letters_limit,
    boundary=[STILL],
)
S2FT = Setting(
    dims=setting.DIMS, free=empirical.free, build=build_s2ft, letters=letters_s2ft, boundary=[STILL]
)
UNUSED = ("L Sig_hat L' is not zero",)

CLAIM = Claim(
    id="s2ft/lemma_f9_gd",
    source=setting.source("F.2, around (5) and (6)"),
    sentence="Gradient descent on the factors reaches the minimum-norm solution (the paper assumes it).",
    headline=(
        "False for LoRA: parts of the start in the kernel of H or A stay for ever and change the product, and "
        "finite steps miss the least norm. True for gradient flow from a balanced start without such parts, and "
        "for S2FT from zero, whenever they converge to a minimiser."
    ),
    setting=FLOW,
    defect="missing hypothesis",
    uses=("s2ft/lemma_f9", "s2ft/lemma_f12"),
    readings=(
        Reading(
            name="LoRA's usual start, the adapter",
            sentence="From U = 0, V not zero, gradient descent arrives at the product U V' of the minimum-norm solution.",
            statement=usual_start,
            setting=USUAL,
            evidence=Counterexample(BLIND),
            scope="q = p = m = n = 1, k = 2, one step; the kernel of A is never left",
            repair=Repair(
                sentence="If H has full column rank and A is invertible, every minimiser has the right product U V'.",
                statement=no_kernel,
                setting=MINIMISERS,
                evidence=WordProof(no_kernel_proof),
                necessary={NO_KERNEL[0]: LOST_UP, NO_KERNEL[1]: LOST_DOWN},
            ),
            controls=(
                Control(
                    "the repair, larger by 1/1000", statement=no_kernel, instance=STILL, tighten="1/1000"
                ),
                Control("the repair", kind="true", statement=no_kernel, instance=STILL),
            ),
        ),
        Reading(
            name="LoRA's usual start, the network",
            sentence="From U = 0, V not zero, gradient descent arrives at the network of the minimum-norm solution.",
            statement=usual_start_network,
            setting=USUAL,
            evidence=Counterexample(UNSHOWN),
            scope="q = m = n = 1, p = k = 2, one step; the networks differ on inputs that the samples do not show",
            repair=Repair(
                sentence="If A is invertible, every minimiser changes the network as the minimum-norm solution does.",
                statement=no_kernel_network,
                setting=MINIMISERS,
                evidence=WordProof(no_kernel_network_proof),
                necessary={NO_KERNEL[1]: LOST_NETWORK},
            ),
            controls=(
                Control(
                    "the repair, larger by 1/1000",
                    statement=no_kernel_network,
                    instance=STILL,
                    tighten="1/1000",
                ),
                Control("the repair", kind="true", statement=no_kernel_network, instance=STILL),
            ),
        ),
        Reading(
            name="balanced start, finite steps, the norm",
            sentence="From a balanced start, U'U = V'V, gradient descent arrives at factors of least norm.",
            statement=balanced_start,
            setting=BALANCED,
            evidence=Counterexample(SIDEWAYS),
            scope="q = m = 1, p = k = n = 2, one step of size 1/2; the product is the right one, the norm is not",
            repair=Repair(
                sentence=(
                    "A minimiser that is balanced and has no parts in the kernels, as gradient flow from such a start "
                    "would give it, has least norm."
                ),
                statement=flow_limit,
                setting=LIMIT,
                evidence=WordProof(flow_limit_proof),
                necessary={
                    "balanced, U": _pair(U1=[["2"]], V1=[["1/2"]], Gram=[["1/4"]]),
                    "balanced, V": _pair(U1=[["1/2"]], V1=[["2"]], Gram=[["1/4"]]),
                },
                sharp=STILL,
            ),
            controls=(
                Control(
                    "the repaired right side smaller by 1/50",
                    statement=flow_limit,
                    tighten="1/50",
                    instance={**STILL, "steps": 1},
                ),
                Control("the repair", kind="true", statement=flow_limit, instance=STILL),
            ),
        ),
        Reading(
            name="gradient flow, what it conserves",
            sentence="Gradient flow conserves U'U - V'V and the parts of U and V in the kernels of H and A.",
            statement=flow,
            evidence=WordProof(),
            scope="every size, number of samples and rank; with the third reading's repair: the limit of a flow from a "
            "balanced start without such parts, if it is a minimiser, is the minimum-norm solution",
            unused=UNUSED,
            controls=(
                Control("right sides larger by 1/1000", instance=MOVING, tighten="1/1000"),
                Control(
                    "|U| = |V| for balanced pairs", kind="true", statement=shorter_than_both, instance=STILL
                ),
            ),
        ),
        Reading(
            name="vanishing start",
            sentence="In the limit of a vanishing start almost every gradient flow reaches the minimum-norm solution.",
            evidence=Open(
                "needs that almost every flow avoids saddles and that the limits of time and of the start may be "
                "exchanged; neither is shown here"
            ),
        ),
        Reading(
            name="S2FT from zero",
            sentence="S2FT from V = 0: no step leaves the space of the minimum-norm solution, the one minimiser there.",
            statement=s2ft_from_zero,
            setting=S2FT,
            evidence=WordProof(s2ft_proof),
            scope="every size, number of samples, rank and selection; the risk is convex in V, so small steps converge",
            unused=UNUSED,
            controls=(
                Control("right sides larger by 1/1000", instance=STILL, tighten="1/1000"),
                Control("no minimiser", instance=_pair(K=[["2"]], Vs=[["5"]]), drop=(MINIMISER,)),
                Control("V* has no larger risk", kind="true", statement=lemma_f12.no_worse, instance=STILL),
            ),
        ),
    ),
)
