"""Adapters taken out of a model, and many of them served in one batch.

The weight change of a slice is an adapter `U V'`: `U` the chosen columns of the identity, `V` the change of
the slice. Taken out as ordinary LoRA factors it loads anywhere; served in parallel, every example of a batch
adds its own `V` on its own channels to the one product with `W0` that all share.

Source: S2FT (arXiv:2412.06289), Section 6.2 (fusion, switch and parallelism of adapters).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn

from llm_experiments.tuners.architectures import structures
from llm_experiments.tuners.cla.layer import ClaLayer
from llm_experiments.tuners.permutation import channel_index
from llm_experiments.tuners.slices import COLUMNS, SliceLayer

BASE = "__base__"


def lora_factors(layer: SliceLayer, adapter_name: str, channels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`A` (s x d_in) and `B` (d_out x s) with `B A` the slice's weight change, one factor an identity slice.

    Args:
        layer: a layer with a slice of rows or columns.
        adapter_name: the adapter.
        channels: the channels of the slice in the numbering that the factors shall have.
    """
    change = layer.change(adapter_name).detach()
    size = layer.in_features if layer.slices[adapter_name].axis == COLUMNS else layer.out_features
    selector = torch.zeros(size, len(channels), dtype=change.dtype, device=change.device)
    selector[torch.tensor(channels), torch.arange(len(channels))] = 1.0
    if layer.slices[adapter_name].axis == COLUMNS:
        return selector.T.contiguous(), change
    return change, selector


def export_as_lora(model: PeftModel, folder: str | Path, adapter_name: str = "default") -> None:
    """Writes an S2FT or cLA adapter as an ordinary LoRA for the pretrained model in its own channel order.

    Loading it with `PeftModel.from_pretrained` gives the adapter's outputs up to rounding of the products.

    Raises:
        ValueError: the adapter is of another kind, or a chain of several links.
    """
    tensors, ranks = {}, {}
    for name, layer in model.named_modules():
        if not isinstance(layer, SliceLayer) or adapter_name not in layer.values:
            continue
        where = layer.slices[adapter_name]
        if not hasattr(where, "positions"):
            msg = f"single entries of {layer.layer_name} are no low-rank change; merge the adapter instead"
            raise ValueError(msg)
        if isinstance(layer, ClaLayer) and adapter_name in layer.trace_columns:
            msg = f"{layer.layer_name} keeps columns of finished links; merge the chain instead"
            raise ValueError(msg)
        channels = _original_channels(model, layer, adapter_name)
        A, B = lora_factors(layer, adapter_name, channels)
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = A.clone(), B.clone()
        ranks[layer.layer_name] = len(channels)
    if not ranks:
        msg = f"there is no slice of an adapter {adapter_name!r} in the model"
        raise ValueError(msg)
    config = LoraConfig(
        r=min(ranks.values()),
        lora_alpha=min(ranks.values()),
        rank_pattern={rf"^{name}$": rank for name, rank in ranks.items()},
        alpha_pattern={rf"^{name}$": rank for name, rank in ranks.items()},
        target_modules=sorted(ranks),
        inference_mode=True,
    )
    Path(folder).mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    save_file(
        {n: t.cpu().contiguous() for n, t in tensors.items()}, Path(folder) / "adapter_model.safetensors"
    )


def _original_channels(model: PeftModel, layer: SliceLayer, adapter_name: str) -> list[int]:
    """The slice's channels in the pretrained numbering, in the order in which the slice stores them."""
    positions = list(layer.slices[adapter_name].positions)
    orders = getattr(model.base_model, "orders", {})
    for structure in structures(model.get_base_model()):
        order = orders.get(structure.name)
        if order is None or layer.layer_name not in (*structure.incoming, structure.outgoing):
            continue
        if structure.shares_key_values(layer.layer_name):
            order = [order[i] // structure.group for i in range(0, structure.count, structure.group)]
        original = channel_index(order, structure.width)
        return [original[p] for p in positions]
    return positions


@contextmanager
def serving(model: nn.Module, adapter_names: Sequence[str]) -> Iterator[None]:
    """Within the block, example `i` of every batch is answered by the adapter `adapter_names[i]`.

    `__base__` stands for the pretrained model. For inference; the model must not be merged.

    Raises:
        ValueError: an adapter is unknown, has finished links of a chain, or the model is merged.
    """
    layers = [m for m in model.modules() if isinstance(m, SliceLayer)]
    known = {BASE, *(name for layer in layers for name in layer.values)}
    unknown = sorted(set(adapter_names) - known)
    if unknown:
        msg = f"adapters to serve must be among {sorted(known)}; got {unknown}"
        raise ValueError(msg)
    if any(layer.merged for layer in layers):
        msg = "adapters are served beside the pretrained weights; unmerge the model first"
        raise ValueError(msg)
    for layer in layers:
        if isinstance(layer, ClaLayer) and layer.trace_columns.keys() & set(adapter_names):
            msg = f"{layer.layer_name} keeps columns of finished links, which many adapters cannot share"
            raise ValueError(msg)
    handles = []
    for layer in layers:
        layer.lift()
        handles.append(layer.base_layer.register_forward_hook(_Parallel(layer, adapter_names)))
        layer._disable_adapters, layer.was_disabled = True, layer._disable_adapters
    try:
        with torch.no_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers:
            layer._disable_adapters = layer.was_disabled
            del layer.was_disabled
            layer.place()


class _Parallel:
    """Adds to a layer's output every example's own change: one gathered, batched product for all."""

    def __init__(self, layer: SliceLayer, adapter_names: Sequence[str]) -> None:
        names = [name if name in layer.values else None for name in adapter_names]
        present = sorted({name for name in names if name})
        self.count = len(names)
        self.groups = []
        for axis in (0, 1):
            members = [name for name in present if layer.slices[name].axis == axis]
            if not members:
                continue
            width = max(len(layer.slices[name]) for name in members)
            rows = [i for i, name in enumerate(names) if name in members]
            changes, indices = [], []
            for i in rows:
                change = layer.change(names[i]).detach()
                fill = width - len(layer.slices[names[i]])
                pad = (0, fill) if axis == COLUMNS else (0, 0, 0, fill)
                changes.append(nn.functional.pad(change, pad))  # zeros: they add nothing wherever they point
                indices.append(nn.functional.pad(layer.positions[names[i]], (0, fill)))
            device = layer.base_layer.weight.device
            self.groups.append(
                (axis, torch.tensor(rows, device=device), torch.stack(changes), torch.stack(indices))
            )

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0]
        if len(x) != self.count:
            msg = f"a batch must have one example per adapter named, {self.count}; got {len(x)}"
            raise ValueError(msg)
        flat, y = x.reshape(len(x), -1, x.shape[-1]), output.reshape(len(x), -1, output.shape[-1]).clone()
        for axis, rows, changes, indices in self.groups:
            own = flat[rows].to(changes.dtype)
            index = indices.unsqueeze(1).expand(-1, own.shape[1], -1)
            if axis == COLUMNS:
                y[rows] += (own.gather(-1, index) @ changes.transpose(1, 2)).to(y.dtype)
            else:
                y[rows] = y[rows].scatter_add(-1, index, (own @ changes.transpose(1, 2)).to(y.dtype))
        return y.reshape(output.shape)
