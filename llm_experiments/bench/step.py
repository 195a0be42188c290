"""One training step, the same for every arm, and what it computes and keeps."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from llm_experiments.bench.arms import Arm, Built
from llm_experiments.bench.lean import chunked_loss, make_lean

# Base-model code: what every arm of a comparison runs.
BASES = {
    "plain": "transformers' Llama as it is",
    "lean": "norms, SwiGLU and loss that keep less for the backward pass",
    "compiled": "transformers' Llama under torch.compile",
    "lean+compiled": "the lean code under torch.compile",
}

Shape = tuple[int, ...]


class Step:
    """A training step of one arm.

    Args:
        arm: the method.
        model: a fresh pretrained causal language model of the Llama family; changed in place.
        base: a key of `BASES`.
        ids: token ids (batch x length), on the device of the model.
        seed: of everything random in the method.
    """

    def __init__(self, arm: Arm, model: nn.Module, base: str, ids: Tensor, seed: int = 0) -> None:
        self.arm, self.base, self.ids = arm, base, ids
        self.lean = "lean" in base
        if self.lean and not make_lean(model):
            msg = f"base {base!r} needs a model with Llama's norms and feed-forward blocks"
            raise ValueError(msg)
        self.weights_before = _bytes(storages(_tensors(model)))
        self.built: Built = arm.build(model, seed)
        self.core = self.built.core.train()
        self.labels = F.pad(ids[:, 1:], (0, 1), value=-100).reshape(-1)
        self.loss: Callable[[], Tensor] = self._loss
        if "compiled" in base:
            self.loss = torch.compile(self._loss, dynamic=False)

    def _loss(self) -> Tensor:
        """Mean next-token cross-entropy, nats."""
        core, inputs = self.core, {}
        if self.built.optimizer is None:
            inputs["inputs_embeds"] = self.embedded
        else:
            inputs["input_ids"] = self.ids
        states = core.model(**inputs, use_cache=False).last_hidden_state
        if self.lean:
            return chunked_loss(states.reshape(-1, states.shape[-1]), core.lm_head.weight, self.labels)
        logits = core.lm_head(states)
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), self.labels, ignore_index=-100)

    def forward(self) -> Tensor:
        """The loss, with the graph for its backward pass."""
        if self.built.optimizer is None:
            self.embedded = self.core.model.embed_tokens(self.ids).detach().requires_grad_()
        return self.loss()

    def __call__(self) -> Tensor:
        """Gradients set to None, forward, backward, optimizer step; returns the loss."""
        if self.built.optimizer is not None:
            self.built.optimizer.zero_grad(set_to_none=True)
        loss = self.forward()
        loss.backward()
        if self.built.optimizer is not None:
            self.built.optimizer.step()
        return loss.detach()

    def timed(self) -> tuple[float, float]:
        """Seconds of wall clock and of this process's processor time that one step takes."""
        self._wait()
        wall, cpu = time.perf_counter(), time.process_time()
        self()
        self._wait()
        return time.perf_counter() - wall, time.process_time() - cpu

    def _wait(self) -> None:
        if self.ids.is_cuda:
            torch.cuda.synchronize(self.ids.device)


# --- arithmetic ----------------------------------------------------------------------------------


def flops(step: Step) -> dict[str, int]:
    """Floating-point operations of one step by kind.

    `products` are the matrix products of linear layers, `attention` the fused attention kernels, `other` batched
    products (some releases of transformers compute the angles of rotary embeddings by one). Counted by torch as
    the operators run, 2 m n k for a product; normalisations, activations and the optimizer are not counted.
    """
    aten = torch.ops.aten
    # torch counts the attention kernels of GPUs but not the processor's own.
    extra = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=extra) as counter:
        step()
    total = counter.get_flop_counts()["Global"]
    products = sum(total.get(op, 0) for op in (aten.mm, aten.addmm))
    attention = sum(n for op, n in total.items() if "attention" in str(op))
    return {"products": products, "attention": attention, "other": sum(total.values()) - products - attention}


def _attention(query: Shape, key: Shape, value: Shape, *rest: object, **named: object) -> int:
    """Two products, with the keys and with the values; as torch does, the causal mask saves nothing."""
    batch, heads, tokens, width = query
    return 2 * batch * heads * tokens * key[2] * (width + value[3])


def _attention_backward(
    grad: Shape, query: Shape, key: Shape, value: Shape, *rest: object, **named: object
) -> int:
    """Five products: the scores again, and the gradients of scores, values, keys and queries."""
    batch, heads, tokens, width = query
    return 2 * batch * heads * tokens * key[2] * (3 * width + 2 * value[3])


# --- memory --------------------------------------------------------------------------------------


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Address and bytes of the distinct storages behind tensors.

    Storages, not tensors: a view of a few columns keeps the whole activation alive, and a slice that is a view
    of the weight costs nothing.
    """
    return {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors) if s.nbytes()}


def _bytes(found: dict[int, int]) -> int:
    return sum(found.values())


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


@dataclass(frozen=True)
class Memory:
    """Bytes of one step, by what holds them.

    Attributes:
        weights: parameters and buffers of the pretrained model.
        added: what the method adds to them (factors, copies of pretrained slices).
        gradients: of the trainable numbers.
        optimizer: its moments.
        activations: kept by the forward pass for the backward pass, weights left out.
    """

    weights: int
    added: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def training(self) -> int:
        """What training needs beyond the weights: activations, gradients and moments."""
        return self.activations + self.gradients + self.optimizer


def memory(step: Step) -> Memory:
    """Counts the distinct storages that one step keeps; the step is carried out."""
    optimizer = step.built.optimizer
    if optimizer is not None:
        optimizer.zero_grad(set_to_none=True)
    model = storages(_tensors(step.core))
    known = model | storages([step.ids, step.labels])
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage())
        return tensor.detach()  # the tensor itself would hold its own graph alive

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = step.forward()
    # All are still held, so no address stands for two of them.
    activations = sum(storage.nbytes() for storage in kept.values())
    kept.clear()
    loss.backward()
    gradients = storages(p.grad for p in step.core.parameters() if p.grad is not None)
    moments: dict[int, int] = {}
    if optimizer is not None:
        optimizer.step()
        state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor) and v.dim()]
        moments = storages(state)
    del loss
    gc.collect()
    return Memory(
        weights=step.weights_before,
        added=_bytes(model) - step.weights_before,
        gradients=_bytes(gradients),
        optimizer=_bytes(moments),
        activations=activations,
    )


def gpu_peak(step: Step) -> int:
    """Bytes that one step needs on the GPU at its peak, beyond what is there before it.

    Gradients are dropped beforehand and moments are there: the first step must have been made.
    """
    if step.built.optimizer is not None:
        step.built.optimizer.zero_grad(set_to_none=True)
    device = step.ids.device
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
