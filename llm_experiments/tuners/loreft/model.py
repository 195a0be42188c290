"""The LoReFT tuner: wraps transformer blocks."""

from __future__ import annotations

import re
from typing import Any

from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from llm_experiments.tuners.architectures import ARCHITECTURES, blocks
from llm_experiments.tuners.loreft.config import LoreftConfig
from llm_experiments.tuners.loreft.layer import LoreftLayer


class LoreftModel(BaseTuner):
    """A model whose blocks' outputs are edited in learned subspaces; it cannot be merged.

    Made by `peft.get_peft_model(model, LoreftConfig(...))`.

    Source: Wu et al., LoReFT (arXiv:2404.03592).
    """

    prefix = "loreft_"
    tuner_layer_cls = LoreftLayer
    target_module_mapping: dict[str, list[str]] = {}

    def _prepare_adapter_config(self, peft_config: LoreftConfig, model_config: dict) -> LoreftConfig:
        if peft_config.target_modules is None:
            names = list(blocks(self.model))
            if not names:
                msg = f"target_modules must be given for models other than {', '.join(ARCHITECTURES)}"
                raise ValueError(msg)
            peft_config.target_modules = "|".join(re.escape(name) for name in names)
        return peft_config

    def _create_and_replace(
        self,
        peft_config: LoreftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        layer = target
        if not isinstance(target, LoreftLayer):
            layer = LoreftLayer(target, current_key, self.model.config.hidden_size)
            layer.set_adapter(self.active_adapters)
        layer.add_adapter(adapter_name, peft_config.r)
        if layer is not target:
            parent._modules[target_name] = layer
