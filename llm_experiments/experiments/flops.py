"""Floating-point operations of a training step, counted as the operators run, against the formulas.

Counted are the products of linear layers; attention scores are the same for all methods and left out. The formula asks
of every layer whether its input needs a gradient, which is seen as the model runs: below the first layer that trains
nothing is passed back.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from llm_experiments.experiments.lab import Lab
from llm_experiments.experiments.row import Design, Prediction, Row, Sheet
from llm_experiments.experiments.tiers import Bed
from llm_experiments.train import Run
from llm_experiments.tuners import ClaConfig

AUDIT = [["run", "flops", "--tier", "cpu", "--jobs", "1"]]
AUDIT_SECONDS = 90  # with every training that it shares with other rows
RANK = 16
CLAIM, COST = "lora_variants/flops", "s2ft/partial_backprop_cost"
CLOSE = 1e-3  # relative difference up to which a count and a formula agree

# label -> method, options, form of the formula (None: only counted)
ARMS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "full": ("full", {}, "full"),
    "LoRA": ("lora", {"r": RANK}, "LoRA"),
    "Asym-LoRA": ("asym_lora", {"r": RANK}, "A frozen"),
    "cLA, as B A": ("cla", {"r": RANK, "form": "factor"}, "A gathered"),
    "cLA, in place": ("cla", {"r": RANK, "form": "in_place"}, "slice"),
    "S2FT": ("s2ft_r", {}, "slice"),
    "DoRA": ("dora", {"r": RANK}, None),
    "SpFT": ("spft", {}, None),
    "BitFit": ("bitfit", {}, None),
    "GaLore": ("galore", {}, None),
    "LISA": ("lisa", {}, None),
}

PREDICTIONS = (
    Prediction("formula", "counts equal the formulas 6 n m, 4 n m + 6 r (n + m), 4 n m + 6 r n + 4 r m, 4 n m + 6 r n and "
               "4 n m + 2 s n a token, less what needs no gradient (agrees: each within 0.1%)",
               f"{CLAIM}, s2ft/partial_backprop", 0, (CLAIM, "s2ft/partial_backprop")),
    Prediction("ordered", "cLA by gathering needs fewer operations than Asym-LoRA, and that fewer than LoRA, at one rank",
               CLAIM, 0, (CLAIM,)),
    Prediction("saves_always", "cLA by gathering needs no more operations than full tuning, at every rank (agrees: at m/4, "
               "m/3 and m/2 on a square layer; else contradicts)", "LoRA past, present and future, Sections 4.1 and D.3"),
    Prediction("saves_narrow", "cLA by gathering needs no more operations than full tuning if and only if 3 r <= m "
               "(agrees: no more at m/4 and m/3, more at m/2)", f"{CLAIM}, repaired", 0, (CLAIM,)),
    Prediction("table_12", "LoRA needs about two thirds of full tuning's operations and gathering saves up to a tenth of "
               "LoRA's (agrees: LoRA / full between 0.66 and 0.8, cLA / LoRA between 0.9 and 1)",
               "LoRA past, present and future, Table 12", 0, (CLAIM,)),
    Prediction("three_halves", "S2FT's step has about two thirds of full tuning's products: arithmetic alone makes it at "
               "most about 1.5 times faster (agrees: full / S2FT between 1.4 and 1.6)", f"{COST}, repaired", 0, (COST,)),
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """A linear layer in a step: d_out x d_in, tokens, and whether its input has a gradient."""

    n: int
    m: int
    tokens: int
    passes_back: bool


def a_token(form: str, n: int, m: int, r: int, passes_back: bool = True) -> int:
    """Operations of one layer for one token: forward, gradients by the numbers that train, gradient by the input.

    Source: LoRA past, present and future, Section D.3 (full, LoRA, A frozen, A gathered); S2FT, Section 3.3 (slice).

    Args:
        form: `full`, `LoRA`, `A frozen`, `A gathered`, `slice`, or `frozen` (nothing trains in this layer).
        n: outputs.
        m: inputs.
        r: rank, or columns of the slice.
        passes_back: whether the input needs a gradient.
    """
    count = 2 * n * m + (2 * n * m if passes_back else 0)
    if form == "full":
        return count + 2 * n * m
    if form == "slice":
        return count + 2 * r * n
    if form == "frozen":
        return count
    # B: forward, its gradient; the gradient by A x is needed by whatever lies below B.
    below = passes_back or form == "LoRA"
    count += 4 * r * n + (2 * r * n if below else 0)
    if form == "A gathered":
        return count
    count += 2 * r * m + (2 * r * m if passes_back else 0)
    return count + (2 * r * m if form == "LoRA" else 0)


def run(lab: Lab, sheet: Sheet) -> None:
    """Counts a step of every method, and one square layer over ranks."""
    bed = lab.bed()
    counted, predicted, trains = {}, {}, {}
    for label, (method, options, form) in ARMS.items():
        counted[label], predicted[label], trains[label] = step_count(bed, method, options, form)
    off = {label: abs(counted[label] / p - 1) for label, p in predicted.items() if p is not None}
    sheet.fact("formula", max(off.values()) < CLOSE,
               "; ".join(f"{label} off by {value:.2g}" for label, value in off.items()))  # fmt: skip
    gathered, asym, lora, full = (counted[a] for a in ("cLA, as B A", "Asym-LoRA", "LoRA", "full"))
    sheet.fact("ordered", gathered < asym < lora, f"{gathered:.4g}, {asym:.4g}, {lora:.4g}")
    width = sheet.design.options["width"]
    over = [one_layer(width, r) for r in (width // 4, width // 3, width // 2)]
    shares = [row["cLA, as B A"] / row["full"] for row in over]
    said = "cLA / full " + ", ".join(
        f"{s:.3f} at r = {row['r']}" for s, row in zip(shares, over, strict=True)
    )
    sheet.fact("saves_always", max(shares) <= 1, said)
    sheet.fact("saves_narrow", shares[0] <= 1 and shares[1] <= 1 < shares[2], said)
    sheet.fact("table_12", 0.66 <= lora / full <= 0.8 and 0.9 <= gathered / lora <= 1,
               f"LoRA / full {lora / full:.3f}, cLA / LoRA {gathered / lora:.3f}")  # fmt: skip
    ratio = full / counted["S2FT"]
    sheet.fact("three_halves", 1.4 <= ratio <= 1.6, f"full / S2FT {ratio:.3f}")

    rows = []
    for label, count in counted.items():
        row = {"method": label, "trains": trains[label], "operations a step": f"{count:.5g}"}
        known = predicted[label]
        row |= {
            "by formula": "-" if known is None else f"{known:.5g}",
            "share of full": f"{count / full:.3f}",
        }
        rows.append(row)
    sheet.table("Products of linear layers in one training step", rows)
    sheet.table(f"One {width} x {width} layer, operations a token", over)
    sheet.figures.append(_figure(width))
    sheet.note(f"LoRA, Asym-LoRA, DoRA and cLA at rank {RANK} in every linear layer, as in Table 12; the others at the "
               f"budget of {bed.budget}. LISA is counted at its first draw of layers.")  # fmt: skip
    sheet.note(
        "SpFT, GaLore and DoRA do work that is no product of a linear layer (masks, projections, norms)."
    )
    if bed.common.get("cached_lower"):
        sheet.note(
            f"The lowest {bed.common['cached_lower']} layers are frozen and run once: they are not counted."
        )


def step_count(
    bed: Bed, method: str, options: dict[str, Any], form: str | None
) -> tuple[int, int | None, int]:
    """Counted products of one step, the formula's number where there is one, and how many numbers train."""
    settings = bed.settings(method, eval_every=0, splits="validation", options=options)
    run = Run(settings).prepare()
    network = run.learner.network.train()
    batch = run.learner.batch(run.splits["train"], list(range(settings.batch)))
    with _watch(run) as seen, FlopCounterMode(display=False) as counter:
        summed, _ = run.learner.loss(batch)
        summed.backward()
    of_operator = counter.get_flop_counts()["Global"]
    counted = sum(of_operator.get(op, 0) for op in (torch.ops.aten.mm, torch.ops.aten.addmm))
    if form is None:
        return counted, None, run.tuned.counted()
    total = 0
    for name, layer in seen.items():
        module = network.get_submodule(name) if name != "head" else run.learner.head
        which, rank = _trained(module, form)
        total += layer.tokens * a_token(which, layer.n, layer.m, rank, layer.passes_back)
    return counted, total, run.tuned.counted()


