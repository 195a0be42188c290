"""What a random A lets a method see: the mean of H = A'(AA')^+A and of A'A under every law of A, theory beside draws.

Methods that train B alone move the weight by the gradient times H. Their rate rests on the smallest eigenvalue
of E[H], A with r rows and m columns, layer with n rows. The paper prints r / n for all of them.

    python sims/projection_spectrum.py --quick            seconds
    python sims/projection_spectrum.py                    under a minute: more draws and sizes
    python sims/projection_spectrum.py --size 4,10,3      a layer with n = 4 rows, m = 10 columns, rank r = 3

How to read it: the largest possible value is r / m, reached when no column is preferred. A zero means that some
column is never trained, so no number of chains converges. Rows with "as printed" set the paper's value beside
the one that the draws have. The mean of few draws has a smaller smallest eigenvalue than E[H]: first figure.
"z" is the distance of theory and draws in standard errors. Claims: lora_variants/prop_4,
lora_variants/lambda_min_gaussian, lora_variants/thm_2_gaussian.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from sims import options as common
from sims import parallel
from sims.present import (
    ROUNDING,
    BadInput,
    Row,
    compared,
    guarded,
    number,
    numbers,
    save,
    show,
    tested,
    worst_z,
)
from theory.kits.floats import Floats
from theory.lora_variants import laws

Array = np.ndarray
AUDIT = [["--quick"], []]

SIZES = ((6, 6, 2), (4, 8, 2), (8, 4, 2), (5, 8, 3), (16, 32, 4))
QUICK_SIZES = SIZES[1:4]
SWEPT = 8  # columns in the figure over the rank
CHUNK, GROUP = (
    250,
    10,
)  # draws in a block of work; draws whose mean is one observation of its distance from E[H]
LARGEST = 64  # columns
VARIANCES = {"1": Fraction(1), "0.02^2": Fraction(1, 2500)}


@dataclass(frozen=True)
class Block:
    """Some draws of a law; (group, index) picks the random stream."""

    law: str
    r: int
    m: int
    seed: int
    group: int
    index: int
    draws: int


def draw(law: str, count: int, r: int, m: int, rng: np.random.Generator) -> Array:
    """So many A (count x r x m) of a law, entries of variance one."""
    if law == laws.GAUSSIAN:
        return rng.standard_normal((count, r, m))
    if law == laws.UNIFORM:
        return rng.uniform(-np.sqrt(3), np.sqrt(3), (count, r, m))
    if law == laws.SIGNS:
        return rng.choice([-1.0, 1.0], (count, r, m))
    blocks = np.array(laws.supports(law, r, m))
    A = np.zeros((count, r, m))
    chosen = blocks[rng.integers(len(blocks), size=count)]
    A[np.arange(count)[:, None], np.arange(r), chosen] = 1.0
    return A


def projectors(A: Array) -> Array:
    """H = A'(AA')^+A for a batch; AA' may be singular."""
    kit = Floats()
    factor = kit.wrap(A)
    return np.asarray((kit.pinv(factor) @ factor).data)


def measure(block: Block) -> dict[str, Array]:
    """Means over the block and, draw by draw, what a tested row needs."""
    rng = parallel.stream(block.seed, block.group, block.index)
    A = draw(block.law, block.draws, block.r, block.m, rng)
    H = projectors(A)
    diagonal = np.array([float(d) for d in laws.mean_projector(block.law, block.r, block.m)])
    means = H.reshape(-1, GROUP, block.m, block.m).mean(axis=1)
    lowest = int(np.argmin(diagonal))
    gram = A.swapaxes(1, 2) @ A
    return {
        "seen": H[:, lowest, lowest],
        "mean": H.mean(axis=0)[None],
        "distance": ((means - np.diag(diagonal)) ** 2).sum(axis=(1, 2)),
        "gram": gram[:, 0, 0],
        "gram squared": (gram[:, 0] ** 2).sum(axis=1),
    }


def laws_at(r: int) -> list[str]:
    """The laws whose mean is known at that rank."""
    return [law for law in (*laws.ENTRIES, *laws.BLOCKS) if law != laws.SIGNS or r <= 2]


