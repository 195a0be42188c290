"""A sample of the user's task, and the loss of a few batches of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_experiments.errors import UserError
from llm_experiments.learner import logistic
from llm_experiments.models import Loaded

IGNORED = -100
PENALTY = 0.1  # of the logistic head, on standardised features


@dataclass(frozen=True)
class Example:
    """One text, with what should be produced or predicted where that is known."""

    text: str
    answer: str | None = None
    label: str | None = None


def read(path: Path) -> list[Example]:
    """The examples of a file: one text a line, or `.jsonl` with `text` and perhaps `answer` or `label`.

    Raises:
        UserError: the file cannot be read, or a line is none of these.
    """
    name = f"--task-sample {path.name}"
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        message = f"--task-sample {path} cannot be read ({error.strerror})"
        raise UserError(message) from None
    except UnicodeDecodeError:
        message = f"{name} must be UTF-8 text; it is not"
        raise UserError(message) from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found.append(_parsed(line, f"{name}: line {number}") if path.suffix == ".jsonl" else Example(line))
    if len(found) < 4:
        message = f"{name} must hold at least 4 examples, two for each half; got {len(found)}"
        raise UserError(message)
    return found


def _parsed(line: str, place: str) -> Example:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not row["text"]:
        message = f"{place} must be a JSON object with a field text that is not empty"
        raise UserError(message)
    answer, label = row.get("answer"), row.get("label")
    if answer is not None and (not isinstance(answer, str) or not answer):
        message = f"{place}: answer must be a text that is not empty; got {answer!r}"
        raise UserError(message)
    return Example(row["text"], answer, None if label is None else str(label))


@dataclass
class Sample:
    """The examples as a model reads them.

    Attributes:
        ids: token ids of each example.
        targets: for a decoder, the id that each position should predict (`IGNORED` where none counts); for an
            encoder, the class.
        kind: `decoder` or `encoder`.
        head: an encoder's classifier over mean-pooled states, fitted to the untuned features.
        loss_on: what the loss counts, in words.
    """

    ids: list[list[int]]
    targets: list[Any]
    kind: str
    loss_on: str
    pad: int
    head: nn.Linear | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return max(map(len, self.ids))

    def batch(self, indices: list[int], length: int = 0) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs and targets of some examples, padded to their longest or to `length`."""
        longest = max(length, *(len(self.ids[i]) for i in indices))
        ids = torch.tensor([self.ids[i] + [self.pad] * (longest - len(self.ids[i])) for i in indices])
        mask = torch.tensor([[1] * len(self.ids[i]) + [0] * (longest - len(self.ids[i])) for i in indices])
        if self.kind == "encoder":
            targets = torch.tensor([self.targets[i] for i in indices])
        else:
            rows = [self.targets[i] + [IGNORED] * (longest - len(self.ids[i])) for i in indices]
            targets = torch.tensor(rows)
        return {"input_ids": ids, "attention_mask": mask}, targets

    def loss(self, model: nn.Module, inputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        """Summed cross-entropy in nats, over predicted tokens or over examples."""
        if self.head is not None:
            return F.cross_entropy(
                self.head(pooled(model, inputs).to(self.head.weight.dtype)), targets, reduction="sum"
            )
        logits = model(**inputs, use_cache=False).logits
        return F.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )

    def halves(self) -> tuple[list[int], list[int]]:
        """Every second example; of an encoder's, every second of each class, so that both halves have all classes."""
        order = list(range(len(self.ids)))
        if self.kind == "encoder":
            order.sort(key=lambda i: self.targets[i])
        return order[::2], order[1::2]


def pooled(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Mean of the last states over the tokens of each example (batch x width)."""
    states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)


def encode(loaded: Loaded, examples: list[Example], length: int, max_tokens: int) -> Sample:
    """The sample for a model: texts cut at `length` tokens, examples until `max_tokens` are reached.

    Raises:
        UserError: an encoder without labels, a single class, or texts too short to predict anything.
    """
    tokenizer = loaded.tokenizer
    if loaded.kind == "encoder":
        return _for_encoder(loaded, examples, length, max_tokens)
    ids, targets, used = [], [], 0
    for example in examples:
        start = tokenizer.encode(example.text)
        whole = start
        if example.answer is not None:
            end = [] if tokenizer.end_id is None else [tokenizer.end_id]
            whole = start + tokenizer.encode(example.answer, special=False) + end
        whole = whole[:length]
        first = len(start) if example.answer is not None else 1
        wanted = [whole[i + 1] if i + 1 >= first else IGNORED for i in range(len(whole) - 1)] + [IGNORED]
        if all(target == IGNORED for target in wanted):
            continue
        ids.append(whole)
        targets.append(wanted)
        used += len(whole)
        if used >= max_tokens:
            break
    if len(ids) < 4:
        message = (
            f"--task-sample must give 4 examples with something to predict in {length} tokens; got {len(ids)}"
        )
        raise UserError(message)
    words = "the answers" if any(e.answer is not None for e in examples) else "every next token"
    return Sample(ids, targets, "decoder", f"cross-entropy of {words}", tokenizer.pad_id)


def _for_encoder(loaded: Loaded, examples: list[Example], length: int, max_tokens: int) -> Sample:
    if any(example.label is None for example in examples):
        message = (
            f"--task-sample must be .jsonl with text and label in every line: {loaded.label} is an encoder, and "
            "without labels it has no loss"
        )
        raise UserError(message)
    names = sorted({str(example.label) for example in examples})
    ids: list[list[int]] = []
    for example in examples:
        ids.append(loaded.tokenizer.encode(example.text)[:length])
        if sum(map(len, ids)) >= max_tokens:
            break
    targets = [names.index(str(example.label)) for example in examples[: len(ids)]]
    if len(ids) < 4 or len(set(targets)) < 2:
        message = f"--task-sample must hold 4 examples of at least two labels; got {len(ids)} of {sorted(set(names))}"
        raise UserError(message)
    sample = Sample(ids, targets, "encoder", "cross-entropy of the labels", loaded.tokenizer.pad_id)
    sample.head = _fitted_head(loaded.model, sample, len(names))
    return sample


def _fitted_head(model: nn.Module, sample: Sample, classes: int) -> nn.Linear:
    """Logistic regression on standardised features of the untuned model; frozen."""
    with torch.no_grad():
        features = torch.cat([pooled(model, sample.batch([i])[0]) for i in range(len(sample.ids))]).double()
    centre, spread = features.mean(0), features.std(0, correction=0) + 1e-6
    weight, bias = logistic((features - centre) / spread, torch.tensor(sample.targets), classes, PENALTY)
    head = nn.Linear(features.shape[1], classes)
    with torch.no_grad():
        head.weight.copy_(weight / spread)
        head.bias.copy_(bias - (weight / spread) @ centre)
    return head.requires_grad_(False)


def batches(indices: list[int], size: int) -> Iterator[list[int]]:
    """Consecutive groups of indices."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
