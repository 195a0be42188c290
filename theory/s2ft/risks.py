r"""Risks, finite-sample solutions, variances, the crossover and every risk bound of the S2FT paper, once.

Source: S2FT, Appendix F (numbers at each function) and results of our own, marked "ours". Symbols as in
`theory.s2ft.setting`; further Bo (q x p) the regression map out of distribution, So (p x p) the root of the
covariance there, X = (Bo - Bi) So, G = (L Si)^+ L So (p x p), Se (q x q) the noise covariance, n the number
of samples, F (q x p) a fit as change of the network's map, Q the projector onto the rows of L Si.

Everything is written in protocol operations, so it runs on exact kits and, batched, on floats for simulators.
A statement's status stands with its claim, not here: `bounds` evaluates what is printed whether true or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from theory.protocol import Instance, Kit, Mat
from theory.s2ft import setting


# -- risks ------------------------------------------------------------------------------------------------
def risk_in(k: Kit, x: Instance, F: Mat) -> Any:
    """E_i of a fit: |(D - F) Si|_F^2. Source: F.2."""
    return k.fro2((x.D - F) @ x.Si)


def risk_out(k: Kit, x: Instance, F: Mat) -> Any:
    """E_o of a fit: |(Bo - W - F) So|_F^2. Source: F.2, (17)."""
    return k.fro2((x.Bo - x.W - F) @ x.So)


def mean_gap(t: Any, gain_s2ft: Any, gain_lora: Any) -> Any:
    """E[E_o(S2FT) - E_o(LoRA)] at shift alignment t: So = Si, Bo = W + t D + Z, E Z = 0.

    Source: ours (claim s2ft/phase_law).
    """
    return (1 - 2 * t) * (gain_s2ft - gain_lora)


def mean_gap_of_fits(t: Any, movements: tuple[Any, Any], gains: tuple[Any, Any]) -> Any:
    """E[E_o(F) - E_o(F')] for any two fits, trained to the end or not; So = Si, Bo = W + t D + Z, E Z = 0.

    Source: ours. (1 - t) times the difference of the movements |F Si|_F^2 minus t times that of the gains
    E_i(pre) - E_i(F). Where both agree, as they do for population solutions, this is `mean_gap`.
    """
    return (1 - t) * (movements[0] - movements[1]) - t * (gains[0] - gains[1])


def crossover_sides(k: Kit, x: Instance, s: Any) -> tuple[Any, Any]:
    """|(I - PS)(Bo - W) Si|^2 and |(I - PS)(Bo - Bi) Si|^2: S2FT beats LoRA iff the first is smaller.

    Source: ours. For realisable D, r >= rank(D Si) and So = Si, where LoRA's fit is D and S2FT's is PS D.
    """
    rest = k.eye(x.H.shape[0]) - s.PS
    change = x.Bo - x.W
    return k.fro2(rest @ change @ x.Si), k.fro2(rest @ (change - x.D) @ x.Si)


def crossover_alignment(k: Kit, x: Instance, sparse: Mat, low_rank: Mat) -> Any:
    """The alignment t at which S2FT and LoRA tie: Bo = W + t D + Z, So = Si, this Z fixed.

    Source: ours. From E_o(F) = |(t D + Z) Si|^2 + (1 - 2 t) gain_F - 2 <F Si, Z Si>, the tie is at
    t = 1/2 - <(F_S2FT - F_LoRA) Si, Z Si> / (gain_S2FT - gain_LoRA), which needs different gains.
    """
    gains = k.fro2(sparse @ x.Si) - k.fro2(low_rank @ x.Si)
    return k.num("1/2") - k.dot((sparse - low_rank) @ x.Si, x.Z @ x.Si) / gains


# -- finite samples ---------------------------------------------------------------------------------------
def empirical(k: Kit, x: Instance, Sxx: Mat, Syx: Mat) -> Instance:
    """The instance whose population solutions are the finite-sample solutions (Lemmas F.9 and F.12).

    Args:
        k: The kit.
        x: The population instance.
        Sxx: Second moment X X'/n of the inputs, p x p.
        Syx: Cross moment (Y - W X) X'/n of what the pretrained network misses, q x p.
    """
    return Instance({**x, "Si": k.sqrtm(Sxx, "sample root"), "D": Syx @ k.pinv(Sxx)})


def least_norm_change(k: Kit, x: Instance, s: Any) -> Mat:
    """The change U V' (m x k) of the tuned layer itself that LoRA's minimum-norm solution makes.

    Source: Lemma F.9: H^+ SVD_r(M) A^+, the representative without parts that the other layers ignore.
    """
    # A (A^2)^+ = A^+; in floats the root of a singular A^2 has roots of rounding errors, which A^+ would invert.
    fitted = k.pinv(x.H) @ k.svd_r(s.M, x.r, "SVD_r(M)")
    change: Mat = fitted @ s.A @ k.pinv(x.L @ s.Sig @ x.L.T)
    return change


def unexplained(k: Kit, x: Instance, s: Any) -> Mat:
    """Sig_eff (q x q): the noise plus what layer l cannot see of the residual, Se + D Si (I - Q) Si D'.

    Source: ours.
    """
    seen = x.L @ x.Si
    hidden: Mat = x.D @ x.Si @ (k.eye(x.Si.shape[0]) - k.pinv(seen) @ seen)
    total: Mat = x.Se + hidden @ hidden.T
    return total


def variance_linear(k: Kit, x: Instance, s: Any, reach: Mat, n: int, rank_A: Any) -> tuple[Any, Any]:
    """Exact mean excess of E_i and of E_o that n Gaussian samples cost a fit that is linear in the data.

    Source: ours, for centred Gaussian inputs independent of the Gaussian noise and n > rank(A) + 1:
    tr(reach Sig_eff) rank(A) / (n - rank(A) - 1) in distribution, and with rank(A) replaced by
    |A^+ L So|_F^2 out of distribution. S2FT: reach = PS; full tuning: reach = P.
    """
    noise = k.tr(reach @ unexplained(k, x, s)) * (k.num(1) / (n - rank_A - 1))
    return noise * rank_A, noise * k.fro2(s.A_pinv @ x.L @ x.So)


def variance_lora_leading(k: Kit, x: Instance, s: Any, r: int, rank_M: int, rank_A: Any) -> Any:
    """The limit of n (E[E_i(LoRA on n samples)] - E_i(LoRA)) for Gaussian data and 1 <= r <= rank_M.

    Source: ours. Second-order expansion of the rank-r minimiser around SVD_r(M), sigma_r > sigma_{r+1}: with
    singular values sig_j of M, a_j the variance of Sig_eff along the j-th left singular vector, and
    rho_ij = sig_j / sig_i,
    r sum_i a_i + sum_{i<=r<j<=R} (a_i + a_j + sig_j^2) / (1 - rho_ij^2)
    + (rank(A) - R) sum_i a_i + r (tr(P Sig_eff) - sum_{j<=R} a_j), R = rank_M, i over 1..r.
    """
    noise = unexplained(k, x, s)
    parts = [k.zeros(*s.M.shape)] + [k.svd_r(s.M, j, f"SVD_{j}(M)") for j in range(1, rank_M + 1)]
    a = [k.tr(k.proj(parts[j + 1] - parts[j]) @ noise) for j in range(rank_M)]
    sig2 = [k.sq(k.sv(s.M, j)) for j in range(1, rank_M + 1)]
    fitted = k.sum(a[:r])
    total = (r + rank_A - rank_M) * fitted + r * (k.tr(s.P @ noise) - k.sum(a))
    for i in range(r):
        for j in range(r, rank_M):
            total = total + (a[i] + a[j] + sig2[j]) * sig2[i] / (sig2[i] - sig2[j])
    return total


# -- bounds -----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Bound:
    """One printed or repaired bound beside the quantity that it bounds.

    Attributes:
        claim: id of the claim.
        form: "printed", "repaired", or how a reading is told apart.
        upper: whether `limit` is above `value`.
        value: the quantity, a scalar of the kit.
        limit: the bound, a scalar of the kit.
    """

    claim: str
    form: str
    upper: bool
    value: Any
    limit: Any


def bounds(
    k: Kit, x: Instance, s: Any, *, rank_D: int, rank_M: int, covariate_shift: bool, realisable: bool
) -> list[Bound]:
    """Every bound of Appendix F on a bias or an out-of-distribution risk, printed and repaired.

    Args:
        k: The kit.
        x: H, L, D, Si, So, W, Wl, Bo, S, r.
        s: `setting.quantities(k, x)`.
        rank_D: rank(D Sig_i D').
        rank_M: rank(M).
        covariate_shift: Whether So differs from Si; without it the bounds that assume So = Si are added.
        realisable: Whether D = P D and D Si = D Si Q; with it Theorem F.8 is added (its LoRA part as printed
            only where s, r <= rank_D, as it assumes).
    """
    out = _bias_bounds(k, x, s, rank_D, rank_M) + _shift_bounds(k, x, s, rank_D)
    if not covariate_shift:
        out += _unshifted_bounds(k, x, s, rank_D, realisable)
    return out


def _kappa_tail(k: Kit, x: Instance, s: Any, rank_D: int) -> Any:
    """The printed bound (14) on the tail of M: (R - r)_+ / R kap(Sig_f)^2 E_i(pre), R = rank(Sig_f)."""
    share = max(rank_D - x.r, 0) * k.num(f"1/{rank_D}")
    return share * k.sq(k.kap(x.D @ s.Sig @ x.D.T)) * s.E_pre


def _bias_bounds(k: Kit, x: Instance, s: Any, rank_D: int, rank_M: int) -> list[Bound]:
    low_rank = risk_in(k, x, setting.lora(k, x, s))
    sparse = risk_in(k, x, setting.s2ft(k, x, s))
    learnable = s.E_pre - s.E_full  # |M|_F^2
    root_f = x.D @ x.Si
    identity = k.eye(x.H.shape[0])
    seen = x.L @ x.Si
    unseen_inputs = k.eye(x.Si.shape[0]) - k.pinv(seen) @ seen
    angle = k.op((s.P - s.PS) @ k.proj(root_f))
    angle_M = k.op((s.P - s.PS) @ k.proj(s.M))
    angle_rows = k.op(k.proj(root_f.T) @ unseen_inputs)
    angle_columns = k.op((identity - s.P) @ k.proj(root_f))
    others = [a for a in range(x.H.shape[1]) if a not in x.S]
    H_pinv = k.pinv(x.H)
    if others:
        left_out = k.fro2(k.rows(H_pinv @ root_f, others)) / k.fro2(H_pinv @ root_f)  # smallest delta^2 for S
        missed = k.sq(k.op((identity - s.PS) @ k.cols(x.H, others)))
        before_kappa = missed * k.fro2(k.rows(H_pinv @ s.N, others))
    else:
        left_out = before_kappa = 0 * s.E_pre
    beyond = max(rank_M - x.r, 0) * k.num(f"1/{max(rank_M, 1)}")
    return [
        Bound("thm_f10_bias", "printed (11)", True, low_rank, _kappa_tail(k, x, s, rank_D) + s.E_full),
        Bound("thm_f10_bias", "repaired", True, low_rank, beyond * learnable + s.E_full),
        Bound("thm_f13_bias", "printed (21)", True, sparse, angle * s.E_pre + s.E_full),
        Bound("thm_f13_bias", "printed (24)", True, sparse, k.sq(angle) * s.E_pre + s.E_full),
        Bound("thm_f13_bias", "repaired", True, sparse, k.sq(angle_M) * learnable + s.E_full),
        Bound("cor_f18", "printed (27)", True, s.E_full, (angle_rows + angle_columns) * s.E_pre),
        Bound("cor_f18", "repaired", True, s.E_full, (k.sq(angle_rows) + k.sq(angle_columns)) * s.E_pre),
        Bound("lemma_f14_left", "printed", True, low_rank, sparse),
        Bound("lemma_f14_left", "repaired", True, low_rank, sparse + k.tail2(s.PS @ s.M, x.r)),
        Bound("lemma_f14_right", "printed", True, sparse, s.E_full + left_out * k.sq(k.kap(x.H)) * s.E_pre),
        Bound("lemma_f14_right", "repaired", True, sparse, s.E_full + before_kappa),
    ]


def _shift_bounds(k: Kit, x: Instance, s: Any, rank_D: int, eta: str = "1/2") -> list[Bound]:
    """F.11 (with the constant 4 of its proof; lower bound at this eta) and F.15, any covariate shift."""
    low_rank = risk_out(k, x, setting.lora(k, x, s))
    sparse = risk_out(k, x, setting.s2ft(k, x, s))
    pre = k.fro2((x.Bo - x.W) @ x.So)
    Bi = x.W + x.D
    G = k.pinv(x.L @ x.Si) @ x.L @ x.So
    moved = x.So - x.Si @ G
    X = (x.Bo - Bi) @ x.So
    outside = k.eye(x.H.shape[0]) - s.P
    op_G, tail, tail_printed = k.op(G), k.tail2(s.M, x.r), _kappa_tail(k, x, s, rank_D)
    far = k.fro2((x.Bo - Bi) @ x.Si) * k.sq(op_G)
    ahead = (x.Bo - x.W) @ moved
    shared = k.fro2(outside @ x.Bo @ x.So) + far + k.sq(op_G) * tail_printed
    norms = k.fro(outside @ x.Bo @ x.So) + k.fro(s.P @ (x.Bo - Bi) @ x.Si) * op_G + k.fro(s.P @ ahead)
    weight = k.num(1) / k.num(eta) - 1
    lost = k.fro2(outside @ Bi @ x.So) + k.fro2(x.D @ moved) + tail_printed * op_G
    lower = (1 - k.num(eta)) * k.fro2(X) - 3 * weight * lost
    lower_norms = k.fro(outside @ x.D @ x.So) + k.fro(s.P @ x.D @ moved) + k.sqrt(tail) * op_G
    layer_moved = k.fro2(x.L @ moved)
    reached = k.fro2(s.PS @ X)
    f15 = pre + 3 * reached + 3 * k.fro2(Bi @ moved)
    untouched = k.fro2((k.eye(x.H.shape[0]) - s.PS) @ (x.Bo - x.W) @ x.So)
    f15_norms = k.sq(k.fro(s.PS @ X) + k.fro(s.PS @ x.D @ moved))
    return [
        Bound("thm_f11_upper", "printed, constant 4", True, low_rank, 4 * (shared + k.fro(ahead))),
        Bound("thm_f11_upper", "norm squared, constant 4", True, low_rank, 4 * (shared + k.fro2(ahead))),
        Bound("thm_f11_upper", "repaired", True, low_rank, k.sq(norms + k.sqrt(tail) * op_G)),
        Bound("thm_f11_lower", f"printed, eta = {eta}", False, low_rank, lower),
        Bound("thm_f11_lower", "repaired", False, low_rank, k.sq(k.pos_part(k.fro(X) - lower_norms))),
        Bound("thm_f15", "printed, |Wl|", True, sparse, f15 + 3 * k.sq(k.op(x.Wl)) * layer_moved),
        Bound("thm_f15", "printed, |H Wl|", True, sparse, f15 + 3 * k.sq(k.op(x.H @ x.Wl)) * layer_moved),
        Bound("thm_f15", "repaired", True, sparse, untouched + f15_norms),
    ]


def _unshifted_bounds(k: Kit, x: Instance, s: Any, rank_D: int, realisable: bool) -> list[Bound]:
    """F.16, F.8 and the cost of Assumption F.5, for So = Si."""
    low_rank = risk_out(k, x, setting.lora(k, x, s))
    fit = setting.s2ft(k, x, s)
    sparse, pre = risk_out(k, x, fit), k.fro2((x.Bo - x.W) @ x.Si)
    Bi = x.W + x.D
    X = (x.Bo - Bi) @ x.Si
    seen = x.L @ x.Si
    Q = k.pinv(seen) @ seen
    reached = k.fro2(s.PS @ X)  # eps^2 E_o(pre), the smallest that Assumption F.5 allows
    hidden = k.fro2(Bi @ x.Si @ (k.eye(x.Si.shape[0]) - Q))
    gained = k.fro2(s.PS @ X @ Q) - k.fro2(s.PS @ (x.Bo - x.W) @ x.Si @ Q)
    root_pre = k.sqrt(pre)
    out = [
        Bound("remark_f16", "printed", True, sparse, pre + 3 * reached + 3 * hidden),
        Bound("remark_f16", "exact identity", True, sparse, pre + gained),
        Bound("cost_of_assumption_f5", "ours", True, k.sqrt(k.fro2(fit @ x.Si)), root_pre + k.sqrt(reached)),
    ]
    if realisable:
        any_rank = k.sq(k.pos_part(k.fro(X) - k.sqrt(k.tail2(s.M, x.r))))
        out += [
            Bound("thm_f8_s2ft", "printed, 1 + 3 eps^2", True, sparse, pre + 3 * reached),
            Bound("thm_f8_s2ft", "repaired, 1 + eps^2", True, sparse, pre + reached),
            Bound("thm_f8_lora", "repaired, every r", False, low_rank, any_rank),
        ]
        if max(len(x.S), x.r) <= rank_D:
            out.append(Bound("thm_f8_lora", "printed", False, low_rank, k.fro2(X)))
    return out


Fit = Callable[[Kit, Instance, Any], Mat]
FITS: dict[str, Fit] = {"full": setting.full, "LoRA": setting.lora, "S2FT": setting.s2ft}
