"""The bias term of LoRA: full tuning plus the tail of M, and how small the tail must be.

Source: S2FT, Theorem F.10, (11), and (13), (14) of its proof. With M = P D Sig_i L' A^+ (q x k) and
R = rank(Sig_f), Sig_f = D Sig_i D',
(T_bias^LoRA)^2 = |SVD_r(M) - M|_F^2 + E_i(full) <= (R - r)_+ / R kap(Sig_f)^2 E_i(pre) + E_i(full).

Proved for every size and rank, link by link; fractions are multiplied out, since R > 0. Condition numbers are
not needed at all: the R_M - r smallest of R_M squared singular values hold at most the share 1 - r / R_M of
|M|_F^2 = E_i(pre) - E_i(full), R_M = rank(M) (our second reading). Flat spectra attain both bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Reading, Setting
from theory.evidence import WordProof
from theory.kits import spectral
from theory.protocol import Instance, Kit
from theory.s2ft import setting
from theory.s2ft.setting import BOUNDARY, DIMS, plane_instance

UNUSED = ("Si psd", "L Sig_i L' is not zero")


def bias(k: Kit, x: Instance, s: Any) -> Any:
    """(T_bias^LoRA)^2: the in-distribution risk of the population solution."""
    return k.fro2((x.D - setting.lora(k, x, s)) @ x.Si)


def printed_tail(k: Kit, x: Instance, s: Any) -> tuple[Any, Any]:
    """(R, R times the first term of (11)): R = rank(Sig_f) and (R - r)_+ kap(Sig_f)^2 E_i(pre)."""
    Sig_f = x.D @ s.Sig @ x.D.T
    R = k.rank(Sig_f)
    return R, k.pos_part(R - x.r) * k.sq(k.kap(Sig_f)) * s.E_pre


def tail_within_printed(k: Any, x: Instance, s: Any) -> list[Any]:
    """Terms that show R |M - SVD_r(M)|_F^2 <= (R - r)_+ kap(Sig_f)^2 E_i(pre), for proofs by words.

    M = P (D Si) (A^+ L Si)' has rank at most R, its tail holds at most its share of |M|_F^2, |M|_F <= |D Si|_F
    and kap >= 1.
    """
    root, seen = x.D @ x.Si, (s.A_pinv @ x.L @ x.Si).T
    R, _ = printed_tail(k, x, s)
    beyond = spectral.positive_part(k, R - x.r)
    return [
        spectral.tail_share(k, s.P, root, seen, x.r),
        beyond * k.square(root - s.M @ seen.T),
        beyond * spectral.condition_number(k, root),
    ]


def statement(k: Kit, x: Instance) -> None:
    """(13) and (11), the latter times R."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    tail = k.fro2(k.svd_r(s.M, x.r, "SVD_r(M)") - s.M)
    R, limit = printed_tail(k, x, s)
    k.claim("(11)", k.le(R * (tail + s.E_full), limit + R * s.E_full))


def identity(k: Kit, x: Instance) -> None:
    """(13): the bias term is the tail plus E_i(full)."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    k.claim("(13)", k.eq(bias(k, x, s), k.tail2(s.M, x.r) + s.E_full))


def links(k: Kit, x: Instance) -> None:
    """(14), link by link, the last one times R."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    R, limit = printed_tail(k, x, s)
    beyond, root = k.pos_part(k.rank(s.M) - x.r), x.D @ x.Si
    k.claim("tail <= (rank M - r)_+ |M|^2", k.le(k.tail2(s.M, x.r), beyond * k.sq(k.op(s.M))))
    k.claim("|M| <= |D Si|", k.le(beyond * k.sq(k.op(s.M)), beyond * k.sq(k.op(root))))
    k.claim("(rank M - r)_+ |D Si|^2 <= ...", k.le(R * beyond * k.sq(k.op(root)), limit))


def proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """See `tail_within_printed`."""
    return {"(11)": tail_within_printed(k, x, setting.quantities(k, x))}


def links_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """One inequality between singular values for each link."""
    s = setting.quantities(k, x)
    root, seen = x.D @ x.Si, (s.A_pinv @ x.L @ x.Si).T
    R, _ = printed_tail(k, x, s)
    beyond = spectral.positive_part(k, k.rank(s.M) - x.r)
    flat, size = spectral.flatness(k, root), spectral.norm(k, root)
    more = spectral.rank_of_product(k, s.P, root, seen, x.r)
    return {
        "tail <= (rank M - r)_+ |M|^2": [spectral.tail_by_norm(k, s.M, x.r)],
        "|M| <= |D Si|": [beyond * spectral.between_contractions(k, s.P, root, seen)],
        "(rank M - r)_+ |D Si|^2 <= ...": [
            spectral.positive_part(k, R - x.r) * flat,
            spectral.rank(k, root) * more * size * size,
        ],
    }


