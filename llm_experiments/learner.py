"""A model with its head: the loss of a batch, and its predictions on a split.

The same two classes serve every method: what is tuned inside `network` is the method's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from llm_experiments import metrics
from llm_experiments.data import IGNORED, Batch, Encoding, Item, Split
from llm_experiments.errors import UserError

GENERATED_TOKENS = 256  # longest completion of a generating task; worked solutions take about 100

# How outputs are read; the text goes into records.
DECODING = {
    "class_scores": "most probable class of a linear head on mean-pooled states",
    "label_token": "most probable label, by the first token in which the labels differ",
    "whole_answer": "greedy, the whole answer with its end token (teacher forcing gives the same verdict)",
    "best_option": "most probable of the example's options, by mean log-probability of its tokens and the end token",
    "last_number": "greedy, at most {limit} tokens; the last number in the completion",
}


@dataclass
class Predictions:
    """Outputs on the examples of a split, in the split's order.

    Attributes:
        measures: the split's measures, see `metrics.py`.
        each: arrays with one row an example, for paired comparisons and bootstraps over items.
    """

    measures: dict[str, float | None]
    each: dict[str, np.ndarray]


class Learner:
    """Loss and predictions of one network on one task.

    Args:
        network: the tuned model; called with `input_ids` or `inputs_embeds` and `attention_mask`.
        encoding: how examples become ids.
        head: linear layer for encoders, None for decoders.
        device: where batches are put.
        autocast: run forward passes in bfloat16 autocast.
    """

    def __init__(
        self,
        network: nn.Module,
        encoding: Encoding,
        head: nn.Linear | None,
        device: torch.device,
        autocast: bool = False,
    ) -> None:
        self.network, self.encoding, self.head, self.device = network, encoding, head, device
        self._autocast = autocast
        self._dtype = next(network.parameters()).dtype
        if encoding.kind == "decoder" and encoding.task.labels:
            self._place, self._deciding = encoding.deciding_token()

    @property
    def decoding(self) -> str:
        """How outputs are read, in words."""
        key = "class_scores" if self.encoding.kind == "encoder" else self.encoding.task.decoding
        return DECODING[key].format(limit=GENERATED_TOKENS)

    def batch(self, split: Split, indices: list[int]) -> Batch:
        """A batch of a split on the learner's device; cached states in the dtype of the weights."""
        batch = split.batch(indices, self.encoding.kind, self.encoding.tokenizer.pad_id, self.device)
        if "inputs_embeds" in batch.inputs:
            batch.inputs["inputs_embeds"] = batch.inputs["inputs_embeds"].to(self._dtype)
        return batch

    def pooled(self, batch: Batch) -> Tensor:
        """Mean of an encoder's last states over the tokens of each sequence (batch x width), float32."""
        mask = batch.inputs["attention_mask"].unsqueeze(-1).float()
        # Prompts that a method puts in front of a sequence are no part of it.
        states = self._run(batch).last_hidden_state[:, -mask.shape[1] :].float()
        return (states * mask).sum(1) / mask.sum(1)

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Everything that counts in the loss of a batch, one row each.

        Returns:
            Scores (rows x classes or vocabulary, float32), targets (rows), and the example of each row. An
            encoder has one row an example, a decoder one for each answer token.
        """
        if self.head is not None:
            return self.head(self.pooled(batch)), batch.targets, torch.arange(len(batch.items))
        # Positions before the earliest answer never count; the vocabulary is wide, so they are not computed.
        longest = batch.targets.shape[1]
        keep = longest - min(item.answer_start - 1 for item in batch.items)
        logits = self._run(batch, logits_to_keep=keep, use_cache=False).logits[:, -keep:]
        targets = batch.targets[:, -keep:]
        counted = targets != IGNORED
        return logits[counted].float(), targets[counted], counted.nonzero()[:, 0]

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        """Summed cross-entropy in nats, and over how many labels or answer tokens it is summed."""
        scores, targets, _ = self.scores(batch)
        return functional.cross_entropy(scores, targets, reduction="sum"), len(targets)

    def _run(self, batch: Batch, **extra: object) -> object:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._autocast):
            return self.network(**batch.inputs, **extra)

    @torch.no_grad()
    def predict(self, split: Split, limit: int | None = None, batch_size: int = 64) -> Predictions:
        """Predictions and measures on the first `limit` examples of a split."""
        was_training = self.network.training
        self.network.eval()
        try:
            parts = [
                (indices, self._outputs(split, indices)) for indices in split.by_length(batch_size, limit)
            ]
        finally:
            self.network.train(was_training)
        order = np.argsort(np.concatenate([indices for indices, _ in parts]))
        names = parts[0][1]
        each = {name: np.concatenate([output[name] for _, output in parts])[order] for name in names}
        return Predictions(self._measure(each, split.items[: len(order)]), each)

    def _outputs(self, split: Split, indices: list[int]) -> dict[str, np.ndarray]:
        if self.encoding.task.decoding == "best_option":
            return self._best_options(split, indices)
        batch = self.batch(split, indices)
        scores, targets, example = self.scores(batch)
        if self.head is not None:
            return {"log_probs": _numpy(scores.log_softmax(1))}
        tokens = torch.bincount(example, minlength=len(indices))
        if self.encoding.task.labels:
            rows = scores[tokens.cumsum(0) - tokens + self._place]  # the row that predicts the deciding token
            return {"log_probs": _numpy(rows[:, self._deciding].log_softmax(1))}
        nats = functional.cross_entropy(scores, targets, reduction="none")
        wrong = (scores.argmax(1) != targets).to(nats.dtype)

        def total(of_rows: Tensor) -> Tensor:
            return torch.zeros(len(indices), device=nats.device).index_add(0, example, of_rows)

        outputs = {"answer_nats": _numpy(total(nats)), "answer_tokens": _numpy(tokens)}
        if self.encoding.task.decoding == "whole_answer":
            return {**outputs, "exact": _numpy(total(wrong) == 0)}
        return {**outputs, "exact": np.array(self._generated(batch))}

    def _best_options(self, split: Split, indices: list[int]) -> dict[str, np.ndarray]:
        """Loss of the right option, and whether no other is more probable a token."""
        rows = [row for index in indices for row in split.option_rows(index)]
        nats, tokens = [], []
        for begin in range(0, len(rows), len(indices)):  # no more sequences at a time than examples
            batch = self.batch(split.options, rows[begin : begin + len(indices)])
            scores, targets, example = self.scores(batch)
            each = functional.cross_entropy(scores, targets, reduction="none")
            counts = torch.bincount(example, minlength=len(batch.items))
            nats.append(_numpy(torch.zeros(len(counts), device=each.device).index_add(0, example, each)))
            tokens.append(_numpy(counts))
        all_nats, all_tokens = np.concatenate(nats), np.concatenate(tokens)
        right, exact, begin = [], [], 0
        for index in indices:
            item = split.items[index]
            own = slice(begin, begin + item.options)
            right.append(begin + item.label)
            exact.append(int(np.argmin(all_nats[own] / all_tokens[own])) == item.label)
            begin += item.options
        return {"answer_nats": all_nats[right], "answer_tokens": all_tokens[right], "exact": np.array(exact)}

    def _generated(self, batch: Batch) -> list[bool]:
        """Whether the last number of each greedy completion is the last number of the answer."""
        from llm_experiments.tasks.gsm_symbolic import last_number

        if "input_ids" not in batch.inputs:
            message = (
                f"task {self.encoding.task.name} generates text and needs token ids; set cached_lower to 0"
            )
            raise UserError(message)
        tokenizer = self.encoding.tokenizer
        prompts = [item.ids[: item.answer_start] for item in batch.items]
        longest = max(map(len, prompts))
        # padded on the left, so that every completion starts at the same place
        ids = torch.tensor([[tokenizer.pad_id] * (longest - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._autocast):
            produced = self.network.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                max_new_tokens=GENERATED_TOKENS,
                do_sample=False,
                pad_token_id=tokenizer.pad_id,
                eos_token_id=tokenizer.end_id,
            )
        texts = [tokenizer.decode(row[longest:].tolist()) for row in produced.cpu()]
        return [
            last_number(text) == last_number(item.answer)
            for text, item in zip(texts, batch.items, strict=True)
        ]

    def _measure(self, each: dict[str, np.ndarray], items: list[Item]) -> dict[str, float | None]:
        if "log_probs" not in each:
            measured = metrics.completion(each["answer_nats"], each["answer_tokens"], each["exact"])
            if self.encoding.task.decoding == "best_option":
                return {"accuracy": measured.pop("exact_match"), **measured}
            return measured
        labels = np.array([item.label for item in items])
        scored = items and items[0].score is not None
        scores = np.array([item.score for item in items]) if scored else None
        return metrics.classification(each["log_probs"], labels, scores)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def random_head(width: int, classes: int, seed: int, device: torch.device) -> nn.Linear:
    """A linear head whose start depends on the seed alone, so that all methods of a seed share it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(width, classes)
    return head.to(device)


