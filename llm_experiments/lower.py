"""Run the frozen lower layers of a model once, keep their output on disk, tune only the layers above.

Every step then costs what the top layers cost, while the network that is evaluated is still the whole one.
A record made this way says so (`layers 4-6 of 6 tuned`): it is another experiment than tuning all layers.

The lower layers are replaced by pass-through modules instead of being removed, so that layer 3 is still
called layer 3: an adapter trained on cached states loads on the complete model under the same names.
"""

from __future__ import annotations

import copy
import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Skip(nn.Module):
    """Stands where a frozen layer was: hands on the hidden states, whatever else it is called with."""

    def forward(self, hidden_states: torch.Tensor, *arguments: object, **named: object) -> torch.Tensor:
        """Return `hidden_states` (batch x tokens x width) as they are."""
        return hidden_states


class GivenStates(nn.Module):
    """Stands where BERT's embeddings were: the cached states already contain them."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Identity()  # what `get_input_embeddings` finds

    def forward(self, inputs_embeds: torch.Tensor, **named: object) -> torch.Tensor:
        """Return `inputs_embeds` (batch x tokens x width) as they are."""
        return self.word_embeddings(inputs_embeds)


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The transformer blocks of a BERT encoder or of a causal language model, lowest first."""
    return model.encoder.layer if hasattr(model, "encoder") else model.model.layers


class LowerHalf:
    """The embeddings and the `depth` lowest layers of a model, cut out of it, and the cache of their output.

    Constructing it changes `model`: from then on the model takes hidden states as `inputs_embeds`.

    Args:
        model: `BertModel` or a causal language model of the Llama family, in evaluation mode.
        depth: how many layers are run once, 1 <= depth < number of layers.
        digest: SHA-256 (or another name) of the weights; part of the cache's name.

    Raises:
        ValueError: depth leaves no layer to tune.
    """

    def __init__(self, model: nn.Module, depth: int, digest: str) -> None:
        layers = layers_of(model)
        if not 1 <= depth < len(layers):
            message = f"cached_lower must satisfy 1 <= cached_lower < {len(layers)} layers; got {depth}"
            raise ValueError(message)
        self.depth, self.total, self.digest = depth, len(layers), digest
        self.width = model.config.hidden_size
        lower = nn.ModuleList(layers[:depth])
        if hasattr(model, "encoder"):
            self._body = _shallow(model)
            self._body.encoder = _shallow(model.encoder)
            self._body.encoder.layer = lower
            model.embeddings = GivenStates()
        else:
            self._body = _shallow(model.model)
            self._body.layers = lower
            self._body.norm = nn.Identity()  # the final norm belongs to the top
        for index in range(depth):
            layers[index] = Skip()
        self._body.requires_grad_(False)

    def rejoin(self, model: nn.Module) -> None:
        """Put the lower layers back: `model` takes token ids again."""
        layers = layers_of(model)
        mine = self._body.encoder.layer if hasattr(model, "encoder") else self._body.layers
        for index in range(self.depth):
            layers[index] = mine[index]
        if hasattr(model, "encoder"):
            model.embeddings = self._body.embeddings

    @torch.no_grad()
    def run(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Hidden states (batch x tokens x width) after the lower layers."""
        self._body.eval()
        return self._body(input_ids=ids, attention_mask=mask).last_hidden_state

    def states(self, sequences: Sequence[Sequence[int]], pad_id: int, folder: Path) -> States:
        """The lower layers' output for every sequence, computed once and memory-mapped afterwards.

        Args:
            sequences: token ids, one list an example.
            pad_id: fills the shorter sequences of a batch; masked, so its value does not matter.
            folder: where caches lie; the file is named after weights, depth and token ids.
        """
        key = hashlib.sha256(json.dumps([self.digest, self.depth, sequences]).encode()).hexdigest()[:24]
        lengths = np.array([len(sequence) for sequence in sequences])
        target = folder / f"{key}.npy"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # seeds in parallel: one computes, the others read
            if not target.is_file():
                partial = target.with_suffix(".partial")
                self._fill(partial, sequences, lengths, pad_id)
                os.replace(partial, target)
        return States(np.load(target, mmap_mode="r"), lengths)

    def _fill(self, path: Path, sequences: Sequence[Sequence[int]], lengths: np.ndarray, pad_id: int) -> None:
        device = next(self._body.parameters()).device
        starts = np.concatenate([[0], np.cumsum(lengths)])
        shape = (int(starts[-1]), self.width)
        stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        # Neighbours in length share a batch, so that little padding is computed; ties in order of appearance.
        order = np.argsort(lengths, kind="stable")
        for begin in range(0, len(order), 32):
            chosen = order[begin : begin + 32]
            longest = int(lengths[chosen].max())
            ids = torch.full((len(chosen), longest), pad_id)
            for row, index in enumerate(chosen):
                ids[row, : lengths[index]] = torch.tensor(sequences[index])
            mask = (torch.arange(longest) < torch.tensor(lengths[chosen])[:, None]).long()
            output = self.run(ids.to(device), mask.to(device)).float().cpu().numpy()
            for row, index in enumerate(chosen):
                stored[starts[index] : starts[index + 1]] = output[row, : lengths[index]]
        stored.flush()


class States:
    """Memory-mapped hidden states: `states[i]` is the (tokens x width) float32 tensor of example i."""

    def __init__(self, flat: np.ndarray, lengths: np.ndarray) -> None:
        self._flat = flat
        self._starts = np.concatenate([[0], np.cumsum(lengths)])

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self._flat[self._starts[index] : self._starts[index + 1]].copy())


def _shallow(module: nn.Module) -> nn.Module:
    """A module that shares all its children and parameters with `module` but can be given others."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin
