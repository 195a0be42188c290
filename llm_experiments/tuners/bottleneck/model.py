"""The bottleneck tuner: wraps the layers that end sublayers."""

from __future__ import annotations

from typing import Any

from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from llm_experiments.tuners.architectures import ARCHITECTURES, block_of, layers_named, linear, structures
from llm_experiments.tuners.bottleneck.config import BottleneckConfig
from llm_experiments.tuners.bottleneck.layer import BottleneckLayer


class BottleneckModel(BaseTuner):
    """A model with small trained networks after or beside its sublayers; it cannot be merged.

    Made by `peft.get_peft_model(model, BottleneckConfig(...))`.

    Source: Houlsby et al. (arXiv:1902.00751); He et al. (arXiv:2110.04366).
    """

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, list[str]] = {}

    def _prepare_adapter_config(self, peft_config: BottleneckConfig, model_config: dict) -> BottleneckConfig:
        if peft_config.target_modules is None:
            block = block_of(self.model)
            if block is None:
                msg = f"target_modules must be given for models other than {', '.join(ARCHITECTURES)}"
                raise ValueError(msg)
            names = [block.down] if peft_config.form == "parallel" else [block.output, block.down]
            peft_config.target_modules = layers_named(*names)
        return peft_config

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        layer = target
        if not isinstance(target, BottleneckLayer):
            entrance = self._entrance(current_key) if peft_config.form == "parallel" else None
            layer = BottleneckLayer(target, current_key, entrance)
            layer.set_adapter(self.active_adapters)
        elif layer.needs_sublayer != (peft_config.form == "parallel"):
            msg = f"adapters must share their form; {current_key} has another than {peft_config.form!r}"
            raise ValueError(msg)
        layer.add_adapter(adapter_name, peft_config.width)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    def _entrance(self, name: str) -> nn.Linear:
        for structure in structures(self.model):
            if structure.kind == "channels" and structure.outgoing == name:
                return linear(self.model, structure.incoming[0])
        msg = f"{name} must be a down projection to have a feed-forward sublayer beside which to work"
        raise ValueError(msg)

    def _unload_and_optionally_merge(self, merge: bool = True, **kwargs: Any) -> nn.Module:
        layers = [m for m in self.model.modules() if isinstance(m, BottleneckLayer)]
        model = super()._unload_and_optionally_merge(merge=merge, **kwargs)
        for layer in layers:
            layer.close()
        return model
