"""Methods that peft has: variants of LoRA, scaling vectors, prefixes; each with its own formula for a budget."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, PrefixTuningConfig, TaskType, VeraConfig
from peft.optimizers import create_loraplus_optimizer
from peft.tuners.adalora import AdaLoraLayer
from peft.tuners.lora import LoraLayer
from peft.utils.warning import PeftWarning
from torch import Tensor, nn

from llm_experiments.recipes.base import Method, PeftTuned, Request, Tuned, with_peft
from llm_experiments.recipes.lora import lora_settings
from llm_experiments.schedules import Schedule
from llm_experiments.tuners.architectures import block_of, blocks, kinds, layers_named
from llm_experiments.tuners.lean_dora import lean_dora_config

# -- LoRA+ --------------------------------------------------------------------------------------------


class LoraPlusTuned(PeftTuned):
    """LoRA whose `B` learns `ratio` times as fast as `A`."""

    def __init__(self, *arguments: Any, ratio: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.ratio = ratio

    def optimizer(self, lr: float, weight_decay: float = 0.0, **settings: Any) -> torch.optim.Optimizer:
        """The LoRA+ optimizer of peft over AdamW; `lr` is the rate of `A`."""
        return create_loraplus_optimizer(
            self.model,
            torch.optim.AdamW,
            lr=lr,
            loraplus_lr_ratio=self.ratio,
            loraplus_weight_decay=weight_decay,
            weight_decay=weight_decay,
            **settings,
        )


def lora_plus(model: nn.Module, request: Request) -> Tuned:
    """LoRA with `lr_B = ratio lr_A`; option `ratio` (16, the largest that its paper recommends)."""
    request.options = dict(request.options)
    ratio = request.options.pop("ratio", 16.0)
    if ratio < 1:
        msg = f"ratio must be at least 1, B learns faster than A; got {ratio}"
        raise ValueError(msg)
    settings, formula = lora_settings(model, request)
    config = LoraConfig(**settings)
    return with_peft(
        model, config, formula, request.seed, settings | {"ratio": ratio}, tuned=LoraPlusTuned, ratio=ratio
    )


# -- variants that are a flag of LoRA -----------------------------------------------------------------


def dora(model: nn.Module, request: Request) -> Tuned:
    """Direction by LoRA, magnitude of every output row trained besides: `r (m + n) + n` per layer.

    With the option `lean` the same numbers train in LoRA's memory, at the price of one more product with the frozen
    weight in the backward pass (`tuners/lean_dora.py`).
    """
    request.options = dict(request.options)
    lean = request.options.pop("lean", False)
    settings, formula = lora_settings(model, request, fixed=lambda m: m.out_features)
    config = lean_dora_config(**settings) if lean else LoraConfig(**settings, use_dora=True)
    return with_peft(model, config, formula, request.seed, settings | {"use_dora": True, "lean": lean})


def rslora(model: nn.Module, request: Request) -> Tuned:
    """LoRA with the scale `alpha / sqrt(r)`; `alpha = 8`, so that the scale at r = 16 is LoRA's 2."""
    settings, formula = lora_settings(model, request, use_rslora=True)
    alpha = request.options.get("lora_alpha", 8.0)
    settings |= {"lora_alpha": alpha, "alpha_pattern": dict.fromkeys(settings["rank_pattern"], alpha)}
    return with_peft(model, LoraConfig(**settings), formula, request.seed, settings)


def pissa(model: nn.Module, request: Request) -> Tuned:
    """LoRA that starts from the top singular triples; the frozen weight is the rest, scale 1."""
    request.options = {"scale": 1.0, **request.options}
    settings, formula = lora_settings(model, request, init_lora_weights="pissa")
    return with_peft(model, LoraConfig(**settings), formula, request.seed, settings)


# -- A frozen -----------------------------------------------------------------------------------------


def lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    """The LoRA layers of peft by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer)}


def freeze_A(model: nn.Module, std: float, seed: int) -> None:
    """Draws every `A` from N(0, std^2) and freezes it, also against peft's own switching of flags."""
    generator = torch.Generator().manual_seed(seed)
    for layer in lora_layers(model).values():
        A = layer.lora_A["default"].weight
        with torch.no_grad():
            A.copy_(torch.randn(A.shape, generator=generator) * std)
        A.requires_grad_(False)
        layer.frozen_peft_weight_names = {"default": ("lora_A",)}


def asym_lora(model: nn.Module, request: Request) -> Tuned:
    """`A` Gaussian and frozen, only `B` trains: `r n` per layer; option `std` of `A` (0.02)."""
    request.options = dict(request.options)
    std = request.options.pop("std", 0.02)
    settings, formula = lora_settings(model, request, cost="r n")
    tuned = with_peft(model, LoraConfig(**settings), formula, request.seed, settings | {"std": std})
    freeze_A(tuned.model, std, request.seed)
    return tuned


# -- AdaLoRA ------------------------------------------------------------------------------------------


def adalora_layers(model: nn.Module) -> list[AdaLoraLayer]:
    """The AdaLoRA layers of peft."""
    return [m for m in model.modules() if isinstance(m, AdaLoraLayer)]


