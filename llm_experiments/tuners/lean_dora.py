"""DoRA that keeps no more for the backward pass than LoRA does.

DoRA scales the rows of `W0 + c B A` (`c = alpha / r`): `y = s * (W0 + c B A) x + bias` with `s = m / n`, `m` the
trained magnitudes and `n` the norms of the rows, which count as constants. The gradient of `m` needs
`z = (W0 + c B A) x`, an activation as wide as the output, and peft keeps it twice over. Here only `x` and `A x` are
kept, as in LoRA, and `z` is computed again when its gradient is due: one more product with the frozen weight in the
backward pass for two activations less. The numbers that train, their checkpoint and merging are peft's own.

Source: Liu et al., DoRA (arXiv:2402.09353), eq. 5 and section 4.3 (norms as constants).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora.variants import DoraLinearVariant
from torch import Tensor, nn


def lean_dora_config(**settings: Any) -> LoraConfig:
    """A `LoraConfig` of DoRA under which peft builds `LeanDoraLinear` layers."""
    config = LoraConfig(**settings, use_dora=True)
    config._register_custom_module({nn.Linear: LeanDoraLinear})
    return config


class _ScaledLora(torch.autograd.Function):
    """`base + (s - 1) (base - bias) + s c B A x`, with `base = W0 x + bias` and `s = m / n`."""

    @staticmethod
    def forward(ctx, x, base, A, B, magnitude, norm, weight, bias, c):  # type: ignore[no-untyped-def]
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        x = x.to(dtype)
        h = F.linear(x, A.to(dtype))
        s = magnitude / norm
        ctx.save_for_backward(x, h, A, B, magnitude, norm, weight)
        ctx.c = c
        plain = base if bias is None else base - bias
        return base + (s - 1) * plain + s * F.linear(h, B.to(dtype)) * c

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, h, A, B, magnitude, norm, weight = ctx.saved_tensors
        grad_x = grad_base = grad_A = grad_B = grad_magnitude = None
        scaled = grad * (magnitude / norm).to(grad.dtype)
        if ctx.needs_input_grad[4]:
            z = F.linear(x, weight.to(x.dtype)) + ctx.c * F.linear(h, B.to(x.dtype))
            grad_magnitude = (_rows(grad) * _rows(z)).sum(0).to(magnitude.dtype) / norm
        if ctx.needs_input_grad[1]:
            grad_base = scaled
        inner = ctx.c * (scaled.to(x.dtype) @ B.to(x.dtype))
        if ctx.needs_input_grad[0]:
            grad_x = inner @ A.to(x.dtype)
        if ctx.needs_input_grad[2]:
            grad_A = (_rows(inner).T @ _rows(x)).to(A.dtype)
        if ctx.needs_input_grad[3]:
            grad_B = (ctx.c * _rows(scaled).to(x.dtype).T @ _rows(h)).to(B.dtype)
        return grad_x, grad_base, grad_A, grad_B, grad_magnitude, None, None, None, None


def _rows(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1, tensor.shape[-1])


class LeanDoraVariant(DoraLinearVariant):
    """peft's DoRA with a forward pass that keeps less."""

    @staticmethod
    def forward(module: LoraLinear, active_adapter: str, x: Tensor, result: Tensor, **named: Any) -> Tensor:
        """The layer's output under DoRA; peft's own code where dropout acts or adapters add up."""
        dropped = module.training and not isinstance(module.lora_dropout[active_adapter], nn.Identity)
        if dropped or module.lora_bias[active_adapter] or len(module.active_adapters) > 1:
            return DoraLinearVariant.forward(module, active_adapter, x, result, **named)
        A, B = module.lora_A[active_adapter].weight, module.lora_B[active_adapter].weight
        base, c = module.get_base_layer(), module.scaling[active_adapter]
        magnitudes = module.lora_magnitude_vector[active_adapter]
        with torch.no_grad():
            weight = base.weight.to(x.dtype)
            norm = magnitudes.get_weight_norm(
                weight=weight, lora_weight=(B @ A).to(x.dtype), scaling=c, adapter_name=active_adapter
            )
        return _ScaledLora.apply(x, result, A, B, magnitudes.weight, norm, base.weight, base.bias, c)


class LeanDoraLinear(LoraLinear):
    """peft's LoRA layer whose DoRA is the lean one."""

    @property
    def lora_variants(self) -> dict[tuple[str, ...], Any]:
        """The table of variants, DoRA exchanged."""
        return {**super().lora_variants, ("use_dora",): LeanDoraVariant}
