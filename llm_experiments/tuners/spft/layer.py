"""The SpFT layer: single entries of a frozen weight train, with optimizer state for them alone."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llm_experiments.tuners.slices import SliceLayer


@dataclass(frozen=True, eq=False)
class Entries:
    """Single entries of a weight, by their row-major number; takes the place of a `Slice`."""

    numbers: Tensor
    contiguous: bool = True  # the values can always be written into the weight

    def check(self, weight: Tensor, name: str) -> None:
        """Raises ValueError if there is no entry or one lies outside the weight."""
        if not len(self.numbers) or int(self.numbers.max()) >= weight.numel():
            msg = (
                f"entries of {name} must be some of 0..{weight.numel() - 1}; got {len(self.numbers)} of them"
            )
            raise ValueError(msg)

    def index(self, device: torch.device) -> Tensor:
        """The numbers on a device."""
        return self.numbers.to(device)

    def overlaps(self, other: Entries) -> bool:
        """Whether the two share an entry."""
        return bool(torch.isin(self.numbers, other.numbers).any())

    def read(self, weight: Tensor) -> Tensor:
        """A copy of the entries."""
        return weight.reshape(-1)[self.index(weight.device)]

    def write(self, weight: Tensor, values: Tensor) -> None:
        """Puts `values` into the entries of the weight, which must be contiguous."""
        weight.view(-1).index_copy_(0, self.index(weight.device), values.to(weight.dtype))

    def add(self, weight: Tensor, values: Tensor) -> None:
        """Adds `values` to the entries of the weight, which must be contiguous."""
        weight.view(-1).index_add_(0, self.index(weight.device), values.to(weight.dtype))


def random_entries(shape: tuple[int, int], ratio: float, seed: int, name: str) -> Entries:
    """A random set of `floor(ratio n m)` entries, at least one, of a weight n x m."""
    size = shape[0] * shape[1]
    generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    numbers = generator.choice(size, max(1, int(ratio * size)), replace=False, shuffle=False)
    return Entries(torch.from_numpy(np.sort(numbers)))


class _SparseLinear(torch.autograd.Function):
    """`x W' + bias` where only some entries of `W` receive gradients.

    The gradient of the whole weight exists for a moment in the backward pass, and the whole input is kept for
    it: what unstructured selection costs on dense hardware.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, values, numbers):  # type: ignore[no-untyped-def]
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        ctx.save_for_backward(x if ctx.needs_input_grad[3] else None, weight, values, numbers)
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, weight, values, numbers = ctx.saved_tensors
        grad_x = grad @ weight.to(grad.dtype) if ctx.needs_input_grad[0] else None
        rows = grad.reshape(-1, grad.shape[-1])
        grad_bias = rows.sum(0).to(values.dtype) if ctx.needs_input_grad[2] else None
        grad_values = None
        if ctx.needs_input_grad[3]:
            full = rows.T @ x.reshape(-1, x.shape[-1])
            grad_values = full.view(-1)[numbers].to(values.dtype)
        return grad_x, None, grad_bias, grad_values, None


class SpftLayer(SliceLayer):
    """A linear layer of which single entries train.

    The entries in place are written into the weight before every forward pass, because a scattered set has no
    view that an optimizer could hold; everything else is as in `SliceLayer`.
    """

    adapter_layer_names = ("spft_values",)

    def _alias(self, write: bool) -> None:
        if self._in_place is not None and write:
            self.slices[self._in_place].write(self.base_layer.weight.data, self.values[self._in_place].data)

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        super()._apply(fn, recurse)
        self._alias(write=True)
        return self

    def _inside(self, x: Tensor, name: str) -> Tensor:
        self._alias(write=True)
        base = self.base_layer
        return _SparseLinear.apply(x, base.weight, base.bias, self.values[name], self.positions[name])

    def _beside(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        change = self.change(name)
        flat = torch.zeros(self.out_features * self.in_features, dtype=change.dtype, device=change.device)
        delta_W = flat.index_put((self.positions[name],), change).view(self.out_features, self.in_features)
        return y + F.linear(x, delta_W).to(y.dtype)

    def __repr__(self) -> str:
        return "spft." + super().__repr__()
