"""The decoders that are measured: random Llama shapes by name, or weights from a folder or a GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llm_experiments.errors import UserError

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": 96,
    },
    "anchor": {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "intermediate_size": 1376,
        "vocab_size": 4096,
    },
    "1b": {
        "hidden_size": 2048,
        "num_hidden_layers": 18,
        "num_attention_heads": 16,
        "intermediate_size": 5504,
        "vocab_size": 32000,
    },
}


@dataclass(frozen=True)
class Source:
    """A model that can be built again and again, the same every time.

    Attributes:
        name: short name for records, never a path.
        label: how reports name it.
        build: makes the model on the processor, in evaluation mode.
        provenance: where the weights come from, for the record.
    """

    name: str
    label: str
    build: Callable[[], nn.Module]
    provenance: dict[str, Any]


def source(name: str, dtype: torch.dtype, seed: int = 0) -> Source:
    """The model of that name.

    Args:
        name: a key of `SHAPES` (random weights), a decoder of the model registry, a transformers folder, or a
            GGUF file.
        dtype: of the weights.
        seed: of random weights.

    Raises:
        UserError: unknown, not prepared, or no decoder of the Llama family.
    """
    kind = str(dtype).removeprefix("torch.")
    if name in SHAPES:
        return Source(
            name,
            f"random Llama shape {name}",
            lambda: _random(SHAPES[name], dtype, seed),
            {"source": "random weights", "weights_seed": seed, "dtype": kind, **SHAPES[name]},
        )
    from llm_experiments import models
    from llm_experiments.tuners.architectures import structures

    try:
        loaded = models.load(name, seed=seed, dtype=kind)
    except models.ModelError as error:
        msg = f"{error} (or a random shape: {', '.join(SHAPES)})"
        raise UserError(msg) from error
    inner = getattr(loaded.model, "model", None)
    if loaded.kind != "decoder" or not hasattr(inner, "embed_tokens") or not structures(loaded.model):
        msg = f"model must be a decoder of the Llama family; got {loaded.label}"
        raise UserError(msg)
    short = name if name in models.MODELS else loaded.label.split(",")[0].replace(" ", "_")
    return Source(
        short,
        loaded.label,
        lambda: models.load(name, seed=seed, dtype=kind).model.eval(),
        dict(loaded.provenance),
    )


def _random(shape: dict[str, int], dtype: torch.dtype, seed: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **shape,
        num_key_value_heads=shape["num_attention_heads"],
        max_position_embeddings=8192,
        use_cache=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).to(dtype).eval()
