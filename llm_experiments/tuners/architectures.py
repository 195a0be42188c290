"""Which linear layers of a transformer are coupled: the table that selection and co-permutation read.

Two structures per block carry channels that may be renumbered without changing the network:

* *heads*: the rows of query, key and value and the columns of the output projection, `head_dim` at a time.
  With grouped queries several query heads share one key-value head, so a renumbering has to keep groups
  together; inside a group the query heads may be exchanged freely.
* *channels*: the rows of the layers that lead into the feed-forward activation and the columns of the one
  that leads out.

Source: S2FT (arXiv:2412.06289), Section 3.1 and Figure 3; the residual stream is coupled to every block and
stays as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn


@dataclass(frozen=True)
class Block:
    """Names of the linear layers of one transformer block, relative to the block."""

    query: str
    key: str
    value: str
    output: str
    up: tuple[str, ...]
    down: str


_LLAMA = Block(
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    output="self_attn.o_proj",
    up=("mlp.gate_proj", "mlp.up_proj"),
    down="mlp.down_proj",
)
_BERT = Block(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
    up=("intermediate.dense",),
    down="output.dense",
)

# Keyed by transformers' `model_type`. A model belongs here only if nothing else in the block depends on the
# number of a head or a channel (per-head norms shared by all heads do not; norms over all heads do).
ARCHITECTURES: dict[str, Block] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "bert": _BERT,
    "roberta": _BERT,
}


@dataclass(frozen=True)
class Structure:
    """One set of coupled channels of a model.

    Attributes:
        name: key under which a selection is stored, such as `model.layers.0/heads`.
        kind: `heads`, `channels`, or `inputs` for a linear layer that stands alone.
        count: how many heads or channels there are.
        width: columns of the outgoing layer per head or channel.
        group: query heads per key-value head; 1 where every head has its own.
        incoming: full names of the layers whose rows are coupled (query first, then key and value).
        outgoing: full name of the layer whose columns are coupled.
    """

    name: str
    kind: str
    count: int
    width: int
    group: int
    incoming: tuple[str, ...]
    outgoing: str

    def shares_key_values(self, module_name: str) -> bool:
        """Whether the layer's rows are numbered by key-value head rather than by query head."""
        return self.kind == "heads" and self.group > 1 and module_name in self.incoming[1:]


def linear(model: nn.Module, name: str) -> nn.Linear:
    """The linear layer of that name, looking through a tuner's wrapper."""
    module = model.get_submodule(name)
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def block_of(model: nn.Module) -> Block | None:
    """The table's entry for the model, or None if the model is not in it."""
    return ARCHITECTURES.get(getattr(getattr(model, "config", None), "model_type", ""))


def _has(module: nn.Module, path: str) -> bool:
    try:
        module.get_submodule(path)
    except AttributeError:
        return False
    return True


def structures(model: nn.Module) -> list[Structure]:
    """All coupled structures of a transformer, block by block; empty for a model outside the table."""
    block = block_of(model)
    if block is None:
        return []
    found = []
    for name, module in model.named_modules():
        if not (_has(module, block.output) and _has(module, block.down)):
            continue
        config = model.config
        heads = config.num_attention_heads
        group = heads // (getattr(config, "num_key_value_heads", None) or heads)
        head_dim = linear(module, block.output).in_features // heads
        at = f"{name}." if name else ""
        found.append(
            Structure(
                name=f"{name}/heads",
                kind="heads",
                count=heads,
                width=head_dim,
                group=group,
                incoming=tuple(at + layer for layer in (block.query, block.key, block.value)),
                outgoing=at + block.output,
            )
        )
        found.append(
            Structure(
                name=f"{name}/channels",
                kind="channels",
                count=linear(module, block.down).in_features,
                width=1,
                group=1,
                incoming=tuple(at + layer for layer in block.up),
                outgoing=at + block.down,
            )
        )
    return found


def block_linears(model: nn.Module) -> str:
    """A pattern, for `target_modules`, of all coupled linear layers in the blocks of a model in the table.

    Raises:
        ValueError: the model is not in the table.
    """
    block = block_of(model)
    if block is None:
        msg = f"target_modules must be given for models other than {', '.join(ARCHITECTURES)}"
        raise ValueError(msg)
    return layers_named(block.query, block.key, block.value, block.output, *block.up, block.down)


def layers_named(*names: str) -> str:
    """A pattern of the linear layers with these names in every block (`.. .<number>.<name>`)."""
    return rf"(.*\.)?\d+\.({'|'.join(re.escape(name) for name in names)})"


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The transformer blocks of a model in the table that carry tunable layers, by name, lowest first."""
    named = dict(model.named_modules())
    return {s.name.partition("/")[0]: named[s.name.partition("/")[0]] for s in structures(model)}


def kinds(model: nn.Module) -> dict[str, list[nn.Linear]]:
    """The coupled linear layers of all blocks, gathered by their name within the block."""
    block = block_of(model)
    if block is None:
        msg = f"the model must be one of {', '.join(ARCHITECTURES)}; got {type(model).__name__}"
        raise ValueError(msg)
    names = (block.output, block.down, block.value, *block.up, block.query, block.key)
    return {name: [linear(part, name) for part in blocks(model).values()] for name in names}
