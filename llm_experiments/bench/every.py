"""A training step of every method of the registry, beside LoRA and full fine-tuning at the same budget.

Each method meets LoRA and full tuning in the same rounds, one step of each in random order, so that a slow minute
hits all three alike; ratios are paired by round. A method that the decoder cannot take is measured on an encoder of
the same size instead. What happens between two steps (links of a chain, restarts, pruning) is timed apart.
"""

from __future__ import annotations

import gc
import random
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_experiments import methods
from llm_experiments.bench.arms import LR, Built
from llm_experiments.bench.statistics import paired_ratio, quartiles
from llm_experiments.bench.step import Memory, flops, memory, storages
from llm_experiments.methods import Budget, MethodError

Row = dict[str, Any]
MIB = 2**20
EVENT = 4  # steps between two links, restarts or turns, where a method has any

# Sizes of decoder and encoder; budget and batch that go with them.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden": 32,
        "layers": 2,
        "heads": 4,
        "inner": 64,
        "vocabulary": 96,
        "budget": 0.2,
        "tokens": (2, 8),
    },
    "small": {
        "hidden": 384,
        "layers": 6,
        "heads": 12,
        "inner": 1536,
        "vocabulary": 4096,
        "budget": 0.014,
        "tokens": (4, 64),
    },
}


def decoder(size: Row, seed: int = 0) -> nn.Module:
    """A random Llama of that size."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**_common(size), num_key_value_heads=size["heads"], max_position_embeddings=512)
    return _seeded(lambda: LlamaForCausalLM(config), seed)


def encoder(size: Row, seed: int = 0) -> nn.Module:
    """A random BERT of that size, with a head over the vocabulary."""
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(**_common(size), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return _seeded(lambda: BertForMaskedLM(config), seed)


def _common(size: Row) -> Row:
    return {
        "hidden_size": size["hidden"],
        "num_hidden_layers": size["layers"],
        "num_attention_heads": size["heads"],
        "intermediate_size": size["inner"],
        "vocab_size": size["vocabulary"],
    }


def _seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


class Training:
    """Steps of one method on one model, with all that the method does in and between them.

    Args:
        name: the method.
        network: a fresh pretrained model; changed in place.
        ids: token ids (batch x length).
        budget: share of the blocks' parameters that may train.
        seed: of everything random in the method.
        options: of the method.

    Raises:
        MethodError: the model or the budget cannot take the method.
    """

    def __init__(
        self, name: str, network: nn.Module, ids: Tensor, budget: float, seed: int = 0, **options: Any
    ) -> None:
        self.ids, self.labels = ids, F.pad(ids[:, 1:], (0, 1), value=-100).reshape(-1)
        self.mask = torch.ones_like(ids)
        self.weights_before = sum(storages([*network.parameters(), *network.buffers()]).values())
        calibration = [{"input_ids": ids, "attention_mask": self.mask, "labels": ids}]
        with warnings.catch_warnings():
            # peft reads a property that transformers has renamed; there is nothing that a user could do.
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
            self.tuned = methods.get(name).apply(
                network, Budget.ratio(budget), seed, calibration=calibration, **options
            )
        self.core = self.tuned.model.train()
        self.built = Built(self.core, self.tuned.optimizer(lr=LR), self.tuned.counted())
        self.between: list[float] = []
        self._number = 0

    def forward(self) -> Tensor:
        """Mean next-token cross-entropy in nats, with what the method adds to it."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
            logits = self.core(input_ids=self.ids, attention_mask=self.mask).logits
        logits = logits[:, -self.ids.shape[1] :].reshape(-1, logits.shape[-1])
        loss = F.cross_entropy(logits.float(), self.labels, ignore_index=-100)
        extra = self.tuned.penalty()
        return loss if extra is None else loss + extra

    def __call__(self) -> Tensor:
        """One step without what follows it; returns the loss."""
        self.built.optimizer.zero_grad(set_to_none=True)
        loss = self.forward()
        loss.backward()
        self.built.optimizer.step()
        return loss.detach()

    def timed(self) -> float:
        """Seconds of one step; what the method does after it is timed apart, in `between`."""
        begin = time.perf_counter()
        self()
        seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        if self.tuned.schedule.on_step_end(self._number, self.built.optimizer):
            self.between.append(time.perf_counter() - begin)
        self._number += 1
        return seconds


@dataclass
class Measured:
    """What was measured of one method.

    Attributes:
        name: the method.
        model: `decoder` or `encoder`.
        trainable: how many numbers train.
        products: floating-point operations of a step in linear layers and other matrix products.
        memory: bytes that a step keeps (see `step.memory`), of the method, LoRA and full tuning.
        wall: seconds of every round, of the method, LoRA and full tuning.
        between: seconds of each event after a step.
        refused: why there are no numbers, if there are none.
    """

    name: str
    model: str = "decoder"
    trainable: int = 0
    products: int = 0
    memory: dict[str, Memory] = field(default_factory=dict)
    wall: dict[str, list[float]] = field(default_factory=dict)
    between: list[float] = field(default_factory=list)
    refused: str = ""


