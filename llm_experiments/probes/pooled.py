"""Measurements that rows take on finished trainings: what bounds need, the entries of the change, the curvature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from llm_experiments.probes.bounds import all_numbers, head_numbers, largest_input
from llm_experiments.probes.curvature import run_curvature
from llm_experiments.probes.effective import base_weights, effective_weights
from llm_experiments.probes.spectra import spectral_norm
from llm_experiments.recipes.base import MethodError

if TYPE_CHECKING:
    from llm_experiments.experiments.trial import Trial
    from llm_experiments.train import Run

DECADES = (-8.0, 0.0)  # log10 of the entries that the histogram covers
BINS = 64


class BoundInputs:
    """What bounds on the gap and on the output need of a model, apart from the norms of its matrices."""

    def __init__(self, run: Run, trial: Trial) -> None:
        self.run = run

    def measure(self) -> dict[str, Any]:
        """Numbers that can train, examples, bits of a number, norms of the scores' layer and of the lowest input."""
        run, head = self.run, self.run.learner.head
        scores = run.learner.network.get_output_embeddings() if head is None else head
        return {
            "one_link": run.tuned.counted(),
            "all": all_numbers(run),
            "head": head_numbers(run),
            "samples": run.train_count,
            "bits": 8 * run.optimizer.param_groups[0]["params"][0].element_size(),
            "scores_norm": spectral_norm(scores.weight.detach().float().cpu()),
            "input_norm": largest_input(run),
        }


class Histogram:
    """How large the entries of the change are, over all tuned matrices together."""

    def __init__(self, run: Run, trial: Trial) -> None:
        self.run, self.before = run, base_weights(run)

    def measure(self) -> dict[str, Any]:
        """Shares of all entries by log10 of their size, the share of zeros, root mean square and kurtosis.

        The kurtosis is that of all entries, 3 for a normal distribution. A method without plain weights gives
        `refused`.
        """
        try:
            now = effective_weights(self.run)
        except MethodError as error:
            return {"refused": str(error)}
        change = torch.cat([(now[name] - W0).flatten() for name, W0 in self.before.items()]).double()
        size = change.abs()
        low, high = DECADES
        logs = size[size > 0].log10().clamp(low, high)
        counts = torch.histc(logs, BINS, low, high)
        square = change.square()
        variance = float(square.mean())
        return {
            "edges": [low + (high - low) * i / BINS for i in range(BINS + 1)],
            "shares": (counts / len(change)).tolist(),
            "zero": float((size == 0).double().mean()),
            "rms": variance**0.5,
            "kurtosis": float(square.square().mean()) / variance**2 if variance else None,
        }


class Curvature:
    """The largest eigenvalue of the training loss's Hessian by all tuned matrices of the plain model."""

    EXAMPLES, PRODUCTS = 32, 8

    def __init__(self, run: Run, trial: Trial) -> None:
        self.run = run

    def measure(self) -> dict[str, Any]:
        """The largest Ritz value and how far the nearest eigenvalue can be from it."""
        count = min(self.EXAMPLES, self.run.train_count)
        found = run_curvature(self.run, range(count), steps=self.PRODUCTS)
        return {
            "top": found.top,
            "residual": found.residuals[0],
            "products": found.products,
            "examples": count,
        }
