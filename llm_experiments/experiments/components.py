"""Which projection should carry the trained slice: query, key, value, output, up (gate) or down?

One component trains at a time, as dense slices of as many numbers in every block: whole heads in the attention,
equally many channels in the feed-forward layers. Slices of different shape may want different rates, so each
component has its own choice from the same grid.
"""

from __future__ import annotations

from typing import Any

from llm_experiments import models
from llm_experiments.experiments.lab import Lab, better_than_default
from llm_experiments.experiments.ood_forgetting import item_losses
from llm_experiments.experiments.quality import better, lower_loss
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import shown
from llm_experiments.experiments.tiers import RATE_FACTORS, RATE_SEED, Bed
from llm_experiments.experiments.trial import Result
from llm_experiments.train import parse_budget
from llm_experiments.tuners.architectures import block_of, blocks, layers_named, structures

AUDIT = [["run", "components", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 450  # with every training that it shares with other rows
METHOD = "s2ft_r"
PAPER = "S2FT, Section 5.4 and Figure 4"

PREDICTIONS = (
    Prediction("query_key", "training value and up projections does better than training query and key projections",
               PAPER, +1, about="test quality, mean of value and up - mean of query and key"),
    Prediction("output_down", "training output and down projections does better than training value and up projections",
               PAPER, +1, about="test quality, mean of output and down - mean of value and up"),
    Prediction("output_value", "training output projections does better than training value projections", PAPER, +1,
               about="test quality, output - value"),
    Prediction("down_up", "training down projections does better than training up projections", PAPER, +1,
               about="test quality, down - up"),
    Prediction("memory", "query and key projections hold less of what is learned: training them leaves a higher "
               "training loss than training any of the others", PAPER, +1,
               about="training loss, mean of query and key - mean of the others"),
)  # fmt: skip


def components(bed: Bed) -> dict[str, dict[str, Any]]:
    """Options of S2FT by component: what trains, with equally many numbers a block for all.

    The slice has the width of as many heads as the bed's budget buys of one projection. Keys and values that are
    shared by several query heads train for all of these.
    """
    model = models.load(bed.common["model"]).model
    block = block_of(model)
    heads = next(s for s in structures(model) if s.kind == "heads")
    width = model.config.hidden_size
    numbers = parse_budget(bed.budget).parameters(model) / len(blocks(model))
    count = min(max(round(numbers / (heads.width * width)), 1), heads.count // heads.group)
    found = {}
    for name, layer in (
        ("query", block.query),
        ("key", block.key),
        ("value", block.value),
        ("output", block.output),
    ):
        shared = heads.group if name in ("key", "value") else 1
        found[name] = {"heads": count * shared, "target_modules": layers_named(layer)}
        if heads.group > 1 and shared == 1:
            found[name]["layout"] = "gather"  # one query head of a group cannot be moved alone
    ups = dict(zip(("up",) if len(block.up) == 1 else ("gate", "up"), block.up, strict=True))
    for name, layer in (*ups.items(), ("down", block.down)):
        found[name] = {"channels": count * heads.width, "target_modules": layers_named(layer)}
    return found


def run(lab: Lab, sheet: Sheet) -> None:
    """Trains one component at a time, each at its own rate of the common grid."""
    bed, seeds = lab.bed(), range(sheet.design.seeds)
    options = components(bed)
    rates = {name: _rate(lab, bed, name, given) for name, given in options.items()}
    found: dict[str, list[Result]] = {}
    for name, given in options.items():
        rate = rates[name]["chosen"]
        trials = [
            lab.trial("main", METHOD, seed=seed, eval_every=0, splits="test", lr=rate, options=given)
            for seed in seeds
        ]
        found[name] = lab.results(trials, name)

    def side(*names: str) -> list[list[Result]]:
        return [found[name] for name in names]

    sheet.score("query_key", better(side("value", "up"), side("query", "key"), bed))
    sheet.score("output_down", better(side("output", "down"), side("value", "up"), bed))
    sheet.score("output_value", better(side("output"), side("value"), bed))
    sheet.score("down_up", better(side("down"), side("up"), bed))
    others = [name for name in found if name not in ("query", "key")]
    sheet.score("memory", lower_loss(side(*others), side("query", "key"), bed, "train"))

    rows = []
    for name, results in found.items():
        row: dict[str, Any] = {"component": name}
        row["trains"] = results[0].body["method"]["parameters"]["trainable"]
        row["training loss"] = shown([r.measure("train", bed.loss) for r in results])
        row["test loss"] = shown([r.measure("test", bed.loss) for r in results])
        row[f"test {bed.quality}"] = shown([r.measure("test", bed.quality) for r in results])
        rows.append(row)
    sheet.table("One component at a time (mean ± 95% over seeds)", rows)
    sheet.table(
        "Rates of the components: losses in nats after a short training; the default is taken unless another validation "
        "loss is lower by a standard error",
        list(rates.values()),
    )
    sheet.figures.append(_figure(found, bed))
    sheet.note("Every component has its own choice from the grid of S2FT's rates: slices of rows and of columns see "
               "gradients of different size. The paper gives one rate for all. Where choices differ, training losses "
               "differ by the rate too: the table of rates compares the components at equal rates.")  # fmt: skip


def _rate(lab: Lab, bed: Bed, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The rate by the rule of `Lab.choose_rates`, with the validation losses of the whole grid."""
    default = bed.settings(METHOD).lr
    few = min(300, bed.common.get("final_items") or 300)
    short = {"seed": RATE_SEED, "steps": bed.rate_steps, "eval_every": 0, "eval_items": 1, "final_items": few}
    trials = [
        lab.trial("main", METHOD, **short, splits="validation", lr=default * factor, options=options)
        for factor in RATE_FACTORS
    ]
    results = lab.results(trials, f"rate of {name}")
    losses = {
        trial.settings.lr: None if result.failure else item_losses([result], "validation")[0]
        for trial, result in zip(trials, results, strict=True)
    }
    best = better_than_default(losses, default)
    edge = best in (trials[0].settings.lr, trials[-1].settings.lr)
    grid: dict[str, Any] = {"component": name}
    for (rate, each), result in zip(losses.items(), results, strict=True):
        grid[f"validation at {rate:g}"] = None if each is None else float(each.mean())
        grid[f"training at {rate:g}"] = None if each is None else result.measure("train", bed.loss)
    return grid | {"chosen": best, "at the edge": edge}


def _figure(found: dict[str, list[Result]], bed: Bed) -> dict:
    name = "rho" if bed.quality == "rho" else bed.loss
    series = [
        {
            "label": component,
            "x": [r.measure("train", bed.loss) for r in results],
            "y": [r.measure("test", name) for r in results],
        }
        for component, results in found.items()
    ]
    return {
        "name": "components",
        "title": "What each projection learns, and what it gains, at equal numbers",
        "kind": "scatter",
        "caption": "One point a seed; each component at its own rate.",
        "x": {"label": "training loss (nats)"},
        "y": {"label": f"test {name}"},
        "series": series,
    }


ROW = Row(
    name="components",
    source="S2FT, Figure 4",
    question="At a fixed budget, which projection of a block is worth training?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design((METHOD,), 1, 8, "one component at a time, 3 rates each"),
        "cpu": Design((METHOD,), 1, 450, "query, key, value, output, up, down; 3 rates each"),
        "gpu": Design((METHOD,), 5, 900, "query, key, value, output, gate, up, down; 3 rates each"),
    },
    run=run,
    reported=({"what": "effectiveness on commonsense tasks",
               "order": "query, key << value, up, gate < output, down"},),
)  # fmt: skip
