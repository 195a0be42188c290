"""The minimum-norm solution of S2FT in closed form.

Source: S2FT, Lemma F.12, (19), and (25) for the population. Symbols as in `theory.s2ft.empirical`, V (k x s) the
trained factor, U = I[:, S]: the solution of least |V|_F among the minimisers of R_n(U V') is
V = (A^+)^2 L Sig_hat D_hat' (U' H')^+, so U V' = U (H U)^+ D_hat Sig_hat L' (A^+)^2, and its excess risks are
tr (Bo - W - H U V' L) Sig_o (...)'.

Proved for every size, number of samples, rank and selection, in three steps: R_n(V) exceeds R_n of the formula
by |H U (V - V*)' A|_F^2; the projection P2 V P of any minimiser (P on the rows of H U) is the formula; the
projection shortens whatever it changes. No noise assumption is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Reading, Setting
from theory.evidence import WordProof
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import empirical, setting

MINIMISER = "Vs minimises, H U Vs' A = H U V*' A"


def solution(k: Kit, x: Instance, s: Any) -> Mat:
    """V* (k x s) as printed, with (U' H')^+ written as the transpose of (H U)^+."""
    best: Mat = s.A_pinv @ s.A_pinv @ x.L @ s.Sig @ s.D.T @ k.pinv(x.H @ s.U).T
    return best


def statement(k: Kit, x: Instance) -> None:
    """For every minimiser V = Vs: its projection is V*; (19); the excess risk out of distribution."""
    s = empirical.quantities(k, x)
    empirical.hypotheses(k, x, s)
    k.given("So psd", k.psd(x.So))
    best, reach = solution(k, x, s), x.H @ s.U
    k.given(MINIMISER, k.eq(reach @ x.Vs.T @ s.A, reach @ best.T @ s.A))
    projected = k.pinv(reach) @ reach @ x.Vs.T @ s.P2
    k.claim("a minimiser projects to V*", k.eq(projected, best.T))
    k.claim("(19)", k.eq(s.U @ best.T, s.U @ k.pinv(reach) @ s.D @ s.Sig @ x.L.T @ s.A_pinv @ s.A_pinv))
    printed = reach @ k.pinv(reach) @ s.D @ s.Sig @ x.L.T @ s.A_pinv @ s.A_pinv @ x.L
    k.claim(
        "excess risk",
        k.eq(k.fro2((x.Bo - x.W - reach @ best.T @ x.L) @ x.So), empirical.excess_out(k, x, printed)),
    )


def minimal(k: Kit, x: Instance) -> None:
    """For every V = Vs: the excess of its empirical risk, and its length against that of its projection."""
    s = empirical.quantities(k, x)
    empirical.hypotheses(k, x, s)
    best = solution(k, x, s)
    reach = x.H @ s.U
    more = k.fro2(reach @ (x.Vs - best).T @ s.A)
    projected = k.pinv(reach) @ reach @ x.Vs.T @ s.P2
    k.claim(
        "V* minimises", k.eq(empirical.risk(k, x, s.U @ x.Vs.T), empirical.risk(k, x, s.U @ best.T) + more)
    )
    k.claim("projecting shortens", k.eq(k.fro2(x.Vs), k.fro2(projected) + k.fro2(x.Vs.T - projected)))


def proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Uses what it means to be a minimiser."""
    k.use(MINIMISER)
    return {}


def no_worse(k: Kit, x: Instance) -> None:
    """A consequence: no V has a smaller empirical risk."""
    s = empirical.quantities(k, x)
    empirical.hypotheses(k, x, s)
    best = solution(k, x, s)
    k.claim("R_n(V*) <= R_n(V)", k.le(empirical.risk(k, x, s.U @ best.T), empirical.risk(k, x, s.U @ x.Vs.T)))


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """An instance with samples whose Vs is a minimiser: V* plus any part that H U V' A does not see."""
    x = empirical.build(k, t, d)
    s = empirical.quantities(k, x)
    reach = x.H @ s.U
    hidden = x.Vs - s.P2 @ x.Vs @ k.pinv(reach) @ reach
    return Instance({**x, "Vs": solution(k, x, s) + hidden})


def letters_minimal(k: Any) -> Instance:
    """The letters without an out-of-distribution task."""
    return empirical.in_distribution(empirical.letters(k))


PLAIN = empirical.instance(2, X=[["2", "0"], ["0", "0"]], T=[["3", "0"], ["0", "0"]], Vs=[["3/2"], ["7"]])
OTHER = empirical.instance(2, X=[["2", "0"], ["0", "0"]], T=[["3", "0"], ["0", "0"]], Vs=[["1"], ["1"]])
UNUSED = ("L Sig_hat L' is not zero",)
TRUE = Control("R_n(V*) <= R_n(V)", kind="true", statement=no_worse)

CLAIM = Claim(
    id="s2ft/lemma_f12",
    source=setting.source("Lemma F.12, (19), (25)"),
    sentence=(
        "The minimum-norm S2FT solution is U V' = U (H U)^+ D_hat Sig_hat L' (A^+)^2, and its excess risks follow "
        "by inserting it."
    ),
    headline="True for every size, number of samples and selection: it is the one minimiser of least norm.",
    setting=Setting(
        dims=setting.DIMS,
        free=empirical.free,
        build=build,
        letters=empirical.letters,
        boundary=empirical.BOUNDARY,
    ),
    readings=(
        Reading(
            name="the minimiser of least norm",
            statement=statement,
            evidence=WordProof(proof),
            scope="every size, number of samples, rank and selection",
            unused=(*UNUSED,),
            controls=(
                Control("right sides larger by 1/1000", instance=PLAIN, tighten="1/1000"),
                Control("Vs no minimiser", instance=OTHER, drop=(MINIMISER,)),
                TRUE,
            ),
        ),
        Reading(
            name="it minimises, and projecting shortens",
            sentence=(
                "For every V, R_n(V) = R_n(V*) + |H U (V - V*)' A|_F^2 and |V|^2 = |P2 V P|^2 + |V - P2 V P|^2."
            ),
            statement=minimal,
            setting=Setting(
                dims=setting.DIMS,
                free=empirical.free,
                build=empirical.build,
                letters=letters_minimal,
                boundary=empirical.BOUNDARY,
            ),
            evidence=WordProof(),
            scope="every size, number of samples, rank and selection",
            unused=UNUSED,
            controls=(Control("right side larger by 1/1000", instance=OTHER, tighten="1/1000"), TRUE),
        ),
    ),
)
