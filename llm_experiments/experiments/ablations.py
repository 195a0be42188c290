"""What learning rate, scale and length of links do, over ranks: one training each, on one seed.

One seed decides no small difference, so every prediction states beforehand by how much losses must differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.ood_forgetting import item_losses
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.statistics import items_interval
from llm_experiments.experiments.trial import Result, Trial

AUDIT = [["run", "ablations", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 500  # with every training that it shares with other rows
FACTORED, CHAINS = ("lora", "asym_lora"), ("rac_lora", "c3la")
FACTORS = (0.25, 1.0, 4.0)  # of the default learning rate
SCALES = (0.25, 1.0, 2.0, 4.0)  # alpha / r
MIDDLE = 4  # rank where scales vary
ACCEPTABLE = 0.02  # nats above a method's best that still count as a usable setting
NEAR = 0.01  # nats within which two settings count as equally good
PAPER = "LoRA past, present and future"

PREDICTIONS = (
    Prediction("rate_falls", "the best learning rate falls as the rank grows (agrees: for LoRA or Asym-LoRA it is smaller "
               "at the large rank, for none larger; contradicts: larger for one; undecided: the same for both)",
               f"{PAPER}, D.2 and Tables 6-7"),
    Prediction("asym_sensitive", "Asym-LoRA is more sensitive to the learning rate than LoRA: fewer rates of the grid, "
               "both ranks together, are within 0.02 nats of its best (equal: undecided)", f"{PAPER}, D.2"),
    Prediction("two_is_good", "alpha = 2 r is the best scale or within 0.01 nats of it, for LoRA and for Asym-LoRA",
               f"{PAPER}, D.2 and Tables 8-9"),
    Prediction("asym_scale", "Asym-LoRA's best scale is larger than LoRA's (equal: undecided)", f"{PAPER}, D.2"),
    Prediction("no_trend", "the length of links has no clear effect (contradicts: in both chains the loss changes in one "
               "direction from short to long links, the same in both, by more than 0.02 nats)", f"{PAPER}, D.2, Table 10"),
    Prediction("more_links", "the rate of RAC-LoRA counts links, not steps: of two trainings with equal steps that with "
               "links of a quarter of the length has the lower training loss (undecided: interval over items holds 0)",
               "lora_variants/thm_2_chain", 0, ("lora_variants/thm_2_chain",)),
    Prediction("scale_is_rate", "the scale alpha / r is part of the step: under Adam, whose steps do not see the size of a "
               "gradient, four times the scale at a quarter of the rate is the same training (agrees: validation losses "
               "differ by less than a tenth of what the rate alone makes)", "lora_variants/step_size_scaling", 0,
               ("lora_variants/step_size_scaling",)),
)  # fmt: skip


def run(lab: Lab, sheet: Sheet) -> None:
    """Three small sweeps and the exchange of scale and rate."""
    options = sheet.design.options
    low, high = options["ranks"]
    loss = lab.bed().loss
    rates = {
        (m, r, f): short(lab, m, rate=f, options={"r": r})
        for m in FACTORED
        for r in (low, high)
        for f in FACTORS
    }
    scales = {(m, s): short(lab, m, options={"r": MIDDLE, "scale": s}) for m in FACTORED for s in SCALES}
    links = {(m, e): short(lab, m, options={"every": e}) for m in CHAINS for e in options["links"]}
    exchange = {
        name: short(lab, "asym_lora", rate=f, clip=0.0, options={"r": high, "scale": s})
        for name, f, s in (("start", 1.0, 2.0), ("rate alone", 0.25, 2.0), ("both", 0.25, 8.0))
    }
    trials = [*rates.values(), *scales.values(), *links.values(), *exchange.values()]
    found = dict(zip((t.key for t in trials), lab.results(trials, "ablations"), strict=True))

    def read(group: Mapping) -> dict:
        return {name: validation(found[t.key], loss) for name, t in group.items()}

    by_rate, by_scale, by_link = read(rates), read(scales), read(links)
    _rates(sheet, by_rate, (low, high))
    _scales(sheet, by_scale)
    lengths = options["links"]
    holds, seen = trend({m: [by_link[m, e] for e in lengths] for m in CHAINS})
    sheet.fact("no_trend", holds, seen)
    _more_links(sheet, {e: found[links["rac_lora", e].key] for e in lengths}, loss)
    _exchange(sheet, read(exchange))
    _show(sheet, by_rate, by_scale, by_link, (low, high), lengths)
    sheet.note(
        "One seed, half the steps of the other rows, the validation split; ranks are equal, parameters are not."
    )
    sheet.note(
        "Links are counted in steps here, in epochs in the paper; an epoch has 100 steps on this task."
    )
    sheet.note("The grid of rates is coarse, a factor of 4: a shift by less is not seen.")


def short(lab: Lab, method: str, *, rate: float = 1.0, **changes: object) -> Trial:
    """A short training at a multiple of the method's default rate."""
    bed = lab.bed()
    base = bed.settings(method).lr
    few = min(300, bed.common["final_items"] or 300)
    settings = {"steps": bed.rate_steps, "eval_every": 0, "eval_items": 1, "final_items": few}
    return lab.trial("main", method, seed=0, splits="validation", lr=base * rate, **settings, **changes)


