"""The means of H = A'(AA')^+A and of A'A under the laws of A in use, as numbers for every size r x m.

Source: LoRA past, present, future, Sections 2 and 3.2, Proposition 4, Algorithms 1 to 4; our closed forms. Every mean
here is diagonal. A law that signed permutations of the columns leave as it is has E[H] = (E[rank A] / m) I (claim
lora_variants/lambda_min_gaussian). A law of coordinate blocks has at (i, i) the share of its blocks that hold column i
(claim lora_variants/prop_4), with r | m or not. For independent entries of mean zero, variance v and fourth
moment f, E[A'A] = r v I and E[(A'A)^2] = (r (f + (m - 1) v^2) + r (r - 1) v^2) I; r (r + m + 1) v^2 for Gaussian ones
(claim lora_variants/thm_2_gaussian).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

GAUSSIAN, UNIFORM, SIGNS = "Gaussian", "uniform entries", "random signs"
EACH, PRINTED, OFFSET = "blocks 0 to k-1", "blocks 1 to k, printed", "offset of Algorithm 2"
NEXT, SHIFT = "c3LA given the past", "any cyclic shift (ours)"
ENTRIES = (GAUSSIAN, UNIFORM, SIGNS)
BLOCKS = (EACH, PRINTED, OFFSET, NEXT, SHIFT)
FOURTH = {GAUSSIAN: Fraction(3), UNIFORM: Fraction(9, 5), SIGNS: Fraction(1)}  # of entries of variance one


def supports(law: str, r: int, m: int) -> list[list[int]]:
    """The columns that each of a block law's equally likely draws trains.

    Args:
        law: one of `BLOCKS`. `PRINTED` keeps those of the blocks 1, ..., k that lie inside the matrix, and
            block 0 where there is no other; `NEXT` is block 0, certain once the past is known.
        r: rows of A.
        m: columns of A, at least r; k = floor(m / r).

    Raises:
        ValueError: no such law, or r is not between 1 and m.
    """
    if not 1 <= r <= m:
        msg = f"r must be between 1 and m = {m}; got {r}"
        raise ValueError(msg)
    k = m // r
    starts = {
        EACH: [j * r for j in range(k)],
        PRINTED: [j * r for j in range(1, k)] or [0],
        OFFSET: list(range(k)),
        NEXT: [0],
        SHIFT: list(range(m)),
    }
    if law not in starts:
        msg = f"law must be one of {', '.join(BLOCKS)}; got {law!r}"
        raise ValueError(msg)
    return [[(start + i) % m for i in range(r)] for start in starts[law]]


def mean_rank(law: str, r: int, m: int) -> Fraction:
    """E[rank A].

    Two rows of signs are dependent when they agree up to sign, with probability 2 / 2^m.

    Raises:
        ValueError: more than two rows of signs, for which no formula is known to us.
    """
    if law != SIGNS or r == 1:
        return Fraction(r)
    if r > 2:
        msg = f"r must be at most 2 for random signs; got {r}"
        raise ValueError(msg)
    return 2 - Fraction(2, 2**m)


def mean_projector(law: str, r: int, m: int) -> list[Fraction]:
    """The diagonal of E[H], which has no other entries."""
    if law in ENTRIES:
        return [mean_rank(law, r, m) / m] * m
    blocks = supports(law, r, m)
    return [Fraction(sum(column in block for block in blocks), len(blocks)) for column in range(m)]


def gram_moments(law: str, r: int, m: int, variance: Fraction) -> tuple[Fraction, Fraction]:
    """The factors of I in E[A'A] and E[(A'A)^2] for independent entries of that variance; law one of `ENTRIES`."""
    square = FOURTH[law] + (m - 1) + (r - 1)
    return r * variance, r * square * variance**2


def spread(diagonal: Sequence[Fraction], rank: Fraction, draws: int) -> Fraction:
    """E |mean of so many draws of H - E[H]|_F^2, since |H|_F^2 is the rank of A."""
    return (rank - sum((d * d for d in diagonal), Fraction(0))) / draws