def _trained(module: nn.Module, form: str) -> tuple[str, int]:
    """The form of the formula that holds for this layer, and its rank."""
    if isinstance(module, nn.Linear):
        return ("full" if module.weight.requires_grad else "frozen"), 0
    if hasattr(module, "slices") and module.slices:
        return form, len(next(iter(module.slices.values())))
    return form, int(next(iter(module.r.values())))


@contextmanager
def _watch(run: Run) -> Iterator[dict[str, Seen]]:
    """What every linear layer sees in the steps within, by name in the network; the head as `head`."""
    network, seen, handles = run.learner.network, {}, []

    def hook(name: str, n: int, m: int) -> Callable[..., None]:
        def watch(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            seen[name] = Seen(n, m, args[0].numel() // m, args[0].requires_grad)

        return watch

    inside = tuple(f"{name}." for name, m in network.named_modules() if hasattr(m, "base_layer"))
    for name, module in network.named_modules():
        base = getattr(module, "base_layer", module)
        if isinstance(base, nn.Linear) and not name.startswith(inside):
            handles.append(module.register_forward_pre_hook(hook(name, base.out_features, base.in_features)))
    head = run.learner.head
    if head is not None:
        handles.append(head.register_forward_pre_hook(hook("head", head.out_features, head.in_features)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def one_layer(width: int, rank: int) -> dict[str, int]:
    """Operations a token of one square layer whose input needs a gradient, counted."""
    row = {"r": rank}
    configs: dict[str, Any] = {
        "full": None,
        "LoRA": LoraConfig(r=rank, target_modules=["0"]),
        "cLA, as B A": ClaConfig(r=rank, form="factor", target_modules=["0"]),
        "cLA, in place": ClaConfig(r=rank, form="in_place", target_modules=["0"]),
    }
    for label, config in configs.items():
        layer = nn.Sequential(nn.Linear(width, width, bias=False))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
            model = layer if config is None else get_peft_model(layer, config)
        x = torch.ones(2, width, requires_grad=True)
        with FlopCounterMode(display=False) as counter:
            model(x).sum().backward()
        row[label] = counter.get_total_flops() // 2
    return row


def _figure(width: int) -> dict[str, Any]:
    ranks = sorted({max(1, width * k // 24) for k in range(1, 15)})
    series = [
        {"label": label, "x": ranks, "y": [a_token(form, width, width, r) / (6 * width * width) for r in ranks]}
        for label, form in (("LoRA", "LoRA"), ("Asym-LoRA", "A frozen"), ("cLA, as B A", "A gathered"),
                            ("cLA, in place", "slice"))
    ]  # fmt: skip
    return {
        "name": "over_rank",
        "title": f"Operations over those of full tuning, one {width} x {width} layer",
        "kind": "line",
        "caption": "By the formulas; gathering costs as much as full tuning at r = m/3, a slice in place never.",
        "x": {"label": "rank r"},
        "y": {"label": "share of full tuning"},
        "series": series,
        "lines": [{"y": 1.0, "label": "full tuning"}, {"x": width / 3, "label": "r = m/3"}],
    }


_METHODS = tuple(dict.fromkeys(method for method, _, _ in ARMS.values()))

ROW = Row(
    name="flops",
    source="LoRA past, present and future, Table 12",
    question="Do the operations of a training step follow the formulas, and which method saves any?",
    predictions=PREDICTIONS,
    designs={
        "smoke": Design(_METHODS, 1, 5, "one step each", {"width": 48}),
        "cpu": Design(_METHODS, 1, 90, "one step each", {"width": 384}),
        "gpu": Design(_METHODS, 1, 120, "one step each", {"width": 576}),
    },
    run=run,
    reported=(
        {"model": "RoBERTa-base, MRPC, a pass over the data", "full": "1.1e14", "LoRA": "7.5e13", "Asym": "7.5e13",
         "gathered": "7.4e13"},
        {"model": "RoBERTa-base, CoLA", "full": "6.8e13", "LoRA": "4.6e13", "Asym": "4.6e13", "gathered": "4.5e13"},
        {"model": "ViT-tiny, CIFAR-10", "full": "3.0e14", "LoRA": "2.1e14", "Asym": "2.1e14", "gathered": "2.0e14"},
    ),
)  # fmt: skip