BESIDE = ("lora", "full")


def measure(
    names: Sequence[str],
    size: Row,
    *,
    rounds: int,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> list[Measured]:
    """Measures methods one after the other, each beside LoRA and full tuning.

    Args:
        names: rows of the registry.
        size: see `SIZES`.
        rounds: steps that are timed, after one that is not.
        seed: of tokens, order and methods.
        say: receives a line of text for every method.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(size["vocabulary"], size["tokens"], generator=generator)
    built = {"decoder": decoder, "encoder": encoder}
    beside: dict[str, dict[str, Training]] = {}
    kept: dict[str, dict[str, Memory]] = {}
    shuffle, found = random.Random(seed), []

    def training(name: str, model: str) -> Training:
        options: Row = {"every": EVENT} if _has_events(name) else {}
        return Training(name, built[model](size, seed), ids, size["budget"], seed, **options)

    for name in names:
        say(f"measuring {name}")
        result = Measured(name)
        step: Training | None = None
        for model in built:
            try:
                step = training(name, model)
                result.model = model
                break
            except MethodError as error:
                result.refused = result.refused or str(error)
        found.append(result)
        if step is None:
            continue
        result.refused = ""
        others = beside.setdefault(result.model, {})
        for other in BESIDE:
            if other not in others:
                others[other] = training(other, result.model)
                kept.setdefault(result.model, {})[other] = memory(others[other])
        result.trainable = step.built.trainable
        result.products = sum(flops(step).values())
        result.memory = {"": memory(step), **kept[result.model]}
        arms = {"": step, **others}
        result.wall = {arm: [] for arm in arms}
        order = list(arms)
        for _ in range(rounds):
            shuffle.shuffle(order)
            for arm in order:
                result.wall[arm].append(arms[arm].timed())
        result.between = step.between
        del step, arms
        gc.collect()
    return found


def _has_events(name: str) -> bool:
    method = methods.get(name)
    return "chain" in method.schedule or name.startswith("peso_") or name == "lisa"


def rows(found: Sequence[Measured]) -> list[Row]:
    """One row a method: milliseconds and MiB, and their ratios to LoRA and full tuning on the same model."""
    table: list[Row] = []
    for m in found:
        if m.refused:
            table.append({"method": m.name, "note": m.refused})
            continue
        low, middle, high = paired_ratio(m.wall[""], m.wall["lora"])
        row: Row = {
            "method": m.name,
            "on": m.model,
            "trains": m.trainable,
            "step ms": round(1e3 * quartiles(m.wall[""])[1], 1),
            "time / lora": round(middle, 2),
            "quartiles": f"{low:.2f}-{high:.2f}",
            "time / full": round(paired_ratio(m.wall[""], m.wall["full"])[1], 2),
            "GFLOP": round(m.products / 1e9, 3),
            "activations + state MiB": round(m.memory[""].training / MIB, 2),
        }
        for other in BESIDE:
            row[f"memory / {other}"] = round(m.memory[""].training / m.memory[other].training, 2)
        row["added weights MiB"] = round(m.memory[""].added / MIB, 2)
        if m.between:
            row["between steps ms"] = round(1e3 * quartiles(m.between)[1], 2)
            row["of a step %"] = round(100 * quartiles(m.between)[1] / quartiles(m.wall[""])[1], 1)
        table.append(row)
    return table


def body(found: Sequence[Measured], size: str, settings: Row, machine: Row, where: str) -> Row:
    """The record's content."""
    table = rows(found)
    measured = [row for row in table if "time / lora" in row]
    below = [r["method"] for r in measured if r["time / lora"] < 0.95 and r["memory / lora"] < 0.95]
    return {
        "id": f"every_method/{size}-float32-cpu",
        "headline": (
            f"A training step of {len(measured)} methods at one budget on {where}: less time and less memory than "
            f"LoRA (by 5% or more) in {len(below)}: {', '.join(below) or 'none'}."
        ),
        "question": "What does a training step cost under every method, beside LoRA and full fine-tuning?",
        "settings": settings,
        "machine": machine,
        "tables": {"Every method, paired by round": table},
        "rounds": {m.name: {arm or m.name: _ms(wall) for arm, wall in m.wall.items()} for m in found},
        "figures": [],
        "notes": [
            "Memory counts the distinct storages that a step keeps: activations for the backward pass, gradients, "
            "moments. Ratios of it are to LoRA and full tuning on the same model.",
            "`between steps`: links of chains, restarts, turns and pruning, median of those that occurred (every "
            f"{EVENT} steps here, every 20 by default); `of a step %` is such an event over one step.",
            "GaLore's decompositions (every 200 steps) and PESO-R's full gradient (the step before a restart) lie "
            "outside the medians. A method that refuses the decoder stands on an encoder of the same size.",
        ],
        "claims": ["s2ft/partial_backprop_cost"],
    }


def _ms(seconds: Sequence[float]) -> list[float]:
    return [round(1e3 * value, 3) for value in seconds]
