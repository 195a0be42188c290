"""Is PEFT less robust? Shifts of the gradient, of the weights and of the inputs, theory beside simulation.

A quadratic loss is tuned in full and in a subspace. Then something shifts, and three readings of "PEFT loses more"
part: both models may be tuned again, or stay frozen; and the noise may come through the inputs.

    python sims/perturbation.py --quick
    python sims/perturbation.py --dims 20 --tuned 10 --condition 30

Tuned again: what tuning wins back of the shift is less for PEFT, by exactly (C eps)' H (C eps) / 2, and by nothing
if the shift eps lies in range(H P). Frozen: the difference g' eps changes its sign with the shift; averages agree,
the worst case does not. Input noise: it costs s^2 |w|^2, so the model with smaller weights loses less, and that is
often PEFT. Tuning again is conjugate gradients, worst cases are found by ascent, noise is drawn.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from sims import command
from sims.command import curve, mean_curve
from sims.present import BadInput, Row, compared, counted, guarded, number, show, tested, worst_z
from theory.kits.floats import Floats
from theory.peft_vs_fft import shifts

AUDIT = [["--quick"], []]
Array = np.ndarray
SHIFTS = 200  # random shifts of each problem; every one comes with its opposite
SAMPLES = 1000  # noisy inputs of each problem
RADII = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
LEVELS = (0.1, 0.3, 1.0, 3.0)  # standard deviations of the input noise
CLEAR = 4.0


def columns(a: Array) -> Array:
    """Vectors as matrices of one column."""
    return a[..., None]


def inner(a: Array, b: Array) -> Array:
    """Inner products along the last axis."""
    return np.asarray((a * b).sum(axis=-1))


def problems(
    rng: np.random.Generator, n: int, d: int, k: int, condition: float
) -> tuple[Array, Array, Array]:
    """Hessians with eigenvalues 1 to `condition`, bases of subspaces, full optima."""
    Q = np.linalg.qr(rng.standard_normal((n, d, d)))[0]
    H = (Q * np.geomspace(condition, 1, d)) @ np.swapaxes(Q, 1, 2)
    return H, rng.standard_normal((n, d, k)), rng.standard_normal((n, d))


def minimised(H: Array, b: Array) -> Array:
    """Argmin w'Hw/2 - b'w by conjugate gradients; H (n, d, d), b (n, d)."""
    w, r = np.zeros_like(b), b.copy()
    p, rr = r.copy(), inner(r, r)
    for _ in range(4 * b.shape[-1]):
        Hp = (H @ columns(p))[..., 0]
        step = np.divide(rr, inner(p, Hp), out=np.zeros_like(rr), where=rr > 1e-28)
        w, r = w + step[..., None] * p, r - step[..., None] * Hp
        new = inner(r, r)
        p, rr = r + np.divide(new, rr, out=np.zeros_like(rr), where=rr > 1e-28)[..., None] * p, new
    return w


def tuned(H: Array, P: Array, b: Array) -> tuple[Array, Array]:
    """Minimisers of w'Hw/2 - b'w over all w, and over the range of P."""
    basis = np.linalg.qr(P)[0]
    small = np.swapaxes(basis, 1, 2) @ H @ basis
    inside = minimised(small, (np.swapaxes(basis, 1, 2) @ columns(b))[..., 0])
    return minimised(H, b), (basis @ columns(inside))[..., 0]


def value(H: Array, b: Array, w: Array) -> Array:
    """w'Hw/2 - b'w."""
    return inner(w, (H @ columns(w))[..., 0]) / 2 - inner(b, w)


def reoptimised(rng: np.random.Generator, n: int, d: int, k: int, condition: float) -> dict[str, Array]:
    """Loss changes after tuning again: for random shifts, and for shifts in range(P) and in range(H P)."""
    kit = Floats()
    H, P, best = problems(rng, n, d, k, condition)
    b = (H @ columns(best))[..., 0]
    old = tuned(H, P, b)
    out: dict[str, Array] = {"mean": shifts.mean_gap(kit, kit.mat(H), kit.mat(P), 1.0)}
    within = (P @ columns(rng.standard_normal((n, k))))[..., 0]
    for name, eps in {
        "random": rng.standard_normal((n, d)),
        "P": within,
        "HP": (H @ columns(within))[..., 0],
    }.items():
        again = tuned(H, P, b - eps)
        full, peft = (value(H, b - eps, w) - value(H, b - eps, v) for w, v in zip(again, old, strict=True))
        out[f"{name}/gap"] = peft - full
        out[f"{name}/told"] = shifts.reoptimised_gap(kit, kit.mat(H), kit.mat(P), kit.mat(columns(eps)))
        out[f"{name}/full"] = full
        if name == "random":
            whole = [value(H, b - eps, w) - value(H, b, v) for w, v in zip(again, old, strict=True)]
            out["whole/gap"] = whole[1] - whole[0]
            out["whole/told"] = out["random/told"] + inner(eps, old[1] - old[0])
    return out


def frozen(rng: np.random.Generator, n: int, d: int, k: int, condition: float) -> dict[str, Array]:
    """Loss changes of frozen models: random shifts, and the worst ones at several radii."""
    kit = Floats()
    H, P, best = problems(rng, n, d, k, condition)
    b = (H @ columns(best))[..., 0]
    full, peft = tuned(H, P, b)
    g = (H @ columns(peft))[..., 0] - b
    eps = rng.standard_normal((n, SHIFTS, d))
    eps = np.concatenate([eps, -eps], axis=1)
    changes = [
        value(H[:, None], b[:, None], w[:, None] + eps) - value(H, b, w)[:, None] for w in (full, peft)
    ]
    difference = changes[1] - changes[0]
    told = inner(g[:, None], eps)
    half = SHIFTS
    curvature = shifts.mean_frozen(kit, kit.mat(H), 1.0)
    out = {
        "worst error": np.abs(difference - told).max(axis=1),
        "average difference": difference.mean(axis=1),
        "one-sided difference": difference[:, :half].mean(axis=1),
        "share": (difference[:, :half] > 0).mean(axis=1),
        "full": changes[0][:, :half].mean(axis=1),
        "peft": changes[1][:, :half].mean(axis=1),
        "curvature": curvature,
    }
    values, V = np.linalg.eigh(H)
    turned = (np.swapaxes(V, 1, 2) @ columns(g))[..., 0]
    for name, gradient, center, turned_g in (("full", 0 * g, full, 0 * turned), ("peft", g, peft, turned)):
        told_worst = [
            shifts.worst_frozen(
                values, turned_g, radius, lambda a: a.sum(axis=-1, keepdims=True),
                lambda a: a.max(axis=-1, keepdims=True), np.sqrt,
            )[:, 0]
            for radius in RADII
        ]  # fmt: skip
        out[f"worst told/{name}"] = np.stack(told_worst, axis=1)
        found = [ascent(rng, H, gradient, radius) for radius in RADII]
        seen = [value(H, b, center + e) - value(H, b, center) for e in found]
        out[f"worst seen/{name}"] = np.stack(seen, axis=1)
    return out


def ascent(rng: np.random.Generator, H: Array, g: Array, radius: float) -> Array:
    """The worst shift found by the power method with the gradient added: it climbs since H is positive definite."""
    n, d = g.shape
    start = g + 1e-3 * rng.standard_normal((n, d))
    e = radius * start / np.linalg.norm(start, axis=1, keepdims=True)
    for _ in range(600):
        up = (H @ columns(e))[..., 0] + g
        e = radius * up / np.linalg.norm(up, axis=1, keepdims=True)
    return e


def noisy(rng: np.random.Generator, n: int, d: int, k: int, condition: float) -> dict[str, Array]:
    """What input noise adds to the squared error of both models, on drawn inputs; H is the inputs' covariance."""
    kit = Floats()
    H, P, best = problems(rng, n, d, k, condition)
    full, peft = tuned(H, P, (H @ columns(best))[..., 0])
    root = np.linalg.cholesky(H)
    x = rng.standard_normal((n, SAMPLES, d)) @ np.swapaxes(root, 1, 2)
    noise = rng.standard_normal((n, SAMPLES, d))
    noise = np.concatenate([noise, -noise], axis=1)  # in pairs: what is odd in the noise cancels
    x = np.concatenate([x, x], axis=1)
    out = {}
    for name, w in (("full", full), ("peft", peft)):
        miss, moved = inner(x, (w - best)[:, None]), inner(noise, w[:, None])
        costs = [((miss + s * moved) ** 2 - miss**2).mean(axis=1) for s in LEVELS]
        out[f"{name}/seen"] = np.stack(costs, axis=1)
        out[f"{name}/told"] = np.stack(
            [shifts.noise_cost(kit, kit.mat(columns(w)), s * s) for s in LEVELS], axis=1
        )
    return out


