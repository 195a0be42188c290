"""Intruder dimensions over a whole range of thresholds, at every mark of a training, and the norms of the change.

The counts are those of `probes/intruders.py` as the paper prints them; only the pretrained decomposition is kept, so that
a mark costs one decomposition of the tuned weight, one of the control and the singular values of the change.

Control: the pretrained weight plus Gaussian noise of the change's Frobenius norm. What the noise brings too is no sign
of fine-tuning.

Source: LoRA past, present and future, D.4.2 and Figure 3; claim `lora_variants/intruder_definition`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llm_experiments.probes.effective import base_weights, effective_weights
from llm_experiments.probes.spectra import norm, spectral_norm
from llm_experiments.recipes.base import MethodError

if TYPE_CHECKING:
    from llm_experiments.experiments.trial import Trial
    from llm_experiments.train import Run

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))
TOP = 10  # vectors of the largest singular values that are counted apart


def counts(nearest: Tensor, thresholds: tuple[float, ...] = THRESHOLDS) -> list[int]:
    """How many vectors are intruders, by threshold.

    Args:
        nearest: for each tuned singular vector its largest |<u, u_k>| over pretrained u_k.
        thresholds: of intruders.
    """
    return [int((nearest < eps).sum()) for eps in thresholds]


class IntruderSweep:
    """Intruders and norms of every matrix; a probe of the pool of trainings."""

    def __init__(self, run: Run, trial: Trial) -> None:
        self.run, self.before = run, base_weights(run)
        self.bases = {name: _left(W) for name, W in self.before.items()}
        self.sizes = {name: spectral_norm(W) for name, W in self.before.items()}

    def measure(self) -> dict[str, Any]:
        """Counts by threshold, summed over changed matrices, and norms by matrix (pretrained weight, change).

        `square` counts the square matrices alone, where a small threshold cannot be passed. A method without plain
        weights gives `refused`.
        """
        try:
            now = effective_weights(self.run)
        except MethodError as error:
            return {"refused": str(error)}
        kinds = ("all", "top", "square", "random_all", "random_top")
        total: dict[str, Any] = {kind: [0] * len(THRESHOLDS) for kind in kinds}
        norms: dict[str, Any] = {}
        generator = torch.Generator().manual_seed(0)
        for name, W0 in self.before.items():
            change = now[name] - W0
            size = norm(change)
            norms[name] = {
                "base": self.sizes[name],
                "spectral": spectral_norm(change) if size else 0.0,
                "frobenius": size,
                "shape": list(change.shape),
            }
            if not size:
                continue
            noise = torch.randn(change.shape, generator=generator)
            noise *= size / norm(noise)
            for prefix, tuned in (("", now[name]), ("random_", W0 + noise)):
                nearest = (self.bases[name].T @ _left(tuned)).abs().amax(0)
                _add(total[f"{prefix}all"], counts(nearest))
                _add(total[f"{prefix}top"], counts(nearest[:TOP]))
                if not prefix and W0.shape[0] == W0.shape[1]:
                    _add(total["square"], counts(nearest))
        changed = sum(1 for found in norms.values() if found["frobenius"])
        return {**total, "matrices": len(norms), "changed": changed, "norms": norms}


def _left(W: Tensor) -> Tensor:
    return torch.linalg.svd(W.double(), full_matrices=False).U


def _add(total: list[int], more: list[int]) -> None:
    for i, count in enumerate(more):
        total[i] += count
