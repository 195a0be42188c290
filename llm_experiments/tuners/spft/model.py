"""The SpFT tuner: wraps every targeted linear layer with its random mask."""

from __future__ import annotations

from typing import Any

from peft.tuners.tuners_utils import BaseTuner, _maybe_include_all_linear_layers
from torch import nn

from llm_experiments.tuners.architectures import block_linears
from llm_experiments.tuners.slices import refuse_tied_weights, unplace
from llm_experiments.tuners.spft.config import SpftConfig
from llm_experiments.tuners.spft.layer import SpftLayer, random_entries


class SpftModel(BaseTuner):
    """A model of whose linear layers random single entries train.

    Made by `peft.get_peft_model(model, SpftConfig(...))`.

    Source: S2FT (arXiv:2412.06289), Section 2.
    """

    prefix = "spft_"
    tuner_layer_cls = SpftLayer
    target_module_mapping: dict[str, list[str]] = {}

    def _prepare_adapter_config(self, peft_config: SpftConfig, model_config: dict) -> SpftConfig:
        if peft_config.target_modules is None:
            peft_config.target_modules = block_linears(self.model)
        return peft_config

    def _prepare_model(self, peft_config: SpftConfig, model: nn.Module) -> None:
        _maybe_include_all_linear_layers(peft_config, model)

    def _create_and_replace(
        self,
        peft_config: SpftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        layer = target
        if not isinstance(target, SpftLayer):
            layer = SpftLayer(target, current_key)
            refuse_tied_weights(self.model, [current_key])
            layer.set_adapter(self.active_adapters)
        shape = (layer.out_features, layer.in_features)
        layer.add_slice(adapter_name, random_entries(shape, peft_config.ratio, peft_config.seed, current_key))
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Leaves the entries in the weight's own type."""

    def _unload_and_optionally_merge(self, merge: bool = True, **kwargs: Any) -> nn.Module:
        if not merge:
            unplace(self.model)
        return super()._unload_and_optionally_merge(merge=merge, **kwargs)
