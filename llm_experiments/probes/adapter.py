"""The weight change of a peft adapter, one matrix at a time, without building the model.

LoRA (with rank-stabilised scaling and per-layer ranks), DoRA, PiSSA, cLA and its chains, SpFT, and S2FT on any
layer of a block are formulas of the stored tensors and of one pretrained matrix. Every other kind is refused with
the way round: merge it and measure the merged folder.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm_experiments.errors import UserError
from llm_experiments.probes.pair import (
    Entry,
    Matrix,
    Pair,
    finite,
    index,
    is_block_matrix,
    read_json,
    weights,
)

_PREFIX = "base_model.model."
# Starts that rewrite the base weight, so that B A alone is not the change.
_REWRITES = ("pissa_niter", "olora", "corda", "loftq", "lora_ga")
_WAY_ROUND = "call merge_and_unload().save_pretrained(FOLDER) and measure FOLDER"


class AdapterPair(Pair):
    """A transformers folder and an adapter for it."""

    kind = "adapter"

    def __init__(self, base: Path, tuned: Path) -> None:
        self.base, self.tuned_folder = base, tuned
        self.config = read_json(base / "config.json")
        self.transposed = self.config.get("model_type") in ("gpt2", "openai-gpt")
        self.settings = read_json(tuned / "adapter_config.json")
        self.before = weights(base)
        file = tuned / "adapter_model.safetensors"
        if not file.is_file():
            message = (
                f"{tuned.name} must hold adapter_model.safetensors; save it with safe_serialization=True"
            )
            raise UserError(message)
        self.stored = index([file])
        self.method = str(self.settings.get("peft_type", "?"))
        if self.method not in _KINDS:
            message = f"{tuned.name}: adapters of type {self.method} have no formula here; {_WAY_ROUND}"
            raise UserError(message)
        suffixes, check, self._change = _KINDS[self.method]
        check(self)
        self.parts: dict[str, dict[str, Entry]] = {}
        self.layers: dict[str, str] = {}  # name of the matrix -> the layer's name in the adapter
        whole: dict[str, Entry] = {}
        for key, entry in self.stored.items():
            plain = key.removeprefix(_PREFIX)
            suffix = next((s for s in suffixes if plain.endswith("." + s)), None)
            if suffix is None:
                whole[plain] = entry
            else:
                layer = plain.removesuffix("." + suffix)
                self.layers[self._known(layer)] = layer
                self.parts.setdefault(self._known(layer), {})[suffix] = entry
        self.elsewhere = sorted(name for name in whole if name in self.before)
        self.alone = sorted(name for name in whole if name not in self.before)
        self.after = {name: whole[name] for name in self.elsewhere}
        self.names = [n for n, e in self.before.items() if is_block_matrix(n, e.shape)]
        self.names = sorted({*self.names} & {*self.parts}, key=self.names.index)
        outside = sorted({*self.parts} - {*self.names})
        if outside:
            message = f"{tuned.name} changes {outside[0]}, which is no matrix of a block; {_WAY_ROUND}"
            raise UserError(message)
        if not self.names:
            message = f"{tuned.name} must change matrices of {base.name}; it holds no {suffixes[0]}"
            raise UserError(message)
        for name in self.names:
            self._change(self, name, None)

    def _known(self, layer: str) -> str:
        """The name of a layer's weight in the base folder, with the prefix of a task model dropped or added."""
        options = [f"{layer}.weight", f"{layer.partition('.')[2]}.weight"]
        options += [f"{name}" for name in self.before if name.endswith(f".{layer}.weight")][:1]
        for name in options:
            if name in self.before:
                return name
        message = f"{self.tuned_folder.name} changes {layer}, which {self.base.name} lacks: it belongs to another model"
        raise UserError(message)

    def part(self, name: str, suffix: str, shape: tuple[int, ...] | None = None) -> Entry:
        """One stored tensor of a layer, its shape checked.

        Raises:
            UserError: it is missing or has another shape.
        """
        entry = self.parts[name].get(suffix)
        if entry is None:
            message = f"{self.tuned_folder.name} must hold {suffix} of {name}; it is missing"
            raise UserError(message)
        if shape is not None and entry.shape != shape:
            expected, got = (" x ".join(map(str, s)) for s in (shape, entry.shape))
            message = f"{suffix} of {name} must be {expected}; got {got}"
            raise UserError(message)
        return entry

    def matrix(self, name: str) -> Matrix:
        """Reads one pretrained matrix and forms the adapter's change of it."""
        W0 = self.before[name].read()
        W0 = W0.T.contiguous() if self.transposed else W0
        return Matrix(name, W0, finite(name, self._change(self, name, W0)), None)


