"""Which kinds of instances a search has met: rank, tie, alignment and scale classes of each matrix.

A search that never met a rank-deficient or a tied instance has said little about them; the record names such
classes.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from theory.protocol import Instance, Mat

Array = Any


def classes(x: Instance, meets: Array) -> dict[str, bool]:
    """Class name -> whether some instance of the batch that meets the hypotheses is in it."""
    out: dict[str, bool] = {}
    matrices = {n: v.data for n, v in x.items() if isinstance(v, Mat) and 0 not in v.shape}
    vectors: dict[str, Array] = {}
    for name, data in matrices.items():
        data = np.broadcast_to(data, (len(meets), *data.shape[1:]))
        good = np.isfinite(data).all(axis=(1, 2)) & meets
        if not good.any():
            continue
        values = np.linalg.svd(data[good], compute_uv=False)
        top = values[:, 0]
        least = values.shape[1]
        rank = (values > 1e-9 * top[:, None] + 1e-300).sum(axis=1)
        out[f"{name} = 0"] = bool((top == 0).any())
        out[f"{name} large (over 100)"] = bool((top > 100).any())
        out[f"{name} tiny (below 1/100)"] = bool(((top < 0.01) & (top > 0)).any())
        if least > 1:
            out[f"{name} of full rank"] = bool((rank == least).any())
            out[f"{name} rank-deficient"] = bool(((rank < least) & (rank > 0)).any())
            gap = (values[:, :-1] - values[:, 1:]) / (top[:, None] + 1e-300)
            positive = values[:, 1:] > 1e-9 * top[:, None]
            out[f"{name} with equal singular values"] = bool(((gap < 1e-10) & positive).any())
            out[f"{name} with nearly equal singular values"] = bool(
                ((gap < 1e-2) & (gap > 1e-10) & positive).any()
            )
            out[f"{name} ill-conditioned (over 1000)"] = bool(
                ((rank == least) & (top > 1000 * values[:, -1])).any()
            )
        vectors[name] = data
    for a, b in combinations(vectors, 2):
        A, B = vectors[a], vectors[b]
        if A.shape != B.shape:
            continue
        inner = np.einsum("bij,bij->b", A, B)
        norms = np.sqrt(np.einsum("bij,bij->b", A, A) * np.einsum("bij,bij->b", B, B))
        cosine = np.where((norms > 0) & meets & np.isfinite(norms), inner / (norms + 1e-300), np.nan)
        out[f"{a} and {b} aligned"] = bool((cosine > 0.999).any())
        out[f"{a} and {b} opposed"] = bool((cosine < -0.999).any())
        out[f"{a} and {b} orthogonal"] = bool((np.abs(cosine) < 1e-9).any())
    return out
