"""What one training step of a method keeps in memory and takes in time, counted on the model itself.

Memory is counted in storages, as the benchmark of training steps does: a view of a few columns that keeps a whole
activation alive counts whole. Weights, added weights, gradients and moments do not depend on the batch; activations
grow by the same number with every example of one length, so two batches give all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from llm_experiments.advise.sample import Sample
from llm_experiments.bench.step import storages
from llm_experiments.methods import Tuned

LR = 1e-6  # the weights hardly move; the arithmetic is that of any other rate


@dataclass(frozen=True)
class Cost:
    """Bytes and seconds of a training step.

    Attributes:
        trains: trainable numbers.
        weights: bytes of the pretrained parameters and buffers.
        added: bytes that the method puts beside them.
        gradients: bytes of gradients.
        moments: bytes of the optimizer's state.
        fixed: bytes of activations that do not depend on the batch.
        per_example: bytes of activations that an example of `length` tokens adds.
        length: tokens.
        seconds: of a step with one example, median; None where it was not run.
    """

    trains: int
    weights: int
    added: int
    gradients: int
    moments: int
    fixed: int
    per_example: int
    length: int
    seconds: float | None

    def total(self, batch: int) -> int:
        """Bytes of a step with `batch` examples."""
        state = self.weights + self.added + self.gradients + self.moments
        return state + self.fixed + batch * self.per_example

    def largest_batch(self, memory: int) -> int:
        """Examples that fit into `memory` bytes; 0 if none."""
        return max(0, (memory - self.total(0)) // max(1, self.per_example))


def measured(tuned: Tuned, sample: Sample, weights: int, length: int, steps: int) -> Cost:
    """Takes a few steps with one example and counts.

    Args:
        tuned: a model under a method; its weights change.
        sample: what is trained on.
        weights: bytes of the pretrained model before the method.
        length: tokens of every example (shorter ones are padded).
        steps: how many steps are timed; the first is not.
    """
    tuned.model.train()
    optimizer = tuned.optimizer(lr=LR)
    one, two = (_activations(tuned, sample, count, length) for count in (1, 2))
    seconds = []
    for step in range(steps + 1):
        inputs, targets = sample.batch([step % len(sample.ids)], length)
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        sample.loss(tuned.model, inputs, targets).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    parameters = list(tuned.model.parameters())
    state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor) and v.dim()]
    return Cost(
        trains=tuned.counted(),
        weights=weights,
        added=_bytes([*parameters, *tuned.model.buffers()]) - weights,
        gradients=_bytes([p.grad for p in parameters if p.grad is not None]),
        moments=_bytes(state),
        fixed=max(0, 2 * one - two),
        per_example=two - one,
        length=length,
        seconds=median(seconds[1:]) if steps else None,
    )


def held(model: torch.nn.Module) -> int:
    """Bytes of a model's parameters and buffers."""
    return _bytes([*model.parameters(), *model.buffers()])


def _bytes(tensors: list[Tensor]) -> int:
    return sum(storages(tensors).values())


def _activations(tuned: Tuned, sample: Sample, count: int, length: int) -> int:
    """Bytes kept for the backward pass of `count` examples, weights left out."""
    inputs, targets = sample.batch([i % len(sample.ids) for i in range(count)], length)
    model = [*tuned.model.parameters(), *tuned.model.buffers()]
    head = [] if sample.head is None else list(sample.head.parameters())
    known = storages([*model, *head, *inputs.values(), targets])
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept.setdefault(storage.data_ptr(), storage)
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = sample.loss(tuned.model, inputs, targets)
    # The graph is still held, so no address stands for two storages.
    total = sum(storage.nbytes() for storage in kept.values())
    del loss
    return total
