"""The S2FT tuner: selects, renumbers coupled channels, and wraps the targeted layers."""

from __future__ import annotations

from typing import Any

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers
from torch import nn

from llm_experiments.tuners.architectures import ARCHITECTURES, Structure, block_of, layers_named, structures
from llm_experiments.tuners.permutation import channel_index, contiguous_order, inverse, renumber
from llm_experiments.tuners.s2ft.config import S2FTConfig
from llm_experiments.tuners.s2ft.layer import S2FTLayer
from llm_experiments.tuners.s2ft.selection import select, targeted_structures
from llm_experiments.tuners.slices import COLUMNS, ROWS, Slice, refuse_tied_weights, unplace


def default_targets(model: nn.Module, config: S2FTConfig) -> str:
    """Output projections if heads are to train, down projections if channels are, as a pattern for peft.

    Raises:
        ValueError: the model is not in the table of architectures.
    """
    block = block_of(model)
    if block is None:
        msg = f"target_modules must be given for models other than {', '.join(ARCHITECTURES)}"
        raise ValueError(msg)
    names = [block.output] * bool(config.heads) + [block.down] * bool(config.channels)
    return layers_named(*names)


class S2FTModel(BaseTuner):
    """A model some of whose attention heads and feed-forward channels train.

    Made by `peft.get_peft_model(model, S2FTConfig(...))`. With `layout='permute'` the coupled channels are
    renumbered in the base model while the adapter is attached; `merge_and_unload` and `unload` put them back.

    Source: S2FT (arXiv:2412.06289).
    """

    prefix = "s2ft_"
    tuner_layer_cls = S2FTLayer
    target_module_mapping: dict[str, list[str]] = {}

    def _pre_injection_hook(self, model: nn.Module, config: S2FTConfig, adapter_name: str) -> None:
        self.orders: dict[str, list[int]] = {}  # structure name -> order[new] = old, where it was renumbered
        self._plan: dict[str, Slice] = {}

    def _prepare_adapter_config(self, peft_config: S2FTConfig, model_config: dict) -> S2FTConfig:
        if peft_config.target_modules is None:
            peft_config.target_modules = default_targets(self.model, peft_config)
        return peft_config

    def _prepare_model(self, peft_config: S2FTConfig, model: nn.Module) -> None:
        _maybe_include_all_linear_layers(peft_config, model)
        targets = targeted_structures(model, peft_config)
        refuse_tied_weights(model, [name for names in targets.values() for name in names])
        if peft_config.selected is None:
            with _pretrained_weights(model):
                peft_config.selected = select(model, peft_config)
        missing = sorted(s.name for s in targets if s.name not in peft_config.selected)
        if missing:
            msg = f"selected must name every targeted structure; {', '.join(missing)} is missing"
            raise ValueError(msg)
        self._plan = {}
        for structure, names in targets.items():
            chosen = self._number(model, peft_config, structure)
            for name in names:
                self._plan[name] = _slice_of(structure, name, chosen)

    def _number(self, model: nn.Module, config: S2FTConfig, structure: Structure) -> list[int]:
        """Renumbers the structure if the layout asks for it; returns where the chosen units stand now."""
        chosen = config.selected[structure.name]
        layers = [model.get_submodule(name) for name in (*structure.incoming, structure.outgoing)]
        wrapped = any(isinstance(layer, BaseTunerLayer) for layer in layers)
        # A free-standing layer has no partner to renumber, and an adapter that is there knows its positions.
        if config.layout == "permute" and structure.incoming and not wrapped:
            order = contiguous_order(structure, chosen)
            if order != sorted(order):
                renumber(model, structure, order)
                self.orders[structure.name] = order
            if structure.group > 1:
                chosen = config.selected[structure.name] = [h for h in order if h in set(chosen)]
        order = self.orders.get(structure.name)
        if order is None:
            return chosen
        position = inverse(order)
        return [position[unit] for unit in chosen]

    def _create_and_replace(
        self,
        peft_config: S2FTConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        where = self._plan[current_key]
        if isinstance(target, S2FTLayer):
            target.add_slice(adapter_name, where, perturb=peft_config.perturb)
            return
        layer = S2FTLayer(target, current_key)
        layer.set_adapter(self.active_adapters)
        layer.add_slice(adapter_name, where, perturb=peft_config.perturb)
        self._replace_module(parent, target_name, layer, target)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Leaves slices in the weight's own type, which they share memory with."""

    def _unload_and_optionally_merge(self, merge: bool = True, **kwargs: Any) -> nn.Module:
        if not merge:
            unplace(self.model)
        model = super()._unload_and_optionally_merge(merge=merge, **kwargs)
        for structure in structures(model):
            order = self.orders.pop(structure.name, None)
            if order is not None:
                renumber(model, structure, inverse(order))
        return model


def _slice_of(structure: Structure, name: str, units: list[int]) -> Slice:
    """The rows or columns of one layer that belong to the heads or channels standing at `units`."""
    if name == structure.outgoing:
        return Slice(COLUMNS, tuple(channel_index(units, structure.width)))
    if structure.shares_key_values(name):
        groups = list(dict.fromkeys(unit // structure.group for unit in units))
        if len(groups) * structure.group != len(units):
            msg = (
                f"{name} is shared by {structure.group} query heads, so it can train only for whole groups; "
                f"got {len(units)} heads in {len(groups)} groups; choose whole groups or leave {name} out"
            )
            raise ValueError(msg)
        units = groups
    return Slice(ROWS, tuple(channel_index(units, structure.width)))


class _pretrained_weights:  # noqa: N801 - reads as a statement
    """Shows the pretrained weights while a selection looks at them."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = [m for m in model.modules() if isinstance(m, S2FTLayer)]

    def __enter__(self) -> None:
        for layer in self.layers:
            layer.lift()

    def __exit__(self, *error: object) -> None:
        for layer in self.layers:
            layer.place()
