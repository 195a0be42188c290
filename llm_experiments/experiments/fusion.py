"""Two tasks in one model: what is lost when the weight changes of two trainings are added with weights?

Both tasks train the same layers of the same model; the fused model is `W0 + w (delta_W1 + delta_W2)`, each task keeps
its head. The common weight `w` is chosen for every pair by the mean validation loss, from the same grid for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.ood_forgetting import main_trial
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import Contrast, contrast, shown
from llm_experiments.experiments.tiers import Bed
from llm_experiments.experiments.trial import Trial, restore
from llm_experiments.learner import Learner, Predictions
from llm_experiments.metrics import ranks
from llm_experiments.probes.effective import Weights, base_weights, effective_weights, plain_model
from llm_experiments.train import Run
from llm_experiments.tuners.architectures import block_of, layers_named, structures

AUDIT = [["run", "fusion", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 600  # with every training that it shares with other rows
METHODS = ("lora", "s2ft_r")
ARMS = ("LoRA", "S2FT, same channels", "S2FT, disjoint channels")
BEDS = ("main", "topics")
WEIGHTS = (0.4, 0.6, 0.8, 1.0)
DRAWS = 500  # of the bootstrap over items
PAPER = "S2FT, Section 6.2 and Table 5"
CLAIM = "s2ft/fusion_orthogonality"

PREDICTIONS = (
    Prediction("lora_loses", "a fused LoRA is worse at its tasks than the single ones", PAPER, +1,
               about="quality, single - fused, mean of both tasks, LoRA"),
    Prediction("disjoint_overlap", "S2FT on disjoint channels loses less by fusion than on the same channels", PAPER,
               +1, about="loss of quality, same - disjoint"),
    Prediction("disjoint_lora", "S2FT on disjoint channels loses less by fusion than LoRA", PAPER, +1,
               about="loss of quality, LoRA - disjoint"),
    Prediction("overlap_lora", "S2FT on the same channels loses more by fusion than LoRA", PAPER, +1,
               about="loss of quality, same - LoRA"),
    Prediction("selections", "changes on disjoint channels lie in orthogonal spaces: delta_W1 delta_W2' is exactly 0 in "
               "every matrix (agrees: all entries are 0; else contradicts)", CLAIM, 0, (CLAIM,)),
    Prediction("outputs", "their effects on the layer's outputs are not orthogonal: delta_W1' delta_W2 is not 0 in any "
               "matrix that both change (agrees: overlap above 0.001 in all; else contradicts)", CLAIM, 0, (CLAIM,)),
)  # fmt: skip


@dataclass
class Judged:
    """Answers of one arm in one seed, by bed.

    Attributes:
        single: of the model trained on that task alone.
        fused: of the fused model.
        weight: chosen weight of both changes.
        spaces: by matrix, see `overlaps`.
    """

    single: dict[str, Predictions]
    fused: dict[str, Predictions]
    weight: float
    spaces: dict[str, dict[str, float]]


def run(lab: Lab, sheet: Sheet) -> None:
    """Trains both tasks, adds the changes, and compares what is lost."""
    seeds = range(sheet.design.seeds)
    for bed in BEDS:
        lab.choose_rates(bed, METHODS)
    first = {m: [main_trial(lab, m, seed) for seed in seeds] for m in METHODS}
    second = {m: [_topics(lab, m, seed) for seed in seeds] for m in METHODS}
    lab.results([t for group in (*first.values(), *second.values()) for t in group], "tasks")
    apart = [_topics(lab, "s2ft_r", seed, **disjoint(restore(first["s2ft_r"][seed]), seed)) for seed in seeds]
    lab.results(apart, "disjoint channels")
    pairs = {
        ARMS[0]: list(zip(first["lora"], second["lora"], strict=True)),
        ARMS[1]: list(zip(first["s2ft_r"], second["s2ft_r"], strict=True)),
        ARMS[2]: list(zip(first["s2ft_r"], apart, strict=True)),
    }
    items = sheet.design.options["items"]
    found = {arm: [judge(pair, items, lab) for pair in group] for arm, group in pairs.items()}

    beds = {name: lab.bed(name) for name in BEDS}
    lora, same, other = (found[arm] for arm in ARMS)
    sheet.score("lora_loses", lost(lora, None, beds))
    sheet.score("disjoint_overlap", lost(same, other, beds))
    sheet.score("disjoint_lora", lost(lora, other, beds))
    sheet.score("overlap_lora", lost(same, lora, beds))
    rows_of = [max(s["inputs"] for s in j.spaces.values()) for j in other]
    sheet.fact("selections", max(rows_of) == 0.0, f"largest overlap of input spaces: {max(rows_of):.3g}")
    columns = [min(s["outputs"] for s in j.spaces.values()) for j in other]
    sheet.fact("outputs", min(columns) > 1e-3, f"smallest overlap of output spaces: {min(columns):.3g}")

    sheet.table("What fusion costs (mean ± 95% over seeds)", [_row(arm, found[arm], beds) for arm in ARMS])
    sheet.table(
        "Overlap of the two changes, mean over matrices and seeds", [_spaces(arm, found[arm]) for arm in ARMS]
    )
    sheet.figures.append(_figure(found, beds))
    sheet.note("Overlap of inputs: |delta_W1 delta_W2'| / (|delta_W1| |delta_W2|) in Frobenius norms, 0 if and only if "
               "the row spaces are orthogonal; of outputs: the same for delta_W1' delta_W2 and the column spaces. S2FT "
               "trains columns here, so its channels are inputs.")  # fmt: skip
    sheet.note("The tasks differ in size: the main task is trained by ood_forgetting, the topics with 50 articles of "
               "each class; the head of a task is never fused.")  # fmt: skip


# --- trainings -----------------------------------------------------------------------------------


def _topics(lab: Lab, method: str, seed: int, **options: Any) -> Trial:
    size = {"smoke": 2, "cpu": 50, "gpu": 50}[lab.tier.name]
    return lab.trial(
        "topics", method, seed=seed, train_size=size, splits="test", keep="state", options=dict(options)
    )


def disjoint(run: Run, seed: int) -> dict[str, Any]:
    """Options of S2FT for as many heads and channels as the run trains, drawn among those that it does not."""
    model = run.tuned.model.get_base_model()
    taken: Mapping[str, list[int]] = run.tuned.model.peft_config["default"].selected
    generator = torch.Generator().manual_seed(seed)
    selected, counts = {}, {}
    for structure in structures(model):
        if structure.name not in taken:
            continue
        used = set(taken[structure.name])
        free = [unit for unit in range(structure.count) if unit not in used]
        order = torch.randperm(len(free), generator=generator)[: len(used)].tolist()
        selected[structure.name] = sorted(free[i] for i in order)
        counts[structure.kind] = min(len(used), len(selected[structure.name]))
    block = block_of(model)
    targets = [block.output] * ("heads" in counts) + [block.down] * ("channels" in counts)
    return {**counts, "selected": selected, "target_modules": layers_named(*targets)}


# --- fusing --------------------------------------------------------------------------------------


def judge(pair: tuple[Trial, Trial], items: int, lab: Lab) -> Judged:
    """Single and fused answers of a pair of trainings, at the weight with the lowest mean validation loss."""
    runs = dict(zip(BEDS, (restore(trial) for trial in pair), strict=True))
    base = base_weights(runs["main"])
    changes = [{name: W - base[name] for name, W in effective_weights(run).items()} for run in runs.values()]
    learners, splits, single = {}, {}, {}
    for bed, run in runs.items():
        learners[bed] = _plain(run)
        splits[bed] = {part: run.split(run.examples[part][:items]) for part in ("validation", "test")}
        single[bed] = learners[bed].predict(splits[bed]["test"])
    losses = {}
    for weight in WEIGHTS:
        _load(learners, base, changes, weight)
        losses[weight] = np.mean(
            [learners[b].predict(splits[b]["validation"]).measures[lab.bed(b).loss] for b in BEDS]
        )
    chosen = min(losses, key=losses.__getitem__)
    _load(learners, base, changes, chosen)
    fused = {bed: learners[bed].predict(splits[bed]["test"]) for bed in BEDS}
    for bed in BEDS:
        for answers in (single[bed], fused[bed]):
            _with_truth(answers, splits[bed]["test"].items)
    return Judged(single, fused, chosen, overlaps(*changes))


def _plain(run: Run) -> Learner:
    """The run's head on a plain model with its weights."""
    autocast = run.settings.precision == "bf16-mixed"
    return Learner(plain_model(run).eval(), run.encoding, run.learner.head, run.device, autocast)