def reoptimised_part(
    run: command.Run, task: tuple[int, int, float]
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Both models tuned again."""
    got = command.over_seeds(reoptimised, run, 10, *task)
    where = "tuned again after a shift of the gradient"
    scale = np.abs(got["random/full"]).mean()
    rows = [
        compared("dL_peft - dL_full, shift by shift", where, got["random/told"], got["random/gap"]),
        tested("mean dL_peft - dL_full", f"{where}, covariance I", got["mean"], got["random/gap"]),
        compared("dL_peft - dL_full, eps in range(HP)", where, got["HP/told"], got["HP/gap"]),
        compared("dL_peft - dL_full, eps in range(P)", where, got["P/told"], got["P/gap"]),
        compared("the same, eps' w counted", where, got["whole/told"], got["whole/gap"]),
        tested("mean of it", f"{where}, covariance I", got["mean"], got["whole/gap"]),
        counted(
            "shifts in which PEFT loses less, eps' w counted",
            where,
            int((got["whole/told"] < -1e-9 * scale).sum()),
            int((got["whole/gap"] < -1e-9 * scale).sum()),
        ),
        counted("shifts in which PEFT loses less", where, 0, int((got["random/gap"] < -1e-9 * scale).sum())),
        counted(
            "eps in range(P) that cost PEFT more all the same",
            where,
            run.seeds,
            int((got["P/gap"] > 1e-9 * scale).sum()),
        ),
    ]
    order = np.argsort(got["random/told"])[:300]
    figure = {
        "name": "reoptimised",
        "title": "Tuned again, PEFT falls behind by exactly (C eps)' H (C eps) / 2",
        "kind": "scatter",
        "x": {"label": "predicted gap"},
        "y": {"label": "gap after tuning again"},
        "series": [
            curve("random shifts", got["random/told"][order], got["random/gap"][order]),
            curve("random shifts", got["random/told"][order], got["random/told"][order], "predicted"),
        ],
    }
    for s in figure["series"]:  # type: ignore[attr-defined]
        s["x"] = [number(v) for v in s["x"]]
    return rows, [figure]


def frozen_part(run: command.Run, task: tuple[int, int, float]) -> tuple[list[Row], list[dict[str, Any]]]:
    """Frozen models."""
    got = command.over_seeds(frozen, run, 20, *task, size=8)
    where = "frozen, Gaussian shifts of the weights"
    rows = [
        compared("largest |difference - g' eps|", where, 0.0, got["worst error"].max()),
        compared("mean difference over a set with all its opposites", where, 0.0, got["average difference"]),
        tested("mean difference over shifts", where, 0.0, got["one-sided difference"]),
        tested("share of shifts in which PEFT loses more", where, 0.5, got["share"]),
        tested("mean loss change of full tuning", where, got["curvature"], got["full"]),
        tested("mean loss change of PEFT", where, got["curvature"], got["peft"]),
    ]
    broken = 0
    for j, radius in enumerate(RADII):
        for name in ("full", "peft"):
            told, seen = got[f"worst told/{name}"][:, j], got[f"worst seen/{name}"][:, j]
            rows.append(
                compared(
                    f"worst loss change of {'PEFT' if name == 'peft' else 'full tuning'}",
                    f"frozen, |eps| = {radius:g}",
                    told,
                    seen,
                )
            )
            broken += int((seen > told * (1 + 1e-9) + 1e-12).sum())
        better = int((got["worst seen/peft"][:, j] < got["worst seen/full"][:, j] * (1 - 1e-6)).sum())
        rows.append(
            counted("problems whose worst case is better for PEFT", f"frozen, |eps| = {radius:g}", 0, better)
        )
    rows.append(counted("shifts found that exceed the predicted worst case", "frozen, all radii", 0, broken))
    series = []
    for name, label in (("full", "full tuning"), ("peft", "PEFT")):
        series.append(mean_curve(label, RADII, got[f"worst seen/{name}"]))
        series.append(curve(label, RADII, got[f"worst told/{name}"].mean(axis=0), "predicted"))
    figure = {
        "name": "worst",
        "title": "Frozen models: only the worst case is against PEFT, and less so for large shifts",
        "kind": "scatter",
        "x": {"label": "length of the shift", "scale": "log"},
        "y": {"label": "worst loss change", "scale": "log"},
        "series": series,
    }
    return rows, [figure]


def noise_part(run: command.Run, task: tuple[int, int, float]) -> tuple[list[Row], list[dict[str, Any]]]:
    """Noise on the inputs: isotropic and correlated inputs."""
    d, k, condition = task
    rows: list[Row] = []
    figures = []
    for i, (kind, c) in enumerate((("isotropic", 1.0), ("correlated", condition))):
        got = command.over_seeds(noisy, run, 30 + i, d, k, c, size=8)
        for j in (0, 2):
            for name, label in (("full", "full tuning"), ("peft", "PEFT")):
                where = f"input noise {LEVELS[j]:g}, {kind} inputs"
                rows.append(
                    tested(
                        f"added squared error, {label}",
                        where,
                        got[f"{name}/told"][:, j],
                        got[f"{name}/seen"][:, j],
                    )
                )
        told = got["peft/told"][:, 2] - got["full/told"][:, 2]
        seen = got["peft/seen"][:, 2] - got["full/seen"][:, 2]
        spread = CLEAR * np.sqrt(2 / SAMPLES) * (got["peft/told"][:, 2] + got["full/told"][:, 2])
        clear = np.abs(seen) > spread
        where = f"input noise 1, {kind} inputs"
        rows.append(
            counted(
                "clear cases with the predicted loser",
                where,
                int(clear.sum()),
                int((np.sign(told) == np.sign(seen))[clear].sum()),
            )
        )
        more = int((told > 1e-9).sum())
        if kind == "isotropic":
            rows.append(counted("problems in which noise costs PEFT more, by |w|", where, 0, more))
        series = []
        for name, label in (("full", "full tuning"), ("peft", "PEFT")):
            series.append(mean_curve(label, LEVELS, got[f"{name}/seen"]))
            series.append(curve(label, LEVELS, got[f"{name}/told"].mean(axis=0), "predicted"))
        figures.append(
            {
                "name": f"noise-{kind}",
                "title": f"Input noise costs s^2 |w|^2: {kind} inputs",
                "kind": "scatter",
                "x": {"label": "standard deviation s of the noise", "scale": "log"},
                "y": {"label": "added squared error", "scale": "log"},
                "series": series,
            }
        )
    return rows, figures


def main(arguments: list[str] | None = None) -> None:
    """Run the simulator."""
    p = command.parser("perturbation", __doc__, 512, 128)
    p.add_argument("--dims", type=int, default=12, metavar="D", help="parameters in all (default: 12)")
    p.add_argument("--tuned", type=int, default=4, metavar="K", help="dimension of the subspace (default: 4)")
    p.add_argument(
        "--condition", type=float, default=10.0, metavar="C", help="condition of the Hessian (default: 10)"
    )
    run = command.read(p, arguments)
    o = run.options
    if not 1 <= o.tuned < o.dims <= 100:
        msg = f"dims and tuned must satisfy 1 <= tuned < dims <= 100; got tuned {o.tuned}, dims {o.dims}"
        raise BadInput(msg)
    if not 1 < o.condition <= 100:
        msg = f"condition must satisfy 1 < condition <= 100; got {o.condition}"
        raise BadInput(msg)
    task = (o.dims, o.tuned, o.condition)
    rows: list[Row] = []
    figures: list[dict[str, Any]] = []
    for title, part in {
        "Tuned again": reoptimised_part,
        "Frozen": frozen_part,
        "Input noise": noise_part,
    }.items():
        new, drawn = part(run, task)
        show(title, new)
        rows, figures = rows + new, figures + drawn
    share = next(row for row in rows if row["quantity"].startswith("share"))["simulated"]
    command.write(
        run,
        {
            "d": o.dims,
            "k": o.tuned,
            "condition": o.condition,
            "shifts": SHIFTS,
            "samples": SAMPLES,
            "radii": list(RADII),
        },
        rows,
        headline=(
            f"Tuned again, PEFT falls behind by the exact gap; frozen, it loses more in {100 * share:.1f}% of random "
            f"shifts, as a coin would; input noise costs s^2 |w|^2 (largest |z| {worst_z(rows):.1f})."
        ),
        question="Is PEFT less robust than full tuning?",
        figures=figures,
        notes=[
            "The gap is that of what tuning again wins back, from each model's own optimum. Counting the loss eps' w that "
            "the shift itself adds there, the difference gets a term eps' (w_peft - w_full), and PEFT can lose less.",
            "A shift orthogonal to the subspace is neither needed nor sufficient for a gap: shifts in range(P) cost PEFT "
            "more, shifts in range(HP) do not.",
            "The worst case of a frozen PEFT model is never better than that of full tuning, whose gradient is zero.",
            "On isotropic inputs from zero weights PEFT's weights are a projection of the full ones, so noise never costs "
            "it more; on correlated inputs either may have the larger weights.",
        ],
        claims=[
            f"peft_vs_fft/thm_4_{name}" for name in ("reoptimised", "strict", "pinv", "frozen", "input_noise")
        ],
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
