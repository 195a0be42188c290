"""Switching and serving adapters: time over the width, what many switches leave behind, many adapters in one batch.

Times are outcomes here: medians of rounds, and ratios within a round. What switching leaves behind is measured with the
adapters that `ood_forgetting` trained.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llm_experiments.bench.serving import Served, measure_serving
from llm_experiments.bench.statistics import paired_ratio, quartiles
from llm_experiments.bench.switching import CHANNELS, FORMS, RANK, measure_switching
from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.ood_forgetting import main_trial
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.trial import restore
from llm_experiments.probes.effective import base_weights, effective_weights

AUDIT: list[list[str]] = []  # times are no audit's business: other items run beside it
METHODS = ("s2ft_r", "lora")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MARKS = (1, 10, 100, 1000)
PAPER = "S2FT, Section 6.2 and Figure 6"
CLAIM = "s2ft/switch_exactness"

PREDICTIONS = (
    Prediction("faster", "S2FT's scattered addition switches faster than LoRA's product and addition (agrees: median gain "
               "above 1 at every width; contradicts: at none)", f"{PAPER}a"),
    Prediction("quadratic", "LoRA's time grows with the square of the width (agrees: exponent between 1.6 and 2.4)",
               f"{PAPER}a"),
    Prediction("constant", "S2FT's time is nearly constant in the width (agrees: exponent below 0.25)", f"{PAPER}a"),
    Prediction("linear", "S2FT's time grows with the width: it writes 2 s k numbers (agrees: exponent between 0.5 and "
               "1.5)", f"{CLAIM}, repaired", 0, (CLAIM,)),
    Prediction("drift", "switching by subtraction and addition leaves the base changed (agrees: the error after the last "
               "mark is above 0 in every number format)", CLAIM, 0, (CLAIM,)),
    Prediction("copy", "with the base's slice copied back nothing is left (agrees: every entry is as before in every "
               "number format)", f"{CLAIM}, repaired", 0, (CLAIM,)),
    Prediction("serving", "a batch with the most adapters is answered faster with S2FT than with LoRA (agrees: lower "
               "quartile of the ratio above 1; contradicts: upper quartile below 1)", f"{PAPER}c"),
    Prediction("scaling", "the gain grows with the number of adapters (agrees: lower quartile of the gain at the most over "
               "that at the second number above 1; contradicts: upper quartile below 1)", f"{PAPER}c"),
)  # fmt: skip


def run(lab: Lab, sheet: Sheet) -> None:
    """Times switches and batches, and switches trained adapters many times in every number format."""
    options = sheet.design.options
    device, rounds = str(lab.bed().common.get("device", "cpu")), options["rounds"]
    load = os.getloadavg()[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        switching = measure_switching(options["widths"], rounds=rounds, device=device)
        served = measure_serving(
            options["adapters"], d=options["serving_width"], rounds=rounds, device=device
        )
    finally:
        torch.set_num_threads(threads)

    gains = [row["gain_as_published"] for row in switching]
    sheet.fact("faster", True if min(gains) > 1 else False if max(gains) <= 1 else None,
               f"gains {', '.join(f'{g:g}' for g in gains)} over the widths")  # fmt: skip
    lora, s2ft = (exponent(switching, form) for form in ("lora_matmul_add", "s2ft_index_add"))
    sheet.fact("quadratic", 1.6 <= lora <= 2.4, f"exponent {lora:.2f}")
    sheet.fact("constant", s2ft < 0.25, f"exponent {s2ft:.2f}")
    sheet.fact("linear", 0.5 <= s2ft <= 1.5, f"exponent {s2ft:.2f}")
    _by_quartiles(sheet, "serving", paired_ratio(served[-1].lora, served[-1].s2ft), "LoRA / S2FT")
    of_each = [[a / b for a, b in zip(s.lora, s.s2ft, strict=True)] for s in served]
    _by_quartiles(sheet, "scaling", paired_ratio(of_each[-1], of_each[1]), "gain over gain")

    adapters = _trained(lab, sheet.design.seeds)
    left = [row for name, (base, changes) in adapters.items() for row in leftovers(name, base, changes)]
    subtracted = [row for row in left if row["way"] == "subtract and add"]
    changed = all(row[_after(MARKS[-1])] > 0 for row in subtracted)
    sheet.fact(
        "drift",
        changed,
        "; ".join(
            f"{r['adapters']} {r['format']}: {r[_after(MARKS[0])]:.1e} to {r[_after(MARKS[-1])]:.1e}"
            for r in subtracted
        ),
    )
    copied = [row for row in left if row["way"] == "copy back"]
    worst = max(row["entries changed"] for row in copied)
    sheet.fact("copy", worst == 0, f"largest share of changed entries {worst:g}")  # fmt: skip

    sheet.table("Microseconds of one fuse, median", switching)
    sheet.table("Adapters in one batch, one token each", [_batch(s) for s in served])
    sheet.table(
        "What switches leave behind: error of the base over its norm", [_printed(row) for row in left]
    )
    sheet.figures += [_figure(switching), _batches(served)]
    sheet.note(f"LoRA has rank {RANK}, S2FT {CHANNELS} channels: equally many bytes. One thread; forms alternate in "
               f"random order, {rounds} rounds, load average before the start {load:.1f}.")  # fmt: skip
    sheet.note(f"Batches: a {options['serving_width']} x {options['serving_width']} layer. Stacking the adapters of a "
               "batch is not timed, for neither form; multiply-adds are equal, 2 r d = s d an example.")  # fmt: skip
    inplace = exponent(switching, "lora_addmm")
    sheet.note(f"The published form of LoRA's switch makes a d x d matrix first, which leaves the caches and has to be "
               f"allocated: it grows faster than the arithmetic. One call in place: exponent {inplace:.2f}.")  # fmt: skip
    sheet.note(
        "Switches go between the trained adapters of different seeds in random order, on the matrices of the highest block."
    )


def exponent(rows: Sequence[Mapping[str, float]], form: str) -> float:
    """Slope of log time over log width, by least squares."""
    return float(np.polyfit(np.log([row["d"] for row in rows]), np.log([row[form] for row in rows]), 1)[0])


def _by_quartiles(sheet: Sheet, name: str, found: tuple[float, float, float], what: str) -> None:
    low, middle, high = found
    sheet.fact(name, True if low > 1 else False if high < 1 else None,
               f"{what} {middle:.2f}, quartiles {low:.2f} to {high:.2f}")  # fmt: skip


# --- what switches leave behind ------------------------------------------------------------------


def _trained(lab: Lab, seeds: int) -> dict[str, tuple[Tensor, list[Tensor]]]:
    """By method: the base and the changes of all seeds, the highest block's matrices as one vector."""
    found = {}
    lab.choose_rates("main", METHODS)
    trials = {m: [main_trial(lab, m, seed) for seed in range(seeds)] for m in METHODS}
    lab.results([trial for group in trials.values() for trial in group], "adapters")
    for method, group in trials.items():
        base: Tensor | None = None
        changes = []
        for trial in group:
            run = restore(trial)
            before, now = base_weights(run), effective_weights(run)
            names = _highest(list(before))
            flat = torch.cat([before[name].flatten() for name in names])
            base = flat if base is None else base
            changes.append(torch.cat([(now[name] - before[name]).flatten() for name in names]))
        found["S2FT" if method == "s2ft_r" else "LoRA"] = (base, changes)
    return found