Change = Callable[[AdapterPair, str, Tensor | None], Tensor | None]


def _pattern(settings: dict[str, Any], name: str, layer: str, default: float) -> float:
    """A setting that a pattern may override for some layers, matched as peft does: at the end of the name."""
    for pattern, value in (settings.get(f"{name}_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", layer):
            return value
    return default


def _check_lora(pair: AdapterPair) -> None:
    settings = pair.settings
    start = settings.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_REWRITES):
        message = (
            f"{pair.tuned_folder.name}: init_lora_weights={start!r} also rewrites the base; {_WAY_ROUND}"
        )
        raise UserError(message)
    for name in ("lora_bias", "alora_invocation_tokens", "target_parameters"):
        if settings.get(name):
            message = f"{pair.tuned_folder.name}: LoRA with {name} is more than B A; {_WAY_ROUND}"
            raise UserError(message)


def _lora(pair: AdapterPair, name: str, W0: Tensor | None) -> Tensor | None:
    """`(alpha / r) B A`, or `alpha / sqrt(r)` where the scaling is rank-stabilised; DoRA and PiSSA on top of it."""
    n, m = pair.shape(name)
    A = pair.part(name, "lora_A.weight")
    r = A.shape[0]
    pair.part(name, "lora_A.weight", (r, m))
    B = pair.part(name, "lora_B.weight", (n, r))
    layer, settings = pair.layers[name], pair.settings
    stated = int(_pattern(settings, "rank", layer, settings.get("r", r)))
    if stated != r:
        message = f"rank of {layer} must be the r of adapter_config.json, {stated}; lora_A has {r} rows"
        raise UserError(message)
    magnitude = pair.part(name, "lora_magnitude_vector", (n,)) if settings.get("use_dora") else None
    if W0 is None:
        return None
    alpha = _pattern(settings, "alpha", layer, settings.get("lora_alpha", r))
    scaling = alpha / math.sqrt(r) if settings.get("use_rslora") else alpha / r
    product = scaling * (B.read().float() @ A.read().float())
    W0 = W0.float()
    if settings.get("init_lora_weights") == "pissa":
        # The frozen weight is what the top r singular triples leave of W0.
        U, S, Vh = torch.linalg.svd(W0, full_matrices=False)
        product -= (U[:, :r] * S[:r]) @ Vh[:r]
    if magnitude is None:
        return product
    # The rows of W0 + c B A are brought to the trained magnitudes (DoRA, eq. 5).
    tuned = W0 + product
    return magnitude.read().float()[:, None] * tuned / tuned.norm(dim=1, keepdim=True) - W0


def _no_check(pair: AdapterPair) -> None:
    """Everything that can be wrong shows layer by layer."""


