"""The parts of the simulation of out-of-distribution risk on random networks: each runs blocks of seeds.

A block draws networks and tasks, computes the theory's closed forms on them (`theory.s2ft.setting`, `risks`)
and trains the same networks by gradient descent; both end up side by side, seed by seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sims import descent, networks, parallel
from sims.networks import Batch, Task
from theory.kits.floats import Floats
from theory.s2ft import risks, setting

Array = np.ndarray
METHODS = tuple(risks.FITS)
CLEAR = 0.01  # of the pretrained risk: nearer to a tie, what gradient descent has not finished decides
TOLERANCE = 1e-7  # of the pretrained risk, which is 1: rounding in the closed forms, times condition numbers


@dataclass(frozen=True)
class Run:
    """How a part is computed.

    Attributes:
        seed: first number of every random stream.
        seeds: networks and tasks in each part.
        steps: gradient steps, at which the risks are read off; ascending.
        start: LoRA's start, see `sims.descent.start`.
        device: "cpu", or a torch device for the gradient steps.
        jobs: processes.
    """

    seed: int = 0
    seeds: int = 256
    steps: tuple[int, ...] = (10, 30, 100, 300, 1000, 3000)
    start: str = "usual"
    device: str = "cpu"
    jobs: int = 1


@dataclass(frozen=True)
class Block:
    """One block of seeds of a part: `part` and `index` pick its random stream."""

    run: Run
    task: Task
    part: int
    index: int
    size: int
    samples: int = 0


def blocks(run: Run, task: Task, part: int, samples: int = 0) -> list[Block]:
    """The blocks of a part; they depend on the problem, never on the number of processes."""
    floats = 6 * (max(task.widths) ** 2) + samples * (task.p + task.q)
    sizes = parallel.block_sizes(run.seeds, floats)
    return [Block(run, task, part, index, size, samples) for index, size in enumerate(sizes)]


def trained(
    batch: Batch,
    Sxx: Array,
    Syx: Array,
    run: Run,
    rng: np.random.Generator,
    methods: tuple[str, ...] = METHODS,
) -> dict[str, list[Array]]:
    """Changes of the network's map (seeds, q, p) after each of the run's steps, for each method."""
    H, L = batch["H"], batch["L"]
    out: dict[str, list[Array]] = {}
    for method in methods:
        above = H[:, :, : batch.task.s] if method == "S2FT" else H
        problem = descent.quadratic(above, L, Sxx, Syx)
        on_device = problem if run.device == "cpu" else problem.to(run.device)
        if method == "LoRA":
            factors = descent.start(problem, batch.task.rank, run.start, rng)
            path = descent.low_rank(on_device, factors.to(run.device), run.steps)
        else:
            path = descent.linear(on_device, run.steps)
        out[method] = [above @ problem.restore(descent.as_numpy(T)) @ L for T in path]
    return out


def theory(batch: Batch, k: Floats, x: Any) -> dict[str, Array]:
    """The closed forms on a batch, as arrays over seeds.

    `METHOD.in`, `METHOD.out`, `METHOD.gain`; `pre.out`; without covariate shift `crossover` (the t of the tie)
    and `sides` (seeds x 2, see `risks.crossover_sides`); `bound.CLAIM|FORM`, or `bound-.` for lower bounds
    (seeds x 2: value, limit).
    """
    task = batch.task
    s = setting.quantities(k, x)
    closed = {method: fit(k, x, s) for method, fit in risks.FITS.items()}
    out: dict[str, Array] = {"pre.out": k.fro2((x.Bo - x.W) @ x.So)}
    for method in METHODS:
        out[f"{method}.in"] = risks.risk_in(k, x, closed[method])
        out[f"{method}.out"] = risks.risk_out(k, x, closed[method])
        out[f"{method}.gain"] = k.fro2(closed[method] @ x.Si)
    if not task.covariate_shift:
        with np.errstate(divide="ignore", invalid="ignore"):  # equal gains: the tie is at no t, or at every t
            out["crossover"] = risks.crossover_alignment(k, x, closed["S2FT"], closed["LoRA"])
        out["sides"] = np.stack(risks.crossover_sides(k, x, s), axis=1)
    ranks = {name: int(k.rank(A).max()) for name, A in (("rank_D", x.D @ x.Si), ("rank_M", s.M))}
    for bound in risks.bounds(
        k, x, s, **ranks, covariate_shift=task.covariate_shift > 0, realisable=task.realisable
    ):
        name = f"bound{'' if bound.upper else '-'}.{bound.claim}|{bound.form}"
        out[name] = np.stack(np.broadcast_arrays(bound.value, bound.limit), axis=1)
    return out


def closed(block: Block) -> dict[str, Array]:
    """A block of `theory` alone, nothing trained."""
    k = Floats()
    batch = networks.draw(block.task, parallel.stream(block.run.seed, block.part, block.index), block.size)
    return theory(batch, k, batch.instance(k))


def population(block: Block) -> dict[str, Array]:
    """A block of `theory`, and of gradient descent on the population risk.

    Adds `METHOD.curve` (E_i at each of the steps, seeds x steps), `METHOD.trained` (E_o at the end),
    `METHOD.movement` (|F Si|^2 there), and `gap.0`, `gap.1`: E_o(S2FT) - E_o(LoRA) at t = 0 and t = 1, between
    which and beyond which it is linear in t.
    """
    k = Floats()
    rng = parallel.stream(block.run.seed, block.part, block.index)
    batch = networks.draw(block.task, rng, block.size)
    x = batch.instance(k)
    out = theory(batch, k, x)
    Sig = batch["Si"] @ batch["Si"]
    fits = trained(batch, Sig, batch["D"] @ Sig, block.run, rng)
    ends = {method: k.mat(fits[method][-1]) for method in METHODS}
    for method in METHODS:
        out[f"{method}.curve"] = np.stack([risks.risk_in(k, x, k.mat(F)) for F in fits[method]], axis=1)
        out[f"{method}.trained"] = risks.risk_out(k, x, ends[method])
        out[f"{method}.movement"] = k.fro2(ends[method] @ x.Si)
    for t in (0, 1):
        y = batch.instance(k, alignment=float(t))
        out[f"gap.{t}"] = risks.risk_out(k, y, ends["S2FT"]) - risks.risk_out(k, y, ends["LoRA"])
    return out


def change_of_layer(block: Block) -> dict[str, Array]:
    """LoRA's change of the tuned layer after training, against the least-norm one that the paper assumes.

    `distance`: |T - T_min|_F / |T_min|_F. `effect`: the same for the change of the network's map, H T L.
    """
    k = Floats()
    rng = parallel.stream(block.run.seed, block.part, block.index)
    batch = networks.draw(block.task, rng, block.size)
    x = batch.instance(k)
    s = setting.quantities(k, x)
    least, H, L = risks.least_norm_change(k, x, s).data, batch["H"], batch["L"]
    Sig = batch["Si"] @ batch["Si"]
    problem = descent.quadratic(H, L, Sig, batch["D"] @ Sig)
    factors = descent.start(problem, block.task.rank, block.run.start, rng)
    *_, T = descent.low_rank(problem, factors, block.run.steps)
    off = problem.restore(T) - least
    pairs = {"distance": (off, least), "effect": (H @ off @ L, H @ least @ L)}
    return {name: (networks.norm(a) / networks.norm(b))[:, 0, 0] for name, (a, b) in pairs.items()}


def finite(block: Block) -> dict[str, Array]:
    """Risks after training on n samples: observed and, where theory has them, predicted means.

    `METHOD.in`, `METHOD.out` observed; `METHOD.in.mean`, `METHOD.out.mean` predicted seed by seed: exact for S2FT
    and full tuning, leading order in 1/n for LoRA in distribution. With steps in the run, `METHOD.in.trained` and
    `METHOD.out.trained` are gradient descent's outcome on the same samples.
    """
    task, n, k = block.task, block.samples, Floats()
    rng = parallel.stream(block.run.seed, block.part, block.index)
    batch = networks.draw(task, rng, block.size)
    Sxx, Syx = networks.moments(batch, rng, n)
    x = batch.instance(k)
    s = setting.quantities(k, x)
    y = risks.empirical(k, x, k.mat(Sxx), k.mat(Syx))
    sample = setting.quantities(k, y)
    fits = {method: fit(k, y, sample) for method, fit in risks.FITS.items()}
    rank_A = min(task.widths[: task.tuned])
    out: dict[str, Array] = {}
    for method, fit in risks.FITS.items():
        F = fit(k, x, s)
        out[f"{method}.in"] = risks.risk_in(k, x, fits[method])
        out[f"{method}.out"] = risks.risk_out(k, x, fits[method])
        # With R > r the leading order is dominated by the few tasks whose gap sigma_r - sigma_{r+1} nearly closes.
        if method == "LoRA" and task.rank == task.residual_rank:
            leading = risks.variance_lora_leading(k, x, s, task.rank, task.residual_rank, rank_A)
            out["LoRA.in.mean"] = risks.risk_in(k, x, F) + leading / n
        elif method != "LoRA" and n > rank_A + 1:
            reach = s.PS if method == "S2FT" else s.P
            inside, outside = risks.variance_linear(k, x, s, reach, n, rank_A)
            out[f"{method}.in.mean"] = risks.risk_in(k, x, F) + inside
            out[f"{method}.out.mean"] = risks.risk_out(k, x, F) + outside
    if block.run.steps:
        for method, path in trained(batch, Sxx, Syx, block.run, rng).items():
            out[f"{method}.in.trained"] = risks.risk_in(k, x, k.mat(path[-1]))
            out[f"{method}.out.trained"] = risks.risk_out(k, x, k.mat(path[-1]))
    return out


def trained_pair(got: dict[str, Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Gains and movements of the trained S2FT and LoRA fits, seed by seed."""
    gains = (1 - got["S2FT.curve"][:, -1], 1 - got["LoRA.curve"][:, -1])
    return gains, (got["S2FT.movement"], got["LoRA.movement"])


