"""The plain weights that a model in the middle of its training is equivalent to.

Every mergeable method, whatever it trains (factors, slices, single entries, magnitudes, chains of merged links),
computes what a plain model with other weights computes. A copy of the tuned model is merged and its matrices are
read; the model in training is not touched, so its next step is the same bit for bit.

Matrices are those of the linear layers in the blocks that can be tuned: with cached lower layers, of the layers
above them. Names are those of the base model, channels stand in the base model's order.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from llm_experiments import models
from llm_experiments.lower import layers_of
from llm_experiments.recipes.base import MethodError, Tuned
from llm_experiments.train import Run
from llm_experiments.tuners.architectures import structures

Weights = dict[str, Tensor]


def matrix_names(model: nn.Module, lower: int = 0) -> list[str]:
    """Names of the block matrices of a plain model, lowest block first.

    Args:
        model: of an architecture in the table; skipped layers hold no matrices and are passed over.
        lower: how many of the lowest blocks to leave out besides.
    """
    frozen = {id(module) for block in layers_of(model)[:lower] for module in block.modules()}
    found: dict[str, None] = {}
    for structure in structures(model):
        for name in (*structure.incoming, structure.outgoing):
            if id(model.get_submodule(name)) not in frozen:
                found[f"{name}.weight"] = None
    return list(found)


def matrices(model: nn.Module, lower: int = 0) -> Weights:
    """Copies of the block matrices of a plain model: name -> d_out x d_in, float32, on the CPU."""
    return {
        name: model.get_parameter(name).detach().float().cpu().clone() for name in matrix_names(model, lower)
    }


def plain_copy(tuned: Tuned) -> nn.Module:
    """A plain model with the current change in its weights; `tuned` stays as it is.

    Raises:
        MethodError: the method has no plain model; the message says why.
    """
    if tuned.mergeable is not True:
        message = f"{tuned.method.name} has no plain weights: {tuned.mergeable}"
        raise MethodError(message)
    twin = copy.copy(tuned)
    twin.model = copy.deepcopy(tuned.model)
    return twin.merge()


def plain_model(run: Run) -> nn.Module:
    """`plain_copy` of a run's model; of the base model if the method is not yet on it.

    With cached lower layers it takes hidden states, as the run's own model does.

    Raises:
        MethodError: the method has no plain model; the message says why.
    """
    return copy.deepcopy(run.loaded.model) if run.tuned is None else plain_copy(run.tuned)


def effective_weights(run: Run) -> Weights:
    """The matrices that the run's model is equivalent to now: name -> d_out x d_in, float32.

    Other parameters (biases, norms, embeddings, the head) may have been trained too; they are not among these.

    Raises:
        MethodError: the method has no plain weights; the message says why.
    """
    lower = run.settings.cached_lower if run.tuned is None else 0
    return matrices(plain_model(run), lower)


def base_model(run: Run) -> nn.Module:
    """The pretrained model of a run, loaded again: methods change it in place, and chains for good."""
    dtype = "bfloat16" if run.settings.precision == "bf16" else "float32"
    return models.load(run.settings.model, seed=run.settings.seed, dtype=dtype).model.to(run.device).eval()


def base_weights(run: Run) -> Weights:
    """The pretrained matrices under the same names as `effective_weights`, at any time of the run."""
    return matrices(base_model(run), run.settings.cached_lower)
