"""Renumbers coupled heads and channels so that chosen ones stand side by side, and undoes it.

The network computes the same function: every sum runs over the same terms in another order, so outputs
agree to rounding (a few units in the last place of the activations), not bit for bit. Weights are moved,
never recomputed, hence undoing the renumbering restores every entry bit for bit.

Source: S2FT (arXiv:2412.06289), Sections 3.1 and 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from llm_experiments.tuners.architectures import Structure, linear


def contiguous_order(structure: Structure, chosen: Sequence[int]) -> list[int]:
    """An order of all heads or channels in which the chosen ones are neighbours.

    With grouped queries the key-value groups stay whole: completely chosen groups stand together, and at most
    two partly chosen groups flank them.

    Returns:
        `order[new] = old`.

    Raises:
        ValueError: more than two key-value groups are chosen in part.
    """
    group = structure.group
    if group == 1:
        taken = set(chosen)
        return [*chosen, *(c for c in range(structure.count) if c not in taken)]
    taken = set(chosen)
    members = [list(range(g, g + group)) for g in range(0, structure.count, group)]
    whole = [m for m in members if taken.issuperset(m)]
    partial = [m for m in members if 0 < len(taken.intersection(m)) < group]
    rest = [m for m in members if taken.isdisjoint(m)]
    if len(partial) > 2:
        msg = (
            f"heads of {structure.name} must fill all but two of their groups of {group} query heads to be "
            f"made neighbours; {sorted(taken)} leave {len(partial)} groups in part; "
            "choose whole groups or layout='gather'"
        )
        raise ValueError(msg)
    before = sorted(partial[0], key=lambda h: (h in taken, h)) if partial else []
    after = sorted(partial[1], key=lambda h: (h not in taken, h)) if len(partial) == 2 else []
    return [*before, *(h for m in whole for h in m), *after, *(h for m in rest for h in m)]


def channel_index(units: Sequence[int], width: int) -> list[int]:
    """Expands head numbers to the numbers of their `width` channels."""
    return [unit * width + i for unit in units for i in range(width)]


@torch.no_grad()
def renumber(model: nn.Module, structure: Structure, order: Sequence[int]) -> None:
    """Moves rows and columns of the structure's layers so that position `i` holds what `order[i]` held."""
    out = linear(model, structure.outgoing)
    index = torch.tensor(channel_index(order, structure.width), device=out.weight.device)
    out.weight.copy_(out.weight.index_select(1, index))
    for name in structure.incoming:
        layer = linear(model, name)
        rows = index
        if structure.shares_key_values(name):
            groups = [order[i] // structure.group for i in range(0, structure.count, structure.group)]
            rows = torch.tensor(channel_index(groups, structure.width), device=index.device)
        for tensor in (layer.weight, layer.bias):
            if tensor is not None:
                tensor.copy_(_rows(tensor, rows))


def _rows(tensor: Tensor, index: Tensor) -> Tensor:
    return tensor.index_select(0, index.to(tensor.device))


def inverse(order: Sequence[int]) -> list[int]:
    """The order that undoes `order`: `inverse[old] = new`."""
    back = [0] * len(order)
    for new, old in enumerate(order):
        back[old] = new
    return back