PENALTIES = (1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
FOLDS = 4


def logistic(x: Tensor, y: Tensor, classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Weight and bias that minimise mean cross-entropy + penalty/2 |W|^2, by L-BFGS."""
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        objective = functional.cross_entropy(x @ weight.T + bias, y) + penalty / 2 * weight.square().sum()
        objective.backward()
        return objective

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def _held_out_loss(x: Tensor, y: Tensor, classes: int, penalty: float) -> float:
    """Cross-validated cross-entropy in nats; fold i holds every FOLDS-th example (they are in hash order)."""
    fold = torch.arange(len(y), device=x.device) % FOLDS
    total = 0.0
    for held in range(FOLDS):
        weight, bias = logistic(x[fold != held], y[fold != held], classes, penalty)
        scores = x[fold == held] @ weight.T + bias
        total += float(functional.cross_entropy(scores, y[fold == held], reduction="sum"))
    return total / len(y)


def probe_head(learner: Learner, split: Split, classes: int) -> nn.Linear:
    """The head that fits the untuned features best: logistic regression, its l2 penalty cross-validated.

    Only training examples are used. Every method then starts from the same useful predictions (the "probe"),
    instead of spending its steps on a random head.
    """
    with torch.no_grad():
        features, labels = [], []
        for indices in split.by_length(64):
            batch = learner.batch(split, indices)
            features.append((indices, learner.pooled(batch).double()))
            labels.append(batch.targets)
    order = torch.tensor([index for indices, _ in features for index in indices]).argsort()
    x = torch.cat([part for _, part in features])[order]
    y = torch.cat(labels)[order]
    # Standardised features make the penalty mean the same for every model.
    centre, spread = x.mean(0), x.std(0, correction=0) + 1e-6
    x = (x - centre) / spread
    if len(y) >= 2 * FOLDS:
        penalty = min(PENALTIES, key=lambda penalty: _held_out_loss(x, y, classes, penalty))
    else:
        penalty = PENALTIES[-1]  # too few examples to hold any out
    weight, bias = logistic(x, y, classes, penalty)
    head = nn.Linear(x.shape[1], classes).to(x.device)
    with torch.no_grad():
        head.weight.copy_(weight / spread)
        head.bias.copy_(bias - (weight / spread) @ centre)
    return head
