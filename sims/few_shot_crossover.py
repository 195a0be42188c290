"""Where do the learning curves of full tuning and PEFT cross, and is it near 20 samples?

Full tuning fits all d coordinates of a linear model, PEFT the first k. The part of the target that PEFT leaves out is
a bias, and noise while it learns. With Gaussian inputs the mean risk of least squares is known exactly for every
number of samples N, so every crossing is known before a single fit; here it is looked for in actual fits.

    python sims/few_shot_crossover.py --quick
    python sims/few_shot_crossover.py --dims 30 --tuned 6 --left 0.2 --noise 0.1

Three ways to fit: minimum norm (least squares beyond N = d), ridge with the best penalty, gradient descent stopped
after a few steps. For the last two the prediction is the exact mean over targets and noise for the designs drawn.
The curves of minimum norm can cross more than once: PEFT's risk is infinite at N = k, full tuning's at N = d.
Signs are compared wherever the simulated difference is clear; places of crossings come with their standard errors.
Rademacher complexities, from which such comparisons are often argued, are computed exactly, by all signs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from sims import command
from sims.command import curve, mean_curve
from sims.present import BadInput, Row, compared, counted, guarded, number, show, tested, worst_z
from theory.peft_vs_fft import complexity
from theory.peft_vs_fft import learning_curves as theory

AUDIT = [["--quick"], []]
Array = np.ndarray
METHODS = ("full", "PEFT")
FITS = ("minimum norm", "ridge", "early stopping")
STEPS = 30
CLEAR = 4.0  # standard errors from which the sign of a simulated difference counts as seen
AWAY = 8  # samples from N = k or N = d beyond which the fourth moments exist and a standard error means something
GROUPS = 16  # of seeds, for the jackknife
DESIGNS = (2, 4, 7, 10)  # numbers of samples whose signs are all gone through
SIGNS = 64  # drawn ones


@dataclass(frozen=True)
class Task:
    """A regression task: d coordinates, PEFT tunes k, energies of the target on and off them, noise variance."""

    d: int
    k: int
    kept: float
    left: float
    v: float

    @property
    def label(self) -> str:
        """What the table says of it."""
        return f"d = {self.d}, k = {self.k}, left out {self.left:g}, noise {self.v:g}"

    def of(self, method: str) -> tuple[int, float, float]:
        """(tuned coordinates, energy on them, energy left out)."""
        return (self.d, self.kept + self.left, 0.0) if method == "full" else (self.k, self.kept, self.left)

    def exact(self, method: str, N: int) -> float:
        """The mean risk of the minimum-norm fit."""
        tuned, kept, left = self.of(method)
        return float(theory.minimum_norm(tuned, N, kept, left, self.v))

    def grid(self) -> list[int]:
        """Numbers of samples: all small ones, then sparser, to well beyond the last crossing."""
        last = self.d + 2
        while self.left and self.exact("full", last) > self.exact("PEFT", last):
            last += 1
        end, N, grid = max(2 * self.d, int(1.4 * last)) + 4, 1, []
        while N <= end:
            grid.append(N)
            N += 1 if N < self.d + 6 else max(1, N // 25)
        return grid


TASKS = (
    Task(20, 4, 1.0, 0.5, 0.5),
    Task(10, 2, 1.0, 0.5, 0.2),
    Task(40, 8, 1.0, 0.05, 0.01),
    Task(40, 4, 1.0, 0.5, 0.5),
    Task(20, 4, 1.0, 0.05, 0.5),
)


def spectrum(X: Array) -> Array:
    """The squared singular values of each design that need not vanish, ascending."""
    Xt = np.swapaxes(X, 1, 2)
    return np.linalg.eigvalsh(X @ Xt if X.shape[1] < X.shape[2] else Xt @ X)


def shrinkage(fit: str, task: Task, method: str, X: Array) -> Array:
    """For each design the ridge penalty, or the step of gradient descent: one over the largest eigenvalue."""
    tuned, kept, left = task.of(method)
    N = X.shape[1]
    if fit == "early stopping":
        return N / spectrum(X)[:, -1]
    return np.full(len(X), float(theory.optimal_penalty(tuned, N, kept, left, task.v)))


def fitted(fit: str, X: Array, y: Array, setting: Array) -> Array:
    """Weights fitted to designs X (seeds, N, tuned) and answers y (seeds, N) with the setting of each (seeds)."""
    N, tuned = X.shape[1:]
    Xt = np.swapaxes(X, 1, 2)
    if fit == "minimum norm" and N < tuned:
        return (Xt @ np.linalg.solve(X @ Xt, y[..., None]))[..., 0]
    gram, moment, setting = Xt @ X, Xt @ y[..., None], setting[:, None, None]
    if fit == "minimum norm":
        return np.linalg.solve(gram, moment)[..., 0]
    if fit == "ridge":
        return np.linalg.solve(gram + N * setting * np.eye(tuned), moment)[..., 0]
    w = np.zeros_like(moment)
    for _ in range(STEPS):
        w = w - setting / N * (gram @ w - moment)
    return w[..., 0]


def predicted(fit: str, task: Task, method: str, X: Array, setting: Array) -> Array:
    """The mean risk over targets and noise for each design X (seeds, N, tuned)."""
    N, tuned = X.shape[1:]
    small = spectrum(X) / N
    whole = np.concatenate([np.zeros((len(X), tuned - small.shape[1])), small], axis=1)
    each = setting[:, None]
    shrink = theory.ridge(each) if fit == "ridge" else theory.stopped(each, STEPS)
    _, kept, left = task.of(method)
    return np.asarray(theory.spectral(whole, N, kept, left, task.v, shrink, lambda a: a.sum(axis=-1)))


def measure(
    rng: np.random.Generator, n: int, task: Task, grid: list[int], fits: tuple[str, ...]
) -> dict[str, Array]:
    """Risks (seeds, grid) of every fit and method, on nested samples that all of them share."""
    X = rng.standard_normal((n, grid[-1], task.d))
    w = rng.standard_normal((n, task.d))
    w[:, : task.k] *= np.sqrt(task.kept / (w[:, : task.k] ** 2).sum(axis=1, keepdims=True))
    w[:, task.k :] *= np.sqrt(task.left / (w[:, task.k :] ** 2).sum(axis=1, keepdims=True))
    y = (X @ w[..., None])[..., 0] + np.sqrt(task.v) * rng.standard_normal((n, grid[-1]))
    out: dict[str, Array] = {}
    for method in METHODS:
        tuned = task.of(method)[0]
        for fit in fits:
            risks, means = np.empty((n, len(grid))), np.empty((n, len(grid)))
            for i, N in enumerate(grid):
                design = X[:, :N, :tuned]
                found, setting = np.zeros_like(w), shrinkage(fit, task, method, design)
                found[:, :tuned] = fitted(fit, design, y[:, :N], setting)
                risks[:, i] = ((found - w) ** 2).sum(axis=1)
                means[:, i] = (
                    task.exact(method, N)
                    if fit == "minimum norm"
                    else predicted(fit, task, method, design, setting)
                )
            out[f"{fit}/{method}"], out[f"{fit}/{method}/mean"] = risks, means
    return out


def places(grid: list[int], difference: Array) -> list[float]:
    """Where a curve of differences changes its sign; between the two numbers where one of them is infinite."""
    found = []
    for i in range(len(grid) - 1):
        a, b = difference[i], difference[i + 1]
        if a * b < 0:
            share = a / (a - b) if np.isfinite(a) and np.isfinite(b) else 0.5
            found.append(float(grid[i] + share * (grid[i + 1] - grid[i])))
        elif a != 0 and b == 0:
            found.append(float(grid[i + 1]))
    return found


def near(grid: list[int], mean: Array, simulated: Array, place: float) -> float:
    """The simulated crossing near a predicted one: the prediction plus a line fitted to the deviations around it."""
    at = np.array(grid)
    chosen = np.flatnonzero(np.isfinite(mean) & (np.abs(at - place) <= max(2.0, 0.15 * place)))
    line = np.polyfit(at[chosen], (simulated - mean)[chosen], 1)
    wide = np.flatnonzero(np.isfinite(mean) & (np.abs(at - place) <= max(4.0, 0.4 * place)))
    found = places([grid[i] for i in wide], mean[wide] + np.polyval(line, at[wide]))
    return min(found, key=lambda x: abs(x - place)) if found else float("nan")


def place_row(fit: str, task: Task, grid: list[int], means: Array, risks: Array, place: float) -> Row:
    """A crossing, predicted and simulated; the standard error of the difference by the jackknife over groups."""
    groups = np.array_split(np.arange(len(risks)), min(GROUPS, len(risks)))
    shifts, mean = [], means.mean(axis=0)
    whole = near(grid, mean, risks.mean(axis=0), place)
    for group in groups:
        kept = np.delete(np.arange(len(risks)), group)
        part = means[kept].mean(axis=0)
        own = min(places(grid, part), key=lambda x: abs(x - place), default=float("nan"))
        shifts.append(near(grid, part, risks[kept].mean(axis=0), place) - own)
    count = len(groups)
    stderr = np.sqrt((count - 1) / count * ((np.array(shifts) - np.mean(shifts)) ** 2).sum())
    return {
        "quantity": f"crossing, {fit}",
        "setting": task.label,
        "predicted": number(place),
        "simulated": number(whole),
        "stderr": number(stderr),
        "z": number((whole - place) / stderr) if stderr > 0 else None,
    }


def sign_rows(fit: str, task: Task, grid: list[int], mean: Array, risks: Array) -> list[Row]:
    """Signs and sign changes where the simulated difference is clear of zero."""
    simulated, stderr = risks.mean(axis=0), risks.std(axis=0, ddof=1) / np.sqrt(len(risks))
    clear = (np.abs(simulated) > CLEAR * stderr) & ~np.isnan(mean) & (mean != 0)
    if fit == "minimum norm":  # there one mean is infinite: no standard error, but a sign
        clear |= np.isin(grid, (task.k, task.d))
    told, seen = np.sign(mean[clear]), np.sign(simulated[clear])
    return [
        counted(f"N with the predicted winner, {fit}", task.label, len(told), int((told == seen).sum())),
        counted(
            f"crossings between clear differences, {fit}",
            task.label,
            int((np.diff(told) != 0).sum()),
            int((np.diff(seen) != 0).sum()),
        ),
    ]


def task_rows(task: Task, grid: list[int], got: dict[str, Array], fits: tuple[str, ...]) -> list[Row]:
    """Risks at a few N, crossings and their number."""
    rows: list[Row] = []
    singular = {"full": task.d, "PEFT": task.k}
    for fit in fits:
        for method in METHODS:
            wanted = [task.d // 2, 2 * task.d, grid[-1]]
            for i in [min(range(len(grid)), key=lambda j: abs(grid[j] - N)) for N in wanted]:  # noqa: B023
                if fit != "minimum norm" or abs(grid[i] - singular[method]) > AWAY:
                    name = f"{fit}/{method}"
                    where = f"{task.label}, N = {grid[i]}"
                    rows.append(
                        tested(f"risk of {method}, {fit}", where, got[f"{name}/mean"][:, i], got[name][:, i])
                    )
        means = got[f"{fit}/full/mean"] - got[f"{fit}/PEFT/mean"]
        risks = got[f"{fit}/full"] - got[f"{fit}/PEFT"]
        mean = means.mean(axis=0)
        if fit == "minimum norm":
            rows += benefit_rows(task, grid, got)
        rows += sign_rows(fit, task, grid, mean, risks)
        for place in places(grid, mean):
            i = int(np.searchsorted(grid, place))
            if np.isfinite(mean[i - 1]) and np.isfinite(mean[i]):
                row = place_row(fit, task, grid, means, risks, place)
                if fit == "minimum norm" and min(abs(place - task.k), abs(place - task.d)) <= AWAY:
                    row |= {"stderr": None, "z": None}
                rows.append(row)
    return rows


def benefit_rows(task: Task, grid: list[int], got: dict[str, Array]) -> list[Row]:
    """What one more sample gains, on nested samples."""
    rows = []
    i = int(np.searchsorted(grid, task.d + AWAY + 1))
    j = i + 1
    for method in METHODS:
        name = f"minimum norm/{method}"
        gain = task.exact(method, grid[i]) - task.exact(method, grid[j])
        where = f"{task.label}, N = {grid[i]} to {grid[j]}"
        rows.append(tested(f"gain of more samples, {method}", where, gain, got[name][:, i] - got[name][:, j]))
    return rows


def figure(name: str, task: Task, grid: list[int], got: dict[str, Array], fit: str) -> dict[str, Any]:
    """Learning curves with their crossings."""
    series = []
    for method in METHODS:
        label = f"{fit}/{method}"
        mean = got[f"{label}/mean"].mean(axis=0)
        known = [float(v) if np.isfinite(v) else np.nan for v in mean]
        series += [mean_curve(method, grid, got[label]), curve(method, grid, known, "predicted")]
    difference = (got[f"{fit}/full/mean"] - got[f"{fit}/PEFT/mean"]).mean(axis=0)
    found = places(grid, difference)
    low = min(float(got[f"{fit}/{method}"].mean(axis=0).min()) for method in METHODS)
    return {
        "name": name,
        "title": f"Full tuning and PEFT cross {len(found)} time{'s' * (len(found) != 1)}, {fit}",
        "kind": "scatter",
        "caption": f"{task.label}; energy of the target on PEFT's coordinates {task.kept:g}.",
        "x": {"label": "samples N", "scale": "log"},
        "y": {"label": "excess risk", "scale": "log", "limits": [0.7 * low, 30 * (task.kept + task.left)]},
        "series": series,
        "lines": [{"x": float(x), "label": f"crossing at {x:.1f}"} for x in found],
    }


# -- Rademacher complexities ----------------------------------------------------------------------------------------
def designs(rng: np.random.Generator, n: int, d: int, k: int, N: int) -> dict[str, Array]:
    """Complexities of both classes on Gaussian inputs, by all signs and by a few drawn ones; k of d coordinates tuned."""
    X = rng.standard_normal((n, N, d))
    every = np.array(list(complexity.signs(N)))
    drawn = rng.choice([-1.0, 1.0], size=(n, SIGNS, N))
    out = {}
    for method, tuned in (("full", d), ("PEFT", k)):
        part = X[:, :, :tuned]
        out[method] = np.sqrt(((every @ part) ** 2).sum(axis=2)).mean(axis=1) / N
        out[f"{method}/drawn"] = np.sqrt(((drawn @ part) ** 2).sum(axis=2)).mean(axis=1) / N
        out[f"{method}/bound"] = np.sqrt((part**2).sum(axis=(1, 2))) / N
    return out


def on_design(X: Array, k: int) -> float:
    """The ratio of the exact complexities, full tuning against PEFT, on one design (N x d)."""
    every = np.array(list(complexity.signs(len(X))))
    full, peft = (np.sqrt(((every @ part) ** 2).sum(axis=1)).mean() for part in (X, X[:, :k]))
    return float(full / peft)


def complexity_part(run: command.Run, d: int, k: int) -> tuple[list[Row], dict[str, Any]]:
    """Exact complexities on finite designs: is their ratio sqrt(d/k)?"""
    rows: list[Row] = []
    outside = 0
    found: dict[str, list[Array]] = {method: [] for method in METHODS}
    for N in DESIGNS:
        got = command.over_seeds(designs, run, 50 + N, d, k, N)
        where = f"Gaussian inputs, d = {d}, k = {k}, N = {N}"
        for method, tuned in (("full", d), ("PEFT", k)):
            exact, bound = got[method], got[f"{method}/bound"]
            rows.append(
                tested(f"Rademacher complexity, {method}", where, complexity.gaussian(tuned, N), exact)
            )
            rows.append(tested(f"the same by {SIGNS} signs, {method}", where, exact, got[f"{method}/drawn"]))
            outside += int(((exact > bound * (1 + 1e-9)) | (exact < bound / np.sqrt(2) * (1 - 1e-9))).sum())
            found[method].append(exact)
    rows.append(counted("designs outside the bounds of Jensen and Khintchine", "Gaussian inputs", 0, outside))
    inside = np.zeros((4, d))
    inside[:, :k] = np.random.default_rng([run.seed, 49]).standard_normal((4, k))
    for where, X, told in (
        ("four inputs on PEFT's coordinates", inside, 1.0),
        ("one input, spread evenly", np.ones((1, d)), np.sqrt(d / k)),
    ):
        rows.append(
            compared("ratio of exact complexities", f"{where}, d = {d}, k = {k}", told, on_design(X, k))
        )
    series = []
    for method, tuned in (("full", d), ("PEFT", k)):
        series.append(mean_curve(method, DESIGNS, np.stack(found[method], axis=1)))
        series.append(curve(method, DESIGNS, [complexity.gaussian(tuned, N) for N in DESIGNS], "predicted"))
    figure = {
        "name": "rademacher",
        "title": "Exact Rademacher complexities fall like 1 / sqrt(N); their ratio is a matter of the inputs",
        "kind": "scatter",
        "caption": f"Gaussian inputs, d = {d}, k = {k}, classes of weights of length at most one.",
        "x": {"label": "samples N", "scale": "log"},
        "y": {"label": "Rademacher complexity", "scale": "log"},
        "series": series,
    }
    return rows, figure


def main(arguments: list[str] | None = None) -> None:
    """Run the simulator."""
    p = command.parser("few_shot_crossover", __doc__, 512, 256)
    p.add_argument("--dims", type=int, metavar="D", help="a task of your own: coordinates in all")
    p.add_argument(
        "--tuned", type=int, default=4, metavar="K", help="coordinates that PEFT tunes (default: 4)"
    )
    p.add_argument(
        "--left", type=float, default=0.5, metavar="B", help="energy that PEFT leaves out (default: 0.5)"
    )
    p.add_argument("--noise", type=float, default=0.5, metavar="V", help="noise variance (default: 0.5)")
    run = command.read(p, arguments)
    tasks = tasks_of(run)
    rows: list[Row] = []
    figures = []
    for i, task in enumerate(tasks):
        grid = task.grid()
        fits = FITS if i == 0 or (i < 4 and not run.quick) else FITS[:1]
        got = command.over_seeds(measure, run, i, task, grid, fits)
        new = task_rows(task, grid, got, fits)
        show(task.label, new)
        rows += new
        for fit in fits if i == 0 else fits[:1]:
            figures.append(figure(f"curves-{i}-{fit.replace(' ', '-')}", task, grid, got, fit))
    d, k = tasks[0].d, tasks[0].k
    new, drawn = complexity_part(run, d, k)
    show("Rademacher complexities", new)
    rows += new
    figures.append(drawn)
    lengths = complexity.mean_length(d) / complexity.mean_length(k)
    last = sorted(row["predicted"] for row in rows if row["quantity"] == "crossing, minimum norm")
    ways = [row for row in rows if row["quantity"].startswith("N with")]
    told, seen = sum(r["predicted"] for r in ways), sum(r["simulated"] for r in ways)
    command.write(
        run,
        {"tasks": [vars(t) for t in tasks], "steps": STEPS},
        rows,
        headline=(
            f"Theory names the winner at {seen} of the {told} numbers of samples where there is a clear one; the curves "
            f"of minimum norm cross at N = {', '.join(f'{x:.0f}' for x in last) or 'no number'}: 20 is no constant."
        ),
        question="Up to how many samples does PEFT lead, and can one know beforehand?",
        figures=figures,
        notes=[
            f"Largest |z|: {worst_z(rows):.2f}. Where N is within {AWAY} of k or d the risk of minimum norm has heavy "
            "tails, so no standard errors are given there.",
            "Ridge and stopped gradient descent have no infinite risks: crossings that minimum norm owes to them can "
            "disappear, and the last one moves.",
            f"Rademacher complexities are exact, by all signs. Their ratio is 1 for inputs on PEFT's coordinates, "
            f"sqrt(d/k) for one input spread evenly, and {lengths:.3f} in the mean for Gaussian inputs with d = {d}, "
            f"k = {k}, where sqrt(d/k) = {np.sqrt(d / k):.3f}: it tells of the inputs.",
            "Ridge with the best penalty never loses to minimum norm on average, whatever the design.",
        ],
        claims=[f"peft_vs_fft/{name}" for name in ("few_shot_crossover", "thm_5_risk", "thm_5_rademacher")],
    )


def tasks_of(run: command.Run) -> tuple[Task, ...]:
    """The tasks kept, or the one that the options describe."""
    o = run.options
    if o.dims is None:
        if (o.tuned, o.left, o.noise) != (4, 0.5, 0.5):
            msg = "tuned, left and noise need a task of your own; give --dims too"
            raise BadInput(msg)
        return TASKS
    if not 1 <= o.tuned < o.dims <= 200:
        msg = f"dims and tuned must satisfy 1 <= tuned < dims <= 200; got tuned {o.tuned}, dims {o.dims}"
        raise BadInput(msg)
    if not (0.001 <= o.left < 1e6 and 0.001 <= o.noise < 1e6):
        msg = f"left and noise must satisfy 0.001 <= value < 1e6; got {o.left}, {o.noise}"
        raise BadInput(msg)
    task = Task(o.dims, o.tuned, 1.0, o.left, o.noise)
    if task.grid()[-1] > 5000:
        msg = f"the last crossing must lie below 3500 samples; it is near {task.grid()[-1] / 1.4:.0f}, raise left"
        raise BadInput(msg)
    return (task,)


if __name__ == "__main__":
    sys.exit(guarded(main))
