"""Algorithms 1 to 4 as executable code: chains of steps on B with A = [0 | I_r | 0], exact on every kit.

Source: LoRA past, present, future, Appendix B. W (m x n) from a minimiser, Q (n x n) the curvature of the loss
<W, W Q> / 2 with gradient W Q, B (m x r), A = U' (r x n) with U = I[:, offset .. offset + r - 1], step gamma, c = alpha/r.
Algorithms 1 and 2 are the runs without a re-initialisation.

`printed_starts` are the steps at which Algorithms 3 and 4 merge and shift: all t in 1..T that floor(T/k) divides.
`repaired_starts` are the first steps of chains 2, ..., k, each chain of floor(T/k) steps and the last of the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from theory.claim import Json
from theory.evidence import Custom, evaluate
from theory.lora_variants import setting
from theory.protocol import Instance, Kit, Mat, Statement


def printed_starts(steps: int, chains: int) -> list[int]:
    """The t in 1..T with t = 0 modulo floor(T/k); none for k > T, where that modulus is zero."""
    length = steps // chains
    return [t for t in range(1, steps + 1) if length and t % length == 0]


def repaired_starts(steps: int, chains: int) -> list[int]:
    """The first steps of chains 2, ..., k; none if there are fewer steps than chains (then nothing is defined)."""
    length = steps // chains
    return [1 + j * length for j in range(1, chains)] if length else []


def counters(steps: int, starts: Sequence[int]) -> list[int]:
    """The chain counter c at steps 1, ..., T, after the re-initialisation of that step."""
    return [sum(start <= t for start in starts) for t in range(1, steps + 1)]


def selection(k: Kit, x: Instance, offset: Any) -> Mat:
    """U (n x r) with A = U': columns offset, ..., offset + r - 1 of the identity."""
    return setting.selection(k, x.W.shape[1], x.r, offset, str(offset))


def run(
    k: Kit, x: Instance, starts: Sequence[int], *, old_base: bool = False, old_mask: bool = False
) -> Iterator[tuple[Mat, Mat, Mat]]:
    """(model before, model after, U) of every step.

    Args:
        k: The kit.
        x: W, Q, gamma, scale = alpha / r, r, steps, and the offset of each chain, the first included.
        starts: Steps that begin with a merge and the next offset.
        old_base: The gradient is taken at W_0 + (alpha/r) B A without what was merged.
        old_mask: The columns of the gradient that are used remain those of the first offset.
    """
    base, chain = x.W, 0
    U = first = selection(k, x, x.offsets[0])
    B = k.zeros(x.W.shape[0], U.shape[1])
    for t in range(1, x.steps + 1):
        if t in starts:
            chain += 1
            base = base + x.scale * (B @ U.T)
            U = selection(k, x, x.offsets[chain])
            B = k.zeros(x.W.shape[0], U.shape[1])
        adapter = x.scale * (B @ U.T)
        gradient = ((x.W if old_base else base) + adapter) @ x.Q
        B = B - (x.gamma * x.scale) * (gradient @ (first if old_mask else U))
        yield base + adapter, base + x.scale * (B @ U.T), U


def everywhere(statement: Statement, grid: Sequence[Json]) -> Custom:
    """Evidence by exact evaluation on every instance of a finite grid that meets the hypotheses."""

    def outcomes() -> Json:
        met = [data for data in grid if not evaluate(statement, data)[0].broken_hypotheses]
        return {"instances": len(grid), "meet the hypotheses": len(met), "last": dict(met[-1])}

    def verify(payload: Json) -> str | None:
        for data in grid:
            outcome, _ = evaluate(statement, data)
            if outcome.is_counterexample:
                return f"{outcome.broken_conclusions} fail on {data}"
        return None if payload == outcomes() else f"the grid gives {outcomes()}"

    return Custom("proved_within", outcomes, verify, "every instance of a finite grid, evaluated exactly")