def sharpened(k: Kit, x: Instance) -> None:
    """Ours: R_M (tail) <= (R_M - r)_+ (E_i(pre) - E_i(full)), R_M = rank(M)."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    R = k.rank(s.M @ s.M.T)
    share = k.pos_part(R - x.r) * (s.E_pre - s.E_full)
    k.claim("without kap", k.le(R * k.tail2(s.M, x.r), share))


def sharpened_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The tail of M holds at most its share."""
    s = setting.quantities(k, x)
    q, kk = s.M.shape
    return {"without kap": [spectral.tail_share(k, k.eye(q), s.M, k.eye(kk), x.r)]}


def below_pretrained(k: Kit, x: Instance) -> None:
    """Weaker: the population solution never hurts in distribution."""
    s = setting.quantities(k, x)
    setting.hypotheses(k, x, s)
    k.claim("E_i(LoRA) <= E_i(pre)", k.le(bias(k, x, s), s.E_pre))


def letters(k: Any) -> Instance:
    """Letters of the common setting, the rank r as a number."""
    return Instance({**setting.letters(k), "r": k.number("r")})


SETTING = Setting(dims=DIMS, free=setting.free, build=setting.build, letters=letters, boundary=BOUNDARY)
FLAT = plane_instance()
PLACE = "Theorem F.10, (11), (13), (14)"
TRUE = Control("E_i(LoRA) <= E_i(pre)", kind="true", statement=below_pretrained)

CLAIM = Claim(
    id="s2ft/thm_f10_bias",
    source=setting.source(PLACE),
    sentence=(
        "The squared bias term of LoRA is |SVD_r(M) - M|_F^2 + E_i(full), which is at most "
        "(R - r)_+ / R kap(Sig_f)^2 E_i(pre) + E_i(full) with R = rank(Sig_f)."
    ),
    headline=(
        "True for every size and rank; no condition number is needed: the excess is at most "
        "(1 - r / rank M)_+ (E_i(pre) - E_i(full)), which flat spectra attain."
    ),
    setting=SETTING,
    uses=("s2ft/lemma_f9", "s2ft/lemma_f17"),
    readings=(
        Reading(
            name="(11)",
            statement=statement,
            evidence=WordProof(proof),
            scope="every size, rank and covariance; multiplied by R > 0",
            unused=UNUSED,
            sharp=FLAT,
            controls=(Control("right side smaller by 1/50", instance=FLAT, tighten="1/50"), TRUE),
        ),
        Reading(
            name="(13)",
            sentence="The squared bias term of LoRA is |SVD_r(M) - M|_F^2 + E_i(full).",
            statement=identity,
            evidence=WordProof(),
            scope="every size, rank and covariance",
            unused=(*UNUSED, "Sig_f is not zero"),
            controls=(Control("right side larger by 1/1000", instance=FLAT, tighten="1/1000"), TRUE),
        ),
        Reading(
            name="(14), link by link",
            sentence=(
                "|SVD_r(M) - M|_F^2 <= (rank M - r)_+ |M|^2 <= (rank M - r)_+ |D Si|^2 <= "
                "(R - r)_+ / R kap(Sig_f)^2 E_i(pre)."
            ),
            statement=links,
            evidence=WordProof(links_proof),
            scope="every size, rank and covariance; the last link multiplied by R > 0",
            unused=UNUSED,
            sharp=FLAT,
            controls=(
                Control("every link smaller by 1/50", instance=FLAT, tighten="1/50"),
                Control(
                    "the last link smaller by 1/50",
                    instance=FLAT,
                    tighten="1/50",
                    only="(rank M - r)_+ |D Si|^2 <= ...",
                ),
                TRUE,
            ),
        ),
        Reading(
            name="without condition numbers",
            sentence="The tail is at most (1 - r / rank M)_+ (E_i(pre) - E_i(full)) (ours).",
            statement=sharpened,
            evidence=WordProof(sharpened_proof),
            scope="every size, rank and covariance; multiplied by rank M",
            unused=(*UNUSED, "Sig_f is not zero"),
            sharp=FLAT,
            controls=(Control("right side smaller by 1/50", instance=FLAT, tighten="1/50"), TRUE),
        ),
    ),
)
