"""Everything that decides a training run; a run's name is a hash of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from llm_experiments.errors import UserError

PRECISIONS = {
    "fp32": "weights and arithmetic in float32",
    "bf16-mixed": "weights in float32, forward and backward in bfloat16 autocast",
    "bf16": "weights in bfloat16",
}
SCHEDULES = ("constant", "linear", "cosine")
HEADS = ("probe", "random")

# Default peak learning rates. For full, LoRA and S2FT they neither stalled nor overfitted on the CPU tasks; the
# others follow their nearest kin. A comparison of methods sweeps its own.
LEARNING_RATE = 2e-3
LEARNING_RATES = {"full": 1e-4, "lisa": 1e-4, "hybrid": 1e-4, "bitfit": 5e-4, "galore": 1e-3}


class SettingError(UserError):
    """A setting out of its range; one line: name, condition, value."""


@dataclass(frozen=True)
class Settings:
    """One training run.

    Attributes:
        method: name in the registry of methods (`list`).
        task: name of the task.
        model: registry name, transformers folder or GGUF file.
        seed: of data order, head, method initialisation and few-shot choice.
        steps: optimizer steps.
        batch: examples a step.
        micro_batch: examples a forward pass; gradients accumulate up to `batch` (0: no accumulation).
        lr: peak learning rate of the method's parameters.
        head_lr: peak learning rate of an encoder's head.
        head: `probe` (logistic regression on untuned features) or `random`.
        budget: trainable parameters, a share ("1.4%") or a count ("147000"); methods of fixed size ignore it.
        schedule: of the learning rate after warm-up.
        warmup: share of the steps in which the rate rises from 0.
        weight_decay: decoupled, on the method's parameters.
        clip: largest gradient norm (0: no clipping).
        precision: see `PRECISIONS`.
        train_size: training examples (of each class for few-shot tasks); 0: the task's own default.
        max_length: longest sequence in tokens; 0: the task's own default.
        cached_lower: lower layers run once and kept frozen (0: tune all).
        eval_every: steps between evaluations (0: start and end only).
        eval_items: examples of each split in those.
        final_items: examples of each split at the end (0: all).
        splits: the splits that are evaluated beside `train`, separated by commas; empty: all.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: processor threads; part of the run, since sums depend on it in the last bit.
        options: further arguments of the method, by name.
    """

    method: str
    task: str = "sentiment"
    model: str = "minilm"
    seed: int = 0
    steps: int = 120
    batch: int = 16
    micro_batch: int = 0
    lr: float = 2e-3
    head_lr: float = 1e-3
    head: str = "probe"
    budget: str = "1.4%"
    schedule: str = "linear"
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    precision: str = "fp32"
    train_size: int = 0
    max_length: int = 0
    cached_lower: int = 0
    eval_every: int = 40
    eval_items: int = 100
    final_items: int = 300
    splits: str = ""
    device: str = "cpu"
    threads: int = 1
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least = {"steps": 0, "batch": 1, "micro_batch": 0, "train_size": 0, "max_length": 0, "threads": 1}
        at_least |= {"cached_lower": 0, "eval_every": 0, "eval_items": 1, "final_items": 0, "seed": 0}
        for name, least in at_least.items():
            _check(getattr(self, name) >= least, f"{name} must be at least {least}", getattr(self, name))
        _check(self.lr > 0, "lr must be positive", self.lr)
        _check(self.head_lr >= 0, "head_lr must not be negative", self.head_lr)
        _check(
            0 <= self.warmup < 1, "warmup must satisfy 0 <= warmup < 1 (a share of the steps)", self.warmup
        )
        _check(self.weight_decay >= 0, "weight_decay must not be negative", self.weight_decay)
        _check(self.clip >= 0, "clip must not be negative", self.clip)
        if self.micro_batch:
            _check(self.batch % self.micro_batch == 0, "micro_batch must divide batch", self.micro_batch)
        for name, known in (("precision", PRECISIONS), ("schedule", SCHEDULES), ("head", HEADS)):
            value = getattr(self, name)
            _check(value in known, f"{name} must be one of {', '.join(known)}", value)
        device, _, number = self.device.partition(":")
        _check(
            device in ("cpu", "cuda") and (not number or number.isdigit()),
            "device must be cpu or cuda",
            self.device,
        )

    def as_dict(self, model_name: str) -> dict[str, Any]:
        """The settings for a record: a model given by path appears by its label."""
        return dataclasses.asdict(self) | {"model": model_name}

    def key(self, weights: str, data: str) -> str:
        """Twelve hexadecimal digits that name the run: hash of settings, weights and data."""
        text = json.dumps([self.as_dict(weights), data], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _check(holds: bool, condition: str, value: object) -> None:
    if not holds:
        message = f"{condition}; got {value!r}"
        raise SettingError(message)