def validation(result: Result, loss: str) -> float:
    """Validation loss; infinite if the training diverged or was refused."""
    return math.inf if result.failure else result.measure("validation", loss)


def best(losses_at: Mapping[float, float]) -> float:
    """The setting with the lowest loss."""
    return min(losses_at, key=losses_at.__getitem__)


def usable(losses_at: Mapping[float, float]) -> int:
    """How many settings are within `ACCEPTABLE` of the best."""
    low = min(losses_at.values())
    return sum(value <= low + ACCEPTABLE for value in losses_at.values())


def trend(curves: Mapping[str, Sequence[float]]) -> tuple[bool | None, str]:
    """Whether no common direction is seen over an ordered setting, and in words what was.

    Args:
        curves: method -> losses, ordered by the setting; None for the verdict if a loss is infinite.
    """
    words = "; ".join(f"{m}: " + ", ".join(f"{v:.3f}" for v in values) for m, values in curves.items())
    if any(math.isinf(v) for values in curves.values() for v in values):
        return None, words
    ways = set()
    for values in curves.values():
        steps = [b - a for a, b in zip(values, values[1:], strict=False)]
        change = values[-1] - values[0]
        one_way = all(s >= 0 for s in steps) or all(s <= 0 for s in steps)
        ways.add(int(math.copysign(1, change)) if one_way and abs(change) > ACCEPTABLE else 0)
    return not (len(ways) == 1 and 0 not in ways), words


def _rates(sheet: Sheet, by_rate: Mapping, ranks: tuple[int, int]) -> None:
    at = {(m, r): {f: by_rate[m, r, f] for f in FACTORS} for m in FACTORED for r in ranks}
    moves = {m: best(at[m, ranks[1]]) / best(at[m, ranks[0]]) for m in FACTORED}
    holds = None
    if any(move > 1 for move in moves.values()):
        holds = False
    elif any(move < 1 for move in moves.values()):
        holds = True
    said = ", ".join(f"{m}: {best(at[m, ranks[0]]):g} to {best(at[m, ranks[1]]):g}" for m in FACTORED)
    sheet.fact(
        "rate_falls", holds, f"best multiple of the default rate at ranks {ranks[0]} and {ranks[1]}: {said}"
    )
    count = {m: sum(usable(at[m, r]) for r in ranks) for m in FACTORED}
    few, many = count["asym_lora"], count["lora"]
    sheet.fact(
        "asym_sensitive",
        None if few == many else few < many,
        f"usable rates: Asym {few}, LoRA {many} of {len(ranks) * len(FACTORS)}",
    )


def _scales(sheet: Sheet, by_scale: Mapping) -> None:
    at = {m: {s: by_scale[m, s] for s in SCALES} for m in FACTORED}
    behind = {m: at[m][2.0] - min(at[m].values()) for m in FACTORED}
    said = ", ".join(f"{m}: best {best(at[m]):g}, 2 is {behind[m]:.3f} nats behind" for m in FACTORED)
    sheet.fact("two_is_good", all(b <= NEAR for b in behind.values()), said)
    one, other = best(at["lora"]), best(at["asym_lora"])
    sheet.fact("asym_scale", None if one == other else other > one, f"LoRA {one:g}, Asym {other:g}")


