"""The three sizes in which every experiment can be run, each defined once.

| tier | model and task | where |
|---|---|---|
| smoke | tiny random models, a few steps | tests; proves that the road is whole, says nothing about methods |
| cpu | MiniLM with its top 3 layers tuned on film reviews; SmolLM2 with its top 10 on sums | two cores |
| gpu | SmolLM2-135M, all layers, sums and news topics | one GPU |

On the CPU the lower layers are run once and kept frozen; every record says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_experiments.settings import LEARNING_RATE, LEARNING_RATES, Settings

RATE_FACTORS = (0.25, 1.0, 4.0)  # the grid of learning rates, as multiples of the method's default
RATE_SEED = 1000  # of the runs that choose the rate; no run that is compared has it


@dataclass(frozen=True)
class Bed:
    """A model on a task: what runs of one kind share.

    Attributes:
        common: settings of every run.
        budget: the share of the tuned layers that trains, unless a row says otherwise.
        large: a larger share, for rows that compare two.
        loss: measure that training minimises, in nats.
        quality: measure of how good the answers are.
        shifted: splits from other distributions, near to far.
        rate_steps: steps of the runs that choose the rate.
    """

    common: Mapping[str, Any]
    budget: str
    large: str
    loss: str
    quality: str
    shifted: tuple[str, ...]
    rate_steps: int

    def settings(self, method: str, **changes: Any) -> Settings:
        """Settings of one run; the default rate of the method unless `lr` is given."""
        rate = LEARNING_RATES.get(method, LEARNING_RATE)
        return Settings(method, **{"budget": self.budget, "lr": rate, **self.common, **changes})


@dataclass(frozen=True)
class Tier:
    """A size.

    Attributes:
        name: as on the command line.
        beds: `main`; `text` (sentences that can be edited); `topics` (few-shot); `decoder`.
        far_items: texts on which forgetting is measured.
    """

    name: str
    beds: Mapping[str, Bed]
    far_items: int = 250

    def bed(self, name: str) -> Bed:
        """A test bed; `main` where the tier has no bed of that name."""
        return self.beds.get(name, self.beds["main"])


_SMALL = {"steps": 4, "batch": 4, "eval_every": 2, "eval_items": 6, "final_items": 8, "max_length": 24}
_SENTIMENT = {"loss": "log_loss", "quality": "rho", "shifted": ("ood_amazon", "ood_nyt", "ood_tweets")}
_SUMS = {"loss": "answer_loss", "quality": "exact_match", "shifted": ("near_3_digits", "near_3_terms")}
_TOPICS = {"loss": "log_loss", "quality": "accuracy", "shifted": ()}
_GPU = {"model": "smollm2", "device": "cuda", "precision": "bf16-mixed", "batch": 16}

TIERS = {
    tier.name: tier
    for tier in (
        Tier(
            "smoke",
            {
                "main": Bed(
                    {"model": "tiny_bert", "task": "sentiment", "train_size": 24, **_SMALL},
                    "15%", "30%", rate_steps=2, **_SENTIMENT,
                ),
                "topics": Bed(
                    {"model": "tiny_bert", "task": "bbc_fewshot", "train_size": 2, **_SMALL},
                    "15%", "30%", rate_steps=2, **_TOPICS,
                ),
                "decoder": Bed(
                    {"model": "tiny_llama", "task": "chain_sum", "train_size": 16, **_SMALL, "max_length": 96},
                    "15%", "30%", rate_steps=2, **_SUMS,
                ),
            },
            far_items=20,
        ),
        Tier(
            "cpu",
            {
                "main": Bed(
                    {"model": "minilm", "task": "sentiment", "cached_lower": 3, "steps": 120, "batch": 16,
                     "eval_every": 0, "eval_items": 150, "final_items": 300},
                    "1.4%", "10%", rate_steps=60, **_SENTIMENT,
                ),
                "topics": Bed(
                    {"model": "minilm", "task": "bbc_fewshot", "cached_lower": 3, "max_length": 32, "steps": 40,
                     "batch": 16, "head": "random", "head_lr": 5e-3, "eval_every": 0, "eval_items": 1,
                     "final_items": 0},
                    "1.4%", "10%", rate_steps=40, **_TOPICS,
                ),
                "decoder": Bed(
                    {"model": "smollm2", "task": "chain_sum", "cached_lower": 20, "steps": 60, "batch": 8,
                     "eval_every": 0, "eval_items": 1, "final_items": 100},
                    "1.4%", "10%", rate_steps=30, **_SUMS,
                ),
            },
        ),
        Tier(
            "gpu",
            {
                "main": Bed(
                    {**_GPU, "task": "chain_sum", "steps": 300, "train_size": 4000, "eval_every": 100,
                     "eval_items": 200, "final_items": 1000},
                    "1.4%", "10%", rate_steps=100, **_SUMS,
                ),
                "text": Bed(
                    {**_GPU, "task": "sentiment", "steps": 200, "eval_every": 0, "eval_items": 1,
                     "final_items": 1000},
                    "1.4%", "10%", rate_steps=100, **_SENTIMENT,
                ),
                "topics": Bed(
                    {**_GPU, "task": "bbc_fewshot", "steps": 60, "max_length": 128, "eval_every": 0,
                     "eval_items": 1, "final_items": 0},
                    "1.4%", "10%", rate_steps=60, **_TOPICS,
                ),
                "decoder": Bed(
                    {**_GPU, "task": "chain_sum", "steps": 300, "train_size": 4000, "eval_every": 100,
                     "eval_items": 200, "final_items": 1000},
                    "1.4%", "10%", rate_steps=100, **_SUMS,
                ),
            },
            far_items=500,
        ),
    )
}  # fmt: skip
