"""Intruder dimensions: singular vectors of the tuned weight that are far from all pretrained ones.

Source: LoRA past, present and future, D.4.2: a left singular vector u of the tuned weight is an intruder for
eps in (0, 1) if |<u, u_k>| < eps for every left singular vector u_k of the pretrained weight.

Where singular values repeat, singular vectors are a free choice, and the count is not a function of the two
weights (claim `lora_variants/intruder_definition`). The count below by *spaces* is one: vectors of equal singular
values, and the left kernel, stand together as one space, and the inner product becomes the length of the
projection on it. A space of the tuned weight with several dimensions counts as far if all of its vectors are, as
near if all of them reach eps in one pretrained space, and is left undecided otherwise.

For eps <= 1 / sqrt(d_out) there is no intruder whatever the change: the squared inner products add up to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TIE = 1e-9  # singular values this close, relative to the largest, have no vectors of their own in float64


@dataclass(frozen=True)
class Intruders:
    """Counts for one threshold.

    Attributes:
        eps: the threshold.
        printed: vectors of the computed decompositions that the paper's words count.
        top: of these, among the ten largest singular values.
        spaces: dimensions that are far from every pretrained space, whatever decomposition is computed.
        undecided: dimensions of tuned spaces that are partly near.
        possible: False if eps <= 1 / sqrt(d_out), where no change has intruders.
    """

    eps: float
    printed: int
    top: int
    spaces: int
    undecided: int
    possible: bool


def tied(values: Tensor) -> list[tuple[int, int]]:
    """Ranges of equal values in a descending list; values that are zero, the kernel, are left out."""
    scale = float(values[0]) if len(values) else 0.0
    positive = int((values > TIE * scale).sum()) if scale else 0
    starts = [i for i in range(positive) if i == 0 or float(values[i - 1] - values[i]) > TIE * scale]
    return list(zip(starts, [*starts[1:], positive], strict=True))


def intruders(W0: Tensor, tuned: Tensor, thresholds: list[float], top: int = 10) -> list[Intruders]:
    """Counts the intruders of a tuned weight (n x m) for each threshold; full decompositions in float64.

    The paper's U is taken as computed by the thin decomposition, min(n, m) vectors.
    """
    U0, old, _ = torch.linalg.svd(W0.double(), full_matrices=False)
    U1, new, _ = torch.linalg.svd(tuned.double(), full_matrices=False)
    inner = U0.T @ U1
    nearest = inner.abs().amax(0)
    low, high = _reach(inner, tied(old), tied(new))
    found = []
    for eps in thresholds:
        far = nearest < eps
        sizes = torch.tensor([stop - start for start, stop in tied(new)])
        out, near = high < eps, low >= eps
        found.append(
            Intruders(
                eps=eps,
                printed=int(far.sum()),
                top=int(far[:top].sum()),
                spaces=int(sizes[out].sum()),
                undecided=int(sizes[~out & ~near].sum()),
                possible=eps > 1 / math.sqrt(W0.shape[0]),
            )
        )
    return found


def _reach(inner: Tensor, old: list[tuple[int, int]], new: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """For each tuned space: how far all, and how far at least one, of its unit vectors reach into one old space.

    `low` is the largest over pretrained spaces of the smallest projection, `high` that of the largest.
    """
    low, high = torch.zeros(len(new), dtype=torch.float64), torch.zeros(len(new), dtype=torch.float64)
    held = old[-1][1] if old else 0
    lines = torch.tensor([start for start, stop in old if stop - start == 1], dtype=torch.long)
    several = [(start, stop) for start, stop in old if stop - start > 1]
    for i, (start, stop) in enumerate(new):
        block = inner[:held, start:stop]
        kernel = torch.eye(stop - start, dtype=torch.float64) - block.T @ block
        grams = [kernel, *(block[a:b].T @ block[a:b] for a, b in several)]
        ends = [torch.linalg.eigvalsh(gram) for gram in grams]
        line = float(block[lines].square().sum(1).max()) if len(lines) else 0.0
        # No line is near to every direction of a plane: it reaches one of them, and is orthogonal to others.
        low[i] = max(0.0, line if stop - start == 1 else 0.0, *(float(e[0]) for e in ends)) ** 0.5
        high[i] = max(0.0, line, *(float(e[-1]) for e in ends)) ** 0.5
    return low, high