def compute(function: Any, run: Run, task: Task, part: int, samples: int = 0) -> dict[str, Array]:
    """Run one part over all its seeds."""
    return parallel.joined(parallel.run(function, blocks(run, task, part, samples), run.jobs))


def phase(run: Run, task: Task, shares: list[float], alignments: list[float], part: int) -> dict[str, Any]:
    """The phase diagram: mean of E_o(S2FT) - E_o(LoRA) over alignment t and ratio of the gains.

    The ratio is moved by the share of the residual on the selected channels; rank and selection stay. Each row
    holds the gaps of the trained fits, what `risks.mean_gap_of_fits` says of them, and the phase law itself.
    """
    rows = []
    for i, share in enumerate(shares):
        got = compute(population, run, replace(task, on_selected=share, selection="random"), part + i)
        gained, moved = trained_pair(got)
        rows.append(
            {
                "ratio": float(got["S2FT.gain"].mean() / got["LoRA.gain"].mean()),
                "gaps": [(1 - t) * got["gap.0"] + t * got["gap.1"] for t in alignments],
                "predicted": [risks.mean_gap_of_fits(t, moved, gained) for t in alignments],
                "law": [risks.mean_gap(t, got["S2FT.gain"], got["LoRA.gain"]) for t in alignments],
            }
        )
    rows.sort(key=lambda row: row["ratio"])
    return {"alignments": alignments, "rows": rows}