def _highest(names: list[str]) -> list[str]:
    number = {name: int(re.search(r"\.(\d+)\.", f".{name}")[1]) for name in names}
    return [name for name in names if number[name] == max(number.values())]


def leftovers(name: str, base: Tensor, changes: Sequence[Tensor], seed: int = 0) -> list[dict[str, Any]]:
    """Errors of the base after switches between adapters, by number format and way to take an adapter out.

    Args:
        name: of the kind of adapter.
        base: pretrained numbers.
        changes: of each adapter, as long as the base.
        seed: of the order of the adapters.

    Returns:
        Rows with the error at every mark, |W - W0| / |W0|, and the share of entries that are not as before.
    """
    rows = []
    for number_format, dtype in DTYPES.items():
        W0 = base.to(dtype)
        adapters = [change.to(dtype) for change in changes]
        for way in ("subtract and add", "copy back"):
            W, order = W0.clone(), random.Random(seed)
            row: dict[str, Any] = {"adapters": name, "format": number_format, "way": way}
            for switch in range(1, MARKS[-1] + 1):
                change = adapters[order.randrange(len(adapters))]
                W.add_(change)
                if way == "copy back":
                    W = torch.where(change != 0, W0, W)
                else:
                    W.sub_(change)
                if switch in MARKS:
                    row[_after(switch)] = float((W.float() - W0.float()).norm() / W0.float().norm())
            row["entries changed"] = float((W != W0).float().mean())
            rows.append(row)
    return rows


