"""What can be measured on a training of the pool, at its marks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from llm_experiments.probes.effective import base_weights, effective_weights
from llm_experiments.probes.forgetting import FarText
from llm_experiments.probes.full_gradient import FullGradient
from llm_experiments.probes.intruder_sweep import IntruderSweep
from llm_experiments.probes.intruders import intruders
from llm_experiments.probes.merge_error import merge_errors
from llm_experiments.probes.pooled import BoundInputs, Curvature, Histogram
from llm_experiments.probes.spectra import norm, spectral_norm, spectrum
from llm_experiments.recipes.base import MethodError
from llm_experiments.tasks.edits import disturb

if TYPE_CHECKING:
    from llm_experiments.experiments.trial import Trial
    from llm_experiments.train import Run

EPS = (0.4, 0.6, 0.8)  # thresholds of intruder dimensions


class Far:
    """Forgetting of far text; see `probes/forgetting.py`."""

    def __init__(self, run: Run, trial: Trial) -> None:
        self.text = FarText(run, trial.far_items)

    def measure(self) -> dict[str, Any]:
        """The tuned model's measures, and the base model's under `base`."""
        return {**self.text.measure(), "base": self.text.base}

    def each(self) -> dict[str, Any]:
        """One row an article."""
        return self.text.each()


class Spectra:
    """Size and rank of the change of every matrix."""

    def __init__(self, run: Run, trial: Trial) -> None:
        self.run, self.before = run, base_weights(run)
        self.norms = {name: (spectral_norm(W), norm(W)) for name, W in self.before.items()}

    def measure(self) -> dict[str, Any]:
        """By matrix: norms of the change over those of the weight, stable rank, energy rank, entry histogram."""
        try:
            now = effective_weights(self.run)
        except MethodError as error:
            return {"refused": str(error)}
        rows = {}
        for name, W0 in self.before.items():
            change = now[name] - W0
            found = spectrum(change)
            top = float(found.values[0]) if len(found.values) else 0.0
            spectral, frobenius = self.norms[name]
            size = change.abs().flatten()
            rows[name] = {
                "spectral": spectral_norm(change),
                "spectral_ratio": top / spectral,
                "frobenius": norm(change),
                "frobenius_ratio": norm(change) / frobenius,
                "stable_rank": found.stable_rank,
                "rank90": found.rank_for(0.9),
                "numerical_rank": int((found.values > 1e-5 * top).sum()) if top else 0,
                "changed": float((size > 0).float().mean()),
                "quantiles": [float(q) for q in torch.quantile(size[:: max(1, len(size) // 10**6)], _SHARES)],
            }
        return rows


class Shifted:
    """Answers on the task's test sets from other distributions, for trainings that looked at fewer splits."""

    ITEMS = 300  # of each set

    def __init__(self, run: Run, trial: Trial) -> None:
        self.run = run
        names = [name for name in run.examples if name not in ("train", "validation", "test")]
        most = min(trial.settings.final_items or self.ITEMS, self.ITEMS)
        self.splits = {name: run.split(run.examples[name][:most]) for name in names}

    def measure(self) -> dict[str, Any]:
        """By split: its measures."""
        return {name: self.run.learner.predict(split).measures for name, split in self.splits.items()}


_SHARES = torch.tensor([0.5, 0.9, 0.99, 0.999])


class Intruding:
    """Intruder dimensions of every matrix, beside those of a random change of equal size."""

    def __init__(self, run: Run, trial: Trial) -> None:
        self.run, self.before = run, base_weights(run)

    def measure(self) -> dict[str, Any]:
        """Counts summed over matrices by threshold: as printed (all, top ten), by spaces, and for random changes."""
        try:
            now = effective_weights(self.run)
        except MethodError as error:
            return {"refused": str(error)}
        total = {str(eps): dict.fromkeys(_COUNTS, 0) for eps in EPS}
        generator = torch.Generator().manual_seed(0)
        for name, W0 in self.before.items():
            change = now[name] - W0
            if not bool(change.any()):
                continue
            noise = torch.randn(change.shape, generator=generator)
            noise *= norm(change) / norm(noise)
            tuned, control = intruders(W0, now[name], list(EPS)), intruders(W0, W0 + noise, list(EPS))
            for found, random in zip(tuned, control, strict=True):
                row = total[str(found.eps)]
                for kind in ("printed", "top", "spaces"):
                    row[kind] += getattr(found, kind)
                    row[f"random_{kind}"] += getattr(random, kind)
        return total


_COUNTS = ("printed", "top", "spaces", "random_printed", "random_top", "random_spaces")


class Merging:
    """What merging loses in each dtype."""

    def __init__(self, run: Run, trial: Trial) -> None:
        self.run, self.before = run, base_weights(run)

    def measure(self) -> dict[str, Any]:
        """By dtype: mean relative error and share of lost entries over the changed matrices."""
        try:
            now = effective_weights(self.run)
        except MethodError as error:
            return {"refused": str(error)}
        found: dict[str, list[Any]] = {}
        for name, W0 in self.before.items():
            if bool((now[name] != W0).any()):
                for row in merge_errors(W0, now[name] - W0):
                    found.setdefault(row.dtype, []).append(row)
        return {
            dtype: {
                "error": max((r.error for r in rows if r.error is not None), default=None),
                "lost": sum(r.lost for r in rows) / len(rows),
                "not_restored": sum(r.not_restored for r in rows) / len(rows),
            }
            for dtype, rows in found.items()
        }


class Edited:
    """Answers on test texts with small edits; see `tasks/edits.py`."""

    LENGTH = 64  # tokens: what is appended must not be cut off
    ATTACKS = (("clean", 0), ("typos", 3), ("synonyms", 3), ("distractors", 1))

    def __init__(self, run: Run, trial: Trial) -> None:
        self.run = run
        examples = run.examples["test"][: 400 if trial.far_items >= 100 else trial.far_items]
        self.splits, self.record = {}, {}
        for attack, n in self.ATTACKS:
            disturbed = disturb(examples, attack if n else "typos", n)
            self.splits[attack] = run.split(disturbed.examples, max(self.LENGTH, run.encoding.max_length))
            self.record[attack] = {name: disturbed.record()[name] for name in ("n", "untouched", "sha256")}
        self.found: dict[str, Any] = {}

    def measure(self) -> dict[str, Any]:
        """By attack: the measures of the split, and what the attack was."""
        self.found = {name: self.run.learner.predict(split) for name, split in self.splits.items()}
        return {name: {**found.measures, **self.record[name]} for name, found in self.found.items()}

    def each(self) -> dict[str, Any]:
        """Loss in nats and correctness of every item by attack."""
        rows = {}
        for name, found in self.found.items():
            labels = np.array([item.label for item in self.splits[name].items])
            log_probs = found.each["log_probs"]
            rows[f"{name}_loss"] = -log_probs[np.arange(len(labels)), labels]
            rows[f"{name}_right"] = (log_probs.argmax(1) == labels).astype(float)
        return rows


PROBES: dict[str, Callable[[Run, Trial], Any]] = {
    "far": Far,
    "shifted": Shifted,
    "spectra": Spectra,
    "intruders": Intruding,
    "intruder_sweep": IntruderSweep,
    "bound_inputs": BoundInputs,
    "histogram": Histogram,
    "curvature": Curvature,
    "full_gradient": FullGradient,
    "merging": Merging,
    "edits": Edited,
}
