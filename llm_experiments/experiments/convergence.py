"""Which methods bring the gradient of all weights to zero, and which only that of the weights they train?

First exactly, on quadratics where the theory knows the answer; then on a real encoder and so few examples that every
method can fit them: there the full gradient is taken along the way, in the plain model that the method is equivalent to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import Contrast, contrast, shown
from llm_experiments.experiments.trial import Result, Trial
from llm_experiments.experiments.variants import Found, edge_note, score

AUDIT = [["run", "convergence", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 420  # with every training that it shares with other rows
METHODS = ("full", "lora", "asym_lora", "rac_lora", "c3la", "peso_lora_r", "peso_lora_t")
CHAINED = ("rac_lora", "c3la", "peso_lora_r", "peso_lora_t")
ON_QUADRATIC = ("full", "LoRA", "Asym", "RAC", "c3LA")
SEEDS, STEPS, KEPT = 8, 240, 8  # of the quadratic
RANK_STEPS, RESTART = 600, 20  # of the target with r + 1 equal singular values
PAPER = "LoRA past, present and future"

PREDICTIONS = (
    Prediction("toy_frozen", "on a quadratic a frozen A leaves more than a tenth of |grad L|^2 for good, RAC-LoRA and c3LA "
               "less than a hundredth", "lora_variants/thm_2_frozen, thm_2_chain", 0,
               ("lora_variants/thm_2_frozen", "lora_variants/thm_2_chain")),
    Prediction("toy_restart", "on a target of rank r + 1 LoRA stays at its floor of 100, PESO-R ends below 1",
               "peso/lora_trap, peso/synthetic_curves", 0, ("peso/lora_trap", "peso/synthetic_curves")),
    Prediction("asym_falls", "Asym-LoRA's full gradient converges: its mean square is smaller in the second half of "
               "training than in the first", f"{PAPER}, Theorem 2", +1,
               about="mean of log10 |G|^2 with Asym-LoRA, first half - second half"),
    Prediction("asym_stalls", "what a frozen A does not see stays: Asym-LoRA ends with more gradient than RAC-LoRA",
               "lora_variants/thm_2_frozen, thm_2_chain", +1,
               ("lora_variants/thm_2_frozen", "lora_variants/thm_2_chain"), about="log10 |G|^2 late, Asym - RAC"),
    Prediction("unseen", "of Asym-LoRA's gradient the part in A's row space falls further than the rest",
               "lora_variants/thm_2_frozen", +1, ("lora_variants/thm_2_frozen",),
               about="fall of log10 of the square from the start to late, inside - outside of A's rows"),
    Prediction("lora_full", "LoRA ends with a larger full gradient than full tuning", "PESO, abstract and Figure 1", +1,
               about="log10 |G|^2 late, LoRA - full"),
    Prediction("restart_r", "restarts along the full gradient bring it lower than one LoRA does",
               "peso/thm_5_1_svd_restart; PESO, Figure 1", +1, ("peso/thm_5_1_svd_restart",),
               about="log10 |G|^2 late, LoRA - PESO-R"),
    Prediction("restart_t", "so do restarts with transported state", "PESO, Figure 1", +1,
               about="log10 |G|^2 late, LoRA - PESO-T"),
)  # fmt: skip


def run(lab: Lab, sheet: Sheet) -> None:
    """Two quadratics, then the encoder."""
    _quadratic(sheet)
    _floor(sheet)
    lab.choose_rates("main", METHODS)
    seeds = range(sheet.design.seeds)
    trials = {m: [gradient_trial(lab, sheet, m, seed) for seed in seeds] for m in METHODS}
    results = iter(lab.results([t for rows in trials.values() for t in rows], "full gradients"))
    found = {m: [next(results) for _ in seeds] for m in METHODS}
    found = {m: rows for m, rows in found.items() if not any(r.failure for r in rows)}

    def fall(first: Sequence[Result], second: Sequence[Result]) -> Contrast:
        return contrast([late(r) for r in first], [late(r) for r in second])

    for name, one, other in (
        ("asym_stalls", "asym_lora", "rac_lora"),
        ("lora_full", "lora", "full"),
        ("restart_r", "lora", "peso_lora_r"),
        ("restart_t", "lora", "peso_lora_t"),
    ):
        score(sheet, found, name, one, other, fall)
    score(sheet, found, "asym_falls", "asym_lora", "asym_lora", lambda rows, _: halves(rows))
    score(sheet, found, "unseen", "asym_lora", "asym_lora", lambda rows, _: by_part(rows))
    _show(sheet, found)
    sheet.note(
        f"The encoder is tuned on {sheet.design.options['train_size']} examples, which it sees again and again, at a "
        "constant rate after warm-up; the gradient is that of the loss on exactly these examples."
    )
    sheet.note(
        "The theorems are about gradient descent; here every method has AdamW in minibatches, at the rate that was best on "
        "the whole task. A gradient is small where the loss is, so the loss stands beside it."
    )
    sheet.note(
        "Links and restarts last as many steps as lie between two marks: gradients are those at the starts of links."
    )
    sheet.note(edge_note(lab, list(found)))


def gradient_trial(lab: Lab, sheet: Sheet, method: str, seed: int) -> Trial:
    """A training on few examples with the full gradient at regular marks."""
    options = sheet.design.options
    steps, every, few = options["steps"], options["every"], options["train_size"]
    return lab.trial(
        "main",
        method,
        probes=("full_gradient",),
        marks=tuple(range(0, steps, every)),
        seed=seed,
        steps=steps,
        train_size=few,
        eval_every=every,
        eval_items=few,
        final_items=few,
        splits="train",
        schedule="constant",
        **({"options": {"every": every}} if method in CHAINED else {}),
    )


def squares(result: Result, part: str = "square") -> list[float]:
    """log10 of the squared gradient at every mark."""
    return [math.log10(max(result.probe("full_gradient", mark)[part], 1e-30)) for mark in result.marked()]


def late(result: Result, part: str = "square") -> float:
    """Mean of log10 |G|^2 over the last third of the marks: a single one is noisy."""
    values = squares(result, part)
    return float(np.mean(values[-max(1, len(values) // 3) :]))


def halves(rows: Sequence[Result]) -> Contrast:
    """Mean of log10 |G|^2 in the first half of training less that in the second."""
    curves = [squares(r) for r in rows]
    middle = len(curves[0]) // 2
    return contrast([np.mean(c[:middle]) for c in curves], [np.mean(c[-middle:]) for c in curves])


def by_part(rows: Sequence[Result]) -> Contrast:
    """How far log10 of the part in A's row space fell, less how far the rest did."""
    falls = [[squares(r, part)[0] - late(r, part) for r in rows] for part in ("inside", "outside")]
    return contrast(*falls)


