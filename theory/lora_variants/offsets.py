"""The offset that random-cLA draws, against the law that Proposition 4 and Theorem 2 need.

Source: LoRA past, present, future, Algorithm 2 (Algorithm 4 has the same line), Proposition 4. A (r x n) is
c [0_{r x xi} | I_r | 0], H = A'(AA')^+A selects columns xi, ..., xi + r - 1, E is the mean of H over the draw; needed is
E = (r/n) I. The printed xi = randint(0, floor(n/r) - 1) counts single columns.

With the upper end drawn too (as in Python's `random`), the last n - (floor(n/r) - 1) - r columns are never trained: false
from r = 2, n = 4 on, true for r = 1. With the upper end left out (as in NumPy and PyTorch) the last block fails as well:
false already for r = 1, n = 2. True for xi = r randint(0, n/r - 1), upper end drawn, if r divides n. If r does not
divide n no law on whole blocks serves; an offset uniform over all n columns that wraps around does, for every r <= n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Identity
from theory.lora_variants.setting import source
from theory.protocol import Instance, Kit, Mat

DIVIDES, DRAW, SCALAR = "r divides n", "there is something to draw", "E = (r/n) I"


def projector(k: Kit, x: Instance, offset: int) -> Mat:
    """H of A = c [0 | I_r | 0], wrapping around beyond column n - 1; c is any non-zero factor."""
    A = x.c * k.mat([[int(j == (offset + i) % x.n) for j in range(x.n)] for i in range(x.r)])
    H: Mat = k.pinv(A) @ A
    return H


def mean(k: Kit, x: Instance, offsets: Sequence[int]) -> Mat:
    """E when each offset is as likely as any other."""
    k.given("c is not zero", k.lt(k.num(0), k.sq(x.c)))
    total = k.zeros(x.n, x.n)
    for offset in offsets:
        total = total + projector(k, x, offset)
    E: Mat = k.num(f"1/{len(offsets)}") * total
    return E


def divides(k: Kit, x: Instance) -> None:
    """Proposition 4 assumes n = r k."""
    k.given(DIVIDES, k.eq(k.num(x.n % x.r), k.num(0)))


def needed(k: Kit, x: Instance, offsets: Sequence[int]) -> None:
    """E = (r/n) I."""
    k.claim(SCALAR, k.eq(mean(k, x, offsets), k.num(f"{x.r}/{x.n}") * k.eye(x.n)))


def columns_included(k: Kit, x: Instance) -> None:
    """As printed, upper end drawn: single columns 0, ..., n/r - 1."""
    divides(k, x)
    needed(k, x, range(x.n // x.r))


def columns_excluded(k: Kit, x: Instance) -> None:
    """As printed, upper end left out: single columns 0, ..., n/r - 2."""
    divides(k, x)
    k.given(DRAW, k.le(k.num(2), k.num(x.n // x.r)))
    needed(k, x, range(max(x.n // x.r - 1, 1)))


def blocks(k: Kit, x: Instance) -> None:
    """The offset is r j, j in 0, ..., n/r - 1."""
    divides(k, x)
    needed(k, x, range(0, x.n - x.r + 1, x.r))


def blocks_of_any(k: Kit, x: Instance) -> None:
    """The same without asking that r divides n."""
    needed(k, x, range(0, x.n - x.r + 1, x.r))


def wrapped(k: Kit, x: Instance) -> None:
    """The offset is uniform on 0, ..., n - 1, wrapping around."""
    needed(k, x, range(x.n))


def trace(k: Kit, x: Instance) -> None:
    """A weaker statement: tr E = r under each of these laws."""
    for name, offsets in (("columns", range(x.n // x.r)), ("wrapped", range(x.n))):
        k.claim(f"trace, {name}", k.eq(k.tr(mean(k, x, offsets)), k.num(x.r)))


def law(r: int, n: int) -> Json:
    """Sizes, with the factor 1."""
    return {"c": "1", "r": r, "n": n}


def sizes(pairs: Sequence[tuple[int, int]]) -> Setting:
    """Laws at those (r, n), with a free factor c."""
    return Setting(
        dims=[{"r": r, "n": n} for r, n in pairs],
        free=lambda d: {"c": (1, 1)},
        build=lambda k, t, d: Instance(c=1 + k.sq(k.e(t.c, 0, 0)), **d),
        boundary=[law(1, 1)],
    )


DIVIDING = sizes([(1, 1), (1, 2), (2, 2), (1, 3), (2, 4), (3, 3), (2, 6), (3, 6)])
ANY = sizes([(1, 1), (1, 2), (2, 2), (2, 3), (3, 4), (2, 5), (3, 5)])
TRACE = Control("tr E = r", kind="true", statement=trace)


def larger(statement: Any, instance: Json) -> Control:
    """The right side of a true law made wrong."""
    return Control("right side larger by 1/1000", statement=statement, tighten="1/1000", instance=instance)


IN_BLOCKS = Repair(
    sentence="E = (r/n) I for xi = r randint(0, n/r - 1), upper end drawn, if r divides n",
    statement=blocks,
    evidence=Identity(DIVIDING.dims),
    necessary={DIVIDES: law(2, 3)},
    sharp=law(2, 4),
)

CLAIM = Claim(
    id="lora_variants/alg_2_offset",
    source=source("Algorithm 2, line 3, with Proposition 4"),
    sentence="The offset randint(0, floor(n/r) - 1) makes E[H] = (r/n) I.",
    headline=(
        "False as printed: the offset counts single columns where Proposition 4 needs blocks of r, so the last columns "
        "are never trained; true for r times that offset if r divides n and the upper end is drawn."
    ),
    defect="misprint",
    uses=("lora_variants/prop_4",),
    readings=(
        Reading(
            name="single columns, upper end drawn",
            statement=columns_included,
            setting=DIVIDING,
            evidence=Counterexample(law(2, 4)),
            scope="r = 2, n = 4: column 4 is never trained; true for r = 1 and for r = n",
            repair=IN_BLOCKS,
            controls=(larger(blocks, law(1, 1)), TRACE),
        ),
        Reading(
            name="single columns, upper end left out",
            sentence="The same with randint as a draw from 0, ..., floor(n/r) - 2.",
            statement=columns_excluded,
            setting=DIVIDING,
            evidence=Counterexample(law(1, 2)),
            scope="r = 1, n = 2: the second column is never trained; for n = r there is nothing to draw",
            repair=IN_BLOCKS,
            controls=(larger(blocks, law(1, 1)), TRACE),
        ),
        Reading(
            name="blocks of r columns, upper end drawn",
            sentence="E[H] = (r/n) I for xi = r randint(0, n/r - 1), if r divides n.",
            statement=blocks,
            setting=DIVIDING,
            evidence=Identity(DIVIDING.dims),
            scope="n <= 6; for every size, since the blocks partition the columns",
            controls=(
                Control("right side larger by 1/1000", tighten="1/1000", instance=law(1, 1)),
                Control("r does not divide n", drop=(DIVIDES,), instance=law(2, 3)),
                TRACE,
            ),
        ),
        Reading(
            name="blocks, r does not divide n",
            sentence="E[H] = (r/n) I for xi = r randint(0, floor(n/r) - 1) and every r <= n.",
            statement=blocks_of_any,
            setting=ANY,
            evidence=Counterexample(law(2, 3)),
            scope="r = 2, n = 3: the last column is never trained",
            repair=Repair(
                sentence="it holds for every r <= n when the offset is uniform on 0, ..., n - 1 and wraps around",
                statement=wrapped,
                evidence=Identity(ANY.dims),
                sharp=law(2, 3),
            ),
            controls=(larger(wrapped, law(2, 3)), TRACE),
        ),
    ),
)
