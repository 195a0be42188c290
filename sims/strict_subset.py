"""Is what PEFT reaches strictly less, and by how much? Targets, dimensions and finite inputs.

LoRA's image, the products B A of rank r, is a null set among all changes of a weight. This simulator asks what that
means: how far random targets lie from it, how its dimension shows in the rank of a derivative, and from how many
inputs on a layer tuned by LoRA can be told from a layer tuned in full.

    python sims/strict_subset.py --quick
    python sims/strict_subset.py --rows 8 --columns 5

Predicted distances are singular values beyond r; simulated ones come from fitting B and A by alternating least
squares. For targets of size n x (n + 1) at rank n - 1 the distribution of the distance is known, so the share of
targets within a distance is predicted too: it vanishes with the distance but is not zero at any, which is what
"null set" does and does not say. A model of two layers tuned in the first one reaches every target: no strictness.
For an attention head and a hidden layer the dimension of what is reached on finitely many inputs is the rank of a
derivative: on few inputs LoRA's is that of full tuning, later it stays behind.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from sims import command
from sims.command import curve, mean_curve
from sims.present import BadInput, Row, compared, counted, guarded, show, tested, worst_z
from theory.kits.floats import Floats
from theory.peft_vs_fft import image_size, thm_1_manifold
from theory.protocol import Instance

AUDIT = [["--quick"], []]
Array = np.ndarray
ROUNDS = 200  # of alternating least squares
TINY = 1e-16  # squared distance, relative to the target, that counts as reached
DISTANCES = (0.01, 0.03, 0.1, 0.3, 1.0)
STEP, SMALL = 1e-20, 1e-10  # complex step; singular values below this share of the largest count as zero
NETWORK_SEEDS = 32  # generic ranks are the same for almost all weights
NETWORKS = (("attention", (4, 3, 3), (1, 2, 3, 4)), ("hidden layer", (4, 6, 3), (1, 2, 4, 6, 8, 12, 16)))
FAMILY = (1, 2, 5, 10, 100)  # n of the targets diag(1, 1/n)


def transpose(a: Array) -> Array:
    """The transpose of each matrix of a batch."""
    return np.asarray(np.swapaxes(a, -1, -2))


def energy(a: Array) -> Array:
    """The squared Frobenius norm of each matrix."""
    return np.einsum("bij,bij->b", a, a)


def nearest(rng: np.random.Generator, Y: Array, X: Array, r: int, rounds: int = ROUNDS) -> Array:
    """The smallest |Y - B A X|^2 that alternating least squares finds from a random A (r x p)."""
    A = rng.standard_normal((len(Y), r, X.shape[1]))
    X_plus = np.linalg.pinv(X)
    B = np.zeros(())
    for _ in range(rounds):
        B = Y @ np.linalg.pinv(A @ X)
        B = np.linalg.qr(B)[
            0
        ]  # its columns span the same space, so A can undo it; this keeps the numbers tame
        A = transpose(B) @ Y @ X_plus
    return energy(Y - B @ A @ X)


def distances(rng: np.random.Generator, n: int, rows: int, columns: int) -> dict[str, Array]:
    """Squared distances of Gaussian targets from rank r = 1, 2, ...: tails and fits."""
    k = Floats()
    target = rng.standard_normal((n, rows, columns))
    eye = np.broadcast_to(np.eye(columns), (n, columns, columns))
    ranks = range(1, min(rows, columns) + 1)
    fits = [nearest(rng, target, eye, r) for r in ranks]
    tails = [k.tail2(k.mat(target), r) for r in ranks]
    return {"fit": np.stack(fits, axis=1), "tail": np.stack(tails, axis=1), "energy": energy(target)}


def smallest(rng: np.random.Generator, n: int, size: int) -> dict[str, Array]:
    """Squared distances of Gaussian size x (size + 1) targets from rank size - 1, through the kit of the theory."""
    k = Floats()
    return {"d2": k.tail2(k.mat(rng.standard_normal((n, size, size + 1))), size - 1)}


def jacobians(
    rng: np.random.Generator, n: int, m: int, columns: int, r: int, lost_B: int, lost_A: int
) -> dict[str, Array]:
    """Ranks of the derivative at random factors from which some rank is taken."""
    k = Floats()
    B = rng.standard_normal((n, m, r - lost_B)) @ rng.standard_normal((n, r - lost_B, r))
    A = rng.standard_normal((n, r, r - lost_A)) @ rng.standard_normal((n, r - lost_A, columns))
    return {"rank": k.rank(thm_1_manifold.jacobian(k, Instance(B=k.mat(B), A=k.mat(A))))}


def on_inputs(
    rng: np.random.Generator, n: int, rows: int, columns: int, r: int, inputs: int
) -> dict[str, Array]:
    """How near B A X comes to Delta X on a number of inputs."""
    k = Floats()
    X = rng.standard_normal((n, columns, inputs))
    Y = rng.standard_normal((n, rows, columns)) @ X
    return {"fit": nearest(rng, Y, X, r), "tail": k.tail2(k.mat(Y), r), "energy": energy(Y)}


def two_layers(rng: np.random.Generator, n: int, rows: int, columns: int) -> dict[str, Array]:
    """A linear model W2 W1 tuned in W1 alone: what it misses of a random target, in full and at rank 1."""
    W2 = rng.standard_normal((n, rows, rows + 1))
    W1, target = rng.standard_normal((n, rows + 1, columns)), rng.standard_normal((n, rows, columns))
    wanted = target - W2 @ W1
    eye = np.broadcast_to(np.eye(columns), (n, columns, columns))
    full = energy(wanted - W2 @ (np.linalg.pinv(W2) @ wanted))
    return {"full": full / energy(wanted), "rank 1": nearest(rng, wanted, eye, 1) / energy(wanted)}


# -- networks: derivatives by complex steps ----------------------------------------------------------------------------
def head(W: dict[str, Array], X: Array) -> Array:
    """One attention head on sequences X (seeds, inputs, d, tokens); W has q, k, v (h x d) and o (d x h)."""
    q, k, v = (W[name][:, None] @ X for name in "qkv")
    scores = transpose(k) @ q
    power = np.exp(scores - scores.real.max(axis=-2, keepdims=True))
    return np.asarray(W["o"][:, None] @ (v @ (power / power.sum(axis=-2, keepdims=True))))


def hidden(W: dict[str, Array], X: Array) -> Array:
    """One hidden layer on inputs X (seeds, d, inputs)."""
    return np.asarray(W["2"] @ np.tanh(W["1"] @ X))


def function_rank(f: Callable[[dict[str, Array]], Array], P: dict[str, Array]) -> Array:
    """For each seed the rank of the derivative of all outputs in all parameters; complex steps are exact to rounding."""
    columns = []
    for name, A in P.items():
        for place in np.ndindex(A.shape[1:]):
            moved = {m: v.astype(complex) for m, v in P.items()}
            moved[name][:, *place] += STEP * 1j
            columns.append(f(moved).imag.reshape(len(A), -1) / STEP)
    s = np.linalg.svd(np.stack(columns, axis=2), compute_uv=False)
    return np.asarray((s > SMALL * s[:, :1]).sum(axis=1))


def networks(
    rng: np.random.Generator, n: int, kind: str, sizes: tuple[int, ...], inputs: int
) -> dict[str, Array]:
    """Ranks for full tuning and for LoRA of rank 1 at random weights and factors."""
    d, h, last = sizes
    network = head if kind == "attention" else hidden
    shapes = (
        dict.fromkeys("qkv", (h, d)) | {"o": (d, h)} if kind == "attention" else {"1": (h, d), "2": (last, h)}
    )
    X = rng.standard_normal((n, inputs, d, last) if kind == "attention" else (n, d, inputs))
    W = {name: rng.standard_normal((n, *shape)) / np.sqrt(shape[1]) for name, shape in shapes.items()}
    factors = {}
    for name, (rows, columns) in shapes.items():
        factors["B" + name] = rng.standard_normal((n, rows, 1)) / 2
        factors["A" + name] = rng.standard_normal((n, 1, columns)) / 2

    def tuned(P: dict[str, Array]) -> Array:
        return network({name: W[name] + P["B" + name] @ P["A" + name] for name in W}, X)

    return {"full": function_rank(lambda P: network(P, X), W), "LoRA": function_rank(tuned, factors)}


def network_part(run: command.Run) -> tuple[list[Row], list[dict[str, Any]]]:
    """The dimension of what full tuning and LoRA reach, by number of inputs, for an attention head and a hidden layer."""
    rows: list[Row] = []
    series = []
    for i, (kind, (d, h, last), counts) in enumerate(NETWORKS):
        found = []
        for N in counts:
            got = command.over_seeds(
                networks, run, 100 + 20 * i + N, kind, (d, h, last), N, seeds=NETWORK_SEEDS
            )
            if kind == "attention":
                full = image_size.head_dimension(d, h, last, N)
                lora = image_size.head_dimension_lora(d, h, 1)
                where = f"attention head, d = {d}, h = {h}, {last} tokens, N = {N}"
            else:
                full, lora = (
                    image_size.hidden_dimension(d, h, last, N),
                    image_size.hidden_dimension_lora(d, h, last, 1),
                )
                where = f"hidden layer, {d}, {h}, {last} units, N = {N}"
            told = {"full": full, "LoRA": min(full, lora)}
            for name, label in (("full", "full tuning"), ("LoRA", "LoRA, r = 1")):
                rows.append(counted(f"dimension reached, {label}", where, told[name], int(got[name].max())))
            found.append((N, told, {name: int(got[name].max()) for name in told}))
        for name, label in (("full", "full tuning"), ("LoRA", "LoRA, r = 1")):
            label = f"{kind}, {label}"
            series += [
                curve(label, counts, [seen[name] for _, _, seen in found]),
                curve(label, counts, [told[name] for _, told, _ in found], "predicted"),
            ]
    figure = {
        "name": "networks",
        "title": "On few inputs LoRA reaches as many functions as full tuning; then its own dimension ends it",
        "kind": "scatter",
        "x": {"label": "inputs N"},
        "y": {"label": "dimension of what is reached"},
        "series": series,
    }
    return rows, [figure]


def distance_part(run: command.Run, rows_: int, columns: int) -> tuple[list[Row], list[dict[str, Any]]]:
    """Distances of random targets, the law of the smallest, and a family that comes arbitrarily near."""
    got = command.over_seeds(distances, run, 10, rows_, columns)
    ranks = list(range(1, min(rows_, columns) + 1))
    rows: list[Row] = []
    for j, r in enumerate(ranks):
        where = f"Gaussian {rows_} x {columns} targets, rank {r}"
        rows.append(
            compared("squared distance from LoRA's image", where, got["tail"][:, j], got["fit"][:, j])
        )
        reached = int((got["fit"][:, j] < TINY * got["energy"]).sum())
        rows.append(counted("targets reached", where, run.seeds if r == ranks[-1] else 0, reached))
    below = int((got["fit"] < got["tail"] * (1 - 1e-9) - 1e-9).sum())
    rows.append(counted("fits nearer than the tail", "all ranks", 0, below))
    many, series = 16 * run.seeds, []
    for i, size in enumerate((2, 4)):
        d2 = command.over_seeds(smallest, run, 20 + i, size, size=1024, seeds=many)["d2"]
        where = f"Gaussian {size} x {size + 1} targets, rank {size - 1}"
        rows.append(tested("mean squared distance", where, image_size.mean_distance2(size), d2))
        within = np.stack([d2 <= d * d for d in DISTANCES], axis=1).astype(float)
        told = [image_size.share_within(size, d) for d in DISTANCES]
        for j in (2, 3, 4):
            rows.append(tested(f"share of targets within {DISTANCES[j]:g}", where, told[j], within[:, j]))
        seen = [float(v) if v > 0 else np.nan for v in within.mean(axis=0)]
        series += [curve(where, DISTANCES, seen), curve(where, DISTANCES, told, "predicted")]
    rng = np.random.default_rng([run.seed, 25])
    for n in FAMILY:
        target = np.diag([1.0, 1 / n])[None]
        missed = nearest(rng, target, np.eye(2)[None], 1) / energy(target)
        rows.append(compared("share of diag(1, 1/n) missed by rank 1", f"n = {n}", 1 / (n * n + 1), missed))
    figures = [
        {
            "name": "distance",
            "title": "Random targets miss LoRA's image by the singular values beyond its rank",
            "kind": "scatter",
            "x": {"label": "rank r"},
            "y": {"label": "squared distance, share of the target"},
            "series": [
                mean_curve("fitted", ranks, got["fit"] / got["energy"][:, None]),
                curve("fitted", ranks, (got["tail"] / got["energy"][:, None]).mean(axis=0), "predicted"),
            ],
        },
        {
            "name": "null-set",
            "title": "A null set, yet near: the share of targets within a distance of it",
            "kind": "scatter",
            "x": {"label": "distance", "scale": "log"},
            "y": {"label": "share of Gaussian targets", "scale": "log"},
            "series": series,
        },
    ]
    return rows, figures


def dimension_part(run: command.Run) -> list[Row]:
    """The rank of the derivative at generic and at special factors."""
    rows = []
    few = max(8, run.seeds // 16)
    for i, (m, n, r, lost_B, lost_A) in enumerate(
        [(2, 2, 1, 0, 0), (4, 3, 2, 0, 0), (5, 5, 2, 0, 0), (6, 4, 4, 0, 0), (8, 6, 3, 0, 0)]
        + [(5, 5, 2, 1, 0), (5, 5, 2, 1, 1), (5, 5, 2, 2, 0), (5, 5, 2, 2, 2)]
    ):
        got = command.over_seeds(jacobians, run, 30 + i, m, n, r, lost_B, lost_A, seeds=few)["rank"]
        ranks = f"rank B = {r - lost_B}, rank A = {r - lost_A}"
        where = f"{m} x {n}, r = {r}, {ranks}; r (m + n) = {r * (m + n)}"
        told = image_size.derivative_rank(m, n, r - lost_B, r - lost_A)
        if not lost_B and not lost_A and told != image_size.dimension(m, n, r):
            msg = f"the two formulas of the theory disagree at {m} x {n}, r = {r}"
            raise ArithmeticError(msg)
        rows.append(counted("rank of the derivative, smallest", where, told, int(got.min())))
        rows.append(counted("rank of the derivative, largest", where, told, int(got.max())))
    return rows


def input_part(run: command.Run, rows_: int, columns: int) -> tuple[list[Row], list[dict[str, Any]]]:
    """On how many inputs LoRA can be told from full tuning, and a model in which it never can."""
    rows: list[Row] = []
    r, series = 2, []
    counts = list(range(1, columns + 3))
    fits, tails = [], []
    for N in counts:
        got = command.over_seeds(on_inputs, run, 40 + N, rows_, columns, r, N)
        where = f"{rows_} x {columns} layer, r = {r}, N = {N} inputs"
        told = run.seeds if image_size.reachable(N, rows_, r) else 0
        reached = int((got["fit"] < TINY * got["energy"]).sum())
        rows.append(counted("changes that LoRA reaches on these inputs", where, told, reached))
        if not told:
            rows.append(compared("squared distance on these inputs", where, got["tail"], got["fit"]))
        fits.append(got["fit"] / got["energy"])
        tails.append((got["tail"] / got["energy"]).mean())
    series = [
        mean_curve(f"LoRA, r = {r}", counts, np.stack(fits, axis=1)),
        curve(f"LoRA, r = {r}", counts, tails, "predicted"),
    ]
    got = command.over_seeds(two_layers, run, 90, rows_, columns)
    where = f"two linear layers, {rows_} x {rows_ + 1} and {rows_ + 1} x {columns}, the first tuned"
    rows.append(
        counted("targets reached, the first layer in full", where, run.seeds, int((got["full"] < TINY).sum()))
    )
    rows.append(
        counted("targets reached, the first layer at rank 1", where, 0, int((got["rank 1"] < TINY).sum()))
    )
    figure = {
        "name": "inputs",
        "title": "On r inputs LoRA is full tuning; from the next one on it is strictly less",
        "kind": "scatter",
        "x": {"label": "inputs N"},
        "y": {"label": "squared distance, share of the wanted change"},
        "series": series,
        "lines": [{"x": r + 0.5, "label": "rank condition"}],
    }
    return rows, [figure]


def main(arguments: list[str] | None = None) -> None:
    """Run the simulator."""
    p = command.parser("strict_subset", __doc__, 512, 128)
    p.add_argument("--rows", type=int, default=5, metavar="M", help="outputs of the layer (default: 5)")
    p.add_argument("--columns", type=int, default=4, metavar="N", help="inputs of the layer (default: 4)")
    run = command.read(p, arguments)
    shape = (run.options.rows, run.options.columns)
    if not all(3 <= size <= 32 for size in shape):
        msg = f"rows and columns must be from 3 to 32; got {shape[0]} and {shape[1]}"
        raise BadInput(msg)
    rows: list[Row] = []
    figures: list[dict[str, Any]] = []
    for title, (new, drawn) in {
        "Distances": distance_part(run, *shape),
        "Dimension": (dimension_part(run), []),
        "Finite inputs": input_part(run, *shape),
        "Networks on finite inputs": network_part(run),
    }.items():
        show(title, new)
        rows, figures = rows + new, figures + drawn
    counts = [row for row in rows if isinstance(row["predicted"], int) and row["stderr"] is None]
    right = sum(row["predicted"] == row["simulated"] for row in counts)
    command.write(
        run,
        {"rows": shape[0], "columns": shape[1], "rounds": ROUNDS, "tiny": TINY},
        rows,
        headline=(
            f"{right} of {len(counts)} counts (targets reached, ranks of derivatives) are as predicted: LoRA's image has "
            f"dimension r (m + n - r), is met by no random target, and is told from full tuning on enough inputs, for one "
            f"layer r + 1 (largest |z| of distances {worst_z(rows):.1f})."
        ),
        question="Is what PEFT reaches strictly less than what full tuning reaches, and does it matter?",
        figures=figures,
        notes=[
            "A null set is met by no random target and still comes arbitrarily near some: rank 1 misses diag(1, 1/n) by "
            "the share 1 / (n^2 + 1) of its energy.",
            "Strictness in parameters is not strictness in functions: on at most r inputs LoRA gives what full tuning "
            "gives, and a model with two linear layers loses nothing when only the first is tuned.",
            "The dimensions of networks are generic ranks: the largest over the draws. Those predicted for full tuning are "
            "counts that simulation confirms; at one rational point they are certified.",
            "At B = A = 0 the derivative vanishes, and at the usual start B = 0 it has rank m r: the image is no "
            "manifold there.",
        ],
        claims=[f"peft_vs_fft/thm_1_{name}" for name in ("null", "submanifold", "density", "function_space")],
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