def _quadratic(sheet: Sheet) -> None:
    from sims import chains

    curves = {}
    for method in ON_QUADRATIC:
        run = chains.Run(chains.QUADRATIC.name, method, STEPS, KEPT, seed=0, index=0, size=SEEDS)
        square = chains.trajectory(run)["square"]
        curves[method] = (square / square[:, :1]).mean(0)
    left = {m: float(c[-1]) for m, c in curves.items()}
    sheet.fact(
        "toy_frozen",
        left["Asym"] > 0.1 and left["RAC"] < 0.01 and left["c3LA"] < 0.01,
        ", ".join(f"{m} leaves {share:.2g}" for m, share in left.items()),
    )
    at = list(range(0, STEPS + 1, 8))
    sheet.figures.append(
        {
            "name": "quadratic",
            "title": "On a quadratic a frozen A, or one LoRA, leaves a gradient for good",
            "kind": "line",
            "caption": f"Share of |grad L|^2 that is left, mean of {SEEDS} seeds; chains of {KEPT} steps.",
            "x": {"label": "step"},
            "y": {"label": "share of |grad L|^2", "scale": "log"},
            "series": [
                {"label": m, "x": at, "y": [max(float(c[t]), 1e-9) for t in at]} for m, c in curves.items()
            ],
        }
    )


def _floor(sheet: Sheet) -> None:
    from sims import peso_convergence as peso

    losses = {
        m: peso.factored(np.random.default_rng(1), SEEDS, m, "GD", RESTART, RANK_STEPS)["losses"]
        for m in ("LoRA", "PESO-R", "PESO-T")
    }
    losses["full"] = peso.full(np.random.default_rng(1), SEEDS, "GD", 0.0, RANK_STEPS)["losses"]
    ends = {m: float(values[:, -1].mean()) for m, values in losses.items()}
    stays = float(losses["LoRA"].min()) >= peso.FLOOR * (1 - 1e-9)
    sheet.fact(
        "toy_restart",
        stays and float(losses["PESO-R"][:, -1].max()) < 1,
        ", ".join(f"{m} ends at {end:.3g}" for m, end in ends.items()),
    )


def _show(sheet: Sheet, found: Found) -> None:
    rows = []
    for method, results in found.items():
        parts = {"inside": None, "outside": None}
        if results[0].probe("full_gradient")["inside"] is not None:
            parts = {p: shown([squares(r, p)[0] - late(r, p) for r in results], 2) for p in parts}
        rows.append(
            {
                "method": method,
                "learning rate": f"{results[0].trial.settings.lr:g}",
                "loss at the end": shown([r.probe("full_gradient")["loss"] for r in results], 4),
                "log10 |G|^2 late": shown([late(r) for r in results], 2),
                "fall since the start": shown([squares(r)[0] - late(r) for r in results], 2),
                "fall in A's rows": parts["inside"] or "-",
                "fall outside of them": parts["outside"] or "-",
            }
        )
    sheet.table("Full gradient on the training examples (log10, mean ± 95% over seeds)", rows)
    for name, label, read in (
        ("gradient", "log10 of |G|^2", squares),
        ("against_loss", "log10 of |G|^2", squares),
    ):
        series = []
        for method, results in found.items():
            curves = np.array([read(r) for r in results]).mean(0)
            if name == "gradient":
                x = [results[0].at(mark)["step"] for mark in results[0].marked()]
            else:
                x = np.mean(
                    [[r.probe("full_gradient", k)["loss"] for k in r.marked()] for r in results], axis=0
                ).tolist()
            series.append({"label": method, "x": x, "y": curves.tolist()})
        sheet.figures.append(
            {
                "name": name,
                "title": "Full gradient along training"
                if name == "gradient"
                else "Full gradient against the loss",
                "kind": "line",
                "caption": "Gradient of the training loss by all tuned matrices of the plain model, mean over seeds.",
                "x": {"label": "step"}
                if name == "gradient"
                else {"label": "training loss (nats)", "scale": "log"},
                "y": {"label": label},
                "series": series,
            }
        )


ROW = Row(
    name="convergence",
    source="LoRA past, present and future, Theorem 2; PESO, Figure 1",
    question="Which methods bring the gradient of all weights to zero?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(METHODS, 1, 8, "", {"steps": 4, "every": 2, "train_size": 8}),
        "cpu": Design(
            METHODS, 2, 380, "48 examples, links of 10 steps", {"steps": 60, "every": 10, "train_size": 48}
        ),
        "gpu": Design(
            METHODS,
            3,
            1500,
            "128 examples, links of 20 steps",
            {"steps": 200, "every": 20, "train_size": 128},
        ),
    },
    run=run,
)
