"""How near a method of a given size could have come to a weight change.

The image of a method is the set of changes that it can express; the distance to it is the smallest relative
Frobenius distance `|delta_W - X|_F / |delta_W|_F` over all `X` in it, whatever training would find. Sizes are
compared at one number of trained parameters, `p = r (n + m)` for LoRA of rank r on an n x m weight.

Sources: Eckart-Young-Mirsky for rank r; for columns, rows and entries the best choice keeps the largest energies.
S2FT (arXiv:2412.06289) Assumption F.4 for `delta` of the best s rows; LoRA past, present and future, eq. 5 and
Algorithm 2 for blocks of columns; a random row space of dimension k holds k / m of the energy on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llm_experiments.probes.spectra import Spectrum, norm

ARITHMETIC = 4e-6  # relative error that our own float32 products and sums may leave


@dataclass(frozen=True)
class Energies:
    """Squared norms of columns and rows, and which of them changed at all."""

    columns: Tensor
    rows: Tensor
    changed_columns: Tensor
    changed_rows: Tensor
    changed_entries: int


def energies(delta_W: Tensor) -> Energies:
    """Column and row energies of a change (n x m), float64."""
    columns = torch.linalg.vector_norm(delta_W, dim=0, dtype=torch.float64).square()
    rows = torch.linalg.vector_norm(delta_W, dim=1, dtype=torch.float64).square()
    moved = delta_W != 0
    return Energies(columns, rows, moved.any(0), moved.any(1), int(moved.sum()))


def outside(sorted_energies: Tensor, kept: int) -> float:
    """Share of the norm outside the `kept` largest energies (descending): the delta of Assumption F.4."""
    total = float(sorted_energies.sum())
    return math.sqrt(min(1.0, float(sorted_energies[kept:].sum()) / total)) if total else 0.0


def best_window(columns: Tensor, width: int) -> float:
    """Distance to the best block of `width` columns that random-cLA may draw.

    Its offset is a multiple of the width where that divides the number of columns, else anything, cyclic.
    """
    m, total = len(columns), float(columns.sum())
    if width >= m or not total:
        return 0.0
    if m % width == 0:
        held = columns.reshape(-1, width).sum(1)
    else:
        held = torch.cat([columns, columns[: width - 1]]).unfold(0, width, 1).sum(1)
    best = int(held.argmax()) * (width if m % width == 0 else 1)
    inside = torch.zeros(m, dtype=torch.bool)
    inside[(torch.arange(width) + best) % m] = True
    return math.sqrt(float(columns[~inside].sum()) / total)


def largest_entries(delta_W: Tensor, count: int) -> Tensor:
    """Cumulative energy of the `count` largest entries, descending, float64."""
    flat = delta_W.abs().flatten()
    return flat.topk(min(count, flat.numel())).values.double().square().cumsum(0)


def distances(delta_W: Tensor, spectrum: Spectrum, found: Energies, ranks: list[int]) -> list[dict[str, Any]]:
    """One row for each LoRA rank: what every method of the same number of parameters would leave over.

    Args:
        delta_W: change, n x m.
        spectrum: of it; where it is a sketch, the column `lora` is an upper bound.
        found: its energies.
        ranks: LoRA ranks; those above min(n, m) are left out.
    """
    n, m = delta_W.shape
    ranks = [r for r in ranks if r <= min(n, m)]
    if not ranks:
        return []
    by_column, by_row = found.columns.sort(descending=True).values, found.rows.sort(descending=True).values
    total = float(found.columns.sum())
    sizes = {r: min(r * (n + m), n * m) for r in ranks}
    entries = largest_entries(delta_W, max(sizes.values()) if total else 1)
    rows = []
    for r, p in sizes.items():
        s_columns, s_rows = min(p // n, m), min(p // m, n)
        left = max(0.0, total - float(entries[p - 1])) if total else 0.0
        rows.append(
            {
                "rank": r,
                "parameters": p,
                "columns": s_columns,
                "rows": s_rows,
                "lora": spectrum.relative_tail(r),
                "asym_lora": math.sqrt(1 - s_columns / m) if total else 0.0,
                "s2ft_columns": outside(by_column, s_columns),
                "s2ft_rows": outside(by_row, s_rows),
                "cla": outside(found.columns, s_columns),
                "random_cla": best_window(found.columns, s_columns),
                "spft": math.sqrt(left / total) if total and p < n * m else 0.0,
            }
        )
    return rows


def rounding(tuned: Tensor, stored: torch.dtype | None) -> float:
    """Largest Frobenius norm that one rounding of the tuned weight to its stored dtype can have added."""
    if stored is None:
        return 0.0
    info = torch.finfo(stored)
    underflow = info.smallest_normal * info.eps / 2 * math.sqrt(tuned.numel())
    return info.eps / 2 * norm(tuned) + underflow


def needed(spectrum: Spectrum, found: Energies, noise: float) -> dict[str, int | None]:
    """The smallest size of each method that the change can have come from.

    Columns and rows are counted exactly: rounding never moves a weight that was not changed. A rank counts as
    enough when what is left is no more than rounding of the tuned weight can explain.

    Args:
        spectrum: of the change.
        found: its energies.
        noise: see `rounding`.

    Returns:
        lora: rank (None: more than the sketch shows); columns, rows, entries that changed; cla: columns from
        the first to the last changed one.
    """
    allowed = (noise + ARITHMETIC * math.sqrt(spectrum.energy)) ** 2
    lora = next((r for r in range(len(spectrum.values) + 1) if spectrum.tail(r) <= allowed), None)
    changed = found.changed_columns.nonzero()
    return {
        "lora": lora,
        "columns": int(found.changed_columns.sum()),
        "rows": int(found.changed_rows.sum()),
        "entries": found.changed_entries,
        "cla": int(changed[-1]) + 1 if len(changed) else 0,
    }