class AdaLoraSchedule(Schedule):
    """Lets peft's allocator see the gradients of every step and prune ranks towards the target."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def on_step_end(self, step: int, optimizer: torch.optim.Optimizer) -> bool:
        """Updates importances from the gradients, which must not be cleared yet, and prunes."""
        if step >= self.model.peft_config["default"].total_step:
            return False
        self.model.base_model.update_and_allocate(step)
        return True

    def state_dict(self) -> dict[str, Any]:
        """The allocator's running importances and the ranks so far."""
        allocator = self.model.base_model.rankallocator
        return {
            "importance": [dict(getattr(allocator, name)) for name in self._NAMES],
            "rank_pattern": self.model.peft_config["default"].rank_pattern,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` gave."""
        allocator = self.model.base_model.rankallocator
        for name, values in zip(self._NAMES, state["importance"], strict=True):
            setattr(allocator, name, dict(values))
        self.model.peft_config["default"].rank_pattern = state["rank_pattern"]

    _NAMES = ("ipt", "exp_avg_ipt", "exp_avg_unc")


class AdaLoraTuned(PeftTuned):
    """AdaLoRA; a checkpoint keeps pruned ranks too, which peft's own format leaves out."""

    def penalty(self) -> Tensor:
        """`gamma` times the mean over all factors of `|A A' - I|_F`, or `|B' B - I|_F`.

        peft adds the same in `AdaLoraModel.forward`, which is passed by where a trainer has a loss of its own, and
        also where the `PeftModel` around it was made without a task type.

        Source: Zhang et al., AdaLoRA (arXiv:2303.10512), eq. 4, without the square, as in peft.
        """
        gaps = []
        for layer in adalora_layers(self.model):
            for P in (layer.lora_A["default"], layer.lora_B["default"].T):
                gaps.append(torch.linalg.norm(P @ P.T - torch.eye(len(P), dtype=P.dtype, device=P.device)))
        return self.model.peft_config["default"].orth_reg_weight * torch.stack(gaps).mean()

    def state(self) -> dict[str, Tensor]:
        """All trainable tensors at full size."""
        return Tuned.state(self)

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        Tuned.load_state(self, tensors)

    def save(self, path: Any) -> None:
        """Writes peft's own folder, with final ranks."""
        with warnings.catch_warnings():
            # A layer that lost all its ranks is no sign of a broken save.
            warnings.filterwarnings("ignore", ".*have invalid shape.*", PeftWarning)
            super().save(path)

    def load(self, path: Any) -> None:
        """Not offered: a saved AdaLoRA has its final ranks and loads by `PeftModel.from_pretrained`."""
        msg = "a saved AdaLoRA has its final ranks; load it with PeftModel.from_pretrained(model, path)"
        raise ValueError(msg)


def adalora(model: nn.Module, request: Request) -> Tuned:
    """SVD-shaped LoRA whose ranks shrink from `init_r` (the budget) to two thirds of it on average.

    Options: those of `AdaLoraConfig`; `total_step` is the number of training steps unless given (120 where
    nobody says how many there will be).
    """
    layers = [layer for members in kinds(model).values() for layer in members]
    per_rank = sum(m.in_features + m.out_features + 1 for m in layers)
    options = dict(request.options)
    init_r = options.pop("init_r", request.budget // per_rank)
    if init_r < 2 and "init_r" not in request.options:
        msg = (
            f"the budget must be at least {2 * per_rank}, two ranks of every linear layer, of which one may be "
            f"pruned; got {request.budget}"
        )
        raise ValueError(msg)
    target_r = options.pop("target_r", max(1, 2 * init_r // 3))
    if not 1 <= target_r < init_r:
        msg = f"ranks are pruned from init_r to target_r, 1 <= target_r < init_r; got {target_r} and {init_r}"
        raise ValueError(msg)
    total = options.get("total_step", max(request.steps or 120, 2))
    settings = {
        "init_r": init_r,
        "target_r": target_r,
        "lora_alpha": 2 * init_r,
        "total_step": total,
        "tinit": total // 10,
        "tfinal": max(1, total // 4),
        "target_modules": layers_named(*kinds(model)),
        **options,
    }
    config = AdaLoraConfig(**settings)
    tuned = with_peft(model, config, init_r * per_rank, request.seed, settings, tuned=AdaLoraTuned)
    for layer in adalora_layers(tuned.model):
        layer.ranknum["default"].requires_grad_(False)  # in half precision peft leaves this count trainable
    tuned.schedule = AdaLoraSchedule(tuned.model)
    return tuned


# -- vectors ------------------------------------------------------------------------------------------


# The largest rank that a budget gives VeRA. A rank costs one number a layer to train, but m + n frozen ones and as
# many multiplications a token; beyond a few hundred that is more than the pretrained layer itself.
VERA_RANK = 256


def vera(model: nn.Module, request: Request) -> Tuned:
    """Two vectors per layer scale frozen random factors that all layers share: `n + r` per layer.

    A budget gives ranks up to `VERA_RANK`; the option `r` goes beyond.
    """
    layers = [layer for members in kinds(model).values() for layer in members]
    outputs = sum(m.out_features for m in layers)
    options = dict(request.options)
    affordable = (request.budget - outputs) // len(layers)
    rank = options.pop("r", min(affordable, VERA_RANK))
    if rank < 1:
        least = outputs + len(layers)
        msg = f"the budget must be at least {least}, one rank and the outputs of every layer; got {request.budget}"
        raise ValueError(msg)
    settings = {
        "r": rank,
        "target_modules": layers_named(*kinds(model)),
        "projection_prng_key": request.seed,
        **options,
    }
    tuned = with_peft(model, VeraConfig(**settings), outputs + rank * len(layers), request.seed, settings)
    if rank == VERA_RANK < affordable:
        tuned.note = (
            f"the budget of {request.budget:,} would allow rank {affordable}; VeRA stops at {VERA_RANK}, beyond "
            f"which its frozen factors cost more than it trains (option r goes further)"
        )
    return tuned


def ia3(model: nn.Module, request: Request) -> Tuned:
    """A vector scales keys, values and the channels that enter the down projection."""
    block = block_of(model)
    layers = kinds(model)
    down = layers_named(block.down)
    settings = {
        "target_modules": layers_named(block.key, block.value, block.down),
        "feedforward_modules": down,
        **request.options,
    }
    formula = sum(m.out_features for name in (block.key, block.value) for m in layers[name])
    formula += sum(m.in_features for m in layers[block.down])
    return with_peft(model, IA3Config(**settings), formula, request.seed, settings)


# -- prefix -------------------------------------------------------------------------------------------


def prefix(model: nn.Module, request: Request) -> Tuned:
    """Trained keys and values stand before every layer's own: `2 L k d_kv` for `k` virtual tokens."""
    config = model.config
    if not hasattr(model, "generate") or config.model_type not in ("llama", "mistral", "qwen2", "qwen3"):
        msg = f"prefixes go in as cached keys and values, which {type(model).__name__} does not take; use a decoder"
        raise ValueError(msg)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token = 2 * len(blocks(model)) * config.num_key_value_heads * head_dim
    options = dict(request.options)
    tokens = options.pop("num_virtual_tokens", request.budget // per_token)
    if tokens < 1:
        msg = f"the budget must be at least {per_token}, one virtual token; got {request.budget}"
        raise ValueError(msg)
    settings = {"num_virtual_tokens": tokens, "task_type": TaskType.CAUSAL_LM, **options}
    return with_peft(model, PrefixTuningConfig(**settings), tokens * per_token, request.seed, settings)


_LORA_MODULES = "all linear layers of the blocks"

METHODS = (
    Method(
        name="lora_plus",
        recipe=lora_plus,
        trains=f"B and A on {_LORA_MODULES}",
        source="Hayou et al., LoRA+ (arXiv:2402.12354), peft's optimizer",
        claims=("s2ft/width_stability",),
        optimizer="AdamW with lr_B = 16 lr_A",
    ),
    Method(
        name="dora",
        recipe=dora,
        trains=f"B, A and the magnitudes of the rows on {_LORA_MODULES}",
        source="Liu et al., DoRA (arXiv:2402.09353), in peft",
    ),
    Method(
        name="rslora",
        recipe=rslora,
        trains=f"B and A with scale alpha/sqrt(r) on {_LORA_MODULES}",
        source="Kalajdzievski, rsLoRA (arXiv:2312.03732), in peft",
    ),
    Method(
        name="pissa",
        recipe=pissa,
        trains=f"B and A from the top singular triples on {_LORA_MODULES}",
        source="Meng et al., PiSSA (arXiv:2404.02948), in peft",
    ),
    Method(
        name="asym_lora",
        recipe=asym_lora,
        trains=f"B of (alpha/r) B A, A Gaussian and frozen, on {_LORA_MODULES}",
        source="LoRA past, present and future, eq. 8",
        claims=("lora_variants/thm_2_frozen",),
    ),
    Method(
        name="adalora",
        recipe=adalora,
        trains=f"P, diag and Q of an SVD-shaped update on {_LORA_MODULES}",
        source="Zhang et al., AdaLoRA (arXiv:2303.10512), in peft",
        optimizer="AdamW, with a penalty on factors that are not orthogonal",
        schedule="ranks pruned by importance after every step",
    ),
    Method(
        name="vera",
        recipe=vera,
        trains=f"two scaling vectors per layer around shared random factors on {_LORA_MODULES}",
        source="Kopiczko et al., VeRA (arXiv:2310.11454), in peft",
    ),
    Method(
        name="ia3",
        recipe=ia3,
        trains="scales of keys, values and feed-forward channels",
        source="Liu et al., IA3 (arXiv:2205.05638), in peft",
        uses_budget=False,
    ),
    Method(
        name="prefix",
        recipe=prefix,
        trains="virtual keys and values before every layer's own",
        source="Li and Liang, prefix-tuning (arXiv:2101.00190), in peft",
        mergeable="virtual tokens lengthen the attention; no weight has room for them",
    ),
)