def _cla(pair: AdapterPair, name: str, W0: Tensor | None) -> Tensor | None:
    """A block of columns, with wrap-around: their values, or the factor B; and the columns of finished links."""
    layer, settings, (n, m) = pair.layers[name], pair.settings, pair.shape(name)
    r = settings["r"]
    start = (settings.get("offsets") or {}).get(layer, settings.get("offset", 0))
    suffix = "cla_B" if settings.get("form") == "factor" else "cla_slice"
    entry = pair.part(name, suffix, (n, r))
    visited = torch.tensor((settings.get("visited") or {}).get(layer, []), dtype=torch.long)
    trace = pair.part(name, "cla_trace", (n, len(visited))) if len(visited) else None
    if W0 is None:
        return None
    W = W0.float().clone()
    if trace is not None:
        W[:, visited] = trace.read().float()
    columns = (torch.arange(r) + int(start)) % m
    values = entry.read().float()
    # A factor acts on what earlier links left in its columns.
    W[:, columns] = W[:, columns] + values * (settings.get("alpha") or r) / r if suffix == "cla_B" else values
    return W - W0.float()


def _spft(pair: AdapterPair, name: str, W0: Tensor | None) -> Tensor | None:
    """The values of single entries; which ones follows from seed, ratio and the layer's name."""
    from llm_experiments.tuners.spft.layer import random_entries

    settings, (n, m) = pair.settings, pair.shape(name)
    entries = random_entries((n, m), settings["ratio"], settings["seed"], pair.layers[name])
    values = pair.part(name, "spft_values", (len(entries.numbers),))
    if W0 is None:
        return None
    W = W0.float().clone(memory_format=torch.contiguous_format)
    entries.write(W, values.read().float())
    return W - W0.float()


def _s2ft(pair: AdapterPair, name: str, W0: Tensor | None) -> Tensor | None:
    """The values of the selected heads or channels: columns of an outgoing layer, rows of an incoming one."""
    from llm_experiments.tuners.architectures import ARCHITECTURES

    layer, (n, m) = pair.layers[name], pair.shape(name)
    block = ARCHITECTURES.get(pair.config.get("model_type", ""))
    kinds: dict[str, str] = {}
    if block is not None:
        kinds = dict.fromkeys((block.query, block.key, block.value, block.output), "heads")
        kinds |= dict.fromkeys((*block.up, block.down), "channels")
    # Of BERT's two names that end alike, the longer one is meant.
    ending = max((e for e in kinds if layer.endswith("." + e)), key=len, default=None)
    if ending is None:
        message = f"{pair.tuned_folder.name}: S2FT on {layer} is on no layer of a known block; {_WAY_ROUND}"
        raise UserError(message)
    structure = f"{layer.removesuffix('.' + ending)}/{kinds[ending]}"
    units = (pair.settings.get("selected") or {}).get(structure)
    if units is None:
        message = f"{pair.tuned_folder.name} must say which channels of {structure} it selected; it does not"
        raise UserError(message)
    columns = ending in (block.output, block.down)
    size, width = (m if columns else n), 1
    if kinds[ending] == "heads":
        heads = pair.config["num_attention_heads"]
        if ending in (
            block.key,
            block.value,
        ):  # numbered by key-value head, each shared by a group of queries
            shared = pair.config.get("num_key_value_heads") or heads
            units, heads = list(dict.fromkeys(unit // (heads // shared) for unit in units)), shared
        width = size // heads
    chosen = torch.tensor([unit * width + i for unit in units for i in range(width)])
    entry = pair.part(name, "s2ft_slice", (n, len(chosen)) if columns else (len(chosen), m))
    if int(chosen.max()) >= size:
        message = f"channels of {structure} must lie in 0..{size - 1}; got {int(chosen.max())}"
        raise UserError(message)
    if W0 is None:
        return None
    W = W0.float().clone()
    W.index_copy_(int(columns), chosen, entry.read().float())
    return W - W0.float()


# peft's type: (names of the stored tensors, check of the whole configuration, change of one matrix)
_KINDS: dict[str, tuple[tuple[str, ...], Callable[[AdapterPair], None], Change]] = {
    "LORA": (("lora_A.weight", "lora_B.weight", "lora_magnitude_vector"), _check_lora, _lora),
    "CLA": (("cla_slice", "cla_B", "cla_trace"), _no_check, _cla),
    "SPFT": (("spft_values",), _no_check, _spft),
    "S2FT": (("s2ft_slice",), _no_check, _s2ft),
}