def blocks_of(r: int, m: int, draws: int, seed: int, group: int) -> list[Block]:
    """The work for one size: every law, in chunks that depend on the problem alone."""
    return [
        Block(law, r, m, seed, group * 16 + which, index, CHUNK)
        for which, law in enumerate(laws_at(r))
        for index in range(draws // CHUNK)
    ]


def rows_of(n: int, block: Block, got: dict[str, Array]) -> list[Row]:
    """The table of one law at one size."""
    law, r, m = block.law, block.r, block.m
    text = f"{law}; n = {n}, m = {m}, r = {r}"
    diagonal = laws.mean_projector(law, r, m)
    lowest = min(diagonal)
    rank = laws.mean_rank(law, r, m)
    smallest = np.linalg.eigvalsh(got["mean"].mean(axis=0))[0]
    apart = float(laws.spread(diagonal, rank, GROUP))
    rows = [
        tested("share of the gradient seen in the worst column", text, float(lowest), got["seen"]),
        tested(f"|mean of {GROUP} H - E[H]|^2", text, apart, got["distance"]),
        compared(f"lambda_min of the mean of {len(got['seen'])} H", text, float(lowest), smallest),
    ]
    if n != m or lowest == 0:
        rows.append(compared("lambda_min(E[H]) as printed, r/n", text, r / n, smallest))
    return rows


def gram_rows(block: Block, got: dict[str, Array]) -> list[Row]:
    """Without the pseudo-inverse: the moments of A'A, and the step below which |W|^2 / 2 falls in mean."""
    first, second = (float(v) for v in laws.gram_moments(block.law, block.r, block.m, Fraction(1)))
    text = f"{block.law}, variance 1; m = {block.m}, r = {block.r}"
    rows = [
        tested("E[A'A], entry (1, 1)", text, first, got["gram"]),
        tested("E[(A'A)^2], entry (1, 1)", text, second, got["gram squared"]),
    ]
    for name, variance in VARIANCES.items():
        first, second = (float(v) for v in laws.gram_moments(block.law, block.r, block.m, variance))
        found = got["gram"].mean() / (float(variance) * got["gram squared"].mean())
        text = f"{block.law}, variance {name}; m = {block.m}, r = {block.r}"
        rows.append(
            compared("safe step times L_G without pseudo-inverse", text, 2 * first / second, 2 * found)
        )
    return rows


def convergence_figure(n: int, r: int, m: int, means: dict[str, Array]) -> dict[str, Any]:
    """The smallest eigenvalue of the mean of ever more draws."""
    series = []
    for law in (laws.GAUSSIAN, laws.EACH, laws.SHIFT, laws.OFFSET):
        mean = means[law]
        counts = [c for c in (1, 2, 4, 8, 16, 32, 64, 128, 256) if c <= len(mean)]
        values = [np.linalg.eigvalsh(mean[:c].mean(axis=0))[0] for c in counts]
        x = [CHUNK * c for c in counts]
        lowest = float(min(laws.mean_projector(law, r, m)))
        series.append({"label": law, "x": x, "y": numbers(values)})
        series.append({"label": law, "role": "predicted", "x": x, "y": [number(lowest)] * len(x)})
    return {
        "name": "draws",
        "title": "What the laws of A have as smallest eigenvalue: r/m or less, and r/n for none of them",
        "kind": "line",
        "caption": f"n = {n}, m = {m}, r = {r}; dashed: theory. Laws at zero leave a column untrained for ever.",
        "x": {"label": "draws of A", "scale": "log"},
        "y": {"label": "smallest eigenvalue of the mean of H"},
        "series": series,
        "lines": [{"y": number(r / n), "label": "r/n, printed"}],
    }


def rank_figure(n: int, m: int, found: dict[tuple[str, int], Array]) -> dict[str, Any]:
    """The smallest eigenvalue against the rank."""
    ranks = list(range(1, m + 1))
    series = []
    for law in (laws.GAUSSIAN, laws.EACH, laws.OFFSET, laws.SHIFT):
        predicted = [float(min(laws.mean_projector(law, r, m))) for r in ranks]
        simulated = [np.linalg.eigvalsh(found[law, r].mean(axis=0))[0] for r in ranks]
        series.append({"label": law, "role": "predicted", "x": ranks, "y": numbers(predicted)})
        series.append({"label": law, "x": ranks, "y": numbers(simulated)})
    series.append({"label": "r/n, printed", "role": "bound", "x": ranks[:n], "y": [r / n for r in ranks[:n]]})
    return {
        "name": "rank",
        "title": "Blocks reach r/m only when r divides m and block 0 takes part",
        "kind": "scatter",
        "caption": f"m = {m} columns. A cyclic shift by any number of columns reaches r/m for every r.",
        "x": {"label": "rank r"},
        "y": {"label": "smallest eigenvalue of E[H]"},
        "series": series,
    }


def checked_size(text: str | None) -> tuple[int, int, int] | None:
    """The size asked for."""
    if text is None:
        return None
    words = text.split(",")
    sizes = tuple(int(w) for w in words) if all(w.strip().isdigit() for w in words) else ()
    if len(sizes) != 3 or not 1 <= sizes[2] <= sizes[1] <= LARGEST or sizes[0] < 1:
        msg = f"size must be n,m,r with n >= 1 and 1 <= r <= m <= {LARGEST}, as in 4,10,3; got {text!r}"
        raise BadInput(msg)
    return sizes


def simulate(
    sizes: list[tuple[int, int, int]], draws: int, seed: int, jobs: int
) -> tuple[list[Row], list[Any]]:
    """Rows and figures; the swept sizes take a tenth of the draws."""
    few = max(CHUNK, draws // 10 // CHUNK * CHUNK)
    plan = [(m, r, draws) for _, m, r in sizes] + [(SWEPT, r, few) for r in range(1, SWEPT + 1)]
    work = [b for group, (m, r, count) in enumerate(plan) for b in blocks_of(r, m, count, seed, group)]
    by_group: dict[int, list[tuple[Block, dict[str, Array]]]] = {}
    for block, got in zip(work, parallel.run(measure, work, jobs), strict=True):
        by_group.setdefault(block.group, []).append((block, got))
    joined = {g: (pairs[0][0], parallel.joined([got for _, got in pairs])) for g, pairs in by_group.items()}
    rows: list[Row] = []
    for at, (n, _, r) in enumerate(sizes):
        for which, law in enumerate(laws_at(r)):
            block, got = joined[at * 16 + which]
            rows += rows_of(n, block, got)
            if law in laws.ENTRIES:
                rows += gram_rows(block, got)
    n, m, r = sizes[0]
    means = {law: joined[which][1]["mean"] for which, law in enumerate(laws_at(r))}
    swept = {
        (law, rank): joined[(len(sizes) + rank - 1) * 16 + which][1]["mean"]
        for rank in range(1, SWEPT + 1)
        for which, law in enumerate(laws_at(rank))
    }
    return rows, [convergence_figure(n, r, m, means), rank_figure(SWEPT // 2, SWEPT, swept)]


def headline(rows: list[Row], sizes: list[tuple[int, int, int]]) -> str:
    """What came out, from the numbers."""
    shares = [row for row in rows if row["quantity"].startswith("share")]
    best = {f"m = {m}, r = {r}": r / m for _, m, r in sizes}
    full, zero = set(laws.ENTRIES + laws.BLOCKS), set()
    for row in shares:
        law, place = row["setting"].split("; ")
        if abs(row["predicted"] - best[place.split(", ", 1)[1]]) > ROUNDING:
            full.discard(law)
        if row["simulated"] == 0:
            zero.add(law)
    return (
        f"lambda_min(E[H]) is at most r/m, whatever n is. At all {len(sizes)} sizes it is r/m for: "
        f"{'; '.join(sorted(full))}. It is 0, a column never trained, at one size or more for: "
        f"{'; '.join(sorted(zero))}. Theory and draws differ by at most {worst_z(rows):.1f} standard errors."
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the simulator."""
    plain = common.parser(
        "projection_spectrum", __doc__, "draws of A for each law and size (default 20000, quick 4000)"
    )
    plain.add_argument("--size", metavar="N,M,R", help="one size instead of the usual ones")
    options = plain.parse_args(arguments)
    started = time.monotonic()
    draws = common.seeds_of(options, 20000, 4000, 2 * CHUNK)
    draws -= draws % CHUNK
    asked = checked_size(options.size)
    sizes = [asked] if asked else list(QUICK_SIZES if options.quick else SIZES[1:] + SIZES[:1])
    rows, figures = simulate(sizes, draws, options.seed, options.jobs)
    show("Mean projectors", rows)
    record = {
        "id": common.record_name("projection_spectrum", options, plain),
        "headline": headline(rows, sizes),
        "question": "How much of the gradient does a random A let through, under each law that the methods use?",
        "settings": {"sizes": [list(s) for s in sizes], "draws": draws, "seed": options.seed, "chunk": CHUNK},
        "table": rows,
        "figures": figures,
        "notes": [
            "The smallest eigenvalue of a mean of draws lies below that of E[H]; the tested rows hold what has no "
            "such bias: the entry of H at the worst column, and the distance of means from E[H].",
            "Random signs: two rows agree up to sign with probability 2/2^m, so A'(AA')^+A needs the pseudo-inverse.",
            "Gaussian and uniform A without the pseudo-inverse move the weight by A'A: the safe step falls with r + m, "
            "and with the usual standard deviation 0.02 the weight hardly moves.",
        ],
        "claims": ["lora_variants/prop_4", "lora_variants/lambda_min_gaussian", "lora_variants/thm_2_gaussian"],
    }  # fmt: skip
    save(record, time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(guarded(main))
