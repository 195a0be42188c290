"""What merging a change into a weight of few bits loses, and whether taking it out gives the weight back.

The merged weight is `round(W0 + delta_W)` in the given dtype, entry by entry, with `W0` rounded to that dtype
first. Three numbers say what became of the change; all are exact counts or float64 norms of this one merge.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llm_experiments.probes.spectra import norm

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class MergeError:
    """The merge in one dtype.

    Attributes:
        dtype: its name.
        error: |merged - (W0 + delta_W)|_F / |delta_W|_F; None if the merge overflows.
        lost: share of the changed entries that the merge leaves as they were.
        not_restored: share of all entries that differ from `W0` after `round(merged - delta_W)`.
    """

    dtype: str
    error: float | None
    lost: float
    not_restored: float


def merge_errors(W0: Tensor, delta_W: Tensor) -> list[MergeError]:
    """The merge of a change (n x m) in float32, bfloat16 and float16, block of rows by block of rows."""
    size, changed = norm(delta_W), int((delta_W != 0).sum())
    if not changed:
        return [MergeError(name, 0.0, 0.0, 0.0) for name in DTYPES]
    found = []
    for name, dtype in DTYPES.items():
        squared, lost, other, overflow = 0.0, 0, 0, False
        for old, step in zip(W0.split(1024), delta_W.split(1024), strict=True):
            start = old.to(dtype)
            # In float64 the sum of two numbers of these sizes is exact to 53 bits: one rounding is measured.
            exact = start.double() + step.double()
            merged = exact.to(dtype)
            overflow |= not bool(torch.isfinite(merged).all())
            squared += norm(merged.double() - exact) ** 2
            lost += int(((merged == start) & (step != 0)).sum())
            other += int(((merged.double() - step.double()).to(dtype) != start).sum())
        error = None if overflow else squared**0.5 / size
        found.append(MergeError(name, error, lost / changed, other / delta_W.numel()))
    return found
