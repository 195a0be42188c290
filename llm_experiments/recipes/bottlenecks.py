"""Series and parallel adapters, and LoReFT: small networks in the forward pass that no weight can absorb."""

from __future__ import annotations

from functools import partial

from torch import nn

from llm_experiments.recipes.base import Method, Request, Tuned, with_peft
from llm_experiments.tuners import BottleneckConfig, LoreftConfig
from llm_experiments.tuners.architectures import block_of, blocks, kinds
from llm_experiments.tuners.bottleneck.layer import UNMERGEABLE as NO_WEIGHT
from llm_experiments.tuners.loreft.layer import UNMERGEABLE as NO_PLACE


def bottleneck(model: nn.Module, request: Request, form: str) -> Tuned:
    """Per adapter `w (d_in + d_out) + w + d_out` numbers for a bottleneck of width `w`, with biases."""
    layers, block = kinds(model), block_of(model)
    if form == "series":
        shapes = [(m.out_features, m.out_features) for m in (*layers[block.output], *layers[block.down])]
    else:
        pairs = zip(layers[block.up[0]], layers[block.down], strict=True)
        shapes = [(entrance.in_features, exit_.out_features) for entrance, exit_ in pairs]
    per_width = sum(d_in + d_out + 1 for d_in, d_out in shapes)
    biases = sum(d_out for _, d_out in shapes)
    options = dict(request.options)
    width = options.pop("width", (request.budget - biases) // per_width)
    if width < 1:
        least = per_width + biases
        msg = f"the budget must be at least {least}, bottlenecks of width 1; got {request.budget}"
        raise ValueError(msg)
    settings = {"form": form, "width": width, **options}
    return with_peft(model, BottleneckConfig(**settings), width * per_width + biases, request.seed, settings)


def loreft(model: nn.Module, request: Request) -> Tuned:
    """`2 r d + r` numbers per block: `R` and `W` (r x d) and `b` (r)."""
    per_rank = len(blocks(model)) * (2 * model.config.hidden_size + 1)
    options = dict(request.options)
    rank = options.pop("r", min(request.budget // per_rank, model.config.hidden_size))
    if rank < 1:
        msg = f"the budget must be at least {per_rank}, one dimension in every block; got {request.budget}"
        raise ValueError(msg)
    settings = {"r": rank, **options}
    return with_peft(model, LoreftConfig(**settings), rank * per_rank, request.seed, settings)


METHODS = (
    Method(
        name="series_adapter",
        recipe=partial(bottleneck, form="series"),
        trains="bottlenecks after the attention and the feed-forward sublayer of every block",
        source="Houlsby et al. (arXiv:1902.00751); a baseline of S2FT",
        mergeable=NO_WEIGHT,
    ),
    Method(
        name="parallel_adapter",
        recipe=partial(bottleneck, form="parallel"),
        trains="bottlenecks beside the feed-forward sublayer of every block",
        source="He et al. (arXiv:2110.04366); a baseline of S2FT",
        mergeable=NO_WEIGHT,
    ),
    Method(
        name="loreft",
        recipe=loreft,
        trains="an edit of the hidden states in an r-dimensional subspace after every block",
        source="Wu et al., LoReFT (arXiv:2404.03592), on all positions; a baseline of S2FT",
        mergeable=NO_PLACE,
    ),
)