def _after(switches: int) -> str:
    return f"after {switches}"


# --- record --------------------------------------------------------------------------------------


def _printed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: f"{v:.2e}" if isinstance(v, float) else v for k, v in row.items()}


def _batch(served: Served) -> dict[str, Any]:
    low, middle, high = paired_ratio(served.lora, served.s2ft)
    return {
        "adapters": served.adapters,
        "LoRA ms": round(1e3 * quartiles(served.lora)[1], 3),
        "S2FT ms": round(1e3 * quartiles(served.s2ft)[1], 3),
        "LoRA / S2FT": f"{middle:.2f} ({low:.2f} to {high:.2f})",
        "tuner's serving code ms": round(1e3 * quartiles(served.tuner)[1], 3),
        "difference from fused weights": f"{served.error:.1e}",
    }


def _figure(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    widths = [row["d"] for row in rows]
    return {
        "name": "switching",
        "title": "One fuse of an adapter over the width",
        "kind": "line",
        "caption": "Medians of rounds. LoRA writes d x d numbers, S2FT s x d.",
        "x": {"label": "width d", "scale": "log"},
        "y": {"label": "microseconds", "scale": "log"},
        "series": [{"label": form, "x": widths, "y": [row[form] for row in rows]} for form in FORMS],
    }


def _batches(served: Sequence[Served]) -> dict[str, Any]:
    x = [s.adapters for s in served]
    return {
        "name": "serving",
        "title": "Milliseconds of a batch in which every example has its own adapter",
        "kind": "line",
        "caption": "Medians of rounds, one layer, one token an example.",
        "x": {"label": "adapters in the batch", "scale": "log"},
        "y": {"label": "milliseconds", "scale": "log"},
        "series": [
            {"label": "LoRA", "x": x, "y": [1e3 * quartiles(s.lora)[1] for s in served]},
            {"label": "S2FT", "x": x, "y": [1e3 * quartiles(s.s2ft)[1] for s in served]},
        ],
    }


ROW = Row(
    name="switch_and_parallel",
    source="S2FT, Figure 6",
    question="How do switching and serving adapters scale, and what do many switches leave behind?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(METHODS, 1, 8, "widths 64 to 256, 1 to 8 adapters", {
            "widths": (64, 128, 256), "adapters": (1, 4, 8), "serving_width": 64, "rounds": 3}),
        "cpu": Design(METHODS, 6, 120, "widths 1024 to 8192, 1 to 1000 adapters; trainings of ood_forgetting", {
            "widths": (1024, 2048, 4096, 8192), "adapters": (1, 10, 100, 1000), "serving_width": 1024, "rounds": 15}),
        "gpu": Design(METHODS, 5, 120, "widths 1024 to 16384, 1 to 1000 adapters", {
            "widths": (1024, 2048, 4096, 8192, 16384), "adapters": (1, 10, 100, 1000), "serving_width": 4096,
            "rounds": 30}),
    },
    run=run,
    reported=(
        {"what": "switch time over the width (GPU)", "value": "LoRA quadratic, S2FT nearly constant"},
        {"what": "parallel serving (GPU)", "value": "S2FT up to 22% faster"},
    ),
)  # fmt: skip
