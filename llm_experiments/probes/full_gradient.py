"""The gradient of the training loss by all weights of the tuned layers, whatever the method lets move.

A method that trains part of the weights can be stationary in that part while the full gradient is not zero. Where a
factor `A` (r x d_in) is there, the gradient's part in its row space, `|G A^+ A|^2`, is what `B` can still use; the rest is
what only another `A` would see.

Source: LoRA past, present and future, Theorem 2 (claims `lora_variants/thm_2_frozen`, `thm_2_chain`); PESO, Theorem 5.1
(claim `peso/thm_5_1_svd_restart`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llm_experiments.learner import Learner
from llm_experiments.probes.effective import matrix_names, plain_model
from llm_experiments.recipes.baselines import lora_layers

if TYPE_CHECKING:
    from llm_experiments.experiments.trial import Trial
    from llm_experiments.train import Run

EXAMPLES = 128  # training examples, all where there are fewer
PART = 16  # examples a pass


class FullGradient:
    """Squared norm of the full gradient; a probe of the pool of trainings."""

    def __init__(self, run: Run, trial: Trial) -> None:
        self.run = run

    def measure(self) -> dict[str, Any]:
        """Loss, |G|^2, and of layers with a factor A the parts inside and outside its row space (None without)."""
        loss, gradients = full_gradient(self.run)
        factors = row_factors(self.run)
        inside = outside = 0.0
        for name, A in factors.items():
            seen = float(inside_rows(gradients[name], A).square().sum())
            inside += seen
            outside += max(0.0, float(gradients[name].square().sum()) - seen)
        return {
            "loss": loss,
            "square": sum(float(G.square().sum()) for G in gradients.values()),
            "inside": inside if factors else None,
            "outside": outside if factors else None,
        }


def full_gradient(run: Run, examples: int = EXAMPLES) -> tuple[float, dict[str, Tensor]]:
    """Mean loss of the first training examples and its gradient by every tuned matrix (d_out x d_in, float64).

    The run is left as it is; its head is taken as it stands.
    """
    plain = plain_model(run).eval().requires_grad_(False)
    judge = Learner(plain, run.encoding, run.learner.head, run.device)
    names = matrix_names(plain)
    weights = [plain.get_parameter(name).requires_grad_(True) for name in names]
    count = min(examples, run.train_count)
    batches = [
        judge.batch(run.splits["train"], list(range(begin, min(begin + PART, count))))
        for begin in range(0, count, PART)
    ]
    counted = sum(int((batch.targets >= 0).sum()) for batch in batches)
    total, sums = 0.0, [torch.zeros(w.shape, dtype=torch.float64) for w in weights]
    for batch in batches:
        loss = judge.loss(batch)[0] / counted
        total += float(loss.detach())
        for into, part in zip(sums, torch.autograd.grad(loss, weights), strict=True):
            into += part.double().cpu()
    return total, dict(zip(names, sums, strict=True))


def inside_rows(G: Tensor, A: Tensor) -> Tensor:
    """`G Q` with Q (d_in x r) an orthonormal basis of A's row space: the part of G that B can use."""
    return G @ torch.linalg.qr(A.double().T).Q


def row_factors(run: Run) -> dict[str, Tensor]:
    """The current factor A of every layer of a method built on LoRA, by the plain name of its weight."""
    found = {}
    for name, layer in lora_layers(run.tuned.model).items():
        plain = name.removeprefix("base_model.model.") + ".weight"
        if "default" in layer.lora_A:
            found[plain] = layer.lora_A["default"].weight.detach().cpu()
    return found
