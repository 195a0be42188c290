"""Base-model code that keeps less for the backward pass: norms, SwiGLU, the loss.

Nothing here knows of a method. The replacements go into the pretrained model before any method does, so that
every arm of a comparison runs them or none does.

What a Llama block keeps with transformers' code and with this one, per token, when its weights are frozen
(d = width, f = feed-forward channels):

| part | transformers | here |
|---|---|---|
| SwiGLU | gate, silu(gate), up: 3 f | gate, up: 2 f |
| norm | input, and its reciprocal root mean square: d + 1 | the same, in one pass forward and one backward |
| loss | log-probabilities: one number per token and vocabulary entry | the gradient of the last state: d |
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK = 128  # tokens whose logits exist at a time in the chunked loss


class _RmsNorm(torch.autograd.Function):
    """`w x / sqrt(mean(x^2) + eps)` that keeps `x` and one number per token."""

    @staticmethod
    def forward(ctx, x, weight, eps):  # type: ignore[no-untyped-def]
        wide = x.float()
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        scale = scale.add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).to(x.dtype).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, weight, scale = ctx.saved_tensors
        grad_x = grad_weight = None
        wide = x.float()
        if ctx.needs_input_grad[1]:
            normed = (wide * scale).to(x.dtype)
            grad_weight = (grad * normed).reshape(-1, x.shape[-1]).sum(0)
        if ctx.needs_input_grad[0]:
            # With u = w grad: grad_x = scale u - scale^3 mean(u x) x.
            u = (grad * weight).float()
            shift = torch.linalg.vecdot(u, wide).unsqueeze(-1).mul_(scale.pow(3)).div_(x.shape[-1])
            grad_x = u.mul_(scale).addcmul_(wide, shift, value=-1).to(x.dtype)
        return grad_x, grad_weight, None


class LeanNorm(nn.Module):
    """Root-mean-square norm with the parameters of the one that it replaces."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        """`w x / sqrt(mean(x^2) + eps)` over the last axis; the root is taken in float32."""
        return _RmsNorm.apply(x, self.weight, self.eps)


class _SwiGlu(torch.autograd.Function):
    """`silu(gate) up` that keeps its two inputs and computes the sigmoid again."""

    @staticmethod
    def forward(ctx, gate, up):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        gate, up = ctx.saved_tensors
        grad_up = F.silu(gate).mul_(grad)
        grad_gate = torch.ops.aten.silu_backward(grad * up, gate)
        return grad_gate, grad_up


class LeanMlp(nn.Module):
    """Llama's feed-forward block under the same names, so that methods find its linear layers."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj

    def forward(self, x: Tensor) -> Tensor:
        """`down(silu(gate(x)) up(x))`."""
        return self.down_proj(_SwiGlu.apply(self.gate_proj(x), self.up_proj(x)))


class _ChunkedLoss(torch.autograd.Function):
    """Mean cross-entropy whose gradients are computed with the loss, chunk by chunk.

    A loss is the end of the graph, so its gradient is known in the forward pass up to one factor; logits never
    outlive their chunk.
    """

    @staticmethod
    def forward(ctx, states, weight, labels):  # type: ignore[no-untyped-def]
        count = (labels != -100).sum()
        grad_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        total = states.new_zeros((), dtype=torch.float32)
        for begin in range(0, len(states), CHUNK):
            part, target = states[begin : begin + CHUNK], labels[begin : begin + CHUNK]
            log_probs = (part @ weight.T).float().log_softmax(-1)
            total += F.nll_loss(log_probs, target, reduction="sum")
            if grad_states is None and grad_weight is None:
                continue
            kept = (target != -100).unsqueeze(1)
            grad = log_probs.exp_().scatter_add_(
                1, target.clamp(min=0).unsqueeze(1), torch.full_like(kept, -1, dtype=torch.float32)
            )
            grad = grad.mul_(kept / count).to(part.dtype)
            if grad_states is not None:
                torch.mm(grad, weight, out=grad_states[begin : begin + CHUNK])
            if grad_weight is not None:
                # not addmm_, which torch's counter of operations does not know
                torch.addmm(grad_weight, grad.T, part, out=grad_weight)
        ctx.save_for_backward(grad_states, grad_weight)
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return *(None if g is None else g * grad.to(g.dtype) for g in ctx.saved_tensors), None


def chunked_loss(states: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Mean next-token cross-entropy in nats, logits computed `CHUNK` tokens at a time.

    Args:
        states: last hidden states (tokens x width).
        weight: of the language-model head (vocabulary x width).
        labels: token ids (tokens); -100 does not count.
    """
    return _ChunkedLoss.apply(states, weight, labels)


def make_lean(model: nn.Module) -> int:
    """Replaces the norms and feed-forward blocks of a Llama model in place; returns how many.

    The network computes the same function to rounding. To be done before a method is applied.
    """
    changed = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "LlamaRMSNorm":
                setattr(parent, name, LeanNorm(child))
            elif type(child).__name__ == "LlamaMLP" and isinstance(child.act_fn, nn.SiLU | _silu()):
                setattr(parent, name, LeanMlp(child))
            else:
                continue
            changed += 1
    return changed


def _silu() -> type[nn.Module]:
    """Transformers' own class for the activation, where it has one."""
    from transformers.activations import ACT2FN

    return type(ACT2FN["silu"])
