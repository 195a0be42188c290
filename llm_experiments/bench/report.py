"""The record of a benchmark: one table of arms, one of paired ratios, one of targets met or missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from llm_experiments.bench.arms import ARMS, PAIRS
from llm_experiments.bench.rounds import Measured
from llm_experiments.bench.statistics import paired_ratio, quartiles
from llm_experiments.bench.step import BASES

Row = dict[str, Any]
MIB = 2**20

# Ratios that the project sets itself: (over, under, of what, at most).
TARGETS = (
    ("s2ft", "lora", "time", 0.80),
    ("s2ft", "lora", "memory", 0.75),
    ("s2ft", "floor", "time", 1.02),
    ("cla", "lora16", "time", 0.88),
    ("cla", "lora16", "memory", 0.75),
)


def arm_rows(found: Sequence[Measured]) -> list[Row]:
    """One row for every arm on every base: milliseconds, arithmetic, MiB by what holds them."""
    rows = []
    for m in found:
        row: Row = {"base": m.base, "arm": m.arm, "trains": m.trainable}
        if m.failed:
            rows.append({**row, "step ms": m.failed})
            continue
        low, middle, high = quartiles(m.wall)
        row |= {"step ms": _ms(middle), "quartiles": f"{1e3 * low:.4g}-{1e3 * high:.4g}"}
        row["processor ms"] = _ms(quartiles(m.cpu)[1])
        if m.flops is not None:
            products, attention = m.flops["products"], m.flops["attention"]
            row |= {"GFLOP products": _giga(products), "GFLOP attention": _giga(attention)}
        if m.memory is not None:
            parts = asdict(m.memory)
            names = {"activations": "activations MiB", "gradients": "gradients MiB"}
            names |= {"optimizer": "moments MiB", "added": "added weights MiB"}
            row |= {title: _mib(parts[name]) for name, title in names.items()}
            row["activations + state MiB"] = _mib(m.memory.training)
        if m.gpu_peak is not None:
            row["GPU peak of a step MiB"] = _mib(m.gpu_peak)
        rows.append(row)
    return rows


def ratio_rows(found: Sequence[Measured]) -> list[Row]:
    """Paired ratios of every comparison whose two arms were measured, on every base."""
    by_key = {(m.arm, m.base): m for m in found if not m.failed}
    rows = []
    for base in dict.fromkeys(m.base for m in found):
        for over, under in PAIRS:
            a, b = by_key.get((over, base)), by_key.get((under, base))
            if a is None or b is None:
                continue
            rows.append({"base": base, "ratio": f"{over} / {under}"} | _compared(a, b))
    return rows


def base_rows(found: Sequence[Measured]) -> list[Row]:
    """What other base-model code changes for every arm, against the first base."""
    bases = list(dict.fromkeys(m.base for m in found))
    by_key = {(m.arm, m.base): m for m in found if not m.failed}
    rows = []
    for base in bases[1:]:
        for arm in dict.fromkeys(m.arm for m in found):
            if (arm, base) in by_key and (arm, bases[0]) in by_key:
                rows.append(
                    {"ratio": f"{base} / {bases[0]}", "arm": arm}
                    | _compared(by_key[arm, base], by_key[arm, bases[0]])
                )
    return rows


def _compared(a: Measured, b: Measured) -> Row:
    """Ratios of two measured steps of the same rounds."""
    row: Row = {}
    for title, clock in (("time", "wall"), ("processor time", "cpu")):
        low, middle, high = paired_ratio(getattr(a, clock), getattr(b, clock))
        row |= {title: round(middle, 3), f"{title} quartiles": f"{low:.3f}-{high:.3f}"}
    if a.memory is not None and b.memory is not None:
        row["activations"] = _ratio(a.memory.activations, b.memory.activations)
        row["memory"] = _ratio(a.memory.training, b.memory.training)
        row["memory with added weights"] = _ratio(
            a.memory.training + a.memory.added, b.memory.training + b.memory.added
        )
    if a.gpu_peak is not None and b.gpu_peak is not None:
        row["GPU peak"] = _ratio(a.gpu_peak, b.gpu_peak)
    return row


def target_rows(ratios: Sequence[Row]) -> list[Row]:
    """The targets beside what was measured; a missed one says so."""
    rows = []
    for base in dict.fromkeys(row["base"] for row in ratios):
        for over, under, quantity, most in TARGETS:
            name = f"{over} / {under}"
            row = next((r for r in ratios if r["base"] == base and r["ratio"] == name), None)
            if row is None or row.get(quantity) is None:
                continue
            value = row[quantity]
            verdict = "met" if value <= most else "missed"
            entry: Row = {"base": base, "ratio": name, "of": quantity, "at most": most, "measured": value}
            if quantity == "time":
                low, high = map(float, row["time quartiles"].split("-"))
                entry |= {"quartiles": row["time quartiles"], "by processor time": row["processor time"]}
                entry["its quartiles"] = row["processor time quartiles"]
                if low <= most < high:
                    verdict += " in the median, not in the upper quartile" if value <= most else ""
            rows.append({**entry, "outcome": verdict})
    return rows


def headline(ratios: Sequence[Row], where: str) -> str:
    """The outcome in a sentence, of the first base."""
    first = [row for row in ratios if row["base"] == ratios[0]["base"]] if ratios else []
    said = [
        f"{row['ratio']} {row['time']:.2f}" + (f" (memory {row['memory']:.2f})" if row.get("memory") else "")
        for row in first
        if row["ratio"] in ("s2ft / lora", "s2ft / full", "s2ft / floor", "dora / lora", "cla / lora16")
    ]
    return f"Time of a training step on {where}: {', '.join(said) or 'single arms, no comparison'}."


def body(
    found: Sequence[Measured], identity: str, settings: Row, model: Row, machine: Row, where: str
) -> Row:
    """The record of one comparison."""
    ratios = ratio_rows(found)
    arms = dict.fromkeys(m.arm for m in found)
    bases = dict.fromkeys(m.base for m in found)
    tables = {"Arms": arm_rows(found), "Ratios, paired by round": ratios}
    if changes := base_rows(found):
        tables["What the base-model code changes"] = changes
    if targets := target_rows(ratios):
        tables["Targets"] = targets
    notes = [
        "Every arm has a model of its own with the same weights; each round takes one step of every arm, in "
        "random order. Ratios are taken round by round: their median, and the quartiles beside it.",
        "Memory counts distinct storages: activations kept for the backward pass (weights left out), gradients, "
        "Adam's moments. Added weights are what the method puts beside the pretrained ones: factors, or the "
        "pretrained values of a slice.",
        "Products are the matrix products of the linear layers, 2 m n k each.",
        *(f"{name}: {ARMS[name].label}." for name in arms),
        *(f"base {name}: {BASES[name]}." for name in bases),
    ]
    return {
        "id": identity,
        "headline": headline(ratios, where),
        "question": "What does one training step cost under each method, in time and in memory?",
        "settings": settings,
        "model": model,
        "machine": machine,
        "tables": tables,
        "rounds": {
            f"{m.arm} {m.base}": {"wall_ms": [_ms(t) for t in m.wall], "cpu_ms": [_ms(t) for t in m.cpu]}
            for m in found
            if not m.failed
        },
        "flops": {f"{m.arm} {m.base}": m.flops for m in found if m.flops},
        "bytes": {f"{m.arm} {m.base}": asdict(m.memory) for m in found if m.memory},
        "figures": [],
        "notes": notes,
        "claims": ["s2ft/partial_backprop", "s2ft/partial_backprop_cost"],
    }


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 2)


def _giga(count: int) -> float:
    return round(count / 1e9, 3)


def _mib(count: int) -> float:
    return round(count / MIB, 2)


def _ratio(over: int, under: int) -> float | None:
    return round(over / under, 3) if under else None
