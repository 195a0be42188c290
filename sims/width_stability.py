"""How large must the learning rate be for features to move, as the width grows? S2FT, LoRA and LoRA+.

Claim s2ft/width_stability says that S2FT moves the features of a layer of width n by Theta(1) with a learning
rate Theta(1/n), while LoRA needs Theta(1) for U and Theta(1/n) for V. Here one layer of n features is tuned for
a step or two at widths from 256 on, learning rates c n^a, and the exponent of each part of the feature update is
fitted; the prediction is what counting powers of n gives. Whether the claim's rates are right depends on the
optimizer and on the size of the gradient at the features, so all four combinations are run.

    python sims/width_stability.py --quick
    python sims/width_stability.py --seeds 200 --widths 256,1024,4096,16384

The layer maps x (n entries of size 1) to z = (W + U V') x, and only z0 = W x matters, so no n x n matrix is
formed. The loss is half the squared distance of z to a target, summed over the features (gradient Theta(1) at
each) or averaged (Theta(1/n)). LoRA starts at U = 0, V of variance 1/n, and takes two
steps, since V moves only after U; S2FT starts at V = 0 and takes one.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from sims import parallel
from sims.present import BadInput, Parser, Row, compared, guarded, number, numbers, save, show, worst_z

AUDIT = [[]]
Array = np.ndarray
WIDTHS = (256, 512, 1024, 2048, 4096, 8192, 16384)
QUICK_WIDTHS = (256, 512, 1024, 2048, 4096)
RANK = 4
CHANNELS = 8  # floor(r (n + n) / n), LoRA's parameter count
SIZE = 0.02  # the constant of every learning rate: small, so that two steps stay far from the target
PARTS = ("U moves", "V moves", "inner")


@dataclass(frozen=True)
class Case:
    """Learning rates SIZE n^a for U and SIZE n^b for V (S2FT has V alone), and how they are used.

    Attributes:
        method: "S2FT", "LoRA" (one rate for both factors) or "LoRA+" (a rate for each).
        optimizer: "SGD" or "Adam".
        gradient: "sum": gradient Theta(1) at each feature; "mean": Theta(1/n).
        a: exponent of U's learning rate.
        b: exponent of V's learning rate.
    """

    method: str
    optimizer: str
    gradient: str
    a: float
    b: float

    @property
    def label(self) -> str:
        """What the table says of it."""
        rates = f"eta ~ n^{self.b:g}" if self.a == self.b else f"eta_U ~ n^{self.a:g}, eta_V ~ n^{self.b:g}"
        return f"{self.optimizer}, {self.gradient} loss, {rates}"

    def predicted(self) -> dict[str, float]:
        """Exponents by counting powers of n.

        The gradient at a feature is n^g. S2FT: a step moves a tuned feature by eta n^g |x|^2 (SGD) or eta |x|_1
        (Adam). LoRA: U becomes eta_U n^g (SGD; Adam: eta_U); V' x, the inner features, then moves by
        eta_V |x|^2 (U' gradient) = eta_V n (n n^g U) (SGD; Adam: eta_V n). The feature update has a part from U
        moving (times V' x) and one from V moving (times U).
        """
        g = 0.0 if self.gradient == "sum" else -1.0
        adam = self.optimizer == "Adam"
        if self.method == "S2FT":
            return {"V moves": self.b + 1 + (0.0 if adam else g)}
        U = self.a + (0.0 if adam else g)
        inner = self.b + 1 if adam else self.b + 1 + (1 + g + U)
        return {"U moves": U, "V moves": U + inner, "inner": inner}


CASES = [
    *(
        Case("S2FT", opt, grad, b, b)
        for opt in ("SGD", "Adam")
        for grad in ("sum", "mean")
        for b in (-1.0, 0.0)
    ),
    *(
        Case("LoRA", opt, grad, a, a)
        for opt in ("SGD", "Adam")
        for grad in ("sum", "mean")
        for a in (-1.0, -0.5)
    ),
    *(Case("LoRA+", opt, grad, 0.0, -1.0) for opt in ("SGD", "Adam") for grad in ("sum", "mean")),
    Case("LoRA+", "SGD", "sum", 0.0, -2.0),
    Case("LoRA+", "SGD", "mean", 1.0, -1.0),
]


class Optimizer:
    """SGD, or Adam with its usual decays, for one parameter."""

    def __init__(self, kind: str, rate: float) -> None:
        self.kind, self.rate, self.t = kind, rate, 0
        self.mean: Any = 0.0
        self.square: Any = 0.0

    def step(self, gradient: Array) -> Array:
        """The change of the parameter."""
        if self.kind == "SGD":
            return -self.rate * gradient
        self.t += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        m, v = self.mean / (1 - 0.9**self.t), self.square / (1 - 0.999**self.t)
        # No gradient, no step; otherwise eps would enter the exponents, since gradients shrink with the width.
        return -self.rate * np.divide(m, np.sqrt(v), out=np.zeros_like(m), where=v > 0)


def updates(case: Case, n: int, rng: np.random.Generator) -> dict[str, float]:
    """Root mean squares of the parts of the feature update in the last step (S2FT: on its tuned features)."""
    x, z0 = rng.standard_normal(n), rng.standard_normal(n)
    target = rng.standard_normal(n)
    scale = 1.0 if case.gradient == "sum" else 1.0 / n
    if case.method == "S2FT":
        gradient = scale * (z0[:CHANNELS] - target[:CHANNELS])
        dV = Optimizer(case.optimizer, SIZE * n**case.b).step(np.outer(gradient, x))
        return {"V moves": rms(dV @ x)}
    U, V = np.zeros((n, RANK)), rng.standard_normal((RANK, n)) / np.sqrt(n)
    opt_U, opt_V = Optimizer(case.optimizer, SIZE * n**case.a), Optimizer(case.optimizer, SIZE * n**case.b)
    for _ in range(2):
        gradient = scale * (z0 + U @ (V @ x) - target)
        dU, dV = opt_U.step(np.outer(gradient, V @ x)), opt_V.step(np.outer(U.T @ gradient, x))
        moved = {"U moves": rms(dU @ (V @ x)), "V moves": rms(U @ (dV @ x)), "inner": rms(dV @ x)}
        U, V = U + dU, V + dV
    return moved


def rms(a: Array) -> float:
    """Root mean square of the entries."""
    return float(np.sqrt(np.mean(a**2)))


@dataclass(frozen=True)
class Block:
    """Some seeds of a case at all widths."""

    case: int
    widths: tuple[int, ...]
    seed: int
    first: int
    size: int


def measure(block: Block) -> dict[str, Array]:
    """log2 of each part's size: part -> seeds x widths. Every seed draws its own layer at every width."""
    case = CASES[block.case]
    out: dict[str, list[list[float]]] = {part: [] for part in case.predicted()}
    for i in range(block.first, block.first + block.size):
        sizes = [updates(case, n, parallel.stream(block.seed, block.case, i, n)) for n in block.widths]
        for part, values in out.items():
            values.append([float(np.log2(at_width[part])) for at_width in sizes])
    return {part: np.array(values) for part, values in out.items()}


def slopes(logs: Array, widths: tuple[int, ...]) -> Array:
    """Each seed's least-squares slope of log size against log width."""
    w = np.log2(widths)
    w = w - w.mean()
    return (logs @ w) / (w @ w)


def exponent_row(method: str, label: str, part: str, predicted: float, fitted: Array) -> Row:
    """Fitted exponent with the standard error over seeds; the setting holds its 95% interval."""
    stderr = fitted.std(ddof=1) / np.sqrt(len(fitted))
    low, high = fitted.mean() - 1.96 * stderr, fitted.mean() + 1.96 * stderr
    name = {"inner": f"exponent of {method}'s inner features V'x"}.get(
        part, f"exponent of {method}'s update, {part}"
    )
    return {
        "quantity": name,
        "setting": f"{label}; 95% interval {low:.3f} to {high:.3f}",
        "predicted": number(predicted),
        "simulated": number(fitted.mean()),
        "stderr": number(stderr),
        "z": number((fitted.mean() - predicted) / stderr),
    }


def identity_rows(seed: int, n: int = 512) -> list[Row]:
    """Claim s2ft/update_identity: one SGD step of S2FT, against the printed change and its "simplification"."""
    rng = parallel.stream(seed, 999)
    x, gradient, eta = rng.standard_normal(n), rng.standard_normal(n), 1.0 / n
    selected = np.arange(CHANNELS)
    dW = np.zeros((n, n))
    dW[selected] = -eta * np.outer(gradient[selected], x)  # the step: U' (gradient x'), put back by U
    change = dW @ x
    printed, simplified = np.zeros(n), -eta * gradient * (x @ x)
    printed[selected] = -eta * gradient[selected] * (x @ x)
    text = f"n = {n}, s = {CHANNELS}, relative error"
    off = np.linalg.norm(change - printed) / np.linalg.norm(printed)
    far = np.linalg.norm(change - simplified) / np.linalg.norm(simplified)
    rest = np.linalg.norm(np.delete(gradient, selected)) / np.linalg.norm(gradient)
    return [
        compared("one step is -eta U U' G' |x|^2", text, 0.0, off),
        compared(
            'one step is -eta G\' |x|^2 ("simplified")', text + ", predicted |(I - UU')G|/|G|", rest, far
        ),
    ]


def figure(logs: dict[tuple[int, str], Array], widths: tuple[int, ...]) -> dict[str, Any]:
    """Sizes of the feature updates with the claim's rates, Adam."""
    series = []
    for i, case in enumerate(CASES):
        if case.optimizer == "Adam" and case.gradient == "sum" and case.b == -1.0:
            parts = ["V moves"] if case.method == "S2FT" else ["U moves", "V moves"]
            for part in parts:
                y = 2.0 ** logs[i, part].mean(axis=0)
                label = f"{case.method}, {part}"
                line = y[0] * (np.array(widths) / widths[0]) ** case.predicted()[part]
                series.append({"label": label, "x": list(widths), "y": numbers(y)})
                series.append({"label": label, "role": "predicted", "x": list(widths), "y": numbers(line)})
    return {
        "name": "updates",
        "title": "With one rate 1/n for all, S2FT's features keep moving and LoRA's stop",
        "kind": "line",
        "caption": "Adam, learning rates n^-1 (LoRA+: 1 for U and n^-1 for V), last step.",
        "x": {"label": "width n", "scale": "log"},
        "y": {"label": "size of the feature update", "scale": "log"},
        "series": series,
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = Parser(
        prog="python sims/width_stability.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--quick", action="store_true", help="smaller widths, fewer seeds")
    p.add_argument(
        "--widths",
        metavar="N,N,...",
        help=f"at least three, ascending (default {','.join(map(str, WIDTHS))})",
    )
    p.add_argument("--seeds", type=int, metavar="N", help="layers at each width (default 48, quick 24)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="first number of all random streams")
    p.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all cores)"
    )
    return p


def checked_widths(text: str | None, quick: bool) -> tuple[int, ...]:
    """The widths asked for."""
    if text is None:
        return QUICK_WIDTHS if quick else WIDTHS
    try:
        widths = tuple(int(word) for word in text.split(","))
    except ValueError:
        widths = ()
    if len(widths) < 3 or list(widths) != sorted(set(widths)) or widths[0] < 2 * CHANNELS:
        msg = f"widths must be at least three ascending sizes of {2 * CHANNELS} or more, as in 256,512,1024; got {text!r}"
        raise BadInput(msg)
    return widths


def main(arguments: list[str] | None = None) -> None:
    """Run the simulator."""
    options = parser().parse_args(arguments)
    started = time.monotonic()
    widths = checked_widths(options.widths, options.quick)
    seeds = options.seeds if options.seeds is not None else (24 if options.quick else 48)
    for name, value, least in (("seeds", seeds, 2), ("jobs", options.jobs, 1), ("seed", options.seed, 0)):
        if value < least:
            msg = f"{name} must be at least {least}; got {value}"
            raise BadInput(msg)
    size = 8
    work = [
        Block(i, widths, options.seed, first, min(size, seeds - first))
        for i in range(len(CASES))
        for first in range(0, seeds, size)
    ]
    done = parallel.run(measure, work, options.jobs)
    logs: dict[tuple[int, str], Array] = {}
    rows: list[Row] = []
    for i, case in enumerate(CASES):
        joined = parallel.joined([got for block, got in zip(work, done, strict=True) if block.case == i])
        for part, predicted in case.predicted().items():
            logs[i, part] = joined[part]
            rows.append(exponent_row(case.method, case.label, part, predicted, slopes(joined[part], widths)))
    rows += identity_rows(options.seed)
    show("Exponents of the feature update in the width n", rows)
    other = options.widths is not None or options.seeds is not None or options.seed != 0
    name = "width_stability" + ("-quick" if options.quick else "") + ("-custom" if other else "")
    save(
        {
            "id": name,
            "headline": headline(rows),
            "question": "Which learning rates move a layer's features by the same amount at every width?",
            "settings": {
                "widths": list(widths), "seeds": seeds, "seed": options.seed, "rank": RANK, "channels": CHANNELS,
                "size": SIZE, "steps": {"S2FT": 1, "LoRA": 2},
            },
            "table": rows,
            "figures": [figure(logs, widths)],
            "notes": [
                "Predicted exponents count powers of n and hold as n grows; fitted ones carry what finite widths add.",
                "Stable means exponent 0 of both parts and of the inner features. With Adam the claim's rates (S2FT: 1/n; "
                "LoRA: 1 for U, 1/n for V) are stable at either size of the gradient. With SGD they depend on it: for a "
                "gradient Theta(1) at each feature, in which S2FT's 1/n is right, LoRA's V needs 1/n^2.",
                "One step of S2FT leaves all features but the s selected ones where they are: U U' is a projector onto "
                "them, not the identity.",
            ],
            "claims": ["s2ft/width_stability", "s2ft/update_identity"],
        },
        time.monotonic() - started,
    )  # fmt: skip


def headline(rows: list[Row]) -> str:
    """What came out, in a sentence made from the numbers."""
    fits = [row for row in rows if row["stderr"] is not None]
    off = max(abs(row["simulated"] - row["predicted"]) for row in fits)
    return (
        f"All {len(fits)} exponents of feature updates in the width come out as counting powers predicts, within {off:.3f} "
        f"(at most {worst_z(rows):.1f} standard errors)."
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
