"""Full fine-tuning and bias-only tuning: trainable numbers are parameters of the model itself."""

from __future__ import annotations

from torch import nn

from llm_experiments.recipes.base import Method, Request, Tuned
from llm_experiments.tuners.architectures import blocks


def full(model: nn.Module, request: Request) -> Tuned:
    """All parameters train, embeddings included; `embeddings=False` leaves everything outside blocks frozen."""
    settings = {"embeddings": True}
    unknown = set(request.options) - set(settings)
    if unknown:
        msg = f"options must be among {sorted(settings)}; got {sorted(unknown)}"
        raise ValueError(msg)
    settings |= request.options
    model.requires_grad_(bool(settings["embeddings"]))
    for block in blocks(model).values():
        block.requires_grad_(True)
    parts = [model] if settings["embeddings"] else blocks(model).values()
    formula = sum(p.numel() for part in parts for p in part.parameters())
    return Tuned(model, formula, settings)


def bitfit(model: nn.Module, request: Request) -> Tuned:
    """The bias vectors of the blocks train."""
    if request.options:
        msg = f"there are no options; got {sorted(request.options)}"
        raise ValueError(msg)
    model.requires_grad_(False)
    biases = [
        p for block in blocks(model).values() for name, p in block.named_parameters() if name.endswith("bias")
    ]
    if not biases:
        msg = "bias vectors train, and this model has none in its blocks; take a model with biases, such as BERT"
        raise ValueError(msg)
    for bias in biases:
        bias.requires_grad_(True)
    return Tuned(model, sum(b.numel() for b in biases), {})


METHODS = (
    Method(
        name="full",
        recipe=full,
        trains="all weights",
        source="baseline",
        uses_budget=False,
    ),
    Method(
        name="bitfit",
        recipe=bitfit,
        trains="the biases of the blocks",
        source="Ben Zaken et al., BitFit (arXiv:2106.10199); a baseline of the papers",
        uses_budget=False,
    ),
)
