"""What `accelerate launch` runs in test_accelerate.py: a few steps of some methods, each process on its share.

Usage: two_processes.py OUT [METHOD ...]. Writes the tensors that each method learned, from the first process.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from llm_experiments import methods
from llm_experiments.methods import Budget

STEPS, BATCH, LENGTH, VOCABULARY = 5, 4, 7, 64


def tiny_llama() -> LlamaForCausalLM:
    """The same weights in every process."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    return LlamaForCausalLM(config).double()


def learned(name: str, accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """The method's tensors after `STEPS` steps, of which every process saw its part of each batch."""
    options = {"every": 2} if "chain" in methods.get(name).schedule else {}
    tuned = methods.get(name).apply(tiny_llama(), Budget.ratio(0.15), 0, **options)
    optimizer = tuned.optimizer(lr=0.02)
    network, optimizer = accelerator.prepare(tuned.model, optimizer)
    share = BATCH // accelerator.num_processes
    mine = slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(VOCABULARY, (BATCH, LENGTH), generator=generator)[mine]
        optimizer.zero_grad()
        loss = network(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
        accelerator.backward(loss)
        optimizer.step()
        tuned.schedule.on_step_end(step, optimizer.optimizer)
    return {key: tensor.detach().clone().contiguous() for key, tensor in tuned.state().items()}


def main() -> None:
    """Trains every method and writes what it learned."""
    out, *names = sys.argv[1:]
    warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    for name in names:
        tensors = learned(name, accelerator)
        if accelerator.is_main_process:
            save_file(
                tensors, Path(out) / f"{name}.safetensors", {"processes": str(accelerator.num_processes)}
            )
        accelerator.wait_for_everyone()
        accelerator.free_memory()


if __name__ == "__main__":
    main()