def _load(learners: Mapping[str, Learner], base: Weights, changes: Sequence[Weights], weight: float) -> None:
    """Puts `W0 + weight (sum of changes)` into every learner's matrices."""
    with torch.no_grad():
        for learner in learners.values():
            for name, W0 in base.items():
                learner.network.get_parameter(name).copy_(
                    W0 + weight * sum(change[name] for change in changes)
                )


def _with_truth(found: Predictions, items: Sequence[Any]) -> None:
    for name in ("label", "score"):
        values = [getattr(item, name) for item in items]
        if values[0] is not None:
            found.each[name] = np.array(values)


def overlaps(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """By matrix that both change: overlap of row spaces (inputs) and of column spaces (outputs), in [0, 1]."""
    found = {}
    for name, one in first.items():
        two = second[name]
        size = float(one.norm() * two.norm())
        if size:
            found[name] = {
                "inputs": float((one @ two.T).norm()) / size,
                "outputs": float((one.T @ two).norm()) / size,
            }
    return found


# --- what is lost --------------------------------------------------------------------------------


def lost(first: Sequence[Judged], second: Sequence[Judged] | None, beds: Mapping[str, Bed]) -> Contrast:
    """Quality lost by fusion, mean of both tasks, first side minus second, with an interval over items.

    Args:
        first: one entry a seed.
        second: the other side; None: nothing is lost there.
        beds: the two beds by name.
    """
    values = [_drops(side, beds) for side in (first, second or [])]
    halves = []
    for name, bed in beds.items():
        columns = [(+1.0, [j.single[name].each for j in first]), (-1.0, [j.fused[name].each for j in first])]
        for j_sign, part in ((-1.0, "single"), (+1.0, "fused")):
            if second is not None:
                columns.append((j_sign, [getattr(j, part)[name].each for j in second]))
        halves.append(_half_width(columns, bed.quality))
    centre = float(np.mean(values[0])) - (float(np.mean(values[1])) if second is not None else 0.0)
    half = float(np.sqrt(np.sum(np.square(halves)))) / len(halves)
    return contrast(
        values[0],
        values[1] if second is not None else [0.0] * len(first),
        interval=(centre - half, centre + half),
    )


def _drops(side: Sequence[Judged], beds: Mapping[str, Bed]) -> list[float]:
    return [float(np.mean([_quality(j.single[b], bed) - _quality(j.fused[b], bed) for b, bed in beds.items()]))
            for j in side]  # fmt: skip


def _quality(found: Predictions, bed: Bed) -> float:
    return float(found.measures[bed.quality] or 0.0)  # a constant answer ranks nothing


def _half_width(columns: Sequence[tuple[float, list[dict[str, np.ndarray]]]], quality: str) -> float:
    """Half the 95% bootstrap interval over items of a signed sum of qualities, each the mean over seeds."""
    rng = np.random.default_rng(0)
    each = [(sign, np.stack([_each(found, quality) for found in group])) for sign, group in columns]
    truth = ranks(columns[0][1][0]["score"]) if quality == "rho" else None
    count, draws = each[0][1].shape[1], []
    for _ in range(DRAWS):
        draw = rng.integers(0, count, count)
        draws.append(sum(sign * _mean_quality(values[:, draw], truth, draw) for sign, values in each))
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(high - low) / 2


def _each(found: Mapping[str, np.ndarray], quality: str) -> np.ndarray:
    """What a measure of quality is made of, one number an item: ranks of the margin, or whether it is right."""
    if quality == "rho":
        return ranks(found["log_probs"][:, 1] - found["log_probs"][:, 0])
    if quality == "accuracy":
        return (found["log_probs"].argmax(1) == found["label"]).astype(float)
    return found["exact"].astype(float)


def _mean_quality(values: np.ndarray, truth: np.ndarray | None, draw: np.ndarray) -> float:
    if truth is None:
        return float(values.mean())
    x = values - values.mean(axis=1, keepdims=True)
    y = truth[draw] - truth[draw].mean()
    scale = np.sqrt((x * x).sum(axis=1) * (y @ y))
    return float(np.mean(np.divide(x @ y, scale, out=np.zeros(len(x)), where=scale > 0)))


# --- record --------------------------------------------------------------------------------------


def _row(arm: str, judged: Sequence[Judged], beds: Mapping[str, Bed]) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": arm}
    for name, bed in beds.items():
        row[f"{name} {bed.quality}, single"] = shown([_quality(j.single[name], bed) for j in judged])
        row[f"{name} {bed.quality}, fused"] = shown([_quality(j.fused[name], bed) for j in judged])
        row[f"{name} loss, single"] = shown([j.single[name].measures[bed.loss] for j in judged])
        row[f"{name} loss, fused"] = shown([j.fused[name].measures[bed.loss] for j in judged])
    row["lost, mean of both"] = shown(_drops(judged, beds))
    row["weights chosen"] = ", ".join(f"{j.weight:g}" for j in judged)
    return row


def _spaces(arm: str, judged: Sequence[Judged]) -> dict[str, Any]:
    means = {k: [np.mean([s[k] for s in j.spaces.values()]) for j in judged] for k in ("inputs", "outputs")}
    return {"arm": arm, **{f"overlap of {name}": shown(values, 4) for name, values in means.items()}}


def _figure(found: Mapping[str, Sequence[Judged]], beds: Mapping[str, Bed]) -> dict[str, Any]:
    series = []
    for arm, judged in found.items():
        drops = [
            [_quality(j.single[b], beds[b]) - _quality(j.fused[b], beds[b]) for j in judged] for b in BEDS
        ]
        series.append({"label": arm, "x": drops[0], "y": drops[1]})
    return {
        "name": "lost_by_fusion",
        "title": "What the two tasks lose when their changes are added",
        "kind": "scatter",
        "caption": "One point a seed; at (0, 0) the fused model is as good as each single one.",
        "x": {"label": f"{beds['main'].quality} lost on the main task"},
        "y": {"label": f"{beds['topics'].quality} lost on news topics"},
        "series": series,
        "lines": [{"x": 0, "label": "nothing lost"}, {"y": 0}],
    }


ROW = Row(
    name="fusion",
    source="S2FT, Table 5",
    question="What do two tasks lose when the weight changes are added, and does it help S2FT to train other channels?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(METHODS, 1, 8, "two tasks", {"items": 8}),
        "cpu": Design(METHODS, 2, 280, "two tasks; S2FT also on disjoint channels", {"items": 500}),
        "gpu": Design(METHODS, 5, 900, "two tasks; S2FT also on disjoint channels", {"items": 500}),
    },
    run=run,
    reported=(
        {"fused": "LoRA", "commonsense lost": 3.3, "arithmetic lost": 5.6},
        {"fused": "S2FT, overlapping", "commonsense lost": 4.6, "arithmetic lost": 7.4},
        {"fused": "S2FT, not overlapping", "commonsense lost": 2.6, "arithmetic lost": 4.3},
    ),
)  # fmt: skip
