"""The cLA tuner: wraps every targeted linear layer and moves the blocks of a chain."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from peft.tuners.tuners_utils import (
    BaseTuner,
    BaseTunerLayer,
    _maybe_include_all_linear_layers,
    check_target_module_exists,
)
from torch import nn

from llm_experiments.tuners.architectures import block_linears, linear
from llm_experiments.tuners.cla.config import ClaConfig
from llm_experiments.tuners.cla.layer import ClaFactorLayer, ClaInPlaceLayer, ClaLayer
from llm_experiments.tuners.slices import COLUMNS, Slice, refuse_tied_weights, unplace

LAYERS: dict[str, type[ClaLayer]] = {"in_place": ClaInPlaceLayer, "factor": ClaFactorLayer}


def random_offset(d_in: int, r: int, generator: torch.Generator) -> int:
    """A first column such that each of the `d_in` columns lies in the block with probability `r / d_in`.

    Source: LoRA past, present and future, Algorithm 2, whose printed offset does not have this law.
    """
    if d_in % r == 0:
        return r * int(torch.randint(d_in // r, (), generator=generator))
    return int(torch.randint(d_in, (), generator=generator))


class ClaModel(BaseTuner):
    """A model of whose linear layers a block of `r` input columns trains.

    Made by `peft.get_peft_model(model, ClaConfig(...))`.

    Source: LoRA past, present and future, eq. 5 (cLA) and 6 (c3LA, by `shift_`).
    """

    prefix = "cla_"
    tuner_layer_cls = ClaLayer
    target_module_mapping: dict[str, list[str]] = {}

    def _prepare_adapter_config(self, peft_config: ClaConfig, model_config: dict) -> ClaConfig:
        if peft_config.target_modules is None:
            peft_config.target_modules = block_linears(self.model)
        return peft_config

    def _prepare_model(self, peft_config: ClaConfig, model: nn.Module) -> None:
        _maybe_include_all_linear_layers(peft_config, model)
        names = [n for n, m in model.named_modules() if _is_target(peft_config, n, m)]
        for name in names:
            base = linear(model, name)
            if not isinstance(base, nn.Linear):
                msg = f"target {name} must be a torch.nn.Linear; got {type(base).__name__}"
                raise TypeError(msg)
            if peft_config.r > base.in_features:
                msg = f"r must satisfy 1 <= r <= {base.in_features} (inputs of {name}); got {peft_config.r}"
                raise ValueError(msg)
        if peft_config.form == "in_place":
            refuse_tied_weights(model, names)
        if peft_config.offsets is None:
            generator = torch.Generator().manual_seed(peft_config.seed)
            peft_config.offsets = {
                name: random_offset(linear(model, name).in_features, peft_config.r, generator)
                if peft_config.offset == "random"
                else int(peft_config.offset)
                for name in names
            }
        missing = sorted(set(names) - set(peft_config.offsets))
        if missing:
            msg = f"offsets must name every targeted layer; {', '.join(missing)} is missing"
            raise ValueError(msg)

    def _create_and_replace(
        self,
        peft_config: ClaConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        kind = LAYERS[peft_config.form]
        layer = target
        if not isinstance(target, ClaLayer):
            layer = kind(target, current_key)
            layer.set_adapter(self.active_adapters)
        elif type(target) is not kind:
            msg = f"adapters must share their form; {current_key} has another than {peft_config.form!r}"
            raise ValueError(msg)
        where = Slice.block(COLUMNS, peft_config.offsets[current_key], peft_config.r, layer.in_features)
        visited = peft_config.visited.get(current_key, [])
        layer.add_block(adapter_name, where, visited, peft_config.scaling, peft_config.perturb)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)
            self.__dict__.pop("wrapped_layers", None)

    @cached_property
    def wrapped_layers(self) -> list[ClaLayer]:
        """The layers that carry blocks; walking through all modules would cost more than moving the blocks."""
        return [module for module in self.modules() if isinstance(module, ClaLayer)]

    def shift_(self, adapter_name: str = "default", offsets: Mapping[str, int] | None = None) -> None:
        """Ends a link of the chain in every layer and starts the next one at other columns.

        Args:
            adapter_name: the adapter, which must be the active one.
            offsets: first column by layer; by default `r` further on, wrapping around after the last column.
        """
        config = self.peft_config[adapter_name]
        for layer in self.wrapped_layers:
            if adapter_name in layer.values:
                name = layer.layer_name
                start = (config.offsets[name] + config.r) if offsets is None else offsets[name]
                start %= layer.in_features
                fresh = layer.shift_(adapter_name, Slice.block(COLUMNS, start, config.r, layer.in_features))
                config.offsets[name] = start
                config.visited[name] = [*config.visited.get(name, ()), *fresh]

    def chain_state(self, adapter_name: str = "default") -> dict[str, torch.Tensor]:
        """Where the chain stands: per layer the first column of the block and the visited columns."""
        config = self.peft_config[adapter_name]
        return {
            name: torch.tensor([offset, *config.visited.get(name, [])])
            for name, offset in config.offsets.items()
        }

    def load_chain_state(self, state: Mapping[str, torch.Tensor], adapter_name: str = "default") -> None:
        """Puts the chain where `state` says; the numbers themselves have to be loaded afterwards."""
        config = self.peft_config[adapter_name]
        for layer in self.modules():
            if isinstance(layer, ClaLayer) and adapter_name in layer.values:
                start, *visited = state[layer.layer_name].tolist()
                where = Slice.block(COLUMNS, start, config.r, layer.in_features)
                layer.restart(adapter_name, where, visited)
                config.offsets[layer.layer_name] = start
                if visited:
                    config.visited[layer.layer_name] = visited

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Keeps columns in place in the weight's type, which they share memory with; factors may be wider."""
        if not autocast_adapter_dtype:
            return
        for layer in self.modules():
            if isinstance(layer, ClaFactorLayer) and adapter_name in layer.values:
                factor = layer.values[adapter_name]
                if factor.dtype in (torch.float16, torch.bfloat16):
                    factor.data = factor.data.float()

    def _unload_and_optionally_merge(self, merge: bool = True, **kwargs: Any) -> nn.Module:
        if not merge:
            unplace(self.model)
        self.__dict__.pop("wrapped_layers", None)
        return super()._unload_and_optionally_merge(merge=merge, **kwargs)


def _is_target(config: ClaConfig, name: str, module: nn.Module) -> bool:
    inside_wrapper = not isinstance(module, BaseTunerLayer) and ".base_layer" in f".{name}"
    return bool(name) and not inside_wrapper and bool(check_target_module_exists(config, name))
