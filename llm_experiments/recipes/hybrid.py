"""Hybrid: a few blocks train fully, the others by S2FT or LoRA."""

from __future__ import annotations

import re
from typing import Any

from peft import LoraConfig
from peft.utils.other import ModulesToSaveWrapper
from torch import nn

from llm_experiments.recipes.base import Method, PeftTuned, Request, Tuned, with_peft
from llm_experiments.recipes.lora import spread_rank
from llm_experiments.recipes.s2ft import size_of_structures, trained_numbers
from llm_experiments.tuners import S2FTConfig
from llm_experiments.tuners.architectures import Block, block_of, blocks, linear, structures


class HybridTuned(PeftTuned):
    """An adapter whose extra modules, whole blocks, belong to the method."""

    def counted(self) -> int:
        """All trainable parameters, the whole blocks included."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def _merge(self) -> nn.Module:
        # peft puts back extra modules only if they have a weight of their own; a block has none.
        for parent in list(self.model.base_model.model.modules()):
            for name, child in parent.named_children():
                if isinstance(child, ModulesToSaveWrapper):
                    parent._modules[name] = child.modules_to_save["default"]
        return super()._merge()


def _rest(block: Block, numbers: list[str], names: list[str]) -> str:
    """A pattern of the named layers in the blocks with these numbers."""
    return rf"(.*\.)?({'|'.join(numbers)})\.({'|'.join(re.escape(name) for name in names)})"


def hybrid(model: nn.Module, request: Request) -> Tuned:
    """The last `full_blocks` (1) blocks train fully; the budget goes to `rest` (`s2ft` or `lora`) on the others.

    Source: an open question of the PEFT-vs-FFT paper; which blocks is a choice made here (the last ones).
    """
    options: dict[str, Any] = {"full_blocks": 1, "rest": "s2ft"}
    unknown = sorted(set(request.options) - set(options))
    if unknown:
        msg = f"options must be among {sorted(options)}; got {unknown}"
        raise ValueError(msg)
    options |= request.options
    parts, block = blocks(model), block_of(model)
    if not 1 <= options["full_blocks"] < len(parts):
        msg = f"full_blocks must satisfy 1 <= full_blocks < {len(parts)} blocks; got {options['full_blocks']}"
        raise ValueError(msg)
    names = list(parts)
    whole, others = names[-options["full_blocks"] :], names[: -options["full_blocks"]]
    numbers = [name.rpartition(".")[2] for name in others]
    wholes = sum(p.numel() for name in whole for p in parts[name].parameters())
    if options["rest"] == "s2ft":
        found = [s for s in structures(model) if s.name.partition("/")[0] in others]
        size = size_of_structures(model, found, request.budget)
        targets = [block.output] * bool(size["heads"]) + [block.down]
        config = S2FTConfig(
            **size, seed=request.seed, target_modules=_rest(block, numbers, targets), modules_to_save=whole
        )
        formula = trained_numbers(model, config)
        options |= size
    elif options["rest"] == "lora":
        layers = [block.output, block.down, block.value, *block.up, block.query, block.key]
        sizes = [linear(model, f"{name}.{layer}") for name in others for layer in layers]
        cost = sum(m.in_features + m.out_features for m in sizes)
        rank = spread_rank({"all": cost}, request.budget)["all"]
        targets = _rest(block, numbers, layers)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, modules_to_save=whole)
        formula = rank * cost
        options |= {"r": rank}
    else:
        msg = f"rest must be s2ft or lora; got {options['rest']!r}"
        raise ValueError(msg)
    return with_peft(model, config, formula + wholes, request.seed, options, tuned=HybridTuned)


METHODS = (
    Method(
        name="hybrid",
        recipe=hybrid,
        trains="the last block fully, the others by S2FT (or LoRA)",
        source="open question 2 of the PEFT-vs-FFT paper (arXiv:2505.22355)",
        uses_budget=False,
    ),
)
