"""What a method can reach in one stage of training, as a share of what changing all weights gains."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from llm_experiments import methods
from llm_experiments.advise.reach import Layer
from llm_experiments.errors import UserError
from llm_experiments.methods import Budget, Method, MethodError, Tuned
from llm_experiments.tuners.cla.layer import ClaLayer
from llm_experiments.tuners.s2ft.layer import S2FTLayer
from llm_experiments.tuners.slices import COLUMNS

NAME = "default"  # of the adapter

# Claims that prove what the image of a kind of method gains; the other two are a projection and the whole space.
BEHIND = {
    "all weights": (),
    "rank": ("peft_vs_fft/thm_3_critical_rank", "s2ft/thm_f10_bias"),
    "slices": ("s2ft/thm_f13_bias",),
    "frozen A": (),
}


@dataclass(frozen=True)
class Reach:
    """What one method can gain.

    Attributes:
        share: of what all weights gain on the other half of the sample; None if its image is not of a known kind.
        kinds: keys of `BEHIND`; none if unknown.
        note: what the share leaves out.
    """

    share: float | None
    kinds: tuple[str, ...]
    note: str = ""


def put_on(method: Method, model: nn.Module, budget: Budget, seed: int = 0, **options: object) -> Tuned:
    """A copy of the model under a method.

    Raises:
        MethodError: the model or the budget cannot take the method.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        return method.apply(copy.deepcopy(model), budget, seed, **options)


def reach(method: Method, model: nn.Module, budget: Budget, layers: dict[str, Layer]) -> Reach:
    """The share that a method can reach, from the layers that it would train on this model.

    Raises:
        MethodError: the model or the budget cannot take the method.
    """
    whole = sum(layer.whole for layer in layers.values())
    if method.calibrated:
        return Reach(None, (), "chooses by data")
    # gather: channels keep their order, so that they can be found among the gradients
    options = {"layout": "gather"} if method.name.startswith("s2ft") else {}
    tuned = put_on(method, model, budget, **options)
    network = tuned.model.get_base_model() if hasattr(tuned.model, "get_base_model") else tuned.model
    modules = dict(network.named_modules())
    kinds, gain = set(), 0.0
    for name, layer in layers.items():
        module = modules[name]
        if isinstance(module, (S2FTLayer, ClaLayer)):
            where = module.slices[NAME]
            chosen = where.index(torch.device("cpu"))
            gain += layer.of_columns(chosen) if where.axis == COLUMNS else layer.of_rows(chosen)
            kinds.add("slices")
        elif isinstance(module, LoraLayer) and isinstance(module.lora_A, nn.ModuleDict):
            A = module.lora_A[NAME].weight
            if A.requires_grad:
                gain += float(layer.by_rank(len(A))[-1])
                kinds.add("rank")
            else:
                gain += layer.of_directions(A.detach().double())
                kinds.add("frozen A")
        elif type(module) is nn.Linear and module.weight.requires_grad:
            gain += layer.whole
            kinds.add("all weights")
    if not kinds:
        return Reach(None, (), "its changes are none of columns, rows, a rank or whole weights")
    if whole <= 0:
        return Reach(None, tuple(sorted(kinds)), "the two halves of the sample do not agree on any direction")
    return Reach(gain / whole, tuple(sorted(kinds)), _left_out(method))


def _left_out(method: Method) -> str:
    if method.schedule != "-":
        return "its first stage alone; later ones add to it"
    return {"dora": "without its magnitudes", "galore": "over many steps"}.get(method.name, "")


def known(name: str) -> Method:
    """The method of that name.

    Raises:
        UserError: there is none.
    """
    try:
        return methods.get(name)
    except MethodError as error:
        raise UserError(str(error)) from None