def _more_links(sheet: Sheet, by_length: Mapping[int, Result], loss: str) -> None:
    long = max(by_length)
    short_ = max(e for e in by_length if e < long)
    pair = by_length[short_], by_length[long]
    if any(r.failure for r in pair):
        sheet.undecided("more_links", "a training diverged")
        return
    low, high = items_interval(*(item_losses([r], "train") for r in pair))
    difference = pair[0].measure("train", loss) - pair[1].measure("train", loss)
    holds = None if low <= 0 <= high else high < 0
    sheet.fact(
        "more_links",
        holds,
        f"training loss, links of {short_} - {long} steps: {difference:+.3f} nats, [{low:+.3f}, {high:+.3f}] over items",
    )


def _exchange(sheet: Sheet, at: Mapping[str, float]) -> None:
    if any(math.isinf(v) for v in at.values()):
        sheet.undecided("scale_is_rate", "a training diverged")
        return
    alone, both = abs(at["rate alone"] - at["start"]), abs(at["both"] - at["start"])
    sheet.fact(
        "scale_is_rate",
        both < alone / 10,
        f"rate alone moves the loss by {alone:.4f} nats, both by {both:.4f}",
    )


def _show(
    sheet: Sheet,
    by_rate: Mapping,
    by_scale: Mapping,
    by_link: Mapping,
    ranks: Sequence[int],
    lengths: Sequence[int],
) -> None:
    def text(value: float) -> str:
        return "diverged" if math.isinf(value) else f"{value:.3f}"

    sheet.table(
        "Validation loss by learning rate (multiples of the default)",
        [
            {"method": m, "rank": r} | {f"{f:g}": text(by_rate[m, r, f]) for f in FACTORS}
            for m in FACTORED
            for r in ranks
        ],
    )
    sheet.table(
        f"Validation loss by scale alpha / r, rank {MIDDLE}",
        [{"method": m} | {f"{s:g}": text(by_scale[m, s]) for s in SCALES} for m in FACTORED],
    )
    sheet.table(
        "Validation loss by steps of a link",
        [{"method": m} | {str(e): text(by_link[m, e]) for e in lengths} for m in CHAINS],
    )
    for name, title, label, x, curves in (
        ("rates", "Loss by learning rate and rank", "multiple of the default rate", FACTORS,
         {f"{m}, r = {r}": [by_rate[m, r, f] for f in FACTORS] for m in FACTORED for r in ranks}),
        ("scales", "Loss by scale", "alpha / r", SCALES, {m: [by_scale[m, s] for s in SCALES] for m in FACTORED}),
        ("links", "Loss by length of links", "steps of a link", lengths,
         {m: [by_link[m, e] for e in lengths] for m in CHAINS}),
    ):  # fmt: skip
        sheet.figures.append(
            {
                "name": name,
                "title": title,
                "kind": "line",
                "caption": "One seed; a gap is a training that diverged.",
                "x": {"label": label, "scale": "log"},
                "y": {"label": "validation loss (nats)"},
                "series": [
                    {"label": m, "x": list(x), "y": [None if math.isinf(v) else v for v in values]}
                    for m, values in curves.items()
                ],
            }
        )


ROW = Row(
    name="ablations",
    source="LoRA past, present and future, Tables 6-11",
    question="What do learning rate, scale and length of links do, over ranks?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(
            (*FACTORED, *CHAINS), 1, 5, "rates, scales, links", {"ranks": (1, 3), "links": (1, 2)}
        ),
        "cpu": Design(
            (*FACTORED, *CHAINS), 1, 470, "rates, scales, links", {"ranks": (2, 16), "links": (1, 5, 20)}
        ),
        "gpu": Design(
            (*FACTORED, *CHAINS), 1, 1500, "rates, scales, links", {"ranks": (2, 16), "links": (1, 5, 20)}
        ),
    },
    run=run,
)
